"""Brush strokes of the scenery: gradients, smooth hills, soft discs. Whole numbers only."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw

from imgkit.painter.palette import Colour

SUBPIXELS = 4
"""Vertical subpixels per pixel in the outlines of hills."""


def paint_gradient(size: tuple[int, int], stops: Sequence[Colour]) -> Image.Image:
    """Paint a vertical gradient.

    Args:
        size: width and height in pixels.
        stops: two colours or more, evenly spaced from top to bottom.

    Returns:
        An RGB image. Each row has a single colour, which compresses very well.
    """
    _width, height = size
    column = bytearray()
    spans = len(stops) - 1
    for y in range(height):
        place = y * spans * 1000 // max(1, height - 1)
        index = min(spans - 1, place // 1000)
        part = place - index * 1000
        upper, lower = stops[index], stops[index + 1]
        column += bytes((a * (1000 - part) + b * part) // 1000 for a, b in zip(upper, lower, strict=True))
    return Image.frombytes("RGB", (1, height), bytes(column)).resize(size, Image.Resampling.NEAREST)


def build_ridge(width: int, top: int, bottom: int, bumps: int, rng: random.Random) -> list[tuple[int, int]]:
    """Build a random outline of a range of hills.

    Args:
        width: pixels across.
        top: smallest y in pixels.
        bottom: largest y in pixels.
        bumps: approximate number of hills.
        rng: the source of randomness.

    Returns:
        Points from the left edge to the right edge; x in pixels, y in subpixels (`SUBPIXELS`).
    """
    count = max(2, bumps * 2)
    marks = [
        rng.randint(top, bottom) if index % 2 else rng.randint((top + bottom) // 2, bottom)
        for index in range(count + 1)
    ]
    step = max(2, width // 160)
    points = []
    for x in [*range(0, width, step), width]:
        place = x * count * 1000 // width
        index = min(count - 1, place // 1000)
        part = place - index * 1000
        ease = part * part * (3000 - 2 * part) // 1_000_000
        points.append((x, (marks[index] * (1000 - ease) + marks[index + 1] * ease) * SUBPIXELS // 1000))
    return points


def paint_land(page: Image.Image, outline: Sequence[tuple[int, int]], colours: Sequence[Colour]) -> None:
    """Paint everything below an outline, in place.

    Args:
        page: an RGB image.
        outline: points from left to right; x in pixels, y in subpixels (`SUBPIXELS`).
        colours: from the top of the land to the bottom of the image.
    """
    top = max(0, min(y for _, y in outline) // SUBPIXELS)
    low = min(page.height, max(y for _, y in outline) // SUBPIXELS + 2)
    if low <= top:
        return
    # Only the band around the edge needs a mask; the area below is painted whole.
    mask = Image.new("L", (page.width, (low - top) * SUBPIXELS))
    shifted = [(x, y - top * SUBPIXELS) for x, y in outline]
    below = mask.height + SUBPIXELS
    ImageDraw.Draw(mask).polygon([(0, below), *shifted, (page.width, below)], fill=255)
    edge = mask.reduce((1, SUBPIXELS))
    if len(colours) == 1:
        page.paste(colours[0], (0, top, page.width, low), edge)
        page.paste(colours[0], (0, low, page.width, page.height))
        return
    paint = paint_gradient((page.width, page.height - top), colours)
    page.paste(paint.crop((0, 0, page.width, low - top)), (0, top), edge)
    page.paste(paint.crop((0, low - top, page.width, paint.height)), (0, low))


def paint_polygons(
    page: Image.Image,
    shapes: Iterable[tuple[Sequence[tuple[int, int]], Colour]],
    box: tuple[int, int, int, int],
) -> None:
    """Paint polygons with smooth edges, in place.

    Args:
        page: an RGB image.
        shapes: pairs of corner points, in pixels of the page, and a colour.
        box: left, top, right and bottom of the bounding box of all polygons, in pixels.
    """
    left, top, right, bottom = (
        max(0, box[0]),
        max(0, box[1]),
        min(page.width, box[2]),
        min(page.height, box[3]),
    )
    if right <= left or bottom <= top:
        return
    large = page.crop((left, top, right, bottom)).resize(
        ((right - left) * 2, (bottom - top) * 2), Image.Resampling.NEAREST
    )
    pencil = ImageDraw.Draw(large)
    for points, colour in shapes:
        pencil.polygon([((x - left) * 2, (y - top) * 2) for x, y in points], fill=colour)
    page.paste(large.reduce(2), (left, top))


def paint_disc(page: Image.Image, centre: tuple[int, int], radius: int, colour: Colour) -> None:
    """Paint a filled circle with a smooth edge, in place.

    Args:
        page: an RGB or RGBA image.
        centre: x and y in pixels.
        radius: in pixels.
        colour: of the circle.
    """
    fine = 4 if radius < 60 else 2
    side = max(1, radius * 2)
    mask = Image.new("L", (side * fine, side * fine))
    ImageDraw.Draw(mask).ellipse((0, 0, side * fine - 1, side * fine - 1), fill=255)
    page.paste(colour, (centre[0] - side // 2, centre[1] - side // 2), mask.reduce(fine))


_GLOW_MASK = Image.radial_gradient("L").point([255 - min(255, value * 14 // 10) for value in range(256)])


def paint_glow(
    page: Image.Image, centre: tuple[int, int], reach: tuple[int, int], colour: Colour, strength: int
) -> None:
    """Paint a soft spot of light or shadow, in place.

    Args:
        page: an RGB image.
        centre: x and y in pixels.
        reach: half the width and half the height, in pixels.
        colour: of the light.
        strength: percent at the centre.
    """
    width, height = max(1, reach[0] * 2), max(1, reach[1] * 2)
    soft = _GLOW_MASK.resize((width, height), Image.Resampling.BILINEAR).point(
        [value * strength // 100 for value in range(256)]
    )
    page.paste(colour, (centre[0] - width // 2, centre[1] - height // 2), soft)


def paint_shadow(
    page: Image.Image, centre: tuple[int, int], reach: tuple[int, int], strength: int = 46
) -> None:
    """Paint the soft shadow of a standing figure, in place.

    Args:
        page: an RGB image.
        centre: x and y in pixels.
        reach: half the width and half the height, in pixels.
        strength: percent at the centre.
    """
    paint_glow(page, centre, reach, (24, 22, 44), strength)
