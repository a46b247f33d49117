"""Sample images, replies and a polling backend for tests."""

from __future__ import annotations

import base64
import binascii
import random
import struct
import zlib
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from imgkit.wire.messages import HttpRequest

GIF = base64.b64decode("R0lGODlhAQABAAAAACwAAAAAAQABAAACAgQBADs=")
"""A GIF of one pixel."""

_PNG_COLORS = {"L": (0, 1), "RGB": (2, 3), "RGBA": (6, 4)}
"""Colour type and bytes per pixel of a PNG."""


@cache
def png(seed: int = 0, size_px: int = 8, mode: Literal["L", "RGB", "RGBA"] = "RGB") -> bytes:
    """Return a PNG of random pixels; it needs no Pillow.

    >>> png(1) == png(1), png(1) == png(2)
    (True, False)

    Args:
        seed: Different seeds give different images.
        size_px: Width and height in pixels.
        mode: Pixel mode, with Pillow's names. A mask may be "RGBA" or "L".
    """
    color_type, pixel_bytes = _PNG_COLORS[mode]
    pixels = random.Random(seed)
    rows = b"".join(b"\0" + pixels.randbytes(pixel_bytes * size_px) for _ in range(size_px))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", size_px, size_px, 8, color_type, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", binascii.crc32(kind + data))
        for kind, data in chunks
    )


def answer(*pictures: bytes) -> dict[str, Any]:
    """Return a success reply in OpenAI's dialect, as a JSON value.

    >>> reply = answer(png(1), png(2))
    >>> len(reply["data"])
    2

    Args:
        pictures: Bytes of the images; a single small PNG by default.
    """
    images = pictures or (png(),)
    return {"created": 1, "data": [{"b64_json": base64.b64encode(image).decode("ascii")} for image in images]}


def poll_after_send(backend: Any, poll: HttpRequest) -> Any:
    """Return a backend that sends `poll` behind each request, with the same transfer."""

    class Polling:
        wire_errors, unsent_errors = backend.wire_errors, backend.unsent_errors

    class BlockingPolling(Polling):
        def open(self, request: HttpRequest, transfer: Any) -> Any:
            backend.open(request, transfer).close()
            transfer.mark_sent()
            return backend.open(poll, transfer)

        def close(self) -> None:
            backend.close()

    class AsyncPolling(Polling):
        async def open(self, request: HttpRequest, transfer: Any) -> Any:
            (await backend.open(request, transfer)).close()
            transfer.mark_sent()
            return await backend.open(poll, transfer)

        async def aclose(self) -> None:
            await backend.aclose()

    return AsyncPolling() if hasattr(backend, "aclose") else BlockingPolling()
