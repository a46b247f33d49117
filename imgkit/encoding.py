"""Pixels as a file that is small enough, if it can be without losing more pixels."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from imgkit.sniff import Format

if TYPE_CHECKING:
    import PIL.Image

_PREFERRED: tuple[Format, ...] = ("png", "webp", "jpeg", "gif")
_JPEG_QUALITIES = (95, 90, 85)
_LONGEST_EDGE: dict[Format, int] = {"webp": 16_383, "jpeg": 65_500, "gif": 65_535}
_HOPELESS = 1.3
"""So many times too large, a PNG is not worth the seconds that optimising it takes."""


def encoded(
    picture: PIL.Image.Image, wanted: Format | None, formats: frozenset[Format], max_bytes: int | None
) -> tuple[bytes, Format] | None:
    """Return a picture as a file.

    Args:
        picture: of mode L, RGB or RGBA; a colour profile in its ``info`` is kept.
        wanted: format to stay with, None where it is free.
        formats: those that are allowed.
        max_bytes: stop at the first way that is this small; None takes the first.

    Returns:
        The bytes, which are the smallest there are if none is small enough, and their format; None if the
        picture has more pixels than the formats can hold.
    """
    smallest: tuple[bytes, Format] | None = None
    for format, options in _ways(picture.mode, wanted, formats):
        if (
            smallest is not None
            and format == "png"
            and max_bytes
            and len(smallest[0]) > _HOPELESS * max_bytes
        ):
            continue
        if max(picture.size) > _LONGEST_EDGE.get(format, max(picture.size)):
            continue
        data = _saved(picture, format, options)
        if max_bytes is None or len(data) <= max_bytes:
            return data, format
        if smallest is None or len(data) < len(smallest[0]):
            smallest = data, format
    return smallest


def _ways(
    mode: str, wanted: Format | None, formats: frozenset[Format]
) -> Iterator[tuple[Format, dict[str, Any]]]:
    """Yield formats with options, those that lose nothing first."""
    free = [one for one in _PREFERRED if one in formats]
    if wanted == "jpeg" and mode != "RGBA":
        free = ["jpeg"]  # it lost something before; without loss it would only grow
    first = [wanted] if wanted in free else []
    for format in [*first, *(one for one in free if one != wanted)]:
        if format == "png":
            yield "png", {"compress_level": 6}
            yield "png", {"optimize": True}
        elif format == "webp":
            yield "webp", {"lossless": True, "quality": 80, "exact": True}
        elif format == "jpeg" and (mode != "RGBA" or free == ["jpeg"]):
            for quality in _JPEG_QUALITIES:
                yield "jpeg", {"quality": quality, "subsampling": 0}
        elif format == "gif" and free == ["gif"]:
            yield "gif", {}


def _saved(picture: PIL.Image.Image, format: Format, options: dict[str, Any]) -> bytes:
    import PIL.Image

    profile = picture.info.get("icc_profile")
    if format == "jpeg" and picture.mode == "RGBA":
        flat = PIL.Image.new("RGB", picture.size, "white")
        flat.paste(picture, mask=picture.getchannel("A"))
        picture = flat
    stream = io.BytesIO()
    picture.save(stream, format.upper(), **options, **({"icc_profile": profile} if profile else {}))
    return stream.getvalue()
