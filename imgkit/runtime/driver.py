"""The blocking driver: runs a flow in the caller's thread, and the watchdog that enforces deadlines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

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
    expect_end,
)
from imgkit.wire.messages import Backend, Head, Reply
from imgkit.wire.transfer import DriverTransfer

T_co = TypeVar("T_co", covariant=True)


CLOSED = "This service was closed while the call ran. Make a new one."
SENT_OR_NOT = "whether the request was received is not known"
MAX_NAP_S = 60.0
"""Longest sleep of the watchdog in seconds."""

JOIN_TIMEOUT_S = 2.0
"""Seconds that an interrupted call waits for its threads."""


class Watchdog:
    """The thread of a service that aborts transfers at their deadline, wherever they block.

    The thread starts with the first transfer and sleeps until the earliest deadline. A call costs two set
    operations and no timer.
    """

    def __init__(self) -> None:
        self._active: set[DriverTransfer] = set()
        self._naps: set[threading.Event] = set()
        self._wake = threading.Condition()
        self._wake_at = 0.0
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """Whether the service is closed."""
        return self._closed

    def watch(self, transfer: DriverTransfer) -> None:
        """Abort a transfer at its `abort_at`, unless it is released before.

        Raises:
            ServiceClosedError: the service is closed.
        """
        with self._wake:
            if self._closed:
                raise ServiceClosedError(CLOSED)
            self._active.add(transfer)
            if self._thread is None:
                self._wake_at = transfer.abort_at
                self._thread = threading.Thread(target=self._run, name="imgkit-watchdog", daemon=True)
                self._thread.start()
            elif transfer.abort_at < self._wake_at:
                self._wake.notify()

    def release(self, transfer: DriverTransfer) -> None:
        """Stop watching a transfer."""
        with self._wake:
            self._active.discard(transfer)

    def nap(self, wait_s: float, stop: threading.Event) -> None:
        """Wait for `wait_s` seconds, or until `stop` is set or the service is closed."""
        with self._wake:
            if self._closed:
                return
            self._naps.add(stop)
        try:
            stop.wait(wait_s)
        finally:
            self._naps.discard(stop)

    def after_fork(self) -> None:
        """Start over in a forked child: a thread that exists only in the parent may hold the lock."""
        for transfer in self._active:
            transfer.close_after_fork()
        self._active = set()
        self._naps = set()
        self._wake = threading.Condition()
        self._thread = None

    def close(self) -> None:
        """Abort all transfers and end the thread."""
        with self._wake:
            self._closed = True
            running, self._active = self._active, set()
            self._wake.notify()
            naps = list(self._naps)
        for transfer in running:
            transfer.abort()
        for nap in naps:
            nap.set()

    def _run(self) -> None:
        with self._wake:
            while not self._closed:
                now = time.monotonic()
                expired = [transfer for transfer in self._active if transfer.abort_at <= now]
                self._active.difference_update(expired)
                for transfer in expired:
                    transfer.abort()
                deadlines = (transfer.abort_at for transfer in self._active)
                self._wake_at = min([now + MAX_NAP_S, *deadlines])
                self._wake.wait(max(0.0, self._wake_at - now))


class Driver(Generic[T_co]):
    """Runs one flow under the synchronous service.

    Args:
        flow: a flow that has not started.
        backend: sends the requests.
        transfer: an unused transfer with the call's deadline.
        watchdog: aborts transfers at that deadline.
        stop: set when the call is interrupted of which this flow is a part.
        emit: receives the events of a flow that is a part of a call.
    """

    def __init__(
        self,
        flow: Flow[T_co],
        backend: Backend,
        transfer: DriverTransfer,
        watchdog: Watchdog,
        stop: threading.Event | None = None,
        emit: Callable[[EmitEvent], object] | None = None,
    ) -> None:
        self._flow = flow
        self._backend = backend
        self._transfer = transfer
        self._reply: Reply | None = None
        self._busy = False
        self._aborted = False
        self._watchdog = watchdog
        self._stop = stop or threading.Event()
        self._parts: list[Driver[object]] = []
        self._emit = emit
        self._parallel: Generator[EmitEvent, None, list[Finished[object] | EffectFailed]] | None = None

    def run_until_event(self) -> Finished[T_co] | EmitEvent:
        """Run the flow up to its end or its next event for the caller."""
        # Popped, so that no variable keeps a chunk: it may be large, or repeat a key.
        results: list[object] = [None]
        while True:
            if self._parallel is not None:
                try:
                    return next(self._parallel)
                except StopIteration as stop:
                    self._parallel = None
                    results = [stop.value]
            effect: Effect | Finished[T_co] = advance(self._flow, results.pop())
            match effect:
                case Finished() | EmitEvent():
                    return effect
                case SendRequest():
                    results.append(self._open(effect))
                case ReadChunk(grace_s):
                    results.append(self._read(grace_s))
                case RunBlocking():
                    try:
                        results.append(effect.fn())
                    except ImgkitError as error:
                        results.append(EffectFailed(error))
                case Sleep(wait_s):
                    self._watchdog.nap(min(wait_s, self._transfer.remaining_s()), self._stop)
                    results.append(self._find_interruption())
                case RunParallel():
                    self._parallel = self._run_parallel(effect)

    def run_to_end(self) -> Finished[T_co] | EffectFailed:
        """Run the flow of a part to its end. An exception outside imgkit's own tree is raised."""
        try:
            while isinstance(step := self.run_until_event(), EmitEvent) and self._emit is not None:
                self._emit(step)
            return expect_end(step)
        except ImgkitError as error:
            return EffectFailed(error)
        finally:
            self.close()

    def abort(self) -> None:
        """Interrupt the flow from another thread. Nothing more is sent."""
        self._aborted = True
        self._stop.set()
        self._transfer.abort()
        for part in self._parts:
            part.abort()

    def close(self) -> None:
        """Close the flow and its reply, and release the transfer."""
        try:
            if self._parallel is not None:
                self._parallel.close()
            self._flow.close()
        finally:
            self._close_reply()

    def _run_parallel(
        self, effect: RunParallel
    ) -> Generator[EmitEvent, None, list[Finished[object] | EffectFailed]]:
        """Run flows in threads; yield their events. A bug in one of them, or Ctrl-C, interrupts all."""
        flows, limit, first_ends_all = effect
        from concurrent.futures import Future, ThreadPoolExecutor, wait
        from queue import SimpleQueue

        stop = threading.Event()
        events: SimpleQueue[EmitEvent | None] = SimpleQueue()  # None for the end of a flow
        # Ctrl-C may come while threads start. So all their work is known before the first one does.
        work: list[tuple[Future[Finished[object] | EffectFailed], Driver[object]]] = [
            (
                Future(),
                Driver(
                    flow, self._backend, self._transfer.for_next_request(), self._watchdog, stop, events.put
                ),
            )
            for flow in flows
        ]
        self._parts = [part for _, part in work]
        todo: SimpleQueue[tuple[Future[Finished[object] | EffectFailed], Driver[object]] | None] = (
            SimpleQueue()
        )
        for item in (*work, *[None] * limit):
            todo.put(item)

        def run() -> None:
            for future, part in iter(todo.get, None):
                if future.set_running_or_notify_cancel():
                    try:
                        future.set_result(part.run_to_end())
                    except BaseException as error:
                        future.set_exception(error)
                    finally:
                        events.put(None)

        pool = ThreadPoolExecutor(limit, "imgkit-part")
        try:
            for _ in range(min(limit, len(work))):
                pool.submit(run)
            for future, _ in work:
                while not (future.done() and events.empty()):
                    event = events.get()
                    if event is not None:
                        yield event
                future.result()  # raises for a bug
                if first_ends_all:
                    for part in self._parts[1:]:
                        part.abort()
            return [future.result() for future, _ in work]
        except BaseException:
            running = [(future, part) for future, part in work if not future.cancel()]
            for _, part in running:
                part.abort()
            wait([future for future, _ in running], JOIN_TIMEOUT_S)
            raise
        finally:
            self._parts = []
            pool.shutdown(wait=all(future.done() for future, _ in work))

    def _find_interruption(self) -> EffectFailed | None:
        """Return the failure of a call that was interrupted. An abort after it finds the new transfer."""
        if self._watchdog.is_closed:
            return EffectFailed(ServiceClosedError(CLOSED))
        if self._aborted or self._stop.is_set():
            return EffectFailed(NotSentError("Nothing was sent. The call was interrupted.", permanent=True))
        return None

    def _open(self, effect: SendRequest) -> Head | EffectFailed:
        self._close_reply()
        request = effect.request
        transfer = self._transfer = self._transfer.for_next_request()
        if (interruption := self._find_interruption()) is not None:
            return interruption
        if transfer.is_expired():
            return EffectFailed(transfer.to_error(TimeoutError(), unsent=True))
        self._busy = True
        transfer.begin(request.url, direct=request.public_peer_only)
        try:
            note_leaving(effect, self._backend, transfer)
            self._watchdog.watch(transfer)
            self._reply = self._backend.open(request, transfer)
        except Exception as error:
            return to_failure(error, self._backend, transfer)
        transfer.mark_sent()
        transfer.request_id = self._reply.head.request_id
        return self._reply.head

    def _read(self, grace_s: float | None) -> bytes | EffectFailed:
        assert self._reply is not None, "a flow reads after it has sent a request"
        try:
            if grace_s is not None:
                self._transfer.abort_within(grace_s)
                self._watchdog.watch(self._transfer)
            chunk = self._reply.read()
        except Exception as error:
            if grace_s is not None and self._transfer.aborted:
                return b""
            return to_failure(error, self._backend, self._transfer)
        if (
            self._transfer.aborted and not chunk and grace_s is None
        ):  # a shut-down socket looks like the end of a reply
            return EffectFailed(self._transfer.to_error(TimeoutError()))
        self._busy = bool(chunk)
        return chunk

    def _close_reply(self) -> None:
        if self._busy:  # interrupted: end whatever still blocks
            self._transfer.abort()
            self._busy = False
        if self._reply is not None:
            self._reply.close()
            self._reply = None
        self._watchdog.release(self._transfer)
        self._transfer.release()


