"""The `requests` backend: HTTP with requests' adapter on top of watched urllib3 connections.

requests and urllib3 leave three things to chance, which this backend controls. Every connection is
known, so that a deadline can end it and a forked child can drop it. A peer is checked before a byte
is sent. A failure to connect is distinguished from every later failure.

None of that holds for urllib3-future. Where it has replaced urllib3, http.client sends the requests
(`imgkit.backends.plain_http`).
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import urlsplit

import requests
import requests.adapters
from urllib3 import ProxyManager
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import HTTPError
from urllib3.util import Retry, Timeout

from imgkit.backends.connections import (
    POOL_CLASSES,
    USES_HTTP_CLIENT,
    RequestContext,
    current_request,
    has_own_connections,
)
from imgkit.backends.dialing import open_sockets
from imgkit.backends.sockets import close_inherited_sockets, tls_context
from imgkit.redact import HiddenDict
from imgkit.wire.capabilities import CAPABILITIES
from imgkit.wire.messages import (
    Backend,
    BackendOptions,
    ForkAware,
    Head,
    HttpRequest,
    Reply,
    whole_or_blocks,
)
from imgkit.wire.transfer import Transfer
from imgkit.wire.urls import path_and_query

READ_BYTES = 64 * 1024
"""Maximum bytes per read. At twice this size, memory allocators return each block to the system
and fault its pages in again, which costs a third more CPU for a large response.
"""


class RequestsBackend:
    """A `Backend` that sends with requests; see `imgkit.wire.messages.Backend`.

    Args:
        options: connection settings; this backend has no ``client_options``.

    Raises:
        ConfigurationError: a client option is unknown.

    Example:
        >>> from imgkit import ImageService
        >>> with ImageService(backend="requests", api_key="sk-example", reuse_connections=True):
        ...     pass
    """

    wire_errors: tuple[type[Exception], ...] = (
        requests.RequestException,
        HTTPError,
        OSError,
        http.client.HTTPException,
    )
    unsent_errors: tuple[type[Exception], ...] = ()
    capabilities = frozenset(CAPABILITIES) - (frozenset() if USES_HTTP_CLIENT else {"https proxy"})
    checks_peer = True
    is_patched_by_vcrpy = USES_HTTP_CLIENT

    @property
    def marks_leaving(self) -> bool:
        """Whether the connections are those of imgkit, which mark a transfer before a request leaves."""
        return not USES_HTTP_CLIENT or has_own_connections()

    def __init__(self, options: BackendOptions) -> None:
        options.refuse_unknown("requests")
        # Report an unusable `ca` now, not at the first connection.
        if options.ca is not None:
            tls_context(options.ca)
        self._options = options
        self._lock = threading.Lock()
        self._adapter: _Adapter | None = None
        self._plain: Backend | None = None

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        """Send a request and return the open response; see `imgkit.wire.messages.Backend.open`."""
        if not USES_HTTP_CLIENT:
            return self._get_plain_backend().open(request, transfer)
        prepared = requests.PreparedRequest()
        prepared.method = request.method
        prepared.url = request.url
        prepared.headers = cast(Any, self._build_headers(request))
        # requests sends an iterable with a length block by block, but its stubs do not say so.
        prepared.body = cast(Any, whole_or_blocks(request.body)) if request.sends_body else None
        proxy = None if request.public_peer_only else self._options.proxy
        # A proxy gets the whole URL, unless TLS tunnels through it.
        is_forwarded = proxy is not None and request.url[:5].lower() == "http:"
        current_request.context = RequestContext(
            transfer,
            request.public_peer_only,
            self._options.reuse_connections,
            request.url.partition("#")[0] if is_forwarded else request.path_and_query,
        )
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
            current_request.context = None
        return _RequestsReply(response)

    def _build_headers(self, request: HttpRequest) -> dict[str, str]:
        headers = _LowerCaseHeaders(request.wire_headers())
        headers.setdefault("user-agent", "imgkit")
        if not self._options.reuse_connections:
            headers["connection"] = "close"
        return headers

    def close(self) -> None:
        """Close every connection. Idempotent."""
        with self._lock:
            adapter, self._adapter = self._adapter, None
            plain, self._plain = self._plain, None
        if adapter is not None:
            adapter.close()
        if plain is not None:
            plain.close()

    def after_fork(self) -> None:
        """Close the inherited descriptors in a forked child, without a word to their peers."""
        self._lock = threading.Lock()
        if isinstance(self._plain, ForkAware):
            self._plain.after_fork()
        if self._adapter is not None:
            close_inherited_sockets(open_sockets)
            _abandoned_adapters.append(self._adapter)
            self._adapter = None

    def _get_plain_backend(self) -> Backend:
        from imgkit.backends.plain_http import PlainHttpBackend

        with self._lock:
            if self._plain is None:
                self._plain = PlainHttpBackend(self._options)
            return self._plain

    def _get_adapter(self) -> _Adapter:
        with self._lock:
            if self._adapter is None:
                self._adapter = _Adapter(self._options)
            return self._adapter


class _LowerCaseHeaders(HiddenDict):
    """Headers by lower-case name for requests' adapter; requests' own class is ten times slower."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(str(name).lower())


