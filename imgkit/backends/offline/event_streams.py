"""How a request with ``stream`` is answered: partial pictures that get sharper, and then the picture."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

import PIL.Image

MOST_PARTIAL = 3
PARTIAL_TOKENS = 100
"""Output tokens of a partial picture (API reference, 2026-11-23)."""


def blurred(picture: PIL.Image.Image, count: int) -> Iterator[PIL.Image.Image]:
    """Yield `count` pictures that become more and more like `picture`, each twice as sharp."""
    for index in range(count):
        factor = 4 << (count - 1 - index)
        small = picture.resize(
            (max(1, picture.width // factor), max(1, picture.height // factor)), PIL.Image.Resampling.BOX
        )
        yield small.resize(picture.size, PIL.Image.Resampling.BICUBIC)


def event(kind: str, picture: bytes, members: Mapping[str, Any]) -> bytes:
    """Return an event as bytes.

    Args:
        kind: its type.
        picture: as a file.
        members: what it says besides.
    """
    text = json.dumps(
        {"type": kind, "b64_json": base64.b64encode(picture).decode("ascii"), **members},
        separators=(",", ":"),
    )
    return f"event: {kind}\ndata: {text}\n\n".encode()
