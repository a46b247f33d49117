"""The parts of a service: backend, provider, catalogue and plugins, found by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from imgkit.catalogue.catalogue import Catalogue, load_own_facts
from imgkit.catalogue.pricing import NOTHING, compute_estimate
from imgkit.catalogue.rules import Policy, parse_policy
from imgkit.core.config import (
    Limits,
    ServiceConfig,
    check_count,
    parse_download_origins,
    parse_limits,
    resolve_proxy,
    resolve_state_folder,
    resolve_target,
)
from imgkit.core.interception import DeferredBackend, is_intercepting
from imgkit.core.sent_secrets import SentSecrets, list_service_secrets
from imgkit.core.upload_memory import UploadMemory
from imgkit.errors import ConfigurationError, UnknownBackendError, UnknownProviderError
from imgkit.models import Estimate, ImageRequest, resolve_model
from imgkit.plugins.hookspecs import BackendSpec, ProviderSpec, ServiceSettings
from imgkit.plugins.registry import PluginList, build_hook_table, find_spec, register_plugins
from imgkit.plugins.resources import PluginResources, build_resources
from imgkit.plugins.table import HookTable, NamedSpec
from imgkit.providers.base import Provider, Target, check_provider
from imgkit.providers.job_base import JobProvider, ProgressProvider, UploadingProvider
from imgkit.redact import PrivateDict, safe_url
from imgkit.wire.messages import AsyncBackend, Backend, BackendOptions
from imgkit.wire.plain_values import class_name, describe_failure, to_text, type_name

DEFAULT_BACKEND = "offline"
DEFAULT_PROVIDER = "openai"
MAX_IN_FLIGHT = 100_000
"""Largest number of requests at once that a service accepts."""


class Setup(NamedTuple):
    """The parts of a service that decide which default plugins it gets.

    Attributes:
        config: the arguments of the service.
        provider, target: the provider, and where requests go.
        plugins: the plugins so far.
        state_folder: folder for data that outlives the process, None for none.
        is_replay: the backend answers from recordings.
    """

    config: ServiceConfig
    provider: Provider
    target: Target
    plugins: PluginList
    state_folder: Path | None
    is_replay: bool


class Core(NamedTuple):
    """The parts of a service that do not depend on sync or async.

    Attributes:
        backend, backend_name: the transport.
        flavor: "sync" or "async", the kind of the backend.
        provider, provider_name: the provider.
        uploader, job_provider, progress_provider: the provider, if it wants uploads first, accepts jobs, or
            tells progress; else None.
        target: where requests go.
        catalogue: data about models.
        on_unsupported: treatment of values that a model does not take.
        limits: bounds of a call.
        options: options of the backend.
        settings: the service as plugins see it.
        table: hooks of all plugins.
        members: the plugins.
        resources: blocking resources that the plugins provide.
        fetches_anywhere: result URLs outside the API's origin may be fetched.
        sent: the secrets that requests carried.
        uploads: the inputs that the API has already.
        download_origins: origins whose result URLs may be fetched in any case.
        fetch: fetches the bytes behind a URL for ``image.data``; None under the async service.
    """

    backend: Backend | AsyncBackend
    backend_name: str
    flavor: str
    provider: Provider
    provider_name: str
    uploader: UploadingProvider | None
    job_provider: JobProvider | None
    progress_provider: ProgressProvider | None
    target: Target
    catalogue: Catalogue
    on_unsupported: Policy
    limits: Limits
    options: BackendOptions
    settings: ServiceSettings
    table: HookTable
    members: PluginList
    resources: PluginResources
    fetches_anywhere: bool
    sent: SentSecrets
    uploads: UploadMemory
    download_origins: frozenset[tuple[str, str, int]] = frozenset()
    fetch: Callable[[str], bytes] | None = None

    def with_plugins(self, members: PluginList, table: HookTable) -> Core:
        """Return a copy with other plugins.

        Raises:
            PluginError: a plugin provides a resource that does not fit its protocol.
        """
        resources = build_resources(table, self.settings, self.resources)
        return self._replace(members=members, table=table, resources=resources)

    def __repr__(self) -> str:
        return (
            f"backend={self.backend_name!r}, provider={self.provider_name!r}, "
            f"base_url={safe_url(self.target.base_url)!r}, model={self.target.model!r}"
        )


def build_core(
    config: ServiceConfig,
    list_default_plugins: Callable[[Setup], Sequence[object]],
    fetch: Callable[[str], bytes] | None,
) -> Core:
    """Check the arguments of a service and find its parts. Nothing is sent and no loop runs.

    Args:
        config: the arguments.
        list_default_plugins: returns the plugins that imgkit itself adds.
        fetch: see `Core`.

    Raises:
        ConfigurationError: an argument or a variable is wrong; the message names it and a remedy.
    """
    _check_default_backend(config)
    if isinstance(config.plugins, str) or not isinstance(config.plugins, Iterable):
        raise ConfigurationError("plugins must be a list of plugins.")
    if config.client_options is not None and not isinstance(config.client_options, Mapping):
        raise ConfigurationError("client_options must be a mapping.")
    members = register_plugins(config.plugins)
    table = build_hook_table(members)
    named = _backend_argument(config)
    spec, load_backend = _find_backend(DEFAULT_BACKEND if named is None else named, table, config)
    provider_name, provider = _find_provider(
        (os.environ.get("IMGKIT_PROVIDER") or DEFAULT_PROVIDER)
        if config.provider is None
        else config.provider,
        table,
    )
    target = resolve_target(provider, spec, config)
    state_folder = resolve_state_folder(config.state_folder)
    client_options = PrivateDict({**(config.client_options or {}), **_offline_options(config, spec)})
    is_replay = spec.name == DEFAULT_BACKEND and client_options.get("fixtures") is not None
    defaults = list_default_plugins(Setup(config, provider, target, members, state_folder, is_replay))
    catalogue = Catalogue(provider_name, provider.model_facts, load_own_facts(config.models))
    if catalogue.has_own:
        catalogue.list_models()  # a missing file is an error now, not within a call
    members = register_plugins([], own=defaults, to=members)
    limits = parse_limits(config)
    settings = ServiceSettings(
        backend=spec.name,
        provider=provider_name,
        base_url=target.base_url,
        host_class=target.host_class,
        model=target.model,
        timeout_s=limits.timeout_s,
        state_folder=state_folder,
        estimate=partial(_estimate, catalogue, target),
    )
    table = build_hook_table(members)
    options = BackendOptions(
        proxy=resolve_proxy(config, target.base_url) if spec.reaches_network else None,
        ca=config.ca,
        reuse_connections=config.reuse_connections,
        max_in_flight=check_count("max_in_flight", config.max_in_flight, MAX_IN_FLIGHT),
        client_options=client_options,
        make_fake=None if spec.reaches_network else getattr(provider, "fake", None),
    )
    return Core(
        backend=load_backend(options),
        backend_name=spec.name,
        flavor=spec.flavor,
        provider=provider,
        provider_name=provider_name,
        # Such a look at a protocol is too slow for each call.
        uploader=provider if isinstance(provider, UploadingProvider) else None,
        job_provider=provider if isinstance(provider, JobProvider) else None,
        progress_provider=provider if isinstance(provider, ProgressProvider) else None,
        target=target,
        catalogue=catalogue,
        on_unsupported=parse_policy(config.on_unsupported),
        limits=limits,
        options=options,
        settings=settings,
        table=table,
        members=members,
        resources=build_resources(table, settings),
        # Behind a proxy the connected peer is the proxy, so nobody can check the real one.
        # A backend that reaches no network answers any URL by itself.
        fetches_anywhere=(spec.checks_peer and options.proxy is None) or not spec.reaches_network,
        download_origins=parse_download_origins(config.download_origins),
        sent=SentSecrets(list_service_secrets(config, options.proxy, provider)),
        uploads=UploadMemory(),
        fetch=fetch,
    )


def _backend_argument(config: ServiceConfig) -> str | Backend | AsyncBackend | None:
    return (
        config.backend if config.backend is not None else os.environ.get("IMGKIT_BACKEND", "").strip() or None
    )


def _check_default_backend(config: ServiceConfig) -> None:
    """Refuse settings of an API beside the default backend, which would paint without a word."""
    if _backend_argument(config) is not None:
        return
    # Options of the offline backend choose it, and a recording has a provider and a model.
    is_chosen = config.fixtures is not None or bool(config.client_options)
    for name in _API_ARGUMENTS if is_chosen else (*_MODEL_ARGUMENTS, *_API_ARGUMENTS):
        if getattr(config, name) not in (None, ServiceConfig._field_defaults[name]):
            raise ConfigurationError(
                f"{name} is given without a backend. The default, {DEFAULT_BACKEND!r}, sends nothing.",
                hint='Pass backend="requests" or backend="aiohttp" to reach the API, or backend="offline" '
                "to paint.",
                field=name,
            )
    for name in _MODEL_ARGUMENTS:
        variable = f"IMGKIT_{name.upper()}"
        if os.environ.get(variable) and not is_chosen:
            raise ConfigurationError(
                f"{variable} is set without a backend. The default, {DEFAULT_BACKEND!r}, sends nothing.",
                hint='Set IMGKIT_BACKEND=requests to reach the API, or pass backend="offline" to paint.',
            )


_MODEL_ARGUMENTS = ("provider", "model")
_API_ARGUMENTS = (
    *("api_key", "base_url", "organization", "project", "proxy", "ca", "use_env_proxy"),
    *("reuse_connections", "allow_insecure"),
)


def _estimate(
    catalogue: Catalogue, target: Target, request: ImageRequest, partial_images: int = 0
) -> Estimate:
    """Return the bounds of a request's cost at its target."""
    if target.host_class == "offline":
        return Estimate(low=NOTHING, high=NOTHING, note="offline: nothing is billed")
    name = resolve_model(request, target.model)
    return compute_estimate(request, catalogue.find_model(name, target.host_class), catalogue, partial_images)


