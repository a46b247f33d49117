"""The setting of an image: sky, land or water, and the weather; or an abstract composition."""

from __future__ import annotations

import importlib.resources
import random
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from PIL import Image, ImageDraw

from imgkit.painter import brushes, places
from imgkit.painter.backdrop import Backdrop, paint_heavens
from imgkit.painter.palette import WHITE, Colour, from_hue, mix, parse_colour, shift_hue, vary_colour

FLOORLESS_PLACES = ("space", "underwater", "sky")
"""Places without a floor to stand on."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A place, a time of day and a weather.

    Attributes:
        place: a name in `imgkit.painter.places.PLACE_PAINTERS`.
        time: "day", "dawn", "sunset", "night", "storm" or "autumn".
        weather: "rain", "snow", "fog" or "".

    Example:
        >>> is_dark(Setting("meadow", time="night"))
        True
    """

    place: str
    time: str = "day"
    weather: str = ""


@lru_cache(maxsize=1)
def _load_plans() -> dict[str, Any]:
    source = importlib.resources.files(__package__ or "imgkit.painter") / "scenery.toml"
    return tomllib.loads(source.read_text(encoding="utf-8"))


def find_horizon(setting: Setting, height: int) -> int:
    """Return the y of a setting's horizon, in pixels.

    Args:
        setting: the setting; its place determines the horizon.
        height: height of the image in pixels.
    """
    return height * int(_load_plans()["places"][setting.place]["horizon"]) // 100


def is_dark(setting: Setting) -> bool:
    """Return whether figures need a light outline to be visible: at night and in space."""
    return setting.place == "space" or setting.time == "night"


def _light_colours(colours: list[str], setting: Setting, rng: random.Random) -> tuple[Colour, ...]:
    """Return the colours of a place in the light of its time of day, slightly varied."""
    time = _load_plans()["times"][setting.time]
    paints = [vary_colour(parse_colour(colour), rng, 5) for colour in colours]
    if setting.place in ("space", "room"):
        return tuple(paints)
    return tuple(
        mix(paint_setting, parse_colour(time.get("shade", "#000000")), time["light"])
        for paint_setting in paints
    )


def paint_setting(size: tuple[int, int], setting: Setting, rng: random.Random, busy: bool) -> Image.Image:
    """Paint a setting.

    Args:
        size: width and height in pixels.
        setting: the place, time and weather.
        rng: the source of randomness.
        busy: whether figures will stand in front, which asks for a calmer setting.

    Returns:
        An RGB image.
    """
    plan, time = _load_plans()["places"][setting.place], _load_plans()["times"][setting.time]
    far, near = _light_colours(plan["far"], setting, rng), _light_colours(plan["near"], setting, rng)
    sky = tuple(vary_colour(parse_colour(colour), rng, 6) for colour in time["sky"])
    horizon = find_horizon(setting, size[1])
    if setting.place in ("space", "underwater") or setting.place == "room":
        page = brushes.paint_gradient(size, far)
    else:
        page = brushes.paint_gradient((size[0], max(2, horizon + size[1] // 12)), sky)
        whole = Image.new("RGB", size, sky[-1])
        whole.paste(page, (0, 0))
        page = whole
    backdrop = Backdrop(page, rng, horizon, far, near, setting.time, setting.weather, busy)
    if setting.place not in ("space", "room", "underwater"):
        paint_heavens(backdrop)
    places.PLACE_PAINTERS[setting.place](backdrop)
    return page


def paint_abstract(
    size: tuple[int, int], family: int, colours: Sequence[Colour], rng: random.Random
) -> Image.Image:
    """Paint waves and discs in related colours, for a prompt without known words.

    Args:
        size: width and height in pixels.
        family: hue in degrees; depends on the prompt alone.
        colours: colours that the prompt names; they replace the hue.
        rng: the source of randomness.

    Returns:
        An RGB image.
    """
    width, height = size
    hue = family + rng.randint(-35, 35)
    bases = [shift_hue(colour, rng.randint(-8, 8)) for colour in colours[:3]]
    if not bases:
        bases = [from_hue(hue, 62, 56), from_hue(hue + rng.choice((38, 150, 205)), 66, 60)]
    if len(bases) == 1:
        bases.append(shift_hue(bases[0], rng.choice((-34, 30)), 8))
    page = brushes.paint_gradient(
        size, (mix(bases[0], WHITE, 58), mix(bases[-1], WHITE, 78), mix(bases[0], WHITE, 66))
    )
    unit = max(1, min(size) // 100)
    at = (rng.randint(width // 4, width * 3 // 4), rng.randint(height // 6, height * 4 // 10))
    radius = unit * rng.randint(17, 25)
    brushes.paint_glow(page, at, (radius * 3, radius * 3), WHITE, 60)
    brushes.paint_disc(page, at, radius, mix(bases[-1], (255, 214, 120), 40))
    brushes.paint_disc(page, at, radius * 82 // 100, mix(bases[-1], (255, 228, 160), 60))
    layers = 6
    for index in range(layers):
        base = bases[index % len(bases)]
        tone = mix(mix(base, WHITE, 34 - index * 4), (22, 16, 62), index * 11)
        top = height * (30 + index * 11) // 100
        edge = brushes.build_ridge(
            width, top - height * 7 // 100, top + height * 12 // 100, rng.randint(1, 3), rng
        )
        lip = [(x, y - brushes.SUBPIXELS * max(1, unit * 6 // 10)) for x, y in edge]
        brushes.paint_land(page, lip, (mix(tone, WHITE, 42),))
        brushes.paint_land(page, edge, (tone, mix(tone, (20, 16, 60), 16)))
    for _ in range(9):
        spot = (rng.randint(0, width), rng.randint(0, height))
        brushes.paint_disc(page, spot, unit * rng.randint(1, 3), mix(rng.choice(bases), WHITE, 62))
    return page


def paint_weather(page: Image.Image, setting: Setting, rng: random.Random) -> None:
    """Paint rain, snow or fog over a finished image, in place.

    Args:
        page: an RGB or RGBA image.
        setting: the setting; its weather is painted.
        rng: the source of randomness.
    """
    width, height = page.size
    unit = max(2, min(width, height) // 100)
    falling = setting.weather or ("snow" if setting.place == "snow" and setting.time != "day" else "")
    if setting.place in ("underwater", "space") or not falling:
        return
    if falling == "fog":
        for _ in range(5):
            y = rng.randint(height // 3, height * 9 // 10)
            brushes.paint_glow(page, (rng.randint(0, width), y), (width, height // 7), (236, 240, 244), 62)
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
