"""Fitting images to a model: explain the problems, or change the image as little as possible.

`check_fit` only explains. `fit_image` and `fit_image_and_mask` decode, rotate, convert, shrink, pad and
encode. They leave a fitting image byte for byte unchanged. A changed image loses its metadata except the
colour profile. Equal images give equal bytes, so caches and cassettes still match.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imgkit.errors import InvalidRequestError
from imgkit.images import pixels
from imgkit.images.inputs import ImageFile, RawFile
from imgkit.images.mask_pixels import (
    decode_mask,
    encode_mask,
    field_error,
    format_size,
    open_bytes,
    resize_opacity,
)
from imgkit.images.pixels import ImageHeader
from imgkit.images.sniff import Format

if TYPE_CHECKING:
    import PIL.Image

_OR_FIT = 'Or pass prepare="fit" to have it converted (of an animation, the first frame).'

_MAX_SHRINK_STEPS = 24
_GENTLEST_STEP = 0.92
_STEEPEST_STEP = 0.5
_STEP_MARGIN = 0.97


# --- Types -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageNeeds:
    """A model's requirements of an image.

    >>> ImageNeeds(formats=frozenset({"png"}), max_bytes=4_000_000, square=True).max_pixels is None
    True

    Attributes:
        formats: the accepted file formats.
        max_bytes: largest file in bytes; None without a limit.
        max_pixels: largest width times height; None without a limit.
        square: True if width and height must be equal.
    """

    formats: frozenset[Format] = frozenset({"png", "jpeg", "webp"})
    max_bytes: int | None = None
    max_pixels: int | None = None
    square: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """The geometry of a fitted image, for applying it to a mask.

    Attributes:
        orientation: the applied EXIF orientation; 1 if none.
        inner: size in pixels after rotating and shrinking.
        outer: size in pixels including the padding to a square.
    """

    orientation: int
    inner: tuple[int, int]
    outer: tuple[int, int]

    @property
    def corner(self) -> tuple[int, int]:
        """Position of the image within the padding."""
        return (self.outer[0] - self.inner[0]) // 2, (self.outer[1] - self.inner[1]) // 2


# --- Checking --------------------------------------------------------------------------------


def check_fit(file: RawFile, needs: ImageNeeds) -> None:
    """Reject an image that does not fit: the action of ``prepare="check"``. May block.

    Raises:
        InvalidRequestError: the image does not fit, or Pillow cannot open it. Lists every problem.
    """
    problems = find_problems(file, needs)
    if problems:
        raise InvalidRequestError({file.field: " ".join(problems)}, hints={"prepare": _OR_FIT})


def find_problems(file: RawFile, needs: ImageNeeds) -> list[str]:
    """Return the problems of an image for a model, as sentences with remedies. May block.

    Raises:
        InvalidRequestError: Pillow cannot open the image.
    """
    return _compare(file, pixels.read_header(file), needs)


def _compare(file: RawFile, header: ImageHeader, needs: ImageNeeds) -> list[str]:
    width, height = header.width, header.height
    problems = []
    if header.format.lower() not in needs.formats:
        accepted = _format_names(needs)
        problems.append(
            f"The file is {_add_article(header.format)}, and the model takes {accepted}. Convert it."
        )
    if header.mode == "CMYK":
        problems.append(f"The file is a CMYK {header.format}. Convert it to RGB.")
    if header.bits > 8:
        problems.append(f"The file has {header.bits} bits per channel. Convert it to 8.")
    if header.mode in ("P", "PA", "1") and header.format != "GIF":
        colours = "only black and white" if header.mode == "1" else "a palette"
        problems.append(f"The file has {colours} instead of full colours. Convert it to RGB.")
    if header.orientation != 1:
        problems.append(
            f"Viewers rotate the image (EXIF orientation {header.orientation}). Rotate its pixels."
        )
    if header.frames > 1:
        problems.append(f"The file is animated ({header.frames} frames). Pass a single frame.")
    if needs.square and width != height:
        problems.append(
            f"The image has {format_size(width, height)} pixels, and the model takes a square. Pad it."
        )
    if needs.max_pixels is not None and width * height > needs.max_pixels:
        problems.append(
            f"The image has {width * height} pixels, and at most {needs.max_pixels} are accepted. Shrink it."
        )
    if needs.max_bytes is not None and file.length > needs.max_bytes:
        problems.append(
            f"The file has {file.length} bytes, and at most {needs.max_bytes} are accepted. Shrink it."
        )
    return problems


# --- Fitting ---------------------------------------------------------------------------------


def fit_image(file: RawFile, needs: ImageNeeds, cleanup: ExitStack) -> tuple[ImageFile, list[str]]:
    """Return an image that fits a model: the action of ``prepare="fit"``. May block.

    Args:
        file: an input from `imgkit.images.inputs.open_file`, in any format that Pillow opens.
        needs: the model's requirements.
        cleanup: receives the resources to close when the call ends.

    Returns:
        The image and the changes, as sentences for ``response.warnings``. A fitting image comes back
        unchanged.

    Raises:
        InvalidRequestError: Pillow cannot open the image, or imgkit cannot make it small enough.
    """
    fitted, changes, _ = _fit(file, needs, cleanup)
    return fitted, changes


def fit_image_and_mask(
    image: RawFile, mask: RawFile, needs: ImageNeeds, mask_needs: ImageNeeds, cleanup: ExitStack
) -> tuple[ImageFile, ImageFile, list[str]]:
    """Return an image and its mask so that both fit and still match. May block.

    Args:
        image, needs: as for `fit_image`.
        mask: a mask for the stored image, or for the displayed image if EXIF rotates it. imgkit resizes a
            mask of another size and the same shape.
        mask_needs: the model's requirements of a mask. A changed mask is always a PNG.
        cleanup: as for `fit_image`.

    Returns:
        The image, the mask and the changes, as sentences.

    Raises:
        InvalidRequestError: as for `fit_image`; or the mask has no transparency, or another shape.
    """
    fitted, changes, place = _fit(image, needs, cleanup)
    mask_header, image_header = pixels.read_header(mask), pixels.read_header(image)
    mask_size = (mask_header.width, mask_header.height)
    stored_size = (image_header.width, image_header.height)
    if place == Placement(1, mask_size, mask_size) and not _compare(mask, mask_header, mask_needs):
        return fitted, ImageFile.from_raw(mask), changes
    opacity = decode_mask(mask)
    if mask_size != image_header.displayed_size or image_header.displayed_size == stored_size:
        opacity = resize_opacity(opacity, stored_size, mask.field)
        opacity = _rotate(opacity, place.orientation)
    opacity = resize_opacity(opacity, place.inner, mask.field)
    encoded = open_bytes(encode_mask(_pad(opacity, place, pixels.OPAQUE)), mask.field, cleanup)
    if mask_needs.max_bytes is not None and encoded.length > mask_needs.max_bytes:
        raise field_error(
            mask.field,
            f"The mask has {encoded.length} bytes even without its colours, and at most "
            f"{mask_needs.max_bytes} are accepted. Draw it with simpler edges, or shrink image and mask.",
        )
    return fitted, encoded, [*changes, f"{mask.field}: Rewritten to match the image."]


def has_moved_pixels(before: RawFile, after: ImageFile) -> bool:
    """Return whether fitting has rotated, shrunk or padded an image, so that its pixels have moved."""
    header = pixels.read_header(before)
    return header.orientation != 1 or (header.width, header.height) != (after.kind.width, after.kind.height)


def _fit(file: RawFile, needs: ImageNeeds, cleanup: ExitStack) -> tuple[ImageFile, list[str], Placement]:
    header = pixels.read_header(file)
    if not _compare(file, header, needs):
        size = (header.width, header.height)
        return ImageFile.from_raw(file), [], Placement(1, size, size)
    changes = _describe_conversions(header)
    image = _rotate(pixels.decode_first_frame(file), header.orientation)
    place = _plan_placement(header, needs)
    data, place, format = _encode_within_limit(file, image, place, header, needs)
    if place.inner != header.displayed_size:
        sizes = f"from {format_size(*header.displayed_size)} to {format_size(*place.inner)} pixels"
        changes.append(f"Shrunk {sizes}")
    if place.outer != place.inner:
        sizes = f"from {format_size(*place.inner)} to {format_size(*place.outer)} pixels"
        changes.append(f"Padded {sizes} around the image")
    if format == "jpeg" and image.mode == "RGBA":
        changes.append("Transparent parts made white")
    if format != header.format.lower():
        changes.append(f"Written as {format}{', with a slight loss of quality' if format == 'jpeg' else ''}")
    elif not changes:
        changes.append(f"Compressed again to {len(data)} bytes instead of {file.length}")
    return open_bytes(data, file.field, cleanup), [f"{file.field}: {change}." for change in changes], place


def _describe_conversions(header: ImageHeader) -> list[str]:
    """Return the changes to the pixels, apart from their number."""
    changes = []
    if header.frames > 1:
        changes.append(f"Reduced to the first of {header.frames} frames")
    if header.mode == "CMYK":
        changes.append("Converted from CMYK to RGB")
    elif header.mode in ("P", "PA", "1"):
        changes.append("Converted to full colours")
    if header.bits > 8:
        changes.append(f"Converted from {header.bits} to 8 bits per channel")
    if header.orientation != 1:
        changes.append(f"Rotated upright (EXIF orientation {header.orientation})")
    return changes


def _plan_placement(header: ImageHeader, needs: ImageNeeds) -> Placement:
    scale, size = 1.0, header.displayed_size
    place = _scale(Placement(header.orientation, size, size), scale, size, needs)
    while needs.max_pixels is not None and place.inner != (1, 1):
        ratio = needs.max_pixels / (place.outer[0] * place.outer[1])
        if ratio >= 1:
            break
        # Several rounds are necessary if one edge is down to its last pixel.
        scale *= min(math.sqrt(ratio), 0.999)
        place = _scale(place, scale, size, needs)
    return place


def _scale(place: Placement, scale: float, size: tuple[int, int], needs: ImageNeeds) -> Placement:
    inner = max(1, int(size[0] * scale)), max(1, int(size[1] * scale))
    outer = (max(inner), max(inner)) if needs.square else inner
    return replace(place, inner=inner, outer=outer)


def _encode_within_limit(
    file: RawFile, image: PIL.Image.Image, place: Placement, header: ImageHeader, needs: ImageNeeds
) -> tuple[bytes, Placement, Format]:
    """Encode an image within the limit, with all its pixels if possible, else with fewer in each step."""
    own_format: Format | None = next((name for name in needs.formats if name == header.format.lower()), None)
    scale = max(place.inner) / max(header.displayed_size)
    for _ in range(_MAX_SHRINK_STEPS):
        encoded = pixels.encode_image(_place(image, place, needs), own_format, needs.formats, needs.max_bytes)
        if encoded is not None and (needs.max_bytes is None or len(encoded[0]) <= needs.max_bytes):
            return encoded[0], place, encoded[1]
        if place.inner == (1, 1):
            break
        ratio = needs.max_bytes / len(encoded[0]) if encoded and needs.max_bytes else 0.0
        scale *= min(_GENTLEST_STEP, max(_STEEPEST_STEP, math.sqrt(ratio) * _STEP_MARGIN))
        place = _scale(place, scale, header.displayed_size, needs)
    limit = f"{needs.max_bytes} bytes" if needs.max_bytes else "this size"
    raise field_error(
        file.field, f"The image cannot be written as {_format_names(needs)} of {limit}. Pass another image."
    )


# --- Pixels ----------------------------------------------------------------------------------


def _place(image: PIL.Image.Image, place: Placement, needs: ImageNeeds) -> PIL.Image.Image:
    """Return the image shrunk and padded to its placement."""
    profile = image.info.get("icc_profile")
    if image.size != place.inner:
        image = _shrink(image, place.inner)
    if place.outer != place.inner:
        if needs.formats & {"png", "webp"}:
            image = _pad(image.convert("RGBA"), place, (0, 0, 0, 0))
        else:
            image = _pad(image, place, _mean_edge_colour(image))
    image.info["icc_profile"] = profile
    return image


def _shrink(image: PIL.Image.Image, size: tuple[int, int]) -> PIL.Image.Image:
    """Return a smaller image. Fully transparent pixels keep their colours, which a model may see."""
    from PIL.Image import Resampling

    # Pillow weighs colours by their opacity, which leaves black where nothing is opaque.
    small = image.resize(size, Resampling.LANCZOS)
    if image.mode != "RGBA":
        return small
    opacity = small.getchannel("A")
    if opacity.getextrema()[0] == 0:
        hidden = opacity.point([255 * (value == 0) for value in range(256)])
        small = small.convert("RGB")
        small.paste(image.convert("RGB").resize(size, Resampling.LANCZOS), mask=hidden)
        small.putalpha(opacity)
    return small


def _pad(image: PIL.Image.Image, place: Placement, fill: int | tuple[int, ...]) -> PIL.Image.Image:
    import PIL.Image

    if place.outer == image.size:
        return image
    page = PIL.Image.new(image.mode, place.outer, fill)
    page.paste(image, place.corner)
    return page


def _mean_edge_colour(image: PIL.Image.Image) -> int | tuple[int, ...]:
    """Return the mean colour along the two edges that padding will extend."""
    import PIL.Image

    width, height = image.size
    edges = (
        ((0, 0, width, 1), (0, height - 1, width, height))
        if width > height
        else ((0, 0, 1, height), (width - 1, 0, width, height))
    )
    means = [image.crop(edge).resize((1, 1), PIL.Image.Resampling.BOX).tobytes() for edge in edges]
    colour = tuple((first + second) // 2 for first, second in zip(*means, strict=True))
    return colour if len(colour) > 1 else colour[0]


def _rotate(image: PIL.Image.Image, orientation: int) -> PIL.Image.Image:
    """Return the image in its EXIF orientation (CIPA DC-008, tag 0x0112)."""
    from PIL.Image import Transpose

    method = {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE, 6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
    }.get(orientation)  # fmt: skip
    if method is None:
        return image
    profile = image.info.get("icc_profile")
    rotated = image.transpose(method)
    rotated.info["icc_profile"] = profile
    return rotated


# --- Words ---------------------------------------------------------------------------------


def _format_names(needs: ImageNeeds) -> str:
    return " or ".join(sorted(name.upper() for name in needs.formats))


def _add_article(name: str) -> str:
    return f"an {name}" if name[:1] in "AEIO" else f"a {name}"
