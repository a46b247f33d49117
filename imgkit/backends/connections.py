"""Connections of urllib3 that are watched: a deadline can end them, and their peer is judged first.

What they must know of the request that they carry lies in `current`, for each thread.
"""

from __future__ import annotations

import http.client
import logging
import re
import socket
import threading
import time
import weakref
from contextlib import nullcontext
from typing import Any, cast

import urllib3
import urllib3.connection
from urllib3.exceptions import NameResolutionError, NewConnectionError

from imgkit.errors import DownloadBlockedError
from imgkit.redact import scrub
from imgkit.wire.addresses import NOT_PUBLIC, is_public
from imgkit.wire.transfer import Transfer

SMALL_BODY_BYTES = 16 * 1024
"""Bodies up to this size leave in one packet with their head."""

INTERIM = frozenset(range(102, 200))
SEND_GAP_S = 30.0
"""Seconds that one block of an upload may take; urllib3 would apply the connect timeout."""


class RequestContext:
    """What a connection must know of the request that it carries."""

    def __init__(self, transfer: Transfer, public_only: bool, reuse: bool) -> None:
        self.transfer = transfer
        self.public_only = public_only
        self.reuse = reuse


class _Current(threading.local):
    """The request that this thread is sending: urllib3 makes connections in the thread that uses them."""

    line: RequestContext | None = None


current_request = _Current()
sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
"""All that are open, for a forked child to close."""

_recorder_lock = threading.RLock()


def _genuine(kind: type) -> Any:
    """Return urllib3's own class, also while a recorder has put a subclass in its place."""
    return next(base for base in kind.__mro__ if base.__module__ == "urllib3.connection")


_HTTP = _genuine(urllib3.connection.HTTPConnection)
_HTTPS = _genuine(urllib3.connection.HTTPSConnection)


class _Response(http.client.HTTPResponse):
    """A reply whose head must be whole, and final.

    http.client takes half a head for an empty reply, and 103 (early hints) for the answer.
    """

    def begin(self) -> None:
        there = cast(Any, self.fp).peek()
        if b"\r\n\r\n" in there and there[9:10] != b"1":  # all of it has come, and it is final
            super().begin()
            return
        while True:
            stream = self.fp
            self.fp = cast(Any, _WholeHead(stream))
            try:
                super().begin()
            finally:
                if isinstance(self.fp, _WholeHead) or self.status in INTERIM:
                    self.fp = stream
            if self.status not in INTERIM:
                return
            self.headers = cast(Any, None)  # what makes `begin` read on


class _WholeHead:
    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.close = stream.close
        self.flush = stream.flush

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self._stream.readline(limit)
        if not line.endswith(b"\n") and len(line) < limit:
            raise http.client.RemoteDisconnected("the connection was closed within the head of the reply")
        return line


