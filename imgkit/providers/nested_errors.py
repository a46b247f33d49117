"""Error objects within error replies: gateways put the API's own error into members and sentences."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

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
MAX_ATTEMPTS, MAX_CONVERTED = 40, 2 * MAX_TEXT
"""Most objects that are parsed, and most characters that are converted to JSON, for a reply."""

_START = re.compile(r"""\{\s*(\\*["'])""")
# A token that no quote closes ends with the text. Without this, each later quote would start another search.
_PYTHON_TOKEN = re.compile(
    r"""'((?:[^'\\]++|\\.)*+)\\?(?:'|\Z)|"(?:[^"\\]++|\\.)*+\\?(?:"|\Z)|\b(?:None|True|False)\b""", re.DOTALL
)
_PYTHON_WORDS = {"None": "null", "True": "true", "False": "false"}
_PYTHON_ESCAPE = re.compile(r"""\\(?:x([0-9A-Fa-f]{2})|(.))|(")""", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED_CHARACTERS = {"n": "\n", "r": "\r", "t": "\t"}
_QUOTES = "\"'\\"
_DECODER = json.JSONDecoder(strict=False)

_Spelling: TypeAlias = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]


class NestedText(NamedTuple):
    """A text that holds an error object.

    Attributes:
        before: the text in front of the object.
        value: the object.
        after: the text behind the object, "" if it has no words.
    """

    before: str
    value: dict[str, Any]
    after: str = ""


class NestedFinder:
    """Finds the error objects within the texts of a reply: it reads each text once, and limits the work."""

    def __init__(self) -> None:
        self._found: dict[str, NestedText | None] = {}
        self._attempts, self._characters = MAX_ATTEMPTS, MAX_CONVERTED

    def find(self, text: str) -> NestedText | None:
        """Return the first error object within a text, None if it has none.

        Gateways quote the API's reply as JSON, as JSON with escaped quotes, or as Python writes a dictionary.

        Example:
            >>> NestedFinder().find("Error code: 400 - {'error': {'code': 'blocked', 'param': None}}").value
            {'error': {'code': 'blocked', 'param': None}}
        """
        text = text[:MAX_TEXT]
        if text not in self._found:
            self._found[text] = self._search(text)
        return self._found[text]

    def _search(self, text: str) -> NestedText | None:
        for start in islice(_START.finditer(text), MAX_TRIES):
            if self._attempts == 0:
                break
            self._attempts -= 1
            value, length = self._parse(text[start.start() :], start[1])
            if isinstance(value, dict) and _is_error(value):
                after = text[start.start() + length :].lstrip(_QUOTES)
                return NestedText(
                    _strip_opening_quote(text[: start.start()]),
                    value,
                    after if re.search(r"\w", after) else "",
                )
        return None

    def _parse(self, text: str, quote: str) -> tuple[Any, int]:
        """Return an object and its length in the text, (None, 0) if the text starts with none.

        Args:
            text: starts with the object.
            quote: the first quote with the backslashes in front of it; it tells the spelling.
        """
        spellings: tuple[tuple[_Spelling, ...], ...] = ((), (_ESCAPED,))
        if quote == "'":
            spellings = ((_PYTHON,),)
        elif quote.endswith("'"):
            spellings = ((_ESCAPED, _PYTHON),)
        for spelling in spellings:
            texts = [text]
            for pattern, convert in spelling:
                part = texts[-1] = texts[-1][: self._characters]
                self._characters -= len(part)
                texts.append(pattern.sub(convert, part))
            try:
                value, end = _DECODER.raw_decode(texts[-1])
            except (ValueError, RecursionError):
                continue
            for (pattern, convert), part in zip(reversed(spelling), texts[-2::-1], strict=True):
                end = _find_original_end(pattern, convert, part, end)
            return value, end
        return None, 0


def iterate_objects(value: Any, finder: NestedFinder | None = None) -> Iterator[dict[str, Any]]:
    """Yield the error objects of a reply, each before the objects within it.

    Args:
        value: the reply.
        finder: finds the objects within texts; None leaves them out.

    Example:
        >>> reply = {"error": {"code": "400", "message": 'OpenAI said {"error": {"code": "blocked"}}'}}
        >>> [found.get("code") for found in iterate_objects(reply, NestedFinder())]
        [None, '400', None, 'blocked']
    """
    waiting: list[Any] = [value]
    found = 0
    # Without recursion, because replies may be nested deeply.
    while waiting and found < MAX_OBJECTS:
        item = waiting.pop()
        if isinstance(item, str) and finder is not None and (nested := finder.find(item)) is not None:
            item = nested.value
        if isinstance(item, dict):
            found += 1
            yield item
            waiting += [item[name] for name in reversed(WRAPPERS) if name in item]
        elif isinstance(item, list):
            waiting += reversed(item[:MAX_ITEMS])


def _is_error(value: dict[str, Any]) -> bool:
    """Return whether an object is an error, and not a quotation of the request."""
    return not ERROR_MEMBERS.isdisjoint(value) or not (
        TEXT_MEMBERS.isdisjoint(value) or KIND_MEMBERS.isdisjoint(value)
    )


def _strip_opening_quote(text: str) -> str:
    """Return a text without the quote at its end, and without the ``b`` of Python's bytes before it."""
    stripped = text.rstrip(_QUOTES)
    is_bytes = stripped != text and stripped.endswith("b") and not stripped[-2:-1].isalnum()
    return stripped[:-1] if is_bytes else stripped


def _find_original_end(
    pattern: re.Pattern[str], convert: Callable[[re.Match[str]], str], text: str, end: int
) -> int:
    """Return the place in a text that a place in the converted text stands for."""
    shift = 0
    for token in pattern.finditer(text):
        if token.start() + shift >= end:
            break
        shift += len(convert(token)) - len(token[0])
    return end - shift


def _convert_escaped(escaped: re.Match[str]) -> str:
    return _ESCAPED_CHARACTERS.get(escaped[1], escaped[1])


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


_ESCAPED: _Spelling = (_ESCAPE, _convert_escaped)
"""JSON with escaped quotes: ``{\\"a\\": 1}`` becomes ``{"a": 1}``."""

_PYTHON: _Spelling = (_PYTHON_TOKEN, _convert_token)
