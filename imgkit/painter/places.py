"""The places of settings, each painted on a `Backdrop`."""

from __future__ import annotations

from collections.abc import Callable

from PIL import ImageDraw

from imgkit.painter import brushes
from imgkit.painter.backdrop import (
    Backdrop,
    paint_blossoms,
    paint_buildings,
    paint_cloud,
    paint_firs,
    paint_grass,
    paint_stars,
    paint_water,
    paint_waves,
)
from imgkit.painter.palette import WHITE, mix


def paint_meadow(backdrop: Backdrop) -> None:
    """Paint hills, grass and small flowers onto a backdrop."""
    backdrop.paint_hills(16, mix(backdrop.far[0], backdrop.near[0], 0), 3)
    backdrop.paint_hills(8, mix(backdrop.far[0], backdrop.near[0], 55), 2)
    backdrop.paint_ground()
    paint_grass(backdrop, mix(backdrop.near[1], (20, 60, 30), 30), 26)
    paint_blossoms(backdrop, 10)


def paint_savanna(backdrop: Backdrop) -> None:
    """Paint dry grassland with flat hills onto a backdrop."""
    backdrop.paint_hills(7, backdrop.far[0], 2)
    backdrop.paint_ground(2)
    paint_grass(backdrop, mix(backdrop.near[1], (90, 60, 20), 45), 40)


def paint_forest(backdrop: Backdrop) -> None:
    """Paint rows of firs behind a clearing onto a backdrop."""
    for row, (share, count) in enumerate(((46, 13), (34, 9))):
        shade = mix(backdrop.far[0], (235, 245, 235) if row == 0 else (16, 48, 36), 34)
        paint_firs(
            backdrop,
            shade,
            backdrop.horizon + backdrop.height * (2 + row * 2) // 100,
            backdrop.height * share // 100,
            count,
        )
    backdrop.paint_ground()
    paint_grass(backdrop, mix(backdrop.near[1], (16, 50, 30), 40), 30)


