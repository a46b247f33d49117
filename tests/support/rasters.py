"""Pictures by their pixels, and masks read back; for tests of what changes pixels."""

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
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def opened(data: bytes) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(data))


def alpha(mask: bytes) -> bytes:
    """Return the opacity of each pixel of a mask that was made."""
    picture = opened(mask)
    assert (picture.format, picture.mode) == ("PNG", "RGBA")
    return picture.getchannel("A").tobytes()


def hole(mask: bytes) -> set[tuple[int, int]]:
    """Return the pixels that may change."""
    width = opened(mask).width
    return {(at % width, at // width) for at, value in enumerate(alpha(mask)) if value == 0}


def greys(*rows: list[int], mode: str = "L") -> PIL.Image.Image:
    """Return a picture with these values."""
    made = PIL.Image.new(mode, (len(rows[0]), len(rows)))
    made.putdata([value for row in rows for value in row])
    return made


def png(colour_type: int, bits: int, width: int, raw: bytes, key: bytes = b"") -> bytes:
    """Return a PNG of one row, of kinds that Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, 1, bits, colour_type, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *([chunk(b"tRNS", key)] if key else []),
             chunk(b"IDAT", zlib.compress(b"\0" + raw)), chunk(b"IEND", b"")]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bomb(width: int, height: int) -> bytes:
    """Return a PNG whose header claims more than is there."""
    whole = png(6, 8, width, b"")
    return whole[:20] + struct.pack(">I", height) + whole[24:]


def refusal(make: Callable[[], Any]) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as caught:
        make()
    assert caught.value.__cause__ is None
    assert len(str(caught.value)) < 1000
    return caught.value.fields


RED, BLUE = (255, 0, 0), (0, 0, 255)
CORNERS = greys([10, 60, 110], [160, 210, 250])


def two(mode: str = "RGB", size: tuple[int, int] = (32, 16)) -> PIL.Image.Image:
    """Return a picture whose left half is red, the right one blue."""
    made = PIL.Image.new("RGB", size, RED)
    made.paste(BLUE, (size[0] // 2, 0, *size))
    return made.convert(mode)


def exif(orientation: int, image: PIL.Image.Image, format: str = "JPEG") -> bytes:
    about = PIL.Image.Exif()
    about[0x0112] = orientation
    about[0x010F] = "a camera"
    return saved(image, format, exif=about)


def animated(format: str) -> bytes:
    return saved(two(), format, save_all=True, append_images=[two().rotate(180), two()])
