"""The formats of row files: tables, JSON lines and Parquet, read row by row in flat memory."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from types import ModuleType
from typing import IO

from imgkit.bulk.rows import KINDS, OPTION, OWN_COLUMNS, TableRow
from imgkit.errors import ConfigurationError, InvalidRequestError
from imgkit.models import field_names
from imgkit.redact import format_suggestion
from imgkit.wire.json_values import Json, JsonObject

MAX_LINE_BYTES = 16 * 1024 * 1024
"""Longest line. A longer one is no row, and would fill the memory."""


class _Lines:
    """The lines of a text file, in flat memory.

    Attributes:
        number: number of the latest line.
        problem: what is wrong with a line since `take_problem`, "" for nothing.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.number = 0
        self.problem = ""

    def __iter__(self) -> Iterator[str]:
        while line := self._stream.readline(MAX_LINE_BYTES + 1):
            self.number += 1
            if len(line) > MAX_LINE_BYTES:
                raise InvalidRequestError(
                    {
                        "file": f"Line {self.number} is longer than {MAX_LINE_BYTES >> 20} MiB. Give images "
                        "as paths, and each request a line of its own."
                    }
                )
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                place = f"Byte {error.start + 1} of line {self.number}"
                self.problem = self.problem or f"{place} is not UTF-8. Save the file as UTF-8."
                text = line.decode("utf-8", "replace")
            if "\0" in text:
                self.problem = self.problem or f"Line {self.number} has a NUL byte. Remove it."
            yield text

    def take_problem(self) -> str:
        """Return the problem of the lines of a row, and forget it."""
        problem, self.problem = self.problem, ""
        return problem


def read_table(stream: IO[bytes], delimiter: str) -> Iterator[TableRow]:
    """Yield the rows of a table in UTF-8 whose first line names the columns.

    Raises:
        InvalidRequestError: the header is wrong, or the rows cannot be told apart.
    """
    lines = _Lines(stream)
    # A data: URL is longer than the module's limit of a cell, which is the same for all of its users.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    reader = csv.reader(iter(lines), delimiter=delimiter, strict=True)
    names: list[str] = []
    while True:
        first = lines.number + 1
        cells, problem = [], ""
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            problem = _explain_csv(str(error), first)
        problem = lines.take_problem() or problem
        if not names:
            if problem:
                raise InvalidRequestError({"file": problem})
            names = [cell.strip() for cell in cells]
            if names:
                check_header(names)
            continue
        if len(cells) > len(names):
            problem = problem or f"It has {len(cells)} cells, and the header {len(names)}. Quote commas."
        row: JsonObject = {
            name: parse_cell(name, cell) for name, cell in zip(names, cells, strict=False) if cell
        }
        if row or problem:
            yield TableRow(first, row, problem)


def _explain_csv(problem: str, line: int) -> str:
    """Return the problem of a row as users see it.

    Raises:
        InvalidRequestError: the rows behind it cannot be told apart.
    """
    if "unexpected end of data" in problem or "field larger" in problem:
        text = f"In line {line}, a quote opens and never closes. Close it, or double a quote that is meant."
        raise InvalidRequestError({"file": text})
    if "new-line character" in problem:
        text = f"Line {line} has a carriage return within a cell. Save the file with line ends of Unix."
        raise InvalidRequestError({"file": text})
    return f"It is no row of a table ({problem}). Double a quote that is meant."


def check_header(names: Sequence[str]) -> None:
    """Check the names of the columns of a table.

    Raises:
        InvalidRequestError: a name is unknown, missing or there twice, or none is a prompt or an image.
    """
    known = {name for kind in KINDS.values() for name in field_names(kind)} | set(OWN_COLUMNS)
    problems = []
    for place, name in enumerate(names, 1):
        if not name:
            problems.append(f"Column {place} has no name. Name it, or remove it.")
        elif name not in known and not (name.startswith(OPTION) and name != OPTION):
            problems.append(f"There is no column {name[:80]!r}{format_suggestion(name, sorted(known))}.")
    twice = [repr(name[:80]) for name, number in Counter(names).items() if name and number > 1]
    if twice:
        problems.append(f"These columns are there twice: {', '.join(twice[:20])}.")
    if "prompt" not in names and "image" not in names:
        shown = ", ".join(names)[:200]
        problems.insert(0, f"No column is named 'prompt' or 'image'. The first line names: {shown}.")
    if problems:
        raise InvalidRequestError({"file": " ".join(problems[:20])})


