"""Elements of settings: skies, clouds, stars, hills, grass, firs, water, buildings."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

from imgkit.painter import brushes
from imgkit.painter.palette import WHITE, Colour, mix


@dataclass(frozen=True, slots=True)
class Backdrop:
    """A page with a setting in progress, and the values that its painters share.

    Attributes:
        page: the RGB image to paint on.
        rng: the source of randomness.
        horizon: y of the horizon, in pixels.
        far: colours of the distance.
        near: colours of the foreground.
        time: time of day, such as "night".
        weather: "rain", "snow", "fog" or "".
        busy: whether figures will stand in front.

    Example:
        >>> page = Image.new("RGB", (64, 48))
        >>> rng = random.Random(1)
        >>> backdrop = Backdrop(page, rng, 24, (WHITE,), (WHITE,), "day", "", busy=False)
        >>> paint_stars(backdrop, depth=20, count=5)
    """

    page: Image.Image
    rng: random.Random
    horizon: int
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

    def paint_ground(self, rise: int = 3) -> None:
        """Paint the foreground with a gently waved edge.

        Args:
            rise: amplitude of the edge, in percent of the height.
        """
        swing = max(1, self.height * rise // 100)
        edge = brushes.build_ridge(self.width, self.horizon - swing // 2, self.horizon + swing, 2, self.rng)
        brushes.paint_land(self.page, edge, self.near)

    def paint_hills(self, rise: int, colour: Colour, bumps: int = 3) -> None:
        """Paint a range of hills.

        Args:
            rise: height above the horizon, in percent of the image's height.
            colour: at the top.
            bumps: approximate number of hills.
        """
        top = self.horizon - self.height * rise // 100
        edge = brushes.build_ridge(self.width, top, self.horizon, bumps, self.rng)
        brushes.paint_land(self.page, edge, (colour, mix(colour, WHITE, 18)))


def paint_heavens(backdrop: Backdrop) -> None:
    """Paint the sun, the moon, stars or clouds into the sky.

    Args:
        backdrop: the backdrop; its time and weather select the elements.
    """
    rng, width, horizon, unit = backdrop.rng, backdrop.width, max(4, backdrop.horizon), backdrop.unit
    x = rng.randint(width * 12 // 100, width * 34 // 100)
    x = width - x if rng.random() < 0.5 else x
    if backdrop.time == "night":
        paint_stars(backdrop, horizon * 9 // 10, 70)
        if not backdrop.weather:
            y, radius = horizon * rng.randint(18, 30) // 100, unit * 6
            brushes.paint_glow(backdrop.page, (x, y), (radius * 4, radius * 4), (240, 232, 190), 34)
            brushes.paint_disc(backdrop.page, (x, y), radius, (250, 243, 210))
            brushes.paint_disc(
                backdrop.page, (x + radius // 3, y - radius // 4), radius // 5, (230, 218, 175)
            )
            brushes.paint_disc(
                backdrop.page, (x - radius // 4, y + radius // 3), radius // 6, (230, 218, 175)
            )
        return
    if backdrop.time in ("sunset", "dawn"):
        y, radius = horizon * (88 if backdrop.time == "sunset" else 76) // 100, unit * 10
        x = width // 2 + rng.randint(-width // 4, width // 4)
        brushes.paint_glow(backdrop.page, (x, y), (radius * 5, radius * 4), (255, 236, 170), 64)
        brushes.paint_disc(backdrop.page, (x, y), radius, (255, 242, 196))
    elif backdrop.time != "storm" and not backdrop.weather:
        y, radius = horizon * rng.randint(16, 26) // 100, unit * 6
        brushes.paint_glow(backdrop.page, (x, y), (radius * 4, radius * 4), (255, 248, 205), 70)
        brushes.paint_disc(backdrop.page, (x, y), radius, (255, 240, 168))
    grey = backdrop.time == "storm" or backdrop.weather == "rain"
    tone = (176, 186, 198) if grey else (255, 226, 214) if backdrop.time in ("sunset", "dawn") else WHITE
    for _ in range(6 if grey else 3):
        paint_cloud(
            backdrop,
            (rng.randint(0, width), horizon * rng.randint(12, 56) // 100),
            unit * rng.randint(9, 17),
            tone,
        )


def paint_cloud(backdrop: Backdrop, at: tuple[int, int], reach: int, colour: Colour) -> None:
    """Paint a cloud.

    Args:
        backdrop: the backdrop to paint on.
        at: x and y of the centre, in pixels.
        reach: half the width, in pixels.
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
    backdrop.page.paste(colour, (at[0] - width // 2, at[1] - height // 2), mask.reduce(2))


def paint_stars(backdrop: Backdrop, depth: int, count: int) -> None:
    """Paint stars.

    Args:
        backdrop: the backdrop to paint on.
        depth: y of the lowest star, in pixels.
        count: number of stars.
    """
    rng, pencil = backdrop.rng, ImageDraw.Draw(backdrop.page)
    for _ in range(count):
        x, y = rng.randint(0, backdrop.width), rng.randint(0, max(1, depth))
        size = rng.choice((0, 0, 0, 1, 1, 2)) * backdrop.unit // 4
        tone = rng.randint(150, 255)
        pencil.ellipse((x - size, y - size, x + size, y + size), fill=(tone, tone, min(255, tone + 18)))


def paint_grass(backdrop: Backdrop, colour: Colour, count: int) -> None:
    """Paint tufts of grass on the foreground.

    Args:
        backdrop: the backdrop to paint on.
        colour: of the grass.
        count: number of tufts.
    """
    rng, pencil, unit = backdrop.rng, ImageDraw.Draw(backdrop.page), backdrop.unit
    for _ in range(count):
        x, y = rng.randint(0, backdrop.width), rng.randint(backdrop.horizon + unit * 4, backdrop.height)
        for lean in (-1, 0, 1):
            pencil.line((x, y, x + lean * unit, y - unit * 5 // 2), fill=colour, width=max(1, unit // 3))


def paint_blossoms(backdrop: Backdrop, count: int) -> None:
    """Paint flowers as dots on the foreground.

    Args:
        backdrop: the backdrop to paint on.
        count: number of flowers.
    """
    rng, unit = backdrop.rng, backdrop.unit
    for _ in range(count):
        x, y = rng.randint(0, backdrop.width), rng.randint(backdrop.horizon + unit * 5, backdrop.height)
        tone = rng.choice(((255, 255, 255), (255, 226, 110), (255, 178, 196)))
        brushes.paint_disc(backdrop.page, (x, y), max(1, unit * 8 // 10), tone)


def paint_firs(backdrop: Backdrop, colour: Colour, foot: int, height: int, count: int) -> None:
    """Paint a row of firs.

    Args:
        backdrop: the backdrop to paint on.
        colour: of the trees.
        foot: y of their feet, in pixels.
        height: of the tallest tree, in pixels.
        count: number of trees.
    """
    rng, shapes = backdrop.rng, []
    step = backdrop.width // count + 1
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
    brushes.paint_polygons(backdrop.page, shapes, (0, foot - height - 2, backdrop.width, foot + 1))


def paint_water(backdrop: Backdrop, top: int, bottom: int, colours: tuple[Colour, ...]) -> None:
    """Paint water with glints of light.

    Args:
        backdrop: the backdrop to paint on.
        top: y of the upper edge, in pixels.
        bottom: y of the lower edge, in pixels.
        colours: from top to bottom.
    """
    rng, page = backdrop.rng, backdrop.page
    page.paste(brushes.paint_gradient((backdrop.width, max(1, bottom - top)), colours), (0, top))
    pencil = ImageDraw.Draw(page)
    for _ in range(46):
        depth = rng.randint(2, 100)
        y = top + (bottom - top) * depth * depth // 10_000
        x, length = rng.randint(0, backdrop.width), backdrop.unit * (2 + depth // 9)
        tone = mix(colours[0], WHITE, rng.randint(25, 50))
        pencil.rounded_rectangle(
            (x, y, x + length, y + max(1, backdrop.unit * depth // 130)), radius=backdrop.unit, fill=tone
        )


def paint_waves(backdrop: Backdrop, y: int, colour: Colour) -> None:
    """Paint a row of waves and the water below it.

    Args:
        backdrop: the backdrop to paint on.
        y: of the crests, in pixels.
        colour: of the water.
    """
    swing = backdrop.unit * 2
    edge = brushes.build_ridge(backdrop.width, y - swing, y + swing, 7, backdrop.rng)
    crest = [(x, top - brushes.SUBPIXELS * backdrop.unit * 6 // 10) for x, top in edge]
    brushes.paint_land(backdrop.page, crest, (mix(colour, WHITE, 58),))
    brushes.paint_land(backdrop.page, edge, (colour, mix(colour, backdrop.near[-1], 70)))


def paint_buildings(backdrop: Backdrop, tone: Colour, tallest: int, row: int) -> None:
    """Paint a row of buildings.

    Args:
        backdrop: the backdrop to paint on.
        tone: the approximate colour.
        tallest: height of the tallest building, in pixels.
        row: 0 for the far row, which shows its windows only at night; 1 for the near row.
    """
    rng, pencil, unit = backdrop.rng, ImageDraw.Draw(backdrop.page), backdrop.unit
    x = -rng.randint(0, unit * 6)
    lamp = (255, 224, 130) if backdrop.time in ("night", "sunset") else mix(tone, WHITE, 46)
    while x < backdrop.width:
        wide, tall = unit * rng.randint(10, 18), tallest * rng.randint(48, 100) // 100
        face = mix(tone, (rng.randint(90, 170), rng.randint(90, 150), rng.randint(120, 180)), 22)
        top = backdrop.horizon - tall
        pencil.rectangle((x, top, x + wide, backdrop.horizon), fill=face)
        if rng.random() < 0.3:
            pencil.rectangle(
                (x + wide // 2 - unit // 4, top - unit * 5, x + wide // 2 + unit // 4, top), fill=face
            )
        for left in range(x + unit * 2, x + wide - unit * 2, unit * 3 + unit // 2):
            for up in range(top + unit * 2, backdrop.horizon - unit * 3, unit * 5):
                if rng.random() < (0.55 if backdrop.time == "night" else 0.85) and (
                    row or backdrop.time == "night"
                ):
                    pencil.rectangle((left, up, left + unit * 3 // 2, up + unit * 5 // 2), fill=lamp)
        x += wide + rng.randint(0, unit)
