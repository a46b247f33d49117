"""Backends over httpx.

They use the transports of httpx without its client: no cookies, no redirects, no environment settings.
"""

import asyncio
from functools import partial

import httpx

from imgkit import hookimpl
from imgkit.backends import CAPABILITIES, Head, tls_context, whole_or_blocks
from imgkit.plugins import BackendSpec


class HttpxBackend:
    """A synchronous backend."""

    wire_errors = (httpx.RequestError, httpx.InvalidURL, OSError)
    unsent_errors = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
    capabilities = frozenset(CAPABILITIES)
    is_patched_by_vcrpy = True
    transport_class = httpx.HTTPTransport

    def __init__(self, options):
        options.refuse_unknown("httpx")
        limits = httpx.Limits(max_keepalive_connections=None if options.reuse_connections else 0)
        tls = tls_context(options.ca)
        proxy = options.proxy
        if proxy and proxy.startswith("https:"):
            proxy = httpx.Proxy(proxy, ssl_context=tls)
        self.transport = self.transport_class(verify=tls, trust_env=False, limits=limits, proxy=proxy)

    def open(self, request, transfer):
        return Reply(
            self.transport.handle_request(build_request(request, transfer, partial(watch_socket, transfer)))
        )

    def close(self):
        self.transport.close()


class AsyncHttpxBackend(HttpxBackend):
    """An asynchronous backend."""

    transport_class = httpx.AsyncHTTPTransport

    async def open(self, request, transfer):
        async def trace(event, info):
            watch_socket(transfer, event, info)

        async def blocks(body):
            for block in body:
                yield block

        httpx_request = build_request(request, transfer, trace, blocks)
        return AsyncReply(await self.transport.handle_async_request(httpx_request))

    async def aclose(self):
        await self.transport.aclose()


def build_request(request, transfer, trace, blocks=iter):
    timeout = {"connect": transfer.connect_timeout_s(), "read": transfer.read_timeout_s, "write": 30.0}
    body = whole_or_blocks(request.body) if request.sends_body else b""
    content = body if isinstance(body, bytes) else blocks(body)
    options = {"headers": request.wire_headers(), "extensions": {"timeout": timeout, "trace": trace}}
    httpx_request = httpx.Request(request.method, request.url, content=content, **options)
    httpx_request.url = ExactUrl(request)
    return httpx_request


class ExactUrl(httpx.URL):
    """A URL with the bytes of its path and query: httpx rewrites them, which invalidates signed URLs."""

    def __init__(self, request):
        super().__init__(request.url)
        self.path_and_query = request.path_and_query.encode()

    @property
    def raw_path(self):
        return self.path_and_query


def watch_socket(transfer, event, info):
    # At the deadline, imgkit shuts this socket down, which ends a blocking read or write.
    if event == "connection.connect_tcp.complete":
        transfer.watch_socket(info["return_value"].get_extra_info("socket"))


class Reply:
    def __init__(self, response):
        self.head = Head(
            response.status_code, {name.lower(): text for name, text in response.headers.items()}
        )
        self.response, self.chunks = response, self.iterate_bytes(response)

    iterate_bytes = staticmethod(httpx.Response.iter_bytes)

    def read(self):
        return next(self.chunks, b"")

    def close(self):
        self.response.close()


class AsyncReply(Reply):
    iterate_bytes = staticmethod(httpx.Response.aiter_bytes)
    closing = set()

    async def read(self):
        return await anext(self.chunks, b"")

    def close(self):
        # A reply must close without waiting, so a task waits.
        task = asyncio.ensure_future(self.response.aclose())
        self.closing.add(task)
        task.add_done_callback(self.closing.discard)


@hookimpl
def imgkit_backends():
    for name, backend, flavor in (
        ("httpx", HttpxBackend, "sync"),
        ("httpx-async", AsyncHttpxBackend, "async"),
    ):
        yield BackendSpec(
            name=name, target=f"{__name__}:{backend.__name__}", flavor=flavor, summary="over httpx"
        )
