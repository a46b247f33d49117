"""The parts of a URL, which keep their bytes."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import urlsplit


def can_be_host(name: str | None) -> bool:
    """Return whether `name` is an IPv6 address or has labels of 1 to 63 characters (RFC 1035)."""
    labels = (name or "").removesuffix(".").split(".")
    return ":" in (name or "") or all(1 <= len(label) <= 63 for label in labels)


def origin(url: str) -> tuple[str, str, int]:
    """Return lower-case scheme, lower-case host and port of a URL.

    A URL without a port has the default port of its scheme.

    Example::

        >>> origin("https://API.example/v1")
        ('https', 'api.example', 443)
    """
    found = _SPLIT_ORIGIN.match(url)
    return _read_origin(url if found is None else found[0])


@lru_cache(maxsize=256)
def _read_origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return (
        parts.scheme,
        (parts.hostname or "").lower(),
        parts.port or (443 if parts.scheme == "https" else 80),
    )


def path_and_query(url: str) -> str:
    """Return path and query of a URL byte for byte, "/" for an empty path.

    Signed URLs and requests are valid only in the spelling that was signed.

    Example::

        >>> path_and_query("https://cdn.example/a//b%3ac.png?sig=x%2Fy")
        '/a//b%3ac.png?sig=x%2Fy'
    """
    rest = _SPLIT_ORIGIN.sub("", url.partition("#")[0], count=1)
    return rest if rest.startswith("/") else f"/{rest}"


def join_url(base: str, reference: str) -> str:
    """Return the URL that a reference means, with its bytes unchanged.

    `urllib.parse.urljoin` folds ``..`` and drops an empty query, which invalidates signatures. This
    function resolves only the dot segments at the beginning of a relative path.

    Example::

        >>> join_url("https://api.example/v1/images", "/files//a/../b%2fc.png")
        'https://api.example/files//a/../b%2fc.png'

    Args:
        base: an absolute http(s) URL.
        reference: an absolute URL, or a part of one.

    Raises:
        ValueError: `reference` is no URL.
    """
    reference = reference.strip()
    urlsplit(reference)
    if re.match(r"[A-Za-z][A-Za-z0-9+.\-]*:", reference):
        return reference
    origin_match = _SPLIT_ORIGIN.match(base)
    prefix = origin_match[0] if origin_match else ""
    if reference.startswith("//"):
        return f"{prefix.partition('//')[0]}{reference}"
    path, question_mark, query = path_and_query(base).partition("?")
    if not reference or reference.startswith("#"):
        return f"{prefix}{path}{question_mark}{query}{reference}"
    if reference.startswith("?"):
        return f"{prefix}{path}{reference}"
    if reference.startswith("/"):
        return f"{prefix}{reference}"
    folder = path.rpartition("/")[0]
    while step := re.match(r"(\.\.?)(?:/|(?=[?#])|\Z)", reference):
        reference = reference[step.end() :]
        if step[1] == "..":
            folder = folder.rpartition("/")[0]
    return f"{prefix}{folder}/{reference}"


def is_loopback(host: str | None) -> bool:
    """Return whether a host name or address usually means this machine.

    The addresses 0.0.0.0 and :: count: servers that listen on all interfaces name them in their URLs.

    Example::

        >>> is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("192.168.0.1")
        (True, True, False)
    """
    return _LOOPBACK.fullmatch(host or "") is not None


_SPLIT_ORIGIN = re.compile(r"\A[^:/?#]+://[^/?#]*")
_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|0\.0\.0\.0|::1?", re.IGNORECASE)
