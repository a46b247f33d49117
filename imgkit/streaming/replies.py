"""Replies from bytes: strict JSON, and base64 in the spellings that servers use."""

from __future__ import annotations

import json
from typing import Any

import pybase64

_URL_SAFE = str.maketrans("-_", "+/")


def parse_json(body: bytes) -> Any:
    """Return the JSON value that `body` is.

    UTF-8 is read whatever the Content-Type says, with or without a byte-order mark.

    Raises:
        ValueError: not UTF-8, not one JSON value, a key twice in one object, NaN or Infinity, nesting
            that is too deep, or a number of thousands of digits.
    """
    try:
        return json.loads(body.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None


def decode_base64(text: object) -> bytes:
    """Return the bytes that `text` encodes.

    White space, the URL-safe alphabet, missing padding and a ``data:…;base64,`` prefix are accepted;
    anything else that is not base64 is an error, never silently wrong bytes.

    Raises:
        ValueError: not text, or not base64.
    """
    if not isinstance(text, str):
        raise ValueError(f"base64 of type {type(text).__name__}")
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        pass  # perhaps one of the other spellings
    if text.lstrip()[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.rstrip().lower().endswith(";base64"):
            raise ValueError("a data: URL that is not base64")
    text = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    try:
        return pybase64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise ValueError("broken base64") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice[:40]!r} is there twice")
    return members


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
