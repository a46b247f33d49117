"""Validation of the three operations' parameters. Unknown parameters are errors: a typo must not cost money.

The schemas hold the rules of every server: types, the ranges of the API reference, impossible values. The
providers' dated model data hold the rules of single models.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any, TypeVar

import marshmallow as ma
from marshmallow import fields, validate

from imgkit.errors import InvalidRequestError
from imgkit.models import (
    CreateImageEditRequest,
    CreateImageRequest,
    CreateImageVariationRequest,
    ImageRequest,
    field_names,
)
from imgkit.redact import HiddenDict, PrivateDict
from imgkit.schemas.typed_schema import SchemaError, TypedSchema
from imgkit.wire.headers import NOT_FOR_USERS, header_problem

RequestT = TypeVar("RequestT", bound=ImageRequest)

# --- Limits ----------------------------------------------------------------------------------

MAX_INPUT_IMAGES = 16
"""Input images of an edit (API reference of images/edits, 2026-11-23)."""

MAX_IMAGES = 1000
"""Images of a call: a bound against typing errors. imgkit splits a larger number than the model's limit into
several requests."""

_MAX_IMAGES_PER_REQUEST = 10
"""Images of an HTTP request (API reference, 2026-11-23)."""

_SIZE_PATTERN = r"\A(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})\Z"

_STREAM_MEMBERS = {
    "stream": "imgkit sets this member; leave it out.",
    "partial_images": "imgkit sets this member; leave it out.",
}
_STREAM_HINTS = {
    "extra_body.stream": "Call stream_image or stream_image_edit for a stream.",
    "extra_body.partial_images": "Call stream_image(…, partial_images=2) for partial images.",
}


# --- Validators ------------------------------------------------------------------------------


def _check_text(value: str) -> None:
    if "\0" in value:
        raise ma.ValidationError("The text contains a NUL character. Remove it.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ma.ValidationError(
            f"The text contains a lone surrogate at character {error.start}. No encoding can represent it. "
            "Decode the text correctly, for example with errors='replace'."
        ) from None


def _check_prompt(value: str) -> None:
    if not value.strip():
        raise ma.ValidationError("The prompt is empty. Describe the image.")
    _check_text(value)


# --- Types of fields -------------------------------------------------------------------------


class _TextField(fields.String):
    """Text. Unlike marshmallow's field, it does not decode bytes."""

    default_error_messages = {"invalid": "Must be text."}

    def _deserialize(self, value: object, attr: str | None, data: object, **kwargs: object) -> str:
        if not isinstance(value, str):
            raise self.make_error("invalid")
        return value


class _ImageField(fields.Field[object]):
    """An image input. The field checks the Python type; opening the image checks its bytes."""

    def _deserialize(
        self, value: object, attr: str | None, data: Mapping[str, object] | None, **kwargs: object
    ) -> object:
        from imgkit.images.inputs import find_type_problem

        problem = find_type_problem(value)
        if problem:
            raise ma.ValidationError(problem)
        return value


class _MarkupField(_ImageField):
    """A drawing over the first image: an alternative to a mask."""

    def _deserialize(
        self, value: object, attr: str | None, data: Mapping[str, object] | None, **kwargs: object
    ) -> object:
        if data is not None and data.get("mask") is not None:
            raise ma.ValidationError("A markup excludes a mask. Pass one of the two.")
        return super()._deserialize(value, attr, data, **kwargs)


class _ImagesField(_ImageField):
    """One image input or a sequence of them; loads a tuple."""

    def _deserialize(
        self, value: object, attr: str | None, data: Mapping[str, object] | None, **kwargs: object
    ) -> tuple[object, ...]:
        if not isinstance(value, list | tuple):
            return (super()._deserialize(value, attr, data, **kwargs),)
        if not 1 <= len(value) <= MAX_INPUT_IMAGES:
            raise ma.ValidationError(f"Pass 1 to {MAX_INPUT_IMAGES} images, not {len(value)}.")
        problems = {}
        for index, image in enumerate(value):
            try:
                super()._deserialize(image, attr, data, **kwargs)
            except ma.ValidationError as error:
                problems[index] = error.messages
        if problems:
            raise ma.ValidationError(problems)
        return tuple(value)


