"""The services that users hold: `ImageService` blocks, `AsyncImageService` awaits. The core is one."""

from __future__ import annotations

import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from imgkit.core.download import fetch_image
from imgkit.core.signatures import with_result_types
from imgkit.errors import NotDownloadedError, ServiceClosedError
from imgkit.fork import ForkRegistry
from imgkit.images.image import Image
from imgkit.models import Estimate, ImagesResponse
from imgkit.runtime.driver import Driver, Watchdog
from imgkit.runtime.flow import EmitEvent, Finished, Flow, expect_end
from imgkit.runtime.streams import AsyncImageStream, ImageStream
from imgkit.service_base import ServiceBase
from imgkit.wire.messages import AsyncBackend, Backend, ForkAware

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Executor, ThreadPoolExecutor

    from imgkit.core.context import SaveTo
    from imgkit.core.probe import ListedModel, Probe
    from imgkit.jobs.job import Job
    from imgkit.runtime.async_driver import AsyncDriver

T = TypeVar("T")

CLOSE_TIMEOUT_S = 2.0
"""Seconds that `close` gives to calls that it aborts."""

FILE_THREADS = 8
"""Threads for files. They are not shared with backends: an image must not wait for a slow server."""


@with_result_types({"ResponseT": "ImagesResponse", "StreamT": "ImageStream", "ImageT": "Image"})
class ImageService(ServiceBase[ImagesResponse, ImageStream, Image, Estimate]):
    """Creates, edits and varies images with blocking calls, from any number of threads.

    >>> from imgkit import ImageService
    >>> with ImageService() as images:                 # offline: no key, no network, no cost
    ...     response = images.create_image("A cute baby sea otter", size="256x256")
    >>> response[0].width
    256

    Use it as a context manager, or `close` it. Any backend works, an asynchronous one too.
    """

    def _connect(self) -> None:
        self._watchdog = Watchdog()
        if self._core.flavor == "async":
            from imgkit.runtime.bridges import LoopBackend

            bridge = LoopBackend(cast(AsyncBackend, self._core.backend))
            self._backend: Backend = bridge  # type: ignore[assignment]  # nobody sets its errors
        else:
            self._backend = cast(Backend, self._core.backend)
        # A service that nobody closes is closed when the interpreter ends.
        self._finalizer = weakref.finalize(self, _close_backend, self._backend, self._watchdog)
        _SERVICES.add(self)

    def list_models(self) -> tuple[ListedModel, ...]:
        """Return the models that the host lists, in its order. The request is free.

        >>> from imgkit import ImageService
        >>> from imgkit.testing import WireServer, reply
        >>> with WireServer(reply(200, {"data": [{"id": "gpt-image-2"}]})) as server:
        ...     with ImageService("requests", base_url=server.base_url) as images:
        ...         [model.id for model in images.list_models()]
        ['gpt-image-2']

        Raises:
            ConfigurationError: the provider has no such request, or there is no key; nothing was sent.
            ImgkitError: the API or the wire failed.
        """
        from imgkit.core.probe import list_models

        return self._run_flow(list_models(self._core), None)

    def probe(self) -> Probe:
        """Ask the host for its models and return all that the reply tells: key, clock, models, problem.

        Raises:
            ConfigurationError: the provider has no such request, or there is no key; nothing was sent.
        """
        from imgkit.core.probe import probe_host

        return self._run_flow(probe_host(self._core), None)

    def resume(
        self, jobs: object, *, save_to: SaveTo = None, timeout_s: float | None = None
    ) -> ImagesResponse:
        """Collect the images of pending jobs, and deliver them as their call would have. Polls are free.

        ::

            try:
                response = images.create_image("a red fox", save_to="fox.png", timeout_s=60)
            except JobPendingError as error:
                response = images.resume(error)  # any process can do so, later

        Args:
            jobs: a `Job`, a `JobPendingError`, a response whose ``errors`` have one, or a list of them.
            save_to: where to save the images, None for the place that the call named.
            timeout_s: seconds that this may take, None for the service's limit.

        Returns:
            The images. Those of a response that is given come first.

        Raises:
            InvalidRequestError: there is no job, or another provider, host or process has it.
            JobPendingError: the jobs are still running.
            ImgkitError: a job has failed.
        """
        from imgkit.core.resume import resume_jobs

        return self._run_flow(resume_jobs(self._core, jobs, save_to, timeout_s), timeout_s)

    def cancel_job(self, job: Job, *, timeout_s: float | None = None) -> ImagesResponse | None:
        """Cancel a job, or collect its images if it is too late.

        Args:
            job: the job.
            timeout_s: seconds that this may take, None for the service's limit.

        Returns:
            The images, None for a cancelled job.

        Raises:
            InvalidRequestError: the provider cancels no jobs, or another provider has the job.
            JobPendingError: the job is still running.
        """
        from imgkit.core.resume import cancel_job

        return self._run_flow(cancel_job(self._core, job, timeout_s), timeout_s)

    def list_jobs(self) -> tuple[Job, ...]:
        """Return the pending jobs in the state folder that this service can collect, soonest expiry first.

        Raises:
            ConfigurationError: the service has no state folder, or it cannot be read.
        """
        from imgkit.core.resume import list_jobs

        return self._run_flow(list_jobs(self._core), None)

    def close(self) -> None:
        """Close all connections. Idempotent. The service cannot be used afterwards."""
        self._closed = True
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run_flow(self, flow: Flow[T], timeout_s: object) -> T:
        driver = self._new_driver(flow, timeout_s)
        try:
            return expect_end(driver.run_until_event()).value
        finally:
            driver.close()

    _run_download = _run_flow
    _run_estimate = _run_flow

    def _open_stream(self, flow: Flow[ImagesResponse], timeout_s: object) -> ImageStream:
        return ImageStream(flow, lambda flow: self._new_driver(flow, timeout_s))

    def _new_driver(self, flow: Flow[T], timeout_s: object) -> Driver[T]:
        if self._closed:
            raise ServiceClosedError("This service is closed. Make a new one.")
        return Driver(self._record(flow), self._backend, self._new_transfer(timeout_s), self._watchdog)

    def _make_fetcher(self) -> Callable[[str], bytes]:
        # A weak reference: an image that outlives its service does not keep the connections open.
        service_ref = weakref.ref(self)

        def fetch(url: str) -> bytes:
            service = service_ref()
            if service is None or service._closed:
                raise NotDownloadedError(
                    "The image is still at its URL, and its service is closed.",
                    hint="Fetch it with service.download(image) of an open service, or pass save_to=… to "
                    "download with the call.",
                )
            deadline = time.monotonic() + service._core.limits.timeout_s
            return service._run_flow(fetch_image(service._core, url, deadline), None)

        return fetch

    def _after_fork(self) -> None:
        self._swap_lock = threading.Lock()
        self._watchdog.after_fork()
        if isinstance(self._backend, ForkAware):
            self._backend.after_fork()


