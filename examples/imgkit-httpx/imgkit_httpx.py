"""imgkit over httpx. Its transports are used without its client: no cookies, no redirects, no environment."""

import asyncio
from functools import partial

import httpx

from imgkit import hookimpl
from imgkit.backends.sockets import tls_context
from imgkit.plugins.hookspecs import BackendSpec
from imgkit.wire.messages import Head, whole_or_blocks


class HttpxBackend:
    errors = (httpx.RequestError, httpx.InvalidURL, OSError)
    unsent_errors = (httpx.ConnectError, httpx.ConnectTimeout)
    kind = httpx.HTTPTransport

    def __init__(self, options):
        options.refuse_unknown("httpx")
        limits = httpx.Limits(max_keepalive_connections=None if options.reuse_connections else 0)
        tls = tls_context(options.ca)
        self.transport = self.kind(verify=tls, trust_env=False, limits=limits, proxy=options.proxy)

    def open(self, request, transfer):
        return Reply(self.transport.handle_request(prepare(request, transfer, partial(watch, transfer))))

    def close(self):
        self.transport.close()


class AsyncHttpxBackend(HttpxBackend):
    kind = httpx.AsyncHTTPTransport

    async def open(self, request, transfer):
        async def trace(event, info):
            watch(transfer, event, info)

        async def blocks(body):
            for block in body:
                yield block

        prepared = prepare(request, transfer, trace, blocks)
        return AsyncReply(await self.transport.handle_async_request(prepared))

    async def aclose(self):
        await self.transport.aclose()


def prepare(request, transfer, trace, blocks=iter):
    wait = {"connect": transfer.connect_timeout_s(), "read": transfer.read_timeout_s, "write": 30.0}
    body = whole_or_blocks(request.body)
    content = body if isinstance(body, bytes) else blocks(body)
    about = {"headers": request.wire_headers(), "extensions": {"timeout": wait, "trace": trace}}
    return httpx.Request(request.method, request.url, content=content, **about)


def watch(transfer, event, info):  # so that the deadline can end whatever blocks
    if event == "connection.connect_tcp.complete":
        transfer.watch_socket(info["return_value"].get_extra_info("socket").fileno())


class Reply:
    def __init__(self, response):
        self.head = Head(
            response.status_code, {name.lower(): text for name, text in response.headers.items()}
        )
        self.response, self.chunks = response, self.iterate(response)

    iterate = staticmethod(httpx.Response.iter_bytes)

    def read(self):
        return next(self.chunks, b"")

    def close(self):
        self.response.close()


class AsyncReply(Reply):
    iterate = staticmethod(httpx.Response.aiter_bytes)
    closing = set()

    async def read(self):
        return await anext(self.chunks, b"")

    def close(self):  # must not wait, so a task does
        task = asyncio.ensure_future(self.response.aclose())
        self.closing.add(task)
        task.add_done_callback(self.closing.discard)


@hookimpl
def imgkit_backends():
    for name, kind, flavor in (("httpx", HttpxBackend, "sync"), ("httpx-async", AsyncHttpxBackend, "async")):
        yield BackendSpec(
            name=name, target=f"{__name__}:{kind.__name__}", flavor=flavor, summary="with httpx"
        )
