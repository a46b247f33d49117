"""The start of flows in this process: in threads under `ImageService`, in tasks under `AsyncImageService`.

They do not refer to the outcomes of a run, so outcomes that nobody holds any more can end.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from imgkit.bulk.bulk_values import BulkOutcome, Work
from imgkit.runtime.flow import Flow

if TYPE_CHECKING:
    import asyncio


class FlowThreads:
    """Starts flows in threads, as many as may be in flight. Any thread may call it.

    Args:
        execute: runs a flow within some seconds, None for the service's limit.
        most: most threads.
        timeout_s: seconds of each flow.
    """

    def __init__(
        self,
        execute: Callable[[Work, Flow[BulkOutcome], float | None], BulkOutcome],
        most: int,
        timeout_s: float | None,
    ) -> None:
        self._execute = execute
        self._most = most
        self._timeout_s = timeout_s
        self._pool: ThreadPoolExecutor | None = None

    def __call__(self, work: Work, flow: Flow[BulkOutcome]) -> Future[BulkOutcome]:
        """Start a flow, and return the future of its outcome."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._most, "imgkit-bulk")
        return self._pool.submit(self._execute, work, flow, self._timeout_s)

    def close(self, *, wait: bool) -> None:
        """End the threads once their flows have ended."""
        if self._pool is not None:
            self._pool.shutdown(wait=wait)


class FlowTasks:
    """Starts flows in tasks of an event loop, and holds the tasks: a loop does not. Any thread may call it.

    Args:
        execute: returns the coroutine that runs a flow within some seconds, None for the service's limit.
        timeout_s: seconds of each flow.

    Attributes:
        loop: the event loop, which is set before the first flow.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(
        self,
        execute: Callable[[Work, Flow[BulkOutcome], float | None], Coroutine[object, object, BulkOutcome]],
        timeout_s: float | None,
    ) -> None:
        self._execute = execute
        self._timeout_s = timeout_s
        self._tasks: dict[asyncio.Task[BulkOutcome], Future[BulkOutcome]] = {}

    def __call__(self, work: Work, flow: Flow[BulkOutcome]) -> Future[BulkOutcome]:
        """Start a flow, and return the future of its outcome."""
        import asyncio

        future: Future[BulkOutcome] = Future()
        future.set_running_or_notify_cancel()
        if asyncio._get_running_loop() is self.loop:
            self._start(work, flow, future)
        else:  # an engine has called from a thread of its own
            self.loop.call_soon_threadsafe(self._start, work, flow, future)
        return future

    def _start(self, work: Work, flow: Flow[BulkOutcome], future: Future[BulkOutcome]) -> None:
        task = self.loop.create_task(self._execute(work, flow, self._timeout_s))
        self._tasks[task] = future
        task.add_done_callback(self._pass_on)

    def _pass_on(self, task: asyncio.Task[BulkOutcome]) -> None:
        future = self._tasks.pop(task)
        if task.cancelled():
            future.set_exception(CancelledError())
        elif (error := task.exception()) is not None:
            future.set_exception(error)
        else:
            future.set_result(task.result())
