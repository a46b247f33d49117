"""What users hold: `ImageService` and `AsyncImageService`, two faces of the same plans."""

from __future__ import annotations

import inspect
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Never, ParamSpec, Self, TypeVar, cast

from imgkit import operations
from imgkit.core import Core, build_core, seconds
from imgkit.drivers import Driver, Watchdog
from imgkit.errors import ConfigurationError, NotDownloadedError, ServiceClosedError
from imgkit.flow import Done, Flow
from imgkit.hooktable import HookTable
from imgkit.nearest import nearest
from imgkit.plugins import Members, ServicePlugins
from imgkit.signatures import dressed, mismatch
from imgkit.transfer import Transfer
from imgkit.wire import AsyncBackend, Backend

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Executor, ThreadPoolExecutor

    from imgkit.async_driver import AsyncDriver
    from imgkit.hooks.retry import RetryPlugin
    from imgkit.providers.base import Provider

P = ParamSpec("P")
T = TypeVar("T")

CLOSING_S = 2.0
"""Seconds that `close` gives to calls that it breaks off."""

FILE_THREADS = 8

Plan = Callable[Concatenate[Core, P], Flow[T]]


class _Service(ABC):
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
            fixtures: with the offline backend: a cassette, or a folder of them, to answer from.
            strict: with fixtures: what is not among them is a `FixtureMissingError`; False to paint it.
            client_options: what only the backend understands; for "offline": ``latency_s``,
                ``simulate``, ``seed``.
            **unknown: any other keyword is refused, with the nearest real name.

        Raises:
            ConfigurationError: naming the argument, and what to do.
        """
        if unknown:
            known = inspect.signature(_Service.__init__).parameters
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

    def _swap(self, members: Members, table: HookTable) -> None:
        self._core = self._core.with_plugins(members, table)

    @abstractmethod
    def _connect(self) -> None:
        """Give the backend the colour of this service."""

    def _fetcher(self) -> Callable[[str], bytes] | None:
        return None

    def _transfer(self, timeout_s: object) -> Transfer:
        limits = self._core.limits
        total_s = limits.timeout_s if timeout_s is None else seconds("timeout_s", timeout_s)
        return Transfer(total_s, limits.connect_timeout_s, limits.read_timeout_s)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._core!r}{', closed' if self._closed else ''})"


def blocking(plan: Plan[P, T]) -> Callable[Concatenate[ImageService, P], T]:
    """Return a method of `ImageService` that runs `plan`."""

    def method(self: ImageService, /, *args: P.args, **kwargs: P.kwargs) -> T:
        flow = _flow(plan, self._core, *args, **kwargs)
        return self._run(flow, kwargs.get("timeout_s"))

    return dressed(method, plan, "ImageService")


def awaiting(plan: Plan[P, T]) -> Callable[Concatenate[AsyncImageService, P], Coroutine[Any, Any, T]]:
    """Return a method of `AsyncImageService` that runs `plan`."""

    async def method(self: AsyncImageService, /, *args: P.args, **kwargs: P.kwargs) -> T:
        flow = _flow(plan, self._core, *args, **kwargs)
        return await self._run(flow, kwargs.get("timeout_s"))

    return dressed(method, plan, "AsyncImageService")


def _flow(plan: Plan[P, T], core: Core, *args: P.args, **kwargs: P.kwargs) -> Flow[T]:
    """Start `plan`. A generator function runs nothing yet, so only its signature can fail here."""
    try:
        return plan(core, *args, **kwargs)
    except TypeError:
        raise mismatch(plan, args, kwargs) from None


class ImageService(_Service):
    """Creates, edits and varies images with blocking calls; from any number of threads at once.

    Use it as a context manager, or `close` it. Any backend works, an asynchronous one too.
    """

    create_image = blocking(operations.create_image)
    create_image_edit = blocking(operations.create_image_edit)
    create_image_variation = blocking(operations.create_image_variation)
    download = blocking(operations.download)

    def _connect(self) -> None:
        self._watchdog = Watchdog()
        if self._core.face == "async":
            from imgkit.bridges import LoopBackend

            self._backend: Backend = LoopBackend(cast(AsyncBackend, self._core.backend))
        else:
            self._backend = cast(Backend, self._core.backend)
        # Also for those who never close: at the latest when the interpreter ends.
        self._finalizer = weakref.finalize(self, _shut, self._backend, self._watchdog)
        _living.add(self)

    def close(self) -> None:
        """Close all connections. Idempotent; the service cannot be used afterwards."""
        self._closed = True
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self, flow: Flow[T], timeout_s: object) -> T:
        if self._closed:
            raise ServiceClosedError("this service is closed: make a new one")
        driver = Driver(flow, self._backend, self._transfer(timeout_s), self._watchdog)
        try:
            end = driver.proceed()
            assert isinstance(end, Done), "only streams emit events"
            return end.value
        finally:
            driver.close()

    def _fetcher(self) -> Callable[[str], bytes]:
        # Weak, so that a kept picture does not keep the service and its connections.
        alive = weakref.ref(self)

        def fetch(url: str) -> bytes:
            service = alive()
            if service is None or service._closed:
                raise NotDownloadedError(
                    "the picture is still at its URL, and its service is closed: fetch it with "
                    "service.download(image) of an open service, or ask for it in the reply with save_to=…"
                )
            return service._run(operations.fetch_url(service._core, url), None)

        return fetch

    def _after_fork(self) -> None:
        self._swapping = threading.Lock()
        self._watchdog.after_fork()
        forget = getattr(self._backend, "after_fork", None)
        if forget is not None:
            forget()


class AsyncImageService(_Service):
    """Creates, edits and varies images with coroutines; from any number of tasks of one event loop.

    Use it as an asynchronous context manager, or await `close`. Any backend works, a blocking one too.
    """

    create_image = awaiting(operations.create_image)
    create_image_edit = awaiting(operations.create_image_edit)
    create_image_variation = awaiting(operations.create_image_variation)
    download = awaiting(operations.download)

    def _connect(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: set[AsyncDriver[Any]] = set()
        self._pools: dict[str, ThreadPoolExecutor] = {}
        if self._core.face == "sync":
            from imgkit.bridges import ThreadBackend

            self._backend: AsyncBackend = ThreadBackend(
                cast(Backend, self._core.backend),
                lambda: self._pool("wire", self._core.options.max_in_flight),
            )
        else:
            self._backend = cast(AsyncBackend, self._core.backend)

    async def close(self) -> None:
        """Close all connections. Idempotent; the service cannot be used afterwards.

        Calls that still run are broken off, and end with an error that says what may have been billed.
        """
        if not self._closed:
            import asyncio

            self._closed = True
            for driver in list(self._running):
                driver.abort()
            until = time.monotonic() + CLOSING_S
            while self._running and time.monotonic() < until:
                await asyncio.sleep(0.01)
            await self._backend.aclose()
            for pool in self._pools.values():
                pool.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def _run(self, flow: Flow[T], timeout_s: object) -> T:
        import asyncio

        from imgkit.async_driver import AsyncDriver

        loop = asyncio.get_running_loop()
        if self._closed:
            raise ServiceClosedError("this service is closed: make a new one")
        if self._loop is not loop:
            if self._loop is not None:
                raise ServiceClosedError(
                    "this AsyncImageService belongs to another event loop: make one inside each asyncio.run, "
                    "or use ImageService"
                )
            self._loop = loop
        driver = AsyncDriver(
            flow, self._backend, self._transfer(timeout_s), lambda: self._pool("files", FILE_THREADS)
        )
        self._running.add(driver)
        try:
            end = await driver.proceed()
            assert isinstance(end, Done), "only streams emit events"
            return end.value
        finally:
            self._running.discard(driver)
            driver.close()

    def _pool(self, name: str, threads: int) -> Executor:
        """Return a pool of threads. Files have their own: a paid picture must not wait for a slow server."""
        if name not in self._pools:
            from concurrent.futures import ThreadPoolExecutor

            self._pools[name] = ThreadPoolExecutor(threads, f"imgkit-{name}")
        return self._pools[name]


def _shut(backend: Backend, watchdog: Watchdog) -> None:
    watchdog.close()
    backend.close()


_living: weakref.WeakSet[ImageService] = weakref.WeakSet()


def _after_fork() -> None:
    for service in list(_living):
        service._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
