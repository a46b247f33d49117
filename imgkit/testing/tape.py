"""A cassette that services use themselves: it answers their requests, or records what their backend sends.

vcrpy lends its file format, its settings and its errors.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlsplit

from vcr.cassette import Cassette
from vcr.errors import CannotOverwriteExistingCassetteException as Miss
from vcr.request import Request

from imgkit.cassettes.api_keys import collect_sent_keys, remove_keys, remove_keys_from_headers
from imgkit.cassettes.matching import RequestSummary
from imgkit.core.interception import advance_for
from imgkit.errors import FixtureMissingError, ImgkitError
from imgkit.fork import ForkRegistry
from imgkit.redact import remove_credentials, safe_url
from imgkit.runtime.flow import (
    Effect,
    EffectFailed,
    EmitEvent,
    Finished,
    Flow,
    ReadChunk,
    RunParallel,
    SendRequest,
    run_blocking,
)
from imgkit.testing.vcr_cassettes import describe_miss, summarize
from imgkit.wire.messages import Head, HttpRequest
from imgkit.wire.urls import is_loopback

T = TypeVar("T")
RecordedReply = tuple[Head, Iterator[bytes]]

CHUNK_BYTES = 64 * 1024
_DECODED_HEADERS = frozenset({"content-encoding", "transfer-encoding"})
"""Headers about the wire form of a body; a cassette holds the decoded body."""

_HOST_MATCHERS = frozenset({"scheme", "host", "port"})
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class Tape(Cassette):  # type: ignore[misc]  # vcrpy has no types
    """A vcrpy cassette that services use themselves, from any number of threads and tasks.

    Attributes:
        record_on_exception: Save the cassette although the context ends with an exception.
        may_ignore_host: On replay, a request to another host matches if nothing else differs, as for
            fixtures.
        may_ignore_requests: A setting of the caller may leave requests to the backend.
        was_asked: A service has made a request.
    """

    record_on_exception = True
    may_ignore_host = False
    may_ignore_requests = True
    was_asked = False
    drop_unused_requests: bool
    dirty: bool

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._guard = threading.RLock()
        self._summaries: list[RequestSummary] = []
        self._problem: Exception | None = None
        self._missed: Request | None = None
        _TAPES.add(self)

    def list_paid_hosts(self) -> frozenset[str]:
        """Return the hosts of the recorded requests that cost money; this machine is not among them."""
        hosts = (urlsplit(request.uri).hostname for request in self.requests if request.method == "POST")
        return frozenset(host for host in hosts if host and not is_loopback(host))

    def can_answer(self, request: HttpRequest) -> bool:
        """Return whether a recording of this request is left."""
        with self._guard:
            return bool(self.can_play_response_for(_to_vcr_request(request)))

    def may_send(self, request: HttpRequest) -> bool:
        """Return whether the backend may get this request: this cassette records it or ignores it."""
        if not self.write_protected:
            return True
        return self.may_ignore_requests and not self.filter_request(_to_vcr_request(request))

    def find_reply(self, request: HttpRequest) -> RecordedReply | Miss | None:
        """Return the recorded reply to a request and mark it as played; None lets the backend send it.

        Without a recording, a cassette that does not record returns the error that ends the call.
        """
        wanted = _to_vcr_request(request)
        with self._guard:
            self.was_asked = True
            if self.can_play_response_for(wanted):
                return _to_reply(self.play_response(wanted))
            if not self.write_protected or not self.filter_request(wanted):
                return None
            self._missed = wanted
            return Miss(cassette=self, failed_request=wanted)

    def record(self, exchange: _Exchange, *, saves: bool = True) -> None:
        """Add a request and its reply. An error is kept for the end of the context.

        Args:
            exchange: The request and its reply.
            saves: Write the cassette now, so that no crash loses a paid reply.
        """
        with self._guard:
            try:
                count = len(self)
                self.append(_to_vcr_request(exchange.request), exchange.to_vcr_response())
                for index in range(count, len(self)):
                    # An equal request later needs a recording of its own, as it does on replay.
                    self.play_counts[index] += 1
                if saves and self.record_on_exception and self._find_problem() is None:
                    self._save_without_dropping()
            except Exception as error:
                self._problem = error

    def save(self) -> Exception | None:
        """Write the cassette and return the problem, if any. An earlier attempt that failed is repeated."""
        with self._guard:
            self._save(force=getattr(self._persister, "problem", None) is not None)
            return self._find_problem()

    def intercept(self, flow: Flow[T]) -> Flow[T]:
        """Return the flow of a call with recorded requests answered and all others recorded.

        Args:
            flow: The flow of a call.

        Raises:
            CannotOverwriteExistingCassetteException: A request has no recording, and this cassette does not
                record. The call itself ended as one that sent nothing.
        """
        misses: list[Miss] = []
        try:
            value = yield from _FlowTap(self, misses).run(flow)
        except ImgkitError as error:
            if isinstance(error, FixtureMissingError) and not misses and self._missed is not None:
                # A concurrent equal call has found no recording, and this call has waited for it.
                misses.append(Miss(cassette=self, failed_request=self._missed))
            if misses:
                raise _explain_miss(misses.pop(0)) from None
            raise
        if misses:
            raise _explain_miss(misses.pop(0))
        return value

    def find_requests_with_most_matches(self, request: Request) -> list[Any]:
        """Return the nearest recordings; another host is no difference where it would match."""
        nearest = super().find_requests_with_most_matches(request)
        if not self._ignores_host:
            return list(nearest)
        return [
            (stored, matching, [item for item in differing if item[0] not in _HOST_MATCHERS])
            for stored, matching, differing in nearest
        ]

    @property
    def _ignores_host(self) -> bool:
        """Whether another host matches. Never while requests are sent: that host shall get them."""
        return self.may_ignore_host and bool(self.write_protected)

    def _responses(self, request: Request) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the matching recordings: those of the same URL first."""
        exact = set()
        for index, response in super()._responses(request):
            exact.add(index)
            yield index, response
        if not self._ignores_host or (filtered := self.filter_request(request)) is None:
            return
        wanted = summarize(filtered)
        for stored, _ in self.data[len(self._summaries) :]:
            self._summaries.append(summarize(stored))
        for index, summary in enumerate(self._summaries):
            if summary == wanted and index not in exact:
                yield index, self.data[index][1]

    def _find_problem(self) -> Exception | None:
        problem: Exception | None = self._problem or getattr(self._persister, "problem", None)
        return problem

    def _save_without_dropping(self) -> None:
        """Write all recordings; unused recordings are dropped only at the end of the context."""
        drops, self.drop_unused_requests = self.drop_unused_requests, False
        try:
            self._save()
        finally:
            self.drop_unused_requests = drops
            self.dirty = self.dirty or drops

    def _after_fork(self) -> None:
        """Start over with the lock: a thread of the parent may hold it."""
        self._guard = threading.RLock()


