"""Recording: a flow around the flow of a call that gives its traffic to the recorders.

Every service and backend carries out the same effects. So a flow between a call and its driver sees every
request and reply once, and recorders may block like any other effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

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
    RunParallel,
    SendRequest,
    advance,
    run_blocking,
)
from imgkit.wire.messages import Head, HttpRequest

if TYPE_CHECKING:
    from imgkit.plugins.protocols import Recorder
    from imgkit.plugins.resources import Resource

T = TypeVar("T")
HOOK = "imgkit_recorder"


def record_traffic(flow: Flow[T], recorders: Sequence[Resource[Recorder]]) -> Flow[T]:
    """Return the flow of a call, with recorders that get each complete reply.

    They get it before the call sees its end: until then the reply counts as not delivered. A reply whose
    body the call does not read, such as a redirect, is recorded without its body.

    Args:
        flow: the flow of a call.
        recorders: resources that each hold a `Recorder`.
    """
    problems: list[str] = []
    try:
        value = yield from _tap(flow, recorders, problems)
    except ImgkitError as error:
        for problem in problems:
            error.add_note(problem)
        raise
    return _attach_problems(value, problems)


def _tap(flow: Flow[T], recorders: Sequence[Resource[Recorder]], problems: list[str]) -> Flow[T]:
    tape = _Tape(recorders, problems)
    result: Any = None
    try:
        while True:
            effect: Effect | Finished[T] = advance(flow, result)
            if isinstance(effect, Finished | SendRequest):
                yield from tape.finish()
            if isinstance(effect, Finished):
                value: T = effect.value
                return value
            if isinstance(effect, RunParallel):
                effect = effect._replace(
                    flows=tuple(_tap(part, recorders, problems) for part in effect.flows)
                )
            try:
                result = yield effect
            except ImgkitError as error:
                tape.discard()
                result = EffectFailed(error)
                continue
            if isinstance(effect, SendRequest):
                tape.start(effect.request, result)
            elif isinstance(effect, ReadChunk):
                yield from tape.add(result)
    except ImgkitError:
        yield from tape.finish()
        raise
    finally:
        flow.close()


class _Tape:
    """The reply that is being read."""

    def __init__(self, recorders: Sequence[Resource[Recorder]], problems: list[str]) -> None:
        self._problems = problems
        self._recorders = recorders
        self._request: HttpRequest | None = None
        self._keys: frozenset[bytes] = frozenset()
        self._head: Head | None = None
        self._chunks: list[bytes] = []

    def start(self, request: HttpRequest, head: Head) -> None:
        """Start a reply."""
        from imgkit.cassettes.api_keys import collect_sent_keys

        self._keys = collect_sent_keys(request.headers, request.secret_headers)
        self._request, self._head, self._chunks = _without_credentials(request), head, []

    def discard(self) -> None:
        """Forget a reply that broke off."""
        self._request = None

    def add(self, chunk: bytes) -> Flow[None]:
        """Add a chunk; an empty one ends the reply."""
        if chunk:
            self._chunks.append(chunk)
        else:
            yield from self.finish()

    def finish(self) -> Flow[None]:
        """Give the part of the reply that the call has read to the recorders."""
        if self._request is None or self._head is None:
            return
        from imgkit.cassettes.api_keys import remove_keys, remove_keys_from_headers

        reply = b"".join(self._chunks)
        head = Head(self._head.status, remove_keys_from_headers(self._head.headers, self._keys))
        exchanged = Exchanged(self._request, head, remove_keys(reply, self._keys))
        self._request, self._chunks = None, []
        for recorder in self._recorders:
            record = partial(call_plugin, recorder.origin, HOOK, recorder.thing.record, exchanged)
            try:
                yield from run_blocking(record)
            except ImgkitError as error:
                self._problems.append(str(error))


def _attach_problems(value: T, problems: Sequence[str]) -> T:
    """Return the result of a call with the failures of its recorders as warnings."""
    if not problems:
        return value
    if isinstance(value, ImagesResponse):
        return cast(T, replace(value, warnings=(*value.warnings, *problems)))
    for problem in problems:  # a downloaded image has no place for warnings
        warn(problem)
    return value


def _without_credentials(request: HttpRequest) -> HttpRequest:
    private = request.secret_headers | SENSITIVE_HEADERS
    headers = {name: value for name, value in request.headers.items() if name not in private}
    return replace(request, headers=headers, secret_headers=frozenset())
