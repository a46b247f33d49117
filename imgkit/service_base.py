"""The common part of both services: construction, default plugins, and methods without I/O."""

from __future__ import annotations

import os
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, Never, Self, TypeVar, cast, get_args, overload

from imgkit.core.config import ServiceConfig, check_seconds
from imgkit.core.context import check_partial_images
from imgkit.core.core import Core, Setup, build_core
from imgkit.core.interception import intercept_call
from imgkit.core.operations import ImageOperations, ImageT, ResponseT, StreamT
from imgkit.default_plugins.auth import ProviderAuth
from imgkit.default_plugins.keys import check_encryption
from imgkit.default_plugins.retry import NoWaitRetry, RetryPlugin
from imgkit.errors import ConfigurationError, InvalidRequestError
from imgkit.models import CreateImageRequest, Estimate, ImageRequest, field_names
from imgkit.plugins.registry import PluginList, PluginPriority, ServicePlugins
from imgkit.plugins.table import HookTable
from imgkit.providers.accounts import Account, list_provider_specs
from imgkit.providers.base import find_credentials
from imgkit.redact import format_suggestion, safe_url
from imgkit.runtime.flow import Flow
from imgkit.schemas.requests import validate_request
from imgkit.wire.plain_values import has_type, show_value, to_text
from imgkit.wire.transfer import DriverTransfer

if TYPE_CHECKING:
    from imgkit.providers.base import Provider
    from imgkit.wire.messages import AsyncBackend, Backend

T = TypeVar("T")
EstimateT = TypeVar("EstimateT")

_ARGUMENTS = ServiceConfig._fields
_OF_ANY_PROVIDER = (
    *("timeout_s", "connect_timeout_s", "read_timeout_s", "max_reply_bytes", "max_download_bytes"),
    *("download_origins", "proxy", "ca", "use_env_proxy", "reuse_connections", "allow_insecure"),
    *("max_in_flight", "retry", "state_folder", "models", "on_unsupported", "fixtures", "strict"),
    "client_options",
)
"""Arguments that a service shares with its siblings for other providers."""


