"""What a service is made of: its settings checked, its parts found by name. No I/O, no event loop."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.request import getproxies, proxy_bypass

from imgkit.catalogue.catalogue import Catalogue, own_facts
from imgkit.catalogue.pricing import NOTHING, estimate
from imgkit.catalogue.rules import Policy, parse_policy
from imgkit.default_plugins.auth import ProviderAuth, check_encrypted
from imgkit.default_plugins.retry import RetryPlugin
from imgkit.errors import ConfigurationError, UnknownBackendError, UnknownProviderError
from imgkit.models import Estimate, HostClass, ImageRequest
from imgkit.plugins.hookspecs import BackendSpec, ProviderSpec, ServiceSettings
from imgkit.plugins.registry import PluginList, build_hook_table, find_spec, register_plugins
from imgkit.plugins.resources import PluginResources, build_resources
from imgkit.plugins.table import HookTable
from imgkit.providers.base import Provider, Target, list_credentials
from imgkit.redact import safe_url
from imgkit.wire.messages import AsyncBackend, Backend, BackendOptions
from imgkit.wire.urls import check_base_url, origin

DEFAULT_BACKEND = "offline"
LONGEST_S = 7 * 24 * 3600.0
"""Longest duration that is accepted, a week in seconds; more only overflows somebody's clock."""


class Limits(NamedTuple):
    """What bounds a call.

    Attributes:
        timeout_s: seconds for the whole call, retries and waits included.
        connect_timeout_s: seconds for one connection, TLS included.
        read_timeout_s: longest silence in seconds while a reply is awaited or read.
        max_reply_bytes: largest reply of the API.
        max_download_bytes: largest picture fetched from a result URL.
    """

    timeout_s: float = 600.0
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 300.0
    max_reply_bytes: int = 128 * 1024 * 1024
    max_download_bytes: int = 64 * 1024 * 1024


class Core(NamedTuple):
    """A service without its colour: what plans work with."""

    backend: Backend | AsyncBackend
    backend_name: str
    flavor: str
    provider: Provider
    provider_name: str
    target: Target
    catalogue: Catalogue
    on_unsupported: Policy
    limits: Limits
    options: BackendOptions
    settings: ServiceSettings
    table: HookTable
    members: PluginList
    equipment: PluginResources
    fetches_anywhere: bool
    fetch: Callable[[str], bytes] | None = None

    def with_plugins(self, members: PluginList, table: HookTable) -> Core:
        """Return the same with other plugins. Raises `PluginError` if they supply what does not fit."""
        equipment = build_resources(table, self.settings, self.equipment)
        return self._replace(members=members, table=table, equipment=equipment)

    def __repr__(self) -> str:
        return (
            f"backend={self.backend_name!r}, provider={self.provider_name!r}, "
            f"base_url={safe_url(self.target.base_url)!r}, model={self.target.model!r}"
        )


