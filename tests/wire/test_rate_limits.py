"""The limits that replies tell in their headers."""

from __future__ import annotations

from typing import Any

import pytest

from imgkit.wire.rate_limits import RateLimit, read_rate_limits

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, {}),
        (
            {
                "x-ratelimit-limit-requests": "500",
                "x-ratelimit-remaining-requests": "499",
                "x-ratelimit-reset-requests": "120ms",
                "x-ratelimit-limit-input-images": "50",
                "x-ratelimit-remaining-input-images": "0",
                "x-ratelimit-reset-input-images": "1m12s",
            },
            {"requests": RateLimit(499, 0.12), "images": RateLimit(0, 72)},
        ),
        (
            {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "3", "x-ratelimit-reset": "20"},
            {"requests": RateLimit(3, 20)},
        ),
        (
            {"ratelimit-remaining": "3", "ratelimit-reset": "1800000030"},
            {"requests": RateLimit(3, 30)},
        ),
        (
            {"ratelimit-reset": "1700000030", "date": "Tue, 14 Nov 2023 22:13:20 GMT"},
            {"requests": RateLimit(None, 30)},
        ),
        ({"x-rate-limit-reset": "1800000030000"}, {"requests": RateLimit(None, 30)}),
        ({"x-ratelimit-reset": "1700000000"}, {"requests": RateLimit(None, 0)}),
        ({"x-ratelimit-requests-remaining": "7"}, {"requests": RateLimit(7, None)}),
        ({"x-ratelimit-remaining-tokens": "-1"}, {"tokens": RateLimit(0, None)}),
        ({"x-ratelimit-reset-requests": "1h0m2.5s"}, {"requests": RateLimit(None, 3602.5)}),
        ({"x-ratelimit-remaining": "many", "x-ratelimit-reset": "soon"}, {"requests": RateLimit()}),
        ({"x-ratelimit-remaining": "inf", "x-ratelimit-reset": "nan"}, {"requests": RateLimit()}),
        ({"x-ratelimit-reset": "9" * 200}, {}),
        ({"ratelimit": "limit=100, remaining=50, reset=30"}, {"requests": RateLimit(50, 30)}),
        ({"ratelimit": '"default";r=0;t=7'}, {"requests": RateLimit(0, 7)}),
        ({"x-ratelimit-limit": "0", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "60"}, {}),
    ],
)
def test_rate_limits(headers: Any, expected: Any) -> None:
    """Reads OpenAI's headers and those of others; a value that says nothing is left out."""
    assert read_rate_limits(headers, NOW) == expected
