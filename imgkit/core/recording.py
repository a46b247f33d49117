"""Recording: a flow around the flow of a call that gives its traffic to the recorders.

Every service and backend carries out the same effects. So a flow between a call and its driver sees every
request and reply once, and recorders may block like any other effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from imgkit.core.sent_secrets import SentSecrets
from imgkit.errors import ImgkitError
from imgkit.models import ImagesResponse
from imgkit.plugins.protocols import Exchanged
from imgkit.plugins.table import call_plugin, warn
from imgkit.redact import remove_credentials
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
from imgkit.wire.messages import BytesBody, Head, HttpRequest
from imgkit.wire.secret_filter import SecretFilter

if TYPE_CHECKING:
    from imgkit.plugins.protocols import Recorder
    from imgkit.plugins.resources import Resource

T = TypeVar("T")
HOOK = "imgkit_recorder"


def record_traffic(
    flow: Flow[T], recorders: Sequence[Resource[Recorder]], sent: SentSecrets | None = None
) -> Flow[T]:
    """Return the flow of a call, with recorders that get each complete reply.

    They get it before the call sees its end: until then the reply counts as not delivered. A reply whose
    body the call does not read, such as a redirect, is recorded without its body.

    Args:
        flow: the flow of a call.
        recorders: resources that each hold a `Recorder`.
        sent: the secrets that the service has sent, also with other requests.
    """
    sent = sent or SentSecrets()
    problems: list[str] = []
    try:
        value = yield from _tap(flow, recorders, problems, sent)
    except ImgkitError as error:
        for problem in problems:
            error.add_note(problem)
        raise
    return _attach_problems(value, problems)


def _tap(
    flow: Flow[T], recorders: Sequence[Resource[Recorder]], problems: list[str], sent: SentSecrets
) -> Flow[T]:
    tape = _Tape(recorders, problems, sent)
    # Popped, because tracebacks may show local variables, and a reply may repeat a key.
    results: list[Any] = [None]
    try:
        while True:
            effect: Effect | Finished[T] = advance(flow, results.pop())
            if isinstance(effect, Finished | SendRequest):
                yield from tape.finish()
            if isinstance(effect, Finished):
                value: T = effect.value
                return value
            if isinstance(effect, RunParallel):
                effect = effect._replace(
                    flows=tuple(_tap(part, recorders, problems, sent) for part in effect.flows)
                )
            try:
                results.append((yield effect))
            except ImgkitError as error:
                tape.discard()
                results.append(EffectFailed(error))
                continue
            if isinstance(effect, SendRequest):
                tape.start(effect.request, results[0])
            elif isinstance(effect, ReadChunk):
                yield from tape.add(results[0])
    except ImgkitError:
        yield from tape.finish()
        raise
    finally:
        flow.close()


class _Tape:
    """The reply that is being read."""

    def __init__(
        self, recorders: Sequence[Resource[Recorder]], problems: list[str], sent: SentSecrets
    ) -> None:
        self._sent = sent
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
        reply = b"".join(self._chunks)
        exchanged = Exchanged(*_clean_exchange(self._request, self._head, reply, self._keys, self._sent.all))
        self._request, self._chunks = None, []
        for recorder in self._recorders:
            record = partial(call_plugin, recorder.origin, HOOK, recorder.thing.record, exchanged)
            try:
                yield from run_blocking(record)
            except ImgkitError as error:
                self._problems.append(str(error))


def _clean_exchange(
    request: HttpRequest, head: Head, reply: bytes, keys: frozenset[bytes], sent: SecretFilter
) -> tuple[HttpRequest, Head, bytes]:
    """Return a request and its reply without secrets.

    Args:
        request: without its credentials.
        head, reply: the reply.
        keys: the credentials of the request.
        sent: the secrets of the service and of its other requests.
    """
    from imgkit.cassettes.api_keys import collect_query_keys, remove_keys, remove_keys_from_headers

    secrets = sent.with_mark("scrubbed")
    url = secrets.clean_text(remove_keys(request.url.encode(), keys).decode())
    headers = secrets.clean_headers(remove_keys_from_headers(head.headers, keys))
    # A store may repeat the signature of a link.
    signatures = collect_query_keys(request.method, request.url)
    cleaned = secrets.clean_bytes(remove_keys(reply, keys | signatures))
    body = request.body
    if isinstance(body, BytesBody) and secrets.occurs_in(body.data):
        body = BytesBody(secrets.clean_bytes(body.data), body.content_type)
    return replace(request, url=url, body=body), Head(head.status, headers), cleaned


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
    headers = remove_credentials(request.headers, request.secret_headers)
    return replace(request, headers=headers, secret_headers=frozenset())
