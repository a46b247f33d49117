"""The outcomes of a run as callers hold them: iterators that are context managers, for each service."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from os import PathLike
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Self

from imgkit.bulk.bulk_run import BulkRun
from imgkit.bulk.bulk_values import MOST_REQUESTS_IN_FLIGHT, BulkOutcome, Pause, Work
from imgkit.bulk.dispatch import Start
from imgkit.bulk.flow_starters import FlowTasks, FlowThreads
from imgkit.bulk.siblings import AsyncClosable, Closable
from imgkit.runtime.flow import Flow

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

LEFT = "The outcomes were left before their end."
STOPPED = "It was stopped."

LONGEST_SLEEP_S = 1.0
"""Seconds after which a task that waits for nothing in flight looks whether it should stop."""


class _Outcomes:
    """The common part: the run, the driver of its flows, and the state that a row had before.

    Args:
        run: the run.
        requests: its requests.
        start: starts the flow of a row in this process. It does not refer to the outcomes, which nobody may
            hold.
    """

    def __init__(self, run: BulkRun, requests: Iterable[object] | PathLike[str], start: Start) -> None:
        self.run = run
        self._requests = requests
        self._start = start
        self._is_prepared = False
        self._has_ended = False
        self._is_left = False
        self._process = os.getpid()

    def _prepare(self) -> None:
        if not self._is_prepared:
            self.run.prepare(self._requests, self._start)
            self._is_prepared = True
            if self._is_left:  # the task that waited for this was cancelled
                self.run.close()

    def _leave(self) -> None:
        """Send nothing more: nobody takes the outcomes."""
        self._is_left = True
        if not self._has_ended:
            self.run.stop(LEFT)

    def _close_run_after(self, calls: Iterable[Future[BulkOutcome] | asyncio.Future[BulkOutcome]]) -> None:
        """Close the run once these calls have ended. They write down what became of them by themselves."""
        run, rest = self.run, list(calls)

        def close_if_last(_: object) -> None:
            if all(call.done() for call in rest):
                run.close()

        for call in rest:
            call.add_done_callback(close_if_last)
        if not rest:
            run.close()

    def stop(self) -> None:
        """Send nothing more, and leave jobs to the next run. Requests in flight end, and are delivered.

        Safe to call from any thread, and from the handler of a signal.
        """
        self.run.leaves_jobs = True
        self.run.stop(STOPPED)
        self.run.reporter.hurry()

    def _report(self, in_flight: int, *, is_last: bool = False) -> None:
        run = self.run
        run.reporter.report(run.counts, in_flight, run.spent, run.stopped, is_last=is_last)

    def _choose_wait_s(self, pause: Pause) -> float | None:
        """Return the seconds to wait for an outcome: until the pause is over, or a report is due."""
        waits = [wait_s for wait_s in (pause.wait_s, self.run.reporter.wait_s) if wait_s is not None]
        return min(waits, default=None)

    def _raise_failure(self) -> None:
        """Raise the exception that ended the reading of the requests, once."""
        failure, self.run.failure = self.run.failure, None
        if failure is not None:
            raise failure


class BulkOutcomes(_Outcomes):
    """The outcomes of a run under `ImageService`, in the order in which they end.

    >>> import tempfile
    >>> from imgkit import ImageService
    >>> with ImageService() as images, images.bulk(["a fox", "a hen"], folder=tempfile.mkdtemp()) as outcomes:
    ...     print(sorted((outcome.id, outcome.state) for outcome in outcomes))
    [('1', 'done'), ('2', 'done')]

    Leaving early finishes the requests in flight, and leaves the others for the next run: at the end of the
    `with` block, or of the service's, or when nobody refers to the outcomes any more.

    Attributes:
        run: the run, with its counts.
        take_opened: returns the services of other providers that the run has opened, once.
    """

    def __init__(
        self,
        run: BulkRun,
        requests: Iterable[object] | PathLike[str],
        execute: Callable[[Work, Flow[BulkOutcome], float | None], BulkOutcome],
        take_opened: Callable[[], Iterable[Closable]] = tuple,
    ) -> None:
        self._threads = FlowThreads(execute, MOST_REQUESTS_IN_FLIGHT, run.timeout_s)
        super().__init__(run, requests, self._threads)
        self.take_opened = take_opened
        self._open: dict[Future[BulkOutcome], Work] = {}
        self._ended: SimpleQueue[Future[BulkOutcome] | None] = SimpleQueue()  # None to look up

    def __enter__(self) -> Self:
        self._prepare()
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        self.run.leaves_jobs |= kind is not None
        self.close()

    def __iter__(self) -> Self:
        self._prepare()
        return self

    def __next__(self) -> BulkOutcome:
        self._prepare()
        self.run.refuse_fork()
        while True:
            try:
                self._report(len(self._open))
            except BaseException:
                self.close()
                raise
            while self.run.needs_rows:
                self.run.read_more()
            step = self.run.take(len(self._open))
            if isinstance(step, Work):
                future = self.run.hand_out(step)
                self._open[future] = step
                future.add_done_callback(self._ended.put)
                continue
            if step is None:
                self._has_ended = True
                self.close()
                self._report(0, is_last=True)
                self._raise_failure()
                raise StopIteration
            outcome = self._wait(step)
            if outcome is not None:
                return outcome

    def stop(self) -> None:
        """Send nothing more, and leave jobs to the next run. Requests in flight end, and are delivered.

        Safe to call from any thread, and from the handler of a signal.
        """
        super().stop()
        self._ended.put(None)

    def close(self) -> None:
        """Finish the requests in flight, and close the run. Idempotent.

        If Ctrl-C interrupts it, they end with the service, or in their own time.
        """
        if self.run.is_inherited:
            return  # a forked child has none of the threads
        self._leave()
        try:
            while self._open:
                done, work = next(iter(self._open.items()))
                outcome = done.result()
                del self._open[done]
                self.run.note(outcome, work)
        finally:
            self._threads.close(wait=not self._open)
            self._close_run_after(self._open)
            if not self._open:
                for service in self.take_opened():
                    service.close()

    def __del__(self) -> None:
        if self._is_prepared:  # a loop without a `with` block was left
            self.close()

    def _wait(self, pause: Pause) -> BulkOutcome | None:
        """Return the next outcome; None once the pause is over, or a report is due."""
        try:
            done = self._ended.get(timeout=self._choose_wait_s(pause))
        except Empty:
            return None
        work = None if done is None else self._open.pop(done, None)
        return None if done is None or work is None else self.run.note(done.result(), work)


class AsyncBulkOutcomes(_Outcomes):
    """The outcomes of a run under `AsyncImageService`: ``async for``, in an ``async with`` block.

    Leaving early finishes the requests in flight, and leaves the others for the next run: at the end of the
    `async with` block, or of the service's.

    Args:
        run, requests, execute: as for `BulkOutcomes`.
        left_calls: calls in flight of outcomes that nobody refers to any more, with their folders. The
            service waits for them, and so does another run in that folder.

    Attributes:
        run, take_opened: as for `BulkOutcomes`.
    """

    def __init__(
        self,
        run: BulkRun,
        requests: Iterable[object] | PathLike[str],
        execute: Callable[[Work, Flow[BulkOutcome], float | None], Coroutine[object, object, BulkOutcome]],
        left_calls: dict[asyncio.Future[BulkOutcome], Path],
        take_opened: Callable[[], Iterable[AsyncClosable]] = tuple,
    ) -> None:
        self._tasks = FlowTasks(execute, run.timeout_s)
        super().__init__(run, requests, self._tasks)
        self.take_opened = take_opened
        self._open: dict[asyncio.Future[BulkOutcome], Work] = {}
        self._left_calls = left_calls

    async def __aenter__(self) -> Self:
        await self._prepare_in_thread()
        return self

    async def _prepare_in_thread(self) -> None:
        import asyncio

        if self._is_prepared:
            return
        self._tasks.loop = asyncio.get_running_loop()
        folder = self.run.run_folder
        await wait_for_calls([call for call, place in self._left_calls.items() if place == folder])
        try:
            await asyncio.to_thread(self._prepare)
        except asyncio.CancelledError:  # the thread goes on, and closes the run
            self._leave()
            if self._is_prepared:
                self.run.close()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run.leaves_jobs |= kind is not None
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BulkOutcome:
        import asyncio

        await self._prepare_in_thread()
        self.run.refuse_fork()
        while True:
            try:
                self._report(len(self._open))
            except BaseException:
                await self.close()
                raise
            while self.run.needs_rows:
                await asyncio.to_thread(self.run.read_more)
            step = self.run.take(len(self._open))
            if isinstance(step, Work):
                self._open[asyncio.wrap_future(self.run.hand_out(step))] = step
                continue
            if step is None:
                self._has_ended = True
                await self.close()
                self._report(0, is_last=True)
                self._raise_failure()
                raise StopAsyncIteration
            outcome = await self._wait(step)
            if outcome is not None:
                return outcome

    async def close(self) -> None:
        """Finish the requests in flight, and close the run. Idempotent."""
        import asyncio

        if self.run.is_inherited:
            return  # the tasks are those of the parent process
        self._leave()
        try:
            while self._open:
                await self._wait(Pause(None))
        finally:
            if self._open:
                self._close_run_after(self._open)
            else:
                await asyncio.to_thread(self.run.close)
                for service in self.take_opened():
                    await service.close()

    def __del__(self) -> None:
        if self._is_prepared and self._process == os.getpid():  # a loop without a block was left
            self._leave()
            self._left_calls.update(dict.fromkeys(self._open, self.run.run_folder))
            for call in self._open:
                call.add_done_callback(self._left_calls.pop)
            self._close_run_after(self._open)

    async def _wait(self, pause: Pause) -> BulkOutcome | None:
        """Return the next outcome; None once the pause is over, or a report is due."""
        import asyncio

        wait_s = self._choose_wait_s(pause)
        if not self._open:
            await asyncio.sleep(min(wait_s or 0.0, LONGEST_SLEEP_S))
            return None
        done, _ = await asyncio.wait(self._open, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            return self.run.note(task.result(), self._open.pop(task))
        return None


async def wait_for_calls(calls: Iterable[asyncio.Future[BulkOutcome]]) -> None:
    """Wait until these calls have ended. They write down what became of them by themselves."""
    import asyncio

    rest = list(calls)
    if rest:
        await asyncio.wait(rest)
