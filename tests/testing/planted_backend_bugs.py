"""Planted bugs of backends: requests, replies and connections.

The docstring of each class says why the mistake matters. `BackendContract` must find all of them.
"""

from __future__ import annotations

import logging
import select
import socket
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import requests
from yarl import URL

from imgkit.backends.aiohttp import AiohttpBackend
from imgkit.backends.requests import RequestsBackend
from imgkit.testing.backend_harness import MAX_DELAY_S
from imgkit.wire.messages import BackendOptions, Body, BytesBody, Head, HttpRequest, SizedBlocks
from imgkit.wire.transfer import Transfer

BackendT = TypeVar("BackendT", bound="type[RequestsBackend] | type[AiohttpBackend]")


class BackendBug(NamedTuple):
    """A backend with a bug, and the test of the contract that finds it.

    Attributes:
        backend: class of the backend.
        test: name of the test.
        message: pattern of its message.
    """

    backend: type[RequestsBackend] | type[AiohttpBackend]
    test: str
    message: str


BACKEND_BUGS: list[BackendBug] = []

Reply = Any
"""A reply of any backend."""

TOO_LONG_S = MAX_DELAY_S + 0.2


def plant(test: str, message: str) -> Callable[[BackendT], BackendT]:
    """Add a backend to the planted bugs; see `BackendBug`."""

    def add(backend: BackendT) -> BackendT:
        BACKEND_BUGS.append(BackendBug(backend, test, message))
        return backend

    return add


def with_header(request: HttpRequest, name: str, value: str) -> HttpRequest:
    return request.with_headers({**request.headers, name: value})


class WrappedReply:
    """A reply that passes on another."""

    def __init__(self, reply: Reply) -> None:
        self.head, self.reply = reply.head, reply

    def read(self) -> bytes:
        return bytes(self.reply.read())

    def close(self) -> None:
        self.reply.close()


# --- Requests ----------------------------------------------------------------------------------


@plant("test_sends_request_as_is", "gzip")
class AsksForCompression(RequestsBackend):
    """A compressed reply must be decoded, and its length does not tell its end."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        return super().open(with_header(request, "accept-encoding", "gzip"), transfer)


@plant("test_sends_request_as_is", "The key is in a log record")
class LogsKey(RequestsBackend):
    """Whoever reads the log pays with the key."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        logging.getLogger("backend").debug("sending %s", dict(request.headers))
        return super().open(request, transfer)


@plant("test_sends_every_method", "POST /uploads/1")
class PostsUploads(RequestsBackend):
    """A storage knows no POST, so no file can be uploaded."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        method = "POST" if request.method == "PUT" else request.method
        return super().open(replace(request, method=method), transfer)


@plant("test_sends_every_method", "The body of PUT is .'0'")
class DropsUploads(RequestsBackend):
    """The API edits an empty file, and bills it."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        body = BytesBody() if request.method == "PUT" else request.body
        return super().open(replace(request, body=body), transfer)


class RequestWithBody(HttpRequest):
    """A request that sends its body with every method."""

    sends_body = True


@plant("test_sends_every_method", "The body of GET is .'6'")
class SendsBodyAlways(RequestsBackend):
    """A gateway refuses a GET or a DELETE with a body, so a paid job is never fetched."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        request = RequestWithBody(request.method, request.url, request.headers, request.body)
        return super().open(request, transfer)


@plant("test_sends_every_method", "Two DELETE are sent 3 times")
class SendsDeletionAgain(RequestsBackend):
    """The second DELETE of a cancelled job fails, and the caller sees this error."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        try:
            return super().open(request, transfer)
        except requests.ConnectionError:
            if request.method != "DELETE":
                raise
            return super().open(request, transfer)


@plant("test_maps_faults_to_errors", "One call sends 2 requests")
class SendsAgain(RequestsBackend):
    """The caller pays twice for one image."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        try:
            return super().open(request, transfer)
        except requests.ConnectionError:
            return super().open(request, transfer)


@plant("test_follows_no_redirect", "follows a redirect with the key")
class FollowsRedirects(RequestsBackend):
    """Another server gets the key."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        reply = super().open(request, transfer)
        if reply.head.status in (307, 308):
            return super().open(replace(request, url=reply.head.headers["location"]), transfer)
        return reply


