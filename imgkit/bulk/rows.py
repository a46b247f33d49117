"""The rows of a run: requests from values of the caller, and from files."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TextIO

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
from imgkit.wire.json_values import Json, JsonMapping, JsonObject

KINDS: Mapping[str, type[ImageRequest]] = {
    "create_image": CreateImageRequest,
    "create_image_edit": CreateImageEditRequest,
    "create_image_variation": CreateImageVariationRequest,
}
_OWN_COLUMNS = ("id", "operation")
_OPTION = "model_options."
_SECRETS = ("extra_headers",)
"""Fields that may hold a key, which no manifest keeps."""

_MAX_PROBLEMS = 20


class BulkRequest(NamedTuple):
    """A request of a run, with its name in the run.

    Attributes:
        id: its name; no other request of the run has it.
        request: the request.
    """

    id: str
    request: ImageRequest


def read_rows(
    values: Iterable[object],
    defaults: JsonMapping,
    *,
    skip: Callable[[str], object] | None = None,
    start: int = 1,
) -> Iterator[NewRow]:
    """Yield the rows of requests.

    Args:
        values: prompts, request objects, `BulkRequest` values, or mappings with the columns of a file. One
            without an id gets its number.
        defaults: values of columns that a mapping or a prompt leaves out.
        skip: receives the problem of an invalid row, which is left out; None raises it.
        start: number of the first value.

    Raises:
        InvalidRequestError: rows are invalid; the message lists them.
    """
    problems: list[str] = []
    seen: set[bytes] = set()
    for number, value in enumerate(values, start):
        try:
            row = to_row(value, number, defaults)
            mark = hashlib.blake2b(row.id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            if mark in seen:
                raise InvalidRequestError({"id": f"Two rows have the id {row.id[:80]!r}."})
            seen.add(mark)
        except InvalidRequestError as error:
            problem = f"row {number}: {error.problem}"
            if skip is None:
                problems.append(problem)
                if len(problems) >= _MAX_PROBLEMS:
                    break
            else:
                skip(problem)
            continue
        if not problems:
            yield row
    if problems:
        raise InvalidRequestError({"rows": " ".join(problems)})


def to_row(value: object, number: int, defaults: JsonMapping) -> NewRow:
    """Return the row of a request.

    >>> to_row("a fox", 7, {"model": "gpt-image-2"}).id
    '7'

    Raises:
        InvalidRequestError: the value is no request, or an invalid one.
    """
    name, request = str(number), value
    if isinstance(value, BulkRequest):
        name, request = value.id, value.request
    if isinstance(request, str):
        request = {"prompt": request}
    if isinstance(request, Mapping):
        columns = {**defaults, **{key: cell for key, cell in request.items() if cell is not None}}
        name, operation, fields = _split_columns(columns, name)
        checked = validate_request(KINDS[operation], fields)
    elif isinstance(request, CreateImageRequest | CreateImageEditRequest | CreateImageVariationRequest):
        kind = type(request)
        checked = validate_request(kind, {each: getattr(request, each) for each in field_names(kind)})
    else:
        raise InvalidRequestError({"request": f"A {type(request).__name__} is no request."})
    values = _to_json(checked)
    content = json.dumps(values, sort_keys=True, ensure_ascii=True).encode()
    return NewRow(name, hashlib.sha256(content).digest(), values)


def to_request(values: JsonMapping) -> ImageRequest:
    """Return the request that the JSON values of a row stand for."""
    fields = {name: value for name, value in values.items() if name != "operation"}
    return validate_request(KINDS[values["operation"]], fields)


def _split_columns(columns: JsonMapping, name: str) -> tuple[str, str, JsonObject]:
    """Return the id, the operation and the fields of a row's columns."""
    given = dict(columns)
    name = str(given.pop("id", name))
    if not name.strip() or len(name) > 1000:
        raise InvalidRequestError({"id": "An id has 1 to 1000 characters."})
    default = "create_image" if given.get("image") is None else "create_image_edit"
    operation = str(given.pop("operation", None) or default)
    if operation not in KINDS:
        raise InvalidRequestError(
            {"operation": f"Unknown operation {operation[:80]!r}. Use one of: {', '.join(KINDS)}."}
        )
    known = field_names(KINDS[operation])
    fields: JsonObject = {}
    options: JsonObject = dict(given.pop("model_options", None) or {})
    for column, cell in given.items():
        if column.startswith(_OPTION):
            options[column.removeprefix(_OPTION)] = cell
        elif column in known:
            fields[column] = cell
        else:
            hint = format_suggestion(column, (*known, *_OWN_COLUMNS))
            raise InvalidRequestError({column: f"There is no such column for {operation}{hint}."})
    if options:
        fields["model_options"] = options
    return name, operation, fields


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


# --- Files -----------------------------------------------------------------------------------


def read_file(file: TextIO, kind: str) -> Iterator[JsonObject]:
    """Yield the rows of a file as mappings.

    Args:
        file: an open text file.
        kind: "csv", "tsv" or "jsonl".

    Raises:
        InvalidRequestError: the file cannot be read.
    """
    try:
        yield from _read_json_lines(file) if kind == "jsonl" else _read_table(file, kind)
    except UnicodeDecodeError as error:
        raise InvalidRequestError({"file": f"It is not UTF-8 at byte {error.start}."}) from None
    except csv.Error as error:
        raise InvalidRequestError({"file": f"It is no table: {error}."}) from None


def _read_table(file: TextIO, kind: str) -> Iterator[JsonObject]:
    reader = csv.DictReader(file, delimiter="\t" if kind == "tsv" else ",", restkey="", strict=True)
    names = reader.fieldnames
    if not names:
        raise InvalidRequestError({"file": "It is empty. Its first line names the columns."})
    if "prompt" not in names and "image" not in names:
        raise InvalidRequestError(
            {"file": f"Its first line names no column 'prompt': {', '.join(names)[:200]}."}
        )
    for cells in reader:
        if "" in cells:
            raise InvalidRequestError({"file": f"Line {reader.line_num} has more cells than columns."})
        yield {name: _parse_cell(name, cell) for name, cell in cells.items() if cell not in ("", None)}


def _read_json_lines(file: TextIO) -> Iterator[JsonObject]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise InvalidRequestError({"file": f"Line {number} is no JSON."}) from None
        if not isinstance(value, dict):
            raise InvalidRequestError({"file": f"Line {number} is no JSON object."})
        yield value


_TEXTS = frozenset(
    {"prompt", "negative_prompt", "id", "image", "mask", "markup", "user", "safety_identifier"}
)


def _parse_cell(name: str, cell: str) -> Json:
    """Return the value of a cell: a number or a JSON value where the column is no text."""
    if name in _TEXTS or cell[:1] not in "-0123456789[{tfn":
        return cell
    try:
        return json.loads(cell)
    except ValueError:
        return cell
