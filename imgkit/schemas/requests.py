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
from imgkit.images.references import ImageReference
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
from imgkit.wire.plain_values import describe_failure, has_type, to_integer, to_json_value, to_text, type_name

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

_RATIO_PATTERN = r"\A[1-9][0-9]{0,3}(\.[0-9]{1,2})?:[1-9][0-9]{0,3}(\.[0-9]{1,2})?\Z"
_RESOLUTION_PATTERN = r"\A([1-9][0-9]{1,4}|[0-9]{1,2}(\.[0-9]{1,2})?(K|MP))\Z"

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


class _PlainField(fields.Field[Any]):
    """A field that loads plain values. An exception of the caller's object is a problem of the field."""

    def _deserialize(
        self, value: object, attr: str | None, data: Mapping[str, object] | None, **kwargs: object
    ) -> Any:
        try:
            return self._to_plain(value, data or {})
        except ma.ValidationError:
            raise
        except Exception as error:
            # Only the caller's object can raise here, and it may raise anything.
            problem = (
                f"The {type_name(value)} cannot be read ({describe_failure(error)}). Pass a plain value."
            )
            raise ma.ValidationError(problem) from None

    def _to_plain(self, value: object, data: Mapping[str, object]) -> Any:
        raise NotImplementedError


class _TextField(_PlainField):
    """Text: `str`, or an enum or another subclass of it."""

    def _to_plain(self, value: object, data: Mapping[str, object]) -> str:
        text = to_text(value)
        if text is None:
            raise ma.ValidationError("Must be text.")
        return text


class _ShapeField(_TextField):
    """An aspect ratio or a resolution: an alternative to a size in pixels.

    Args:
        pattern: of the values.
        meaning: the end of the sentence about another value.
    """

    def __init__(self, pattern: str, meaning: str) -> None:
        check = validate.Regexp(pattern, error=f"{{input!r}} is not {meaning}")
        super().__init__(allow_none=True, validate=check)

    def _to_plain(self, value: object, data: Mapping[str, object]) -> str:
        if data.get("size") not in (None, "auto"):
            raise ma.ValidationError("It excludes a size in pixels. Pass one of the two.")
        return super()._to_plain(value, data).upper()