def _offline_options(config: ServiceConfig, spec: BackendSpec) -> dict[str, object]:
    """Return the arguments of the service that are options of the offline backend."""
    options: dict[str, object] = {} if config.fixtures is None else {"fixtures": config.fixtures}
    if config.strict is not True:
        options["strict"] = config.strict
    if options and spec.name != DEFAULT_BACKEND:
        raise ConfigurationError(f"{' and '.join(options)}: only the {DEFAULT_BACKEND} backend takes this.")
    return options


def _find_backend(
    named: str | Backend | AsyncBackend, table: HookTable, config: ServiceConfig
) -> tuple[BackendSpec, Callable[[BackendOptions], Backend | AsyncBackend]]:
    """Return the spec of a backend and its factory. An instance is its own factory's result."""
    if isinstance(named, str):
        hint = "Install a plugin that provides it, or pass an instance."
        found = find_spec(table, BackendSpec, named, UnknownBackendError, hint)
        return found.spec, partial(_build_backend, found, config)
    instance = named
    if issubclass(type(named), type):
        raise ConfigurationError(
            f"backend: {class_name(named)} is a class. Pass an instance, or register the class in a plugin "
            "and pass its name."
        )
    _check_backend(instance)
    _refuse_options_beside_instance(config)
    spec = BackendSpec(
        name=to_text(getattr(named, "name", None)) or type_name(named),
        target="",
        flavor="async" if hasattr(named, "aclose") else "sync",
        checks_peer=bool(getattr(named, "checks_peer", False)),
    )
    _check_capabilities(spec.name, instance, config, BackendOptions())
    return spec, lambda options: instance