def marks_leaving(backend: object) -> bool:
    """Return whether a backend calls `mark_sent` right before a request leaves. A subclass says so anew."""
    return "marks_leaving" in vars(type(backend)) and bool(getattr(backend, "marks_leaving", False))


def note_leaving(effect: SendRequest, backend: object, transfer: DriverTransfer) -> None:
    """Call `SendRequest.note_leaving` once bytes may leave if the backend tells when, else now.

    Args:
        effect: the request.
        backend: the backend that opens it. A subclass may send it in another way, and tells nothing.
        transfer: the transfer of the request.
    """
    if effect.note_leaving is None:
        return
    if marks_leaving(backend):
        transfer.note_leaving = effect.note_leaving
    else:
        effect.note_leaving()


def to_failure(error: Exception, backend: object, transfer: DriverTransfer) -> EffectFailed:
    """Return the failure that a backend's exception means, or raise the exception again.

    A bug in a backend, or a test tool that refuses a request, is no failure of the wire. While another
    thread aborts the request, any exception of an HTTP library is one.

    Args:
        error: the exception.
        backend: the backend that raised it.
        transfer: the transfer of the request.
    """
    wire_errors: tuple[type[Exception], ...] = getattr(backend, "wire_errors", ())
    unsent: tuple[type[Exception], ...] = getattr(backend, "unsent_errors", ())
    own_error = _find_own_cause(error)
    if own_error is not None:
        return EffectFailed(own_error)
    if isinstance(error, wire_errors) or transfer.aborted:
        return EffectFailed(transfer.to_error(error, unsent=isinstance(error, unsent)))
    error.add_note(
        f"raised by backend {type(backend).__name__}, which does not declare it as a failure of the wire; "
        f"{SENT_OR_NOT} (imgkit)"
    )
    raise error


def _find_own_cause(error: BaseException) -> ImgkitError | None:
    """Return the imgkit error that an HTTP library has wrapped, such as one about an unreadable body."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ImgkitError):
            return cause
        cause = cause.__cause__
    return None
