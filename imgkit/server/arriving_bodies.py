"""Bodies of requests while they arrive: their length and pace, and clients that wait to be asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

from aiohttp import StreamReader
from aiohttp.http import HttpVersion11
from aiohttp.web import BaseRequest, RequestPayloadError

from imgkit.server.envelopes import Rejection, reject_body

READ_S = 30.0
"""Longest silence in seconds while a body arrives."""

LEAST_BYTES_PER_S = 1024
"""Slowest body after the first `READ_S` seconds."""

T = TypeVar("T")


async def invite_body(request: BaseRequest) -> None:
    """Let a client send a body that it holds back until the server has seen the head.

    Raises:
        Rejection: the client expects something else.
    """
    expected = request.headers.get("expect")
    if expected is None or request.version < HttpVersion11:
        return
    if expected.strip().lower() != "100-continue":
        raise Rejection(
            417,
            "unsupported_expectation",
            f"The server cannot meet the expectation {expected[:100]!r}. Leave out the header. Nothing was "
            "sent.",
            closes=True,
        )
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # the reply has not begun


class ArrivingBody:
    """A body while it arrives: it counts bytes and watches the pace of the client.

    Args:
        content: the stream of bytes.
        max_bytes: largest body.

    Attributes:
        length: number of received bytes.
    """

    def __init__(self, content: StreamReader, max_bytes: int) -> None:
        self._content = content
        self._max_bytes = max_bytes
        self._started = time.monotonic()
        self.length = 0

    async def wait(self, reading: Awaitable[T]) -> T:
        """Return what a read returns, within the time that the client has for it.

        Raises:
            Rejection: the client is too slow, or its chunks are malformed.
        """
        if self._content.is_eof():  # all of it is here: a timer would cost more than the read
            return await self._read(reading)
        late_s = self._started + READ_S + self.length / LEAST_BYTES_PER_S - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, min(READ_S, late_s))):
                return await self._read(reading)
        except TimeoutError:
            raise Rejection(
                408, "body_timeout", "The body came too slowly. Nothing was sent.", closes=True
            ) from None

    async def _read(self, reading: Awaitable[T]) -> T:
        try:
            return await reading
        except RequestPayloadError:
            raise reject_body("The body breaks off, or its chunks are malformed.") from None

    def count(self, data: bytes | bytearray) -> None:
        """Count received bytes.

        Raises:
            Rejection: the body is too large.
        """
        self.length += len(data)
        self.check_length()

    def check_length(self) -> None:
        """Check the number of bytes that have come, with those around the parts of a form.

        Raises:
            Rejection: the body is too large.
        """
        if max(self.length, self._content.total_bytes) > self._max_bytes:
            raise reject_large(self._max_bytes)

    async def blocks(self) -> AsyncIterator[bytes]:
        """Yield the body in blocks."""
        while block := await self.wait(self._content.readany()):
            self.count(block)
            yield block


def reject_large(max_bytes: int) -> Rejection:
    """Return the refusal of a body that is too large. The connection ends: the rest is not read."""
    return Rejection(
        413,
        "body_too_large",
        f"The body is over {max_bytes} bytes. Send fewer or smaller images, or start the server with a "
        "larger --max-body-bytes. Nothing was sent.",
        closes=True,
    )