class _Guarded:
    """What both kinds of connection add to urllib3's own."""

    response_class = _Response
    sock: Any
    _dns_host: str
    host: str
    port: int
    timeout: Any
    socket_options: Any
    reusable = True
    _head: bytes | None = None
    """The head of a request that waits for the beginning of its body."""

    def connect(self) -> None:
        line = current_request.line
        try:
            super().connect()  # type: ignore[misc]  # a mix-in of urllib3's connections
        except BaseException:
            if line is not None:
                line.transfer.mark_unsent()
            raise
        sockets.add(self.sock)
        self.sock.settimeout(SEND_GAP_S)

    def request(self, *args: Any, **kwargs: Any) -> None:
        line = current_request.line
        if line is not None:
            self.reusable = line.reuse
            if self.sock is not None:  # a kept connection
                line.transfer.watch_socket(self.sock.fileno())
                self.sock.settimeout(SEND_GAP_S)
        self._head = b""
        try:
            super().request(*args, **kwargs)  # type: ignore[misc]  # a mix-in of urllib3's connections
        finally:
            head, self._head = self._head, None
        if head:  # a request without a body
            self.send(head)

    def send(self, data: Any) -> None:
        """Send a head together with a small body, as one packet: http.client would send each by itself."""
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
        """Connect to the first address that answers, all within one timeout, if its peer may be used."""
        line = current_request.line
        deadline = time.monotonic() + float(self.timeout or SEND_GAP_S)
        problem: OSError = OSError("the name has no addresses")
        addresses = self._addresses(deadline)
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            if line is not None and line.public_only and not is_public(str(address[0])):
                line.transfer.mark_unsent()
                raise DownloadBlockedError(f"{self.host} is not fetched: {NOT_PUBLIC}")
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                if line is not None:
                    line.transfer.watch_socket(sock.fileno())
                # An address that does not answer leaves time for the next one.
                left_s = (deadline - time.monotonic()) / (len(addresses) - number)
                sock.settimeout(max(0.001, left_s))
                sock.connect(address)
                return sock
            except OSError as error:
                sock.close()
                problem = error
        raise NewConnectionError(cast(Any, self), f"no connection to {self.host}: {problem}")

    def _addresses(self, deadline: float) -> list[Any]:
        """Look the host up, in a thread where that may block: the resolver has no timeout of its own."""
        host = self._dns_host.strip("[]")
        try:
            socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
            return socket.getaddrinfo(host, self.port, type=socket.SOCK_STREAM)
        except OSError:
            found: list[Any] = []

        def look_up() -> None:
            try:
                found.append(socket.getaddrinfo(host, self.port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                found.append(error)

        thread = threading.Thread(target=look_up, name="imgkit-resolver", daemon=True)
        thread.start()
        thread.join(max(0.001, deadline - time.monotonic()))
        answer = found[0] if found else socket.gaierror(socket.EAI_AGAIN, "the name server does not answer")
        if isinstance(answer, Exception):
            raise NameResolutionError(
                self.host,
                cast(Any, self),
                answer if isinstance(answer, socket.gaierror) else socket.gaierror(str(answer)),
            )
        return cast("list[Any]", answer)


class _GuardedHttp(_Guarded, _HTTP):  # type: ignore[misc,valid-type]  # the base is found at run time
    """A plain connection."""


class _GuardedHttps(_Guarded, _HTTPS):  # type: ignore[misc,valid-type]  # the base is found at run time
    """A TLS connection."""


class _PoolMixin:
    """Keeps no connection open that is not to be used again, whatever the server thinks of it."""

    def urlopen(self, *args: Any, **kwargs: Any) -> Any:
        # Now and then vcrpy puts urllib3's classes back for a moment, and for all threads: a request that
        # another thread makes just then would reach the network. So under it they go one at a time.
        recorded = hasattr(urllib3.HTTPConnectionPool._get_conn, "__wrapped__")
        with _recorder_lock if recorded else nullcontext():
            return super().urlopen(*args, **kwargs)  # type: ignore[misc]  # a mix-in of urllib3's pools

    def _put_conn(self, conn: Any) -> None:
        if not getattr(conn, "reusable", True):
            conn.close()  # it connects anew when it is taken from the pool
        super()._put_conn(conn)  # type: ignore[misc]  # a mix-in of urllib3's pools


class _HttpPool(_PoolMixin, urllib3.HTTPConnectionPool):
    """Makes guarded connections, except while a recorder (vcrpy) has put its own in urllib3's place."""

    @property
    def ConnectionCls(self) -> Any:  # type: ignore[override]  # noqa: N802 - urllib3's name
        usual = urllib3.HTTPConnectionPool.ConnectionCls
        return _GuardedHttp if usual is _HTTP else usual


class _HttpsPool(_PoolMixin, urllib3.HTTPSConnectionPool):
    """The same over TLS."""

    @property
    def ConnectionCls(self) -> Any:  # type: ignore[override]  # noqa: N802 - urllib3's name
        usual = urllib3.HTTPSConnectionPool.ConnectionCls
        return _GuardedHttps if usual is _HTTPS else usual


class _NoQueries(logging.Filter):
    """Keeps signed URLs out of urllib3's log while it fetches for us."""

    def filter(self, record: logging.LogRecord) -> bool:
        if current_request.line is not None:
            record.msg, record.args = scrub(re.sub(r"\?[^\s\"]*", "?…", record.getMessage()), limit=2000), ()
        return True


for _name in ("urllib3.connectionpool", "urllib3.connection"):
    logging.getLogger(_name).addFilter(_NoQueries())

POOLS: dict[str, Any] = {"http": _HttpPool, "https": _HttpsPool}
"""What urllib3 makes connections with, by scheme."""