@plant("test_sends_urls_byte_for_byte", "a:b")
class DecodesUrls(RequestsBackend):
    """A signature covers one spelling of the path."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        return super().open(replace(request, url=request.url.replace("%3A", ":")), transfer)


@plant("test_sends_urls_byte_for_byte", "At index 0")
class FoldsUrls(RequestsBackend):
    """A store that takes ``..`` for a name sends another object."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        return super().open(replace(request, url=request.url.replace("/c/..", "")), transfer)


@plant("test_sends_urls_byte_for_byte", "At index 0")
class NormalizesUrls(AiohttpBackend):
    """yarl's idea of a URL invalidates signatures."""

    async def open(self, request: HttpRequest, transfer: Transfer) -> Any:
        return await super().open(replace(request, url=str(URL(request.url))), transfer)


@plant("test_refuses_private_peers", "DID NOT RAISE")
class ConnectsAnywhere(RequestsBackend):
    """A result URL makes imgkit call a service inside the company."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        return super().open(replace(request, public_peer_only=False), transfer)


@plant("test_streams_uploads", "took the upload before the server read it")
class TakesWholeUpload(RequestsBackend):
    """Sixteen edits at once take gigabytes of memory."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        body = BytesBody(b"".join(request.body.blocks()), request.body.content_type)
        return super().open(replace(request, body=body), transfer)


class WatchfulBody(SizedBlocks):
    """A body that breaks off when the server says something."""

    content_type = "application/octet-stream"

    def __init__(self, body: Body, transfer: Transfer) -> None:
        super().__init__(body)
        self.body, self.transfer, self.length = body, transfer, body.length

    def sha256(self) -> str:
        return self.body.sha256()

    def blocks(self) -> Iterator[bytes]:
        for block in self.body.blocks():
            yield block
            if select.select(self.transfer._handles, [], [], 0.05)[0]:
                raise ConnectionResetError("The server speaks out of turn.")


@plant("test_reads_early_refusal", "closed the connection before its reply was complete")
class BreaksOffUploads(RequestsBackend):
    """A wrong key looks like a broken connection, which may have been billed."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        return super().open(replace(request, body=WatchfulBody(request.body, transfer)), transfer)


@plant("test_concurrent_calls", "assert .*==")
class MixesCalls(RequestsBackend):
    """A caller gets the image of another."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        self.request = getattr(self, "request", request)
        return super().open(self.request, transfer)


@plant("test_rejects_unknown_options", "DID NOT RAISE")
class TakesAnyOption(RequestsBackend):
    """A typing error in an option has no effect."""

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(replace(options, client_options={}))


@plant("test_declares_known_capabilities", r"does not have \['proxi'\]")
class MisspellsCapability(RequestsBackend):
    """imgkit refuses a proxy that the backend could use."""

    capabilities = frozenset({"proxi"})


# --- Replies -----------------------------------------------------------------------------------


@plant("test_sends_request_as_is", "no readable image")
class LosesLastByte(RequestsBackend):
    """A paid image cannot be read."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        class ShortReply(WrappedReply):
            def read(self) -> bytes:
                return super().read()[:-1]

        return ShortReply(super().open(request, transfer))


@plant("test_transfers_large_bodies", "no readable image")
class LimitsReplies(RequestsBackend):
    """Large images are paid for and lost."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        class LimitedReply(WrappedReply):
            total_bytes = 0

            def read(self) -> bytes:
                chunk = super().read()
                self.total_bytes += len(chunk)
                return chunk if self.total_bytes < 1 << 20 else b""

        return LimitedReply(super().open(request, transfer))


@plant("test_lower_cases_response_headers", "must be in lower case")
class KeepsCaseOfHeaders(RequestsBackend):
    """Request id, Retry-After and rate limits are lost."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        reply = WrappedReply(super().open(request, transfer))
        headers = {name.title(): value for name, value in reply.head.headers.items()}
        reply.head = Head(reply.head.status, headers)
        return reply


@plant("test_maps_faults_to_errors", "UnreadableReplyError: ")
class IgnoresEarlyEnd(RequestsBackend):
    """Half an image is saved as a whole."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        class LenientReply(WrappedReply):
            def read(self) -> bytes:
                try:
                    return super().read()
                except Exception:
                    return b""

        return LenientReply(super().open(request, transfer))


@plant("test_maps_faults_to_errors", "does not declare it as a failure of the wire")
class DeclaresNoErrors(RequestsBackend):
    """A broken connection ends the program, and nobody learns that it may be billed."""

    wire_errors = ()


