"""Facts in the content of an error reply: the time to wait, refused categories, and the body to keep."""

from __future__ import annotations

import re
from typing import Any

from imgkit.providers.error_bodies import ErrorBody
from imgkit.providers.error_problems import parse_code, to_text
from imgkit.redact import Secret, scrub
from imgkit.wire.secret_filter import SecretFilter

MAX_BODY_BYTES = 16 * 1024
"""Longest `ApiError.body`."""

WAIT_MEMBERS = {
    **dict.fromkeys(("retry_after", "retryAfter", "retry_after_s", "retry_after_seconds"), 1.0),
    "estimated_time": 1.0,
    **dict.fromkeys(("retry_after_ms", "retryAfterMs"), 1000.0),
}
"""Members with the time to wait, and how many of their units make a second."""

_WAIT = re.compile(
    r"(?i)\b(?:try\s+again|retry)\s+(?:in|after)\s+((?:\d{1,9}(?:\.\d{1,9})?\s*(?:milliseconds?|ms|hours?|hrs?|h"
    r"|minutes?|mins?|m|seconds?|secs?|s)(?=\d|\b)\s*)+)"
)
_DURATION = re.compile(r"(?i)(\d+(?:\.\d+)?)\s*(ms|milli|h|m|s)")
_UNITS_S = {"ms": 0.001, "milli": 0.001, "h": 3600.0, "m": 60.0, "s": 1.0}
_CATEGORIES = re.compile(r"(?i)\b(?:safety_violations|categories)\s*[=:]\s*\[([^\]]{1,300})\]")


def find_wait_s(parsed: ErrorBody) -> float | None:
    """Return the seconds to wait that the body of a reply asks for, None if it asks for none.

    Gateways lose the headers of the API that they ask.

    Example:
        >>> from imgkit.providers.error_bodies import read_error_body
        >>> find_wait_s(read_error_body(b'{"error": {"message": "Please try again in 1m2.5s."}}'))
        62.5
    """
    for item in parsed.objects:
        for name, per_second in WAIT_MEMBERS.items():
            value = item.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9:
                return value / per_second
        delay = item.get("retryDelay")
        if isinstance(delay, str) and re.fullmatch(r"\d{1,6}(?:\.\d{1,9})?s", delay) and float(delay[:-1]):
            return float(delay[:-1])
    found = _WAIT.search(parsed.message)
    parts = _DURATION.findall(found[1]) if found else []
    return sum(float(number) * _UNITS_S[unit.lower()] for number, unit in parts) or None


def find_categories(parsed: ErrorBody) -> tuple[str | None, tuple[str, ...]]:
    """Return stage and categories of refused content, from OpenAI's details, filters of Azure or a sentence.

    Example:
        >>> from imgkit.providers.error_bodies import read_error_body
        >>> find_categories(read_error_body(b'{"message": "Refused. safety_violations=[sexual, violence]."}'))
        (None, ('sexual', 'violence'))
    """
    stage: str | None = None
    categories: list[Any] = []
    for item in parsed.objects:
        details = item.get("moderation_details")
        details = details if isinstance(details, dict) else {}
        stage = stage or parse_code(details.get("moderation_stage"))
        filters = item.get("content_filter_result", item.get("content_filter_results"))
        metadata = item.get("metadata")
        reasons = metadata.get("reasons") if isinstance(metadata, dict) else None
        places = (details.get("categories"), item.get("categories"), reasons)
        for place in places:
            categories += place[:20] if isinstance(place, list) else []
        categories += [
            name
            for name, result in (filters.items() if isinstance(filters, dict) else ())
            if isinstance(result, dict) and result.get("filtered") is True
        ]
    if not categories and (found := _CATEGORIES.search(parsed.message)) is not None:
        categories = [name.strip(" '\"") for name in found[1].split(",")]
    return stage, tuple(dict.fromkeys(to_text(name)[:60] for name in categories[:20]))


def trim_body(body: bytes, secrets: tuple[Secret | str, ...] = ()) -> bytes:
    r"""Return the beginning of an error reply without secrets and images, for the ``body`` of an error.

    Example:
        >>> trim_body(b'{"error": "Wrong key sk-1234567890"}')
        b'{"error": "Wrong key \xe2\x80\xa6"}'
    """
    wrapped = [Secret(secret) if isinstance(secret, str) else secret for secret in secrets]
    # Long base64 shrinks, so more than the limit is read.
    cleaned = SecretFilter(wrapped).clean_bytes(body[: 8 * MAX_BODY_BYTES]).decode("utf-8", "replace")
    text = scrub(cleaned, secrets, MAX_BODY_BYTES)
    return text.encode()[:MAX_BODY_BYTES].decode("utf-8", "ignore").encode()
