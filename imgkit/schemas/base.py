"""The base of all schemas: they read into a value of ours, and their errors are ours and flat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar, cast

import marshmallow as ma

T = TypeVar("T")

_MOST_CHARACTERS = 500
"""Longest text about one field: messages repeat the value, which may be anything."""


class Typed(ma.Schema, Generic[T]):
    """A schema that loads into `target`. Make one instance a shape, at module level.

    Class attributes:
        target: the dataclass to build from the loaded fields.
    """

    target: type[Any]

    def read(self, data: Mapping[str, Any]) -> T:
        """Return `data` as a checked and normalised value.

        Raises:
            SchemaError: with flat field paths.
        """
        problems: dict[str, str] | None = None
        try:
            loaded = self.load(data)
        except ma.ValidationError as error:
            problems = flatten(error.messages)
        if problems is not None:
            # Raised outside the except block: a ValidationError keeps the whole payload, pictures and
            # all, and would otherwise travel along as the new error's context.
            raise SchemaError(problems)
        return cast(T, self.target(**loaded))


class SchemaError(Exception):
    """What a schema found, by flat field path; its callers turn it into an error of the public tree."""

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__("; ".join(f"{path}: {text}" for path, text in fields.items()))
        self.fields = fields


def flatten(messages: Any, path: str = "") -> dict[str, str]:
    """Return marshmallow's nested messages as ``{"data.0.url": "Not a valid string."}``."""
    if isinstance(messages, Mapping):
        flat: dict[str, str] = {}
        for key, inner in messages.items():
            name = path if key == "_schema" else f"{path}.{key}" if path else str(key)
            flat.update(flatten(inner, name))
        return flat
    texts = messages if isinstance(messages, list) else [messages]
    said = " ".join(str(text) for text in texts)
    if len(said) > _MOST_CHARACTERS:  # the value stands at the beginning, what to do about it at the end
        said = f"{said[:100]} … {said[103 - _MOST_CHARACTERS :]}"
    return {path or "request": said}
