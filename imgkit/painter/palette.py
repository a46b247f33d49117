"""Colour arithmetic in whole numbers, so that every machine paints equal pixels."""

from __future__ import annotations

import colorsys
import random

Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
NIGHT: Colour = (18, 20, 38)


def parse_colour(text: str) -> Colour:
    """Parse a colour of the data files.

    Args:
        text: six hexadecimal digits, with or without a leading ``#``.

    Returns:
        Red, green and blue, 0 to 255 each.

    Raises:
        ValueError: the text is not a colour.

    Example:
        >>> parse_colour("#d9342b")
        (217, 52, 43)
    """
    digits = text.removeprefix("#")
    if len(digits) != 6:
        raise ValueError(f"Invalid colour {text!r}. Expected six hexadecimal digits.")
    value = int(digits, 16)
    return value >> 16, value >> 8 & 255, value & 255


def mix(start: Colour, end: Colour, percent: int) -> Colour:
    """Blend two colours.

    Args:
        start: the colour at 0 percent.
        end: the colour at 100 percent.
        percent: share of `end` in the result.

    Returns:
        The blend.

    Example:
        >>> mix((0, 0, 0), (200, 100, 0), 50)
        (100, 50, 0)
    """
    red, green, blue = ((a * (100 - percent) + b * percent) // 100 for a, b in zip(start, end, strict=True))
    return red, green, blue


def luma(colour: Colour) -> int:
    """Return the perceived brightness of a colour, 0 (black) to 255 (white)."""
    red, green, blue = colour
    return (299 * red + 587 * green + 114 * blue) // 1000


def choose_ink(fill: Colour) -> Colour:
    """Choose the colour of the lines on a fill.

    A dark fill gets pale lines, because dark lines would be invisible on it.

    Args:
        fill: the colour under the lines.

    Returns:
        A contrasting shade of the same colour.
    """
    if luma(fill) < 74:
        return mix(fill, (196, 202, 224), 58)
    return mix(fill, (30, 20, 34), 78)


def shift_hue(colour: Colour, degrees: int, lighter: int = 0) -> Colour:
    """Rotate the hue of a colour and change its lightness.

    Args:
        colour: the colour to change.
        degrees: rotation around the colour circle; may be negative.
        lighter: percentage points of lightness to add; may be negative.

    Returns:
        The changed colour.
    """
    hue, lightness, saturation = colorsys.rgb_to_hls(*(part / 255 for part in colour))
    lightness = min(1.0, max(0.0, lightness + lighter / 100))
    red, green, blue = colorsys.hls_to_rgb((hue + degrees / 360) % 1.0, lightness, saturation)
    return round(red * 255), round(green * 255), round(blue * 255)


def from_hue(degrees: int, saturation: int, lightness: int) -> Colour:
    """Return the colour with a hue in degrees, and saturation and lightness in percent."""
    red, green, blue = colorsys.hls_to_rgb(degrees % 360 / 360, lightness / 100, saturation / 100)
    return round(red * 255), round(green * 255), round(blue * 255)


def vary_colour(colour: Colour, rng: random.Random, spread: int = 7) -> Colour:
    """Vary a colour at random by a few degrees of hue and a few points of lightness.

    Args:
        colour: the colour to vary.
        rng: the source of randomness.
        spread: maximum rotation of the hue in degrees; the lightness changes about half as much.

    Returns:
        A similar colour.
    """
    return shift_hue(colour, rng.randint(-spread, spread), rng.randint(-spread // 2, spread // 2))
