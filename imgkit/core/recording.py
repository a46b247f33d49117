"""What goes over the wire, told to recorders: a flow around a flow.

Whatever the service's colour and its backend, a call asks for the same needs; so whoever stands between a
plan and its driver sees each request and each reply once, and can have its own blocking work run as a need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from imgkit.errors import ImgkitError
from imgkit.models import ImagesResponse
from imgkit.plugins.protocols import Exchanged
from imgkit.plugins.table import call_plugin, warn
from imgkit.redact import SENSITIVE_HEADERS
from imgkit.runtime.flow import (
    Effect,
    EffectFailed,
    Finished,
    Flow,
    ReadChunk,
    RunBlocking,
    RunParallel,
    SendRequest,
    advance,
)
from imgkit.wire.messages import Head, HttpRequest

if TYPE_CHECKING:
    from imgkit.plugins.resources import Resource

T = TypeVar("T")
HOOK = "imgkit_recorder"


def record_traffic(flow: Flow[T], recorders: Sequence[Resource]) -> Flow[T]:
    """Return the same flow, with recorders told of each answer that arrives whole.

    They are told before the plan hears of the end of the answer: until then it is on the books as not
    delivered. An answer of which only the head is read, such as a redirect, is told without its body.

    Args:
        flow: a plan.
        recorders: each a `Recorder`.
    """
    problems: list[str] = []
    try:
        value = yield from _taped(flow, recorders, problems)
    except ImgkitError as error:
        for problem in problems:
            error.add_note(problem)
        raise
    return _told(value, problems)


def _taped(flow: Flow[T], recorders: Sequence[Resource], problems: list[str]) -> Flow[T]:
    tape = _Tape(recorders, problems)
    news: object = None
    try:
        while True:
            need: Effect | Finished[T] = advance(flow, news)
            if isinstance(need, Finished | SendRequest):
                yield from tape.end()
            if isinstance(need, Finished):
                return need.value
            if isinstance(need, RunParallel):
                need = need._replace(flows=tuple(_taped(one, recorders, problems) for one in need.flows))
            try:
                news = yield need
            except ImgkitError as error:
                tape.broke_off()
                news = EffectFailed(error)
                continue
            if isinstance(need, SendRequest):
                tape.begin(need.request, news)
            elif isinstance(need, ReadChunk):
                yield from tape.read(news)
    except ImgkitError:
        yield from tape.end()
        raise
    finally:
        flow.close()


class _Tape:
    """The answer that is being read."""

    def __init__(self, recorders: Sequence[Resource], problems: list[str]) -> None:
        self._problems = problems
        self._recorders = recorders
        self._request: HttpRequest | None = None
        self._keys: frozenset[bytes] = frozenset()
        self._head: Head | None = None
        self._chunks: list[bytes] = []

    def begin(self, request: HttpRequest, head: object) -> None:
        assert isinstance(head, Head), "the news of an Open is a Head"
        from imgkit.cassettes.keys import sent_keys

        self._keys = sent_keys(request.headers, request.secret_headers)
        self._request, self._head, self._chunks = _unsigned(request), head, []

    def broke_off(self) -> None:
        self._request = None

    def read(self, chunk: object) -> Flow[None]:
        assert isinstance(chunk, bytes), "the news of a Read are bytes"
        if chunk:
            self._chunks.append(chunk)
        else:
            yield from self._tell()

    def end(self) -> Flow[None]:
        """The plan is done with this answer: as far as it has read it, so far it is needed."""
        yield from self._tell()

    def _tell(self) -> Flow[None]:
        if self._request is None or self._head is None:
            return
        from imgkit.cassettes.keys import without

        reply = b"".join(self._chunks)
        exchanged = Exchanged(self._request, self._head, without(reply, self._keys))
        self._request, self._chunks = None, []
        for one in self._recorders:
            try:
                yield RunBlocking(partial(call_plugin, one.origin, HOOK, one.thing.record, exchanged))
            except ImgkitError as error:
                self._problems.append(str(error))


def _told(value: T, problems: Sequence[str]) -> T:
    """Return what a call ends with, and in it what went wrong with its recording."""
    if not problems:
        return value
    if isinstance(value, ImagesResponse):
        return cast(T, replace(value, warnings=(*value.warnings, *problems)))
    for problem in problems:  # a picture fetched later has no place for warnings
        warn(problem)
    return value


def _unsigned(request: HttpRequest) -> HttpRequest:
    private = request.secret_headers | SENSITIVE_HEADERS
    kept = {name: value for name, value in request.headers.items() if name not in private}
    return replace(request, headers=kept, secret_headers=frozenset())
