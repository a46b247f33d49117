"""Colour arithmetic of the painter: whole numbers in, whole numbers out, so every machine agrees."""

from __future__ import annotations

import colorsys
import random

Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
NIGHT: Colour = (18, 20, 38)


def parse(text: str) -> Colour:
    """Read a colour as the data files write it.

    Parameters:
        text: six hexadecimal digits, with or without a leading ``#``.

    Returns:
        Red, green and blue, 0..255 each.

    Raises:
        ValueError: the text is no such colour.
    """
    digits = text.removeprefix("#")
    if len(digits) != 6:
        raise ValueError(f"a colour is six hexadecimal digits, not {text!r}")
    value = int(digits, 16)
    return value >> 16, value >> 8 & 255, value & 255


def mix(one: Colour, other: Colour, percent: int) -> Colour:
    """Blend two colours.

    Parameters:
        one: the colour at 0 percent.
        other: the colour at 100 percent.
        percent: how much of ``other`` is in the result.

    Returns:
        The blend.
    """
    red, green, blue = ((a * (100 - percent) + b * percent) // 100 for a, b in zip(one, other, strict=True))
    return red, green, blue


def luma(colour: Colour) -> int:
    """Return how bright a colour looks, 0 (black) to 255 (white)."""
    red, green, blue = colour
    return (299 * red + 587 * green + 114 * blue) // 1000


def ink_for(fill: Colour) -> Colour:
    """Choose the colour of the line art drawn on a fill.

    A dark fill takes pale lines: dark ones would drown in it.

    Parameters:
        fill: the colour under the lines.

    Returns:
        A shade of the same colour that stands out.
    """
    if luma(fill) < 74:
        return mix(fill, (196, 202, 224), 58)
    return mix(fill, (30, 20, 34), 78)


def turn(colour: Colour, degrees: int, lighter: int = 0) -> Colour:
    """Turn a colour's hue and change its lightness.

    Parameters:
        colour: where to start.
        degrees: how far round the colour circle, may be negative.
        lighter: percent points of lightness to add, may be negative.

    Returns:
        The changed colour.
    """
    hue, lightness, saturation = colorsys.rgb_to_hls(*(part / 255 for part in colour))
    lightness = min(1.0, max(0.0, lightness + lighter / 100))
    red, green, blue = colorsys.hls_to_rgb((hue + degrees / 360) % 1.0, lightness, saturation)
    return round(red * 255), round(green * 255), round(blue * 255)


def from_hue(degrees: int, saturation: int, lightness: int) -> Colour:
    """Make a colour from its hue in degrees and its saturation and lightness in percent."""
    red, green, blue = colorsys.hls_to_rgb(degrees % 360 / 360, lightness / 100, saturation / 100)
    return round(red * 255), round(green * 255), round(blue * 255)


def tinted(colour: Colour, rng: random.Random, spread: int = 7) -> Colour:
    """Vary a colour by a few degrees and points, as two painters would mix it.

    Parameters:
        colour: the colour meant.
        rng: where the chance comes from.
        spread: the most degrees of hue to turn; the lightness moves about half as far.

    Returns:
        A colour of the same family.
    """
    return turn(colour, rng.randint(-spread, spread), rng.randint(-spread // 2, spread // 2))
