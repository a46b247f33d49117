"""The `requests` backend.

It uses requests' adapter and urllib3's pools, and takes over what they leave to chance: every
connection is known (so a deadline can end it, a forked child can drop it, its peer can be judged
before a byte is sent), and a failure to connect is kept apart from everything that follows.
"""

from __future__ import annotations

import http.client
import logging
import re
import socket
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import nullcontext
from functools import lru_cache
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import urlsplit

import requests
import requests.adapters
import urllib3
import urllib3.connection
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError
from urllib3.util import Retry, Timeout

from imgkit.backends.sockets import close_descriptors, tls_context
from imgkit.errors import DownloadBlockedError
from imgkit.peers import NOT_PUBLIC, is_public
from imgkit.redact import scrub
from imgkit.transfer import Transfer
from imgkit.wire import BackendOptions, Head, HttpRequest, Reply, whole_or_blocks

READ_BYTES = 256 * 1024
INTERIM = frozenset(range(102, 200))
SEND_GAP_S = 30.0
"""Seconds that one block of an upload may take; urllib3 would apply the connect timeout."""


class RequestsBackend:
    """Sends with requests; see `imgkit.wire.Backend`.

    Args:
        options: see `imgkit.wire.BackendOptions`.
    """

    errors = (requests.RequestException, HTTPError, OSError, http.client.HTTPException)
    unsent_errors = ()
    checks_peer = True

    def __init__(self, options: BackendOptions) -> None:
        options.refuse_unknown("requests")
        self._options = options
        self._lock = threading.Lock()
        self._adapter: _Adapter | None = None

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        """See `imgkit.wire.Backend.open`."""
        prepared = requests.PreparedRequest()
        prepared.method = request.method
        prepared.url = request.url
        prepared.headers = CaseInsensitiveDict(request.wire_headers())
        prepared.headers.setdefault("user-agent", "imgkit")
        if not self._options.reuse_connections:
            prepared.headers["connection"] = "close"
        # requests' stubs know no iterable with a length, which it sends block by block.
        prepared.body = cast(Any, whole_or_blocks(request.body)) if request.method == "POST" else None
        proxy = None if request.public_peer_only else self._options.proxy
        _current.line = _Line(transfer, request.public_peer_only, self._options.reuse_connections)
        try:
            response = self._get_adapter().send(
                prepared,
                stream=True,
                timeout=cast(
                    Any, Timeout(connect=transfer.connect_timeout_s(), read=transfer.read_timeout_s)
                ),
                proxies={"http": proxy, "https": proxy} if proxy else {},
            )
        finally:
            _current.line = None
        return _RequestsReply(response)

    def close(self) -> None:
        """Close every connection. Idempotent."""
        with self._lock:
            adapter, self._adapter = self._adapter, None
        if adapter is not None:
            adapter.close()

    def after_fork(self) -> None:
        """In a forked child: close the inherited descriptors, and nothing more."""
        self._lock = threading.Lock()
        if self._adapter is not None:
            close_descriptors(_sockets)
            _abandoned.append(self._adapter)
            self._adapter = None

    def _get_adapter(self) -> _Adapter:
        with self._lock:
            if self._adapter is None:
                self._adapter = _Adapter(self._options)
            return self._adapter


class _RequestsReply:
    def __init__(self, response: requests.Response) -> None:
        self._response = response
        self._raw = response.raw
        self._raw.decode_content = True
        headers = {name.lower(): value for name, value in response.headers.items()}
        self.head = Head(response.status_code, headers)

    def read(self) -> bytes:
        # read1 returns what is there; read would wait until the whole buffer is full.
        chunk: bytes = self._raw.read1(READ_BYTES)
        if not chunk:
            self._raw.release_conn()
        return chunk

    def close(self) -> None:
        self._raw.close()
        self._raw.release_conn()


class _Line:
    """What a connection must know of the request that it carries."""

    def __init__(self, transfer: Transfer, public_only: bool, reuse: bool) -> None:
        self.transfer = transfer
        self.public_only = public_only
        self.reuse = reuse


class _Current(threading.local):
    """The request that this thread is sending: urllib3 makes connections in the thread that uses them."""

    line: _Line | None = None


_current = _Current()
_recorder_lock = threading.RLock()
_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
_abandoned: list[object] = []


class _Adapter(requests.adapters.HTTPAdapter):
    """requests' adapter over connections of our own; it repeats nothing."""

    def __init__(self, options: BackendOptions) -> None:
        self._ca = options.ca
        if options.ca is not None:  # what is wrong with it is told now
            tls_context(options.ca)
        super().__init__(
            pool_connections=8, pool_maxsize=options.max_in_flight, max_retries=Retry(0, read=False)
        )

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, ssl_context=tls_context(self._ca), **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        """Leave the TLS settings to the context, which is made for the first connection that needs it.

        requests would change the caller's own one.
        """
        host = _host_of(request.url)
        return host, {"ssl_context": tls_context(self._ca)} if host["scheme"] == "https" else {}

    def request_url(self, request: Any, proxies: Any) -> str:
        """Return the target of the request; without proxies there is nothing to find out for it."""
        return super().request_url(request, proxies) if proxies else cast(str, request.path_url)

    def build_response(self, req: Any, resp: Any) -> requests.Response:
        """Return the reply without what we never look at: cookies, encoding, headers in another order."""
        response = requests.Response()
        response.status_code = resp.status
        response.headers = resp.headers
        response.raw = resp
        response.request = req
        return response

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Leave the context as it is: requests would load certifi's bundle into it on each request."""


@lru_cache(maxsize=64)
def _host_of(url: str) -> Mapping[str, Any]:
    """Return scheme, host and port as urllib3's pools take them."""
    parts = urlsplit(url)
    return MappingProxyType(
        {"scheme": parts.scheme.lower(), "host": parts.hostname or "", "port": parts.port}
    )


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

    def connect(self) -> None:
        line = _current.line
        try:
            super().connect()  # type: ignore[misc]  # a mix-in of urllib3's connections
        except BaseException:
            if line is not None:
                line.transfer.mark_unsent()
            raise
        _sockets.add(self.sock)
        self.sock.settimeout(SEND_GAP_S)

    def request(self, *args: Any, **kwargs: Any) -> None:
        line = _current.line
        if line is not None:
            self.reusable = line.reuse
            if self.sock is not None:  # a kept connection
                line.transfer.watch_socket(self.sock.fileno())
                self.sock.settimeout(SEND_GAP_S)
        super().request(*args, **kwargs)  # type: ignore[misc]  # a mix-in of urllib3's connections

    def _new_conn(self) -> socket.socket:
        """Connect to the first address that answers, all within one timeout, if its peer may be used."""
        line = _current.line
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
        if _current.line is not None:
            record.msg, record.args = scrub(re.sub(r"\?[^\s\"]*", "?…", record.getMessage()), limit=2000), ()
        return True


for _name in ("urllib3.connectionpool", "urllib3.connection"):
    logging.getLogger(_name).addFilter(_NoQueries())

_POOLS = {"http": _HttpPool, "https": _HttpsPool}
