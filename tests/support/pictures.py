"""Small images and replies for tests."""

from __future__ import annotations

import base64
import io
import random
from functools import cache

import PIL.Image


@cache
def picture(
    format: str = "PNG", size: tuple[int, int] = (8, 8), color: str = "red", mode: str = "RGB"
) -> bytes:
    """Return a small image as bytes."""
    stream = io.BytesIO()
    PIL.Image.new(mode, size, color).save(stream, format)
    return stream.getvalue()


@cache
def noise(seed: int, size_px: int = 48) -> bytes:
    """Return a PNG of random pixels, which compression cannot shrink."""
    pixels = random.Random(seed).randbytes(3 * size_px * size_px)
    stream = io.BytesIO()
    PIL.Image.frombytes("RGB", (size_px, size_px), pixels).save(stream, "PNG")
    return stream.getvalue()


def encoded(data: bytes | None = None) -> str:
    """Return an image as base64; a small PNG by default."""
    return base64.b64encode(data if data is not None else picture()).decode()


def answer(count: int = 1) -> dict[str, object]:
    """Return the JSON of a success reply with `count` images."""
    return {"created": 1, "data": [{"b64_json": encoded()} for _ in range(count)]}
