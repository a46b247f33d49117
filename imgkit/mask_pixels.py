"""Masks as bands of opacity: "L" pictures in which 0 may change and 255 stays."""

from __future__ import annotations

import io
from contextlib import ExitStack
from typing import TYPE_CHECKING

from imgkit import pixels
from imgkit.errors import ConfigurationError, InvalidRequestError
from imgkit.inputs import InputFile, OpenedFile, open_input

if TYPE_CHECKING:
    import PIL.Image

HOW = (
    "make a mask of a black and white drawing with `imgkit mask --from-white drawing.png --like photo.png "
    "-o mask.png`, or imgkit.masks.from_white"
)
"""What to do where a picture says nothing of what may change."""

_HALF = 128


def opacity_of(mask: OpenedFile) -> PIL.Image.Image:
    """Return the opacity of a mask.

    Raises:
        InvalidRequestError: it has no transparency, is animated, or cannot be decoded.
    """
    check_still(mask)
    opaque = pixels.opacity(mask)
    if opaque is None:
        raise wrong(mask.field, f"has no transparency: {HOW}")
    return opaque


def inverted(opaque: PIL.Image.Image) -> PIL.Image.Image:
    """Return what is opaque as transparent, and the other way round."""
    return opaque.point([255 - value for value in range(256)])


def resized(opaque: PIL.Image.Image, size: tuple[int, int], field: str) -> PIL.Image.Image:
    """Return an "L" picture of opacity in another size of the same shape; hard edges stay hard."""
    import PIL.Image

    if opaque.size == size:
        return opaque
    check_shape(opaque.size, size, field)
    hard = not any(opaque.histogram()[1:-1])
    other = opaque.resize(size, PIL.Image.Resampling.BOX)
    if hard:
        other = other.point([pixels.OPAQUE * (value >= _HALF) for value in range(256)])
    if pixels.hides_all(other) and not pixels.hides_all(opaque):
        raise wrong(field, f"has a hole of which nothing is left in {by(*size)} pixels: make it larger")
    return other


def rewritten(opaque: PIL.Image.Image) -> bytes:
    """Return the PNG of a mask with this opacity; its colours are black, so that it is small."""
    import PIL.Image

    black = PIL.Image.new("L", opaque.size)
    return pixels.png_bytes(PIL.Image.merge("RGBA", (black, black, black, opaque)))


def converted(mask: InputFile, polarity: str, cleanup: ExitStack) -> InputFile:
    """Return an opened mask as an API wants it.

    Args:
        mask: opened; what is transparent may change.
        polarity: of the provider: "transparent", or "white" for a grey picture whose white may change.
        cleanup: gets what is to be closed when the call is over.

    Raises:
        InvalidRequestError: it has no transparency, or cannot be decoded.
        ConfigurationError: there is no such polarity.
    """
    if polarity == "transparent":
        return mask
    if polarity != "white":
        raise ConfigurationError(
            f"the provider declares mask_polarity={polarity!r}: ask its author for 'transparent' or 'white'"
        )
    return reopened(pixels.png_bytes(inverted(opacity_of(mask))), mask.field, cleanup)


def reopened(data: bytes, field: str, cleanup: ExitStack) -> InputFile:
    """Return bytes that were made here as an input; large ones wait in a temporary file."""
    return open_input(io.BytesIO(data), field, cleanup)


def check_still(file: OpenedFile) -> None:
    """Refuse what is animated."""
    frames = pixels.look(file).frames
    if frames > 1:
        raise wrong(file.field, f"is animated ({frames} frames): give a single picture")


def check_shape(ours: tuple[int, int], theirs: tuple[int, int], field: str) -> None:
    """Refuse another ratio of the sides, but for what rounding to whole pixels makes of it."""
    scale = theirs[0] / ours[0]
    if abs(ours[1] * scale - theirs[1]) > max(1.0, scale / 2):
        raise wrong(
            field,
            f"is {by(*ours)} pixels, the picture {by(*theirs)}, which is another shape: draw it anew over "
            "the picture, or crop it first",
        )


def by(width: int, height: int) -> str:
    """Return a size as text."""
    return f"{width}x{height}"


def wrong(field: str, problem: str) -> InvalidRequestError:
    """Return the error that says what is wrong with a field."""
    return InvalidRequestError({field: f"{problem}."})
