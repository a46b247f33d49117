"""Sizes in pixels as the aspect ratios and resolutions of Google's image models.

Source: the sizes in ``gemini.toml``, from the tables in the vendor's guide, read 2026-11-28.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

from imgkit.catalogue.catalogue import load_provider_data
from imgkit.catalogue.facts import Rule
from imgkit.catalogue.rules import explain_violation

FACTS = "imgkit.providers:gemini.toml"

RATIOS = (
    *("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9"),
    *("1:4", "4:1", "1:8", "8:1"),
)
"""Values of ``aspectRatio``; only the models 3.1 take the last four."""

RESOLUTIONS: Mapping[str, int] = {"512": 512, "1K": 1024, "2K": 2048, "4K": 4096}
"""Values of ``imageSize``, with the side of a square in pixels."""

WITHOUT_RESOLUTION = frozenset({"gemini-2.5-flash-image"})
"""Models that take no ``imageSize``."""


@cache
def list_sizes(model: str = "") -> tuple[str, ...]:
    """Return the sizes of a model; those of all models for an unknown one.

    Example:
        >>> "1376x768" in list_sizes(), "1376x768" in list_sizes("gemini-2.5-flash-image")
        (True, False)
    """
    data = load_provider_data(FACTS)
    rules = data["rules"]
    names = next((item["rules"] for item in data["models"] if item["id"] == model and "rules" in item), rules)
    sizes = [rules[name]["allowed"] for name in names if rules[name]["field"] == "size"]
    return tuple(dict.fromkeys(size for allowed in sizes for size in allowed if size != "auto"))


def find_size_problem(size: str | None, model: str) -> str | None:
    """Return why a model draws no image of a size, with the nearest size; None for a good one.

    Example:
        >>> find_size_problem("1000x1000", "gemini-2.5-flash-image")[-25:]
        'the nearest is 1024x1024.'
    """
    sizes = list_sizes(model)
    if size is None or size == "auto" or size in sizes:
        return None
    return f"{model or 'Gemini'} {explain_violation(Rule('sizes', 'size', allowed=sizes), size)}."


def to_image_config(size: str | None, model: str) -> dict[str, str]:
    """Return the ``imageConfig`` of a size; {} for the model's own choice.

    Example:
        >>> to_image_config("2752x1536", "gemini-3-pro-image")
        {'aspectRatio': '16:9', 'imageSize': '2K'}
        >>> to_image_config("1344x768", "gemini-2.5-flash-image")
        {'aspectRatio': '16:9'}
    """
    if size is None or size == "auto":
        return {}
    width, height = parse_pair(size, "x")
    ratio = min(RATIOS, key=lambda name: abs(math.log(_divide(name) * height / width)))
    side = math.sqrt(width * height)
    resolution = min(RESOLUTIONS, key=lambda name: abs(math.log(RESOLUTIONS[name] / side)))
    config = {"aspectRatio": ratio}
    return config if model in WITHOUT_RESOLUTION else {**config, "imageSize": resolution}


def to_pixels(config: Mapping[str, str], model: str) -> tuple[int, int]:
    """Return width and height of the image that a model draws for an ``imageConfig``.

    Example:
        >>> to_pixels({"aspectRatio": "16:9"}, "gemini-2.5-flash-image")
        (1344, 768)
    """
    wanted = {"aspectRatio": "1:1", "imageSize": "1K", **config}
    found = (size for size in list_sizes(model) if to_image_config(size, "") == wanted)
    return parse_pair(next(found, "1024x1024"), "x")


def parse_pair(text: str, separator: str) -> tuple[int, int]:
    """Return the two numbers of a size or a ratio."""
    first, _, second = text.partition(separator)
    return int(first), int(second)


def _divide(ratio: str) -> float:
    width, height = parse_pair(ratio, ":")
    return width / height
