"""Masks as opacity bands: "L" images in which 0 marks pixels that may change and 255 pixels that stay."""

from __future__ import annotations

import io
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imgkit.errors import ConfigurationError, InvalidRequestError
from imgkit.images import pixels
from imgkit.images.inputs import ImageFile, RawFile, open_input
from imgkit.images.sniff import read_png_header

if TYPE_CHECKING:
    import PIL.Image

MAX_MASK_BYTES = 4 * 1024 * 1024
"""Largest mask in bytes that OpenAI's API accepts."""

MASK_HINT = (
    "Make a mask from a black and white drawing with `imgkit mask --from-white drawing.png --like photo.png "
    "-o mask.png`."
)
"""Remedy for an image without transparency."""

_HALF = 128


# --- Opacity ---------------------------------------------------------------------------------


def decode_mask(mask: RawFile) -> PIL.Image.Image:
    """Return the opacity band of a mask.

    Raises:
        InvalidRequestError: the mask has no transparency, is animated, or cannot be decoded.
    """
    check_still(mask)
    opacity = pixels.decode_opacity(mask)
    if opacity is None:
        raise field_error(mask.field, f"The mask has no transparency. {MASK_HINT}")
    return opacity


def invert_opacity(opacity: PIL.Image.Image) -> PIL.Image.Image:
    """Return an opacity band with opaque and transparent pixels exchanged."""
    return opacity.point([255 - value for value in range(256)])


def resize_opacity(opacity: PIL.Image.Image, size: tuple[int, int], field: str) -> PIL.Image.Image:
    """Return an opacity band in another size of the same shape. Hard edges stay hard.

    Raises:
        InvalidRequestError: the shape differs, or the hole would vanish.
    """
    import PIL.Image

    if opacity.size == size:
        return opacity
    check_shape(opacity.size, size, field)
    has_hard_edges = not any(opacity.histogram()[1:-1])
    resized = opacity.resize(size, PIL.Image.Resampling.BOX)
    if has_hard_edges:
        resized = resized.point([pixels.OPAQUE * (value >= _HALF) for value in range(256)])
    if pixels.is_opaque(resized) and not pixels.is_opaque(opacity):
        raise field_error(field, f"The hole vanishes at {format_size(*size)} pixels. Enlarge the hole.")
    return resized


def encode_mask(opacity: PIL.Image.Image) -> bytes:
    """Return the PNG of a mask with this opacity. Its colours are black, which keeps it small."""
    import PIL.Image

    black = PIL.Image.new("L", opacity.size)
    return pixels.encode_png(PIL.Image.merge("RGBA", (black, black, black, opacity)))


def convert_polarity(mask: ImageFile, polarity: str, cleanup: ExitStack, *, hard: bool = False) -> ImageFile:
    """Return a mask in the polarity of a provider's API.

    Args:
        mask: an opened mask whose transparent pixels may change.
        polarity: "transparent", or "white" or "black" for a grey image whose pixels of this colour may
            change.
        cleanup: receives the resources to close when the call ends.
        hard: make each pixel of a grey image black or white, the nearer of the two.

    Raises:
        InvalidRequestError: the mask has no transparency, or cannot be decoded; or `hard` leaves no hole.
        ConfigurationError: the polarity is unknown.
    """
    if polarity == "transparent":
        return mask
    if polarity not in ("white", "black"):
        raise ConfigurationError(
            f"The provider declares the unknown mask_polarity={polarity!r}. Ask its author for "
            "'transparent', 'white' or 'black'."
        )
    grey = decode_mask(mask)
    if hard:
        grey = grey.point([pixels.OPAQUE * (value >= _HALF) for value in range(256)])
        if pixels.is_opaque(grey):
            problem = "No pixel of the mask is more transparent than opaque. Draw the hole transparent."
            raise field_error(mask.field, problem)
    grey = invert_opacity(grey) if polarity == "white" else grey
    return open_bytes(pixels.encode_png(grey), mask.field, cleanup)


def open_bytes(data: bytes, field: str, cleanup: ExitStack) -> ImageFile:
    """Open bytes that imgkit has encoded as an input. Large ones go to a temporary file."""
    return open_input(io.BytesIO(data), field, cleanup)


# --- Validation ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MaskReport:
    """The findings about a mask, as sentences.

    Attributes:
        problems: reasons why the API would reject the mask or the mask would do nothing, with remedies.
        doubts: allowed properties that are probably unintended.
    """

    problems: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def check_mask(
    mask: ImageFile, image: ImageFile | None, *, max_bytes: int | None = MAX_MASK_BYTES
) -> list[str]:
    """Validate a mask against the first image before the request is sent. May block.

    Args:
        mask: the opened mask; its file position does not move.
        image: the opened image of the mask; None if it is remote and its size is unknown.
        max_bytes: the API's limit; None without a limit.

    Returns:
        Warnings, for ``response.warnings``.

    Raises:
        InvalidRequestError: the mask does not fit; ``fields["mask"]`` holds the problems and remedies.
    """
    report = examine_mask(mask, image, max_bytes=max_bytes)
    if report.problems:
        hint = "In Python, imgkit.masks has from_white, resize, invert and union for it."
        raise InvalidRequestError({mask.field: " ".join(report.problems)}, hints={"masks": hint})
    return [f"mask: {doubt}" for doubt in report.doubts]


