"""Idle connections of aiohttp, whose servers must say nothing until the next request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from imgkit.backends.sockets import has_input
from imgkit.wire.transfer import HasFileno, Transfer

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection


class _IdleConnection(asyncio.Protocol):
    """Ends an idle connection whose server says anything: it would pass for the reply to the next request.

    Args:
        protocol: aiohttp's protocol of the connection, which would keep such a reply.
    """

    def __init__(self, protocol: ResponseHandler) -> None:
        self._protocol = protocol

    def data_received(self, data: bytes) -> None:
        """End the connection: nobody has asked for these bytes."""
        if self._protocol.transport is not None:
            self._protocol.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell aiohttp's protocol."""
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """Tell aiohttp's protocol."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Tell aiohttp's protocol."""
        self._protocol.resume_writing()


def watch_idle(protocol: ResponseHandler) -> None:
    """Watch a connection whose reply has arrived: it ends with the next byte of its server.

    Args:
        protocol: aiohttp's protocol of the connection, which aiohttp is about to keep.
    """
    if protocol.transport is not None:
        protocol.transport.set_protocol(_IdleConnection(protocol))


def wake_connection(connection: Connection, transfer: Transfer) -> bool:
    """Give an idle connection back to aiohttp; return False if it cannot carry another request.

    Args:
        connection: a connection that `watch_idle` watches.
        transfer: the transfer of the next request, which can end it.

    Raises:
        TimeoutError: the transfer is aborted already.
    """
    protocol, transport = connection.protocol, connection.transport
    # The event loop may not have seen yet that the server has closed the connection.
    sock: HasFileno | None = None if transport is None else transport.get_extra_info("socket")
    if protocol is None or transport is None or has_input(sock):
        return False
    transport.set_protocol(protocol)
    # Another reply may have come with the end of the last.
    if protocol.should_close:
        return False
    try:
        transfer.watch_socket(sock)
    except BaseException:
        connection.close()
        raise
    return True
