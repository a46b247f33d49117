"""Parsers for strict JSON, and for base64 in the spellings of real servers."""

from __future__ import annotations

import json
import math
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, TypeVar
from urllib.parse import unquote_to_bytes

import pybase64

from imgkit.wire.base64_stream import URL_SAFE

Json: TypeAlias = Any
"""A JSON value of any type."""
JsonMapping: TypeAlias = Mapping[str, Json]
JsonObject: TypeAlias = dict[str, Json]

T = TypeVar("T")

_LINE_BREAKS = re.compile(r"[^\S ]+")


class Source(Protocol):
    """A place that holds the bytes of an image: memory, a file, a URL.

    Every member raises `NotDownloadedError` if this process cannot reach the bytes.
    """

    def read(self) -> bytes:
        """Return the whole file."""

    def read_at(self, size: int, position: int) -> bytes:
        """Return `size` bytes from `position` on."""

    @property
    def length(self) -> int:
        """The size in bytes."""

    @property
    def sha256(self) -> str:
        """The hexadecimal SHA-256 of the bytes."""


class DivertedImage:
    """A long base64 string of a reply, which imgkit decoded while it arrived."""

    def to_bytes(self) -> bytes:
        """Return the decoded bytes."""
        raise NotImplementedError

    def source(self) -> Source | None:
        """Return the place of bytes that are on disk already, or None for bytes in memory."""
        return None


class JsonSyntaxError(ValueError):
    """A text that is not JSON.

    Example::

        >>> try:
        ...     parse_json(b'{"created": 1,}')
        ... except JsonSyntaxError as error:
        ...     print(error, error.line, error.column)
        Expecting property name enclosed in double quotes (character 14) 1 15

    Args:
        reason: the rule that the text breaks.
        position: the position of the error in characters, counted from 0.
        line, column: the same place, counted from 1.
    """

    def __init__(self, reason: str, position: int, line: int, column: int) -> None:
        super().__init__(reason, position, line, column)
        self.reason = reason
        self.position = position
        self.line = line
        self.column = column

    def __str__(self) -> str:
        return f"{self.reason} (character {self.position})"


def parse_json(body: bytes) -> Any:
    """Return the JSON value of a body.

    The body is read as UTF-8, with or without a byte-order mark, whatever its Content-Type.

    Example::

        >>> parse_json(b'{"created": 1}')
        {'created': 1}

    Raises:
        ValueError: the body is not UTF-8, or not exactly one JSON value. Repeated keys, NaN,
            Infinity, deep nesting and numbers with thousands of digits raise too.
        JsonSyntaxError: the error has a place in the text.
    """
    problem: str | JsonSyntaxError
    try:
        return _STRICT.decode(body.removeprefix(BOM_UTF8).decode("utf-8"))
    except RecursionError:
        problem = "nested too deeply"
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 at byte {error.start}"
    except json.JSONDecodeError as error:
        problem = JsonSyntaxError(error.msg, error.pos, error.lineno, error.colno)
    # Raised outside the except block, because those errors keep the whole reply with its images.
    raise ValueError(problem) if isinstance(problem, str) else problem


def dump_json(value: Any, indent: int | None = None) -> str:
    """Return a value as strict ASCII JSON. Infinity and NaN become null.

    Example::

        >>> dump_json({"ratio": float("inf")})
        '{"ratio": null}'
    """
    try:
        return json.dumps(value, indent=indent, default=str, allow_nan=False)
    except ValueError:
        return json.dumps(to_finite(value), indent=indent, default=str, allow_nan=False)


