"""The base URL of a service, and the origin of a URL."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from imgkit.errors import ConfigurationError
from imgkit.redact import safe_url


def check_base_url(url: object, source: str) -> str:
    """Return a base URL without its trailing slashes.

    Example::

        >>> check_base_url("https://api.openai.com/v1/", "base_url")
        'https://api.openai.com/v1'

    Args:
        url: the value that the caller gave.
        source: the argument or environment variable of the value, for error messages.

    Raises:
        ConfigurationError: no http(s) scheme, no host, credentials, a query, a fragment, or
            characters outside ASCII.
    """
    if not isinstance(url, str) or not re.fullmatch(r"[!-~]+", url) or re.search(r'[\\"<>^`{|}]', url):
        raise ConfigurationError(
            f"{source} is not a URL. Give a URL such as 'https://api.openai.com/v1', and a host "
            "outside ASCII in its xn-- form.",
            field=source,
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"{source} {safe_url(url)!r} is not a URL: {error}.", field=source) from None
    if parts.scheme not in ("http", "https"):
        raise ConfigurationError(
            f"{source} {safe_url(url)!r} does not start with http:// or https://. Write 'https://{url[:80]}'."
            if "@" not in url and "://" not in url
            else f"{source} must start with http:// or https://.",
            field=source,
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(
            f"{source} contains credentials. Remove them and give the API key by itself.", field=source
        )
    if not can_be_host(parts.hostname) or port == 0:
        raise ConfigurationError(f"{source} {safe_url(url)!r} has no valid host to connect to.", field=source)
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ConfigurationError(f"{source} contains '?' or '#'. It must end with its path.", field=source)
    if re.search(r"/images/(generations|edits|variations)/?$", parts.path):
        raise ConfigurationError(
            f"{source} contains '/images/…'. Give the root of the API without it, such as …/v1.",
            field=source,
        )
    return url.rstrip("/")


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
    parts = urlsplit(url)
    return (
        parts.scheme,
        (parts.hostname or "").lower(),
        parts.port or (443 if parts.scheme == "https" else 80),
    )
