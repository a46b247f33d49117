"""Masks as bands of opacity: "L" pictures in which 0 may change and 255 stays."""

from __future__ import annotations

import io
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imgkit.errors import ConfigurationError, InvalidRequestError
from imgkit.images import pixels
from imgkit.images.inputs import ImageFile, RawFile, open_input
from imgkit.images.sniff import png_header

if TYPE_CHECKING:
    import PIL.Image


HOW = (
    "make a mask of a black and white drawing with `imgkit mask --from-white drawing.png --like photo.png "
    "-o mask.png`, or imgkit.masks.from_white"
)
"""What to do where a picture says nothing of what may change."""

_HALF = 128


def opacity_of(mask: RawFile) -> PIL.Image.Image:
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


def convert_polarity(mask: ImageFile, polarity: str, cleanup: ExitStack) -> ImageFile:
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


def reopened(data: bytes, field: str, cleanup: ExitStack) -> ImageFile:
    """Return bytes that were made here as an input; large ones wait in a temporary file."""
    return open_input(io.BytesIO(data), field, cleanup)


def check_still(file: RawFile) -> None:
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


MOST_BYTES = 4 * 1024 * 1024
"""Largest mask in bytes that OpenAI's API takes."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What there is to say of a mask.

    Attributes:
        problems: why it would be refused, or do nothing; each names what to do.
        doubts: what is allowed, and probably not meant.
    """

    problems: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def judge(mask: ImageFile, image: ImageFile | None, *, max_bytes: int | None = MOST_BYTES) -> Judgement:
    """Return what is wrong with a mask for the first picture of a request. Neither is moved nor changed.

    Args:
        mask: opened.
        image: the picture that it is for, opened; None where it is not here, and its size not known.
        max_bytes: what the API takes; None without a limit.
    """
    problems = _problems_of_bytes(mask, max_bytes)
    if image is not None:
        problems += _problems_of_size(mask, image)
    doubts = []
    if not problems:
        opaque = pixels.opacity(mask)
        if opaque is None or pixels.hides_all(opaque):
            problems.append(
                "is opaque everywhere, so nothing could change: make transparent what may, or turn it round "
                "with imgkit.masks.invert"
            )
        elif pixels.shows_all(opaque):
            doubts.append(
                "is transparent everywhere, so all of the picture may change, as without a mask. If that is "
                "not meant, draw it anew with imgkit.masks"
            )
    return Judgement(tuple(problems), tuple(doubts))


def check_mask(mask: ImageFile, image: ImageFile | None, *, max_bytes: int | None = MOST_BYTES) -> list[str]:
    """Refuse a mask that does not fit the first picture, before it is sent. May block.

    Args:
        mask: opened; neither it nor `image` is moved or changed.
        image: the picture that it is for, opened; None where it is not here, and its size not known.
        max_bytes: what the API takes; None without a limit.

    Returns:
        Warnings, for ``reply.warnings``.

    Raises:
        InvalidRequestError: it does not fit; ``fields["mask"]`` names what to do.
    """
    found = judge(mask, image, max_bytes=max_bytes)
    if found.problems:
        raise InvalidRequestError({mask.field: "; ".join(found.problems) + "."})
    return [f"mask: {doubt}." for doubt in found.doubts]


def _problems_of_bytes(mask: ImageFile, max_bytes: int | None) -> list[str]:
    if mask.kind.format != "png":
        return [f"is a {mask.kind.format}, and a mask is a PNG with transparent parts: {HOW}"]
    header = png_header(mask.read_at)
    problems = []
    if not header.has_alpha:
        problems.append(f"has no transparency, which says what may change: {HOW}")
    if header.animated:
        problems.append("is an animated PNG: save a single picture")
    if max_bytes is not None and mask.length > max_bytes:
        problems.append(
            f"is {mask.length} bytes, and at most {max_bytes} are taken: `imgkit mask --from-mask mask.png "
            "-o small.png`, or imgkit.masks.union(mask), writes it without its colours"
        )
    return problems


def _problems_of_size(mask: ImageFile, image: ImageFile) -> list[str]:
    ours, theirs = (mask.kind.width, mask.kind.height), (image.kind.width, image.kind.height)
    if ours == theirs:
        return []
    said = f"is {ours[0]}x{ours[1]} pixels, the picture {theirs[0]}x{theirs[1]}"
    if ours == theirs[::-1] and pixels.look(image).shown == ours:
        return [f"{said}, and shown turned (EXIF): turn its pixels with PIL.ImageOps.exif_transpose"]
    return [
        f"{said}: `imgkit mask --from-mask mask.png --like photo.png -o fitting.png`, or "
        "imgkit.masks.resize, brings it to that size"
    ]
