"""Check the form of a parsed cassette, so that a damaged file is an error that says where the damage is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any
from urllib.parse import urlsplit

_SCALARS = (str, bytes, int, float, date)
"""Types of header values; YAML reads unquoted numbers and dates as such."""


def find_damage(content: object) -> str | None:
    """Return a sentence about the first entry that no cassette has; return None if there is none.

    >>> find_damage({"interactions": []})
    >>> find_damage({"interactions": 3})
    'interactions is of the type int, not a list.'

    Args:
        content: The parsed text of a file.
    """
    if not isinstance(content, Mapping):
        return f"It is {_show(content)}, not a mapping with interactions."
    interactions = content.get("interactions")
    if not isinstance(interactions, list):
        return f"interactions is {_show(interactions)}, not a list."
    if not isinstance(content.get("metadata") or {}, Mapping):
        return f"metadata is {_show(content['metadata'])}, not a mapping."
    for number, interaction in enumerate(interactions, 1):
        problem = next(_find_problems(interaction), None)
        if problem is not None:
            return f"Interaction {number}: {problem}."
    return None


def _find_problems(interaction: Any) -> Iterator[str]:
    """Yield the problems of an interaction; the caller uses only the first, as later lines rely on it."""
    if not isinstance(interaction, Mapping):
        yield f"it is {_show(interaction)}, not a mapping"
    for side in ("request", "response"):
        message = interaction.get(side)
        if not isinstance(message, Mapping):
            yield f"{side} is {_show(message)}, not a mapping"
        yield from _find_header_problems(f"{side}.headers", message.get("headers"))
    yield from _find_request_problems(interaction["request"])
    yield from _find_response_problems(interaction["response"])


def _find_request_problems(request: Mapping[str, Any]) -> Iterator[str]:
    for name in ("method", "uri"):
        if not isinstance(request.get(name), str) or not _is_encodable(request[name]):
            yield f"request.{name} is {_show(request.get(name))}, not text"
    if not _is_url(request["uri"]):
        yield "request.uri is no URL"
    body = request.get("body")
    # vcrpy restores the files and iterators that other programs have recorded.
    if not _is_body(body) and not hasattr(body, "read") and not isinstance(body, Iterator):
        yield f"request.body is {_show(body)}, not text"


def _find_response_problems(response: Mapping[str, Any]) -> Iterator[str]:
    status = response.get("status")
    code = status.get("code") if isinstance(status, Mapping) else None
    if type(code) is not int or not 100 <= code <= 599:
        yield "response.status.code is no number from 100 to 599"
    body = response.get("body")
    if body is not None and not isinstance(body, Mapping):
        yield f"response.body is {_show(body)}, not a mapping"
    if body is not None and not _is_body(body.get("string")):
        yield f"response.body.string is {_show(body.get('string'))}, not text"


def _find_header_problems(place: str, headers: Any) -> Iterator[str]:
    if headers is None:
        return
    if not isinstance(headers, Mapping):
        yield f"{place} is {_show(headers)}, not a mapping"
    for name, value in headers.items():
        values = value if isinstance(value, list | tuple) else [value]
        if not isinstance(name, str) or not values or not all(map(_is_header_value, values)):
            yield f"{place} holds more than names and text"


def _is_header_value(value: object) -> bool:
    return isinstance(value, _SCALARS) and (not isinstance(value, str) or _is_encodable(value))


def _is_body(value: object) -> bool:
    return value is None or isinstance(value, bytes) or (isinstance(value, str) and _is_encodable(value))


def _is_encodable(text: str) -> bool:
    """Return whether UTF-8 can encode a text; half a surrogate pair cannot be."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return bool(parts.scheme and parts.netloc)


def _show(value: object) -> str:
    """Return a short text for a value; it quotes no text, which may hold a key."""
    if value is None:
        return "missing"
    return "text" if isinstance(value, str) else f"of the type {type(value).__name__}"
