"""The asynchronous driver: runs a flow in the caller's task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import nullcontext, suppress
from functools import partial
from typing import Generic, TypeVar

from imgkit.errors import ImgkitError, NotSentError, ServiceClosedError
from imgkit.runtime.driver import CLOSED, JOIN_TIMEOUT_S, note_leaving, to_failure
from imgkit.runtime.flow import (
    Effect,
    EffectFailed,
    EmitEvent,
    Finished,
    Flow,
    ReadChunk,
    RunBlocking,
    RunParallel,
    SendRequest,
    Sleep,
    Threads,
    advance,
    expect_end,
)
from imgkit.wire.messages import AsyncBackend, AsyncReply, Head
from imgkit.wire.transfer import DriverTransfer

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class DeadlinePassed(TimeoutError):
    """The deadline of a call has passed. Timeouts of HTTP libraries have other classes."""


class Deadline:
    """The deadline of a call: a context manager around each effect that it bounds.

    It works like `asyncio.timeout_at` with one timer for the whole call. A timer per effect would add a
    tenth to the cost of a small call.

    Args:
        after_s: seconds from now. The loop has a clock of its own, so only durations are comparable.

    Attributes:
        loop: the event loop of the call.
    """

    def __init__(self, after_s: float) -> None:
        self.loop = asyncio.get_running_loop()
        self._at = self.loop.time() + after_s
        self._timer: asyncio.Handle | None = None
        self._passed = False
        self._task: asyncio.Task[object] | None = None
        self._earlier_cancels = 0  # cancellations that others had asked for
        self._cancelled = False

    def close(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def __enter__(self) -> None:
        self._task = task = asyncio.current_task()
        if task is None:
            raise RuntimeError("A call of an AsyncImageService runs in a task of its event loop.")
        self._earlier_cancels = task.cancelling()
        self._cancelled = False
        if self._timer is None:
            self._timer = self.loop.call_at(self._at, self._pass)
        elif self._passed:  # during an effect that the deadline does not bound
            self._timer = self.loop.call_soon(self._pass)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        task, self._task = self._task, None
        if not self._cancelled or task is None:
            return
        # A cancellation by somebody else wins.
        if task.uncancel() <= self._earlier_cancels and kind is asyncio.CancelledError:
            raise DeadlinePassed from error

    def _pass(self) -> None:
        self._passed = True
        if self._task is not None and not self._cancelled:  # a timer of an earlier effect may fire late
            self._cancelled = True
            self._task.cancel()


class AsyncDriver(Generic[T_co]):
    """Runs one flow under the asynchronous service; see `imgkit.runtime.driver.Driver`.

    Args:
        flow: a flow that has not started.
        backend: sends the requests.
        transfer: an unused transfer with the call's deadline.
        executor: returns the executor for functions that may block, by the name of its threads.

    Attributes:
        emit: receives the events of a flow that is a part of a call.
    """

    def __init__(
        self,
        flow: Flow[T_co],
        backend: AsyncBackend,
        transfer: DriverTransfer,
        executor: Callable[[Threads], Executor],
    ) -> None:
        self._flow = flow
        self._backend = backend
        self._transfer = transfer
        self._reply: AsyncReply | None = None
        self._busy = False
        self._executor = executor
        self._parallel: Parallel | None = None
        self.emit: Callable[[EmitEvent], object] | None = None
        self._aborted = False
        self._pause: asyncio.Future[None] | None = None
        self._deadline = Deadline(transfer.remaining_s())

    async def run_until_event(self) -> Finished[T_co] | EmitEvent:
        """Run the flow up to its end or its next event for the caller."""
        # Popped, so that no variable keeps a chunk: it may be large, or repeat a key.
        results: list[object] = [None]
        while True:
            if self._parallel is not None:
                event = await self._parallel.next_event()
                if event is not None:
                    return event
                results, self._parallel = [self._parallel.list_ends()], None
            effect: Effect | Finished[T_co] = advance(self._flow, results.pop())
            match effect:
                case Finished() | EmitEvent():
                    return effect
                case SendRequest():
                    results.append(await self._open(effect))
                case ReadChunk(grace_s):
                    results.append(await self._read(grace_s))
                case RunBlocking():
                    results.append(await self._run(effect))
                case Sleep(wait_s):
                    await self._sleep(min(wait_s, self._transfer.remaining_s()))
                    results.append(EffectFailed(ServiceClosedError(CLOSED)) if self._aborted else None)
                case RunParallel():
                    self._parallel = self._start_parallel(effect)

    async def run_to_end(self) -> Finished[T_co] | EffectFailed:
        """Run the flow of a part to its end. An exception outside imgkit's own tree is raised."""
        try:
            while isinstance(step := await self.run_until_event(), EmitEvent) and self.emit is not None:
                self.emit(step)
            return expect_end(step)
        except ImgkitError as error:
            return EffectFailed(error)
        finally:
            self.close()

    def abort(self) -> None:
        """Interrupt the flow from outside. Nothing more is sent."""
        self._aborted = True
        self._transfer.abort()
        if self._pause is not None and not self._pause.done():
            self._pause.set_result(None)
        for part in self._parallel.parts if self._parallel is not None else ():
            part.abort()

    @property
    def is_in_loop(self) -> bool:
        """Whether the running event loop is the loop of the call."""
        return asyncio.get_running_loop() is self._deadline.loop

    def close_threadsafe(self, end: Callable[[AsyncDriver[T_co]], None]) -> None:
        """Schedule `end` in the event loop of the call. Safe to call from any thread."""
        loop = self._deadline.loop
        if not loop.is_closed():
            loop.call_soon_threadsafe(end, self)
        else:
            self._reply = None  # it died with the loop
            self.close()

    def close(self) -> None:
        """Close the flow and its reply."""
        try:
            if self._parallel is not None:
                self._parallel.cancel()
            self._flow.close()
        finally:
            self._deadline.close()
            self.close_reply()

    def _start_parallel(self, effect: RunParallel) -> Parallel:
        parts: list[AsyncDriver[object]] = [
            AsyncDriver(flow, self._backend, self._transfer.for_next_request(), self._executor)
            for flow in effect.flows
        ]
        return Parallel(parts, effect.limit, first_ends_all=effect.first_ends_all)

    async def _sleep(self, wait_s: float) -> None:
        self._pause = asyncio.get_running_loop().create_future()
        if not self._aborted:
            await asyncio.wait({self._pause}, timeout=wait_s)

    async def _open(self, effect: SendRequest) -> Head | EffectFailed:
        self.close_reply()
        request = effect.request
        if self._aborted:
            return EffectFailed(ServiceClosedError(CLOSED))
        transfer = self._transfer = self._transfer.for_next_request()
        if transfer.is_expired():
            return EffectFailed(transfer.to_error(TimeoutError(), unsent=True))
        self._busy = True
        transfer.begin(request.url, direct=request.public_peer_only)
        try:
            note_leaving(effect, self._backend, transfer)
            with self._deadline:
                self._reply = await self._backend.open(request, transfer)
        except Exception as error:
            return self._to_failure(error)
        transfer.mark_sent()
        transfer.request_id = self._reply.head.request_id
        return self._reply.head

    async def _read(self, grace_s: float | None) -> bytes | EffectFailed:
        if self._transfer.aborted:  # while the caller of a stream was busy
            return b"" if grace_s is not None else EffectFailed(self._transfer.to_error(TimeoutError()))
        assert self._reply is not None, "a flow reads after it has sent a request"
        grace = nullcontext() if grace_s is None else asyncio.timeout(grace_s)
        try:
            with self._deadline:
                async with grace:
                    chunk = await self._reply.read()
        except Exception as error:
            if isinstance(grace, asyncio.Timeout) and (
                grace.expired() or self._transfer.aborted or isinstance(error, DeadlinePassed)
            ):
                self._transfer.abort()
                return b""
            return self._to_failure(error)
        self._busy = bool(chunk)
        return chunk

    async def _run(self, effect: RunBlocking) -> object:
        """Call a function in a thread. The deadline bounds it only before anything is sent."""
        try:
            with self._deadline if effect.before_sending else nullcontext():
                executor = self._executor(effect.threads)
                return await in_thread(executor, effect.fn, must_run=not effect.before_sending)
        except ImgkitError as error:
            return EffectFailed(error)
        except DeadlinePassed:
            return EffectFailed(NotSentError(f"Nothing was sent within {self._transfer.timeout_s:g} s."))

    def _to_failure(self, error: Exception) -> EffectFailed:
        if isinstance(error, DeadlinePassed):
            self._transfer.abort()
            return EffectFailed(self._transfer.to_error(error))
        return to_failure(error, self._backend, self._transfer)

    def close_reply(self) -> None:
        """Close the reply and its connection. Not while a task reads it."""
        if self._busy:  # interrupted: end whatever still blocks
            self._transfer.abort()
            self._busy = False
        if self._reply is not None:
            self._reply.close()
            self._reply = None
        self._transfer.release()