class _FlowTap:
    """The requests of one flow, which a tape answers or records. The flows of its parts share its misses.

    Args:
        tape: The tape.
        misses: Gets an error for each request without a recording.
    """

    def __init__(self, tape: Tape, misses: list[Miss]) -> None:
        self._tape = tape
        self._misses = misses
        self._chunks: Iterator[bytes] | None = None
        self._exchange: _Exchange | None = None

    def run(self, flow: Flow[T]) -> Flow[T]:
        """Carry out the effects of a flow and return its result."""
        result: object = None
        try:
            while True:
                effect: Effect | Finished[T] = advance_for(self._tape, flow, result)
                if isinstance(effect, Finished):
                    yield from self._keep()
                    value: T = effect.value
                    return value
                try:
                    result = yield from self._carry_out(effect)
                except ImgkitError as error:
                    result = EffectFailed(error)
        except ImgkitError:
            yield from self._keep()
            raise
        finally:
            flow.close()

    def _carry_out(self, effect: Effect) -> Flow[object]:
        match effect:
            case SendRequest():
                return (yield from self._send(effect))
            case ReadChunk():
                return (yield from self._read(effect))
            case RunParallel(flows):
                parts = tuple(_FlowTap(self._tape, self._misses).run(part) for part in flows)
                return (yield effect._replace(flows=parts))
            case EmitEvent():
                try:
                    return (yield effect)
                except GeneratorExit:
                    # The caller leaves a stream: a replay needs the events up to here.
                    if self._exchange is not None:
                        self._tape.record(self._exchange, saves=False)
                    raise
        return (yield effect)

    def _send(self, effect: SendRequest) -> Flow[Head]:
        yield from self._keep()
        self._chunks = None
        request = effect.request
        found = yield from run_blocking(partial(self._tape.find_reply, request), before_sending=True)
        if isinstance(found, Miss):
            self._misses.append(found)
            # Observers and ledgers see a call that is free.
            place = f"{request.method} {safe_url(request.url)}"
            raise FixtureMissingError(f"The cassette has no recording of {place}. Nothing was sent.")
        if found is not None:
            head, self._chunks = found
            return head
        sent_head: Head = yield effect
        self._exchange = _Exchange(request, sent_head)
        return sent_head

    def _read(self, effect: ReadChunk) -> Flow[bytes]:
        if self._chunks is not None:
            return next(self._chunks, b"")
        try:
            chunk: bytes = yield effect
        except ImgkitError:
            self._exchange = None  # half a reply is never replayed
            raise
        if self._exchange is not None:
            self._exchange.chunks.append(chunk)
            if not chunk:
                yield from self._keep()
        return chunk

    def _keep(self) -> Flow[None]:
        """Record the reply that the flow has read, if it was sent for."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            yield from run_blocking(partial(self._tape.record, exchange))


@dataclass
class _Exchange:
    """A request that was sent, and the part of its reply that the call has read."""

    request: HttpRequest
    head: Head
    chunks: list[bytes] = field(default_factory=list)

    def to_vcr_response(self) -> dict[str, Any]:
        """Return the reply in vcrpy's form, without the keys that the request carried."""
        keys = collect_sent_keys(self.request.headers, self.request.secret_headers)
        body = remove_keys(b"".join(self.chunks), keys)
        headers = {
            name: [value]
            for name, value in remove_keys_from_headers(self.head.headers, keys).items()
            if name not in _DECODED_HEADERS
        }
        if "content-length" in headers:
            headers["content-length"] = [str(len(body))]
        status = {"code": self.head.status, "message": _PHRASES.get(self.head.status, "")}
        return {"status": status, "headers": headers, "body": {"string": body}}


