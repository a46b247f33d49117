"""The `aiohttp` backend: asynchronous HTTP with aiohttp, and proof of not-sent."""

from __future__ import annotations

import asyncio
import errno
import socket
import weakref
from collections.abc import AsyncIterator
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from imgkit.backends.idle_connections import wake_connection, watch_idle
from imgkit.backends.sockets import REUSE_S, close_inherited_sockets, may_carry_more, tls_context
from imgkit.errors import DownloadBlockedError
from imgkit.redact import safe_url
from imgkit.wire.addresses import BLOCKED_HINT, NOT_PUBLIC, is_public
from imgkit.wire.capabilities import CAPABILITIES
from imgkit.wire.messages import (
    AsyncReply,
    BackendOptions,
    Body,
    Head,
    HttpRequest,
    whole_or_blocks,
)
from imgkit.wire.transfer import Transfer, shut_down_socket

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection

READ_BYTES = 16 * 1024
"""Size of the read buffer per response; aiohttp stops reading at twice this size.

aiohttp's default of half a megabyte matters when hundreds of responses wait for the disk.
"""

LEAST_RECEIVE_BYTES, MOST_RECEIVE_BYTES = 128 * 1024, 512 * 1024
"""Bounds of the bytes that an asyncio transport takes from the system at once. Its default is 256 KiB.

Each chunk of a response costs turns of the event loop and of a thread that writes it.
"""

ALL_RECEIVE_BYTES = 16 * 1024 * 1024
"""Bytes that the open responses share, as far as the bounds allow: each of hundreds takes less."""

HEAD_LINE_BYTES = 65_536
"""Maximum length of a line in a response's head, as in http.client; aiohttp's default is 8190."""


class AiohttpBackend:
    """An `AsyncBackend` that sends with aiohttp; see `imgkit.wire.messages.AsyncBackend`.

    Example:
        >>> from imgkit import AsyncImageService
        >>> async def open_service() -> None:
        ...     async with AsyncImageService(backend="aiohttp", api_key="sk-example"):
        ...         pass
        >>> asyncio.run(open_service())

    Args:
        options: proxy, certificates and reuse of connections; no ``client_options`` exist.

    Raises:
        ConfigurationError: ``client_options`` is not empty.
    """

    # UnicodeError: a host name that cannot be encoded.
    wire_errors = (aiohttp.ClientError, OSError, UnicodeError)
    unsent_errors = (
        aiohttp.ClientConnectorError,
        aiohttp.ConnectionTimeoutError,
        aiohttp.ClientProxyConnectionError,
        aiohttp.ClientHttpProxyError,
        aiohttp.InvalidURL,
    )
    capabilities = frozenset(CAPABILITIES)
    checks_peer = True
    marks_leaving = True
    is_patched_by_vcrpy = True

    def __init__(self, options: BackendOptions) -> None:
        options.refuse_unknown("aiohttp")
        # Report an unusable `ca` now, not at the first connection.
        if options.ca is not None:
            tls_context(options.ca)
        self._options = options
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._replies: weakref.WeakSet[_AiohttpReply] = weakref.WeakSet()
        self._waiting = 0  # requests without a response, whose responses may come at the same time
        # The service warns of a missing close; aiohttp would name a session that users never saw.
        weakref.finalize(self, _drop_sessions, self._sessions, self._sockets)

    async def open(self, request: HttpRequest, transfer: Transfer) -> AsyncReply:
        """Send a request and return the open response; see `imgkit.wire.messages.AsyncBackend.open`."""
        session = self._get_session(request.public_peer_only)
        headers = request.wire_headers()
        headers.setdefault("user-agent", "imgkit")
        # Nothing can leave before there is a connection.
        transfer.mark_unsent()
        self._waiting += 1
        opened = _OpenRequest(transfer, _share_memory(len(self._replies) + self._waiting))
        _current_request.set(opened)
        try:
            response = await session.request(
                request.method,
                _to_raw_url(request),
                headers=headers,
                data=_to_payload(request.body) if request.sends_body else None,
                allow_redirects=False,
                proxy=None if request.public_peer_only else self._options.proxy,
                timeout=_build_timeout(transfer.connect_timeout_s(), transfer.read_timeout_s),
            )
        except aiohttp.ClientConnectorError as error:
            # aiohttp may merge the refusals of several addresses.
            if NOT_PUBLIC in str(error):
                raise DownloadBlockedError(
                    f"{safe_url(request.url)} is not fetched: {NOT_PUBLIC}.", hint=BLOCKED_HINT
                ) from None
            raise
        finally:
            self._waiting -= 1
        may_reuse = self._options.reuse_connections and may_carry_more(response.status)
        if not may_reuse and opened.connection is not None:
            opened.connection.force_close()
        return _AiohttpReply(response, None if may_reuse else transfer, self._replies)

    async def aclose(self) -> None:
        """Close every connection. Idempotent."""
        while self._sessions:
            await self._sessions.popitem()[1].close()
        for sock in list(self._sockets):
            shut_down_socket(sock)
        # The transports notice within the next turns of the loop.
        for _ in range(_MAX_LOOP_TURNS):
            if all(sock.fileno() < 0 for sock in self._sockets):
                break
            await asyncio.sleep(0)

    def after_fork(self) -> None:
        """Close the inherited descriptors in a forked child, without a word to their peers."""
        close_inherited_sockets(self._sockets)
        for session in self._sessions.values():
            _abandoned_connectors.append(session.connector)
            session.detach()
        self._sessions.clear()
        self._waiting = 0

    def _get_session(self, public_only: bool) -> aiohttp.ClientSession:
        """Return the session for the API, or the session for untrusted result URLs."""
        reuses = self._options.reuse_connections
        if public_only not in self._sessions:
            connector = _Connector(
                ssl=tls_context(self._options.ca),
                limit=0,
                force_close=not reuses,
                keepalive_timeout=REUSE_S if reuses else None,
                # A bound method would keep the backend alive as long as its sessions.
                socket_factory=partial(_open_public_socket if public_only else _open_socket, self._sockets),
            )
            self._sessions[public_only] = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                read_bufsize=READ_BYTES,
                max_line_size=HEAD_LINE_BYTES,
                max_field_size=HEAD_LINE_BYTES,
                skip_auto_headers=("accept", "accept-encoding", "content-type", "user-agent"),
            )
        return self._sessions[public_only]


