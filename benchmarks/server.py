"""A server process with canned replies, fast enough not to distort the measurements.

The first part of the path selects the reply: ``/small/v1/images/generations``.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import struct
import subprocess
import sys
import zlib
from typing import Any, Self

IMAGE_BYTES = {"small": 120, "1.5KB": 700, "1.4MB": 1_400_000, "8MB": 8_000_000, "32MB": 32_000_000}
STREAMS = {"stream": ("1.4MB", 3), "stream-small": ("small", 1), "stream-32MB": ("32MB", 1)}
"""The image size of each stream, and the number of partial images before the complete image."""
DISTINCT = "distinct"
"""The reply of 1.4 MB, with an image of its own for each request."""
_BLOCK_BYTES = 256 * 1024
_USAGE = {
    "total_tokens": 1070, "input_tokens": 14, "output_tokens": 1056,
    "input_tokens_details": {"text_tokens": 14, "image_tokens": 0},
}  # fmt: skip


def _build_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size_bytes: int, seed: int = 1) -> bytes:
    """Return a PNG of about this size, with uncompressed noise as pixels."""
    width = max(1, int((size_bytes / 3) ** 0.5))
    # Each row is the same noise rotated by one byte: quick to make, and its base64 has no pattern.
    noise = zlib.decompress(zlib.compress(os.urandom(3 * width))) if seed else bytes(3 * width)
    rows = b"".join(
        b"\0" + noise[shift:] + noise[:shift] for shift in (row % (3 * width) for row in range(width))
    )
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, width, 8, 2, 0, 0, 0)),
        (b"tEXt", _number_text(0)),
        (b"IDAT", zlib.compress(rows, 0)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_build_chunk(kind, data) for kind, data in chunks)


def _number_text(number: int) -> bytes:
    """Return the data of a chunk whose base64 begins and ends with it."""
    return b"n\0%010d" % number


def _number_reply(reply: bytes, number: int) -> bytes:
    """Return a reply whose image is another one: its text chunk has this number."""
    old, new = (base64.b64encode(_build_chunk(b"tEXt", _number_text(each))) for each in (0, number))
    return reply.replace(old, new, 1)


def _build_head(content_type: str, length: int | None) -> bytes:
    framing = f"content-length: {length}" if length is not None else "connection: close"
    return (
        f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n{framing}\r\nx-request-id: req_0123456789\r\n"
        "x-ratelimit-limit-requests: 500\r\nx-ratelimit-remaining-requests: 499\r\n"
        "openai-processing-ms: 1\r\ndate: Wed, 25 Nov 2026 12:00:00 GMT\r\n\r\n"
    ).encode()


def _build_json_reply(size_bytes: int) -> bytes:
    image = base64.b64encode(png(size_bytes)).decode()
    body = json.dumps({"created": 1, "data": [{"b64_json": image}], "usage": _USAGE}).encode()
    return _build_head("application/json", len(body)) + body


def _build_stream_reply(size_bytes: int, partials: int) -> bytes:
    image = base64.b64encode(png(size_bytes)).decode()
    fields = {"b64_json": image, "created_at": 1, "size": "1024x1024", "quality": "high",
            "background": "opaque", "output_format": "png"}  # fmt: skip
    events: list[dict[str, Any]] = [
        {"type": "image_generation.partial_image", "partial_image_index": index, **fields}
        for index in range(partials)
    ]
    events.append({"type": "image_generation.completed", "usage": _USAGE, **fields})
    text = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()
    return _build_head("text/event-stream", len(text)) + text


_numbers = itertools.count(1)


class _Connection(asyncio.Protocol):
    """A connection that replies to one request after another, and discards their bodies."""

    def __init__(self, replies: dict[bytes, bytes]) -> None:
        self._replies = replies
        self._head = b""
        self._left = 0  # missing bytes of the current body
        self._reply = b""
        self._number: int | None = None
        self._free = asyncio.Event()
        self._free.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._count_body(len(data))
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            return
        head, rest = self._head[:end], len(self._head) - end - 4
        self._head = b""
        name = head.split(b"/", 2)[1]
        self._reply = self._replies[name]
        self._number = next(_numbers) if name == DISTINCT.encode() else None
        at = head.lower().find(b"content-length:")
        self._left = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if b"expect: 100" in head.lower():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._count_body(rest)

    def _count_body(self, size: int) -> None:
        self._left -= size
        if self._left == 0:
            if len(self._reply) <= _BLOCK_BYTES:
                self._transport.write(self._reply)
            else:
                # Write in blocks: the transport copies all bytes that the socket does not take at once.
                self._sending = asyncio.ensure_future(self._send(memoryview(self._reply)))

    async def _send(self, reply: memoryview) -> None:
        for start in range(0, len(reply), _BLOCK_BYTES):
            await self._free.wait()
            if self._transport.is_closing():
                return
            block: bytes | memoryview = reply[start : start + _BLOCK_BYTES]
            if self._number is not None and not start:
                block = _number_reply(bytes(block), self._number)
            self._transport.write(block)

    def pause_writing(self) -> None:
        self._free.clear()

    def resume_writing(self) -> None:
        self._free.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._free.set()


async def _serve() -> None:
    replies = {name.encode(): _build_json_reply(size) for name, size in IMAGE_BYTES.items()}
    replies[DISTINCT.encode()] = replies[b"1.4MB"]
    for name, (size, partials) in STREAMS.items():
        replies[name.encode()] = _build_stream_reply(IMAGE_BYTES[size], partials)
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(replies), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    stop = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # ends with the parent process
    await stop


def pin(core: int) -> None:
    """Bind this process to one core, if the system supports it."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[core % len(cores)]})


class Server:
    """A context manager that runs the server in a process on the other core."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.origin = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


if __name__ == "__main__":
    pin(1)
    asyncio.run(_serve())