def _build_backend(
    named: NamedSpec[BackendSpec], config: ServiceConfig, options: BackendOptions
) -> Backend | AsyncBackend:
    """Return the backend of a spec; under a cassette, its first request builds it."""
    build = partial(_make_backend, named, config, options)
    if is_intercepting() and named.spec.reaches_network:
        return DeferredBackend(build)  # type: ignore[return-value]  # of either flavor
    return build()


def _make_backend(
    named: NamedSpec[BackendSpec], config: ServiceConfig, options: BackendOptions
) -> Backend | AsyncBackend:
    """Return a new backend. An option that its class would ignore is an error."""
    if named.spec.reaches_network:
        _check_capabilities(named.spec.name, named.load(), config, options)
    backend: Backend | AsyncBackend = named.make(options)
    _check_backend(backend)
    return backend


def _check_capabilities(name: str, backend: object, config: ServiceConfig, options: BackendOptions) -> None:
    """Refuse an argument that needs a capability which a backend, or its class, does not declare."""
    capabilities = frozenset(getattr(backend, "capabilities", ()))
    for option, capability in _list_needs(config, options):
        if capability not in capabilities:
            raise ConfigurationError(
                f"{option}: backend {name!r} would ignore it. It lacks the capability {capability!r}.",
                hint="Leave it out, or use another backend.",
                field=option,
            )