def _explain_miss(miss: Miss) -> Miss:
    """Return vcrpy's error with the error of the call, which a server answers with."""
    miss.call_error = FixtureMissingError(f"{describe_miss(miss)}.")
    return miss


def _to_vcr_request(request: HttpRequest) -> Request:
    """Return a request in vcrpy's form, without credentials."""
    headers = remove_credentials(request.wire_headers(), request.secret_headers)
    body = b"".join(request.body.blocks()) if request.sends_body else None
    return Request(request.method, request.url, body, headers)


def _to_reply(response: Mapping[str, Any]) -> RecordedReply:
    """Return the head and the chunks of a recorded reply."""
    body = (response.get("body") or {}).get("string") or b""
    body = body.encode("utf-8") if isinstance(body, str) else body
    headers = {
        str(name).lower(): value if isinstance(value, str) else ", ".join(map(str, value))
        for name, value in (response.get("headers") or {}).items()
        if str(name).lower() not in _DECODED_HEADERS
    }
    if "content-length" in headers:
        headers["content-length"] = str(len(body))
    chunks = (body[start : start + CHUNK_BYTES] for start in range(0, len(body), CHUNK_BYTES))
    return Head(int(response["status"]["code"]), headers), chunks


_TAPES = ForkRegistry(Tape._after_fork)
