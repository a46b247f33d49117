"""The asynchronous driver: runs a flow as a part of the caller's task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import nullcontext, suppress
from typing import Any, Generic, TypeVar

from imgkit.errors import ImgkitError, NotSentError, ServiceClosedError
from imgkit.runtime.driver import CLOSED, JOIN_S, outcome
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
    advance,
)
from imgkit.wire.messages import AsyncBackend, AsyncReply, Head, HttpRequest
from imgkit.wire.transfer import Transfer

T = TypeVar("T")


class DeadlinePassed(TimeoutError):
    """The deadline of a call passed; the timeouts of HTTP libraries are other ones."""


class Deadline:
    """The deadline of a call, for one need after the other: a context manager around what it bounds.

    It is `asyncio.timeout_at` with one timer for the whole call; a timer for each need would be a tenth of
    what a small call costs.

    Args:
        after_s: seconds from now. The loop has its own clock; only spans of time pass between clocks.

    Attributes:
        loop: of the call.
    """

    def __init__(self, after_s: float) -> None:
        self.loop = asyncio.get_running_loop()
        self._at = self.loop.time() + after_s
        self._timer: asyncio.Handle | None = None
        self._passed = False
        self._task: asyncio.Task[Any] | None = None
        self._cancels = 0  # those that others had asked of the task before
        self._cancelled = False

    def close(self) -> None:
        """Forget the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        assert self._task is not None, "drivers run in tasks"
        self._cancels = self._task.cancelling()
        self._cancelled = False
        if self._timer is None:
            self._timer = self.loop.call_at(self._at, self._pass)
        elif self._passed:  # while something ran that it does not bound
            self._timer = self.loop.call_soon(self._pass)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        task, self._task = self._task, None
        if not self._cancelled or task is None:
            return
        # Somebody else may have cancelled it too; then that is what counts.
        if task.uncancel() <= self._cancels and kind is asyncio.CancelledError:
            raise DeadlinePassed from error

    def _pass(self) -> None:
        self._passed = True
        if self._task is not None and not self._cancelled:  # timers of earlier needs may be left
            self._cancelled = True
            self._task.cancel()


