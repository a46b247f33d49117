"""What users hold: `ImageService` and `AsyncImageService`, two faces of the same plans."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, cast

from imgkit.core import operations
from imgkit.core.config import Core
from imgkit.errors import NotDownloadedError, ServiceClosedError
from imgkit.models import ImagesResponse
from imgkit.runtime.driver import Driver, Watchdog
from imgkit.runtime.flow import EmitEvent, Finished, Flow
from imgkit.runtime.streams import AsyncImageStream, ImageStream
from imgkit.service_base import ServiceBase
from imgkit.signatures import argument_error, copy_signature
from imgkit.wire.messages import AsyncBackend, Backend

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Executor, ThreadPoolExecutor

    from imgkit.runtime.async_driver import AsyncDriver

P = ParamSpec("P")
T = TypeVar("T")

CLOSING_S = 2.0
"""Seconds that `close` gives to calls that it breaks off."""

FILE_THREADS = 8

Plan = Callable[Concatenate[Core, P], Flow[T]]


def blocking(plan: Plan[P, T]) -> Callable[Concatenate[ImageService, P], T]:
    """Return a method of `ImageService` that runs `plan`."""

    def method(self: ImageService, /, *args: P.args, **kwargs: P.kwargs) -> T:
        flow = _flow(plan, self._core, *args, **kwargs)
        return self._run(flow, kwargs.get("timeout_s"))

    return copy_signature(method, plan, "ImageService")


def awaiting(plan: Plan[P, T]) -> Callable[Concatenate[AsyncImageService, P], Coroutine[Any, Any, T]]:
    """Return a method of `AsyncImageService` that runs `plan`."""

    async def method(self: AsyncImageService, /, *args: P.args, **kwargs: P.kwargs) -> T:
        flow = _flow(plan, self._core, *args, **kwargs)
        return await self._run(flow, kwargs.get("timeout_s"))

    return copy_signature(method, plan, "AsyncImageService")


def streaming(plan: Plan[P, ImagesResponse]) -> Callable[Concatenate[ImageService, P], ImageStream]:
    """Return a method of `ImageService` that gives the events of `plan`."""

    def method(self: ImageService, /, *args: P.args, **kwargs: P.kwargs) -> ImageStream:
        flow = _flow(plan, self._core, *args, **kwargs)
        return ImageStream(flow, lambda flow: self._driver(flow, kwargs.get("timeout_s")))

    return copy_signature(method, plan, "ImageService", "ImageStream")


def async_streaming(
    plan: Plan[P, ImagesResponse],
) -> Callable[Concatenate[AsyncImageService, P], AsyncImageStream]:
    """Return a method of `AsyncImageService` that gives the events of `plan`."""

    def method(self: AsyncImageService, /, *args: P.args, **kwargs: P.kwargs) -> AsyncImageStream:
        flow = _flow(plan, self._core, *args, **kwargs)
        return AsyncImageStream(
            flow, lambda flow: self._driver(flow, kwargs.get("timeout_s")), self._proceed, self._end
        )

    return copy_signature(method, plan, "AsyncImageService", "AsyncImageStream")


def _flow(plan: Plan[P, T], core: Core, *args: P.args, **kwargs: P.kwargs) -> Flow[T]:
    """Start `plan`. A generator function runs nothing yet, so only its signature can fail here."""
    try:
        flow = plan(core, *args, **kwargs)
    except TypeError:
        raise argument_error(plan, args, kwargs) from None
    recorders = core.equipment.recorders
    if not recorders:
        return flow
    from imgkit.core.recording import record_traffic

    return record_traffic(flow, recorders)


class ImageService(ServiceBase):
    """Creates, edits and varies images with blocking calls; from any number of threads at once.

    Use it as a context manager, or `close` it. Any backend works, an asynchronous one too.
    """

    create_image = blocking(operations.create_image)
    create_image_edit = blocking(operations.create_image_edit)
    create_image_variation = blocking(operations.create_image_variation)
    stream_image = streaming(operations.stream_image)
    stream_image_edit = streaming(operations.stream_image_edit)
    download = blocking(operations.download)

    def _connect(self) -> None:
        self._watchdog = Watchdog()
        if self._core.flavor == "async":
            from imgkit.runtime.bridges import LoopBackend

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

    def _driver(self, flow: Flow[T], timeout_s: object) -> Driver[T]:
        if self._closed:
            raise ServiceClosedError("this service is closed: make a new one")
        return Driver(flow, self._backend, self._transfer(timeout_s), self._watchdog)

    def _run(self, flow: Flow[T], timeout_s: object) -> T:
        driver = self._driver(flow, timeout_s)
        try:
            end = driver.run_until_event()
            assert isinstance(end, Finished), "only streams emit events"
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
            return service._run(_flow(operations.fetch_url, service._core, url), None)

        return fetch

    def _after_fork(self) -> None:
        self._swapping = threading.Lock()
        self._watchdog.after_fork()
        forget = getattr(self._backend, "after_fork", None)
        if forget is not None:
            forget()


class AsyncImageService(ServiceBase):
    """Creates, edits and varies images with coroutines; from any number of tasks of one event loop.

    Use it as an asynchronous context manager, or await `close`. Any backend works, a blocking one too.
    """

    create_image = awaiting(operations.create_image)
    create_image_edit = awaiting(operations.create_image_edit)
    create_image_variation = awaiting(operations.create_image_variation)
    stream_image = async_streaming(operations.stream_image)
    stream_image_edit = async_streaming(operations.stream_image_edit)
    download = awaiting(operations.download)

    def _connect(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: set[AsyncDriver[Any]] = set()
        self._running: set[AsyncDriver[Any]] = set()  # those of them that somebody waits for
        self._pools: dict[str, ThreadPoolExecutor] = {}
        if self._core.flavor == "sync":
            from imgkit.runtime.bridges import ThreadBackend

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
            for driver in list(self._open):
                driver.abort()
            until = time.monotonic() + CLOSING_S
            while self._running and time.monotonic() < until:
                await asyncio.sleep(0.01)
            for driver in self._open - self._running:  # of streams that are between two events
                driver.close_reply()
            await self._backend.aclose()
            for pool in self._pools.values():
                pool.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def _driver(self, flow: Flow[T], timeout_s: object) -> AsyncDriver[T]:
        import asyncio

        from imgkit.runtime.async_driver import AsyncDriver

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
        self._open.add(driver)
        return driver

    async def _run(self, flow: Flow[T], timeout_s: object) -> T:
        driver = self._driver(flow, timeout_s)
        try:
            end = await self._proceed(driver)
            assert isinstance(end, Finished), "only streams emit events"
            return end.value
        finally:
            self._end(driver)

    async def _proceed(self, driver: AsyncDriver[T]) -> Finished[T] | EmitEvent:
        self._running.add(driver)
        try:
            return await driver.run_until_event()
        finally:
            self._running.discard(driver)

    def _end(self, driver: AsyncDriver[Any]) -> None:
        self._open.discard(driver)
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
