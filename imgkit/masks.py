"""Masks mark the pixels of an image that an edit may change.

A mask is a PNG of the image's size. An edit may change its *transparent* pixels and keeps the opaque pixels,
as in OpenAI's Images API (API reference of ``POST /images/edits``, read 2026-11-23). If a provider's API
marks the changeable pixels with white, imgkit converts the mask before sending it.

>>> from imgkit import masks
>>> hole = masks.from_box((64, 48), (8, 8, 32, 16))
>>> masks.check(hole, masks.from_box((64, 48), (0, 0, 1, 1)))
[]

Every function takes an image as `imgkit.ImageInput`: a path, bytes, an open binary file, a Pillow image, an
image of a response, or a ``data:`` URL. Sizes and positions refer to the stored pixels, before the EXIF
orientation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

from imgkit.errors import InvalidRequestError
from imgkit.images import mask_pixels, pixels
from imgkit.images.inputs import ImageFile, find_type_problem, open_input
from imgkit.images.mask_pixels import (
    check_shape,
    check_still,
    decode_mask,
    encode_mask,
    field_error,
    format_size,
    invert_opacity,
    resize_opacity,
)
from imgkit.models import ImageInput
from imgkit.wire.plain_values import describe_failure, has_type, show_value, to_integer, to_number

if TYPE_CHECKING:
    import PIL.Image

LikeOrSize: TypeAlias = ImageInput | tuple[int, int]
"""An image whose size counts, or width and height in pixels."""

__all__ = [
    "LikeOrSize", "check", "feather", "from_black", "from_box", "from_polygon", "from_white", "invert",
    "resize", "to_white", "union",
]  # fmt: skip

_MAX_EDGE_PX = 65_535
_MAX_POINTS = 10_000
_MAX_RADIUS_PX = 1_000


def from_white(picture: ImageInput, *, like: LikeOrSize | None = None, threshold: int = 128) -> bytes:
    """Make a mask from a drawing whose white pixels may change.

    >>> from PIL import Image
    >>> len(from_white(Image.new("L", (64, 48), "white"))) > 0
    True

    Args:
        picture: a drawing in black and white, greys, or colours (taken as greys). Transparent pixels stay.
        like: the image of the mask, or its size; the mask is scaled to that size.
        threshold: the darkest grey that counts as white, 1 to 255.

    Returns:
        The bytes of a PNG.

    Raises:
        InvalidRequestError: no image, animated, of another shape than `like`, or without white pixels.
    """
    return _from_grey(picture, like, threshold, white=True)


def from_black(picture: ImageInput, *, like: LikeOrSize | None = None, threshold: int = 128) -> bytes:
    """Make a mask from a drawing whose black pixels may change.

    >>> from PIL import Image
    >>> len(from_black(Image.new("L", (64, 48), "black"), like=(128, 96))) > 0
    True

    Args:
        picture: as for `from_white`.
        like: the image of the mask, or its size; the mask is scaled to that size.
        threshold: the darkest grey that does *not* count as black, 1 to 255.

    Returns:
        The bytes of a PNG.

    Raises:
        InvalidRequestError: as for `from_white`.
    """
    return _from_grey(picture, like, threshold, white=False)


def from_box(like_or_size: LikeOrSize, box: tuple[int, int, int, int]) -> bytes:
    """Make a mask whose hole is a box.

    >>> check(from_box((64, 48), (8, 8, 32, 16)), from_box((64, 48), (0, 0, 1, 1)))
    []

    Args:
        like_or_size: the image of the mask, or its width and height in pixels.
        box: x, y, width, height in pixels; x and y are the position of its upper left pixel.

    Returns:
        The bytes of a PNG.

    Raises:
        InvalidRequestError: the box is empty, or not inside the image.
    """
    import PIL.Image

    width, height = _parse_size(like_or_size, "like_or_size")
    numbers = _parse_whole_numbers(box, "box", 4, "x, y, width, height")
    left, top, box_width, box_height = numbers
    if box_width < 1 or box_height < 1:
        raise field_error("box", "The box is empty. Its width and height must be at least 1.")
    if left < 0 or top < 0 or left + box_width > width or top + box_height > height:
        raise field_error(
            "box", f"{tuple(numbers)} is not within {width}x{height} pixels. Pass x, y, width, height."
        )
    opacity = PIL.Image.new("L", (width, height), pixels.OPAQUE)
    opacity.paste(0, (left, top, left + box_width, top + box_height))
    return encode_mask(opacity)


def from_polygon(like_or_size: LikeOrSize, points: Sequence[tuple[float, float]]) -> bytes:
    """Make a mask whose hole is a polygon.

    >>> triangle = from_polygon((64, 48), [(8, 8), (56, 8), (32, 40)])

    Args:
        like_or_size: the image of the mask, or its width and height in pixels.
        points: x and y of each corner in pixels, from 0 to the image's width and height. A pixel belongs to
            the hole if its centre does. Areas that crossing lines enclose twice do not belong to it.

    Returns:
        The bytes of a PNG.

    Raises:
        InvalidRequestError: fewer than three points, a point outside of the image, or no pixel enclosed.
    """
    import PIL.Image

    width, height = _parse_size(like_or_size, "like_or_size")
    corners = _parse_corners(points, width, height)
    rows = [bytearray(b"\xff" * width) for _ in range(height)]
    enclosed = False
    for y, crossings in enumerate(_find_crossings(corners, height)):
        for start, end in zip(crossings[::2], crossings[1::2], strict=True):
            left, right = math.ceil(start - 0.5), math.ceil(end - 0.5)
            rows[y][left:right] = bytes(right - left)
            enclosed |= right > left
    if not enclosed:
        raise field_error("points", "The points enclose no pixel. Pass the corners of an area in order.")
    return encode_mask(PIL.Image.frombytes("L", (width, height), b"".join(rows)))


def union(*masks: ImageInput) -> bytes:
    """Make a mask with the holes of all masks: a pixel may change if any mask permits it.

    >>> both = union(from_box((64, 48), (0, 0, 8, 8)), from_box((64, 48), (8, 8, 8, 8)))

    Args:
        masks: at least one mask; all of the same size.

    Returns:
        The bytes of a PNG.

    Raises:
        InvalidRequestError: no masks, an image without transparency, or different sizes.
    """
    from PIL import ImageChops

    if not masks:
        raise field_error("masks", "There is no mask. Pass at least one.")
    combined = _decode_mask(masks[0], "masks.0")
    for index, mask in enumerate(masks[1:], 1):
        opacity = _decode_mask(mask, f"masks.{index}")
        if combined.size != opacity.size:
            raise field_error(
                f"masks.{index}",
                f"The mask has {format_size(*opacity.size)} pixels, the first mask "
                f"{format_size(*combined.size)}. Resize the masks with imgkit.masks.resize.",
            )
        combined = ImageChops.darker(combined, opacity)
    return encode_mask(combined)


def invert(mask: ImageInput) -> bytes:
    """Make a mask with hole and rest exchanged.

    >>> outside = invert(from_box((64, 48), (8, 8, 32, 16)))

    Args:
        mask: an image with transparency.

    Returns:
        The bytes of a PNG.

    Raises:
        InvalidRequestError: the image has no transparency.
    """
    return encode_mask(invert_opacity(_decode_mask(mask, "mask")))


def feather(mask: ImageInput, radius_px: float) -> bytes:
    """Make the edges of a mask soft, to blend the new pixels into the kept pixels.

    >>> soft = feather(from_box((64, 48), (8, 8, 32, 16)), radius_px=2)

    Args:
        mask: an image with transparency.
        radius_px: standard deviation of the Gaussian blur, in pixels; over 0, at most 1000.

    Returns:
        The bytes of a PNG.

    Raises:
        InvalidRequestError: the image has no transparency, or the radius is so wide that the hole vanishes.
    """
    from PIL import ImageFilter

    radius = to_number(radius_px)
    if radius is None or not 0 < radius <= _MAX_RADIUS_PX:
        raise field_error("radius_px", f"Must be a number of pixels over 0, at most {_MAX_RADIUS_PX}.")
    soft = _decode_mask(mask, "mask").filter(ImageFilter.GaussianBlur(radius))
    if pixels.is_opaque(soft):
        raise field_error(
            "radius_px", "The radius is wider than the hole, which would vanish. Reduce the radius."
        )
    return encode_mask(soft)


def resize(mask: ImageInput, like_or_size: LikeOrSize) -> bytes:
    """Scale a mask to the size of an image of the same shape.

    >>> large = resize(from_box((64, 48), (8, 8, 32, 16)), (128, 96))

    Args:
        mask: an image with transparency. Hard edges stay hard.
        like_or_size: the image of the mask, or its width and height in pixels.

    Returns:
        The bytes of a PNG.

    Raises:
        InvalidRequestError: the mask has no transparency, the image has another shape, or the hole vanishes.
    """
    return encode_mask(
        resize_opacity(_decode_mask(mask, "mask"), _parse_size(like_or_size, "like_or_size"), "mask")
    )


def to_white(mask: ImageInput) -> bytes:
    """Return a mask as a grey image whose white pixels may change, as some other APIs require.

    >>> white = to_white(from_box((64, 48), (8, 8, 32, 16)))

    Args:
        mask: an image with transparency.

    Returns:
        The bytes of a PNG without transparency.

    Raises:
        InvalidRequestError: the image has no transparency.
    """
    return pixels.encode_png(invert_opacity(_decode_mask(mask, "mask")))


def check(mask: ImageInput, image: ImageInput, *, max_bytes: int = mask_pixels.MAX_MASK_BYTES) -> list[str]:
    """Return the problems of a mask for an image: reasons for a rejection by `create_image_edit`, and doubts.

    >>> whole = from_box((8, 8), (0, 0, 8, 8))
    >>> check(whole, whole)[0][:40]
    'The mask is transparent everywhere, so t'

    Args:
        mask: the mask.
        image: the image of the mask.
        max_bytes: the API's limit, 4 MB by default.

    Returns:
        The problems, as sentences with remedies; empty if there are none.

    Raises:
        InvalidRequestError: the mask or the image cannot be opened, or `max_bytes` is no number of bytes.
    """
    if (limit := to_integer(max_bytes) or 0) < 1:
        raise field_error("max_bytes", "Must be a whole number of bytes, at least 1.")
    with ExitStack() as cleanup:
        opened = _open(mask, "mask", cleanup), _open(image, "image", cleanup)
        report = mask_pixels.examine_mask(*opened, max_bytes=limit)
    return [*report.problems, *report.doubts]


def _from_grey(picture: ImageInput, like: LikeOrSize | None, threshold: int, *, white: bool) -> bytes:
    import PIL.Image

    level = to_integer(threshold)
    if level is None or not 1 <= level <= 255:
        raise field_error("threshold", "Must be a whole number from 1 to 255.")
    with ExitStack() as cleanup:
        file = _open(picture, "picture", cleanup)
        check_still(file)
        grey = pixels.decode_grey(file, backdrop=0 if white else 255)
    size = grey.size if like is None else _parse_size(like, "like")
    if grey.size != size:
        check_shape(grey.size, size, "picture")
        grey = grey.resize(size, PIL.Image.Resampling.BOX)
    opacity = grey.point([pixels.OPAQUE * ((value < level) == white) for value in range(256)])
    if pixels.is_opaque(opacity):
        colour, other = ("white", "from_black") if white else ("black", "from_white")
        raise field_error(
            "picture",
            f"The drawing has no {colour} pixels (threshold {level}), so nothing could change. Paint the "
            f"changeable parts {colour}, or use imgkit.masks.{other}.",
        )
    return encode_mask(opacity)


def _open(picture: ImageInput, field: str, cleanup: ExitStack) -> ImageFile:
    try:
        problem = find_type_problem(picture)
    except Exception as error:  # of the caller's object
        problem = f"The value cannot be read ({describe_failure(error)}). Pass a path, bytes or an open file."
    if problem is not None:
        raise InvalidRequestError({field: problem})
    return open_input(picture, field, cleanup)


def _decode_mask(mask: ImageInput, field: str) -> PIL.Image.Image:
    with ExitStack() as cleanup:
        return decode_mask(_open(mask, field, cleanup))


def _parse_size(value: Any, field: str) -> tuple[int, int]:
    """Return the size of an image, or the given size, in pixels."""
    if issubclass(type(value), tuple):
        width, height = _parse_whole_numbers(value, field, 2, "width, height")
    else:
        with ExitStack() as cleanup:
            kind = _open(value, field, cleanup).kind
        width, height = kind.width or 0, kind.height or 0
    if not (1 <= width <= _MAX_EDGE_PX and 1 <= height <= _MAX_EDGE_PX):
        raise field_error(
            field,
            f"{format_size(width, height)} is not a size. Pass 1 to {_MAX_EDGE_PX} pixels for each side.",
        )
    if width * height > pixels.MAX_DECODED_PIXELS:
        raise field_error(
            field,
            f"{format_size(width, height)} is over {pixels.MAX_DECODED_PIXELS} pixels. Shrink it first.",
        )
    return width, height


def _parse_whole_numbers(value: object, field: str, count: int, names: str) -> list[int]:
    given = list(value) if issubclass(type(value), tuple | list) else []  # type: ignore[call-overload]
    numbers = [number for item in given if (number := to_integer(item)) is not None]
    if not len(numbers) == len(given) == count:
        raise field_error(field, f"Must be {count} whole numbers: {names}, in pixels.")
    return numbers


def _parse_corners(points: Any, width: int, height: int) -> list[tuple[float, float]]:
    try:
        corners = [] if issubclass(type(points), str | bytes) else [*islice(iter(points), _MAX_POINTS + 1)]
    except Exception:  # no iterable, or broken
        corners = []
    if not 3 <= len(corners) <= _MAX_POINTS:
        raise field_error("points", f"Pass 3 to {_MAX_POINTS} corners (x, y) in pixels, not {len(corners)}.")
    plain = []
    for index, point in enumerate(corners):
        given = list(point) if has_type(point, tuple) or has_type(point, list) else []
        numbers = [number for item in given if (number := to_number(item)) is not None]
        if not len(numbers) == len(given) == 2:
            raise field_error(f"points.{index}", "Must be two numbers: x, y, in pixels.")
        x, y = numbers
        if not (0 <= x <= width and 0 <= y <= height):
            place = f"({show_value(x)}, {show_value(y)})"
            raise field_error(f"points.{index}", f"{place} is outside of {width}x{height} pixels.")
        plain.append((float(x), float(y)))
    return plain


def _find_crossings(corners: list[tuple[float, float]], height: int) -> list[list[float]]:
    """Return the sorted x positions at which the lines cross the centre of each pixel row."""
    rows: list[list[float]] = [[] for _ in range(height)]
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y1 > y2:
            x1, y1, x2, y2 = x2, y2, x1, y1
        for row in range(math.ceil(y1 - 0.5), math.ceil(y2 - 0.5)):
            rows[row].append(x1 + (row + 0.5 - y1) * (x2 - x1) / (y2 - y1))
    return [sorted(row) for row in rows]