class AsyncDriver(Generic[T]):
    """One call under the asynchronous service; see `imgkit.runtime.driver.Driver`.

    Args:
        flow: the plan, not started.
        backend: sends the requests.
        transfer: deadline of the call, not yet used.
        executor: returns where to run what may block.
    """

    def __init__(
        self, flow: Flow[T], backend: AsyncBackend, transfer: Transfer, executor: Callable[[], Executor]
    ) -> None:
        self._flow = flow
        self._backend = backend
        self._transfer = transfer
        self._reply: AsyncReply | None = None
        self._busy = False
        self._executor = executor
        self._parts: list[AsyncDriver[Any]] = []
        self._aborted = False
        self._pause: asyncio.Future[None] | None = None
        self._deadline = Deadline(transfer.remaining_s())

    async def run_until_event(self) -> Finished[T] | EmitEvent:
        """Run the flow up to its end or the next event for the caller."""
        news: object = None
        while True:
            need: Effect | Finished[T] = advance(self._flow, news)
            news = None  # a chunk of a reply is the flow's now
            match need:
                case Finished() | EmitEvent():
                    return need
                case SendRequest(request):
                    news = await self._open(request)
                case ReadChunk():
                    news = await self._read()
                case RunBlocking(fn, before_sending):
                    news = await self._run(fn, before_sending)
                case Sleep(wait_s):
                    await self._sleep(min(wait_s, self._transfer.remaining_s()))
                    news = None
                case RunParallel(flows, most):
                    news = await self._together(flows, most)

    async def run_to_end(self) -> Finished[T] | EffectFailed:
        """Run the flow to its end, as a part of another; whatever is no error of ours is raised."""
        try:
            end = await self.run_until_event()
            assert isinstance(end, Finished), "parts of a call emit nothing"
            return end
        except ImgkitError as error:
            return EffectFailed(error)
        finally:
            self.close()

    def abort(self) -> None:
        """Break off what is under way, from the outside; nothing is sent any more."""
        self._aborted = True
        self._transfer.abort()
        if self._pause is not None and not self._pause.done():
            self._pause.set_result(None)
        for part in self._parts:
            part.abort()

    @property
    def is_here(self) -> bool:
        """Whether this is the event loop of the call."""
        return asyncio.get_running_loop() is self._deadline.loop

    def close_threadsafe(self, end: Callable[[AsyncDriver[T]], None]) -> None:
        """Have the event loop of the call `end` this, as soon as it comes to it. From any thread."""
        loop = self._deadline.loop
        if not loop.is_closed():
            loop.call_soon_threadsafe(end, self)
        else:
            self._reply = None  # it went with the loop
            self.close()

    def close(self) -> None:
        """Undo what the call still holds: its flow and its reply."""
        try:
            self._flow.close()
        finally:
            self._deadline.close()
            self.close_reply()

    async def _together(self, flows: tuple[Flow[Any], ...], most: int) -> list[Finished[Any] | EffectFailed]:
        """Run flows as tasks; if one of them meets a bug, or this task is cancelled, all are."""
        room = asyncio.Semaphore(most)
        parts = [
            AsyncDriver(flow, self._backend, self._transfer.for_next_request(), self._executor)
            for flow in flows
        ]

        async def run(part: AsyncDriver[Any]) -> Finished[Any] | EffectFailed:
            async with room:
                return await part.run_to_end()

        self._parts = parts
        work = [asyncio.create_task(run(part)) for part in parts]
        try:
            return await asyncio.gather(*work)
        finally:
            for one in work:
                if not one.cancelling():  # a second time would keep it from ending in order
                    one.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            self._parts = []

    async def _sleep(self, wait_s: float) -> None:
        self._pause = asyncio.get_running_loop().create_future()
        if not self._aborted:
            await asyncio.wait({self._pause}, timeout=wait_s)

    async def _open(self, request: HttpRequest) -> Head | EffectFailed:
        self.close_reply()
        if self._aborted:
            return EffectFailed(ServiceClosedError(CLOSED))
        transfer = self._transfer = self._transfer.for_next_request()
        if transfer.expired():
            return EffectFailed(transfer.to_error(TimeoutError(), unsent=True))
        self._busy = True
        try:
            with self._deadline:
                self._reply = await self._backend.open(request, transfer)
        except Exception as error:
            return self._outcome(error)
        transfer.request_id = self._reply.head.request_id
        return self._reply.head

    async def _read(self) -> bytes | EffectFailed:
        if self._transfer.aborted:  # while nobody read: the caller of a stream was busy
            return EffectFailed(self._transfer.to_error(TimeoutError()))
        assert self._reply is not None, "a flow reads only what it has opened"
        try:
            with self._deadline:
                chunk = await self._reply.read()
        except Exception as error:
            return self._outcome(error)
        self._busy = bool(chunk)
        return chunk

    async def _run(self, fn: Callable[[], Any], before_sending: bool) -> object:
        """Call `fn` in a thread; the deadline bounds only what comes before money is spent."""
        try:
            with self._deadline if before_sending else nullcontext():
                return await in_thread(self._executor(), fn)
        except ImgkitError as error:
            return EffectFailed(error)
        except DeadlinePassed:
            return EffectFailed(NotSentError(f"nothing was sent within {self._transfer.timeout_s:g} s"))

    def _outcome(self, error: Exception) -> EffectFailed:
        if isinstance(error, DeadlinePassed):
            self._transfer.abort()
            return EffectFailed(self._transfer.to_error(error))
        return outcome(error, self._backend, self._transfer)

    def close_reply(self) -> None:
        """Let go of the reply and its connection. Not while somebody waits for it."""
        if self._busy:  # broken off: whatever still blocks or lingers must end
            self._transfer.abort()
            self._busy = False
        if self._reply is not None:
            self._reply.close()
            self._reply = None
        self._transfer.release()


async def in_thread(executor: Executor, fn: Callable[[], T], abort: Callable[[], None] | None = None) -> T:
    """Run `fn` in a thread. When cancelled, `abort` it, and give the thread a moment to end.

    Raises:
        ServiceClosedError: the executor is shut down.
    """
    try:
        work = executor.submit(fn)
    except RuntimeError:
        raise ServiceClosedError(CLOSED) from None
    waiting = asyncio.wrap_future(work)
    waiting.add_done_callback(lambda done: done.cancelled() or done.exception())  # noted, if nobody waits
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        if not work.cancel():  # it runs already
            work.add_done_callback(_let_go)
            if abort is not None:
                abort()
            await _patiently(waiting)
        raise


async def _patiently(waiting: asyncio.Future[Any]) -> None:
    """Wait for a while, also if the task is cancelled once more: it is being cancelled already."""
    loop = asyncio.get_running_loop()
    until = loop.time() + JOIN_S
    while not waiting.done() and loop.time() < until:
        with suppress(asyncio.CancelledError):
            await asyncio.wait({waiting}, timeout=until - loop.time())


def _let_go(work: Future[Any]) -> None:
    """Close what nobody waits for any more, and take note of its exception."""
    if work.exception() is None and hasattr(work.result(), "close"):
        work.result().close()
