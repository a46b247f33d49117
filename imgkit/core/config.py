"""The arguments of a service: defaults, checks, and the target of its requests."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from imgkit.core.arguments import check_model_name, to_plain_arguments, wrap_secrets
from imgkit.errors import ConfigurationError
from imgkit.models import HostClass
from imgkit.plugins.hookspecs import BackendSpec
from imgkit.providers.base import Provider, Target
from imgkit.redact import Secret, safe_url
from imgkit.wire.base_urls import check_base_url, suggest_base_url
from imgkit.wire.messages import AsyncBackend, Backend
from imgkit.wire.plain_values import show_value, to_integer, to_number, type_name
from imgkit.wire.urls import can_be_host, origin

OFFLINE_BASE_URL = "https://offline.imgkit.invalid/v1"
"""Address of the offline backend. The top-level domain .invalid never resolves (RFC 2606)."""

MAX_DURATION_S = 7 * 24 * 3600.0
"""Longest accepted duration, a week in seconds. Longer ones overflow the clocks of some systems."""


class Limits(NamedTuple):
    """The bounds of a call.

    Attributes:
        timeout_s: seconds for the whole call, retries and pauses included.
        connect_timeout_s: seconds for one connection, TLS included.
        read_timeout_s: longest silence in seconds before and within a reply.
        max_reply_bytes: largest reply of the API.
        max_download_bytes: largest image fetched from a result URL.
    """

    timeout_s: float = 600.0
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 300.0
    max_reply_bytes: int = 128 * 1024 * 1024
    max_download_bytes: int = 64 * 1024 * 1024


class ServiceConfig(NamedTuple):
    """The arguments of a service, as its caller gave them. Those that may hold a secret are wrapped.

    `imgkit.ImageService` documents each of them. The limits are None where the caller gave none.
    """

    backend: str | Backend | AsyncBackend | None = None
    provider: str | Provider | None = None
    api_key: Secret | Callable[[], str] | None = None
    base_url: Secret | None = None
    organization: str | None = None
    project: str | None = None
    model: str | None = None
    timeout_s: float | None = None
    connect_timeout_s: float | None = None
    read_timeout_s: float | None = None
    max_reply_bytes: int | None = None
    max_download_bytes: int | None = None
    download_origins: Sequence[str] = ()
    proxy: Secret | None = None
    ca: object = None
    use_env_proxy: bool = False
    reuse_connections: bool = False
    allow_insecure: bool = False
    max_in_flight: int = 256
    retry: object = True
    plugins: Sequence[object] = ()
    state_folder: str | PathLike[str] | None = None
    models: str | PathLike[str] | Mapping[str, object] | None = None
    on_unsupported: str = "raise"
    fixtures: str | PathLike[str] | None = None
    strict: bool = True
    client_options: Mapping[str, object] | None = None

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> ServiceConfig:
        """Return the configuration that `arguments` hold, perhaps among other variables."""
        return cls(**wrap_secrets({name: arguments[name] for name in cls._fields}))

    def to_plain(self) -> ServiceConfig:
        """Return the configuration with plain values. Raises `ConfigurationError` as `to_plain_arguments`."""
        return ServiceConfig(**to_plain_arguments(self._asdict()))

    def list_given(self) -> dict[str, object]:
        """Return the arguments that the caller has given; those that may hold a secret are None."""
        defaults = ServiceConfig()
        given = {
            name: value for name, value in self._asdict().items() if value is not getattr(defaults, name)
        }
        return {name: None if isinstance(value, Secret) else value for name, value in given.items()}

    def __repr__(self) -> str:
        return "ServiceConfig(…)"  # a key may be among the arguments


def check_seconds(name: str, value: object) -> float:
    """Return a duration in seconds as a float.

    Args:
        name: name of the argument, for the error.
        value: any object.

    Raises:
        ConfigurationError: it is no positive number of seconds, or exceeds a week.
    """
    number = to_number(value)
    if number is None or not 0 < number <= MAX_DURATION_S:
        raise ConfigurationError(
            f"{name} must be a positive number of seconds, at most a week, not {show_value(value)}.",
            field=name,
        )
    return float(number)


def parse_limits(config: ServiceConfig) -> Limits:
    """Return the limits of a service. Raises `ConfigurationError` for a value out of range."""
    given: dict[str, Any] = {}
    for name in Limits._fields:
        value = getattr(config, name)
        if value is not None:
            given[name] = check_seconds(name, value) if name.endswith("_s") else check_count(name, value)
    return Limits(**given)


def check_count(name: str, value: object, limit: int | None = None) -> int:
    """Return a whole number from 1 to `limit`. Raises `ConfigurationError` for anything else."""
    number = to_integer(value)
    if number is None or number < 1 or (limit is not None and number > limit):
        span = "from 1 on" if limit is None else f"from 1 to {limit}"
        raise ConfigurationError(
            f"{name} must be a whole number {span}, not {show_value(value)}.", field=name
        )
    return number


def parse_download_origins(value: object) -> frozenset[tuple[str, str, int]]:
    """Return the origins from which results may be downloaded, as `imgkit.wire.urls.origin` does.

    Raises:
        ConfigurationError: the value is no list of origins.
    """
    remedy = "Give a list of scheme, host and port, such as ['http://localhost:9000']."
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise ConfigurationError(f"download_origins is no list. {remedy}", field="download_origins")
    return frozenset(_parse_origin(item, remedy) for item in value)


def _parse_origin(item: object, remedy: str) -> tuple[str, str, int]:
    shown = safe_url(item) if isinstance(item, str) else type_name(item)
    if isinstance(item, str) and re.fullmatch(r"(?i)https?://[a-z0-9.\-_:\[\]]+/?", item):
        try:
            if can_be_host(urlsplit(item).hostname) and urlsplit(item).port != 0:
                return origin(item)
        except ValueError as error:
            shown = f"{shown} ({error})"
    raise ConfigurationError(
        f"download_origins holds {shown!r}, which is no origin. {remedy}", field="download_origins"
    )


def resolve_state_folder(given: str | PathLike[str] | None) -> Path | None:
    """Return the folder for data that outlives the process: the argument, ``IMGKIT_HOME``, or None.

    Raises:
        ConfigurationError: the argument or the variable is no usable path.
    """
    if given is None:
        given = os.environ.get("IMGKIT_HOME") or None
    if given is None:
        return None
    if not isinstance(text := given, str) or "\0" in text:
        raise ConfigurationError(
            "state_folder must be the path of a folder, as str or os.PathLike.", field="state_folder"
        )
    if not text:
        raise ConfigurationError("state_folder is empty. Give the path of a folder.", field="state_folder")
    try:
        return Path(text).expanduser().absolute()
    except (RuntimeError, OSError) as error:
        # The home folder of a user, or the current folder, does not exist.
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"Cannot find state_folder {text[:200]!r}: {reason}. Pass an absolute path.", field="state_folder"
        ) from None


def resolve_target(provider: Provider, spec: BackendSpec, config: ServiceConfig) -> Target:
    """Return the target of a service's requests: from its arguments, the environment, or the provider.

    Raises:
        ConfigurationError: an argument or a variable is wrong; the message names it.
    """
    model = config.model or check_model_name("IMGKIT_MODEL", os.environ.get("IMGKIT_MODEL"))
    if not spec.reaches_network:
        return Target(base_url=OFFLINE_BASE_URL, host_class="offline", model=model)

    def setting(name: str) -> str | None:
        value = getattr(config, name)
        if value is None:
            return os.environ.get(provider.env.get(name, ""), "").strip() or None
        return _check_header_value(name, value)

    def url_setting() -> Secret | None:
        value = os.environ.get(provider.env.get("base_url", ""), "").strip()
        return Secret(value) if value else None

    is_given = config.base_url is not None
    source = "base_url" if is_given else provider.env.get("base_url", "base_url")
    # Wrapped, because it may hold a password by mistake.
    url: Secret | None = config.base_url if is_given else url_setting()
    if url is None and not provider.base_url:
        names = [provider.env[name] for name in ("region", "base_url") if name in provider.env]
        raise ConfigurationError(
            "This provider has no base URL of its own. Pass base_url"
            + (f", or set {' or '.join(names)}." if names else "."),
            field="base_url",
        )
    base_url = check_base_url(url, source, provider.base_url) if url is not None else provider.base_url
    _check_path(provider, base_url, source)
    host_class: HostClass = "official" if _is_official(provider, origin(base_url)) else "compatible"
    return Target(
        base_url=base_url,
        host_class=host_class,
        organization=_check_header_value("organization", setting("organization")),
        project=_check_header_value("project", setting("project")),
        model=model or getattr(provider, "default_model", None),
    )


def _check_path(provider: Provider, base_url: str, source: str) -> None:
    """Refuse the provider's own host without the path of its API: every request would answer 404."""
    path = urlsplit(provider.base_url).path.rstrip("/")
    if path and not urlsplit(base_url).path and _is_official(provider, origin(base_url)):
        raise ConfigurationError(
            f"{source} {safe_url(base_url)!r} lacks the path of the API.",
            hint=suggest_base_url(source, f"{base_url}{path}"),
            field=source,
        )


