"""The connections of a server: aiohttp's own, with limits for clients that say nothing."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from aiohttp.web import BaseRequest, Response, StreamResponse
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from imgkit.server.envelopes import Rejection, build_rejection

HEAD_S = 10.0
"""Seconds in which the head of the first request must arrive."""

KEEPALIVE_S = 75.0
"""Seconds for which a connection between two requests stays open."""

MOST_SILENT = 500
"""Most connections without a request; the oldest end first."""


class Connection(RequestHandler):
    """A connection whose protocol errors are answered in OpenAI's envelope."""

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> StreamResponse:
        """Return the reply for a request that is no HTTP, or after a bug in a handler."""
        if request.writer.output_size > 0:
            raise ConnectionError("the reply has begun")
        text = "The request is no valid HTTP" if status == 400 else "This is a bug in imgkit"
        reply = build_rejection(Rejection(status, "invalid_http", f"{text}. Nothing was sent.", closes=True))
        response = Response(
            status=reply.status,
            body=json.dumps(reply.envelope).encode(),
            content_type="application/json",
            headers={"x-should-retry": "false"},
        )
        response.force_close()
        return response


class ConnectionServer(Server):
    """Makes connections, and ends those whose clients say nothing.

    Args:
        handler: answers requests.
    """

    def __init__(self, handler: Callable[[BaseRequest], Awaitable[StreamResponse]]) -> None:
        super().__init__(
            handler,
            handler_cancellation=True,
            keepalive_timeout=KEEPALIVE_S,
            access_log=None,
            lingering_time=2.0,
            tcp_keepalive=True,
        )
        self._silent: OrderedDict[Connection, asyncio.TimerHandle] = OrderedDict()

    def __call__(self) -> Connection:
        """Return the protocol of a new connection."""
        loop = asyncio.get_running_loop()
        connection = Connection(self, loop=loop, **self._kwargs)
        self._silent[connection] = loop.call_later(HEAD_S, self._end_silent, connection)
        while len(self._silent) > MOST_SILENT:
            oldest = next(iter(self._silent))
            self._silent[oldest].cancel()
            self._end_silent(oldest)
        return connection

    def note_request(self, request: BaseRequest) -> None:
        """Note that the client of a connection has sent a request."""
        self._note_end(request.protocol)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Forget a connection."""
        self._note_end(handler)
        super().connection_lost(handler, exc)

    def _note_end(self, connection: RequestHandler) -> None:
        timer = self._silent.pop(connection, None)  # type: ignore[call-overload]
        if timer is not None:
            timer.cancel()

    def _end_silent(self, connection: Connection) -> None:
        self._silent.pop(connection, None)
        if connection.transport is not None:
            connection.transport.abort()