class Parallel:
    """Flows that run as tasks. A bug in one of them, or a cancellation of the waiting task, cancels all.

    Args:
        parts: their drivers.
        limit: number of flows that run at the same time.
        first_ends_all: as for `RunParallel`.
    """

    def __init__(self, parts: list[AsyncDriver[object]], limit: int, *, first_ends_all: bool) -> None:
        self.parts = parts
        self._first_ends_all = first_ends_all
        self._room = asyncio.Semaphore(limit)
        self._events: asyncio.Queue[EmitEvent | None] = asyncio.Queue()  # None for the end of a flow
        for part in parts:
            part.emit = self._events.put_nowait
        self._work = [asyncio.create_task(self._run(part)) for part in parts]
        for task in self._work:
            task.add_done_callback(lambda _: self._events.put_nowait(None))

    async def next_event(self) -> EmitEvent | None:
        """Return the next event, None once all flows have ended."""
        try:
            while not (all(task.done() for task in self._work) and self._events.empty()):
                event = await self._events.get()
                if event is not None:
                    return event
                for task in self._work:
                    if task.done():
                        task.result()  # raises for a bug
                if self._first_ends_all and self._work[0].done():
                    for part in self.parts[1:]:
                        part.abort()
            return None
        except BaseException:
            self.cancel()
            await asyncio.gather(*self._work, return_exceptions=True)
            raise

    def list_ends(self) -> list[Finished[object] | EffectFailed]:
        """Return the ends of the flows, in order."""
        return [task.result() for task in self._work]

    def cancel(self) -> None:
        """Cancel the tasks. They close their flows as soon as the loop runs."""
        for task in self._work:
            if not task.cancelling():  # a second cancellation would interrupt its cleanup
                task.cancel()

    async def _run(self, part: AsyncDriver[object]) -> Finished[object] | EffectFailed:
        async with self._room:
            return await part.run_to_end()


