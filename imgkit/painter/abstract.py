"""A picture for words that the painter does not know: flowing shapes in colours of one family."""

from __future__ import annotations

import random
from collections.abc import Sequence

from PIL import Image

from imgkit.painter import brushes
from imgkit.painter.palette import WHITE, Colour, from_hue, mix, turn


def paint(size: tuple[int, int], family: int, colours: Sequence[Colour], rng: random.Random) -> Image.Image:
    """Paint a composition of waves and discs.

    Parameters:
        size: width and height in pixels.
        family: the hue in degrees that a prompt has, whatever the seed.
        colours: colours that the prompt names; they take the place of the hue.
        rng: where the chance comes from.

    Returns:
        An RGB picture.
    """
    width, height = size
    hue = family + rng.randint(-35, 35)
    bases = [turn(colour, rng.randint(-8, 8)) for colour in colours[:3]]
    if not bases:
        bases = [from_hue(hue, 62, 56), from_hue(hue + rng.choice((38, 150, 205)), 66, 60)]
    if len(bases) == 1:
        bases.append(turn(bases[0], rng.choice((-34, 30)), 8))
    page = brushes.gradient(
        size, (mix(bases[0], WHITE, 58), mix(bases[-1], WHITE, 78), mix(bases[0], WHITE, 66))
    )
    unit = max(1, min(size) // 100)
    at = (rng.randint(width // 4, width * 3 // 4), rng.randint(height // 6, height * 4 // 10))
    radius = unit * rng.randint(17, 25)
    brushes.glow(page, at, (radius * 3, radius * 3), WHITE, 60)
    brushes.disc(page, at, radius, mix(bases[-1], (255, 214, 120), 40))
    brushes.disc(page, at, radius * 82 // 100, mix(bases[-1], (255, 228, 160), 60))
    layers = 6
    for index in range(layers):
        base = bases[index % len(bases)]
        tone = mix(mix(base, WHITE, 34 - index * 4), (22, 16, 62), index * 11)
        top = height * (30 + index * 11) // 100
        edge = brushes.ridge(width, top - height * 7 // 100, top + height * 12 // 100, rng.randint(1, 3), rng)
        lip = [(x, y - brushes.FINE * max(1, unit * 6 // 10)) for x, y in edge]
        brushes.land(page, lip, (mix(tone, WHITE, 42),))
        brushes.land(page, edge, (tone, mix(tone, (20, 16, 60), 16)))
    for _ in range(9):
        spot = (rng.randint(0, width), rng.randint(0, height))
        brushes.disc(page, spot, unit * rng.randint(1, 3), mix(rng.choice(bases), WHITE, 62))
    return page