class _RequestsReply:
    """An open response of requests; see `imgkit.wire.messages.Reply`."""

    def __init__(self, response: requests.Response) -> None:
        self._response = response
        self._raw = response.raw
        headers = {name.lower(): value for name, value in response.headers.items()}
        self.head = Head(response.status_code, headers)
        # When decoding is enabled, urllib3 copies even bodies without an encoding.
        self._raw.decode_content = "content-encoding" in headers

    def read(self) -> bytes:
        # read1 returns the available bytes; read would wait until its buffer is full.
        """Return the next chunk as soon as it arrives; b"" at the end."""
        chunk: bytes = self._raw.read1(READ_BYTES)
        return chunk

    def close(self) -> None:
        """Discard the rest of the response and close its connection."""
        self._raw.close()
        self._raw.release_conn()


MAX_IDLE_CONNECTIONS = 1024
"""Largest number of connections that a pool keeps."""

_abandoned_adapters: list[object] = []
"""Adapters of the parent process, kept alive so that a forked child does not close their connections."""


class _Adapter(requests.adapters.HTTPAdapter):
    """requests' adapter on top of watched connections; it never retries."""

    def __init__(self, options: BackendOptions) -> None:
        self._ca = options.ca
        # urllib3 fills a queue of this size for each host. Connections beyond it are closed after use.
        idle = min(options.max_in_flight, MAX_IDLE_CONNECTIONS)
        super().__init__(pool_connections=8, pool_maxsize=idle, max_retries=Retry(0, read=False))

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOL_CLASSES

    def proxy_manager_for(self, proxy: str, **kwargs: object) -> ProxyManager:
        # Without settings for the proxy itself, urllib3 trusts SSL_CERT_FILE.
        tls = self._build_tls_options()
        proxy_tls = {f"proxy_{name}": value for name, value in tls.items()}
        manager: ProxyManager = super().proxy_manager_for(proxy, **tls, **proxy_tls, **kwargs)
        manager.pool_classes_by_scheme = POOL_CLASSES
        return manager

    def close(self) -> None:
        """Close the idle connections. urllib3 leaves that to the garbage collector."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - urllib3's container is no mapping
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
        super().close()

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: object, cert: object = None
    ) -> Any:
        """Return host and TLS context of a request, and leave the caller's context unchanged.

        The context is created for the first HTTPS connection.
        """
        host = _parse_host(request.url)
        return host, self._build_tls_options() if host["scheme"] == "https" else {}

    def _build_tls_options(self) -> dict[str, object]:
        """Return the TLS context, and whether host names count: urllib3 checks them by itself otherwise."""
        context = tls_context(self._ca)
        unchecked = {} if context.check_hostname else {"assert_hostname": False}
        return {"ssl_context": context, **unchecked}

    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,
        verify: bool | str | None,
        proxies: Mapping[str, str] | None = None,
        cert: tuple[str, str] | str | None = None,
    ) -> ConnectionPool:
        """Return the connection pool for a request."""
        if proxies:
            return super().get_connection_with_tls_context(request, verify, proxies, cert)
        host, pool_options = self.build_connection_pool_key_attributes(request, verify, cert)
        pool: ConnectionPool = self.poolmanager.connection_from_host(**host, pool_kwargs=pool_options)
        return pool

    def request_url(self, request: requests.PreparedRequest, proxies: Mapping[str, str] | None) -> str:
        """Return path and query; `RequestContext.request_line_url` replaces them when they are sent."""
        return super().request_url(request, proxies) if proxies else path_and_query(str(request.url))

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        """Build the response without unused parts: cookies, encoding, sorted headers."""
        response = requests.Response()
        response.status_code = resp.status
        response.headers = resp.headers
        response.raw = resp
        response.request = req
        return response

    def cert_verify(self, conn: object, url: object, verify: object, cert: object) -> None:
        """Leave the TLS context unchanged; requests would load certifi's bundle on each request."""


@lru_cache(maxsize=64)
def _parse_host(url: str) -> Mapping[str, object]:
    """Return scheme, host and port of a URL for urllib3's pools."""
    parts = urlsplit(url)
    return MappingProxyType(
        {"scheme": parts.scheme.lower(), "host": parts.hostname or "", "port": parts.port}
    )
