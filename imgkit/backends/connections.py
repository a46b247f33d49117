"""Watched connections for urllib3: a deadline can end them, and their peer is checked first.

`current_request` holds the context of the request that a thread is sending.
"""

from __future__ import annotations

import logging
import math
import re
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, cast

import urllib3
import urllib3.connection
from urllib3.exceptions import NameResolutionError, NewConnectionError

from imgkit.backends.dialing import SEND_GAP_S, SinglePacketMixin, StrictResponse, dial, open_sockets
from imgkit.backends.sockets import REUSE_S, has_input, may_carry_more
from imgkit.redact import scrub
from imgkit.wire.transfer import Transfer


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


current_request = _CurrentRequest()
_recorder_lock = threading.RLock()


def _find_original_class(subclass: type) -> Any:
    """Return urllib3's own class, even while a recorder has replaced it by a subclass."""
    return next(base for base in subclass.__mro__ if base.__module__ == "urllib3.connection")


_HTTP = _find_original_class(urllib3.connection.HTTPConnection)
_HTTPS = _find_original_class(urllib3.connection.HTTPSConnection)

USES_HTTP_CLIENT = any(base.__module__ == "http.client" for base in _HTTP.__mro__)
"""False if urllib3-future, which comes with niquests, has replaced urllib3.

Its connections are not those of http.client, and may repeat requests and change their protocol.
"""


class _ConnectionMixin(SinglePacketMixin):
    """The additions to urllib3's connections, for HTTP and HTTPS alike."""

    response_class = StrictResponse
    sock: Any
    _dns_host: str
    host: str
    port: int
    timeout: float | None
    socket_options: Sequence[tuple[int, int, int | bytes]] | None
    reusable = True

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
        super().request(*args, **kwargs)

    def getresponse(self, *args: object, **kwargs: object) -> Any:
        """Return the response, and let the connection end with it unless it may carry another request."""
        response = super().getresponse(*args, **kwargs)  # type: ignore[misc]  # a mix-in of urllib3's connections
        self.reusable = self.reusable and may_carry_more(response.status)
        return response

    def _new_conn(self) -> socket.socket:
        """Connect to the first address that accepts, within a single timeout.

        Raises:
            DownloadBlockedError: the request requires a public peer, and an address is not public.
            NameResolutionError: the name is unknown, or the name server did not answer in time.
            NewConnectionError: no address accepted.
        """
        context = current_request.context
        transfer, public_only = (None, False) if context is None else (context.transfer, context.public_only)
        timeout_s = float(self.timeout or SEND_GAP_S)
        try:
            return dial(
                self._dns_host.strip("[]"),
                self.port,
                timeout_s,
                transfer,
                public_only=public_only,
                options=self.socket_options or (),
            )
        except socket.gaierror as error:
            # The cause tells an unknown name, which is permanent, from a name server that is down.
            raise NameResolutionError(self.host, cast(Any, self), error) from error
        except OSError as error:
            raise NewConnectionError(cast(Any, self), f"No connection to {self.host}: {error}") from error


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

    def _get_conn(self, timeout: float | None = None) -> Any:
        """Take a connection from the pool, closed if it has input or its server may close it soon."""
        conn = super()._get_conn(timeout)  # type: ignore[misc]  # a mix-in of urllib3's pools
        is_old = time.monotonic() - getattr(conn, "idle_since", math.inf) >= REUSE_S
        sock = getattr(conn, "sock", None)
        # urllib3 looks for input in the kernel only, not for bytes that TLS has decrypted.
        has_rest = isinstance(sock, ssl.SSLSocket) and has_input(sock)
        if is_old or has_rest:
            conn.close()  # the pool reconnects it
        return conn

    def _put_conn(self, conn: Any) -> None:
        """Return a connection to the pool, closed if it is not reusable."""
        if not getattr(conn, "reusable", True):
            conn.close()  # the pool reconnects it on its next use
        if conn is not None:  # urllib3 puts None back for a connection that failed
            conn.idle_since = time.monotonic()
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


class _LogFilter(logging.Filter):
    """Removes from urllib3's log records what may grant access, for the request of this thread.

    These are queries, the paths of downloads, and the lines of a broken head, which may repeat a key.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if current_request.context is not None:
            text = record.getMessage().partition(", unparsed data:")[0]
            text = re.sub(r'"GET \S+', '"GET …', re.sub(r"\?[^\s\"]*", "?…", text))
            record.msg, record.args, record.exc_info = scrub(text, limit=2000), (), None
        return True


for _name in ("urllib3.connectionpool", "urllib3.connection"):
    logging.getLogger(_name).addFilter(_LogFilter())


def has_own_connections() -> bool:
    """Return whether pools use the connections of this module: no recorder has replaced urllib3's."""
    pools = (urllib3.HTTPConnectionPool, urllib3.HTTPSConnectionPool)
    return [pool.ConnectionCls for pool in pools] == [_HTTP, _HTTPS]


POOL_CLASSES: dict[str, type[urllib3.HTTPConnectionPool]] = {"http": _HttpPool, "https": _HttpsPool}
"""urllib3's pool classes, by scheme."""
