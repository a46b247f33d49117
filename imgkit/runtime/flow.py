"""Flows: generators that do no I/O, and the effects by which they ask a driver for it.

The course of a call is a flow. It yields effects and receives their results, so the same code runs
under threads, under an event loop, or by hand in a test. `advance` is the only function that touches
``send``, ``throw`` and ``StopIteration``.

>>> from imgkit.runtime.flow import Finished, Sleep, advance, sleep
>>> def nap():
...     yield from sleep(0.5)
...     return "awake"
>>> flow = nap()
>>> advance(flow, None)
Sleep(wait_s=0.5)
>>> advance(flow, None)
Finished(value='awake')
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Never, TypeAlias, TypeVar

from imgkit.errors import ImgkitError
from imgkit.wire.messages import Head, HttpRequest

if TYPE_CHECKING:
    from imgkit.models import StreamEvent

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class SendRequest(NamedTuple):
    """Send this request. The result is the `imgkit.backends.Head` of the reply.

    Attributes:
        request: the request.
        note_leaving: called before its first byte may leave, and as late as the backend allows; quick. Its
            error prevents that. None for nothing to call.
    """

    request: HttpRequest
    note_leaving: Callable[[], object] | None = None


class ReadChunk(NamedTuple):
    """Read the next chunk of the open reply. The result is bytes, b"" at the end.

    Attributes:
        grace_s: seconds after which the driver aborts the reply and reports its end; None to wait until
            the deadline. Only for a reply that nobody needs any more.
    """

    grace_s: float | None = None


Threads: TypeAlias = Literal["files", "records"]


class RunBlocking(NamedTuple):
    """Call a function that may block, such as file access. The result is its return value.

    Attributes:
        fn: the function.
        before_sending: nothing is spent yet, so the deadline may interrupt it.
        threads: the threads of the asynchronous service for it. "records" may wait for a network; then
            "files" still take the replies that arrive.
    """

    fn: Callable[[], object]
    before_sending: bool = False
    threads: Threads = "files"

    def __repr__(self) -> str:
        # The arguments of a partial function may hold a reply.
        fn = getattr(self.fn, "func", self.fn)
        return f"RunBlocking({getattr(fn, '__qualname__', type(fn).__name__)})"


class Sleep(NamedTuple):
    """Wait this many seconds. There is no result; an interrupted call gets an `EffectFailed`."""

    wait_s: float


class EmitEvent(NamedTuple):
    """Hand this event to the caller of a stream. There is no result."""

    event: StreamEvent


class RunParallel(NamedTuple):
    """Run flows concurrently. The result lists a `Finished` or an `EffectFailed` for each, in order.

    Attributes:
        flows: generators that have not started and emit no events.
        limit: number of flows that run at the same time.
        first_ends_all: the end of the first flow interrupts the others, which have room beside it.
    """

    flows: tuple[Flow[object], ...]
    limit: int
    first_ends_all: bool = False


Effect: TypeAlias = SendRequest | ReadChunk | RunBlocking | Sleep | EmitEvent | RunParallel
Flow: TypeAlias = Generator[Effect, Any, T_co]


class Finished(NamedTuple, Generic[T]):
    """The end of a flow, with its return value."""

    value: T


class EffectFailed(NamedTuple):
    """The failure of an effect, to be raised inside the flow.

    Only errors of imgkit's own tree are thrown into a flow. A bug, Ctrl-C or a cancelled task closes
    the flow instead. So a retry can never mistake one of them for a failure of the wire.
    """

    error: ImgkitError


def advance(flow: Flow[T], result: object) -> Effect | Finished[T]:
    """Resume a flow and return its next effect, or its end.

    Args:
        flow: a generator of effects.
        result: the result of its last effect; None to start; `EffectFailed` to raise an error in it.

    Raises:
        ImgkitError: the flow ended with this error.
    """
    # Tracebacks may show local variables, and a reply may repeat a key.
    results = [result]
    del result
    try:
        if isinstance(results[0], EffectFailed):
            return flow.throw(results[0].error)
        return flow.send(results.pop())
    except StopIteration as stop:
        return Finished(stop.value)


def carry_out(flow: Flow[T]) -> T:
    """Run a flow in this thread, and return its value. May block.

    Args:
        flow: a generator that has not started, whose only effects are functions that may block.

    Raises:
        ImgkitError: the flow ended with this error.
    """
    step = advance(flow, None)
    try:
        while isinstance(step, RunBlocking):
            try:
                result: object = step.fn()
            except ImgkitError as error:
                result = EffectFailed(error)
            step = advance(flow, result)
    finally:
        flow.close()
    if isinstance(step, Finished):
        value: T = step.value
        return value
    raise TypeError(f"a flow in a thread asked for {type(step).__name__}")


def expect_end(step: Finished[T] | EmitEvent) -> Finished[T]:
    """Return the end of a flow that is no stream."""
    assert isinstance(step, Finished), "only the flow of a stream emits events"
    return step


def send_request(request: HttpRequest, note_leaving: Callable[[], object] | None = None) -> Flow[Head]:
    """Send a request and return the head of its reply.

    Args:
        request: the request.
        note_leaving: as for `SendRequest`.

    Raises:
        TransportError: the backend failed; the class tells whether the request may have been received.
    """
    head: Head = yield SendRequest(request, note_leaving)
    return head


def read_chunk() -> Flow[bytes]:
    """Return the next chunk of the open reply, b"" at its end.

    Raises:
        OutcomeUnknownError: the connection broke.
    """
    chunk: bytes = yield ReadChunk()
    return chunk


def run_blocking(fn: Callable[[], T], *, before_sending: bool = False, threads: Threads = "files") -> Flow[T]:
    """Call a function where it may block and return its result.

    Args:
        fn: the function.
        before_sending: nothing is spent yet, so the deadline may interrupt it.
        threads: as for `RunBlocking`.

    Raises:
        ImgkitError: the function raised it, or the deadline passed.
    """
    result: T = yield RunBlocking(fn, before_sending, threads)
    return result


def run_blocking_if(may_block: bool, fn: Callable[[], T], *, before_sending: bool = False) -> Flow[T]:
    """Call a function where it may block, or at once if it cannot, and return its result.

    Args:
        may_block: whether it may block.
        fn, before_sending: as for `run_blocking`.

    Raises:
        ImgkitError: as `run_blocking` does.
    """
    if may_block:
        return (yield from run_blocking(fn, before_sending=before_sending))
    return fn()


def sleep(wait_s: float) -> Flow[None]:
    """Wait for `wait_s` seconds.

    Raises:
        ImgkitError: the call was interrupted, or the service was closed.
    """
    yield Sleep(wait_s)


def run_parallel(
    flows: tuple[Flow[T], ...], limit: int, *, first_ends_all: bool = False
) -> Flow[list[Finished[T] | EffectFailed]]:
    """Run flows concurrently, at most `limit` at a time, and return their ends in order."""
    ends: list[Finished[T] | EffectFailed] = yield RunParallel(flows, limit, first_ends_all)
    return ends


def fail(error: ImgkitError) -> Flow[Never]:
    """Return a flow that raises `error` when it starts."""
    raise error
    yield  # makes this function a generator
