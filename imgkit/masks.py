"""Masks: which pixels of a picture may change.

A mask is a PNG of the picture's size. Its *transparent* pixels are what may change, its opaque ones stay, as
OpenAI's Images API has it (API reference of ``POST /images/edits``, read 2026-11-23). A provider whose API
wants white for what may change declares so, and the mask is converted on its way.

>>> from imgkit import masks
>>> hole = masks.from_box((64, 48), (8, 8, 32, 16))
>>> masks.check(hole, masks.from_box((64, 48), (0, 0, 1, 1)))
[]

Wherever a picture is taken, it may be what `imgkit.ImageInput` names: a path, bytes, an open binary file, a
Pillow image, an image of a reply, a ``data:`` URL. Sizes and positions are those of the stored pixels: an
orientation in EXIF is not applied.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeAlias

from imgkit.errors import InvalidRequestError
from imgkit.images import mask_pixels, pixels
from imgkit.images.inputs import ImageFile, check_type, open_input
from imgkit.images.mask_pixels import (
    by,
    check_shape,
    check_still,
    inverted,
    opacity_of,
    resized,
    rewritten,
    wrong,
)
from imgkit.models import ImageInput

if TYPE_CHECKING:
    import PIL.Image

LikeOrSize: TypeAlias = ImageInput | tuple[int, int]
"""A picture whose size is meant, or width and height in pixels."""

__all__ = [
    "LikeOrSize", "check", "feather", "from_black", "from_box", "from_polygon", "from_white", "invert",
    "resize", "to_white", "union",
]  # fmt: skip

_LONGEST_EDGE = 65_535
_MOST_POINTS = 10_000
_WIDEST_RADIUS = 1_000


def from_white(picture: ImageInput, *, like: LikeOrSize | None = None, threshold: int = 128) -> bytes:
    """Make a mask of a picture in which white is what may change.

    Args:
        picture: black and white, or greys, or colours taken as greys; what is transparent in it stays.
        like: the picture that the mask is for, or its size; the mask is brought to that size.
        threshold: the darkest grey that counts as white, 1 to 255.

    Returns:
        The bytes of a PNG.

    Raises:
        InvalidRequestError: not a picture, animated, of another shape than `like`, nothing is white.
    """
    return _from_grey(picture, like, threshold, white=True)


def from_black(picture: ImageInput, *, like: LikeOrSize | None = None, threshold: int = 128) -> bytes:
    """Make a mask of a picture in which black is what may change.

    Args:
        picture: as for `from_white`.
        like: the picture that the mask is for, or its size; the mask is brought to that size.
        threshold: the darkest grey that does *not* count as black, 1 to 255.

    Returns:
        The bytes of a PNG.

    Raises:
        InvalidRequestError: as for `from_white`.
    """
    return _from_grey(picture, like, threshold, white=False)


def from_box(like_or_size: LikeOrSize, box: tuple[int, int, int, int]) -> bytes:
    """Make a mask whose hole is a box.

    Args:
        like_or_size: the picture that the mask is for, or its width and height in pixels.
        box: x, y, width, height in pixels; x and y are those of its upper left pixel.

    Returns:
        The bytes of a PNG.

    Raises:
        InvalidRequestError: the box is empty, or not inside the picture.
    """
    import PIL.Image

    width, height = _size(like_or_size, "like_or_size")
    numbers = _whole_numbers(box, "box", 4, "x, y, width, height")
    left, top, across, down = numbers
    if across < 1 or down < 1:
        raise wrong("box", "is empty: its width and height are at least 1")
    if left < 0 or top < 0 or left + across > width or top + down > height:
        raise wrong(
            "box", f"{tuple(numbers)} is not inside of {width}x{height} pixels: give x, y, width, height"
        )
    opaque = PIL.Image.new("L", (width, height), pixels.OPAQUE)
    opaque.paste(0, (left, top, left + across, top + down))
    return rewritten(opaque)


def from_polygon(like_or_size: LikeOrSize, points: Sequence[tuple[float, float]]) -> bytes:
    """Make a mask whose hole is a polygon.

    Args:
        like_or_size: the picture that the mask is for, or its width and height in pixels.
        points: x and y of each corner in pixels, from 0 to the picture's width and height; a pixel is in
            if its middle is. Where lines cross, what is enclosed twice is out.

    Returns:
        The bytes of a PNG.

    Raises:
        InvalidRequestError: fewer than three points, one outside of the picture, or no pixel enclosed.
    """
    import PIL.Image

    width, height = _size(like_or_size, "like_or_size")
    corners = _corners(points, width, height)
    rows = [bytearray(b"\xff" * width) for _ in range(height)]
    enclosed = False
    for y, crossings in enumerate(_crossings(corners, height)):
        for start, end in zip(crossings[::2], crossings[1::2], strict=True):
            left, right = math.ceil(start - 0.5), math.ceil(end - 0.5)
            rows[y][left:right] = bytes(right - left)
            enclosed |= right > left
    if not enclosed:
        raise wrong("points", "enclose no pixel: give the corners of an area, in order")
    return rewritten(PIL.Image.frombytes("L", (width, height), b"".join(rows)))


def union(*masks: ImageInput) -> bytes:
    """Make a mask with the holes of all: a pixel may change if one of them lets it.

    Args:
        masks: one or more, all of one size.

    Returns:
        The bytes of a PNG.

    Raises:
        InvalidRequestError: none given, one is no mask, or their sizes differ.
    """
    from PIL import ImageChops

    if not masks:
        raise wrong("masks", "give at least one")
    whole: PIL.Image.Image | None = None
    for index, mask in enumerate(masks):
        opaque = _opacity(mask, f"masks.{index}")
        if whole is not None and whole.size != opaque.size:
            raise wrong(
                f"masks.{index}",
                f"is {by(*opaque.size)} pixels, the first one {by(*whole.size)}: bring them to one size "
                "with imgkit.masks.resize",
            )
        whole = opaque if whole is None else ImageChops.darker(whole, opaque)
    assert whole is not None, "there is at least one"
    return rewritten(whole)


def invert(mask: ImageInput) -> bytes:
    """Make a mask that lets change what `mask` keeps, and the other way round.

    Args:
        mask: a picture with transparency.

    Returns:
        The bytes of a PNG.

    Raises:
        InvalidRequestError: it is no mask.
    """
    return rewritten(inverted(_opacity(mask, "mask")))


def feather(mask: ImageInput, radius_px: float) -> bytes:
    """Make the edges of a mask soft, so that what is new blends into what stays.

    Args:
        mask: a picture with transparency.
        radius_px: standard deviation of the Gaussian blur, in pixels; over 0, at most 1000.

    Returns:
        The bytes of a PNG.

    Raises:
        InvalidRequestError: it is no mask, or the radius is so wide that nothing could change any more.
    """
    from PIL import ImageFilter

    if not _is_number(radius_px) or not 0 < radius_px <= _WIDEST_RADIUS:
        raise wrong("radius_px", f"is a number of pixels over 0, at most {_WIDEST_RADIUS}")
    soft = _opacity(mask, "mask").filter(ImageFilter.GaussianBlur(radius_px))
    if pixels.hides_all(soft):
        raise wrong("radius_px", "is wider than the hole, of which nothing would be left: make it smaller")
    return rewritten(soft)


def resize(mask: ImageInput, like_or_size: LikeOrSize) -> bytes:
    """Bring a mask to the size of a picture of the same shape.

    Args:
        mask: a picture with transparency. Hard edges stay hard.
        like_or_size: the picture that the mask is for, or its width and height in pixels.

    Returns:
        The bytes of a PNG.

    Raises:
        InvalidRequestError: it is no mask, the picture has another shape, or the hole would be lost.
    """
    return rewritten(resized(_opacity(mask, "mask"), _size(like_or_size, "like_or_size"), "mask"))


def to_white(mask: ImageInput) -> bytes:
    """Return a mask as a grey picture in which white is what may change, as some other APIs have it.

    Args:
        mask: a picture with transparency.

    Returns:
        The bytes of a PNG without transparency.

    Raises:
        InvalidRequestError: it is no mask.
    """
    return pixels.png_bytes(inverted(_opacity(mask, "mask")))


def check(mask: ImageInput, image: ImageInput, *, max_bytes: int = mask_pixels.MOST_BYTES) -> list[str]:
    """Tell what is wrong with a mask for a picture; what `create_image_edit` would refuse, and what is odd.

    Args:
        mask: the mask.
        image: the picture that it is for.
        max_bytes: what the API takes, 4 MB by default.

    Returns:
        What is wrong, in words that name what to do; empty if nothing is.

    Raises:
        InvalidRequestError: one of the two cannot be opened at all.
    """
    with ExitStack() as cleanup:
        found = mask_pixels.judge(
            _opened(mask, "mask", cleanup), _opened(image, "image", cleanup), max_bytes=max_bytes
        )
    return [*found.problems, *found.doubts]


def _from_grey(picture: ImageInput, like: LikeOrSize | None, threshold: int, *, white: bool) -> bytes:
    import PIL.Image

    if type(threshold) is not int or not 1 <= threshold <= 255:
        raise wrong("threshold", "is a whole number from 1 to 255")
    with ExitStack() as cleanup:
        file = _opened(picture, "picture", cleanup)
        check_still(file)
        grey = pixels.grey(file, backdrop=0 if white else 255)
    size = grey.size if like is None else _size(like, "like")
    if grey.size != size:
        check_shape(grey.size, size, "picture")
        grey = grey.resize(size, PIL.Image.Resampling.BOX)
    opaque = grey.point([pixels.OPAQUE * ((value < threshold) == white) for value in range(256)])
    if pixels.hides_all(opaque):
        colour, other = ("white", "from_black") if white else ("black", "from_white")
        raise wrong(
            "picture",
            f"has nothing {colour} (threshold {threshold}), so nothing could change: paint {colour} what "
            f"may, or use imgkit.masks.{other}",
        )
    return rewritten(opaque)


def _opened(picture: ImageInput, field: str, cleanup: ExitStack) -> ImageFile:
    problem = check_type(picture)
    if problem is not None:
        raise InvalidRequestError({field: problem})
    return open_input(picture, field, cleanup)


def _opacity(mask: ImageInput, field: str) -> PIL.Image.Image:
    with ExitStack() as cleanup:
        return opacity_of(_opened(mask, field, cleanup))


def _size(value: Any, field: str) -> tuple[int, int]:
    """Return the size that is meant, in pixels."""
    if isinstance(value, tuple):
        width, height = _whole_numbers(value, field, 2, "width, height")
    else:
        with ExitStack() as cleanup:
            kind = _opened(value, field, cleanup).kind
        width, height = kind.width or 0, kind.height or 0
    if not (1 <= width <= _LONGEST_EDGE and 1 <= height <= _LONGEST_EDGE):
        raise wrong(field, f"{by(width, height)} is no size: give 1 to {_LONGEST_EDGE} pixels each way")
    if width * height > pixels.MOST_DECODED_PIXELS:
        raise wrong(
            field, f"{by(width, height)} is over {pixels.MOST_DECODED_PIXELS} pixels: shrink it first"
        )
    return width, height


def _whole_numbers(value: Any, field: str, count: int, names: str) -> list[int]:
    numbers = list(value) if isinstance(value, tuple | list) else []
    if len(numbers) != count or any(type(number) is not int for number in numbers):
        raise wrong(field, f"is {count} whole numbers: {names}, in pixels")
    return numbers


def _corners(points: Any, width: int, height: int) -> list[tuple[float, float]]:
    given = list(points) if isinstance(points, Iterable) and not isinstance(points, str | bytes) else []
    if not 3 <= len(given) <= _MOST_POINTS:
        raise wrong(
            "points", f"are 3 to {_MOST_POINTS} corners, each (x, y) in pixels; {len(given)} are given"
        )
    for index, point in enumerate(given):
        if not isinstance(point, tuple | list) or len(point) != 2 or not all(map(_is_number, point)):
            raise wrong(f"points.{index}", "is two numbers: x, y, in pixels")
        if not (0 <= point[0] <= width and 0 <= point[1] <= height):
            raise wrong(
                f"points.{index}", f"({point[0]}, {point[1]}) is outside of {by(width, height)} pixels"
            )
    return [(float(x), float(y)) for x, y in given]


def _crossings(corners: list[tuple[float, float]], height: int) -> list[list[float]]:
    """Return, for the middle of each row of pixels, where the lines cross it, from left to right."""
    found: list[list[float]] = [[] for _ in range(height)]
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y1 > y2:
            x1, y1, x2, y2 = x2, y2, x1, y1
        for row in range(math.ceil(y1 - 0.5), math.ceil(y2 - 0.5)):
            found[row].append(x1 + (row + 0.5 - y1) * (x2 - x1) / (y2 - y1))
    return [sorted(row) for row in found]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
