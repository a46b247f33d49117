"""The connections of a server: aiohttp's own, with limits for clients that say nothing or read nothing."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple

from aiohttp.web import BaseRequest, RequestPayloadError, Response, StreamResponse
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from imgkit.server.envelopes import Rejection, build_bug_reply, build_rejection

HEAD_S = 10.0
"""Seconds in which the head of the first request must arrive."""

KEEPALIVE_S = 75.0
"""Seconds for which a connection between two requests stays open."""

LINGER_S = 2.0
"""Seconds for which the server reads on after a refusal, so that the client can read the answer."""

UNREAD_S = 60.0
"""Seconds in which a client must read what fills the buffer of its connection."""

WRITE_S = 60.0
"""Seconds in which a client must read the next block of a reply."""

MOST_SILENT = 10_000
"""Most connections that wait for a request, where the system allows twice as many; the oldest end first."""

YOUNG_S = 1.0
"""Seconds for which a new connection, or one that had a reply, may wait beside any number of others."""

NOTICE_S = 60.0
"""Seconds between two notices that the system allows no further connection."""


class Connection(RequestHandler):
    """A connection whose protocol errors are answered in OpenAI's envelope.

    It ends when its client reads nothing for a while, also in the midst of a reply and when it closes.
    """

    _pipe: asyncio.Transport | None = None
    _unread: asyncio.TimerHandle | None = None
    _is_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._pipe = transport if isinstance(transport, asyncio.Transport) else None
        super().connection_made(transport)
        if self._is_ended:
            self.end()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._pipe = None
        self._stop_watch()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Note that the client reads more slowly than the server writes."""
        super().pause_writing()
        self._start_watch()

    def resume_writing(self) -> None:
        """Note that the client has read."""
        self._stop_watch()
        super().resume_writing()

    async def start(self) -> None:
        """Answer requests until the connection closes."""
        try:
            await super().start()
        finally:
            self._start_watch()  # the client may never read the last reply

    def end(self) -> None:
        """End the connection at once."""
        self._is_ended = True
        if self._pipe is not None:
            self._pipe.abort()

    def _start_watch(self) -> None:
        if self._unread is None and self._pipe is not None:
            self._unread = asyncio.get_running_loop().call_later(UNREAD_S, self.end)

    def _stop_watch(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> StreamResponse:
        """Return the reply for a request that is no HTTP, or after a bug in a handler."""
        if isinstance(exc, ConnectionError):
            raise exc  # the client has left, or reads too slowly
        if status == 400:
            text = "The request is not HTTP/1.1, or a line of its head is over 8190 bytes. Use http://, not https://."
            reply = build_rejection(Rejection(status, "invalid_http", f"{text} Nothing was sent."))
        else:
            error = exc or TimeoutError()
            asyncio.get_running_loop().call_exception_handler(
                {"message": "imgkit could not answer a request", "exception": error}
            )
            reply = build_bug_reply(error, None, was_begun=request.method == "POST")
        if request.writer.output_size > 0:
            raise ConnectionError("the reply has begun")
        response = Response(
            status=reply.status,
            body=json.dumps(reply.envelope).encode(),
            content_type="application/json",
            headers={"x-should-retry": "false"},
        )
        response.force_close()
        return response

    def log_exception(self, *args: object, **kw: object) -> None:
        """Log a bug. A body that breaks off is none: its client has an answer."""
        if not isinstance(kw.get("exc_info"), RequestPayloadError):
            super().log_exception(*args, **kw)


def find_file_limit() -> int:
    """Return the number of files and connections that this process may have open."""
    try:
        import resource
    except ImportError:  # Windows has no such limit, but asyncio's own on some of its loops
        return 1000
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft > 0 else 2 * MOST_SILENT


def raise_file_limit() -> None:
    """Let the process have as many connections as the system allows it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536) if hard > 0 else soft, hard))


class SilentClient(NamedTuple):
    """A connection that waits for a request.

    Attributes:
        since: time of the loop at which it began to wait.
        timer: ends it, None if its keep-alive time does.
    """

    since: float
    timer: asyncio.TimerHandle | None


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
            lingering_time=LINGER_S,
            tcp_keepalive=True,
            auto_decompress=False,
        )
        self._silent: OrderedDict[RequestHandler, SilentClient] = OrderedDict()
        self._most_silent = min(MOST_SILENT, find_file_limit() // 2)
        self._must_make_room = False
        self._next_notice = 0.0
        self._loop = asyncio.get_running_loop()
        self._handle_problem = self._loop.get_exception_handler()
        self._loop.set_exception_handler(self._note_problem)

    async def shutdown(self, timeout: float | None = None) -> None:
        """End all connections."""
        if self._loop.get_exception_handler() == self._note_problem:
            self._loop.set_exception_handler(self._handle_problem)
        await super().shutdown(timeout)

    def __call__(self) -> Connection:
        """Return the protocol of a new connection."""
        loop = self._loop
        connection = Connection(self, loop=loop, **self._kwargs)
        timer = loop.call_later(HEAD_S, self._end_silent, connection)
        self._silent[connection] = SilentClient(loop.time(), timer)
        self.end_oldest(self._most_silent, YOUNG_S)
        return connection

    def note_request(self, request: BaseRequest) -> None:
        """Note that the client of a connection has sent a request."""
        self._note_end(request.protocol)

    def note_reply(self, request: BaseRequest) -> None:
        """Note that a connection waits for its next request."""
        if request.transport is not None:
            self._silent[request.protocol] = SilentClient(self._loop.time(), None)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Forget a connection."""
        self._note_end(handler)
        super().connection_lost(handler, exc)

    def end_oldest(self, most: int, young_s: float = 0.0) -> int:
        """End the connections that wait longest for a request.

        Args:
            most: number of connections that may wait.
            young_s: seconds for which a connection may wait in any case.

        Returns:
            The number of ended connections.
        """
        count, now = 0, self._loop.time()
        while len(self._silent) > most:
            oldest, silent = next(iter(self._silent.items()))
            if now - silent.since < young_s:
                break
            self._end_silent(oldest)
            count += 1
        return count

    def _note_problem(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """Make room if the system allows no further connection; leave other problems to the loop."""
        if str(context.get("message")).startswith("socket.accept() out of system resource"):
            if not self._must_make_room:  # asyncio reports it up to a thousand times in a row
                self._must_make_room = True
                loop.call_soon(self._make_room)
        elif self._handle_problem is not None:
            self._handle_problem(loop, context)
        else:
            loop.default_exception_handler(context)

    def _make_room(self) -> None:
        self._must_make_room = False
        count, now = self.end_oldest(len(self._silent) // 2), self._loop.time()
        if now >= self._next_notice:
            self._next_notice = now + NOTICE_S
            logging.getLogger("imgkit").warning(
                "The system allows no further connection. The server has ended %d that waited for a request.",
                count,
            )

    def _note_end(self, connection: RequestHandler) -> None:
        silent = self._silent.pop(connection, None)
        if silent is not None and silent.timer is not None:
            silent.timer.cancel()

    def _end_silent(self, connection: RequestHandler) -> None:
        self._note_end(connection)
        if isinstance(connection, Connection):
            connection.end()


class WriteLimit:
    """Ends a connection whose client does not read: a context manager around writes.

    Args:
        request: the request of the client.
    """

    def __init__(self, request: BaseRequest) -> None:
        self._request = request
        self._time = asyncio.get_running_loop().time
        self._timeout = asyncio.timeout(None)
        self._late_at = 0.0

    def note_progress(self) -> None:
        """Give the client its time anew, after it has read a block."""
        now = self._time()
        if now > self._late_at - 0.98 * WRITE_S:  # a timer for each block would cost as much as the block
            self._late_at = now + WRITE_S
            self._timeout.reschedule(self._late_at)

    async def __aenter__(self) -> None:
        self._late_at = self._time() + WRITE_S
        self._timeout = asyncio.timeout_at(self._late_at)
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the writes.

        Raises:
            ConnectionError: the client reads too slowly.
        """
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            abort_connection(self._request)
            raise ConnectionAbortedError("the client reads too slowly") from None


def abort_connection(request: BaseRequest) -> None:
    """End the connection of a request at once."""
    if request.transport is not None:
        request.transport.abort()
