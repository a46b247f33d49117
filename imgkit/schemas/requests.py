"""What the three operations accept. A field that is not here is refused: a typo must not cost money.

Rules that depend on the model are the provider's (its dated data); here is only what holds for all:
types, the ranges of the API reference, and what no server could mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any, TypeVar

import marshmallow as ma
from marshmallow import fields, validate

from imgkit.errors import InvalidRequestError
from imgkit.models import CreateImageEditRequest, CreateImageRequest, CreateImageVariationRequest
from imgkit.schemas.base import SchemaError, Typed
from imgkit.wire.headers import NOT_FOR_USERS, header_problem

RequestT = TypeVar("RequestT")

MOST_IMAGES = 16
"""Input pictures of one edit (API reference of images/edits, 2026-11-23)."""

MOST_PICTURES = 1000
"""Pictures of one call: a bound on slips of the keyboard. What is more than a model makes at once is asked
for in several requests."""

_MOST_AT_ONCE = 10
"""Pictures of one request (API reference, 2026-11-23)."""

_OWN_BODY = {
    "stream": "a stream is asked for with stream_image or stream_image_edit: leave it out.",
    "partial_images": "partial pictures come with stream_image(…, partial_images=2): leave it out.",
}


def _text(value: str) -> None:
    if "\0" in value:
        raise ma.ValidationError("holds a NUL character: take it out.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ma.ValidationError(
            f"holds a lone surrogate at character {error.start}, which no encoding can carry: "
            "decode the text properly, for example with errors='replace'."
        ) from None


def _prompt(value: str) -> None:
    if not value.strip():
        raise ma.ValidationError("is empty: say what the picture should show.")
    _text(value)


def _whole_number(low: int, high: int) -> fields.Integer:
    return fields.Integer(
        strict=True,
        allow_none=True,
        validate=validate.Range(low, high, error=f"must be a whole number from {low} to {high}."),
        error_messages={"invalid": f"must be a whole number from {low} to {high}."},
    )


class _Text(fields.String):
    """Text; bytes are not guessed to be some."""

    default_error_messages = {"invalid": "must be text."}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, str):
            raise self.make_error("invalid")
        return value


def _name() -> _Text:
    return _Text(allow_none=True, validate=[validate.Length(min=1, error="is empty."), _text])


def _one_of(*choices: str) -> _Text:
    return _Text(
        allow_none=True,
        validate=validate.OneOf(
            choices,
            error="{input!r} is not one of {choices}; a server that knows it takes it through extra_body.",
        ),
    )


_SIZE = validate.Regexp(
    r"\A(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})\Z",
    error="{input!r} is no size: give width x height in pixels, such as '1024x1024', or 'auto'.",
)


class _Picture(fields.Field[Any]):
    """An image input. Only its Python type is looked at here; its bytes are when it is opened."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        from imgkit.images.inputs import check_type

        problem = check_type(value)
        if problem:
            raise ma.ValidationError(problem)
        return value


class _Overlay(_Picture):
    """A picture that says what a mask could say too."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if data.get("mask") is not None:
            raise ma.ValidationError("goes without a mask: give one of the two.")
        return super()._deserialize(value, attr, data, **kwargs)


class _Pictures(_Picture):
    """One image input or a sequence of them; becomes a tuple."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            return (super()._deserialize(value, attr, data, **kwargs),)
        if not 1 <= len(value) <= MOST_IMAGES:
            raise ma.ValidationError(f"give 1 to {MOST_IMAGES} pictures, not {len(value)}.")
        problems = {}
        for index, one in enumerate(value):
            try:
                super()._deserialize(one, attr, data, **kwargs)
            except ma.ValidationError as error:
                problems[index] = error.messages
        if problems:
            raise ma.ValidationError(problems)
        return tuple(value)


