"""Images from pixel values, and masks as pixel sets, for tests of pixel operations."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import PIL.Image
import pytest

from imgkit.errors import InvalidRequestError


def saved(image: PIL.Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """Encode an image."""
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def opened(data: bytes) -> PIL.Image.Image:
    """Decode an image."""
    return PIL.Image.open(io.BytesIO(data))


def alpha(mask: bytes) -> bytes:
    """Return the alpha values of an RGBA mask."""
    image = opened(mask)
    assert (image.format, image.mode) == ("PNG", "RGBA")
    return image.getchannel("A").tobytes()


def hole(mask: bytes) -> set[tuple[int, int]]:
    """Return the transparent pixels of a mask: those that may change."""
    width = opened(mask).width
    return {(at % width, at // width) for at, value in enumerate(alpha(mask)) if value == 0}


def greys(*rows: list[int], mode: str = "L") -> PIL.Image.Image:
    """Return an image with these gray values."""
    image = PIL.Image.new(mode, (len(rows[0]), len(rows)))
    image.putdata([value for row in rows for value in row])
    return image


def png(color_type: int, bits: int, width: int, raw: bytes, key: bytes = b"") -> bytes:
    """Return a PNG of a kind that Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, 1, bits, color_type, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *([chunk(b"tRNS", key)] if key else []),
             chunk(b"IDAT", zlib.compress(b"\0" + raw)), chunk(b"IEND", b"")]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bomb(width: int, height: int) -> bytes:
    """Return a PNG whose header claims more pixels than it holds."""
    data = png(6, 8, width, b"")
    return data[:20] + struct.pack(">I", height) + data[24:]


def refusal(make: Callable[[], Any]) -> dict[str, str]:
    """Return the field errors of a rejected request."""
    with pytest.raises(InvalidRequestError) as caught:
        make()
    assert caught.value.__cause__ is None
    assert len(str(caught.value)) < 1000
    return caught.value.fields


RED, BLUE = (255, 0, 0), (0, 0, 255)
CORNERS = greys([10, 60, 110], [160, 210, 250])


def two(mode: str = "RGB", size: tuple[int, int] = (32, 16)) -> PIL.Image.Image:
    """Return an image whose left half is red and whose right half is blue."""
    image = PIL.Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image.convert(mode)


def exif(orientation: int, image: PIL.Image.Image, format: str = "JPEG") -> bytes:
    """Encode an image with an EXIF orientation."""
    tags = PIL.Image.Exif()
    tags[0x0112] = orientation
    tags[0x010F] = "a camera"
    return saved(image, format, exif=tags)


def animated(format: str) -> bytes:
    """Encode an animation of three frames."""
    return saved(two(), format, save_all=True, append_images=[two().rotate(180), two()])
