"""Strokes of the scenery: gradients, smooth hills, soft discs. Whole numbers only."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw

from imgkit.painter.palette import Colour

FINE = 4
"""How many times finer than the picture the edges of hills are drawn, downwards only."""


def gradient(size: tuple[int, int], stops: Sequence[Colour]) -> Image.Image:
    """Paint colours from top to bottom, blending from each to the next.

    Parameters:
        size: width and height in pixels.
        stops: two colours or more, evenly spaced.

    Returns:
        An RGB picture whose rows are of one colour each, which compresses very well.
    """
    _width, height = size
    column = bytearray()
    spans = len(stops) - 1
    for y in range(height):
        place = y * spans * 1000 // max(1, height - 1)
        index = min(spans - 1, place // 1000)
        part = place - index * 1000
        one, other = stops[index], stops[index + 1]
        column += bytes((a * (1000 - part) + b * part) // 1000 for a, b in zip(one, other, strict=True))
    return Image.frombytes("RGB", (1, height), bytes(column)).resize(size, Image.Resampling.NEAREST)


def ridge(width: int, top: int, bottom: int, bumps: int, rng: random.Random) -> list[tuple[int, int]]:
    """Invent the outline of a range of hills.

    Parameters:
        width: pixels across.
        top: the highest y in pixels it may reach.
        bottom: the lowest y.
        bumps: about how many hills.
        rng: where the chance comes from.

    Returns:
        Points from the left edge to the right one; y is in `FINE`-ths of a pixel.
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
        points.append((x, (marks[index] * (1000 - ease) + marks[index + 1] * ease) * FINE // 1000))
    return points


def land(page: Image.Image, outline: Sequence[tuple[int, int]], colours: Sequence[Colour]) -> None:
    """Paint everything below an outline, in place.

    Parameters:
        page: the RGB picture.
        outline: points with y in `FINE`-ths of a pixel, from left to right.
        colours: from the top of the land to the bottom of the picture.
    """
    top = max(0, min(y for _, y in outline) // FINE)
    low = min(page.height, max(y for _, y in outline) // FINE + 2)
    if low <= top:
        return
    # Only the band with the edge needs a mask; what is below it is painted whole.
    mask = Image.new("L", (page.width, (low - top) * FINE))
    shifted = [(x, y - top * FINE) for x, y in outline]
    below = mask.height + FINE
    ImageDraw.Draw(mask).polygon([(0, below), *shifted, (page.width, below)], fill=255)
    edge = mask.reduce((1, FINE))
    if len(colours) == 1:
        page.paste(colours[0], (0, top, page.width, low), edge)
        page.paste(colours[0], (0, low, page.width, page.height))
        return
    paint = gradient((page.width, page.height - top), colours)
    page.paste(paint.crop((0, 0, page.width, low - top)), (0, top), edge)
    page.paste(paint.crop((0, low - top, page.width, paint.height)), (0, low))


def polygons(
    page: Image.Image,
    shapes: Iterable[tuple[Sequence[tuple[int, int]], Colour]],
    box: tuple[int, int, int, int],
) -> None:
    """Paint polygons with smooth edges, in place.

    Parameters:
        page: the RGB picture.
        shapes: corner points in pixels of the page, and a colour, each.
        box: left, top, right and bottom of all of them together, pixels.
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


def disc(page: Image.Image, centre: tuple[int, int], radius: int, colour: Colour) -> None:
    """Paint a filled circle with a smooth edge, in place.

    Parameters:
        page: the picture.
        centre: x and y in pixels.
        radius: in pixels.
        colour: of the circle.
    """
    fine = 4 if radius < 60 else 2
    side = max(1, radius * 2)
    mask = Image.new("L", (side * fine, side * fine))
    ImageDraw.Draw(mask).ellipse((0, 0, side * fine - 1, side * fine - 1), fill=255)
    page.paste(colour, (centre[0] - side // 2, centre[1] - side // 2), mask.reduce(fine))


_GLOW = Image.radial_gradient("L").point([255 - min(255, value * 14 // 10) for value in range(256)])


def glow(
    page: Image.Image, centre: tuple[int, int], reach: tuple[int, int], colour: Colour, strength: int
) -> None:
    """Paint a soft spot of light or shadow, in place.

    Parameters:
        page: an RGB picture.
        centre: x and y in pixels.
        reach: half its width and half its height in pixels.
        colour: of the light.
        strength: percent at the centre.
    """
    width, height = max(1, reach[0] * 2), max(1, reach[1] * 2)
    soft = _GLOW.resize((width, height), Image.Resampling.BILINEAR).point(
        [value * strength // 100 for value in range(256)]
    )
    page.paste(colour, (centre[0] - width // 2, centre[1] - height // 2), soft)


def shadow(page: Image.Image, centre: tuple[int, int], reach: tuple[int, int], strength: int = 46) -> None:
    """Paint the soft shadow of something that stands there, in place.

    Parameters:
        page: an RGB picture.
        centre: x and y in pixels.
        reach: half its width and half its height in pixels.
        strength: percent at the centre.
    """
    glow(page, centre, reach, (24, 22, 44), strength)