def paint_mountains(backdrop: Backdrop) -> None:
    """Paint snow-capped peaks and foothills onto a backdrop."""
    rng, shapes = backdrop.rng, []
    rise = backdrop.height * (40 if backdrop.busy else 46) // 100
    for index, reach in ((0, 46), (2, 44), (1, 58)):
        x = backdrop.width * (18 + 32 * index + rng.randint(-7, 7)) // 100
        top = backdrop.horizon - rise * (100 if index == 1 else rng.randint(60, 80)) // 100
        half = max(backdrop.width, backdrop.height) * reach // 200
        left, right, base = x - half, x + half, backdrop.horizon + backdrop.height // 30
        tone = mix(backdrop.far[0], (60, 70, 110), 10 if index == 1 else 0)
        shapes.append(([(left, base), (x, top), (right, base)], tone))
        shapes.append(
            (
                [(x, top), (right, base), (x + half // 5, base), (x - half // 16, top + (base - top) // 2)],
                mix(tone, (40, 44, 80), 24),
            )
        )
        cap, drop = half * 28 // 100, (base - top) * 28 // 100
        teeth = [
            (x - cap, top + drop),
            (x - cap // 2, top + drop * 8 // 10),
            (x - cap // 6, top + drop * 12 // 10),
            (x + cap // 4, top + drop * 8 // 10),
            (x + cap // 2, top + drop * 11 // 10),
            (x + cap, top + drop),
        ]
        shapes.append(([(x, top), *reversed(teeth)], mix((250, 252, 255), tone, 12)))
    brushes.paint_polygons(
        backdrop.page,
        shapes,
        (0, backdrop.horizon - rise - 2, backdrop.width, backdrop.horizon + backdrop.height // 30),
    )
    backdrop.paint_hills(7, mix(backdrop.near[0], backdrop.far[0], 45), 3)
    backdrop.paint_ground()
    paint_grass(backdrop, mix(backdrop.near[1], (20, 60, 30), 30), 18)


def paint_snow(backdrop: Backdrop) -> None:
    """Paint white hills with a few firs onto a backdrop."""
    backdrop.paint_hills(17, mix(backdrop.far[0], (150, 180, 215), 25), 3)
    paint_firs(
        backdrop,
        mix(backdrop.far[0], (40, 90, 90), 62),
        backdrop.horizon + backdrop.unit,
        backdrop.height * 20 // 100,
        7,
    )
    backdrop.paint_hills(5, backdrop.far[0], 2)
    backdrop.paint_ground(4)
    for _ in range(40):
        x, y = backdrop.rng.randint(0, backdrop.width), backdrop.rng.randint(0, backdrop.height)
        brushes.paint_disc(
            backdrop.page, (x, y), max(1, backdrop.unit * backdrop.rng.randint(3, 8) // 10), (255, 255, 255)
        )


def paint_desert(backdrop: Backdrop) -> None:
    """Paint dunes onto a backdrop."""
    backdrop.paint_hills(14, mix(backdrop.far[0], (200, 130, 80), 24), 2)
    backdrop.paint_hills(8, backdrop.far[0], 2)
    backdrop.paint_ground(8)
    edge = brushes.build_ridge(
        backdrop.width,
        backdrop.horizon + backdrop.height * 14 // 100,
        backdrop.horizon + backdrop.height * 26 // 100,
        1,
        backdrop.rng,
    )
    brushes.paint_land(backdrop.page, edge, (mix(backdrop.near[1], WHITE, 12), backdrop.near[1]))


def paint_sea(backdrop: Backdrop) -> None:
    """Paint open water with rolling waves onto a backdrop."""
    paint_water(backdrop, backdrop.horizon, backdrop.height, (backdrop.far[-1], *backdrop.near))
    for index in range(2):
        paint_waves(
            backdrop,
            backdrop.horizon + (backdrop.height - backdrop.horizon) * (30 + 26 * index) // 100,
            mix(backdrop.near[0], backdrop.near[1], 30 + 30 * index),
        )


def paint_lake(backdrop: Backdrop) -> None:
    """Paint still water between green banks onto a backdrop."""
    backdrop.paint_hills(12, backdrop.far[0], 3)
    backdrop.paint_hills(5, mix(backdrop.far[0], (60, 120, 70), 40), 2)
    paint_water(backdrop, backdrop.horizon, backdrop.height, backdrop.near)
    rng, pencil, unit = backdrop.rng, ImageDraw.Draw(backdrop.page), backdrop.unit
    for _ in range(16):
        x = rng.choice(
            (rng.randint(0, backdrop.width // 5), rng.randint(backdrop.width * 4 // 5, backdrop.width))
        )
        y = backdrop.height - rng.randint(0, backdrop.height // 12)
        pencil.line(
            (x, backdrop.height, x + rng.randint(-2, 2) * unit, y - unit * 8),
            fill=(74, 130, 66),
            width=max(1, unit * 7 // 10),
        )


def paint_beach(backdrop: Backdrop) -> None:
    """Paint the sea behind sand onto a backdrop."""
    shore = backdrop.horizon + backdrop.height * 16 // 100
    paint_water(backdrop, backdrop.horizon, min(backdrop.height, shore + backdrop.height // 12), backdrop.far)
    edge = brushes.build_ridge(backdrop.width, shore, shore + backdrop.height * 5 // 100, 2, backdrop.rng)
    foam = [(x, y - backdrop.unit * 2 * brushes.SUBPIXELS) for x, y in edge]
    brushes.paint_land(backdrop.page, foam, ((250, 253, 255),))
    brushes.paint_land(backdrop.page, edge, backdrop.near)
    for _ in range(26):
        x, y = (
            backdrop.rng.randint(0, backdrop.width),
            backdrop.rng.randint(min(shore + backdrop.height // 9, backdrop.height), backdrop.height),
        )
        brushes.paint_disc(
            backdrop.page, (x, y), max(1, backdrop.unit * 4 // 10), mix(backdrop.near[1], (120, 80, 40), 30)
        )


def paint_underwater(backdrop: Backdrop) -> None:
    """Paint rays of light, bubbles, weed and sand onto a backdrop."""
    rng, unit = backdrop.rng, backdrop.unit
    for _ in range(3):
        x = rng.randint(0, backdrop.width)
        brushes.paint_glow(
            backdrop.page, (x, 0), (backdrop.width // 7, backdrop.height * 6 // 10), (230, 250, 255), 42
        )
    for _ in range(16):
        radius = unit * rng.randint(6, 20) // 10
        at = (rng.randint(0, backdrop.width), rng.randint(backdrop.height // 10, backdrop.height))
        brushes.paint_disc(backdrop.page, at, max(1, radius), (196, 236, 246))
        brushes.paint_disc(backdrop.page, at, max(1, radius * 7 // 10), (110, 190, 220))
    pencil = ImageDraw.Draw(backdrop.page)
    for _ in range(9):
        x, foot = rng.randint(0, backdrop.width), backdrop.height
        for step in range(6):
            sway = unit * (2 if step % 2 else -2)
            y = foot - step * unit * 5
            pencil.line(
                (
                    x - sway,
                    backdrop.horizon + backdrop.height // 14 - step * unit * 5,
                    x + sway,
                    backdrop.horizon + backdrop.height // 14 - (step + 1) * unit * 5,
                ),
                fill=(58, 140, 96),
                width=max(2, unit * 2),
            )
            if y < 0:
                break
    backdrop.paint_ground(4)


def paint_city(backdrop: Backdrop) -> None:
    """Paint two rows of buildings with windows, and a street onto a backdrop."""
    for row in range(2):
        tone = mix(backdrop.far[0], WHITE if row == 0 else (40, 48, 78), 34)
        if backdrop.time == "night":
            tone = mix(tone, (58, 66, 120), 40 - row * 30)
        paint_buildings(backdrop, tone, backdrop.horizon * (66 - row * 14) // 100, row)
    street = [
        (0, backdrop.horizon * brushes.SUBPIXELS),
        (backdrop.width, backdrop.horizon * brushes.SUBPIXELS),
    ]
    brushes.paint_land(backdrop.page, street, backdrop.near)
    pencil, unit = ImageDraw.Draw(backdrop.page), backdrop.unit
    y = (backdrop.horizon + backdrop.height) // 2
    pencil.rectangle(
        (0, backdrop.horizon, backdrop.width, backdrop.horizon + unit), fill=mix(backdrop.near[0], WHITE, 40)
    )
    for x in range(-backdrop.rng.randint(0, unit * 12), backdrop.width, unit * 18):
        pencil.rectangle((x, y, x + unit * 9, y + unit), fill=mix((246, 226, 150), backdrop.near[1], 22))


def paint_space(backdrop: Backdrop) -> None:
    """Paint stars, a nebula and a far planet onto a backdrop."""
    rng, unit = backdrop.rng, backdrop.unit
    for tone in ((150, 80, 190), (60, 110, 200), (210, 90, 140)):
        at = (rng.randint(0, backdrop.width), rng.randint(0, backdrop.height))
        brushes.paint_glow(backdrop.page, at, (backdrop.width * 4 // 10, backdrop.height * 3 // 10), tone, 38)
    paint_stars(backdrop, backdrop.height, 150)
    x = backdrop.width * rng.choice((14, 84)) // 100
    at, radius, tone = (
        (x, backdrop.height * rng.randint(16, 26) // 100),
        unit * 9,
        rng.choice(((226, 160, 110), (140, 180, 230), (200, 140, 200))),
    )
    brushes.paint_disc(backdrop.page, at, radius, tone)
    brushes.paint_glow(
        backdrop.page,
        (at[0] - radius // 3, at[1] - radius // 3),
        (radius * 8 // 10, radius * 8 // 10),
        WHITE,
        40,
    )


def paint_room(backdrop: Backdrop) -> None:
    """Paint a wall with a window and a image, and a wooden floor onto a backdrop."""
    rng, pencil, unit = backdrop.rng, ImageDraw.Draw(backdrop.page), backdrop.unit
    backdrop.page.paste(
        brushes.paint_gradient((backdrop.width, backdrop.height - backdrop.horizon), backdrop.near),
        (0, backdrop.horizon),
    )
    for step in range(1, 5):
        y = backdrop.horizon + (backdrop.height - backdrop.horizon) * step * step // 20
        pencil.line(
            (0, y, backdrop.width, y), fill=mix(backdrop.near[1], (60, 30, 20), 22), width=max(1, unit // 3)
        )
    pencil.rectangle((0, backdrop.horizon - unit * 2, backdrop.width, backdrop.horizon), fill=(250, 244, 234))
    left = rng.choice((8, 58))
    x, y = backdrop.width * left // 100, backdrop.horizon * 16 // 100
    wide, tall = backdrop.width * 32 // 100, backdrop.horizon * 50 // 100
    dark = backdrop.time == "night"
    pane = ((30, 40, 84), (70, 84, 140)) if dark else ((140, 202, 240), (226, 243, 250))
    pencil.rectangle(
        (x - unit * 2, y - unit * 2, x + wide + unit * 2, y + tall + unit * 2), fill=(252, 248, 240)
    )
    backdrop.page.paste(brushes.paint_gradient((wide, tall), pane), (x, y))
    pencil.rectangle(
        (x + wide // 2 - unit // 2, y, x + wide // 2 + unit // 2, y + tall), fill=(252, 248, 240)
    )
    pencil.rectangle(
        (x, y + tall // 2 - unit // 2, x + wide, y + tall // 2 + unit // 2), fill=(252, 248, 240)
    )
    other = backdrop.width * (66 if left == 8 else 14) // 100
    pencil.rectangle((other, y + unit * 3, other + unit * 18, y + unit * 17), fill=(168, 120, 76))
    pencil.rectangle((other + unit * 2, y + unit * 5, other + unit * 16, y + unit * 15), fill=(158, 198, 190))


def paint_fire(backdrop: Backdrop) -> None:
    """Paint glowing hills and flames onto a backdrop."""
    backdrop.paint_hills(16, backdrop.far[0], 4)
    rng, shapes, unit = backdrop.rng, [], backdrop.unit
    for tone, share in (((214, 70, 30), 100), ((246, 140, 40), 70), ((252, 214, 90), 42)):
        for x in range(0, backdrop.width + unit * 12, unit * 12):
            tall, half = unit * rng.randint(16, 34) * share // 100, unit * 9 * share // 100
            foot = backdrop.horizon + unit * 4
            shapes.append(
                (
                    [
                        (x - half, foot),
                        (x - half // 2, foot - tall // 2),
                        (x, foot - tall),
                        (x + half // 2, foot - tall * 4 // 10),
                        (x + half, foot),
                    ],
                    tone,
                )
            )
    brushes.paint_polygons(
        backdrop.page, shapes, (0, backdrop.horizon - unit * 36, backdrop.width, backdrop.horizon + unit * 4)
    )
    backdrop.paint_ground()


def paint_sky(backdrop: Backdrop) -> None:
    """Paint big clouds onto a backdrop."""
    for _ in range(5):
        at = (
            backdrop.rng.randint(0, backdrop.width),
            backdrop.rng.randint(backdrop.height // 2, backdrop.height),
        )
        paint_cloud(
            backdrop,
            at,
            backdrop.unit * backdrop.rng.randint(20, 34),
            mix(WHITE, (150, 170, 210), 40) if backdrop.time == "night" else WHITE,
        )


PLACE_PAINTERS: dict[str, Callable[[Backdrop], None]] = {
    "meadow": paint_meadow,
    "savanna": paint_savanna,
    "forest": paint_forest,
    "mountains": paint_mountains,
    "snow": paint_snow,
    "desert": paint_desert,
    "sea": paint_sea,
    "lake": paint_lake,
    "beach": paint_beach,
    "underwater": paint_underwater,
    "city": paint_city,
    "space": paint_space,
    "room": paint_room,
    "fire": paint_fire,
    "sky": paint_sky,
}
"""Painters of the places, by name."""