async def in_thread(
    executor: Executor,
    fn: Callable[[], T],
    abort: Callable[[], None] | None = None,
    *,
    must_run: bool = False,
) -> T:
    """Run `fn` in a thread. A cancellation aborts it and waits a moment for the thread to end.

    Args:
        executor: runs the thread.
        fn: the function.
        abort: interrupts the function from another thread, None if it cannot be interrupted.
        must_run: run it even if the cancellation comes first, as for a record of what was paid.

    Raises:
        ServiceClosedError: the executor is shut down.
    """
    loop = asyncio.get_running_loop()
    try:
        work = executor.submit(fn)
    except RuntimeError:
        raise ServiceClosedError(CLOSED) from None
    ended = loop.create_future()

    def tell(_: Future[T]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_end, ended)

    # Lighter than asyncio.wrap_future behind a shield: a reply takes several turns of a thread.
    work.add_done_callback(tell)
    try:
        await ended
    except asyncio.CancelledError:
        if must_run or not work.cancel():  # it is running
            closed: Future[None] = Future()
            work.add_done_callback(partial(_close_result, closed))
            if abort is not None:
                abort()
            await _join(asyncio.wrap_future(closed))
        raise
    if work.cancelled():  # the executor was shut down before a thread was free
        raise ServiceClosedError(CLOSED)
    return work.result()


def _end(waiting: asyncio.Future[None]) -> None:
    """Wake the task that waits, unless it was cancelled."""
    if not waiting.done():
        waiting.set_result(None)


async def _join(waiting: asyncio.Future[T]) -> None:
    """Wait for up to `JOIN_TIMEOUT_S`, through further cancellations of a task that is being cancelled."""
    loop = asyncio.get_running_loop()
    until = loop.time() + JOIN_TIMEOUT_S
    while not waiting.done() and loop.time() < until:
        with suppress(asyncio.CancelledError):
            await asyncio.wait({waiting}, timeout=until - loop.time())


def _close_result(closed: Future[None], work: Future[T]) -> None:
    """Close a result that nobody waits for, retrieve its exception, and tell that it is closed."""
    try:
        result: object = None if work.exception() is not None else work.result()
        if hasattr(result, "close"):
            result.close()
    finally:
        closed.set_result(None)
