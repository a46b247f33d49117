"""The `aiohttp` backend."""

from __future__ import annotations

import asyncio
import errno
import socket
import weakref
from collections.abc import AsyncIterator
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import aiohttp

from imgkit.backends.sockets import close_descriptors, tls_context
from imgkit.errors import DownloadBlockedError
from imgkit.redact import safe_url
from imgkit.wire.addresses import NOT_PUBLIC, is_public
from imgkit.wire.messages import AsyncReply, BackendOptions, Body, Head, HttpRequest, whole_or_blocks
from imgkit.wire.transfer import Transfer, shut_down

READ_BYTES = 16 * 1024
"""What may wait unread of a reply; aiohttp stops reading beyond twice as much. Its own half a megabyte
counts when hundreds of replies wait for the disk."""

RECEIVE_BYTES = 128 * 1024
"""Most that a transport of asyncio takes from the system at once: half of its own choice, which each of
hundreds of replies would hold."""

HEAD_LINE_BYTES = 65_536
"""Longest line of a reply's head, as http.client has it; aiohttp's own limit is 8190."""


class AiohttpBackend:
    """Sends with aiohttp; see `imgkit.wire.messages.AsyncBackend`.

    Args:
        options: see `imgkit.wire.messages.BackendOptions`.
    """

    errors = (aiohttp.ClientError, OSError, UnicodeError)  # the last of names that cannot be looked up
    unsent_errors = (
        aiohttp.ClientConnectorError,
        aiohttp.ConnectionTimeoutError,
        aiohttp.ClientProxyConnectionError,
        aiohttp.ClientHttpProxyError,
        aiohttp.InvalidURL,
    )
    checks_peer = True

    def __init__(self, options: BackendOptions) -> None:
        options.refuse_unknown("aiohttp")
        self._options = options
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    async def open(self, request: HttpRequest, transfer: Transfer) -> AsyncReply:
        """See `imgkit.wire.messages.AsyncBackend.open`."""
        session = self._session(request.public_peer_only)
        headers = request.wire_headers()
        headers.setdefault("user-agent", "imgkit")
        transfer.mark_unsent()  # until there is a connection to send it on
        _sending.set(transfer)
        try:
            response = await session.request(
                request.method,
                request.url,
                headers=headers,
                data=_payload(request.body) if request.method == "POST" else None,
                allow_redirects=False,
                proxy=None if request.public_peer_only else self._options.proxy,
                timeout=_timeout(transfer.connect_timeout_s(), transfer.read_timeout_s),
            )
        except aiohttp.ClientConnectorError as error:
            if NOT_PUBLIC in str(error):  # aiohttp may have merged the refusals of several addresses
                raise DownloadBlockedError(f"{safe_url(request.url)} is not fetched: {NOT_PUBLIC}") from None
            raise
        return _AiohttpReply(response, None if self._options.reuse_connections else transfer)

    async def aclose(self) -> None:
        """Close every connection. Idempotent."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()
        for left in list(self._sockets):
            shut_down(left)
        for _ in range(_MOST_TURNS):  # a transport notices in one of the next turns of the loop
            if all(left.fileno() < 0 for left in self._sockets):
                break
            await asyncio.sleep(0)

    def after_fork(self) -> None:
        """In a forked child: close the inherited descriptors, and nothing more."""
        close_descriptors(self._sockets)
        for session in self._sessions.values():
            _abandoned.append(session.connector)
            session.detach()
        self._sessions = {}

    def _session(self, public_only: bool) -> aiohttp.ClientSession:
        """Return the session for result URLs of strangers, or the one for the API."""
        if public_only not in self._sessions:
            connector = _Connector(
                ssl=tls_context(self._options.ca),
                limit=0,
                force_close=not self._options.reuse_connections,
                socket_factory=self._public_socket if public_only else self._socket,
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

    def _socket(self, address: tuple[object, ...]) -> socket.socket:
        family, kind, protocol = address[:3]
        made = socket.socket(family, kind, protocol)  # type: ignore[arg-type]  # aiohttp's tuple, loosely typed
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._sockets.add(made)
        # A cancelled upload leaves its transport waiting for the peer to read on; not so a shut-down socket.
        _sending.get().watch_socket(made.fileno())
        return made

    def _public_socket(self, address: tuple[object, ...]) -> socket.socket:
        """Make a socket for an address of the public internet; aiohttp connects it to just that address."""
        host = address[4][0]  # type: ignore[index]  # a socket address: (host, port, …)
        if not is_public(str(host)):
            raise OSError(errno.EACCES, NOT_PUBLIC)
        return self._socket(address)


class _AiohttpReply:
    def __init__(self, response: aiohttp.ClientResponse, transfer: Transfer | None) -> None:
        self._response = response
        self._transfer = transfer
        self._broken: Exception | None = None
        headers: dict[str, str] = {}
        for name, value in response.headers.items():
            name = name.lower()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self.head = Head(response.status, headers)

    async def read(self) -> bytes:
        if self._broken is not None:
            raise self._broken
        content = self._response.content
        try:
            chunk = await content.readany()
        except Exception as error:
            # aiohttp raises at once and forgets what had arrived before, which may be paid for.
            content.set_exception(None)  # type: ignore[arg-type]  # else its buffer cannot be read
            chunk = content.read_nowait()
            if not chunk:
                raise
            self._broken = error
        if not chunk and self._transfer is not None:
            self._transfer.shut_down()  # an upload that the server refused early would linger otherwise
        return chunk

    def close(self) -> None:
        self._response.close()


_MOST_TURNS = 100

_sending: ContextVar[Transfer] = ContextVar("imgkit_sending")
_abandoned: list[object] = []


class _Connector(aiohttp.TCPConnector):
    """Tells the transfer when there is a connection, for from then on the request may leave.

    aiohttp's traces could tell it too, at a fifth of what a small call costs.
    """

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        connection = await super().connect(*args, **kwargs)
        transport: Any = connection.transport
        if hasattr(transport, "max_size"):  # one of asyncio's own, without TLS
            transport.max_size = RECEIVE_BYTES
        _sending.get().mark_sent()
        return connection


@lru_cache(maxsize=8)
def _timeout(connect_s: float, read_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect_s, sock_read=read_s)


def _payload(body: Body) -> bytes | AsyncIterator[bytes]:
    """Return a small body whole; aiohttp takes large ones as an asynchronous iterable."""
    content = whole_or_blocks(body)
    if isinstance(content, bytes):
        return content

    async def blocks() -> AsyncIterator[bytes]:
        for block in body.blocks():
            yield block

    return blocks()