def build_core(
    *,
    backend: str | Backend | AsyncBackend | None,
    provider: str | Provider | None,
    api_key: str | Callable[[], str] | None,
    base_url: str | None,
    organization: str | None,
    project: str | None,
    model: str | None,
    limits: Mapping[str, Any],
    proxy: str | None,
    ca: Any,
    use_env_proxy: bool,
    reuse_connections: bool,
    allow_insecure: bool,
    max_in_flight: int,
    retry: bool | RetryPlugin,
    plugins: Sequence[object],
    state_folder: str | PathLike[str] | None,
    models: str | PathLike[str] | Mapping[str, Any] | None,
    on_unsupported: str,
    fixtures: str | PathLike[str] | None,
    strict: bool,
    client_options: Mapping[str, Any] | None,
    fetch: Callable[[str], bytes] | None,
) -> Core:
    """Check what a service is built with, and find its parts.

    Raises:
        ConfigurationError: naming the argument or variable, and what to do.
    """
    given = {"api_key": api_key, "base_url": base_url, "organization": organization, "project": project}
    named = backend if backend is not None else os.environ.get("IMGKIT_BACKEND") or None
    if named is None:
        stray = [name for name, value in given.items() if value is not None]
        if stray:
            raise ConfigurationError(
                f"{stray[0]} is given, but the default backend is {DEFAULT_BACKEND!r}, which sends nothing: "
                'say backend="requests" or backend="aiohttp" to reach the API'
            )
    if isinstance(plugins, str) or not isinstance(plugins, Iterable):
        raise ConfigurationError("plugins must be a list of plugins")
    if client_options is not None and not isinstance(client_options, Mapping):
        raise ConfigurationError("client_options must be a mapping")
    members = register_plugins(plugins)
    table = build_hook_table(members)
    spec, load = _backend(named or DEFAULT_BACKEND, table)
    provider_name, dialect = _provider(provider or os.environ.get("IMGKIT_PROVIDER") or "openai", table)
    target = resolve_target(dialect, spec, given, model)
    auth = ProviderAuth(
        api_key, list_credentials(dialect), dialect.env["api_key"], allow_insecure=allow_insecure
    )
    if auth.has_key and not allow_insecure:
        check_encrypted(target.base_url)
    catalogue = Catalogue(provider_name, getattr(dialect, "model_facts", ""), own_facts(models))
    if catalogue.has_own:
        catalogue.listed()  # what it refers to must be there, now and not within a call
    folder = resolve_state_folder(state_folder)
    knobs = {**(client_options or {}), **_fixtures(fixtures, strict, spec)}
    replayed = spec.name == DEFAULT_BACKEND and knobs.get("fixtures") is not None
    retrier = _retrier(retry, members, replayed)
    members = register_plugins(
        [], own=[auth, *retrier, *_logger(members), *_spooler(folder, members)], to=members
    )
    checked = _limits(limits)
    settings = ServiceSettings(
        backend=spec.name,
        provider=provider_name,
        base_url=target.base_url,
        host_class=target.host_class,
        model=target.model,
        timeout_s=checked.timeout_s,
        state_folder=folder,
        estimate=partial(_estimate, catalogue, target),
    )
    table = build_hook_table(members)
    options = BackendOptions(
        proxy=resolve_proxy(proxy, use_env_proxy, target.base_url) if spec.reaches_network else None,
        ca=ca,
        reuse_connections=bool(reuse_connections),
        max_in_flight=_count("max_in_flight", max_in_flight),
        client_options=knobs,
    )
    return Core(
        backend=load(options),
        backend_name=spec.name,
        flavor=spec.flavor,
        provider=dialect,
        provider_name=provider_name,
        target=target,
        catalogue=catalogue,
        on_unsupported=parse_policy(on_unsupported),
        limits=checked,
        options=options,
        settings=settings,
        table=table,
        members=members,
        equipment=build_resources(table, settings),
        # Behind a proxy the connected peer is the proxy, so nothing can be said of the real one.
        # A backend that reaches no network may be asked for any URL: it answers by itself.
        fetches_anywhere=(spec.checks_peer and options.proxy is None) or not spec.reaches_network,
        fetch=fetch,
    )


def resolve_state_folder(given: str | PathLike[str] | None) -> Path | None:
    """Return where things are kept between processes: what is given, else ``IMGKIT_HOME``, else nowhere.

    Raises:
        ConfigurationError: not a path.
    """
    if given is None:
        given = os.environ.get("IMGKIT_HOME") or None
    if given is None:
        return None
    if not isinstance(given, str | PathLike) or not isinstance(text := os.fspath(given), str) or "\0" in text:
        raise ConfigurationError("state_folder must be the path of a folder, as str or os.PathLike")
    if not text:
        raise ConfigurationError("state_folder is empty: give the path of a folder, or None for none")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigurationError(f"state_folder {text[:200]!r} cannot be found: {error}") from None


def _estimate(
    catalogue: Catalogue, target: Target, request: ImageRequest, partial_images: int = 0
) -> Estimate:
    """Return what a request may cost where it goes."""
    if target.host_class == "offline":
        return Estimate(low=NOTHING, high=NOTHING, note="offline: nothing is billed")
    named = (request.extra_body or {}).get("model") or request.model or target.model
    return estimate(request, catalogue.find(named, target.host_class), catalogue, partial_images)


