"""The places a picture can be set in, each painted on a `Backdrop`."""

from __future__ import annotations

from collections.abc import Callable

from PIL import ImageDraw

from imgkit.painter import backdrop, brushes
from imgkit.painter.backdrop import Backdrop
from imgkit.painter.palette import WHITE, mix


def meadow(scene: Backdrop) -> None:
    """Paint hills, grass and small flowers into a `scene`."""
    scene.hills(16, mix(scene.far[0], scene.near[0], 0), 3)
    scene.hills(8, mix(scene.far[0], scene.near[0], 55), 2)
    scene.ground()
    backdrop.tufts(scene, mix(scene.near[1], (20, 60, 30), 30), 26)
    backdrop.blossoms(scene, 10)


def savanna(scene: Backdrop) -> None:
    """Paint dry grass land with flat hills into a `scene`."""
    scene.hills(7, scene.far[0], 2)
    scene.ground(2)
    backdrop.tufts(scene, mix(scene.near[1], (90, 60, 20), 45), 40)


def forest(scene: Backdrop) -> None:
    """Paint rows of firs behind a clearing into a `scene`."""
    for row, (share, count) in enumerate(((46, 13), (34, 9))):
        shade = mix(scene.far[0], (235, 245, 235) if row == 0 else (16, 48, 36), 34)
        backdrop.firs(
            scene, shade, scene.line + scene.height * (2 + row * 2) // 100, scene.height * share // 100, count
        )
    scene.ground()
    backdrop.tufts(scene, mix(scene.near[1], (16, 50, 30), 40), 30)