@plant("test_yields_each_chunk_at_once", "arrive with the last")
class WaitsForWholeBody(RequestsBackend):
    """Partial images arrive with the last."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        class WholeReply(WrappedReply):
            def read(self) -> bytes:
                return b"".join(iter(super().read, b""))

        return WholeReply(super().open(request, transfer))


@plant("test_decodes_content", "no readable image")
class DecodesNothing(RequestsBackend):
    """A paid image cannot be read, because a gateway compresses."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        reply: Reply = super().open(request, transfer)
        reply._raw.decode_content = False
        return reply


@plant("test_refuses_cut_encoding", "does not declare it as a failure of the wire")
class RaisesForeignErrors(RequestsBackend):
    """A cut reply ends the program with an error of zlib."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        class FragileReply(WrappedReply):
            def read(self) -> bytes:
                chunk = super().read()
                if not chunk:
                    raise zlib.error("incomplete or truncated stream")
                return chunk

        return FragileReply(super().open(request, transfer))


# --- Connections -------------------------------------------------------------------------------


@plant("test_maps_faults_to_errors", "NotSentError: ")
class DeniesSending(RequestsBackend):
    """imgkit sends the request again, and the caller pays twice."""

    unsent_errors = (requests.ConnectionError,)

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        transfer.mark_sent = lambda: None  # type: ignore[method-assign]
        return super().open(request, transfer)


@plant("test_stays_sent", "reported as not sent|sends 4 requests")
class ForgetsSending(RequestsBackend):
    """A poll that cannot connect hides a job that is paid for."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        transfer._sent = False
        return super().open(request, transfer)


@plant("test_refused_connection_raises_not_sent_error", "is no NotSentError")
@plant("test_unknown_host_raises_not_sent_error", "is no NotSentError")
@plant("test_reports_refusing_proxy", "is no NotSentError")
class ProvesNothing(RequestsBackend):
    """A budget counts a request that was never sent."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        transfer.mark_unsent = lambda: None  # type: ignore[method-assign]
        return super().open(request, transfer)


@plant("test_connection_reuse", "With reuse_connections=False, two calls take 1 connections")
class KeepsConnections(RequestsBackend):
    """A connection that dies while it is idle leaves the outcome of a paid request unknown."""

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(replace(options, reuse_connections=True))


@plant("test_connection_reuse", "With reuse_connections=True, two calls take 2 connections")
class OpensConnectionPerCall(RequestsBackend):
    """Each call pays for a handshake that the caller wanted to save."""

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(replace(options, reuse_connections=False))


@plant("test_sends_once_on_reused_connection", "Two calls send 3 requests")
class SendsAgainOnReusedConnection(RequestsBackend):
    """Most libraries repeat a request on a stale connection, and the caller pays twice."""

    has_sent = False

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        try:
            reply = super().open(request, transfer)
        except requests.ConnectionError:
            if not self.has_sent:
                raise
            return super().open(request, transfer)
        self.has_sent = True
        return reply


@plant("test_close_disconnects", "did not see the backend disconnect")
class KeepsIdleConnections(RequestsBackend):
    """A long-lived process runs out of descriptors."""

    def close(self) -> None:
        pass


@plant("test_close_is_idempotent", "closed already")
class ClosesOnce(RequestsBackend):
    """A second ``close`` hides the error of the program."""

    is_closed = False

    def close(self) -> None:
        if self.is_closed:
            raise RuntimeError("closed already")
        self.is_closed = True
        super().close()


@plant("test_total_deadline", "outlives its deadline")
class IgnoresDeadline(RequestsBackend):
    """A server that drips holds a call for ever."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        transfer.abort = lambda: None  # type: ignore[method-assign]
        transfer.read_timeout_s = TOO_LONG_S
        return super().open(request, transfer)


@plant("test_read_timeout", "outlives its read timeout")
class IgnoresReadTimeout(RequestsBackend):
    """A dead server holds a call until its deadline."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        transfer.read_timeout_s = TOO_LONG_S
        return super().open(request, transfer)


@plant("test_hangs_up", "did not see the backend disconnect|Hanging up takes too long|OutcomeUnknown")
class StaysConnected(RequestsBackend):
    """The API draws and bills an image that nobody waits for."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        def watch_nothing(sock: socket.socket) -> None:
            """Forget the socket."""

        transfer.watch_socket = watch_nothing  # type: ignore[assignment,method-assign]
        return super().open(request, transfer)
