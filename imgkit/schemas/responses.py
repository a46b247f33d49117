"""What a reply looks like. Lenient by design: a paid picture never fails for a field beside it.

A field of an unexpected type becomes None and is kept, as it came, in `extra`; unknown keys are kept
there too. Pictures never pass through here: their base64 is taken out first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import marshmallow as ma
from marshmallow import fields

from imgkit.models import Usage
from imgkit.schemas.base import Typed


class _LenientSchema(Typed[Any]):
    """Puts what does not fit, and what is unknown, into `extra`, sorted by name."""

    class Meta:
        unknown = ma.EXCLUDE

    def read(self, data: Mapping[str, Any]) -> Any:
        values: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        known = self._by_key
        for key, value in data.items():
            if key not in known:
                extra[key] = value
            elif value is not None:
                name, declared = known[key]
                try:
                    values[name] = declared.deserialize(value, key, data)
                except ma.ValidationError:
                    extra[key] = value
        return self.target(**values, extra={key: extra[key] for key in sorted(extra, key=str)})

    @cached_property
    def _by_key(self) -> dict[str, tuple[str, fields.Field[Any]]]:
        return {declared.data_key or name: (name, declared) for name, declared in self.fields.items()}


class _Exactly(fields.Field[Any]):
    """A value that JSON has as just this type, never converted; quick, since each reply has many.

    Args:
        kind: int or str.
        least: the smallest number.
    """

    def __init__(self, kind: type[Any], least: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._exact = kind
        self._least = least

    def deserialize(
        self, value: Any, attr: str | None = None, data: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        if type(value) is not self._exact or (self._least is not None and value < self._least):
            raise ma.ValidationError("Not as expected.")
        return value


def _count() -> _Exactly:
    return _Exactly(int, least=0)


def _text() -> _Exactly:
    return _Exactly(str)


class _Nested(fields.Field[Any]):
    """An object read by another lenient schema."""

    def __init__(self, schema: _LenientSchema, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._schema = schema

    def deserialize(
        self, value: Any, attr: str | None = None, data: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        if not isinstance(value, dict):
            raise ma.ValidationError("Not an object.")
        return self._schema.read(value)


_NOTHING: Mapping[str, Any] = MappingProxyType({})


class TokenSplit(NamedTuple):
    """Tokens of text and of pictures apart."""

    text_tokens: int | None = None
    image_tokens: int | None = None
    extra: Mapping[str, Any] = _NOTHING


class RawUsage(NamedTuple):
    """`usage` as the API nests it."""

    total_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_details: TokenSplit = TokenSplit()
    output_details: TokenSplit = TokenSplit()
    extra: Mapping[str, Any] = _NOTHING

    def flat(self) -> Usage:
        """Return the public form; what is unknown of the details is kept under their own names."""
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
    """One entry of `data`, its base64 already taken out."""

    url: str | None = None
    revised_prompt: str | None = None
    extra: Mapping[str, Any] = _NOTHING


class RawReply(NamedTuple):
    """The whole reply, its `data` already taken out."""

    created: int | None = None
    usage: RawUsage | None = None
    background: str | None = None
    output_format: str | None = None
    size: str | None = None
    quality: str | None = None
    warnings: Sequence[str] = ()
    extra: Mapping[str, Any] = _NOTHING


class _TokenSplitSchema(_LenientSchema):
    target = TokenSplit
    text_tokens = _count()
    image_tokens = _count()


class _UsageSchema(_LenientSchema):
    target = RawUsage
    total_tokens = _count()
    input_tokens = _count()
    output_tokens = _count()
    input_details = _Nested(_TokenSplitSchema(), data_key="input_tokens_details")
    output_details = _Nested(_TokenSplitSchema(), data_key="output_tokens_details")


class _ImageSchema(_LenientSchema):
    target = RawImage
    url = _text()
    revised_prompt = _text()


class _ReplySchema(_LenientSchema):
    target = RawReply
    created = _Exactly(int)
    usage = _Nested(_UsageSchema())
    background = _text()
    output_format = _text()
    size = _text()
    quality = _text()
    warnings = fields.List(_text())


IMAGE = _ImageSchema()
REPLY = _ReplySchema()
