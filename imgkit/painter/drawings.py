"""The painter's own simple drawings: things no emoji shows, and stand-ins when the fonts are missing."""

from __future__ import annotations

import importlib.resources
import tomllib
from functools import lru_cache
from typing import Any

from PIL import Image, ImageDraw

from imgkit.painter.palette import WHITE, Colour, mix, parse

STROKE = 34
"""Width of the outlines, in thousandths of the drawing's side; about that of the glyphs."""

STAND_INS = {
    "animal": "animal", "bird": "bird", "fish": "fish", "insect": "insect", "person": "person",
    "face": "face", "food": "fruit", "tree": "tree", "flower": "flower", "plant": "bush", "sky": "ball",
    "land": "mound", "building": "house", "vehicle": "cart", "hat": "hat", "glasses": "spectacles",
}  # fmt: skip


@lru_cache(maxsize=1)
def _drawings() -> dict[str, Any]:
    source = importlib.resources.files(__package__ or "imgkit.painter") / "drawings.toml"
    return tomllib.loads(source.read_text(encoding="utf-8"))


def has(name: str) -> bool:
    """Return whether there is a drawing of this name."""
    return name in _drawings()


def stand_in(kind: str) -> str:
    """Return the drawing that shows any thing of a kind, for want of a better one."""
    return STAND_INS.get(kind, "thing")


def draw(name: str, size: int, fill: Colour, second: Colour, ink: Colour) -> Image.Image:
    """Draw one of the drawings.

    Parameters:
        name: one for which `has` is true.
        size: pixels of the longer side.
        fill: its main colour.
        second: its other colour.
        ink: the colour of its outlines.

    Returns:
        An RGBA picture cut to the drawing's edges.
    """
    plan = _drawings()[name]
    scale = 3 if size <= 220 else 2
    side = size * scale
    page = Image.new("RGBA", (side, side), (*ink, 0))
    pencil = ImageDraw.Draw(page)
    colours = {
        "fill": fill, "second": second, "ink": ink, "light": mix(fill, WHITE, 55),
        "dark": mix(fill, (40, 20, 50), 30), "white": WHITE, "none": None,
    }  # fmt: skip
    stroke = max(1, side * STROKE // 1000)
    for shape, colour, *numbers in plan["shapes"]:
        paint = colours[colour] if colour in colours else parse(colour)
        _stroke(pencil, shape, [number * (side - 1) // 100 for number in numbers], paint, ink, stroke)
    edges = page.getbbox(alpha_only=True) or (0, 0, side, side)
    picture = page.crop(edges)
    longer = max(picture.size)
    return picture.resize(
        (max(1, picture.width * size // longer), max(1, picture.height * size // longer)),
        Image.Resampling.BOX if longer == side else Image.Resampling.BICUBIC,
    )


def _stroke(
    pencil: ImageDraw.ImageDraw, shape: str, at: list[int], paint: Colour | None, ink: Colour, width: int
) -> None:
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
        _line(pencil, [*points, points[0]], ink, width)
    elif shape == "line":
        _line(pencil, points, paint or ink, width)
    elif shape == "arc":
        pencil.arc(at, 0, 180, fill=paint or ink, width=width)
    elif shape == "bow":
        pencil.arc(at, 180, 360, fill=paint or ink, width=width)
    else:
        raise ValueError(f"a drawing uses the unknown shape {shape!r}")


def _line(pencil: ImageDraw.ImageDraw, points: list[tuple[int, int]], ink: Colour, width: int) -> None:
    pencil.line(points, fill=ink, width=width)
    half = width // 2
    for x, y in points:
        pencil.ellipse((x - half, y - half, x + half, y + half), fill=ink)
