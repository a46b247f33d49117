"""Where requests go: base URLs checked, origins, proxies."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from imgkit.errors import ConfigurationError
from imgkit.hookspecs import BackendSpec
from imgkit.providers.base import HostClass, Provider, Target
from imgkit.redact import safe_url

OFFLINE_BASE_URL = "https://offline.imgkit.invalid/v1"
"""Where the offline backend answers; the top-level domain .invalid never resolves (RFC 2606)."""


def target_of(
    dialect: Provider,
    spec: BackendSpec,
    given: Mapping[str, Any],
    model: str | None,
) -> Target:
    """Return where a service's requests go: what is given, else the environment, else the dialect's host.

    Raises:
        ConfigurationError: naming the argument or variable.
    """
    model = model or os.environ.get("IMGKIT_MODEL") or None
    if not spec.reaches_network:
        return Target(base_url=OFFLINE_BASE_URL, host_class="offline", model=model)

    def setting(name: str) -> str | None:
        value = given[name]
        if value is None:
            return os.environ.get(dialect.env.get(name, ""), "").strip() or None
        return _header_safe(name, value)

    source = "base_url" if given["base_url"] is not None else dialect.env.get("base_url", "base_url")
    url = given["base_url"] if given["base_url"] is not None else setting("base_url")
    if url is None and not dialect.base_url:
        raise ConfigurationError(
            "this provider has no address of its own: pass base_url=…"
            + (f" or set {dialect.env['base_url']}" if "base_url" in dialect.env else "")
        )
    base_url = check_base_url(url, source) if url is not None else dialect.base_url
    host_class: HostClass = "official" if _is_official(dialect, origin(base_url)) else "compatible"
    return Target(
        base_url=base_url,
        host_class=host_class,
        organization=_header_safe("organization", setting("organization")),
        project=_header_safe("project", setting("project")),
        model=model,
    )


def _is_official(dialect: Provider, there: tuple[str, str, int]) -> bool:
    if dialect.base_url and there == origin(dialect.base_url):
        return True
    scheme, host, port = there
    names: tuple[str, ...] = getattr(dialect, "official_hosts", ())
    return (scheme, port) == ("https", 443) and any(
        host.endswith(name[1:]) if name.startswith("*.") else host == name for name in names
    )


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


def _header_safe(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"[\x20-\x7e]+", value.strip()):
        raise ConfigurationError(f"{name} must be printable ASCII text that is not empty")
    return value.strip()


def proxy_of(proxy: object, use_env_proxy: bool, base_url: str) -> str | None:
    """Return the URL of the proxy for a host, None for none; the environment is read only if asked to.

    Raises:
        ConfigurationError: it is no URL.
    """
    source = "proxy"
    if proxy is None:
        if not use_env_proxy:
            return None
        scheme, host, port = origin(base_url)
        if proxy_bypass(f"{host}:{port}"):
            return None
        source, proxies = f"{scheme.upper()}_PROXY", getproxies()
        proxy = proxies.get(scheme) or proxies.get("all")
        if proxy is None:
            return None
    if not isinstance(proxy, str) or not re.match(r"https?://[^\s/]", proxy):
        raise ConfigurationError(
            f"{source} must be the URL of an HTTP proxy, such as 'http://proxy.example:3128'"
        )
    return proxy
