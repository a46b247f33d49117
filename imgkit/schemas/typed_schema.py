"""The base class of the schemas and their error with flat field paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import marshmallow as ma

T = TypeVar("T")

_MAX_NAME_CHARACTERS = 100

_MAX_MESSAGE_CHARACTERS = 500
"""Limit of a field's message: messages quote the value, which may have any size."""


class SchemaError(Exception):
    """The problems that a schema found. Callers convert it into a public error.

    Attributes:
        fields: messages by flat field path.
    """

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__("; ".join(f"{path}: {text}" for path, text in fields.items()))
        self.fields = fields


class TypedSchema(ma.Schema, Generic[T]):
    """A schema that builds a `target` object from its fields.

    Unknown fields are errors: that is marshmallow's default. Create each schema once, at module level.

    Class attributes:
        target: the class to build from the loaded fields.
    """

    target: type[T]

    def read(self, data: Mapping[str, object]) -> T:
        """Return `data` as a validated and normalised object.

        Raises:
            SchemaError: some fields are invalid; it holds a message for each flat field path.
        """
        problems: dict[str, str] | None = None
        try:
            loaded = self.load(data)
        except ma.ValidationError as error:
            problems = flatten_messages(error.messages)
        if problems is not None:
            # Raise outside the except block: a ValidationError keeps the whole payload, images included.
            # As the context of the new error it would stay in memory.
            raise SchemaError(problems)
        return self.target(**loaded)


def flatten_messages(messages: object, path: str = "") -> dict[str, str]:
    """Return marshmallow's nested messages by flat path: ``{"data.0.url": "Not a valid string."}``.

    >>> flatten_messages({"data": {0: {"url": ["Not a valid string."]}}})
    {'data.0.url': 'Not a valid string.'}
    """
    if isinstance(messages, Mapping):
        flat: dict[str, str] = {}
        for key, inner in messages.items():
            # A surrogate of a foreign name must not make the message unprintable.
            part = str(key)[:_MAX_NAME_CHARACTERS].encode("utf-8", "backslashreplace").decode("utf-8")
            name = path if key == "_schema" else f"{path}.{part}" if path else part
            flat.update(flatten_messages(inner, name))
        return flat
    texts = messages if isinstance(messages, list) else [messages]
    message = " ".join(str(text) for text in texts)
    if len(message) > _MAX_MESSAGE_CHARACTERS:
        # Cut the middle: the value stands at the beginning, the remedy at the end.
        message = f"{message[:100]} … {message[103 - _MAX_MESSAGE_CHARACTERS :]}"
    return {path or "request": message}
