"""The conversation between the core and whoever does its I/O.

The course of a call is a generator that does no I/O. It yields *needs* and is sent what came of
them, so the same course runs under threads, under an event loop, or by hand in a test. `advance` is
the only place that touches ``send``, ``throw`` and ``StopIteration``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from imgkit.errors import ImgkitError
from imgkit.wire.messages import HttpRequest

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class SendRequest(NamedTuple):
    """Send this request; the answer is the `imgkit.wire.messages.Head` of the reply."""

    request: HttpRequest


class ReadChunk(NamedTuple):
    """Read on in the open reply; the answer is a chunk of bytes, b"" at its end."""


class RunBlocking(NamedTuple):
    """Call this function, which may block (files, locks); the answer is its result.

    Attributes:
        fn: the function.
        before_sending: nothing is spent yet, so the deadline may cut it off where that can be done.
    """

    fn: Callable[[], Any]
    before_sending: bool = False


class Sleep(NamedTuple):
    """Wait this many seconds; there is no answer."""

    wait_s: float


class EmitEvent(NamedTuple):
    """Hand this event to the caller of a stream; there is no answer."""

    event: object


class RunParallel(NamedTuple):
    """Run these flows at the same time; the answer is what came of each, in their order: `Done` or `Failed`.

    Attributes:
        flows: not started; none of them emits events.
        most: how many of them run at once.
    """

    flows: tuple[Generator[Any, Any, Any], ...]
    most: int


Effect: TypeAlias = SendRequest | ReadChunk | RunBlocking | Sleep | EmitEvent | RunParallel
Flow: TypeAlias = Generator[Effect, Any, T_co]


@dataclass(frozen=True, slots=True)
class Finished(Generic[T]):
    """The flow has ended with this value."""

    value: T


class EffectFailed(NamedTuple):
    """News for a flow: what it needed failed with an error of imgkit's own tree.

    Only such errors are thrown into a flow. A bug, Ctrl-C or a cancelled task closes it instead, so
    that a retry can never mistake one of them for a failure of the wire.
    """

    error: ImgkitError


def advance(flow: Flow[T], news: object) -> Effect | Finished[T]:
    """Tell `flow` what came of its last need and return the next one, or its end.

    Args:
        flow: a generator of needs.
        news: the answer; None to start; `Failed` to throw its error at the need.

    Raises:
        ImgkitError: what the flow itself raises.
    """
    try:
        if isinstance(news, EffectFailed):
            return flow.throw(news.error)
        return flow.send(news)
    except StopIteration as stop:
        return Finished(stop.value)
