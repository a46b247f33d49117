"""The shapes of images: sizes in pixels, aspect ratios and resolutions, and the nearest of each."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

COMMON_RATIOS = (
    *("1:1", "5:4", "4:5", "4:3", "3:4", "3:2", "2:3"),
    *("16:9", "9:16", "2:1", "1:2", "21:9", "9:21"),
)
"""Aspect ratios for an API without a list of its own."""

RESOLUTIONS = ("512", "1K", "2K", "4K")
"""Common resolutions."""

_SIZE = re.compile(r"([0-9]+)x([0-9]+)")
_RATIO = re.compile(r"([1-9][0-9]*(?:\.[0-9]+)?):([1-9][0-9]*(?:\.[0-9]+)?)")
_RESOLUTION = re.compile(r"([0-9.]+)(K|MP|)", re.IGNORECASE)
_SQUARE_PX = 1024
_RATIO_WEIGHT = 4


class Grid(NamedTuple):
    """The possible sizes of an image.

    Attributes:
        multiple_of_px: both sides are multiples of this.
        most_ratio: maximum ratio of the longer side to the shorter side.
        longest_edge_px: maximum of either side.
        least_px, most_px: bounds of width times height.
    """

    multiple_of_px: int = 1
    most_ratio: float | None = None
    longest_edge_px: int | None = None
    least_px: int | None = None
    most_px: int | None = None


def is_on_grid(size: tuple[int, int], grid: Grid) -> bool:
    """Return whether a grid contains a size in pixels."""
    width, height = size
    longer, shorter = max(size), min(size)
    return (
        shorter > 0
        and width % grid.multiple_of_px == 0
        and height % grid.multiple_of_px == 0
        and (grid.most_ratio is None or longer <= grid.most_ratio * shorter)
        and (grid.longest_edge_px is None or longer <= grid.longest_edge_px)
        and (grid.least_px is None or width * height >= grid.least_px)
        and (grid.most_px is None or width * height <= grid.most_px)
    )


def nearest_size(size: tuple[int, int], grid: Grid) -> tuple[int, int]:
    """Return the size of a grid that is nearest to `size` in shape and area."""
    width, height = (float(max(side, 1)) for side in size)
    most_ratio = grid.most_ratio or math.inf
    if grid.longest_edge_px is not None and grid.least_px is not None:
        # The widest image still needs a height that reaches least_px.
        most_ratio = min(most_ratio, grid.longest_edge_px**2 / grid.least_px)
    width, height = max(width, height / most_ratio), max(height, width / most_ratio)
    scale = 1.0
    if grid.most_px is not None:
        scale = min(scale, math.sqrt(grid.most_px / (width * height)))
    if grid.longest_edge_px is not None:
        scale = min(scale, grid.longest_edge_px / max(width, height))
    if grid.least_px is not None and width * height * scale**2 < grid.least_px:
        scale = math.sqrt(grid.least_px / (width * height))
    step = grid.multiple_of_px
    near = [
        (column * step, row * step)
        for column in _candidates_near(width * scale / step)
        for row in _candidates_near(height * scale / step)
        if is_on_grid((column * step, row * step), grid)
    ]
    return min(near, key=lambda candidate: _distance(candidate, size), default=(step, step))


def _candidates_near(value: float) -> range:
    return range(max(1, math.floor(value) - 2), math.floor(value) + 4)


def _distance(first: tuple[int, int], second: tuple[int, int]) -> float:
    return sum(abs(math.log(a / max(b, 1))) for a, b in zip(first, second, strict=True))


def parse_size(value: object) -> tuple[int, int] | None:
    """Return width and height of a size in pixels, None for anything else.

    >>> parse_size("1024x768"), parse_size("auto")
    ((1024, 768), None)
    """
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    return (int(match[1]), int(match[2])) if match else None


def find_nearest_size(size: tuple[int, int], allowed: Iterable[object]) -> str:
    """Return the size among the allowed values that is nearest to `size` in shape and area.

    >>> find_nearest_size((1000, 900), ("1024x1024", "1536x1024", "auto"))
    '1024x1024'
    """
    sizes = {str(value): parsed for value in allowed if (parsed := parse_size(value))}
    return min(sizes, key=lambda value: _distance(sizes[value], size))


def parse_ratio(value: object) -> float | None:
    """Return an aspect ratio as width divided by height, None for anything else.

    >>> parse_ratio("16:8"), parse_ratio("9:19.5") == 9 / 19.5, parse_ratio("auto")
    (2.0, True, None)
    """
    match = _RATIO.fullmatch(value) if isinstance(value, str) else None
    return float(match[1]) / float(match[2]) if match else None


def parse_resolution(value: object) -> float | None:
    """Return the side in pixels of a square of a resolution, None for anything else.

    >>> parse_resolution("2K"), parse_resolution("512"), parse_resolution("4MP")
    (2048.0, 512.0, 2000.0)
    """
    match = _RESOLUTION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    number, unit = float(match[1]), match[2].upper()
    return number * _SQUARE_PX if unit == "K" else math.sqrt(number) * 1000 if unit == "MP" else number


def find_nearest_ratio(ratio: float, allowed: Iterable[object] = COMMON_RATIOS) -> str | None:
    """Return the aspect ratio among the allowed values that is nearest to width divided by height.

    >>> find_nearest_ratio(1.78)
    '16:9'
    """
    ratios = {str(value): parsed for value in allowed if (parsed := parse_ratio(value))}
    return min(ratios, key=lambda value: abs(math.log(ratios[value] / ratio)), default=None)


def list_ratios(allowed: Iterable[object] = (), grid: Grid | None = None) -> list[object]:
    """Return the allowed aspect ratios; without any, the common ratios that fit a grid.

    >>> len(list_ratios()), list_ratios(grid=Grid(most_ratio=1))
    (13, ['1:1'])
    """
    most = math.inf if grid is None or grid.most_ratio is None else grid.most_ratio
    return list(allowed) or [ratio for ratio in COMMON_RATIOS if is_within_ratio(ratio, most)]


def is_within_ratio(ratio: str, most_ratio: float) -> bool:
    """Return whether the longer side of an aspect ratio is at most `most_ratio` times the shorter side.

    >>> is_within_ratio("9:16", 2), is_within_ratio("3:1", 2)
    (True, False)
    """
    value = parse_ratio(ratio) or 1.0
    return max(value, 1 / value) <= most_ratio


def find_nearest_resolution(side_px: float, allowed: Iterable[object] = ("1K", "2K", "4K")) -> str | None:
    """Return the resolution among the allowed values that is nearest to the side of a square.

    >>> find_nearest_resolution(1900)
    '2K'
    """
    sides = {str(value): parsed for value in allowed if (parsed := parse_resolution(value))}
    return min(sides, key=lambda value: abs(math.log(sides[value] / max(side_px, 1))), default=None)


def to_size(ratio: float, side_px: float, allowed: Iterable[object] = (), grid: Grid | None = None) -> str:
    """Return the size in pixels for an aspect ratio and the side of a square of the same area.

    Among possible sizes, the ratio counts more than the area.

    Args:
        ratio: width divided by height.
        side_px: side of the square in pixels.
        allowed: the possible sizes; () for those of the grid.
        grid: the possible sizes; None for multiples of 16.

    >>> to_size(16 / 9, 1024), to_size(3 / 2, 1024, ("1024x1024", "1536x1024"))
    ('1360x768', '1536x1024')
    """
    width, height = side_px * math.sqrt(ratio), side_px / math.sqrt(ratio)
    sizes = {str(value): parsed for value in allowed if (parsed := parse_size(value))}
    if sizes:
        return min(
            sizes,
            key=lambda value: (
                _RATIO_WEIGHT * abs(math.log(sizes[value][0] / sizes[value][1] / ratio))
                + abs(math.log(sizes[value][0] * sizes[value][1] / side_px**2))
            ),
        )
    if grid is not None:
        return "{}x{}".format(*nearest_size((round(width), round(height)), grid))
    return f"{max(1, round(width / 16)) * 16}x{max(1, round(height / 16)) * 16}"