def _open_socket(sockets: weakref.WeakSet[socket.socket], address: tuple[object, ...]) -> socket.socket:
    """Open a socket, add it to `sockets`, and let the transfer watch it."""
    family, kind, protocol = address[:3]
    sock = socket.socket(family, kind, protocol)  # type: ignore[arg-type]  # aiohttp's tuple, loosely typed
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        request = _current_request.get()
        request.is_new = True
        # A cancelled upload leaves its transport waiting for the peer, unless the socket is shut down.
        request.transfer.watch_socket(sock)
    except BaseException:
        # aiohttp does not know the socket yet, such as when the call was aborted meanwhile.
        sock.close()
        raise
    sockets.add(sock)
    return sock


def _open_public_socket(
    sockets: weakref.WeakSet[socket.socket], address: tuple[object, ...]
) -> socket.socket:
    """Open a socket for an address of the public internet; aiohttp connects it to this address.

    Raises:
        OSError: the address is not public.
    """
    host = address[4][0]  # type: ignore[index]  # a socket address: (host, port, …)
    if not is_public(str(host)):
        raise OSError(errno.EACCES, NOT_PUBLIC)
    return _open_socket(sockets, address)


def _drop_sessions(
    sessions: dict[bool, aiohttp.ClientSession], sockets: weakref.WeakSet[socket.socket]
) -> None:
    """Hang up the connections of a backend that nobody closed, without a word of aiohttp."""
    for sock in list(sockets):
        shut_down_socket(sock)
    for session in sessions.values():
        _abandoned_connectors.append(session.connector)
        session.detach()
    sessions.clear()