class _JsonObjectField(fields.Field[dict[str, object]]):
    """A JSON object, validated down to its leaves."""

    def _deserialize(
        self, value: object, attr: str | None, data: object, **kwargs: object
    ) -> dict[str, object]:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ma.ValidationError("Must be a mapping with names as keys.")
        try:
            # NaN, sets and cycles are no strict JSON: fail here, before anything is sent.
            json.dumps(dict(value), ensure_ascii=False, allow_nan=False, sort_keys=True).encode("utf-8")
        except (TypeError, ValueError, RecursionError) as error:
            raise ma.ValidationError(f"The value cannot be written as JSON: {error}") from None
        return dict(value)


class _ExtraBodyField(_JsonObjectField):
    """Further members of the body; the members that imgkit understands keep their rules."""

    def _deserialize(
        self, value: object, attr: str | None, data: object, **kwargs: object
    ) -> dict[str, object]:
        members = super()._deserialize(value, attr, data, **kwargs)
        problems = {name: [_STREAM_MEMBERS[name]] for name in members if name in _STREAM_MEMBERS}
        prompt = members.get("prompt")
        if isinstance(prompt, str):
            try:
                _check_prompt(prompt)
            except ma.ValidationError as error:
                problems["prompt"] = [str(message) for message in error.messages]
        count = members.get("n")
        if "n" in members and (type(count) is not int or not 1 <= count <= _MAX_IMAGES_PER_REQUEST):
            problems["n"] = [f"Must be a whole number from 1 to {_MAX_IMAGES_PER_REQUEST} in extra_body."]
        if problems:
            raise ma.ValidationError(problems)
        return PrivateDict(members)


class _HeadersField(fields.Field[dict[str, object]]):
    """Further headers; loads them by lower-case name."""

    def _deserialize(self, value: Any, attr: str | None, data: object, **kwargs: object) -> dict[str, object]:
        problem = header_problem(value, NOT_FOR_USERS)
        if problem:
            raise ma.ValidationError(f"{problem.rstrip('.')}.")
        return HiddenDict({name.lower(): content for name, content in value.items()})


def _text_field(validator: Callable[[str], object]) -> _TextField:
    return _TextField(allow_none=True, validate=validator)


def _name_field() -> _TextField:
    return _TextField(
        allow_none=True, validate=[validate.Length(min=1, error="The text is empty."), _check_text]
    )


def _choice_field(*choices: str) -> _TextField:
    error = "{input!r} is not one of {choices}."
    return _text_field(validate.OneOf(choices, error=error))


def _whole_number_field(low: int, high: int) -> fields.Integer:
    message = f"Must be a whole number from {low} to {high}."
    return fields.Integer(
        strict=True,
        allow_none=True,
        validate=validate.Range(low, high, error=message),
        error_messages={"invalid": message},
    )


def _explain_missing(message: str) -> dict[str, str | list[Any] | dict[Any, Any]]:
    return {"required": message, "null": message}


# --- Schemas ---------------------------------------------------------------------------------