class ServiceBase(
    ImageOperations[ResponseT, StreamT, ImageT], Generic[ResponseT, StreamT, ImageT, EstimateT]
):
    """The common part of `ImageService` and `AsyncImageService`."""

    # For the repr of a service whose constructor has failed.
    _core: Core = cast(Core, None)
    _closed = False
    _public_name: str | None = None
    """The name by which users know a class of imgkit itself, None for that of the class."""

    def __init__(
        self,
        backend: str | Backend | AsyncBackend | None = None,
        *,
        provider: str | Provider | None = None,
        api_key: str | Callable[[], str] | None = None,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        model: str | None = None,
        timeout_s: float | None = None,
        connect_timeout_s: float | None = None,
        read_timeout_s: float | None = None,
        max_reply_bytes: int | None = None,
        max_download_bytes: int | None = None,
        download_origins: Sequence[str] = (),
        proxy: str | None = None,
        ca: object = None,
        use_env_proxy: bool = False,
        reuse_connections: bool = False,
        allow_insecure: bool = False,
        max_in_flight: int = 256,
        retry: bool | RetryPlugin = True,
        plugins: Sequence[object] = (),
        state_folder: str | os.PathLike[str] | None = None,
        models: str | os.PathLike[str] | Mapping[str, object] | None = None,
        on_unsupported: Literal["raise", "warn", "drop", "adapt"] = "raise",
        fixtures: str | os.PathLike[str] | None = None,
        strict: bool = True,
        client_options: Mapping[str, object] | None = None,
        **unknown: Never,
    ) -> None:
        """Build a service. Nothing is sent, and the first call is the first to need a key.

        >>> from imgkit import ImageService
        >>> ImageService("offline", model="gpt-image-2")
        ImageService(backend='offline', provider='openai', base_url='https://offline.imgkit.invalid/v1', \
model='gpt-image-2')

        Args:
            backend: "offline" (the default: no key, no network, no cost), "requests", "aiohttp", the
                name of a plugin's backend, or an instance; else ``IMGKIT_BACKEND``. A setting that
                only an API needs, such as `provider` or `model`, requires a named backend.
            provider: the API's dialect, "openai" by default; else ``IMGKIT_PROVIDER``.
            api_key: the key, or a callable that returns it for each attempt; else ``OPENAI_API_KEY``.
            base_url: root of the API, such as ``http://localhost:8000/v1``; else ``OPENAI_BASE_URL``.
            organization: organization to bill; else ``OPENAI_ORG_ID``.
            project: project to bill; else ``OPENAI_PROJECT_ID``.
            model: model of calls that name none; else ``IMGKIT_MODEL``. The official host needs one.
            timeout_s: seconds for a whole call, 600 by default.
            connect_timeout_s: seconds for one connection, 5 by default.
            read_timeout_s: longest silence in seconds, 300 by default.
            max_reply_bytes: largest reply in bytes, 128 MiB by default.
            max_download_bytes: largest image fetched from a URL in bytes, 64 MiB by default.
            download_origins: further servers whose result URLs imgkit fetches, such as
                ``["http://192.168.0.5:9000"]``. By default it fetches from the API's own origin, from
                this machine if the API is on it, and https from public addresses (port 443 or the
                API's own).
            proxy: URL of a proxy. The environment's proxies need `use_env_proxy`.
            ca: PEM file or folder, or `ssl.SSLContext`; certifi's bundle by default.
            use_env_proxy: read ``HTTPS_PROXY`` and its siblings, for the API only.
            reuse_connections: send a paid request over the connection of another that succeeded within the
                last 1.5 seconds. It saves a handshake. If the connection dies at that moment, the outcome of
                the request is unknown.
            allow_insecure: send a key over plain http to another machine.
            max_in_flight: most requests at once on a backend that needs a thread for each, up to 100,000.
            retry: repeat attempts that were not sent, that the API refused for now, or that it reports
                as its own failure; never one that may be billed. False disables it; a `RetryPlugin`
                brings its own settings. Downloads of results are free, so imgkit always repeats them.
            plugins: instances, classes or modules with hooks, or names such as "logging". imgkit asks
                them in this order, before installed plugins and its own.
            state_folder: folder for data that outlives the process, such as undelivered replies; else
                ``IMGKIT_HOME``; else imgkit keeps nothing.
            models: your own facts about models, which override the bundled ones: a TOML file or a
                mapping of its form (``docs/models-masks-errors-money.md``). ``IMGKIT_MODELS`` adds files.
            on_unsupported: treatment of values that the model is known not to take. "raise" refuses
                the call before anything is sent (doubtful values only warn), "warn" sends them and adds
                to ``response.warnings``, "drop" leaves them out and warns, "adapt" sends the nearest value
                that the model takes, such as an aspect ratio in place of a size, and warns.
            fixtures: for the offline backend: a cassette, or a folder of cassettes, to answer from.
            strict: with a cassette, a request without a recording is a `FixtureMissingError`; False
                paints it.
            client_options: options of the backend; for "offline": ``latency_s``, ``simulate``,
                ``seed``.
            **unknown: refused, with the nearest real name.

        Raises:
            ConfigurationError: an argument is wrong, or the backend would ignore it; the message names
                it and a remedy.
        """
        config = ServiceConfig.from_arguments(locals())
        unknown_names = list(unknown)
        # Tracebacks may show the variables of this frame.
        del api_key, base_url, proxy, client_options, unknown
        if unknown_names:
            problems = (
                f"{name} is not an argument of {self._public_name or type(self).__name__}"
                f"{format_suggestion(name, _ARGUMENTS)}"
                for name in unknown_names
            )
            raise ConfigurationError("; ".join(problems))
        config = config.to_plain()
        self._swap_lock = threading.Lock()
        self._config = config
        self._core = build_core(config, list_default_plugins, self._make_fetcher())
        self._given = config.list_given()
        self._connect()

    @property
    def plugins(self) -> ServicePlugins:
        """The plugins, to look at, add and remove. A running call keeps those it started with."""
        return ServicePlugins(lambda: self._core.members, self._swap_plugins, self._swap_lock)

    @overload
    def estimate(
        self,
        request: ImageRequest | str,
        /,
        *,
        partial_images: int = 0,
        live: Literal[False] = False,
        **fields: object,
    ) -> Estimate: ...

    @overload
    def estimate(
        self,
        request: ImageRequest | str,
        /,
        *,
        partial_images: int = 0,
        live: Literal[True],
        **fields: object,
    ) -> EstimateT: ...

    def estimate(
        self,
        request: ImageRequest | str,
        /,
        *,
        partial_images: int = 0,
        live: bool = False,
        **fields: object,
    ) -> Estimate | EstimateT:
        """Return the bounds of a call's cost. Nothing is sent, or with `live` only a free question.

        >>> from imgkit import ImageService
        >>> str(ImageService().estimate("a fox", n=10).high)
        '0'

        Args:
            request: a request, or the prompt of a `create_image`.
            partial_images: number of partial images of a stream.
            live: ask the API itself for the price, where it quotes prices, such as Ideogram's. An
                `AsyncImageService` then returns an awaitable.
            **fields: other fields of that `create_image`, such as ``n=10, quality="high"``.

        Returns:
            Bounds from dated prices and token counts, or from the API; or unknown bounds.

        Raises:
            InvalidRequestError: the request is wrong.
            ConfigurationError: `live`, and the provider's API quotes no prices, or there is no key.
            ImgkitError: `live`, and the API or the wire failed; nothing was paid.
        """
        prompt = to_text(request)
        if prompt is not None:
            request = CreateImageRequest(prompt=prompt, **_check_field_names(fields))
        elif fields:
            raise InvalidRequestError(dict.fromkeys(fields, "Set this field on the request object."))
        kind = next((kind for kind in get_args(ImageRequest) if has_type(request, kind)), None)
        if kind is None:
            problem = f"Pass a request or the text of a prompt, not {show_value(request)}."
            raise InvalidRequestError({"request": problem})
        valid = validate_request(kind, {name: getattr(request, name) for name in field_names(kind)})
        partial_count = check_partial_images(partial_images) or 0
        if live is False:
            return self._core.settings.estimate(valid, partial_count)
        if live is not True:
            raise InvalidRequestError({"live": f"Must be True or False, not {show_value(live)}."})
        from imgkit.core.live_estimates import estimate_live

        return self._run_estimate(estimate_live(self._core, valid), None)

    @abstractmethod
    def _run_estimate(self, flow: Flow[Estimate], timeout_s: object) -> EstimateT:
        """Run the flow of a live estimate."""

    def dry_run(self, operation: str, /, *args: object, **kwargs: object) -> str:
        """Return the request that a call would send, as text. Nothing is sent, and no key is needed.

        >>> from imgkit import ImageService
        >>> print(ImageService().dry_run("create_image", "a fox", n=2).splitlines()[0])
        POST https://offline.imgkit.invalid/v1/images/generations

        Args:
            operation: name of the method, such as "create_image" or "stream_image".
            *args, **kwargs: the arguments of the call.

        Returns:
            Method, URL and headers with credentials as "…", then the body: JSON, or the parts of a
            form with the size and digest of each file.

        Raises:
            ConfigurationError: there is no such operation, or the call would send nothing.
            ImgkitError: as the call itself would raise it before sending.
        """
        from imgkit.core.dry_run import describe_call

        return describe_call(self._core, operation, args, kwargs)

    def _open_sibling(self, provider: str) -> Self:
        """Return a new service for another provider: its key and address are those of the environment.

        Raises:
            ConfigurationError: there is no such provider, or it lacks a setting.
        """
        if self._config.backend is not None and not isinstance(self._config.backend, str):
            raise ConfigurationError(
                "The service has an instance as its backend, which belongs to its own provider.",
                hint="Name the backend to use several providers.",
                field="backend",
            )
        shared = {name: getattr(self._config, name) for name in _OF_ANY_PROVIDER}
        given = [each.plugin for each in self._core.members if each.rank is PluginPriority.GIVEN]
        return type(self)(self._core.backend_name, provider=provider, plugins=given, **shared)

    def _swap_plugins(self, members: PluginList, table: HookTable) -> None:
        self._core = self._core.with_plugins(members, table)

    @abstractmethod
    def _connect(self) -> None:
        """Make the backend usable under this service."""

    def _make_fetcher(self) -> Callable[[str], bytes] | None:
        """Return a function that fetches the bytes behind a URL, if this service can block."""
        return None

    def _record(self, flow: Flow[T]) -> Flow[T]:
        """Return a flow whose traffic recorders and interceptors see, if there are any."""
        core = self._core
        if core.resources.recorders:
            from imgkit.core.recording import record_traffic

            flow = record_traffic(flow, core.resources.recorders, core.sent)
        reaches_network = core.target.host_class != "offline"
        if not reaches_network and core.options.client_options.keys() & {"fixtures", "simulate"}:
            return flow  # the test has said where its replies come from
        return intercept_call(flow, core.backend, core.backend_name, reaches_network=reaches_network)

    def _new_transfer(self, timeout_s: object) -> DriverTransfer:
        limits = self._core.limits
        total_s = limits.timeout_s if timeout_s is None else check_seconds("timeout_s", timeout_s)
        proxy = self._core.options.proxy
        return DriverTransfer(
            total_s, limits.connect_timeout_s, limits.read_timeout_s, proxy and safe_url(proxy)
        )

    def __repr__(self) -> str:
        core = "incomplete" if self._core is None else repr(self._core)
        return f"{type(self).__name__}({core}{', closed' if self._closed else ''})"


