"""Reasons of a store that refuses a link: its own words, and the expiry in the URL."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

from imgkit.providers.error_bodies import read_error_body

MIN_QUERY_SECRET_LENGTH = 6
"""Shorter values of a query are not scrubbed from messages: they would blank out half of the text."""

_EXPIRED = re.compile(r"expired|not valid in the specified time frame", re.IGNORECASE)
_DATE_FORMATS = ("%Y%m%dT%H%M%SZ", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%MZ", "%Y-%m-%d")
_VENDORS = ("x-amz", "x-goog", "x-oss", "x-cos", "x-tos", "x-bce")


def read_reason(body: bytes) -> str:
    """Return code and message of a store's error reply: XML, JSON, HTML or text; "" if there are none.

    Only these elements of an XML reply count: the others repeat signatures and keys.

    Example:
        >>> read_reason(b"<Error><Code>ExpiredRequest</Code><Message>Request has expired</Message></Error>")
        'ExpiredRequest: Request has expired'

    Args:
        body: the reply's bytes, perhaps cut.
    """
    if b"\0" in body[:1024]:
        return ""
    parsed = read_error_body(body)
    code, message = parsed.code or "", parsed.message
    if parsed.structured and not message and not code:
        message = " ".join(body.decode("utf-8", "replace").split())
    page = "a web page" if parsed.is_page else ""
    return ": ".join(part for part in (page, code, message) if part)


def says_expired(reason: str) -> bool:
    """Return whether a store's words say that the link has expired.

    Example:
        >>> says_expired("ExpiredRequest"), says_expired("AccessDenied: Access denied")
        (True, False)
    """
    return _EXPIRED.search(reason) is not None


def find_past_expiry(url: str) -> datetime | None:
    """Return the end of a signed URL's life if its query states it and it has passed, else None.

    Known queries are those of Azure (``se``), Amazon and Google with their imitators
    (``X-Amz-Date`` and ``X-Amz-Expires``), and a Unix time in ``Expires``.

    Example:
        >>> str(find_past_expiry("https://store.example/fox.png?se=2026-01-10T19:12:35Z&sig=abc"))
        '2026-01-10 19:12:35+00:00'
    """
    expiry = _find_expiry(url)
    return expiry if expiry is not None and expiry < datetime.now(UTC) else None


def _find_expiry(url: str) -> datetime | None:
    query = {name.lower(): value for name, value in parse_qsl(urlsplit(url).query)}
    try:
        for vendor in _VENDORS:
            begin, seconds = _parse_date(query.get(f"{vendor}-date", "")), query.get(f"{vendor}-expires", "")
            if begin is not None and seconds.isdecimal():
                return begin + timedelta(seconds=int(seconds))
        if query.get("expires", "").isdecimal():
            return datetime.fromtimestamp(int(query["expires"]), UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return _parse_date(query.get("se", ""))


def find_query_secrets(url: str) -> tuple[str, ...]:
    """Return the texts in a URL's query that may grant access, longest first.

    Example:
        >>> find_query_secrets("https://store.example/fox.png?sig=abc%2Fdef")
        ('sig=abc%2Fdef', 'abc%2Fdef', 'abc/def')
    """
    query = url.partition("#")[0].partition("?")[2]
    raw = (part.partition("=")[2] for part in query.split("&"))
    found = {query, *raw, *(value for _, value in parse_qsl(query))}
    secrets = {text for text in found if len(text) >= MIN_QUERY_SECRET_LENGTH}
    escaped = {html.escape(text) for text in secrets}
    return tuple(sorted(secrets | escaped, key=lambda text: (-len(text), text)))


def _parse_date(text: str) -> datetime | None:
    for form in _DATE_FORMATS:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return None
