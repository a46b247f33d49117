"""The setting of a picture: sky, land or water, and what belongs there."""

from __future__ import annotations

import importlib.resources
import random
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from PIL import Image, ImageDraw

from imgkit.painter import backdrop, brushes, places
from imgkit.painter.palette import Colour, mix, parse, tinted

FLOATING = ("space", "underwater", "sky")
"""Places without a floor to stand on."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where, when, and in what weather."""

    place: str
    time: str = "day"
    weather: str = ""


@lru_cache(maxsize=1)
def _plans() -> dict[str, Any]:
    source = importlib.resources.files(__package__ or "imgkit.painter") / "scenery.toml"
    return tomllib.loads(source.read_text(encoding="utf-8"))


def horizon(setting: Setting, height: int) -> int:
    """Find where the ground of a setting begins.

    Parameters:
        setting: which place.
        height: the picture's height in pixels.

    Returns:
        Its y in pixels.
    """
    return height * int(_plans()["places"][setting.place]["horizon"]) // 100


def is_dark(setting: Setting) -> bool:
    """Tell whether things need a light rim to be seen.

    Parameters:
        setting: where they are.

    Returns:
        True at night and in space.
    """
    return setting.place == "space" or setting.time == "night"


def _lit(colours: list[str], setting: Setting, rng: random.Random) -> tuple[Colour, ...]:
    time = _plans()["times"][setting.time]
    paints = [tinted(parse(colour), rng, 5) for colour in colours]
    if setting.place in ("space", "room"):
        return tuple(paints)
    return tuple(mix(paint, parse(time.get("shade", "#000000")), time["light"]) for paint in paints)


def paint(size: tuple[int, int], setting: Setting, rng: random.Random, busy: bool) -> Image.Image:
    """Paint a setting.

    Parameters:
        size: width and height in pixels.
        setting: what to paint.
        rng: where the chance comes from.
        busy: whether things will stand in front of it, so that it should keep quiet.

    Returns:
        An RGB picture.
    """
    plan, time = _plans()["places"][setting.place], _plans()["times"][setting.time]
    far, near = _lit(plan["far"], setting, rng), _lit(plan["near"], setting, rng)
    sky = tuple(tinted(parse(colour), rng, 6) for colour in time["sky"])
    line = horizon(setting, size[1])
    if setting.place in ("space", "underwater") or setting.place == "room":
        page = brushes.gradient(size, far)
    else:
        page = brushes.gradient((size[0], max(2, line + size[1] // 12)), sky)
        whole = Image.new("RGB", size, sky[-1])
        whole.paste(page, (0, 0))
        page = whole
    scene = backdrop.Backdrop(page, rng, line, far, near, setting.time, setting.weather, busy)
    if setting.place not in ("space", "room", "underwater"):
        backdrop.heavens(scene)
    places.PLACES[setting.place](scene)
    return page


def weather(page: Image.Image, setting: Setting, rng: random.Random) -> None:
    """Paint rain, snow or fog over a finished picture, in place.

    Parameters:
        page: the RGB or RGBA picture.
        setting: its weather is what counts.
        rng: where the chance comes from.
    """
    width, height = page.size
    unit = max(2, min(width, height) // 100)
    falling = setting.weather or ("snow" if setting.place == "snow" and setting.time != "day" else "")
    if setting.place in ("underwater", "space") or not falling:
        return
    if falling == "fog":
        for _ in range(5):
            y = rng.randint(height // 3, height * 9 // 10)
            brushes.glow(page, (rng.randint(0, width), y), (width, height // 7), (236, 240, 244), 62)
        return
    count = min(260, 90 * width * height // (min(width, height) ** 2))
    veil = Image.new("L", (width * 2, height * 2) if width * height < 300_000 else page.size)
    fine = veil.width // width
    pencil = ImageDraw.Draw(veil)
    for _ in range(count):
        x, y = rng.randint(0, veil.width), rng.randint(0, veil.height)
        if falling == "rain":
            length = rng.randint(3, 6) * unit * fine
            pencil.line(
                (x, y, x - length // 3, y + length),
                fill=rng.randint(130, 210),
                width=max(1, unit * fine // 4),
            )
        else:
            radius = rng.randint(3, 9) * unit * fine // 10
            pencil.ellipse((x - radius, y - radius, x + radius, y + radius), fill=rng.randint(190, 255))
    if fine > 1:
        veil = veil.reduce(fine)
    page.paste((214, 230, 250) if falling == "rain" else (255, 255, 255), (0, 0), veil)
