"""A bare proxy with aiohttp: it forwards requests and replies as they are, in blocks."""

from __future__ import annotations

import asyncio
import sys

import aiohttp
from aiohttp import web

_HOP_HEADERS = ("host", "connection", "keep-alive", "transfer-encoding", "content-length", "expect")
_MAX_BYTES = 1 << 30


async def _serve(origin: str) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            headers = {
                name: text for name, text in request.headers.items() if name.lower() not in _HOP_HEADERS
            }
            if request.content_length is not None:
                headers["content-length"] = str(request.content_length)
            url, body = origin + request.path_qs, request.content.iter_any()
            async with session.request(request.method, url, headers=headers, data=body) as reply:
                names = {
                    name: text for name, text in reply.headers.items() if name.lower() not in _HOP_HEADERS
                }
                response = web.StreamResponse(status=reply.status, headers=names)
                response.content_length = reply.content_length
                await response.prepare(request)
                async for block in reply.content.iter_any():
                    await response.write(block)
                await response.write_eof()
                return response

        app = web.Application(client_max_size=_MAX_BYTES)
        app.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        host, port = runner.addresses[0][:2]
        print(f"http://{host}:{port}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
