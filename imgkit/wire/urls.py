"""Where requests go: base URLs checked, origins, proxies."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from imgkit.errors import ConfigurationError
from imgkit.redact import safe_url


def check_base_url(url: object, source: str) -> str:
    """Return a base URL without its trailing slashes.

    Args:
        url: as the caller gave it.
        source: the argument or variable that it came from, for errors.

    Raises:
        ConfigurationError: no http(s) scheme, no host, credentials, a query or fragment, odd characters.
    """
    if not isinstance(url, str) or not re.fullmatch(r"[!-~]+", url) or re.search(r'[\\"<>^`{|}]', url):
        raise ConfigurationError(
            f"{source} is not a URL: give something like 'https://api.openai.com/v1' (a host outside "
            "ASCII in its xn-- form)"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"{source} {safe_url(url)!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise ConfigurationError(
            f"{source} {safe_url(url)!r} has no http:// or https:// in front: write 'https://{url[:80]}'"
            if "@" not in url and "://" not in url
            else f"{source} must start with http:// or https://"
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(f"{source} holds credentials: leave them out, and pass api_key=…")
    if not can_be_host(parts.hostname) or port == 0:
        raise ConfigurationError(f"{source} {safe_url(url)!r} names no host to connect to")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ConfigurationError(f"{source} must end with its path, without '?' or '#'")
    if re.search(r"/images/(generations|edits|variations)/?$", parts.path):
        raise ConfigurationError(f"{source} is the API's root, such as …/v1: leave the '/images/…' off")
    return url.rstrip("/")


def can_be_host(name: str | None) -> bool:
    """Return whether `name` can be that of a host: labels of 1 to 63 characters (RFC 1035), or an address."""
    labels = (name or "").removesuffix(".").split(".")
    return ":" in (name or "") or all(1 <= len(label) <= 63 for label in labels)


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL, lower-case, with the scheme's own port filled in."""
    parts = urlsplit(url)
    return (
        parts.scheme,
        (parts.hostname or "").lower(),
        parts.port or (443 if parts.scheme == "https" else 80),
    )
