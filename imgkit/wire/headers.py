"""Checks of request headers, and the retry headers and the id of a reply."""

from __future__ import annotations

import math
import re
import time
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from imgkit.redact import scrub

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
"""Headers that the body and the connection determine: neither users nor plugins set them."""

FIRST_IMAGE_HEADER = "x-imgkit-first-image"
"""Tells the offline server the number of images in the parts of a call before this one."""

LONGEST_RETRY_AFTER_S = 120.0
"""Longest pause in seconds that a server may ask for; a call or download that must wait longer ends."""

NOT_FOR_USERS = FRAMING | {"accept-encoding", "authorization", "cookie", "proxy-authorization"}
"""Headers that users may not set, because imgkit or its plugins set them."""

REQUEST_ID_HEADERS = (
    *("x-request-id", "apim-request-id", "x-fal-request-id", "x-comfy-request-id"),
    "x-amzn-requestid",
)
"""The headers that carry the id of a request, by OpenAI and others, Azure, fal, Comfy Router and AWS."""

REQUEST_ID_LIMIT = 128
"""Longest id of a request in characters. Ids of known servers have at most 40."""

_PLAIN_ID = re.compile(r"req_[A-Za-z0-9]{1,100}|[0-9a-f-]{8,64}")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"([!-~]([ -~]*[!-~])?)?")


def header_problem(headers: object, reserved: frozenset[str]) -> str | None:
    """Return the problem with headers, or None if they can be sent. The text shows no value.

    Example::

        >>> header_problem({"Content-Length": "5"}, FRAMING)
        "'Content-Length' is set by imgkit or its plugins: leave it out"

    Args:
        headers: values by header name. The value None leaves a header out.
        reserved: lower-case names that are not allowed.
    """
    if not isinstance(headers, Mapping):
        return "must be a mapping of header names to values"
    for name, value in headers.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            return f"{str(name)[:60]!r} is not a header name"
        if name.lower() in reserved:
            return f"{name!r} is set by imgkit or its plugins: leave it out"
        if value is not None and not (isinstance(value, str) and _VALUE.fullmatch(value)):
            return f"the value of {name!r} must be printable ASCII text without spaces at its ends"
    return None


def retry_after_s(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the seconds to wait that a reply asks for, or None without a usable value.

    Example::

        >>> retry_after_s({"retry-after": "20"})
        20.0

    Args:
        headers: the reply's headers by lower-case name. ``retry-after-ms`` wins over
            ``retry-after``, which holds a number of seconds or an HTTP date (openai-python 3.54.0,
            RFC 9110 10.2.3). A date counts from the reply's own ``date``, because local clocks may be wrong.
        now: current Unix time in seconds of a reply without a date; None reads the clock.
    """
    wait_s = _parse_number(headers.get("retry-after-ms"), 1000.0)
    text = headers.get("retry-after", "")
    if wait_s is None:
        wait_s = _parse_number(text, 1.0)
    if wait_s is None and text[:1].isalpha():
        when = _parse_date(text)
        if when is None:
            return None
        wait_s = when - read_date(headers, now)
    return wait_s if wait_s is not None and wait_s > 0 else None


def read_date(headers: Mapping[str, str], now: float | None = None) -> float:
    """Return the Unix time of a reply: by its ``date``, else the current time.

    Example::

        >>> read_date({"date": "Thu, 01 Jan 1970 00:00:07 GMT"})
        7.0

    Args:
        headers: the reply's headers by lower-case name.
        now: current Unix time in seconds; None reads the clock.
    """
    when = _parse_date(headers.get("date", ""))
    if when is not None:
        return when
    return time.time() if now is None else now


def _parse_date(text: str) -> float | None:
    try:
        when = parsedate_to_datetime(text)
        # HTTP dates are always UTC.
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None


def _parse_number(text: str | None, divisor: float) -> float | None:
    try:
        number = float(text or "") / divisor
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def clean_request_id(text: str | None) -> str | None:
    r"""Return a server's id of a request as one line of at most `REQUEST_ID_LIMIT` characters.

    Example::

        >>> clean_request_id("req_1\x1b[2J"), clean_request_id("")
        ('req_1 [2J', None)
    """
    if not text or _PLAIN_ID.fullmatch(text):
        return text or None
    return " ".join(scrub(text, limit=REQUEST_ID_LIMIT).split()) or None


def format_credential(scheme: str, key: str) -> str:
    """Return the value of a header that carries a key.

    Args:
        scheme: the word before the key, "" for none.
        key: the key; with the scheme "Basic" a login ``name:password``, or the base64 of it.

    Example:
        >>> format_credential("Basic", "ann:pass")
        'Basic YW5uOnBhc3M='
    """
    if scheme == "Basic" and ":" in key:
        return f"Basic {b64encode(key.encode()).decode()}"
    return f"{scheme} {key}" if scheme else key
