"""What the two services share: how they are built, and what needs no I/O."""

from __future__ import annotations

import inspect
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Never

from imgkit.core.config import Core, build_core, check_seconds
from imgkit.errors import ConfigurationError, InvalidRequestError
from imgkit.models import CreateImageRequest, Estimate, ImageRequest, field_names
from imgkit.plugins.registry import PluginList, ServicePlugins
from imgkit.plugins.table import HookTable
from imgkit.redact import nearest
from imgkit.schemas.requests import validate_request
from imgkit.wire.messages import AsyncBackend, Backend
from imgkit.wire.transfer import Transfer

if TYPE_CHECKING:
    from imgkit.default_plugins.retry import RetryPlugin
    from imgkit.providers.base import Provider


class ServiceBase(ABC):
    """What the two services share: how they are built."""

    _core: Core

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
        proxy: str | None = None,
        ca: Any = None,
        use_env_proxy: bool = False,
        reuse_connections: bool = False,
        allow_insecure: bool = False,
        max_in_flight: int = 256,
        retry: bool | RetryPlugin = True,
        plugins: Sequence[object] = (),
        state_folder: str | os.PathLike[str] | None = None,
        models: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        on_unsupported: Literal["raise", "warn", "drop"] = "raise",
        fixtures: str | os.PathLike[str] | None = None,
        strict: bool = True,
        client_options: Mapping[str, Any] | None = None,
        **unknown: Never,
    ) -> None:
        """Build a service; nothing is sent, and no key is needed before the first call.

        Args:
            backend: "offline" (the default: no key, no network, no cost), "requests", "aiohttp", the
                name of another that a plugin offers, or an instance; else ``IMGKIT_BACKEND``.
            provider: the API's dialect, "openai" by default; else ``IMGKIT_PROVIDER``.
            api_key: the key, or a callable that is asked on each sending; else ``OPENAI_API_KEY``.
            base_url: root of the API, such as ``http://localhost:8000/v1``; else ``OPENAI_BASE_URL``.
            organization: sent along where it is set; else ``OPENAI_ORG_ID``.
            project: the same; else ``OPENAI_PROJECT_ID``.
            model: used where a call names none; else ``IMGKIT_MODEL``. The official host needs one.
            timeout_s: seconds for a whole call, 600 by default.
            connect_timeout_s: seconds for one connection, 5 by default.
            read_timeout_s: longest silence in seconds, 300 by default.
            max_reply_bytes: largest reply read, 128 MiB by default.
            max_download_bytes: largest picture fetched from a URL, 64 MiB by default.
            proxy: URL of a proxy; the environment's proxies are not used unless `use_env_proxy`.
            ca: PEM file or folder, or `ssl.SSLContext`; certifi's bundle by default.
            use_env_proxy: read ``HTTPS_PROXY`` and its siblings, for the API only.
            reuse_connections: keep connections open between paid requests. It saves a handshake; a
                connection that dies just then leaves the outcome of a request unknown.
            allow_insecure: send a key over plain http to a host that is not this machine.
            max_in_flight: most requests at once where the backend needs a thread for each.
            retry: repeat what was not sent, what the API refused for now, and what it reports as its own
                failure; never what may have been billed. False, or a `RetryPlugin` with settings of its own.
            plugins: instances, classes or modules with hooks, or names such as "logging"; asked in this
                order, before those that are installed and those of imgkit.
            state_folder: where imgkit keeps what must outlive the process, such as replies that could not be
                delivered; else ``IMGKIT_HOME``; else nothing is kept.
            models: facts about models of your own, above those that come along: a TOML file or a mapping in
                its form (``docs/models-masks-errors-money.md``); beside the files of ``IMGKIT_MODELS``.
            on_unsupported: what the model is known not to take: "raise" before anything is sent (what is
                doubtful only warns), "warn" in ``reply.warnings`` and send it, or "drop" it and warn.
            fixtures: with the offline backend: a cassette, or a folder of them, to answer from.
            strict: with fixtures: what is not among them is a `FixtureMissingError`; False to paint it.
            client_options: what only the backend understands; for "offline": ``latency_s``,
                ``simulate``, ``seed``.
            **unknown: any other keyword is refused, with the nearest real name.

        Raises:
            ConfigurationError: naming the argument, and what to do.
        """
        if unknown:
            known = inspect.signature(ServiceBase.__init__).parameters
            raise ConfigurationError(
                "; ".join(
                    f"{name} is no argument of {type(self).__name__}{nearest(name, known)}"
                    for name in unknown
                )
            )
        self._closed = False
        self._swapping = threading.Lock()
        self._core = build_core(
            backend=backend,
            provider=provider,
            api_key=api_key,
            base_url=base_url,
            organization=organization,
            project=project,
            model=model,
            limits={
                "timeout_s": timeout_s,
                "connect_timeout_s": connect_timeout_s,
                "read_timeout_s": read_timeout_s,
                "max_reply_bytes": max_reply_bytes,
                "max_download_bytes": max_download_bytes,
            },
            proxy=proxy,
            ca=ca,
            use_env_proxy=use_env_proxy,
            reuse_connections=reuse_connections,
            allow_insecure=allow_insecure,
            max_in_flight=max_in_flight,
            retry=retry,
            plugins=plugins,
            state_folder=state_folder,
            models=models,
            on_unsupported=on_unsupported,
            fixtures=fixtures,
            strict=strict,
            client_options=client_options,
            fetch=self._fetcher(),
        )
        self._connect()

    @property
    def plugins(self) -> ServicePlugins:
        """The plugins, to look at, add and remove; a call that runs keeps those it began with."""
        return ServicePlugins(lambda: self._core.members, self._swap, self._swapping)

    def estimate(self, request: ImageRequest | str, /, *, partial_images: int = 0, **fields: Any) -> Estimate:
        """Return what a call may cost, before it is made; nothing is sent.

        Args:
            request: as for the operations; or the prompt of a `create_image`.
            partial_images: of a stream.
            **fields: further fields of that `create_image`, such as ``n=10, quality="high"``.

        Returns:
            Bounds by dated prices and token counts, or that they are not known.

        Raises:
            InvalidRequestError: the request is wrong.
        """
        if isinstance(request, str):
            request = CreateImageRequest(prompt=request, **_known_fields(fields))
        elif fields:
            raise InvalidRequestError(dict.fromkeys(fields, "goes into the request object"))
        kind = type(request)
        made = validate_request(kind, {name: getattr(request, name) for name in field_names(kind)})
        return self._core.settings.estimate(made, partial_images)

    def _swap(self, members: PluginList, table: HookTable) -> None:
        self._core = self._core.with_plugins(members, table)

    @abstractmethod
    def _connect(self) -> None:
        """Give the backend the colour of this service."""

    def _fetcher(self) -> Callable[[str], bytes] | None:
        return None

    def _transfer(self, timeout_s: object) -> Transfer:
        limits = self._core.limits
        total_s = limits.timeout_s if timeout_s is None else check_seconds("timeout_s", timeout_s)
        return Transfer(total_s, limits.connect_timeout_s, limits.read_timeout_s)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._core!r}{', closed' if self._closed else ''})"


def _known_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    known = field_names(CreateImageRequest)
    wrong = {
        name: f"is no field of create_image{nearest(name, known)}" for name in fields if name not in known
    }
    if wrong:
        raise InvalidRequestError(wrong)
    return dict(fields)
