"""HTTP/1.1 with the standard library: the `requests` backend uses it if urllib3-future replaces urllib3.

urllib3-future, which comes with niquests, installs its own code under the name urllib3. That code may
speak HTTP/2 and send a request again, so no paid request goes through it.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

from imgkit.backends.dialing import SEND_GAP_S, SinglePacketMixin, StrictResponse, dial, open_sockets
from imgkit.backends.sockets import (
    REUSE_S,
    close_inherited_sockets,
    has_input,
    may_carry_more,
    proxy_authorization,
    tls_context,
)
from imgkit.errors import ConfigurationError
from imgkit.wire.capabilities import CAPABILITIES
from imgkit.wire.decoding import ContentDecoder
from imgkit.wire.messages import BackendOptions, Head, HttpRequest, Reply, whole_or_blocks
from imgkit.wire.transfer import Transfer
from imgkit.wire.urls import origin

READ_BYTES = 64 * 1024
"""Maximum bytes per read."""

_Place = tuple[str, str, int, bool]
"""Scheme, host, port, and whether the peer must be public."""


if http.client.HTTPConnection.__module__ != "http.client":
    # The classes below would record into its cassette for ever.
    raise ConfigurationError(
        "A recorder such as vcrpy is active, and urllib3-future has replaced urllib3. Close the cassette "
        "before the first request, or uninstall niquests and urllib3-future and reinstall urllib3."
    )


class PlainHttpBackend:
    """A `Backend` that sends with http.client; see `imgkit.wire.messages.Backend`.

    Args:
        options: connection settings; no ``client_options`` exist.
    """

    wire_errors: tuple[type[Exception], ...] = (OSError, http.client.HTTPException)
    unsent_errors: tuple[type[Exception], ...] = ()
    # TLS within TLS needs more than the standard library has.
    capabilities = frozenset(CAPABILITIES) - {"https proxy"}
    checks_peer = True
    marks_leaving = True

    def __init__(self, options: BackendOptions) -> None:
        options.refuse_unknown("requests")
        self._options = options
        self._lock = threading.Lock()
        self._idle: dict[_Place, list[tuple[_Connection, float]]] = defaultdict(list)

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        """Send a request and return the open response; see `imgkit.wire.messages.Backend.open`."""
        place = (*origin(request.url), request.public_peer_only)
        connection = self._take_idle(place)
        try:
            if connection is None:
                connection = self._connect(request, transfer)
            else:
                transfer.mark_sent()
                transfer.watch_socket(connection.sock)
            response = self._send(connection, request, transfer)
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        give_back = partial(self._give_back, place, connection) if self._options.reuse_connections else None
        return _PlainReply(response, connection, give_back)

    def close(self) -> None:
        """Close every idle connection. Idempotent."""
        with self._lock:
            idle, self._idle = self._idle, defaultdict(list)
        for connections in idle.values():
            for connection, _ in connections:
                connection.close()

    def after_fork(self) -> None:
        """Close the inherited descriptors in a forked child, without a word to their peers."""
        self._lock = threading.Lock()
        close_inherited_sockets(open_sockets)
        self._idle = defaultdict(list)

    def _connect(self, request: HttpRequest, transfer: Transfer) -> _Connection:
        """Return a new connection. A failure proves that no byte of the request has left."""
        proxy = None if request.public_peer_only else self._options.proxy
        connection = self._build_connection(request, proxy, transfer.connect_timeout_s())

        def connect_socket(address: tuple[str, int], timeout_s: float, source: object) -> socket.socket:
            return dial(*address, timeout_s, transfer, public_only=request.public_peer_only)

        # http.client then tunnels and wraps the socket in TLS by itself.
        connection._create_connection = connect_socket
        transfer.mark_unsent()
        try:
            connection.connect()
            transfer.mark_sent()
        except BaseException:
            connection.close()
            raise
        open_sockets.add(connection.sock)
        return connection

    def _build_connection(self, request: HttpRequest, proxy: str | None, timeout_s: float) -> _Connection:
        server = urlsplit(request.url)
        peer = urlsplit(proxy) if proxy else server
        host, port = str(peer.hostname), peer.port or (443 if peer.scheme == "https" else 80)
        if server.scheme != "https":
            return _HttpConnection(host, port, timeout=timeout_s)
        connection = _HttpsConnection(host, port, timeout=timeout_s, context=tls_context(self._options.ca))
        if proxy:
            connection.set_tunnel(str(server.hostname), server.port or 443, proxy_authorization(proxy))
        return connection

    def _send(
        self, connection: _Connection, request: HttpRequest, transfer: Transfer
    ) -> http.client.HTTPResponse:
        headers = request.wire_headers()
        headers.setdefault("user-agent", "imgkit")
        if not self._options.reuse_connections:
            headers["connection"] = "close"
        target = request.path_and_query
        is_forwarded = not request.public_peer_only and origin(request.url)[0] == "http"
        if self._options.proxy and is_forwarded:
            target = request.url.partition("#")[0]
            headers |= proxy_authorization(self._options.proxy)
        body = whole_or_blocks(request.body) if request.sends_body else None
        connection.sock.settimeout(SEND_GAP_S)
        try:
            connection.request(request.method, target, body, headers)
        except BrokenPipeError:
            pass  # the server may have replied before it hung up
        connection.sock.settimeout(transfer.read_timeout_s)
        return connection.getresponse()

    def _take_idle(self, place: _Place) -> _Connection | None:
        """Return an idle connection that its server has not closed and will not soon, None for none."""
        while True:
            with self._lock:
                if not self._idle[place]:
                    return None
                connection, since = self._idle[place].pop()
            if time.monotonic() - since < REUSE_S and not has_input(connection.sock):
                return connection
            connection.close()

    def _give_back(self, place: _Place, connection: _Connection) -> None:
        with self._lock:
            self._idle[place].append((connection, time.monotonic()))


class _PlainReply:
    """An open response of http.client; see `imgkit.wire.messages.Reply`.

    Args:
        response: the response.
        connection: its connection.
        give_back: keeps the connection for reuse at the end of the body; None closes it.
    """

    def __init__(
        self,
        response: http.client.HTTPResponse,
        connection: _Connection,
        give_back: Callable[[], None] | None,
    ) -> None:
        self._response = response
        self._connection: _Connection | None = connection
        may_reuse = not response.will_close and may_carry_more(response.status)
        self._give_back = give_back if may_reuse else None
        headers: dict[str, str] = {}
        for name, value in response.getheaders():
            name = name.lower()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self.head = Head(response.status, headers)
        self._decoder = ContentDecoder(self.head)

    def read(self) -> bytes:
        """Return the next chunk as soon as it arrives; b"" at the end."""
        while chunk := self._response.read1(READ_BYTES):
            if data := self._decoder.decode(chunk):
                return data
        if self._response.length:
            raise http.client.IncompleteRead(b"", self._response.length)
        self._decoder.finish()
        if self._give_back is not None and self._connection is not None:
            self._connection = None
            self._give_back()
        return b""

    def close(self) -> None:
        """Discard the rest of the response and close its connection."""
        self._response.close()
        if self._connection is not None:
            self._connection.close()


class _PlainMixin(SinglePacketMixin):
    """The additions to http.client's connections, for HTTP and HTTPS alike."""

    response_class: type[http.client.HTTPResponse] = StrictResponse
    _create_connection: Callable[[tuple[str, int], float, object], socket.socket]


class _HttpConnection(_PlainMixin, http.client.HTTPConnection):
    """A connection without TLS."""


class _HttpsConnection(_PlainMixin, http.client.HTTPSConnection):
    """A connection with TLS."""


_Connection = _HttpConnection | _HttpsConnection