def mountains(scene: Backdrop) -> None:
    """Paint peaks with snow on top, and foothills into a `scene`."""
    rng, shapes = scene.rng, []
    rise = scene.height * (40 if scene.busy else 46) // 100
    for index, reach in ((0, 46), (2, 44), (1, 58)):
        x = scene.width * (18 + 32 * index + rng.randint(-7, 7)) // 100
        top = scene.line - rise * (100 if index == 1 else rng.randint(60, 80)) // 100
        half = max(scene.width, scene.height) * reach // 200
        left, right, base = x - half, x + half, scene.line + scene.height // 30
        tone = mix(scene.far[0], (60, 70, 110), 10 if index == 1 else 0)
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
    brushes.polygons(
        scene.page, shapes, (0, scene.line - rise - 2, scene.width, scene.line + scene.height // 30)
    )
    scene.hills(7, mix(scene.near[0], scene.far[0], 45), 3)
    scene.ground()
    backdrop.tufts(scene, mix(scene.near[1], (20, 60, 30), 30), 18)


def snow(scene: Backdrop) -> None:
    """Paint white hills with a few firs into a `scene`."""
    scene.hills(17, mix(scene.far[0], (150, 180, 215), 25), 3)
    backdrop.firs(
        scene, mix(scene.far[0], (40, 90, 90), 62), scene.line + scene.unit, scene.height * 20 // 100, 7
    )
    scene.hills(5, scene.far[0], 2)
    scene.ground(4)
    for _ in range(40):
        x, y = scene.rng.randint(0, scene.width), scene.rng.randint(0, scene.height)
        brushes.disc(scene.page, (x, y), max(1, scene.unit * scene.rng.randint(3, 8) // 10), (255, 255, 255))


def desert(scene: Backdrop) -> None:
    """Paint dunes into a `scene`."""
    scene.hills(14, mix(scene.far[0], (200, 130, 80), 24), 2)
    scene.hills(8, scene.far[0], 2)
    scene.ground(8)
    edge = brushes.ridge(
        scene.width,
        scene.line + scene.height * 14 // 100,
        scene.line + scene.height * 26 // 100,
        1,
        scene.rng,
    )
    brushes.land(scene.page, edge, (mix(scene.near[1], WHITE, 12), scene.near[1]))


def sea(scene: Backdrop) -> None:
    """Paint open water with rolling waves into a `scene`."""
    backdrop.water(scene, scene.line, scene.height, (scene.far[-1], *scene.near))
    for index in range(2):
        backdrop.waves(
            scene,
            scene.line + (scene.height - scene.line) * (30 + 26 * index) // 100,
            mix(scene.near[0], scene.near[1], 30 + 30 * index),
        )


def lake(scene: Backdrop) -> None:
    """Paint still water between green banks into a `scene`."""
    scene.hills(12, scene.far[0], 3)
    scene.hills(5, mix(scene.far[0], (60, 120, 70), 40), 2)
    backdrop.water(scene, scene.line, scene.height, scene.near)
    rng, pencil, unit = scene.rng, ImageDraw.Draw(scene.page), scene.unit
    for _ in range(16):
        x = rng.choice((rng.randint(0, scene.width // 5), rng.randint(scene.width * 4 // 5, scene.width)))
        y = scene.height - rng.randint(0, scene.height // 12)
        pencil.line(
            (x, scene.height, x + rng.randint(-2, 2) * unit, y - unit * 8),
            fill=(74, 130, 66),
            width=max(1, unit * 7 // 10),
        )


def beach(scene: Backdrop) -> None:
    """Paint the sea behind sand into a `scene`."""
    shore = scene.line + scene.height * 16 // 100
    backdrop.water(scene, scene.line, min(scene.height, shore + scene.height // 12), scene.far)
    edge = brushes.ridge(scene.width, shore, shore + scene.height * 5 // 100, 2, scene.rng)
    foam = [(x, y - scene.unit * 2 * brushes.FINE) for x, y in edge]
    brushes.land(scene.page, foam, ((250, 253, 255),))
    brushes.land(scene.page, edge, scene.near)
    for _ in range(26):
        x, y = (
            scene.rng.randint(0, scene.width),
            scene.rng.randint(min(shore + scene.height // 9, scene.height), scene.height),
        )
        brushes.disc(scene.page, (x, y), max(1, scene.unit * 4 // 10), mix(scene.near[1], (120, 80, 40), 30))


def underwater(scene: Backdrop) -> None:
    """Paint rays of light, bubbles, weed and sand into a `scene`."""
    rng, unit = scene.rng, scene.unit
    for _ in range(3):
        x = rng.randint(0, scene.width)
        brushes.glow(scene.page, (x, 0), (scene.width // 7, scene.height * 6 // 10), (230, 250, 255), 42)
    for _ in range(16):
        radius = unit * rng.randint(6, 20) // 10
        at = (rng.randint(0, scene.width), rng.randint(scene.height // 10, scene.height))
        brushes.disc(scene.page, at, max(1, radius), (196, 236, 246))
        brushes.disc(scene.page, at, max(1, radius * 7 // 10), (110, 190, 220))
    pencil = ImageDraw.Draw(scene.page)
    for _ in range(9):
        x, foot = rng.randint(0, scene.width), scene.height
        for step in range(6):
            sway = unit * (2 if step % 2 else -2)
            y = foot - step * unit * 5
            pencil.line(
                (
                    x - sway,
                    scene.line + scene.height // 14 - step * unit * 5,
                    x + sway,
                    scene.line + scene.height // 14 - (step + 1) * unit * 5,
                ),
                fill=(58, 140, 96),
                width=max(2, unit * 2),
            )
            if y < 0:
                break
    scene.ground(4)


def city(scene: Backdrop) -> None:
    """Paint two rows of buildings with windows, and a street into a `scene`."""
    for row in range(2):
        tone = mix(scene.far[0], WHITE if row == 0 else (40, 48, 78), 34)
        if scene.time == "night":
            tone = mix(tone, (58, 66, 120), 40 - row * 30)
        backdrop.buildings(scene, tone, scene.line * (66 - row * 14) // 100, row)
    street = [(0, scene.line * brushes.FINE), (scene.width, scene.line * brushes.FINE)]
    brushes.land(scene.page, street, scene.near)
    pencil, unit = ImageDraw.Draw(scene.page), scene.unit
    y = (scene.line + scene.height) // 2
    pencil.rectangle((0, scene.line, scene.width, scene.line + unit), fill=mix(scene.near[0], WHITE, 40))
    for x in range(-scene.rng.randint(0, unit * 12), scene.width, unit * 18):
        pencil.rectangle((x, y, x + unit * 9, y + unit), fill=mix((246, 226, 150), scene.near[1], 22))


def space(scene: Backdrop) -> None:
    """Paint stars, a nebula and a far planet into a `scene`."""
    rng, unit = scene.rng, scene.unit
    for tone in ((150, 80, 190), (60, 110, 200), (210, 90, 140)):
        at = (rng.randint(0, scene.width), rng.randint(0, scene.height))
        brushes.glow(scene.page, at, (scene.width * 4 // 10, scene.height * 3 // 10), tone, 38)
    backdrop.stars(scene, scene.height, 150)
    x = scene.width * rng.choice((14, 84)) // 100
    at, radius, tone = (
        (x, scene.height * rng.randint(16, 26) // 100),
        unit * 9,
        rng.choice(((226, 160, 110), (140, 180, 230), (200, 140, 200))),
    )
    brushes.disc(scene.page, at, radius, tone)
    brushes.glow(
        scene.page,
        (at[0] - radius // 3, at[1] - radius // 3),
        (radius * 8 // 10, radius * 8 // 10),
        WHITE,
        40,
    )


def room(scene: Backdrop) -> None:
    """Paint a wall with a window and a picture, and a wooden floor into a `scene`."""
    rng, pencil, unit = scene.rng, ImageDraw.Draw(scene.page), scene.unit
    scene.page.paste(brushes.gradient((scene.width, scene.height - scene.line), scene.near), (0, scene.line))
    for step in range(1, 5):
        y = scene.line + (scene.height - scene.line) * step * step // 20
        pencil.line(
            (0, y, scene.width, y), fill=mix(scene.near[1], (60, 30, 20), 22), width=max(1, unit // 3)
        )
    pencil.rectangle((0, scene.line - unit * 2, scene.width, scene.line), fill=(250, 244, 234))
    left = rng.choice((8, 58))
    x, y = scene.width * left // 100, scene.line * 16 // 100
    wide, tall = scene.width * 32 // 100, scene.line * 50 // 100
    dark = scene.time == "night"
    pane = ((30, 40, 84), (70, 84, 140)) if dark else ((140, 202, 240), (226, 243, 250))
    pencil.rectangle(
        (x - unit * 2, y - unit * 2, x + wide + unit * 2, y + tall + unit * 2), fill=(252, 248, 240)
    )
    scene.page.paste(brushes.gradient((wide, tall), pane), (x, y))
    pencil.rectangle(
        (x + wide // 2 - unit // 2, y, x + wide // 2 + unit // 2, y + tall), fill=(252, 248, 240)
    )
    pencil.rectangle(
        (x, y + tall // 2 - unit // 2, x + wide, y + tall // 2 + unit // 2), fill=(252, 248, 240)
    )
    other = scene.width * (66 if left == 8 else 14) // 100
    pencil.rectangle((other, y + unit * 3, other + unit * 18, y + unit * 17), fill=(168, 120, 76))
    pencil.rectangle((other + unit * 2, y + unit * 5, other + unit * 16, y + unit * 15), fill=(158, 198, 190))


def fire(scene: Backdrop) -> None:
    """Paint glowing hills and tongues of flame into a `scene`."""
    scene.hills(16, scene.far[0], 4)
    rng, shapes, unit = scene.rng, [], scene.unit
    for tone, share in (((214, 70, 30), 100), ((246, 140, 40), 70), ((252, 214, 90), 42)):
        for x in range(0, scene.width + unit * 12, unit * 12):
            tall, half = unit * rng.randint(16, 34) * share // 100, unit * 9 * share // 100
            foot = scene.line + unit * 4
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
    brushes.polygons(scene.page, shapes, (0, scene.line - unit * 36, scene.width, scene.line + unit * 4))
    scene.ground()


def sky(scene: Backdrop) -> None:
    """Paint big clouds into a `scene`."""
    for _ in range(5):
        at = (scene.rng.randint(0, scene.width), scene.rng.randint(scene.height // 2, scene.height))
        backdrop.cloud(
            scene,
            at,
            scene.unit * scene.rng.randint(20, 34),
            mix(WHITE, (150, 170, 210), 40) if scene.time == "night" else WHITE,
        )


PLACES: dict[str, Callable[[Backdrop], None]] = {
    "meadow": meadow, "savanna": savanna, "forest": forest, "mountains": mountains, "snow": snow,
    "desert": desert, "sea": sea, "lake": lake, "beach": beach, "underwater": underwater, "city": city,
    "space": space, "room": room, "fire": fire, "sky": sky,
}  # fmt: skip
