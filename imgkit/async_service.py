"""The asynchronous service that users hold: `AsyncImageService` awaits."""

from __future__ import annotations

import os
import time
import warnings
import weakref
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from imgkit.core.signatures import with_result_types
from imgkit.errors import ServiceClosedError
from imgkit.images.image import Image
from imgkit.models import Estimate, ImagesResponse
from imgkit.runtime.flow import EmitEvent, Finished, Flow, expect_end
from imgkit.runtime.streams import AsyncImageStream
from imgkit.service_base import ServiceBase
from imgkit.wire.messages import AsyncBackend, Backend

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable
    from concurrent.futures import Executor, ThreadPoolExecutor
    from os import PathLike
    from pathlib import Path
    from types import TracebackType
    from typing import Unpack

    from imgkit.bulk.bulk_values import BulkOptions, BulkOutcome
    from imgkit.bulk.outcomes import AsyncBulkOutcomes
    from imgkit.core.context import SaveTo
    from imgkit.core.probe import ListedModel, Probe
    from imgkit.errors import PendingJob
    from imgkit.jobs.job import Job
    from imgkit.runtime.async_driver import AsyncDriver

T = TypeVar("T")

CLOSE_TIMEOUT_S = 2.0
"""Seconds that `close` gives to calls that it aborts."""

FILE_THREADS = 8
"""Threads for files. They are not shared with backends: an image must not wait for a slow server."""

RECORD_THREADS = 16
"""Threads for records of calls, such as uploads of a run. A URL that hangs holds up no reply."""


class PendingCall(Coroutine[Any, Any, T]):
    """The type of an `AsyncImageService` call: a coroutine, spelled so that editors see its result."""

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for the result."""
        raise AssertionError("a type for signatures, never an object")


@with_result_types(
    {"ResponseT": "ImagesResponse", "StreamT": "AsyncImageStream", "ImageT": "Image"}, is_async=True
)
class AsyncImageService(
    ServiceBase[PendingCall[ImagesResponse], AsyncImageStream, PendingCall[Image], PendingCall[Estimate]]
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
        self._runs: weakref.WeakSet[AsyncBulkOutcomes] = weakref.WeakSet()
        self._left_calls: dict[asyncio.Future[BulkOutcome], Path] = {}
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

    def bulk(
        self,
        requests: Iterable[object] | PathLike[str],
        *,
        folder: str | PathLike[str],
        **options: Unpack[BulkOptions],
    ) -> AsyncBulkOutcomes:
        """Carry out many requests, as `ImageService.bulk` does: ``async for outcome in images.bulk(…)``.

        Args:
            requests, folder, options: as for `ImageService.bulk`.

        Returns:
            An `AsyncBulkOutcomes`: an asynchronous iterator and context manager.

        Raises:
            InvalidRequestError, ConfigurationError: as `ImageService.bulk`.
        """
        from imgkit.bulk.bulk_run import BulkRun
        from imgkit.bulk.outcomes import AsyncBulkOutcomes
        from imgkit.bulk.siblings import Siblings

        siblings = Siblings(self, self._core.provider_name, self._open_sibling)
        run = BulkRun(self._core, folder, options, self._given, lambda work: siblings.find_for(work)._core)
        outcomes = AsyncBulkOutcomes(
            run,
            requests,
            lambda work, flow, timeout_s: siblings.find_for(work)._run_in_task(flow, timeout_s),
            self._left_calls,
            siblings.take_opened,
        )
        self._runs.add(outcomes)
        return outcomes

    async def resume(
        self, jobs: object, *, save_to: SaveTo = None, timeout_s: float | None = None
    ) -> ImagesResponse:
        """Collect the images of pending jobs; see `ImageService.resume`."""
        from imgkit.core.resume import resume_jobs

        return await self._run_in_task(resume_jobs(self._core, jobs, save_to, timeout_s), timeout_s)

    async def cancel_job(self, job: PendingJob, *, timeout_s: float | None = None) -> ImagesResponse | None:
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
        for outcomes in list(self._runs):
            for service in outcomes.take_opened():
                await service.close()
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

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for outcomes in list(self._runs):  # of a loop that was left: the requests in flight end
                await outcomes.__aexit__(kind, error, trace)
            if self._left_calls:
                from imgkit.bulk.outcomes import wait_for_calls

                await wait_for_calls(self._left_calls)
        finally:
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
            lambda name: self._thread_pool(name, FILE_THREADS if name == "files" else RECORD_THREADS),
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
