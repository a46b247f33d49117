"""Simple drawings: things without an emoji, and stand-ins for missing fonts."""

from __future__ import annotations

import importlib.resources
import tomllib
from functools import lru_cache
from typing import Any

from PIL import Image, ImageDraw

from imgkit.painter.palette import WHITE, Colour, mix, parse_colour

STROKE_PER_MILLE = 34
"""Width of the outlines, in thousandths of the drawing's side; similar to that of the glyphs."""

STAND_INS = {
    "animal": "animal", "bird": "bird", "fish": "fish", "insect": "insect", "person": "person",
    "face": "face", "food": "fruit", "tree": "tree", "flower": "flower", "plant": "bush", "sky": "ball",
    "land": "mound", "building": "house", "vehicle": "cart", "hat": "hat", "glasses": "spectacles",
}  # fmt: skip


@lru_cache(maxsize=1)
def _load_drawings() -> dict[str, Any]:
    source = importlib.resources.files(__package__ or "imgkit.painter") / "drawings.toml"
    return tomllib.loads(source.read_text(encoding="utf-8"))


def has_drawing(name: str) -> bool:
    """Return whether a drawing of this name exists."""
    return name in _load_drawings()


def find_stand_in(kind: str) -> str:
    """Return the name of the drawing that represents a kind of thing."""
    return STAND_INS.get(kind, "thing")


def render_drawing(name: str, size: int, fill: Colour, second: Colour, ink: Colour) -> Image.Image:
    """Render a drawing.

    Args:
        name: the name of the drawing; see `has_drawing`.
        size: length of the longer side, in pixels.
        fill: the main colour.
        second: the second colour.
        ink: the colour of the outlines.

    Returns:
        An RGBA image, cropped to the drawing's edges.

    Raises:
        ValueError: the data file uses an unknown shape.
    """
    plan = _load_drawings()[name]
    scale = 3 if size <= 220 else 2
    side = size * scale
    page = Image.new("RGBA", (side, side), (*ink, 0))
    pencil = ImageDraw.Draw(page)
    colours = {
        "fill": fill, "second": second, "ink": ink, "light": mix(fill, WHITE, 55),
        "dark": mix(fill, (40, 20, 50), 30), "white": WHITE, "none": None,
    }  # fmt: skip
    stroke = max(1, side * STROKE_PER_MILLE // 1000)
    for shape, colour, *numbers in plan["shapes"]:
        paint = colours[colour] if colour in colours else parse_colour(colour)
        _draw_shape(pencil, shape, [number * (side - 1) // 100 for number in numbers], paint, ink, stroke)
    edges = page.getbbox(alpha_only=True) or (0, 0, side, side)
    image = page.crop(edges)
    longer = max(image.size)
    return image.resize(
        (max(1, image.width * size // longer), max(1, image.height * size // longer)),
        Image.Resampling.BOX if longer == side else Image.Resampling.BICUBIC,
    )


def _draw_shape(
    pencil: ImageDraw.ImageDraw, shape: str, at: list[int], paint: Colour | None, ink: Colour, width: int
) -> None:
    """Draw a shape of a drawing.

    Args:
        pencil: draws on the page.
        shape: "ellipse", "dot", "box", "patch", "poly", "line", "arc" or "bow".
        at: coordinates in pixels, x and y in turn.
        paint: the fill; None for none.
        ink: the colour of the outline.
        width: of the outline, in pixels.

    Raises:
        ValueError: the shape is unknown.
    """
    points = list(zip(at[::2], at[1::2], strict=False))
    if shape == "ellipse":
        pencil.ellipse(at, fill=paint, outline=ink, width=width)
    elif shape == "dot":
        pencil.ellipse(at, fill=paint)
    elif shape == "box":
        pencil.rounded_rectangle(at, radius=width, fill=paint, outline=ink, width=width)
    elif shape == "patch":
        pencil.polygon(points, fill=paint)
    elif shape == "poly":
        pencil.polygon(points, fill=paint)
        _draw_line(pencil, [*points, points[0]], ink, width)
    elif shape == "line":
        _draw_line(pencil, points, paint or ink, width)
    elif shape == "arc":
        pencil.arc(at, 0, 180, fill=paint or ink, width=width)
    elif shape == "bow":
        pencil.arc(at, 180, 360, fill=paint or ink, width=width)
    else:
        raise ValueError(f"A drawing uses the unknown shape {shape!r}.")


def _draw_line(pencil: ImageDraw.ImageDraw, points: list[tuple[int, int]], ink: Colour, width: int) -> None:
    """Draw a line with round ends and corners."""
    pencil.line(points, fill=ink, width=width)
    half = width // 2
    for x, y in points:
        pencil.ellipse((x - half, y - half, x + half, y + half), fill=ink)