def _fixtures(fixtures: object, strict: object, spec: BackendSpec) -> dict[str, object]:
    """Return those options of the offline backend that are arguments of the service."""
    given: dict[str, object] = {} if fixtures is None else {"fixtures": fixtures}
    if strict is not True:
        given["strict"] = strict
    if given and spec.name != DEFAULT_BACKEND:
        raise ConfigurationError(f"{' and '.join(given)}: for the {DEFAULT_BACKEND} backend only")
    return given


def _retrier(retry: object, members: PluginList, replayed: bool) -> list[object]:
    """Return what retries, unless a plugin that was given does; without pauses where answers are recorded."""
    if isinstance(retry, RetryPlugin):
        return [retry]
    if not isinstance(retry, bool):
        raise ConfigurationError(f"retry is True, False or a RetryPlugin, not {retry!r}")
    given = any(isinstance(member.plugin, RetryPlugin) for member in members)
    if not retry or given:
        return []
    if replayed:
        from imgkit.default_plugins.retry import NoWaitRetry

        return [NoWaitRetry()]
    return [RetryPlugin()]


def _logger(members: PluginList) -> list[object]:
    """Return the logging plugin if the environment asks for it, importing it only then."""
    if not os.environ.get("IMGKIT_LOG"):
        return []
    from imgkit.default_plugins.logging import from_environment

    plugin = from_environment([member.plugin for member in members])
    return [] if plugin is None else [plugin]


def _spooler(state_folder: Path | None, members: PluginList) -> list[object]:
    """Return what keeps replies until they are delivered, unless a plugin that was given does."""
    if state_folder is None:
        return []
    from imgkit.default_plugins.spool import SpoolPlugin

    given = any(isinstance(member.plugin, SpoolPlugin) for member in members)
    return [] if given else [SpoolPlugin()]


def check_seconds(name: str, value: object) -> float:
    """Return a duration in seconds. Raises `ConfigurationError` unless it is positive and at most a week."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LONGEST_S:
        raise ConfigurationError(
            f"{name} must be a positive number of seconds, at most a week, not {value!r}"
        )
    return float(value)


def _limits(values: Mapping[str, Any]) -> Limits:
    checked: dict[str, Any] = {
        name: check_seconds(name, value) if name.endswith("_s") else _count(name, value)
        for name, value in values.items()
        if value is not None
    }
    return Limits(**checked)


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name} must be a whole number from 1 on, not {value!r}")
    return value


def _backend(
    named: str | Backend | AsyncBackend, table: HookTable
) -> tuple[BackendSpec, Callable[[BackendOptions], Backend | AsyncBackend]]:
    """Return the spec of a backend, and what makes it: of one by name, or of one that is there already."""
    if not isinstance(named, str):
        instance = named
        flavor: Literal["sync", "async"] = "async" if hasattr(named, "aclose") else "sync"
        if not hasattr(named, "open") or not hasattr(named, "errors"):
            raise ConfigurationError(
                f"backend: a {type(named).__name__} is neither a name nor a backend (see imgkit.backends)"
            )
        name = getattr(named, "name", type(named).__name__)
        checks = bool(getattr(named, "checks_peer", False))
        return BackendSpec(name=name, target="", flavor=flavor, checks_peer=checks), lambda options: instance
    offer = find_spec(
        table, BackendSpec, named, UnknownBackendError,
        "More are plugins: pass an instance, or plugins=[…]",
    )  # fmt: skip
    return offer.spec, lambda options: offer.load()(options)


def _provider(named: str | Provider, table: HookTable) -> tuple[str, Provider]:
    if not isinstance(named, str):
        return getattr(named, "name", type(named).__name__), named
    offer = find_spec(
        table, ProviderSpec, named, UnknownProviderError,
        "Servers that speak OpenAI's dialect need only base_url=…",
    )  # fmt: skip
    made: Provider = offer.make()
    return named, made


OFFLINE_BASE_URL = "https://offline.imgkit.invalid/v1"
"""Where the offline backend answers; the top-level domain .invalid never resolves (RFC 2606)."""


def resolve_target(
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


def _header_safe(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"[\x20-\x7e]+", value.strip()):
        raise ConfigurationError(f"{name} must be printable ASCII text that is not empty")
    return value.strip()


def resolve_proxy(proxy: object, use_env_proxy: bool, base_url: str) -> str | None:
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
