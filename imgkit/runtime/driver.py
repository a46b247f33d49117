"""The blocking driver: runs a flow in the caller's thread."""

from __future__ import annotations

import threading
import time
from typing import Any, Generic, TypeVar

from imgkit.errors import ImgkitError, NotSentError, ServiceClosedError
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
from imgkit.wire.messages import Backend, Head, HttpRequest, Reply
from imgkit.wire.transfer import Transfer

T = TypeVar("T")


CLOSED = "this service was closed while the call ran: make a new one"
LONGEST_NAP_S = 60.0
SENT_OR_NOT = "whether the request was received is not known"
JOIN_S = 2.0
"""How long a call that is broken off waits for its threads to notice, in seconds."""


class Watchdog:
    """One thread per service that aborts transfers at their deadline, wherever they block.

    The thread starts with the first transfer and sleeps until the earliest deadline; a call costs it
    two set operations, not a timer.
    """

    def __init__(self) -> None:
        self._active: set[Transfer] = set()
        self._wake = threading.Condition()
        self._planned = 0.0
        self._thread: threading.Thread | None = None
        self._closed = False

    def watch(self, transfer: Transfer) -> None:
        """Abort `transfer` at its deadline unless it is released before."""
        with self._wake:
            if self._closed:
                raise ServiceClosedError(CLOSED)
            self._active.add(transfer)
            if self._thread is None:
                self._planned = transfer.deadline
                self._thread = threading.Thread(target=self._run, name="imgkit-watchdog", daemon=True)
                self._thread.start()
            elif transfer.deadline < self._planned:
                self._wake.notify()

    def release(self, transfer: Transfer) -> None:
        """Forget `transfer`."""
        with self._wake:
            self._active.discard(transfer)

    def after_fork(self) -> None:
        """In a forked child: begin anew. The lock may have been taken by a thread that is not here."""
        for transfer in self._active:
            transfer.close_after_fork()
        self._active = set()
        self._wake = threading.Condition()
        self._thread = None

    def close(self) -> None:
        """Abort what still runs, and end the thread."""
        with self._wake:
            self._closed = True
            running, self._active = self._active, set()
            self._wake.notify()
        for transfer in running:
            transfer.abort()

    def _run(self) -> None:
        with self._wake:
            while not self._closed:
                now = time.monotonic()
                late = [transfer for transfer in self._active if transfer.deadline <= now]
                self._active.difference_update(late)
                for transfer in late:
                    transfer.abort()
                self._planned = min([now + LONGEST_NAP_S, *(one.deadline for one in self._active)])
                self._wake.wait(max(0.0, self._planned - now))