def to_finite(value: Any) -> Any:
    """Return a JSON value with None in place of infinity and NaN, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: to_finite(inner) for key, inner in value.items()}
    return [to_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def decode_base64(text: object) -> bytes:
    """Return the bytes that base64 text or a `DivertedImage` encodes.

    White space, the URL-safe alphabet, missing padding and a ``data:…;base64,`` prefix are accepted, and
    blanks in the place of each "+", which a form decoder has taken. Any other deviation raises.

    Example::

        >>> decode_base64("Zm94")
        b'fox'

    Raises:
        ValueError: not text, or not base64.
    """
    if isinstance(text, DivertedImage):
        return text.to_bytes()
    if not isinstance(text, str):
        raise ValueError(f"base64 of type {type(text).__name__}")
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        pass  # perhaps another accepted spelling
    if is_data_url(text):
        head, comma, text = text.partition(",")
        if not comma or not has_base64_marker(head):
            raise ValueError("a data: URL that is not base64")
    text = _remove_white_space(text).translate(URL_SAFE).rstrip("=")
    try:
        return pybase64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise ValueError("broken base64") from None


def _remove_white_space(text: str) -> str:
    """Return base64 without white space, and with "+" in place of blanks that stand for it.

    A text with a "+" has lost none. In any other text, the blanks are white space where they stand at equal
    distances, or where only so the length is that of base64.

    Raises:
        ValueError: nobody can tell what the blanks are.
    """
    words = "".join(line.strip(" ") for line in _LINE_BREAKS.split(text)).split(" ")
    joined = "".join(words)
    is_wrapped = len(words) > 2 and len({*map(len, words[:-1])}) == 1 and len(words[-1]) <= len(words[0])
    if len(words) == 1 or is_wrapped:
        return joined
    with_plus = len(joined) + len(words) - 1
    has_plus = any(character in joined for character in "+-_")
    if not has_plus and (with_plus % 4 == 0 or len(joined) % 4 == 1):
        return "+".join(words)
    if len(joined) % 4 == 0 or (with_plus % 4 == 1 and not has_plus):
        return joined
    raise ValueError("broken base64")


def restore_base64(value: Any) -> Any:
    """Return a JSON value with base64 text in place of each `DivertedImage`.

    Use it for parts of a reply in which nobody expects images.
    """
    return replace_values(
        value, DivertedImage, lambda image: pybase64.b64encode(image.to_bytes()).decode("ascii")
    )


def replace_values(value: Any, kind: type[T], replace: Callable[[T], Any]) -> Any:
    """Return a JSON value with all values of one type replaced. Changes containers in place.

    The function does not recurse, because replies may be nested deeply.

    Args:
        value: the JSON value.
        kind: the type to replace.
        replace: returns the replacement of a value.
    """
    if isinstance(value, kind):
        value = replace(value)
    waiting = [value]
    while waiting:
        container = waiting.pop()
        if isinstance(container, dict):
            items: Any = list(container.items())
        elif isinstance(container, list):
            items = list(enumerate(container))
        else:
            continue
        for key, inner in items:
            if isinstance(inner, kind):
                container[key] = replace(inner)
            elif isinstance(inner, (dict, list)):
                waiting.append(inner)
    return value


def is_data_url(text: str) -> bool:
    """Return whether `text` is a ``data:`` URL, perhaps after white space."""
    return text[:64].lstrip()[:5].lower() == "data:"


def decode_data_url(text: str) -> bytes:
    """Return the content of a ``data:`` URL, in base64 or percent-encoded.

    Example::

        >>> decode_data_url("data:image/svg+xml,%3Csvg/%3E")
        b'<svg/>'

    Raises:
        ValueError: no comma, or broken base64.
    """
    head, comma, content = text.partition(",")
    if not comma:
        raise ValueError("a data: URL without a comma")
    data = unquote_to_bytes(content)
    return decode_base64(data.decode("latin-1")) if has_base64_marker(head) else data


def has_base64_marker(head: str) -> bool:
    """Return whether the part of a ``data:`` URL before its comma announces base64."""
    return head.rstrip().lower().endswith(";base64")


def _to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"key {name[:40]!r} appears twice")
            seen.add(name)
    return members


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_STRICT = json.JSONDecoder(object_pairs_hook=_to_dict, parse_constant=_reject_constant)
"""A shared decoder: `json.loads` builds a new decoder for each call with hooks."""

_LENIENT = json.JSONDecoder(object_pairs_hook=_to_dict, parse_constant=lambda name: None, strict=False)


def mend_json(body: bytes) -> bytes | None:
    r"""Return the JSON object or array at the start of a damaged body as strict JSON.

    NaN and Infinity become null. Bytes that are not UTF-8, control characters in strings, and everything
    behind the value do not matter.

    Example::

        >>> mend_json(b'{"data": [], "score": NaN}\0<!-- proxy -->')
        b'{"data": [], "score": null}'

    Returns:
        The body of the same value, None if the body does not start with a whole object or array.
    """
    text = body.removeprefix(BOM_UTF8).decode("utf-8", "replace").lstrip("\0 \t\r\n")
    if not text.startswith(("{", "[")):
        return None
    try:
        return json.dumps(_LENIENT.raw_decode(text)[0]).encode()
    except (ValueError, RecursionError):
        return None
