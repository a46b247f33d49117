"""Replies from bytes: strict JSON, and base64 in the spellings that servers use."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Callable
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote_to_bytes

import pybase64

from imgkit.wire.base64_stream import URL_SAFE

T = TypeVar("T")


class Source(Protocol):
    """A place that holds the bytes of an image: memory, a file, a URL."""

    def read(self) -> bytes:
        """Return the whole file. Raises `NotDownloadedError` if its bytes cannot be reached from here."""

    def read_at(self, size: int, position: int) -> bytes:
        """Return `size` bytes from `position` on; raises as `read` does."""

    @property
    def length(self) -> int:
        """Size in bytes; raises as `read` does."""

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the bytes; raises as `read` does."""


class DivertedImage:
    """A long base64 string of a reply, decoded while it arrived."""

    def decoded(self) -> bytes:
        """Return its bytes."""
        raise NotImplementedError

    def source(self) -> Source | None:
        """Return where its bytes are if they are on disk already, None if they are in memory."""
        return None


def parse_json(body: bytes) -> Any:
    """Return the JSON value that `body` is.

    UTF-8 is read whatever the Content-Type says, with or without a byte-order mark.

    Raises:
        ValueError: not UTF-8, not one JSON value, a key twice in one object, NaN or Infinity, nesting
            that is too deep, or a number of thousands of digits.
    """
    try:
        return _STRICT.decode(body.removeprefix(BOM_UTF8).decode("utf-8"))
    except RecursionError:
        problem = "nested too deeply"
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 at byte {error.start}"
    except json.JSONDecodeError as error:
        problem = f"{error.msg} (character {error.pos})"
    # Raised outside the except block: those errors keep the whole reply, pictures and all.
    raise ValueError(problem)


def decode_base64(text: object) -> bytes:
    """Return the bytes that `text` encodes; it may be a `TakenOut`.

    White space, the URL-safe alphabet, missing padding and a ``data:…;base64,`` prefix are accepted;
    anything else that is not base64 is an error, never silently wrong bytes.

    Raises:
        ValueError: not text, or not base64.
    """
    if isinstance(text, DivertedImage):
        return text.decoded()
    if not isinstance(text, str):
        raise ValueError(f"base64 of type {type(text).__name__}")
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        pass  # perhaps one of the other spellings
    if is_data_url(text):
        head, comma, text = text.partition(",")
        if not comma or not says_base64(head):
            raise ValueError("a data: URL that is not base64")
    text = "".join(text.split()).translate(URL_SAFE).rstrip("=")
    try:
        return pybase64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise ValueError("broken base64") from None


def with_text(value: Any) -> Any:
    """Return a JSON value with text in place of what was taken out of it, for where nobody expects that."""
    return swapped(value, DivertedImage, lambda one: pybase64.b64encode(one.decoded()).decode("ascii"))


def swapped(value: Any, kind: type[T], swap: Callable[[T], Any]) -> Any:
    """Return a JSON value with `swap` done to all of a kind that is in it; containers are changed in place.

    There is no recursion, since replies may be nested deeply.
    """
    if isinstance(value, kind):
        value = swap(value)
    waiting = [value]
    while waiting:
        container = waiting.pop()
        if isinstance(container, dict):
            places: Any = list(container.items())
        elif isinstance(container, list):
            places = list(enumerate(container))
        else:
            continue
        for place, inner in places:
            if isinstance(inner, kind):
                container[place] = swap(inner)
            elif isinstance(inner, (dict, list)):
                waiting.append(inner)
    return value


def is_data_url(text: str) -> bool:
    """Return whether `text` is a ``data:`` URL, white space before it or not."""
    return text[:64].lstrip()[:5].lower() == "data:"


def decode_data_url(text: str) -> bytes:
    """Return the content of a ``data:`` URL, in base64 or percent-encoded.

    Raises:
        ValueError: no comma, or broken base64.
    """
    head, comma, content = text.partition(",")
    if not comma:
        raise ValueError("a data: URL without a comma")
    data = unquote_to_bytes(content)
    return decode_base64(data.decode("latin-1")) if says_base64(head) else data


def says_base64(head: str) -> bool:
    """Return whether the part of a ``data:`` URL before its comma says that base64 follows."""
    return head.rstrip().lower().endswith(";base64")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"key {name[:40]!r} is there twice")
            seen.add(name)
    return members


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
"""Made once: `json.loads` makes one for each call that has hooks."""