class _Object(fields.Field[Any]):
    """A JSON object, checked down to its leaves."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ma.ValidationError("must be a mapping with names as keys.")
        try:
            # What cannot be written as strict JSON (NaN, sets, cycles) fails here, before it is sent.
            json.dumps(dict(value), ensure_ascii=False, allow_nan=False, sort_keys=True).encode("utf-8")
        except (TypeError, ValueError, RecursionError) as error:
            raise ma.ValidationError(f"cannot be written as JSON: {error}") from None
        return dict(value)


class _ExtraBody(_Object):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, Any]:
        members = super()._deserialize(value, attr, data, **kwargs)
        problems = {name: [_OWN_BODY[name]] for name in members if name in _OWN_BODY}
        if isinstance(members.get("prompt"), str):
            try:
                _prompt(members["prompt"])
            except ma.ValidationError as error:
                problems["prompt"] = [str(message) for message in error.messages]
        count = members.get("n")
        if "n" in members and (type(count) is not int or not 1 <= count <= _MOST_AT_ONCE):
            problems["n"] = [f"must be a whole number from 1 to {_MOST_AT_ONCE} here."]
        if problems:
            raise ma.ValidationError(problems)
        return members


class _Headers(fields.Field[Any]):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, Any]:
        problem = header_problem(value, NOT_FOR_USERS)
        if problem:
            raise ma.ValidationError(f"{problem}.")
        return {name.lower(): content for name, content in value.items()}


class _RequestSchema(Typed[Any]):
    """Its rules are its fields' alone: there are none for the whole."""

    class Meta:
        unknown = ma.RAISE

    def read(self, data: Mapping[str, Any]) -> Any:
        """Return `data` as a request, looking at those fields that it has; most requests have a few.

        `load` looks at all that there are, and says what is wrong with them. Raises as `Typed.read` does.
        """
        if self._required <= data.keys() <= self.fields.keys():
            with suppress(ma.ValidationError):  # it is told below, with whatever else is wrong
                return self.target(
                    **{name: self.fields[name].deserialize(value, name, data) for name, value in data.items()}
                )
        return super().read(data)

    @cached_property
    def _required(self) -> frozenset[str]:
        return frozenset(name for name, field in self.fields.items() if field.required)

    model = _name()
    n = _whole_number(1, MOST_PICTURES)
    size = _Text(allow_none=True, validate=_SIZE)
    response_format = _one_of("url", "b64_json")
    user = _name()
    extra_body = _ExtraBody(allow_none=True)
    extra_headers = _Headers(allow_none=True)


class _DrawingSchema(_RequestSchema):
    prompt = _Text(required=True, validate=_prompt, error_messages={
        "required": "is missing: say what the picture should show.",
        "null": "is missing: say what the picture should show.",
    })  # fmt: skip
    quality = _one_of("low", "medium", "high", "xhigh", "max", "auto", "standard", "hd")
    background = _one_of("transparent", "opaque", "auto")
    output_format = _one_of("png", "jpeg", "webp", "gif", "svg")
    output_compression = _whole_number(0, 100)
    complexity = _one_of("low", "medium", "high")
    frame_count = _whole_number(2, 16)
    frame_duration_ms = _whole_number(1, 655_350)
    svg = _Object(allow_none=True)
    safety_identifier = _name()


class CreateImageSchema(_DrawingSchema):
    """`create_image`."""

    target = CreateImageRequest

    moderation = _one_of("auto", "low")
    style = _one_of("vivid", "natural")


class CreateImageEditSchema(_DrawingSchema):
    """`create_image_edit`."""

    target = CreateImageEditRequest

    image = _Pictures(required=True, error_messages={
        "required": "is missing: give the picture to change.",
        "null": "is missing: give the picture to change.",
    })  # fmt: skip
    mask = _Picture(allow_none=True)
    markup = _Overlay(allow_none=True)
    input_fidelity = _one_of("high", "low")


class CreateImageVariationSchema(_RequestSchema):
    """`create_image_variation`."""

    target = CreateImageVariationRequest

    image = _Picture(required=True, error_messages={
        "required": "is missing: give the picture to vary.",
        "null": "is missing: give the picture to vary.",
    })  # fmt: skip


CREATE_IMAGE = CreateImageSchema()
CREATE_IMAGE_EDIT = CreateImageEditSchema()
CREATE_IMAGE_VARIATION = CreateImageVariationSchema()

REQUEST_SCHEMAS: dict[type[Any], Typed[Any]] = {
    CreateImageRequest: CREATE_IMAGE,
    CreateImageEditRequest: CREATE_IMAGE_EDIT,
    CreateImageVariationRequest: CREATE_IMAGE_VARIATION,
}


def validate_request(kind: type[RequestT], fields: Mapping[str, Any]) -> RequestT:
    """Return a checked and normalised request.

    Args:
        kind: class of the request.
        fields: its fields; what is None counts as not given.

    Raises:
        InvalidRequestError: what is wrong with it, by field.
    """
    given = {name: content for name, content in fields.items() if content is not None}
    try:
        request: RequestT = REQUEST_SCHEMAS[kind].read(given)
    except SchemaError as error:
        raise InvalidRequestError(error.fields) from None
    return request
