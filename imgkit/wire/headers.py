"""Which headers may be sent, and who sets them."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

FRAMING = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that follow from the body and the connection: nobody else sets them."""

NOT_FOR_USERS = FRAMING | {"accept-encoding", "authorization", "cookie", "proxy-authorization"}
"""Headers that imgkit or its plugins set."""

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"([!-~]([ -~]*[!-~])?)?")


def header_problem(headers: object, reserved: frozenset[str]) -> str | None:
    """Return why headers cannot be sent, None if they can. The text shows no value.

    Args:
        headers: a mapping of names to text; None as a value means "left out".
        reserved: lower-case names that may not be among them.
    """
    if not isinstance(headers, Mapping):
        return "must be a mapping of header names to values"
    for name, value in headers.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            return f"{str(name)[:60]!r} is not a header name"
        if name.lower() in reserved:
            return f"{name!r} is set by imgkit or its plugins: leave it out"
        if value is not None and not (isinstance(value, str) and _VALUE.fullmatch(value)):
            return f"the value of {name!r} must be printable ASCII text, without blanks at its ends"
    return None


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