def _list_needs(config: ServiceConfig, options: BackendOptions) -> Iterator[tuple[str, str]]:
    """Yield each argument that needs a capability of the backend, with that capability."""
    if options.proxy is not None:
        option = "use_env_proxy" if config.proxy is None else "proxy"
        yield option, "https proxy" if options.proxy.startswith("https:") else "proxy"
    if config.ca is not None:
        yield "ca", "ca"
    if config.reuse_connections:
        yield "reuse_connections", "reuse"
    if config.connect_timeout_s is not None:
        yield "connect_timeout_s", "connect timeout"


def _refuse_options_beside_instance(config: ServiceConfig) -> None:
    """Refuse options for the constructor of a backend that exists already."""
    for option in ("proxy", "use_env_proxy", "ca", "reuse_connections", "client_options"):
        if getattr(config, option):
            raise ConfigurationError(
                f"{option}: the backend is an instance, which has its own options and would ignore it.",
                hint="Give the instance this option in its BackendOptions, or name the backend.",
                field=option,
            )


def _check_backend(backend: object) -> None:
    """Refuse an object that lacks members of a backend. The message names them."""
    try:
        closing = "aclose" if hasattr(backend, "aclose") else "close"
        members = ("open", closing, "wire_errors", "unsent_errors")
        missing = [name for name in members if not hasattr(backend, name)]
        for name in ("wire_errors", "unsent_errors"):
            tuple(getattr(backend, name, ()))
        frozenset(getattr(backend, "capabilities", ()))
    except Exception as error:
        # The object is the caller's: it may raise anything.
        raise ConfigurationError(
            f"backend: a {type_name(backend)} is no backend ({describe_failure(error)}). See imgkit.backends."
        ) from None
    if missing:
        raise ConfigurationError(
            f"backend: a value of type {type_name(backend)} is neither a name nor a backend. It lacks "
            f"{', '.join(missing)}.",
            hint='Pass a name, such as backend="requests", or an instance as imgkit.backends describes it.',
            field="backend",
        )


def _find_provider(named: str | Provider, table: HookTable) -> tuple[str, Provider]:
    if isinstance(named, type):
        raise ConfigurationError(f"provider: {named.__name__} is a class. Pass an instance.")
    if not isinstance(named, str):
        check_provider(named)
        return to_text(getattr(named, "name", None)) or type_name(named), named
    hint = "A server that speaks OpenAI's dialect needs only base_url=…."
    provider: Provider = find_spec(table, ProviderSpec, named, UnknownProviderError, hint).make()
    check_provider(provider)
    return named, provider