def _list_columns(*types: str) -> frozenset[str]:
    kinds = (each for kind in KINDS.values() for each in fields(kind))
    return frozenset(each.name for each in kinds if str(each.type) in types)


_TEXTS = frozenset(OWN_COLUMNS) | _list_columns("str", "str | None")
_NUMBERS = _list_columns("int", "int | None") | {"id"}


def parse_cell(name: str, cell: str) -> Json:
    """Return the value of a cell of a text file: text, or JSON where the column is no text.

    >>> parse_cell("resolution", "512"), parse_cell("n", "2"), parse_cell("image", '["a.png", "b.png"]')
    ('512', 2, ['a.png', 'b.png'])
    """
    if name in _TEXTS or (name in ("image", "mask", "markup") and not cell.startswith('["')):
        return cell
    try:
        return _DECODER.decode(cell.strip())
    except (ValueError, RecursionError):
        return cell


# --- JSON lines ------------------------------------------------------------------------------


def _build_object(members: list[tuple[str, Json]]) -> JsonObject:
    """Return a JSON object. Raises ValueError for a name that is there twice."""
    found = dict(members)
    if len(found) < len(members):
        [(name, _)] = Counter(name for name, _ in members).most_common(1)
        raise ValueError(f"the name {name[:80]!r} is there twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_build_object, parse_constant=_refuse_constant)


def read_json_lines(stream: IO[bytes]) -> Iterator[TableRow]:
    """Yield the objects of a text in UTF-8 with a JSON object in each line."""
    lines = _Lines(stream)
    for line in lines:
        problem = lines.take_problem()
        text = line.strip()
        if not text and not problem:
            continue
        row: JsonObject = {}
        if not problem:
            try:
                value = _DECODER.decode(text)
            except (ValueError, RecursionError) as error:
                problem = f"It is no JSON: {error}. Write one object in each line."
            else:
                row, problem = (value, "") if isinstance(value, dict) else ({}, "It is no JSON object.")
        yield TableRow(lines.number, row, problem)


# --- Parquet ---------------------------------------------------------------------------------


def load_parquet() -> ModuleType:
    """Return the module pyarrow with its submodule parquet.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise ConfigurationError(
            "Parquet files need the package pyarrow.", hint="Run: pip install 'imgkit-service[parquet]'"
        ) from None
    module: ModuleType = pyarrow
    return module


def read_parquet(stream: IO[bytes]) -> Iterator[TableRow]:
    """Yield the rows of a Parquet file.

    Raises:
        InvalidRequestError: it is none, it is cut off, or a column is unknown.
        ConfigurationError: pyarrow is not installed.
    """
    pyarrow = load_parquet()
    number = 0
    try:
        file = pyarrow.parquet.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 20)
        check_header(file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=1000, use_threads=False):
            for cells in batch.to_pylist():
                number += 1
                yield TableRow(number, dict(_convert_cells(cells.items())))
    except (pyarrow.ArrowException, OSError) as error:
        where = f"Row {number + 1} cannot be read" if number else "It is no Parquet file, or it is cut off"
        text = str(error).partition("\n")[0][:200].rstrip(".")
        raise InvalidRequestError({"file": f"{where} ({text}). Write the file again."}) from None


def _convert_cells(cells: Iterable[tuple[str, Json]]) -> Iterator[tuple[str, Json]]:
    """Yield the cells that have values. Whole numbers of which pandas made floats become whole again."""
    for name, cell in cells:
        if isinstance(cell, float):
            if cell != cell:  # NaN, with which pandas marks a missing number
                continue
            yield name, int(cell) if name in _NUMBERS and cell.is_integer() else cell
        elif cell is not None:
            yield name, cell
