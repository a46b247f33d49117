"""The composition: the size and the position of each figure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from imgkit.painter.prompts import Figure, Scene
from imgkit.painter.scenery import FLOORLESS_PLACES, Setting, find_horizon

WATER_PLACES = ("sea", "lake")


@dataclass(frozen=True, slots=True)
class Spot:
    """The position of a copy of a figure in the image.

    Attributes:
        figure: the figure.
        x: centre, in pixels.
        foot: y of the lower edge, in pixels.
        size: length of the longer side, in pixels.
        mirrored: whether the copy is flipped left to right.
        afloat: whether water covers its lowest part.
        standing: whether it stands on the ground and casts a shadow.
    """

    figure: Figure
    x: int
    foot: int
    size: int
    mirrored: bool
    afloat: bool = False
    standing: bool = True


def choose_setting(scene: Scene) -> Setting:
    """Choose the setting of a scene: the prompt's words first, then the home of its figures.

    Args:
        scene: the parsed prompt.

    Returns:
        The setting. Figures that do not live in water are moved from the sea to the beach.
    """
    place = scene.home
    figures = scene.figures
    if place in WATER_PLACES and figures and not any(figure.entry.at == "water" for figure in figures):
        place = "beach" if place == "sea" else place
    return Setting(place, scene.time or ("sunset" if place == "fire" else "day"), scene.weather)


def arrange_figures(
    scene: Scene, size: tuple[int, int], setting: Setting, rng: random.Random, mirrored: bool = False
) -> list[Spot]:
    """Arrange the figures of a scene.

    Args:
        scene: the parsed prompt.
        size: width and height in pixels.
        setting: the setting behind the figures.
        rng: the source of randomness.
        mirrored: whether to flip the composition left to right.

    Returns:
        The spots from back to front.
    """
    width, height = size
    floating = setting.place in FLOORLESS_PLACES
    layers: dict[str, list[Figure]] = {"far": [], "sky": [], "back": [], "ground": []}
    for figure in scene.figures:
        at = figure.entry.at
        layers[at if at in ("far", "sky", "back") and not (floating and at == "sky") else "ground"].append(
            figure
        )
    for name in ("back", "sky", "far"):
        if not layers["ground"]:
            layers["ground"], layers[name] = layers[name], []
    only_sky = all(figure.entry.at in ("sky", "far") for figure in layers["ground"])
    spots: list[Spot] = []
    spots += _arrange_strip(layers["far"], (2, 98), height * 62 // 100, width * 86 // 100, size, rng)
    spots += _arrange_strip(
        layers["sky"], (6, 94), height * 36 // 100, min(width, height) * 30 // 100, size, rng
    )
    horizon = find_horizon(setting, height)
    back = min(width * 62 // 100, height * 56 // 100)
    spots += _arrange_strip(
        layers["back"], (8, 92), horizon + height * 10 // 100, back, size, rng, standing=True
    )
    crowded = bool(layers["back"] or layers["sky"])
    front = _arrange_front(layers["ground"], size, setting, rng, crowded, floating or only_sky)
    if len(front) == 1 and sum(figure.count for figure in layers["back"]) == 1:
        # The front figure would hide the one behind it, so both step aside in opposite directions.
        aside = width * rng.choice((-15, 15)) // 100
        spots = [replace(spot, x=spot.x - aside) if spot.figure in layers["back"] else spot for spot in spots]
        front = [replace(spot, x=spot.x + aside) for spot in front]
    spots += front
    if mirrored:
        spots = [replace(spot, x=width - spot.x, mirrored=not spot.mirrored) for spot in spots]
    return spots


def _expand_copies(figures: Sequence[Figure]) -> list[Figure]:
    """Return each figure as often as its count says."""
    return [figure for figure in figures for _ in range(figure.count)]


def _relative_sizes(copies: Sequence[Figure]) -> list[int]:
    """Return the size of each copy in percent of the largest copy, at least 36."""
    raw = [figure.entry.size * figure.scale // 100 for figure in copies]
    return [max(36, weight * 100 // max(raw)) for weight in raw]


def _arrange_strip(
    figures: Sequence[Figure],
    sides: tuple[int, int],
    foot: int,
    largest: int,
    size: tuple[int, int],
    rng: random.Random,
    standing: bool = False,
) -> list[Spot]:
    """Arrange figures side by side, in up to three rows if there are many."""
    copies = _expand_copies(figures)
    if not copies:
        return []
    rows = 1 if len(copies) <= 3 else 2 if len(copies) <= 12 else 3
    columns = -(-len(copies) // rows)
    span = size[0] * (sides[1] - sides[0]) // 100
    cell = span // columns
    room = min(largest, cell if rows == 1 else cell * 96 // 100, foot * 94 // 100 // rows)
    spots = []
    for index, (figure, weight) in enumerate(zip(copies, _relative_sizes(copies), strict=True)):
        row, column = divmod(index, columns)
        slack = max(0, cell - room) // 3
        x = size[0] * sides[0] // 100 + cell * column + cell // 2 + rng.randint(-slack, slack)
        if rows > 1 and row % 2:
            x += cell // 4 if column < columns - 1 else -cell // 6
        y = foot - (rows - 1 - row) * (foot // rows)
        if not standing:
            y -= (
                rng.randint(0, max(1, (foot // rows - room * weight // 100) // 2))
                if foot // rows > room * weight // 100
                else 0
            )
        spots.append(
            Spot(figure, x, y, room * weight // 100, rng.random() < 0.5 and not standing, False, standing)
        )
    return spots


def _arrange_front(
    figures: Sequence[Figure],
    size: tuple[int, int],
    setting: Setting,
    rng: random.Random,
    crowded: bool,
    floating: bool,
) -> list[Spot]:
    """Arrange the figures of the foreground, sorted from back to front."""
    copies = _expand_copies(figures)
    if not copies:
        return []
    width, height = size
    depth = height * (86 if floating else 48 if crowded else 66) // 100
    weights = _relative_sizes(copies)
    rows, cell = _find_best_grid(len(copies), width * 94 // 100, depth)
    largest = min(cell, width * 78 // 100, depth)
    scale = max(figure.scale for figure in copies)
    largest = largest * min(112, 100 - (100 - scale) // 3 if scale < 100 else 100 + (scale - 100) // 5) // 100
    columns = -(-len(copies) // rows)
    bottom = height * (93 if floating else 92) // 100
    if rows == 1 and not floating:
        bottom -= max(0, height * 60 // 100 - largest) * 22 // 100
    step = largest * (96 if floating else 58) // 100
    if floating:
        bottom = min(bottom, height // 2 + largest // 2 + step * (rows - 1) // 2)
    spots = []
    one_way = rng.random() < 0.5
    for index, figure in enumerate(copies):
        row, column = divmod(index, columns)
        across = min(columns, len(copies) - row * columns)
        pitch = width * 94 // 100 // across
        room = largest * weights[index] // 100
        slack = max(0, pitch - room) // 3
        x = width * 3 // 100 + pitch * column + pitch // 2 + rng.randint(-slack, slack)
        if rows > 1 and len(copies) % columns == 0:
            x += pitch // 5 if row % 2 else -pitch // 5
        foot = bottom - (rows - 1 - row) * step - rng.randint(0, max(1, height * 2 // 100))
        afloat = figure.entry.at == "water" and setting.place in (*WATER_PLACES, "beach")
        if afloat and setting.place == "beach":
            foot, room = find_horizon(setting, height) + height * 11 // 100, room * 7 // 10
        elif afloat and rows == 1:
            foot -= height * 7 // 100
        if floating:
            foot += rng.randint(-height // 40, height // 40) - (largest - room) // 2
        flip = one_way if len(copies) == 1 or figure.attachments else rng.random() < 0.5
        flip = flip and figure.entry.kind not in ("building", "tree")
        spots.append(Spot(figure, x, foot, room, flip, afloat, not floating))
    return sorted(spots, key=lambda spot: spot.foot)


def _find_best_grid(count: int, width: int, height: int) -> tuple[int, int]:
    """Return the number of rows that makes the figures largest, and their size in pixels."""
    best = (1, 0)
    for rows in range(1, count + 1):
        columns = -(-count // rows)
        cell = min(
            width * (108 if columns > 1 else 100) // (100 * columns), height * 100 // (100 + (rows - 1) * 60)
        )
        # A second row hides part of the first, so its figures must be clearly larger.
        if cell * (100 if rows == 1 else 72) // 100 > best[1]:
            best = (rows, cell)
    return best