class _WholeNumberField(_PlainField):
    """A whole number: `int`, an enum of it, or a number of NumPy."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__(allow_none=True)
        self._bounds = low, high

    def _to_plain(self, value: object, data: Mapping[str, object]) -> int:
        number, (low, high) = to_integer(value), self._bounds
        if number is None or not low <= number <= high:
            raise ma.ValidationError(f"Must be a whole number from {low} to {high}.")
        return number


class _ImageField(_PlainField):
    """An image input. The field checks the Python type; opening the image checks its bytes."""

    def _to_plain(self, value: object, data: Mapping[str, object]) -> object:
        from imgkit.images.inputs import find_type_problem

        value = _plain_text(value)
        problem = find_type_problem(value)
        if problem:
            raise ma.ValidationError(problem)
        return value.to_plain() if isinstance(value, ImageReference) else value


class _MarkupField(_ImageField):
    """A drawing over the first image: an alternative to a mask."""

    def _to_plain(self, value: object, data: Mapping[str, object]) -> object:
        if data.get("mask") is not None:
            raise ma.ValidationError("A markup excludes a mask. Pass one of the two.")
        return super()._to_plain(value, data)


class _ImagesField(_ImageField):
    """One image input or a sequence of them; loads a tuple."""

    def _to_plain(self, value: object, data: Mapping[str, object]) -> tuple[object, ...]:
        if not (has_type(value, list) or has_type(value, tuple)):
            return (super()._to_plain(value, data),)
        given = list(value)
        if not 1 <= len(given) <= MAX_INPUT_IMAGES:
            raise ma.ValidationError(f"Pass 1 to {MAX_INPUT_IMAGES} images, not {len(given)}.")
        images, problems = [], {}
        for index, image in enumerate(given):
            try:
                images.append(super()._to_plain(image, data))
            except ma.ValidationError as error:
                problems[index] = error.messages
        if problems:
            raise ma.ValidationError(problems)
        return tuple(images)


class _JsonObjectField(_PlainField):
    """A JSON object, validated and made plain down to its leaves."""

    def _to_plain(self, value: object, data: Mapping[str, object]) -> PrivateDict:
        if not issubclass(type(value), Mapping) or any(to_text(key) is None for key in value):  # type: ignore[attr-defined]
            raise ma.ValidationError("Must be a mapping with names as keys.")
        try:
            members: dict[str, Any] = to_json_value(value)
            # NaN, surrogates and huge numbers are no strict JSON: fail here, before anything is sent.
            json.dumps(members, ensure_ascii=False, allow_nan=False).encode("utf-8")
        except ValueError as error:
            raise ma.ValidationError(f"The value cannot be written as JSON: {error}.") from None
        return PrivateDict(members)


class _ExtraBodyField(_JsonObjectField):
    """Further members of the body; the members that imgkit understands keep their rules."""

    def _to_plain(self, value: object, data: Mapping[str, object]) -> PrivateDict:
        members = super()._to_plain(value, data)
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
        return members


class _HeadersField(_PlainField):
    """Further headers; loads them by lower-case name."""

    def _to_plain(self, value: object, data: Mapping[str, object]) -> dict[str, str | None]:
        headers: Any = value
        if issubclass(type(value), Mapping):
            headers = {_plain_text(name): _plain_text(content) for name, content in headers.items()}
        problem = header_problem(headers, NOT_FOR_USERS)
        if problem:
            raise ma.ValidationError(f"{problem.rstrip('.')}.")
        return HiddenDict({name.lower(): content for name, content in headers.items()})


def _plain_text(value: object) -> object:
    """Return text as an exact `str`, and any other value as it is."""
    text = to_text(value)
    return value if text is None else text


def _text_field(validator: Callable[[str], object]) -> _TextField:
    return _TextField(allow_none=True, validate=validator)


def _name_field() -> _TextField:
    return _TextField(
        allow_none=True, validate=[validate.Length(min=1, error="The text is empty."), _check_text]
    )


def _choice_field(*choices: str) -> _TextField:
    error = "{input!r} is not one of {choices}."
    return _text_field(validate.OneOf(choices, error=error))


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
    image: fields.Field[Any] = _ImageField(
        required=True, error_messages=_explain_missing("The image is missing. Pass the image to vary.")
    )
    mask = _ImageField(allow_none=True)
    markup = _MarkupField(allow_none=True)
    model = _name_field()
    n = _WholeNumberField(1, MAX_IMAGES)
    size = _text_field(
        validate.Regexp(
            _SIZE_PATTERN,
            error="{input!r} is not a size. Pass width x height in pixels, such as '1024x1024', or 'auto'.",
        )
    )
    aspect_ratio = _ShapeField(_RATIO_PATTERN, "an aspect ratio. Pass width:height, such as '16:9'.")
    resolution = _ShapeField(
        _RESOLUTION_PATTERN, "a resolution. Pass '1K', '2K', '4K' or pixels such as '512'."
    )
    seed = _WholeNumberField(0, 2**64 - 1)
    negative_prompt = _name_field()
    quality = _choice_field("low", "medium", "high", "xhigh", "max", "auto", "standard", "hd")
    background = _choice_field("transparent", "opaque", "auto")
    output_format = _choice_field("png", "jpeg", "webp", "gif", "svg")
    output_compression = _WholeNumberField(0, 100)
    moderation = _choice_field("auto", "low")
    input_fidelity = _choice_field("high", "low")
    response_format = _choice_field("url", "b64_json")
    style = _choice_field("vivid", "natural")
    complexity = _choice_field("low", "medium", "high")
    frame_count = _WholeNumberField(2, 16)
    frame_duration_ms = _WholeNumberField(1, 655_350)
    svg = _JsonObjectField(allow_none=True)
    safety_identifier = _name_field()
    user = _name_field()
    model_options = _JsonObjectField(allow_none=True)
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
