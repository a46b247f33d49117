"""The `requests` backend.

It uses requests' adapter and urllib3's pools, and takes over what they leave to chance: every
connection is known (so a deadline can end it, a forked child can drop it, its peer can be judged
before a byte is sent), and a failure to connect is kept apart from everything that follows.
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
from urllib3.exceptions import HTTPError
from urllib3.util import Retry, Timeout

from imgkit.backends.connections import POOLS, RequestContext, current_request, sockets
from imgkit.backends.sockets import close_descriptors, tls_context
from imgkit.wire.messages import BackendOptions, Head, HttpRequest, Reply, whole_or_blocks
from imgkit.wire.transfer import Transfer

READ_BYTES = 64 * 1024
"""Most that is read at once. From twice as much on, memory allocators give each block back to the system, and
fault its pages in anew for the next one: a third more CPU for a large reply."""


class RequestsBackend:
    """Sends with requests; see `imgkit.wire.messages.Backend`.

    Args:
        options: see `imgkit.wire.messages.BackendOptions`.
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
        """See `imgkit.wire.messages.Backend.open`."""
        prepared = requests.PreparedRequest()
        prepared.method = request.method
        prepared.url = request.url
        prepared.headers = cast(Any, self._headers(request))
        # requests' stubs know no iterable with a length, which it sends block by block.
        prepared.body = cast(Any, whole_or_blocks(request.body)) if request.method == "POST" else None
        proxy = None if request.public_peer_only else self._options.proxy
        current_request.line = RequestContext(
            transfer, request.public_peer_only, self._options.reuse_connections
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
            current_request.line = None
        return _RequestsReply(response)

    def _headers(self, request: HttpRequest) -> dict[str, str]:
        headers = _Headers(request.wire_headers())
        headers.setdefault("user-agent", "imgkit")
        if not self._options.reuse_connections:
            headers["connection"] = "close"
        return headers

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
            close_descriptors(sockets)
            _abandoned.append(self._adapter)
            self._adapter = None

    def _get_adapter(self) -> _Adapter:
        with self._lock:
            if self._adapter is None:
                self._adapter = _Adapter(self._options)
            return self._adapter


class _Headers(dict[str, str]):
    """Headers by lower-case name, as requests' adapter takes them; its own kind costs ten times as much."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(str(name).lower())


class _RequestsReply:
    def __init__(self, response: requests.Response) -> None:
        self._response = response
        self._raw = response.raw
        headers = {name.lower(): value for name, value in response.headers.items()}
        self.head = Head(response.status_code, headers)
        # Where it is to decode, urllib3 copies even what is not encoded.
        self._raw.decode_content = "content-encoding" in headers

    def read(self) -> bytes:
        # read1 returns what is there; read would wait until the whole buffer is full.
        chunk: bytes = self._raw.read1(READ_BYTES)
        if not chunk:
            self._raw.release_conn()
        return chunk

    def close(self) -> None:
        self._raw.close()
        self._raw.release_conn()


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
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, ssl_context=tls_context(self._ca), **kwargs)
        manager.pool_classes_by_scheme = POOLS
        return manager

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        """Leave the TLS settings to the context, which is made for the first connection that needs it.

        requests would change the caller's own one.
        """
        host = _host_of(request.url)
        return host, {"ssl_context": tls_context(self._ca)} if host["scheme"] == "https" else {}

    def get_connection_with_tls_context(
        self, request: Any, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """Return the pool for the request; without proxies there is none to choose for it."""
        if proxies:
            return super().get_connection_with_tls_context(request, verify, proxies, cert)
        host, more = self.build_connection_pool_key_attributes(request, verify, cert)
        return self.poolmanager.connection_from_host(**host, pool_kwargs=more)

    def request_url(self, request: Any, proxies: Any) -> str:
        """Return the target of the request."""
        return super().request_url(request, proxies) if proxies else _path_of(request.url)

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


@lru_cache(maxsize=64)
def _path_of(url: str) -> str:
    """Return path and query as they stand in a request."""
    parts = urlsplit(url)
    return f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