def examine_mask(
    mask: ImageFile, image: ImageFile | None, *, max_bytes: int | None = MAX_MASK_BYTES
) -> MaskReport:
    """Return the problems and doubts of a mask for an image.

    Args:
        mask, image, max_bytes: as for `check_mask`.
    """
    problems = _find_file_problems(mask, max_bytes)
    if image is not None:
        problems += _find_size_problems(mask, image)
    doubts = []
    if not problems:
        opacity = pixels.decode_opacity(mask)
        if opacity is None or pixels.is_opaque(opacity):
            problems.append(
                "The mask is opaque everywhere, so nothing could change. Make the pixels transparent that "
                "may change, or invert the mask: `imgkit mask --from-mask mask.png --invert -o inverted.png`."
            )
        elif lowest := pixels.lowest_opacity(opacity):
            doubts.append(
                f"No pixel of the mask is fully transparent: the lowest alpha is {lowest} of 255, and the "
                "API edits pixels of alpha 0. Draw the mask with a brush of full strength."
            )
        elif pixels.is_transparent(opacity):
            doubts.append(
                "The mask is transparent everywhere, so the whole image may change, as without a mask. If "
                "you do not intend that, draw it again."
            )
    return MaskReport(tuple(problems), tuple(doubts))


def _find_file_problems(mask: ImageFile, max_bytes: int | None) -> list[str]:
    if mask.kind.format != "png":
        return [f"The mask is a {mask.kind.format}, not a PNG with transparent pixels. {MASK_HINT}"]
    header = read_png_header(mask.read_at)
    problems = []
    if not header.has_alpha:
        problems.append(f"The mask has no transparency, which marks the pixels that may change. {MASK_HINT}")
    if header.animated:
        problems.append("The mask is an animated PNG. Save a single image.")
    if max_bytes is not None and mask.length > max_bytes:
        problems.append(
            f"The mask has {mask.length} bytes, and the API accepts at most {max_bytes}. Write it without "
            "its colours: `imgkit mask --from-mask mask.png -o small.png`."
        )
    return problems


def _find_size_problems(mask: ImageFile, image: ImageFile) -> list[str]:
    mask_size = (mask.kind.width or 0, mask.kind.height or 0)
    image_size = (image.kind.width or 0, image.kind.height or 0)
    if mask_size == image_size:
        return []
    sizes = f"{mask_size[0]}x{mask_size[1]} pixels, the image {image_size[0]}x{image_size[1]}"
    if mask_size == image_size[::-1] and pixels.read_header(image).displayed_size == mask_size:
        return [
            f"The mask has {sizes}, and viewers rotate the image (EXIF). Rotate its pixels with "
            "PIL.ImageOps.exif_transpose."
        ]
    if not _has_shape(mask_size, image_size):
        return [
            f"The mask has {sizes}, which is another shape. Draw it over the image: `imgkit mask --box "
            "10,20,30,20 --like photo.png -o mask.png` makes a mask with a box at x, y of a width and height."
        ]
    return [
        f"The mask has {sizes}. Resize the mask: `imgkit mask --from-mask mask.png --like photo.png -o "
        "fitting.png`."
    ]


def check_still(file: RawFile) -> None:
    """Reject an animated image. Raises InvalidRequestError."""
    frames = pixels.read_header(file).frames
    if frames > 1:
        raise field_error(file.field, f"The image is animated ({frames} frames). Pass a single image.")


def _has_shape(size: tuple[int, int], target: tuple[int, int]) -> bool:
    """Return whether two sizes have the same aspect ratio, apart from rounding to whole pixels."""
    scale = target[0] / size[0]
    return abs(size[1] * scale - target[1]) <= max(1.0, scale / 2)


def check_shape(size: tuple[int, int], target: tuple[int, int], field: str) -> None:
    """Reject another aspect ratio, apart from rounding to whole pixels. Raises InvalidRequestError."""
    if not _has_shape(size, target):
        raise field_error(
            field,
            f"The size {format_size(*size)} has another shape than the image's {format_size(*target)}. Draw "
            "it again over the image, or crop it first.",
        )


def format_size(width: int, height: int) -> str:
    """Return a size in pixels as text.

    >>> format_size(640, 480)
    '640x480'
    """
    return f"{width}x{height}"


def field_error(field: str, problem: str) -> InvalidRequestError:
    """Return the error about one field of a request."""
    return InvalidRequestError({field: problem})
