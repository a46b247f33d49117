"""How long a server asks to wait."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime


def retry_after_s(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the seconds that a reply asks to wait, None if it does not say or says nonsense.

    Args:
        headers: of the reply, by lower-case name. ``retry-after-ms`` wins over ``retry-after``,
            which is a number of seconds or an HTTP date (openai-python 3.54.0, RFC 9110 10.2.3).
        now: Unix time in seconds; the clock's if None.
    """
    wait_s = _number(headers.get("retry-after-ms"), 1000.0)
    text = headers.get("retry-after", "")
    if wait_s is None:
        wait_s = _number(text, 1.0)
    if wait_s is None and text[:1].isalpha():
        try:
            when = parsedate_to_datetime(text)
            when = when if when.tzinfo else when.replace(tzinfo=UTC)  # HTTP dates are always UTC
            wait_s = when.timestamp() - (time.time() if now is None else now)
        except (ValueError, OverflowError, TypeError):
            return None
    return wait_s if wait_s is not None and wait_s > 0 else None


def _number(text: str | None, divisor: float) -> float | None:
    try:
        number = float(text or "") / divisor
    except ValueError:
        return None
    return number if math.isfinite(number) else None
