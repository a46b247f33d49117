"""Watched connections for urllib3: a deadline can end them, and their peer is checked first.

`current_request` holds the context of the request that a thread is sending.
"""

from __future__ import annotations

import http.client
import logging
import re
import socket
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, TypeAlias, cast

import urllib3
import urllib3.connection
from urllib3.exceptions import NameResolutionError, NewConnectionError

from imgkit.errors import DownloadBlockedError
from imgkit.redact import scrub
from imgkit.wire.addresses import BLOCKED_HINT, NOT_PUBLIC, is_public
from imgkit.wire.transfer import Transfer

SMALL_BODY_BYTES = 16 * 1024
"""Maximum size of a body that leaves in the same packet as its head."""

INTERIM_STATUSES = frozenset(range(102, 200))
SEND_GAP_S = 30.0
"""Maximum seconds per block of an upload; urllib3 would apply the connect timeout."""


class RequestContext:
    """Context of a request, read by the connection that carries it.

    Args:
        transfer: the transfer to watch and to mark.
        public_only: whether to refuse peers outside the public internet.
        reuse: whether the connection may carry further requests.
        request_line_url: the URL in the request line, byte for byte.
    """

    def __init__(self, transfer: Transfer, public_only: bool, reuse: bool, request_line_url: str) -> None:
        self.transfer = transfer
        self.public_only = public_only
        self.reuse = reuse
        self.request_line_url = request_line_url


class _CurrentRequest(threading.local):
    """Context of the request that this thread is sending; urllib3 connects in the same thread."""

    context: RequestContext | None = None


SocketAddress: TypeAlias = tuple[
    socket.AddressFamily,
    socket.SocketKind,
    int,
    str,
    tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes],
]
"""An address of a host, as `socket.getaddrinfo` returns it."""

current_request = _CurrentRequest()
open_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
"""All open sockets, for a forked child to close."""

_recorder_lock = threading.RLock()


def _find_original_class(subclass: type) -> Any:
    """Return urllib3's own class, even while a recorder has replaced it by a subclass."""
    return next(base for base in subclass.__mro__ if base.__module__ == "urllib3.connection")


_HTTP = _find_original_class(urllib3.connection.HTTPConnection)
_HTTPS = _find_original_class(urllib3.connection.HTTPSConnection)


class _StrictResponse(http.client.HTTPResponse):
    """A response that requires a complete, final head.

    http.client accepts half a head as an empty response, and 103 (early hints) as a final status.
    """

    def begin(self) -> None:
        """Read heads until a final status.

        Raises:
            RemoteDisconnected: the connection was closed within a head.
        """
        buffered = cast(Any, self.fp).peek()
        is_complete = b"\r\n\r\n" in buffered
        if is_complete and buffered[9:10] != b"1":
            super().begin()
            return
        while True:
            stream = self.fp
            self.fp = cast(Any, _HeadReader(stream))
            try:
                super().begin()
            finally:
                if isinstance(self.fp, _HeadReader) or self.status in INTERIM_STATUSES:
                    self.fp = stream
            if self.status not in INTERIM_STATUSES:
                return
            # Without headers, `begin` reads the next head.
            self.headers = cast(Any, None)