def _is_official(provider: Provider, place: tuple[str, str, int]) -> bool:
    if provider.base_url and place == origin(provider.base_url):
        return True
    scheme, host, port = place
    return (scheme, port) == ("https", 443) and any(
        host.endswith(name[1:]) if name.startswith("*.") else host == name for name in provider.official_hosts
    )


def _check_header_value(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"[\x20-\x7e]+", value.strip()):
        raise ConfigurationError(f"{name} must be printable ASCII text that is not empty.", field=name)
    return value.strip()


def resolve_proxy(config: ServiceConfig, base_url: str) -> str | None:
    """Return the URL of the proxy for a host, None for a direct connection.

    The environment is read only with ``use_env_proxy``.

    Raises:
        ConfigurationError: the proxy is no URL.
    """
    source, proxy = "proxy", config.proxy
    if proxy is None:
        if not config.use_env_proxy:
            return None
        scheme, host, port = origin(base_url)
        if proxy_bypass(f"{host}:{port}"):
            return None
        source, proxies = f"{scheme.upper()}_PROXY", getproxies()
        environment_proxy = proxies.get(scheme) or proxies.get("all")
        if environment_proxy is None:
            return None
        proxy = Secret(environment_proxy)
        del proxies, environment_proxy
    problem = _find_proxy_problem(proxy.reveal()) if isinstance(proxy, Secret) else "is no text."
    if problem or not isinstance(proxy, Secret):
        raise ConfigurationError(
            f"{source} {problem} Give the URL of an HTTP proxy, such as 'http://proxy.example:3128'.",
            field=source,
        )
    return proxy.reveal()


def _find_proxy_problem(url: str) -> str | None:
    """Return why a text is no URL of an HTTP proxy, None if it is one. The text may hold a password."""
    if not re.fullmatch(r"[!-~]+", url):
        return "is empty, or has characters that no URL has."
    scheme, separator, _ = url.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        return "does not start with http:// or https://."
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "has no valid host and port."
    if port == 0 or parts.netloc.endswith(":"):
        return "has no valid port."
    return None if can_be_host(parts.hostname) else "has no valid host."