class PendingCall(Coroutine[Any, Any, T]):
    """The type of an `AsyncImageService` call: a coroutine, spelled so that editors see its result."""

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for the result."""
        raise AssertionError("a type for signatures, never an object")


@with_result_types(
    {"ResponseT": "ImagesResponse", "StreamT": "AsyncImageStream", "ImageT": "Image"}, is_async=True
)
class AsyncImageService(
    ServiceBase[
        "PendingCall[ImagesResponse]", AsyncImageStream, "PendingCall[Image]", "PendingCall[Estimate]"
    ]
):
    """Creates, edits and varies images with coroutines, from any number of tasks of one event loop.

    >>> import asyncio
    >>> from imgkit import AsyncImageService
    >>> async def main():
    ...     async with AsyncImageService() as images:
    ...         response = await images.create_image("A cute baby sea otter", size="256x256")
    ...         return response[0].width
    >>> asyncio.run(main())
    256

    Use it as an asynchronous context manager, or await `close`. Any backend works, a blocking one too.
    """

    def _connect(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drivers: set[AsyncDriver[object]] = set()
        self._awaited_drivers: set[AsyncDriver[object]] = set()
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._finalizer: weakref.finalize[..., Any] | None = None
        if self._core.flavor == "sync":
            from imgkit.runtime.bridges import ThreadBackend

            bridge = ThreadBackend(
                cast(Backend, self._core.backend),
                lambda: self._thread_pool("wire", self._core.options.max_in_flight),
            )
            self._backend: AsyncBackend = bridge  # type: ignore[assignment]  # nobody sets its errors
        else:
            self._backend = cast(AsyncBackend, self._core.backend)

    async def list_models(self) -> tuple[ListedModel, ...]:
        """Return the models that the host lists; see `ImageService.list_models`."""
        from imgkit.core.probe import list_models

        return await self._run_in_task(list_models(self._core), None)

    async def probe(self) -> Probe:
        """Ask the host for its models; see `ImageService.probe`."""
        from imgkit.core.probe import probe_host

        return await self._run_in_task(probe_host(self._core), None)

    async def resume(
        self, jobs: object, *, save_to: SaveTo = None, timeout_s: float | None = None
    ) -> ImagesResponse:
        """Collect the images of pending jobs; see `ImageService.resume`."""
        from imgkit.core.resume import resume_jobs

        return await self._run_in_task(resume_jobs(self._core, jobs, save_to, timeout_s), timeout_s)

    async def cancel_job(self, job: Job, *, timeout_s: float | None = None) -> ImagesResponse | None:
        """Cancel a job; see `ImageService.cancel_job`."""
        from imgkit.core.resume import cancel_job

        return await self._run_in_task(cancel_job(self._core, job, timeout_s), timeout_s)

    async def list_jobs(self) -> tuple[Job, ...]:
        """Return the pending jobs in the state folder; see `ImageService.list_jobs`."""
        from imgkit.core.resume import list_jobs

        return await self._run_in_task(list_jobs(self._core), None)

    async def close(self) -> None:
        """Close all connections. Idempotent. The service cannot be used afterwards.

        Running calls are aborted. Their errors say whether they may have been billed.
        """
        if self._closed:
            return
        import asyncio

        self._closed = True
        if self._finalizer is not None:
            self._finalizer.detach()
        for driver in list(self._drivers):
            driver.abort()
        until = time.monotonic() + CLOSE_TIMEOUT_S
        while self._awaited_drivers and time.monotonic() < until:
            await asyncio.sleep(0.01)
        for driver in self._drivers - self._awaited_drivers:  # streams between two events
            driver.close_reply()
        await self._backend.aclose()
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def _run_flow(self, flow: Flow[T], timeout_s: object) -> PendingCall[T]:
        return cast("PendingCall[T]", self._run_in_task(flow, timeout_s))

    async def _run_in_task(self, flow: Flow[T], timeout_s: object) -> T:
        driver = self._new_driver(flow, timeout_s)
        try:
            return expect_end(await self._run_until_event(driver)).value
        finally:
            self._close_driver(driver)

    _run_download = _run_flow
    _run_estimate = _run_flow

    def _open_stream(self, flow: Flow[ImagesResponse], timeout_s: object) -> AsyncImageStream:
        return AsyncImageStream(
            flow,
            lambda flow: self._new_driver(flow, timeout_s),
            self._run_until_event,
            self._close_driver,
        )

    def _new_driver(self, flow: Flow[T], timeout_s: object) -> AsyncDriver[T]:
        import asyncio

        from imgkit.runtime.async_driver import AsyncDriver

        loop = asyncio.get_running_loop()
        if self._closed:
            raise ServiceClosedError("This service is closed. Make a new one.")
        if self._loop is None:
            self._loop = loop
            self._finalizer = weakref.finalize(self, _warn_not_closed, repr(self), loop, os.getpid())
        elif self._loop is not loop:
            raise ServiceClosedError(
                "This AsyncImageService belongs to another event loop. Make one inside each asyncio.run, "
                "or use ImageService."
            )
        driver = AsyncDriver(
            self._record(flow),
            self._backend,
            self._new_transfer(timeout_s),
            lambda: self._thread_pool("files", FILE_THREADS),
        )
        self._drivers.add(driver)
        return driver

    async def _run_until_event(self, driver: AsyncDriver[T]) -> Finished[T] | EmitEvent:
        self._awaited_drivers.add(driver)
        try:
            return await driver.run_until_event()
        finally:
            self._awaited_drivers.discard(driver)

    def _close_driver(self, driver: AsyncDriver[object]) -> None:
        self._drivers.discard(driver)
        driver.close()

    def _thread_pool(self, name: str, threads: int) -> Executor:
        if name not in self._pools:
            from concurrent.futures import ThreadPoolExecutor

            self._pools[name] = ThreadPoolExecutor(threads, f"imgkit-{name}")
        return self._pools[name]


def _close_backend(backend: Backend, watchdog: Watchdog) -> None:
    watchdog.close()
    backend.close()


def _warn_not_closed(service: str, loop: asyncio.AbstractEventLoop, process: int) -> None:
    """Warn of an asynchronous service that nobody closed, as asyncio's own objects do."""
    if process != os.getpid():
        return  # a forked child closes nothing of its parent
    text = (
        f"{service} was not closed, so its connections and threads stayed open. Use `async with`, or await "
        "its close()."
    )
    loop.call_exception_handler({"message": text})
    warnings.warn(text, ResourceWarning, stacklevel=2)


_SERVICES = ForkRegistry(ImageService._after_fork)
