"""What settings are made of: skies, clouds, stars, hills, grass, firs, water, buildings."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

from imgkit.painter import brushes
from imgkit.painter.palette import WHITE, Colour, mix


@dataclass(frozen=True, slots=True)
class Backdrop:
    """A page being painted, with what its painters need to know."""

    page: Image.Image
    rng: random.Random
    line: int
    far: tuple[Colour, ...]
    near: tuple[Colour, ...]
    time: str
    weather: str
    busy: bool

    @property
    def width(self) -> int:
        """Pixels across."""
        return self.page.width

    @property
    def height(self) -> int:
        """Pixels down."""
        return self.page.height

    @property
    def unit(self) -> int:
        """A hundredth of the shorter side, at least one pixel."""
        return max(1, min(self.page.size) // 100)

    def ground(self, rise: int = 3) -> None:
        """Paint the near ground with a gently waved edge.

        Parameters:
            rise: how far the edge swings, in percent of the height.
        """
        swing = max(1, self.height * rise // 100)
        edge = brushes.ridge(self.width, self.line - swing // 2, self.line + swing, 2, self.rng)
        brushes.land(self.page, edge, self.near)

    def hills(self, rise: int, colour: Colour, bumps: int = 3) -> None:
        """Paint one range of hills.

        Parameters:
            rise: how high above the horizon, in percent of the height.
            colour: at the top.
            bumps: about how many hills.
        """
        top = self.line - self.height * rise // 100
        edge = brushes.ridge(self.width, top, self.line, bumps, self.rng)
        brushes.land(self.page, edge, (colour, mix(colour, WHITE, 18)))


def heavens(scene: Backdrop) -> None:
    """Paint the sun, the moon, stars or clouds into the sky.

    Parameters:
        scene: the page being painted; its time and weather decide.
    """
    rng, width, line, unit = scene.rng, scene.width, max(4, scene.line), scene.unit
    x = rng.randint(width * 12 // 100, width * 34 // 100)
    x = width - x if rng.random() < 0.5 else x
    if scene.time == "night":
        stars(scene, line * 9 // 10, 70)
        if not scene.weather:
            y, radius = line * rng.randint(18, 30) // 100, unit * 6
            brushes.glow(scene.page, (x, y), (radius * 4, radius * 4), (240, 232, 190), 34)
            brushes.disc(scene.page, (x, y), radius, (250, 243, 210))
            brushes.disc(scene.page, (x + radius // 3, y - radius // 4), radius // 5, (230, 218, 175))
            brushes.disc(scene.page, (x - radius // 4, y + radius // 3), radius // 6, (230, 218, 175))
        return
    if scene.time in ("sunset", "dawn"):
        y, radius = line * (88 if scene.time == "sunset" else 76) // 100, unit * 10
        x = width // 2 + rng.randint(-width // 4, width // 4)
        brushes.glow(scene.page, (x, y), (radius * 5, radius * 4), (255, 236, 170), 64)
        brushes.disc(scene.page, (x, y), radius, (255, 242, 196))
    elif scene.time != "storm" and not scene.weather:
        y, radius = line * rng.randint(16, 26) // 100, unit * 6
        brushes.glow(scene.page, (x, y), (radius * 4, radius * 4), (255, 248, 205), 70)
        brushes.disc(scene.page, (x, y), radius, (255, 240, 168))
    grey = scene.time == "storm" or scene.weather == "rain"
    tone = (176, 186, 198) if grey else (255, 226, 214) if scene.time in ("sunset", "dawn") else WHITE
    for _ in range(6 if grey else 3):
        cloud(
            scene, (rng.randint(0, width), line * rng.randint(12, 56) // 100), unit * rng.randint(9, 17), tone
        )


def cloud(scene: Backdrop, at: tuple[int, int], reach: int, colour: Colour) -> None:
    """Paint a cloud.

    Parameters:
        scene: the page being painted.
        at: its middle in pixels.
        reach: pixels to either side.
        colour: of the cloud.
    """
    width, height = max(8, reach * 2), max(6, reach)
    mask = Image.new("L", (width * 2, height * 2))
    pencil = ImageDraw.Draw(mask)
    for left, top, right, bottom in (
        (0, 90, 80, 190),
        (40, 30, 120, 190),
        (90, 10, 160, 190),
        (130, 80, 200, 190),
    ):
        pencil.ellipse(
            (left * width // 100, top * height // 100, right * width // 100, bottom * height // 100), fill=200
        )
    pencil.rectangle((0, height * 19 // 10 - 1, width * 2, height * 2), fill=0)
    scene.page.paste(colour, (at[0] - width // 2, at[1] - height // 2), mask.reduce(2))


def stars(scene: Backdrop, depth: int, count: int) -> None:
    """Paint stars.

    Parameters:
        scene: the page being painted.
        depth: the lowest y in pixels.
        count: how many.
    """
    rng, pencil = scene.rng, ImageDraw.Draw(scene.page)
    for _ in range(count):
        x, y = rng.randint(0, scene.width), rng.randint(0, max(1, depth))
        size = rng.choice((0, 0, 0, 1, 1, 2)) * scene.unit // 4
        tone = rng.randint(150, 255)
        pencil.ellipse((x - size, y - size, x + size, y + size), fill=(tone, tone, min(255, tone + 18)))


def tufts(scene: Backdrop, colour: Colour, count: int) -> None:
    """Paint blades of grass on the near ground.

    Parameters:
        scene: the page being painted.
        colour: of the grass.
        count: how many tufts.
    """
    rng, pencil, unit = scene.rng, ImageDraw.Draw(scene.page), scene.unit
    for _ in range(count):
        x, y = rng.randint(0, scene.width), rng.randint(scene.line + unit * 4, scene.height)
        for lean in (-1, 0, 1):
            pencil.line((x, y, x + lean * unit, y - unit * 5 // 2), fill=colour, width=max(1, unit // 3))


def blossoms(scene: Backdrop, count: int) -> None:
    """Paint dots of flowers on the near ground.

    Parameters:
        scene: the page being painted.
        count: how many.
    """
    rng, unit = scene.rng, scene.unit
    for _ in range(count):
        x, y = rng.randint(0, scene.width), rng.randint(scene.line + unit * 5, scene.height)
        tone = rng.choice(((255, 255, 255), (255, 226, 110), (255, 178, 196)))
        brushes.disc(scene.page, (x, y), max(1, unit * 8 // 10), tone)


def firs(scene: Backdrop, colour: Colour, foot: int, height: int, count: int) -> None:
    """Paint a row of firs.

    Parameters:
        scene: the page being painted.
        colour: of the trees.
        foot: the y in pixels they stand on.
        height: of the tallest, in pixels.
        count: how many.
    """
    rng, shapes = scene.rng, []
    step = scene.width // count + 1
    for index in range(count + 1):
        x, tall = index * step + rng.randint(-step // 3, step // 3), height * rng.randint(70, 100) // 100
        half = tall * 24 // 100
        shapes.append(
            (
                [
                    (x - half // 6, foot),
                    (x - half // 6, foot - tall // 3),
                    (x + half // 6, foot - tall // 3),
                    (x + half // 6, foot),
                ],
                mix(colour, (60, 40, 30), 60),
            )
        )
        for tier in range(3):
            low, high = foot - tall * (12 + tier * 26) // 100, foot - tall * (52 + tier * 24) // 100
            reach = half * (100 - tier * 26) // 100
            shapes.append(([(x - reach, low), (x, high), (x + reach, low)], mix(colour, WHITE, tier * 5)))
    brushes.polygons(scene.page, shapes, (0, foot - height - 2, scene.width, foot + 1))


def water(scene: Backdrop, top: int, bottom: int, colours: tuple[Colour, ...]) -> None:
    """Paint water with glints of light.

    Parameters:
        scene: the page being painted.
        top: the y in pixels where it begins.
        bottom: the y in pixels where it ends.
        colours: from top to bottom.
    """
    rng, page = scene.rng, scene.page
    page.paste(brushes.gradient((scene.width, max(1, bottom - top)), colours), (0, top))
    pencil = ImageDraw.Draw(page)
    for _ in range(46):
        depth = rng.randint(2, 100)
        y = top + (bottom - top) * depth * depth // 10_000
        x, length = rng.randint(0, scene.width), scene.unit * (2 + depth // 9)
        tone = mix(colours[0], WHITE, rng.randint(25, 50))
        pencil.rounded_rectangle(
            (x, y, x + length, y + max(1, scene.unit * depth // 130)), radius=scene.unit, fill=tone
        )


def waves(scene: Backdrop, y: int, colour: Colour) -> None:
    """Paint a row of waves and the water below it.

    Parameters:
        scene: the page being painted.
        y: of the crests, in pixels.
        colour: of the water.
    """
    swing = scene.unit * 2
    edge = brushes.ridge(scene.width, y - swing, y + swing, 7, scene.rng)
    crest = [(x, top - brushes.FINE * scene.unit * 6 // 10) for x, top in edge]
    brushes.land(scene.page, crest, (mix(colour, WHITE, 58),))
    brushes.land(scene.page, edge, (colour, mix(colour, scene.near[-1], 70)))


def buildings(scene: Backdrop, tone: Colour, tallest: int, row: int) -> None:
    """Paint a row of buildings.

    Parameters:
        scene: the page being painted.
        tone: about which colour.
        tallest: height of the tallest in pixels.
        row: 0 for the far row, whose windows show at night only, 1 for the near one.
    """
    rng, pencil, unit = scene.rng, ImageDraw.Draw(scene.page), scene.unit
    x = -rng.randint(0, unit * 6)
    lamp = (255, 224, 130) if scene.time in ("night", "sunset") else mix(tone, WHITE, 46)
    while x < scene.width:
        wide, tall = unit * rng.randint(10, 18), tallest * rng.randint(48, 100) // 100
        face = mix(tone, (rng.randint(90, 170), rng.randint(90, 150), rng.randint(120, 180)), 22)
        top = scene.line - tall
        pencil.rectangle((x, top, x + wide, scene.line), fill=face)
        if rng.random() < 0.3:
            pencil.rectangle(
                (x + wide // 2 - unit // 4, top - unit * 5, x + wide // 2 + unit // 4, top), fill=face
            )
        for left in range(x + unit * 2, x + wide - unit * 2, unit * 3 + unit // 2):
            for up in range(top + unit * 2, scene.line - unit * 3, unit * 5):
                if rng.random() < (0.55 if scene.time == "night" else 0.85) and (
                    row or scene.time == "night"
                ):
                    pencil.rectangle((left, up, left + unit * 3 // 2, up + unit * 5 // 2), fill=lamp)
        x += wide + rng.randint(0, unit)