class _HeadReader:
    """A stream that raises `RemoteDisconnected` when it ends within a line."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.close = stream.close
        self.flush = stream.flush

    def readline(self, limit: int = -1) -> bytes:
        """Return the next line of the head.

        Raises:
            RemoteDisconnected: the stream ended within the line.
        """
        line: bytes = self._stream.readline(limit)
        if not line.endswith(b"\n") and len(line) < limit:
            raise http.client.RemoteDisconnected("The connection was closed within the head of the response.")
        return line


class _ConnectionMixin:
    """The additions to urllib3's connections, for HTTP and HTTPS alike."""

    response_class = _StrictResponse
    sock: Any
    _dns_host: str
    host: str
    port: int
    timeout: float | None
    socket_options: Sequence[tuple[int, int, int | bytes]] | None
    reusable = True
    _head: bytes | None = None
    """Head of a request, held back until the body starts."""

    def connect(self) -> None:
        """Connect the socket. A failure proves that no byte has left, except on an earlier connection."""
        context = current_request.context
        try:
            super().connect()  # type: ignore[misc]  # a mix-in of urllib3's connections
        except BaseException:
            if context is not None:
                context.transfer.mark_unsent()
            raise
        if context is not None:
            context.transfer.mark_sent()
        open_sockets.add(self.sock)
        self.sock.settimeout(SEND_GAP_S)

    def request(self, *args: object, **kwargs: object) -> None:
        """Send a request, and watch the socket of a reused connection."""
        context = current_request.context
        if context is not None:
            self.reusable = context.reuse
            if self.sock is not None:  # a reused connection
                context.transfer.mark_sent()
                context.transfer.watch_socket(self.sock)
                self.sock.settimeout(SEND_GAP_S)
        self._head = b""
        try:
            super().request(*args, **kwargs)  # type: ignore[misc]  # a mix-in of urllib3's connections
        finally:
            head, self._head = self._head, None
        # A request without a body has not called `send` a second time.
        if head:
            self.send(head)

    def send(self, data: Any) -> None:
        """Send a head and a small body as a single packet; http.client would send them separately."""
        head = self._head
        if head == b"":
            self._head = data
            return
        self._head = None
        if head and len(data) <= SMALL_BODY_BYTES:
            data = head + data
        elif head:
            super().send(head)  # type: ignore[misc]  # a mix-in of urllib3's connections
        super().send(data)  # type: ignore[misc]  # a mix-in of urllib3's connections

    def _new_conn(self) -> socket.socket:
        """Connect to the first address that accepts, within a single timeout.

        Raises:
            DownloadBlockedError: the request requires a public peer, and an address is not public.
            NewConnectionError: no address accepted.
        """
        context = current_request.context
        deadline = time.monotonic() + float(self.timeout or SEND_GAP_S)
        last_error: OSError = OSError("the name has no addresses")
        addresses = self._resolve_host(deadline)
        for index, (family, kind, protocol, _, address) in enumerate(addresses):
            if context is not None and context.public_only and not is_public(str(address[0])):
                context.transfer.mark_unsent()
                raise DownloadBlockedError(f"{self.host} is not fetched: {NOT_PUBLIC}.", hint=BLOCKED_HINT)
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                if context is not None:
                    context.transfer.watch_socket(sock)
                # Each address gets an equal share of the remaining time.
                share_s = (deadline - time.monotonic()) / (len(addresses) - index)
                sock.settimeout(max(0.001, share_s))
                sock.connect(address)
                return sock
            except OSError as error:
                sock.close()
                last_error = error
        raise NewConnectionError(cast(Any, self), f"No connection to {self.host}: {last_error}")

    def _resolve_host(self, deadline: float) -> Sequence[SocketAddress]:
        """Return the addresses of the host.

        A host name is looked up in a separate thread, because the resolver has no timeout.

        Args:
            deadline: monotonic time in seconds.

        Raises:
            NameResolutionError: the name is unknown, or the name server did not answer in time.
        """
        host = self._dns_host.strip("[]")
        try:
            socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
            return socket.getaddrinfo(host, self.port, type=socket.SOCK_STREAM)
        except OSError:
            results: list[Sequence[SocketAddress] | OSError | UnicodeError] = []

        def look_up() -> None:
            try:
                results.append(socket.getaddrinfo(host, self.port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                results.append(error)

        thread = threading.Thread(target=look_up, name="imgkit-resolver", daemon=True)
        thread.start()
        thread.join(max(0.001, deadline - time.monotonic()))
        no_answer = socket.gaierror(socket.EAI_AGAIN, "the name server does not answer")
        result = results[0] if results else no_answer
        if isinstance(result, Exception):
            reason = result if isinstance(result, socket.gaierror) else socket.gaierror(str(result))
            # The cause tells an unknown name, which is permanent, from a name server that is down.
            raise NameResolutionError(self.host, cast(Any, self), reason) from reason
        return result


class _HttpConnection(_ConnectionMixin, _HTTP):  # type: ignore[misc,valid-type]  # the base is found at run time
    """A watched connection without TLS."""


class _HttpsConnection(_ConnectionMixin, _HTTPS):  # type: ignore[misc,valid-type]  # the base is found at run time
    """A watched connection with TLS."""


class _PoolMixin:
    """A pool that closes connections without reuse, even if the server would keep them."""

    def urlopen(self, *args: Any, **kwargs: Any) -> Any:
        # vcrpy restores urllib3's classes for short moments, in all threads. A concurrent request
        # would then reach the network, so a recorder serializes the requests.
        """Send a request; under a recorder, requests take turns."""
        is_recorded = hasattr(urllib3.HTTPConnectionPool._get_conn, "__wrapped__")
        with _recorder_lock if is_recorded else nullcontext():
            return super().urlopen(*args, **kwargs)  # type: ignore[misc]  # a mix-in of urllib3's pools

    def _make_request(self, conn: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        """Send a request with its URL as given; urllib3 has rewritten it, which invalidates signatures."""
        context = current_request.context
        url = url if context is None else context.request_line_url
        return super()._make_request(conn, method, url, *args, **kwargs)  # type: ignore[misc]  # a mix-in of urllib3's pools

    def _put_conn(self, conn: Any) -> None:
        """Return a connection to the pool, closed if it is not reusable."""
        if not getattr(conn, "reusable", True):
            conn.close()  # the pool reconnects it on its next use
        super()._put_conn(conn)  # type: ignore[misc]  # a mix-in of urllib3's pools


class _HttpPool(_PoolMixin, urllib3.HTTPConnectionPool):
    """A pool of watched connections; a recorder (vcrpy) may replace their class."""

    @property
    def ConnectionCls(self) -> Any:  # type: ignore[override]  # noqa: N802 - urllib3's name
        current = urllib3.HTTPConnectionPool.ConnectionCls
        return _HttpConnection if current is _HTTP else current


class _HttpsPool(_PoolMixin, urllib3.HTTPSConnectionPool):
    """A pool of watched connections with TLS."""

    @property
    def ConnectionCls(self) -> Any:  # type: ignore[override]  # noqa: N802 - urllib3's name
        current = urllib3.HTTPSConnectionPool.ConnectionCls
        return _HttpsConnection if current is _HTTPS else current


class _QueryFilter(logging.Filter):
    """Removes the queries of signed URLs from urllib3's log records of this thread's request."""

    def filter(self, record: logging.LogRecord) -> bool:
        if current_request.context is not None:
            record.msg, record.args = scrub(re.sub(r"\?[^\s\"]*", "?…", record.getMessage()), limit=2000), ()
        return True


for _name in ("urllib3.connectionpool", "urllib3.connection"):
    logging.getLogger(_name).addFilter(_QueryFilter())

POOL_CLASSES: dict[str, type[urllib3.HTTPConnectionPool]] = {"http": _HttpPool, "https": _HttpsPool}
"""urllib3's pool classes, by scheme."""