class Driver(Generic[T]):
    """One call under the synchronous service.

    Args:
        flow: the plan, not started.
        backend: sends the requests.
        transfer: deadline of the call, not yet used.
        watchdog: aborts at that deadline.
        stop: set when the call that this one is a part of is broken off.
    """

    def __init__(
        self,
        flow: Flow[T],
        backend: Backend,
        transfer: Transfer,
        watchdog: Watchdog,
        stop: threading.Event | None = None,
    ) -> None:
        self._flow = flow
        self._backend = backend
        self._transfer = transfer
        self._reply: Reply | None = None
        self._busy = False
        self._aborted = False
        self._watchdog = watchdog
        self._stop = stop

    def run_until_event(self) -> Finished[T] | EmitEvent:
        """Run the flow up to its end or the next event for the caller."""
        news: object = None
        while True:
            need: Effect | Finished[T] = advance(self._flow, news)
            news = None  # a chunk of a reply is the flow's now
            match need:
                case Finished() | EmitEvent():
                    return need
                case SendRequest(request):
                    news = self._open(request)
                case ReadChunk():
                    news = self._read()
                case RunBlocking(fn, _):
                    try:
                        news = fn()
                    except ImgkitError as error:
                        news = EffectFailed(error)
                case Sleep(wait_s):
                    (self._stop.wait if self._stop else time.sleep)(min(wait_s, self._transfer.remaining_s()))
                    news = None
                case RunParallel(flows, most):
                    news = self._together(flows, most)

    def run_to_end(self) -> Finished[T] | EffectFailed:
        """Run the flow to its end, as a part of another; whatever is no error of ours is raised."""
        try:
            end = self.run_until_event()
            assert isinstance(end, Finished), "parts of a call emit nothing"
            return end
        except ImgkitError as error:
            return EffectFailed(error)
        finally:
            self.close()

    def abort(self) -> None:
        """Break off what is under way, from another thread; nothing is sent any more."""
        self._aborted = True
        self._transfer.abort()

    def close(self) -> None:
        """Undo what the call still holds: its flow, its reply, its place with the watchdog."""
        try:
            self._flow.close()
        finally:
            self._close_reply()

    def _together(self, flows: tuple[Flow[Any], ...], most: int) -> list[Finished[Any] | EffectFailed]:
        """Run flows in threads; if one of them meets a bug, or Ctrl-C comes, all are broken off."""
        from concurrent.futures import Future, ThreadPoolExecutor, wait
        from queue import SimpleQueue

        stop = threading.Event()
        # Ctrl-C may come while threads are started, which takes a while: all that they do is known before.
        work: list[tuple[Future[Any], Driver[Any]]] = [
            (Future(), Driver(flow, self._backend, self._transfer.for_next_request(), self._watchdog, stop))
            for flow in flows
        ]
        todo: SimpleQueue[tuple[Future[Any], Driver[Any]] | None] = SimpleQueue()
        for one in (*work, *[None] * most):
            todo.put(one)

        def run() -> None:
            for future, part in iter(todo.get, None):
                if future.set_running_or_notify_cancel():
                    try:
                        future.set_result(part.run_to_end())
                    except BaseException as error:
                        future.set_exception(error)

        pool = ThreadPoolExecutor(most, "imgkit-part")
        try:
            for _ in range(min(most, len(work))):
                pool.submit(run)
            return [future.result() for future, _ in work]
        except BaseException:
            stop.set()
            running = [(future, part) for future, part in work if not future.cancel()]
            for _, part in running:
                part.abort()
            wait([future for future, _ in running], JOIN_S)
            raise
        finally:
            pool.shutdown(wait=all(future.done() for future, _ in work))

    def _open(self, request: HttpRequest) -> Head | EffectFailed:
        self._close_reply()
        transfer = self._transfer = self._transfer.for_next_request()
        if self._aborted or (self._stop is not None and self._stop.is_set()):
            # Whoever aborts from here on finds this transfer.
            return EffectFailed(NotSentError("nothing was sent: the call was broken off", permanent=True))
        if transfer.expired():
            return EffectFailed(transfer.to_error(TimeoutError(), unsent=True))
        self._busy = True
        try:
            self._watchdog.watch(transfer)
            self._reply = self._backend.open(request, transfer)
        except Exception as error:
            return outcome(error, self._backend, transfer)
        transfer.request_id = self._reply.head.request_id
        return self._reply.head

    def _read(self) -> bytes | EffectFailed:
        assert self._reply is not None, "a flow reads only what it has opened"
        try:
            chunk = self._reply.read()
        except Exception as error:
            return outcome(error, self._backend, self._transfer)
        if self._transfer.aborted and not chunk:  # a shut-down socket may look like the end of a reply
            return EffectFailed(self._transfer.to_error(TimeoutError()))
        self._busy = bool(chunk)
        return chunk

    def _close_reply(self) -> None:
        if self._busy:  # broken off: whatever still blocks or lingers must end
            self._transfer.abort()
            self._busy = False
        if self._reply is not None:
            self._reply.close()
            self._reply = None
        self._watchdog.release(self._transfer)
        self._transfer.release()


def outcome(error: Exception, backend: object, transfer: Transfer) -> EffectFailed:
    """Return what a backend's exception means; raise again what is no failure of the wire.

    A bug in a backend, or a test tool that refuses a request, is not dressed up as a network failure. What an
    HTTP library stumbles over while another thread aborts its request is no bug.
    """
    errors: tuple[type[Exception], ...] = getattr(backend, "errors", ())
    unsent: tuple[type[Exception], ...] = getattr(backend, "unsent_errors", ())
    own = _own_cause(error)
    if own is not None:
        return EffectFailed(own)
    if isinstance(error, errors) or transfer.aborted:
        return EffectFailed(transfer.to_error(error, unsent=isinstance(error, unsent)))
    error.add_note(
        f"raised by backend {type(backend).__name__}, which does not declare it as a failure of the wire; "
        f"{SENT_OR_NOT} (imgkit)"
    )
    raise error


def _own_cause(error: BaseException) -> ImgkitError | None:
    """Return the error of ours that an HTTP library has wrapped: a body that could not be read, say."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ImgkitError):
            return cause
        cause = cause.__cause__
    return None
