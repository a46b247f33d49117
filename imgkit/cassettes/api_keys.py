r"""Find API keys and account ids in recorded text, wherever a word starts.

A word starts after any character other than a letter or a digit. It also starts after an escape of JSON,
YAML or a URL: in ``"\nsk-..."`` the key starts after the ``n``.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from urllib.parse import parse_qsl, unquote_plus, urlsplit

from imgkit.redact import Secret, is_secret_name, list_credentials
from imgkit.wire.secret_filter import SecretFilter
from imgkit.wire.secret_finder import MIN_SECRET_LENGTH

_WORD_STARTS = (
    rb"(?<![A-Za-z0-9]%s)",
    rb"(?<=\\[0abefnrtvLNP_]%s)",
    rb"(?<=\\x[0-9A-Fa-f]{2}%s)",
    rb"(?<=\\u[0-9A-Fa-f]{4}%s)",
    rb"(?<=\\U[0-9A-Fa-f]{8}%s)",
    rb"(?<=%%[0-9A-Fa-f]{2}%s)",
)


def _compile_key(prefix: bytes, rest: bytes) -> re.Pattern[bytes]:
    """Compile the pattern of a key; its plain-text prefix makes the search ten times as fast."""
    before = b"|".join(start % prefix for start in _WORD_STARTS)
    return re.compile(b"(" + prefix + b")(?:" + before + b")(?!scrubbed\\b)" + rest)


_QUERY_LENGTH = 8
"""Shorter values in a query may be ordinary words."""

_KEY_CHARACTERS = rb"[A-Za-z0-9]{20,}"
_VENDOR_KEYS = (
    *(_compile_key(prefix, _KEY_CHARACTERS) for prefix in (b"gsk_", b"hf_", b"r8_", b"sess-", b"xai-")),
    # Base64 may contain this prefix by chance, so the length must match exactly.
    _compile_key(b"AIza", rb"[A-Za-z0-9_-]{35}(?![A-Za-z0-9_+/=-])"),
)
_SCRUBBED_KEYS = (
    _compile_key(b"sk-", rb"[A-Za-z0-9_-]{8,}"),
    *_VENDOR_KEYS,
    *(_compile_key(prefix, rb"[A-Za-z0-9]{8,}\b") for prefix in (b"org-", b"proj_", b"req_")),
)
_SUSPECTED_KEYS = (
    _compile_key(b"sk-", rb"[A-Za-z0-9_-]{16,}"),
    _compile_key(b"Bearer", rb"(?:[\s\\]|%20)+(?!scrubbed\b)[A-Za-z0-9._~+/-]{16,}"),
    _compile_key(b"AKIA", rb"[0-9A-Z]{16}"),
    _compile_key(b"eyJ", rb"[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}\."),
    *_VENDOR_KEYS,
)


def scrub_keys(text: bytes) -> bytes:
    """Replace keys and account ids in the text; only their prefix stays.

    >>> scrub_keys(b"key sk-0123456789abcdef")
    b'key sk-scrubbed'
    """
    for pattern in _SCRUBBED_KEYS:
        text = pattern.sub(rb"\1scrubbed", text)
    return text


def find_key(text: bytes) -> str | None:
    """Return the first six characters of a suspected key; return None if there is no key.

    >>> find_key(b"Authorization: Bearer 0123456789abcdef")
    'Bearer…'
    """
    for pattern in _SUSPECTED_KEYS:
        match = pattern.search(text)
        if match is not None:
            return f"{match.group()[:6].decode('ascii', 'replace')}…"
    return None


def collect_sent_keys(headers: Mapping[str, str | bytes], secret: Container[str] = ()) -> frozenset[bytes]:
    """Return the credentials in request headers, whatever their form.

    Args:
        headers: Request headers; names in any case.
        secret: Further names of headers that carry keys, in lower case.
    """
    values = (
        value if isinstance(value, str) else value.decode("utf-8", "replace")
        for name, value in headers.items()
        if name.lower() in secret or is_secret_name(name.lower())
    )
    words = (word.encode("utf-8", "surrogateescape") for value in values for word in list_credentials(value))
    return frozenset(word for word in words if len(word) >= MIN_SECRET_LENGTH)


def collect_query_keys(method: str, url: str) -> frozenset[bytes]:
    """Return the long values in the query of a download: they may sign its URL, and stores repeat them.

    Args:
        method: "GET" for a download.
        url: The URL of the request.
    """
    query = urlsplit(url).query if method == "GET" else ""
    values = [*(value for _, value in parse_qsl(query)), *([] if "=" in query else [unquote_plus(query)])]
    return frozenset(
        value.encode("utf-8", "surrogatepass") for value in values if len(value) >= _QUERY_LENGTH
    )


def remove_keys(text: bytes, keys: Iterable[bytes]) -> bytes:
    """Return a reply's text without the keys that the request carried, in any usual spelling.

    Args:
        text: Text that the server may have copied keys into. JSON stays JSON, and images stay whole.
        keys: The credentials, as `collect_sent_keys` returns them.
    """
    for key in sorted(keys, key=len, reverse=True):
        scrubbed = scrub_keys(key)
        if scrubbed != key:
            text = text.replace(key, scrubbed)
    return _build_filter(keys).clean_bytes(text)


def remove_keys_from_headers(headers: Mapping[str, str], keys: Iterable[bytes]) -> dict[str, str]:
    """Return a reply's headers without the keys that the request carried.

    Args:
        headers: Headers that the server may have copied keys into, in any case.
        keys: The credentials, as `collect_sent_keys` returns them.
    """
    secrets = _build_filter(keys)
    return {
        name: secrets.clean_headers({name.lower(): value})[name.lower()] for name, value in headers.items()
    }


def _build_filter(keys: Iterable[bytes]) -> SecretFilter:
    return SecretFilter((Secret(key.decode("utf-8", "replace")) for key in keys), mark="scrubbed")
