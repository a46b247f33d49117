"""Schemas of response bodies. Lenient by design: an odd field never costs a paid image.

A field of an unexpected type becomes None; `extra` keeps its original value, and unknown keys as well. Image
data never pass through here: the body reader extracts the base64 first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import marshmallow as ma
from marshmallow import fields

from imgkit.models import Usage
from imgkit.schemas.typed_schema import TypedSchema

# --- Values ----------------------------------------------------------------------------------

T = TypeVar("T")

_EMPTY: Mapping[str, object] = MappingProxyType({})


class TokenSplit(NamedTuple):
    """Token counts of text and images."""

    text_tokens: int | None = None
    image_tokens: int | None = None
    extra: Mapping[str, object] = _EMPTY


class RawUsage(NamedTuple):
    """The nested `usage` object of the API."""

    total_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_details: TokenSplit = TokenSplit()
    output_details: TokenSplit = TokenSplit()
    extra: Mapping[str, object] = _EMPTY

    def to_usage(self) -> Usage:
        """Return the flat public form; `extra` keeps unknown details under the API's names."""
        details = {
            "input_tokens_details": self.input_details.extra,
            "output_tokens_details": self.output_details.extra,
        }
        return Usage(
            total_tokens=self.total_tokens,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            input_text_tokens=self.input_details.text_tokens,
            input_image_tokens=self.input_details.image_tokens,
            output_text_tokens=self.output_details.text_tokens,
            output_image_tokens=self.output_details.image_tokens,
            extra={**self.extra, **{name: extra for name, extra in details.items() if extra}},
        )


class RawImage(NamedTuple):
    """An entry of `data` without its base64."""

    url: str | None = None
    revised_prompt: str | None = None
    extra: Mapping[str, object] = _EMPTY


class RawReply(NamedTuple):
    """The whole response body without its `data`."""

    created: int | None = None
    usage: RawUsage | None = None
    background: str | None = None
    output_format: str | None = None
    size: str | None = None
    quality: str | None = None
    warnings: Sequence[str] = ()
    extra: Mapping[str, object] = _EMPTY


# --- Lenient reading -------------------------------------------------------------------------


class LenientSchema(TypedSchema[T]):
    """A schema that collects misfits and unknown keys in `extra`, sorted by name."""

    def read(self, data: Mapping[str, object]) -> T:
        """Return `data` as a `target`. Never raises."""
        values: dict[str, object] = {}
        extra: dict[str, object] = {}
        known = self._fields_by_key
        for key, value in data.items():
            if key not in known:
                extra[key] = value
            elif value is not None:
                name, declared = known[key]
                try:
                    values[name] = declared.deserialize(value, key, data)
                except ma.ValidationError:
                    extra[key] = value
        values["extra"] = {key: extra[key] for key in sorted(extra, key=str)}
        return self.target(**values)

    @cached_property
    def _fields_by_key(self) -> dict[str, tuple[str, fields.Field[object]]]:
        return {declared.data_key or name: (name, declared) for name, declared in self.fields.items()}


class _ExactField(fields.Field[Any]):
    """A value of exactly one JSON type, without conversion. Fast, since each response has many.

    Args:
        kind: int or str.
        min_value: the smallest accepted number; None without a limit.
    """

    def __init__(self, kind: type[int | str], min_value: int | None = None) -> None:
        super().__init__()
        self._kind: type[Any] = kind
        self._min_value = min_value

    def deserialize(
        self, value: Any, attr: str | None = None, data: Mapping[str, object] | None = None, **kwargs: object
    ) -> Any:
        if type(value) is not self._kind or (self._min_value is not None and value < self._min_value):
            raise ma.ValidationError("Unexpected value.")
        return value


class _NestedField(fields.Field[T]):
    """An object that another lenient schema reads."""

    def __init__(self, schema: LenientSchema[T], data_key: str | None = None) -> None:
        super().__init__(data_key=data_key)
        self._schema = schema

    def deserialize(
        self,
        value: object,
        attr: str | None = None,
        data: Mapping[str, object] | None = None,
        **kwargs: object,
    ) -> T:
        if not isinstance(value, dict):
            raise ma.ValidationError("Not an object.")
        return self._schema.read(value)


def _count_field() -> _ExactField:
    return _ExactField(int, min_value=0)


def _text_field() -> _ExactField:
    return _ExactField(str)


# --- Schemas ---------------------------------------------------------------------------------


class _TokenSplitSchema(LenientSchema[TokenSplit]):
    target = TokenSplit
    text_tokens = _count_field()
    image_tokens = _count_field()


class _UsageSchema(LenientSchema[RawUsage]):
    target = RawUsage
    total_tokens = _count_field()
    input_tokens = _count_field()
    output_tokens = _count_field()
    input_details = _NestedField(_TokenSplitSchema(), data_key="input_tokens_details")
    output_details = _NestedField(_TokenSplitSchema(), data_key="output_tokens_details")


class _ImageSchema(LenientSchema[RawImage]):
    target = RawImage
    url = _text_field()
    revised_prompt = _text_field()


class _ReplySchema(LenientSchema[RawReply]):
    target = RawReply
    created = _ExactField(int)
    usage = _NestedField(_UsageSchema())
    background = _text_field()
    output_format = _text_field()
    size = _text_field()
    quality = _text_field()
    warnings = fields.List(_text_field())


IMAGE_SCHEMA = _ImageSchema()
REPLY_SCHEMA = _ReplySchema()
