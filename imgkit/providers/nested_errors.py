"""Error objects within error replies: gateways put the API's own error into members and sentences."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

WRAPPERS = (
    *("error", "innererror", "inner_error", "provider_specific_fields", "metadata", "raw", "message"),
    *("detail", "details", "errors", "msg", "cause", "body", "response", "upstream_error", "original_error"),
)
"""Members that may hold the error of the server behind a gateway: objects, lists, or JSON as text."""

ERROR_MEMBERS = frozenset(["detail", "error", "errors"])
TEXT_MEMBERS = frozenset(["message", "msg"])
KIND_MEMBERS = frozenset(["code", "status", "type"])
"""An object within a text is an error if it has one of the first, or one of each of the others."""

MAX_OBJECTS, MAX_ITEMS, MAX_TRIES = 30, 5, 5
MAX_TEXT = 16 * 1024

_START = re.compile(r"""\{\s*\\*["']""")
_PYTHON_TOKEN = re.compile(r"""'((?:[^'\\]|\\.)*)'|"(?:[^"\\]|\\.)*"|\b(?:None|True|False)\b""", re.DOTALL)
_PYTHON_WORDS = {"None": "null", "True": "true", "False": "false"}
_PYTHON_ESCAPE = re.compile(r"""\\(?:x([0-9A-Fa-f]{2})|(.))|(")""", re.DOTALL)
_OPENING_QUOTE = re.compile(r"""(?:\bb)?["'\\]+\Z""")
_DECODER = json.JSONDecoder(strict=False)


class NestedText(NamedTuple):
    """A text that ends with an error object.

    Attributes:
        before: the text in front of the object.
        value: the object.
    """

    before: str
    value: dict[str, Any]


def iterate_objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the error objects of a reply, each before the objects within it.

    Example:
        >>> reply = {"error": {"code": "400", "message": 'OpenAI said {"error": {"code": "blocked"}}'}}
        >>> [found.get("code") for found in iterate_objects(reply)]
        [None, '400', None, 'blocked']
    """
    waiting: list[Any] = [value]
    found = 0
    # Without recursion, because replies may be nested deeply.
    while waiting and found < MAX_OBJECTS:
        item = waiting.pop()
        if isinstance(item, str) and (nested := find_nested(item)) is not None:
            item = nested.value
        if isinstance(item, dict):
            found += 1
            yield item
            waiting += [item[name] for name in reversed(WRAPPERS) if name in item]
        elif isinstance(item, list):
            waiting += reversed(item[:MAX_ITEMS])


def find_nested(text: str) -> NestedText | None:
    """Return the first error object within a text, None if it has none.

    Gateways quote the API's reply as JSON, as JSON with escaped quotes, or as Python writes a dictionary.

    Example:
        >>> find_nested("Error code: 400 - {'error': {'code': 'blocked', 'param': None}}").value
        {'error': {'code': 'blocked', 'param': None}}
    """
    text = text[:MAX_TEXT]
    for number, start in enumerate(_START.finditer(text)):
        if number == MAX_TRIES:
            break
        value = _parse_object(text[start.start() :])
        if isinstance(value, dict) and _is_error(value):
            return NestedText(_OPENING_QUOTE.sub("", text[: start.start()]), value)
    return None


def _is_error(value: dict[str, Any]) -> bool:
    """Return whether an object is an error, and not a quotation of the request."""
    return not ERROR_MEMBERS.isdisjoint(value) or not (
        TEXT_MEMBERS.isdisjoint(value) or KIND_MEMBERS.isdisjoint(value)
    )


def _parse_object(text: str) -> Any:
    for spelling in (str, _unescape, _python_to_json):
        try:
            return _DECODER.raw_decode(spelling(text))[0]
        except (ValueError, RecursionError):
            continue
    return None


def _unescape(text: str) -> str:
    r"""Return a text with a level of escapes removed: ``{\"a\": 1}`` becomes ``{"a": 1}``."""
    return re.sub(r"\\(.)", lambda found: {"n": "\n", "r": "\r", "t": "\t"}.get(found[1], found[1]), text)


def _python_to_json(text: str) -> str:
    return _PYTHON_TOKEN.sub(_convert_token, text)


def _convert_token(token: re.Match[str]) -> str:
    if token[1] is None:
        return _PYTHON_WORDS.get(token[0], token[0])
    return f'"{_PYTHON_ESCAPE.sub(_convert_escape, token[1])}"'


def _convert_escape(escape: re.Match[str]) -> str:
    if escape[1]:
        return f"\\u00{escape[1]}"
    if escape[3]:
        return '\\"'
    return "'" if escape[2] == "'" else escape[0]