class RequestSchema(TypedSchema[RequestT]):
    """The rules of all request parameters; each instance validates the parameters of one request class.

    Args:
        target: the request class. Its dataclass fields decide which parameters the operation has.
    """

    prompt = _TextField(
        required=True,
        validate=_check_prompt,
        error_messages=_explain_missing("The prompt is missing. Describe the image."),
    )
    image: fields.Field[object] = _ImageField(
        required=True, error_messages=_explain_missing("The image is missing. Pass the image to vary.")
    )
    mask = _ImageField(allow_none=True)
    markup = _MarkupField(allow_none=True)
    model = _name_field()
    n = _whole_number_field(1, MAX_IMAGES)
    size = _text_field(
        validate.Regexp(
            _SIZE_PATTERN,
            error="{input!r} is not a size. Pass width x height in pixels, such as '1024x1024', or 'auto'.",
        )
    )
    quality = _choice_field("low", "medium", "high", "xhigh", "max", "auto", "standard", "hd")
    background = _choice_field("transparent", "opaque", "auto")
    output_format = _choice_field("png", "jpeg", "webp", "gif", "svg")
    output_compression = _whole_number_field(0, 100)
    moderation = _choice_field("auto", "low")
    input_fidelity = _choice_field("high", "low")
    response_format = _choice_field("url", "b64_json")
    style = _choice_field("vivid", "natural")
    complexity = _choice_field("low", "medium", "high")
    frame_count = _whole_number_field(2, 16)
    frame_duration_ms = _whole_number_field(1, 655_350)
    svg = _JsonObjectField(allow_none=True)
    safety_identifier = _name_field()
    user = _name_field()
    extra_body = _ExtraBodyField(allow_none=True)
    extra_headers = _HeadersField(allow_none=True)

    def __init__(self, target: type[RequestT]) -> None:
        super().__init__(only=field_names(target))
        self.target = target

    def read(self, data: Mapping[str, object]) -> RequestT:
        """Return `data` as a request.

        Validates only the fields in `data`, since most requests have few. On a problem it falls back to
        marshmallow's `load`, which validates all fields and collects every problem.

        Raises:
            SchemaError: as `TypedSchema.read`.
        """
        if self._required <= data.keys() <= self.fields.keys():
            with suppress(ma.ValidationError):  # `load` below finds it again, with all other problems
                return self.target(
                    **{name: self.fields[name].deserialize(value, name, data) for name, value in data.items()}
                )
        return super().read(data)

    @cached_property
    def _required(self) -> frozenset[str]:
        return frozenset(name for name, field in self.fields.items() if field.required)


class EditRequestSchema(RequestSchema[CreateImageEditRequest]):
    """The request rules of an edit, which takes several images."""

    image = _ImagesField(
        required=True, error_messages=_explain_missing("The image is missing. Pass the image to change.")
    )


CREATE_IMAGE_SCHEMA = RequestSchema(CreateImageRequest)
CREATE_IMAGE_EDIT_SCHEMA = EditRequestSchema(CreateImageEditRequest)
CREATE_IMAGE_VARIATION_SCHEMA = RequestSchema(CreateImageVariationRequest)

REQUEST_SCHEMAS: dict[type[Any], TypedSchema[Any]] = {
    schema.target: schema
    for schema in (CREATE_IMAGE_SCHEMA, CREATE_IMAGE_EDIT_SCHEMA, CREATE_IMAGE_VARIATION_SCHEMA)
}


def validate_request(kind: type[RequestT], fields: Mapping[str, object]) -> RequestT:
    """Return a validated and normalised request.

    >>> validate_request(CreateImageRequest, {"prompt": "a fox", "n": None}).prompt
    'a fox'

    Args:
        kind: class of the request.
        fields: its fields; None counts as absent.

    Raises:
        InvalidRequestError: some fields are invalid; it holds a message for each flat field path.
    """
    given = {name: content for name, content in fields.items() if content is not None}
    try:
        request: RequestT = REQUEST_SCHEMAS[kind].read(given)
    except SchemaError as error:
        hints = {path: hint for path, hint in _STREAM_HINTS.items() if path in error.fields}
        if any(problem.startswith("The value is a URL") for problem in error.fields.values()):
            hints["reference"] = "Or let the API fetch it with an ImageReference."
        if any(" is not one of " in problem for problem in error.fields.values()):
            hints["extra_body"] = "Pass extra_body={…} for a value that only your server knows."
        raise InvalidRequestError(error.fields, hints=hints) from None
    return request