def list_default_plugins(setup: Setup) -> list[object]:
    """Return the plugins that imgkit adds to a service: auth, retry, logging and spool.

    A plugin of the caller takes the place of a default one of its kind.

    Raises:
        ConfigurationError: the key or ``retry`` is wrong, or a key would travel unencrypted.
    """
    config, provider = setup.config, setup.provider
    credentials, variable = find_credentials(provider, setup.target)
    list_specs = partial(list_provider_specs, setup.plugins)
    auth = ProviderAuth(
        config.api_key,
        credentials,
        variable,
        allow_insecure=config.allow_insecure,
        make_account=partial(Account, facts=provider.model_facts, list_specs=list_specs),
    )
    if auth.has_key and not config.allow_insecure:
        check_encryption(setup.target.base_url)
    return [auth, *_retry_plugins(setup), *_logging_plugins(setup), *_spool_plugins(setup)]


def _has_plugin(setup: Setup, kind: type[object]) -> bool:
    return any(isinstance(member.plugin, kind) for member in setup.plugins)


def _retry_plugins(setup: Setup) -> list[object]:
    retry = setup.config.retry
    if isinstance(retry, RetryPlugin):
        return [retry]
    if not isinstance(retry, bool):
        raise ConfigurationError(f"retry must be True, False or a RetryPlugin, not {show_value(retry)}.")
    if not retry or _has_plugin(setup, RetryPlugin):
        return []
    return [NoWaitRetry() if setup.is_replay else RetryPlugin()]


def _logging_plugins(setup: Setup) -> list[object]:
    """Return the logging plugin if the environment asks for it, and import it only then."""
    if not os.environ.get("IMGKIT_LOG"):
        return []
    from imgkit.default_plugins.logging import plugin_from_environment

    plugin = plugin_from_environment([member.plugin for member in setup.plugins])
    return [] if plugin is None else [plugin]


def _spool_plugins(setup: Setup) -> list[object]:
    """Return the plugin that keeps replies until they are delivered, if there is a state folder."""
    if setup.state_folder is None:
        return []
    from imgkit.default_plugins.spool import SpoolPlugin

    return [] if _has_plugin(setup, SpoolPlugin) else [SpoolPlugin()]


def _check_field_names(fields: Mapping[str, object]) -> dict[str, Any]:
    known = field_names(CreateImageRequest)
    problems = {
        name: f"is not a field of create_image{format_suggestion(name, known)}"
        for name in fields
        if name not in known
    }
    if problems:
        raise InvalidRequestError(problems)
    return dict(fields)