class _AiohttpReply:
    """An open response of aiohttp; see `imgkit.wire.messages.AsyncReply`.

    Args:
        response: the response.
        transfer: shut down at the end of the body; None keeps the connection for reuse.
        open_replies: the open responses of the backend, which share the memory for received bytes.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        transfer: Transfer | None,
        open_replies: weakref.WeakSet[_AiohttpReply],
    ) -> None:
        self._response = response
        self._transfer = transfer
        self._open_replies = open_replies
        open_replies.add(self)
        self._read_error: Exception | None = None
        headers: dict[str, str] = {}
        for name, value in response.headers.items():
            name = name.lower()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self.head = Head(response.status, headers)

    async def read(self) -> bytes:
        """Return the next chunk as soon as it arrives; b"" at the end.

        Bytes that arrived before a failure are returned first; the next call raises the failure.
        """
        if self._read_error is not None:
            raise self._read_error
        content = self._response.content
        _limit_receiving(self._response.connection, _share_memory(len(self._open_replies)))
        try:
            chunk = await content.readany()
        except Exception as error:
            # aiohttp raises at once and drops the bytes before the failure, which may be billed.
            content.set_exception(None)  # type: ignore[arg-type]  # unlocks its buffer
            chunk = content.read_nowait()
            if not chunk:
                raise
            self._read_error = error
        if not chunk:
            self._open_replies.discard(self)
            if self._transfer is not None:
                # Otherwise an upload that the server rejected early lingers.
                self._transfer.shut_down()
        return chunk

    def close(self) -> None:
        """Discard the rest of the response and close its connection."""
        self._open_replies.discard(self)
        self._response.close()


_MAX_LOOP_TURNS = 100
"""Maximum turns of the event loop to wait for transports to close."""


def _share_memory(replies: int) -> int:
    """Return the bytes that each of so many open responses may take from the system at once."""
    return min(MOST_RECEIVE_BYTES, max(LEAST_RECEIVE_BYTES, ALL_RECEIVE_BYTES // max(1, replies)))


def _limit_receiving(connection: Connection | None, size: int) -> None:
    """Limit the bytes that a connection takes from the system at once; None once a body has arrived."""
    transport = None if connection is None else connection.transport
    # Only asyncio's transports without TLS have this limit.
    if transport is not None and hasattr(transport, "max_size"):
        transport.max_size = size


class _OpenRequest:
    """The request that a task is sending.

    Args:
        transfer: the transfer to watch and to mark.
        receive_bytes: bytes that its connection takes from the system at once.

    Attributes:
        connection: its connection, None before there is any.
        is_new: a connection was opened for it.
    """

    def __init__(self, transfer: Transfer, receive_bytes: int) -> None:
        self.transfer = transfer
        self.receive_bytes = receive_bytes
        self.connection: ResponseHandler | None = None
        self.is_new = False


_current_request: ContextVar[_OpenRequest] = ContextVar("imgkit_sending")
_abandoned_connectors: list[object] = []
"""Connectors that must not run their finalizers.

In a forked child they would close connections of the parent; after a missing close they would warn.
"""


class _Connector(aiohttp.TCPConnector):
    """A connector that marks the transfer as sent once a connection exists.

    aiohttp's traces offer the same signal, at a fifth of the cost of a small call.
    """

    async def connect(self, *args: Any, **kwargs: Any) -> Connection:
        """Connect, and mark the transfer: from now on the request may leave.

        Raises:
            ServerDisconnectedError: aiohttp sends a GET again after a disconnection; imgkit decides that.
        """
        request = _current_request.get()
        if request.connection is not None:
            raise aiohttp.ServerDisconnectedError
        connection = await super().connect(*args, **kwargs)
        while not request.is_new and not wake_connection(connection, request.transfer):
            connection.close()
            connection = await super().connect(*args, **kwargs)
        if not self.force_close and connection.protocol is not None:
            # Not of the connection itself: it would outlive its last use.
            connection.add_callback(partial(watch_idle, connection.protocol))
        request.connection = connection.protocol
        _limit_receiving(connection, request.receive_bytes)
        try:
            request.transfer.mark_sent()
        except BaseException:
            connection.close()  # aiohttp does not know it yet
            raise
        return connection


@lru_cache(maxsize=8)
def _build_timeout(connect_s: float, read_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect_s, sock_read=read_s)


def _to_raw_url(request: HttpRequest) -> URL:
    """Return the URL of a request for aiohttp, which sends it byte for byte.

    yarl keeps an encoded path as it is, so the query stands in the path: a URL of its own would drop an
    empty query.
    """
    parts = urlsplit(request.url)
    return URL.build(scheme=parts.scheme, authority=parts.netloc, path=request.path_and_query, encoded=True)


def _to_payload(body: Body) -> bytes | AsyncIterator[bytes]:
    """Return a small body as bytes, a large body as the asynchronous iterable that aiohttp accepts."""
    content = whole_or_blocks(body)
    if isinstance(content, bytes):
        return content

    async def read_blocks() -> AsyncIterator[bytes]:
        for block in body.blocks():
            yield block

    return read_blocks()
