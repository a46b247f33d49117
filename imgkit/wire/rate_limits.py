"""The limits that replies tell in their headers: ``x-ratelimit-remaining-requests`` and its like."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from imgkit.wire.headers import read_date

_PREFIX = re.compile(r"(?:x-ratelimit|x-rate-limit|ratelimit)-")
_FIELD = re.compile(r"(limit|remaining|reset)(?:-(.+))?|(.+)-(limit|remaining|reset)")
_LIST = {"remaining": re.compile(r"\b(?:remaining|r)=(\d+)"), "reset": re.compile(r"\b(?:reset|t)=(\d+)")}
"""The parts of the header ``ratelimit`` in the drafts of the IETF, such as ``"default";r=50;t=30``."""

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_UNIT_S = (86_400.0, 3_600.0, 60.0, 1.0, 0.001)
_LEAST_UNIX_S, _LEAST_UNIX_MS = 1e9, 1e12
_LONGEST_TEXT = 100


class RateLimit(NamedTuple):
    """A limit of the server on one unit; None for a value that it does not tell.

    The number of units in a whole window tells nothing without the length of the window, so it is left out.

    Attributes:
        remaining: units that are left now.
        reset_s: seconds until all units are there again.
    """

    remaining: float | None = None
    reset_s: float | None = None


def read_rate_limits(headers: Mapping[str, str], now: float | None = None) -> dict[str, RateLimit]:
    """Return the limits that a reply tells, by unit: "images", "requests", or another word of the server.

    Example::

        >>> read_rate_limits({"x-ratelimit-remaining-images": "4", "x-ratelimit-reset-images": "1m12s"})
        {'images': RateLimit(remaining=4.0, reset_s=72.0)}

    Args:
        headers: the reply's headers by lower-case name. Headers without a unit are about requests. OpenAI
            counts images as "input-images". A Unix time counts from the reply's own ``date``.
        now: current Unix time in seconds of a reply without a date; None reads the clock.
    """
    found: dict[str, RateLimit] = {}
    unlimited: set[str] = set()
    for name, value in _list_fields(headers):
        prefix = _PREFIX.match(name)
        field = prefix and _FIELD.fullmatch(name, prefix.end())
        if not field or len(value) > _LONGEST_TEXT:
            continue
        word, unit = field[1] or field[4], _name_unit(field[2] or field[3] or "")
        limit = found.get(unit, RateLimit())
        if word == "limit":
            if _parse_number(value) == 0:  # some gateways say so where nothing is limited
                unlimited.add(unit)
        elif word == "reset":
            found[unit] = limit._replace(reset_s=_parse_reset(value.strip(), headers, now))
        else:
            number = _parse_number(value)
            found[unit] = limit._replace(remaining=None if number is None else max(0.0, number))
    return {unit: limit for unit, limit in found.items() if unit not in unlimited}


def _list_fields(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the headers, and the parts of a list in a single header as headers of their own."""
    yield from headers.items()
    text = headers.get("ratelimit", "")[:_LONGEST_TEXT]
    for word, pattern in _LIST.items():
        if match := pattern.search(text):
            yield f"ratelimit-{word}", match[1]


def _name_unit(word: str) -> str:
    return {"": "requests", "minute": "requests", "input-images": "images"}.get(word, word)


def _parse_reset(text: str, headers: Mapping[str, str], now: float | None) -> float | None:
    """Return the seconds of a text such as "6m0s", "20ms", "1.5", or a Unix time."""
    number = _parse_number(text)
    if number is None:
        parts = _DURATION.fullmatch(text)
        if not text or parts is None:
            return None
        return sum(float(part) * unit for part, unit in zip(parts.groups("0"), _UNIT_S, strict=True))
    if number >= _LEAST_UNIX_S:
        number = number / 1000 if number >= _LEAST_UNIX_MS else number
        number -= read_date(headers, now)
    return max(0.0, number)


def _parse_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
