"""The rows of a run: requests from values of the caller, and from the rows of files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from imgkit.bulk.manifest import NewRow
from imgkit.errors import InvalidRequestError
from imgkit.models import (
    CreateImageEditRequest,
    CreateImageRequest,
    CreateImageVariationRequest,
    ImageRequest,
    field_names,
)
from imgkit.redact import format_suggestion
from imgkit.schemas.requests import validate_request
from imgkit.wire.json_values import JsonMapping, JsonObject
from imgkit.wire.plain_values import show_value

KINDS: Mapping[str, type[ImageRequest]] = {
    "create_image": CreateImageRequest,
    "create_image_edit": CreateImageEditRequest,
    "create_image_variation": CreateImageVariationRequest,
}
_SHORT_NAMES: Mapping[str, str] = {
    "create": "create_image",
    "edit": "create_image_edit",
    "variation": "create_image_variation",
}
"""Operations as the commands are called."""

MAX_ID_CHARACTERS = 1000

OWN_COLUMNS = ("id", "operation", "provider")
"""Columns that are no fields of requests."""

OPTION = "model_options."
"""Begin of the columns for an option of the model."""

_SECRETS = ("extra_headers",)
"""Fields that may hold a key, which no manifest keeps."""


class TableRow(NamedTuple):
    """A row of a file.

    Attributes:
        line: its line in a text file, or its number in another.
        columns: its cells by the names of their columns.
        problem: why it cannot be read, "" if it can be.
    """

    line: int
    columns: JsonObject
    problem: str = ""


class BulkRequest(NamedTuple):
    """A request of a run, with its name in the run.

    Attributes:
        id: its name; no other request of the run has it.
        request: the request.
    """

    id: str
    request: ImageRequest


def to_row(value: object, number: int, defaults: JsonMapping, place: int | None = None) -> NewRow:
    """Return the row of a request.

    >>> to_row("a fox", 7, {"model": "gpt-image-2"}).id
    '7'

    Args:
        value: a prompt, a request object, a `BulkRequest`, or a mapping with the columns of a file.
        number: its number, which is its id if it has none.
        defaults: values of columns that a mapping or a prompt leaves out.
        place: its line, the number by default.

    Raises:
        InvalidRequestError: the value is no request, or an invalid one.
    """
    name: object = number
    provider: object = None
    request = value
    if isinstance(value, BulkRequest):
        name, request = value.id, value.request
    if isinstance(request, str):
        request = {"prompt": request}
    if isinstance(request, Mapping):
        columns = {column: cell for column, cell in request.items() if cell is not None}
        name = columns.pop("id", name)
        provider = columns.pop("provider", None)
        operation, fields = _split_columns(columns, defaults)
        checked = validate_request(KINDS[operation], fields)
    elif isinstance(request, CreateImageRequest | CreateImageEditRequest | CreateImageVariationRequest):
        kind = type(request)
        checked = validate_request(kind, {each: getattr(request, each) for each in field_names(kind)})
    else:
        problem = f"{show_value(request)} is not a request. Pass a prompt, a mapping or a request object."
        raise InvalidRequestError({"request": problem})
    values = _to_json(checked)
    if provider is not None:
        if not isinstance(provider, str):
            raise InvalidRequestError({"provider": "The provider is a name, such as 'openai'."})
        values["provider"] = provider
    content = json.dumps(values, sort_keys=True, ensure_ascii=True).encode()
    return NewRow(to_id(name), hashlib.sha256(content).digest(), values, place or number)


def to_id(value: object) -> str:
    """Return the id that a text or a whole number stands for.

    >>> to_id(7), to_id("007")
    ('7', '007')

    Raises:
        InvalidRequestError: it is no id.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidRequestError({"id": "An id is text or a whole number."})
    text = str(value)
    if not text.strip() or len(text) > MAX_ID_CHARACTERS:
        raise InvalidRequestError({"id": f"An id has 1 to {MAX_ID_CHARACTERS} characters."})
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidRequestError({"id": "The id has a NUL character or half a surrogate. Remove it."})
    return text


def check_defaults(defaults: JsonMapping) -> None:
    """Refuse a default for a column that no operation has.

    Raises:
        InvalidRequestError: the message names it, and the nearest column.
    """
    known = sorted({name for kind in KINDS.values() for name in field_names(kind)} | {*OWN_COLUMNS})
    for name in defaults:
        if name not in known:
            hint = format_suggestion(str(name)[:80], known)
            raise InvalidRequestError({"defaults": f"There is no column {str(name)[:80]!r}{hint}."})


def to_request(values: JsonMapping) -> ImageRequest:
    """Return the request that the JSON values of a row stand for."""
    fields = {name: value for name, value in values.items() if name not in OWN_COLUMNS}
    return validate_request(KINDS[values["operation"]], fields)


def _split_columns(given: JsonMapping, defaults: JsonMapping) -> tuple[str, JsonObject]:
    """Return the operation and the fields of a row's columns; defaults fill those that the operation has."""
    default = "create_image" if given.get("image") is None else "create_image_edit"
    operation = str(given.get("operation") or defaults.get("operation") or default)
    operation = _SHORT_NAMES.get(operation, operation)
    if operation not in KINDS:
        raise InvalidRequestError(
            {"operation": f"Unknown operation {operation[:80]!r}. Use one of: {', '.join(KINDS)}."}
        )
    known = field_names(KINDS[operation])
    fields: JsonObject = {name: value for name, value in defaults.items() if name in known}
    options: JsonObject = {}
    for column, cell in given.items():
        if column == "operation":
            continue
        if isinstance(column, str) and column.startswith(OPTION):
            options[column.removeprefix(OPTION)] = cell
        elif column in known:
            fields[column] = cell
        else:
            shown = str(column)[:80]
            hint = format_suggestion(shown, (*known, *OWN_COLUMNS))
            raise InvalidRequestError({shown: f"There is no such column for {operation}{hint}."})
    if options:
        whole = fields.get("model_options")
        fields["model_options"] = {**whole, **options} if isinstance(whole, Mapping) else options
    return operation, fields


def _to_json(request: ImageRequest) -> JsonObject:
    """Return the JSON values of a request.

    Raises:
        InvalidRequestError: an image is no path and no URL, or the request has headers.
    """
    values: JsonObject = {"operation": request.operation}
    for name in field_names(type(request)):
        value = getattr(request, name)
        if value is None:
            continue
        if name in _SECRETS:
            raise InvalidRequestError({name: "A run keeps its requests on disk, so they have no headers."})
        if name in ("image", "mask", "markup"):
            value = _describe_images(name, value)
        values[name] = dict(value) if isinstance(value, Mapping) else value
    return values


def _describe_images(name: str, value: object) -> object:
    if isinstance(value, tuple):
        return [_describe_images(name, each) for each in value]
    try:
        path = value if isinstance(value, str) else Path(value)  # type: ignore[arg-type]  # checked here
    except TypeError:
        problem = "A run keeps its requests on disk. Give the path of a file, or a data: URL."
        raise InvalidRequestError({name: problem}) from None
    return str(path)
