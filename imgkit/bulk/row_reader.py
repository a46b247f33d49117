"""Reading the rows of a run: each is checked, and the problems of all are told together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import NamedTuple

from imgkit.bulk.manifest import NewRow
from imgkit.bulk.rows import TableRow, to_row
from imgkit.bulk.shared_inputs import SharedInputs
from imgkit.errors import ConfigurationError, InvalidRequestError
from imgkit.wire.json_values import JsonMapping, is_data_url

MAX_PROBLEMS = 20
"""Problems that an error lists. It counts the others."""

MAX_REMEMBERED_INPUTS = 10_000
"""Input images that are not looked at again while a list is read."""

CHUNK_S = 0.1
"""Seconds after which the rows that a slow iterable has yielded so far are carried out."""


def check_list(requests: object) -> None:
    """Refuse requests that are no iterable, or a single one.

    Raises:
        InvalidRequestError: they are not.
    """
    if isinstance(requests, str | bytes | Mapping) or not isinstance(requests, Iterable):
        problem = (
            f"A {type(requests).__name__} is not a list of requests. Put it into a list; pass a file as a "
            "pathlib.Path."
        )
        raise InvalidRequestError({"requests": problem})


class RowReader:
    """The rows of a run, as the manifest takes them.

    Args:
        values: the requests: prompts, request objects, `BulkRequest` values, mappings, or rows of a file.
            One without an id gets its number.
        defaults: values of columns that a mapping or a prompt leaves out.
        inputs: the input images that rows share.
        noun: names the places of rows, "row" or "line".
        skip: receives the problem of an invalid row, which is left out; None raises it.
        start: number of the first value.
        check_provider: raises ConfigurationError for the name of a provider that cannot be used.
        check_model: raises InvalidRequestError for a request that its model refuses.
        is_whole: these are all requests of the run, so one of them must be valid.
    """

    def __init__(
        self,
        values: Iterable[object],
        defaults: JsonMapping,
        inputs: SharedInputs,
        *,
        noun: str = "row",
        skip: Callable[[str], object] | None = None,
        start: int = 1,
        check_provider: Callable[[str], object] = str,
        check_model: Callable[[JsonMapping], object] = bool,
        is_whole: bool = False,
    ) -> None:
        self._is_whole = is_whole
        self._values = values
        self._defaults = defaults
        self._noun = noun
        self._skip = skip
        self._start = start
        self._inputs = _InputChecks(inputs)
        self._check = check_provider
        self._check_model = check_model
        self._providers: dict[str | None, str] = {None: ""}
        self._problems: list[str] = []
        self._hints: dict[str, str] = {}
        self._count = self._valid = 0

    def __iter__(self) -> Iterator[NewRow]:
        """Yield the valid rows.

        Raises:
            InvalidRequestError: rows are invalid; the message lists them.
        """
        for number, value in enumerate(self._values, self._start):
            place, content, problem = number, value, ""
            if isinstance(value, TableRow):
                place, content, problem = value.line, value.columns, value.problem
            try:
                if problem:
                    raise InvalidRequestError({self._noun: problem})
                row = to_row(content, number, self._defaults, place)
                self._inputs.check(row.request)
                self._check_provider(row.request.get("provider"))
            except InvalidRequestError as error:
                self._refuse(place, _find_id(content), error)
                continue
            self._valid += 1
            yield row
        if self._is_whole and self._count and not self._valid and self._skip is not None:
            raise InvalidRequestError({f"{self._noun}s": f"All {self._count} are invalid. Correct one."})
        if self._problems:
            more = self._count - len(self._problems)
            listed = [*self._problems, *([f"{more} more rows are invalid."] if more else [])]
            raise InvalidRequestError({f"{self._noun}s": " ".join(listed)}, self._hints)

    def accept(self, row: NewRow) -> bool:
        """Return whether the model of a row takes it. Only rows that will be sent need this check."""
        try:
            self._check_model(row.request)
        except InvalidRequestError as error:
            self._valid -= 1
            self._refuse(row.place, row.id, error)
            return False
        return True

    def refuse_repeated(self, row: NewRow, place: int) -> None:
        """Refuse a row whose id an earlier row has.

        Args:
            row: the row.
            place: the place of the earlier row.
        """
        problem = f"Two rows have the id {row.id[:80]!r}. The other is {self._noun} {place}."
        self._refuse(row.place, row.id, InvalidRequestError({"id": problem}))

    def _check_provider(self, name: str | None) -> None:
        if name not in self._providers:
            self._providers[name] = ""
            try:
                self._check(name or "")
            except ConfigurationError as error:
                self._providers[name] = error.problem
        if self._providers[name]:
            raise InvalidRequestError({"provider": self._providers[name]})

    def _refuse(self, place: int, row_id: str, error: InvalidRequestError) -> None:
        named = f" ({row_id[:80]!r})" if row_id else ""
        text = f"{self._noun} {place}{named}: {error.problem}"
        self._hints.update(error.hints)
        self._count += 1
        if self._skip is not None:
            self._skip(text)
            return
        if self._count <= MAX_PROBLEMS:
            self._problems.append(text)


def _find_id(value: object) -> str:
    """Return the id that an invalid row gives, "" for none."""
    if isinstance(value, dict):
        found = value.get("id")
        return found if isinstance(found, str) else "" if found is None else str(found)
    return str(getattr(value, "id", ""))


class _InputChecks:
    """Checks that input images are there. Each is looked at once, as far as memory goes."""

    def __init__(self, inputs: SharedInputs) -> None:
        self._known: dict[str, str] = {}
        self._inputs = inputs

    def check(self, request: JsonMapping) -> None:
        """Check the input images of a request, by their headers and end markers. May block.

        Raises:
            InvalidRequestError: an image is missing, or is none.
        """
        for field in ("image", "mask", "markup"):
            value = request.get(field)
            paths = value if isinstance(value, list) else [] if value is None else [value]
            for index, path in enumerate(paths):
                problem = self._known.get(path)
                if problem is None:
                    problem = _find_problem(path, self._inputs)
                    self._remember(path, problem)
                if problem:
                    raise InvalidRequestError({f"{field}.{index}" if len(paths) > 1 else field: problem})

    def _remember(self, path: str, problem: str) -> None:
        if is_data_url(path):
            return
        if len(self._known) >= MAX_REMEMBERED_INPUTS:
            self._known.clear()
        self._known[path] = problem


def _find_problem(path: str, inputs: SharedInputs) -> str:
    try:
        with ExitStack() as cleanup:
            inputs.open_checked(path, "image", cleanup)
    except InvalidRequestError as error:
        return error.fields["image"]
    return ""


class Chunk(NamedTuple):
    """The next values of an iterable.

    Attributes:
        values: the values.
        error: the exception that the iterable raised behind them, None for none.
    """

    values: list[object]
    error: Exception | None = None


def read_chunk(values: Iterator[object], limit: int) -> Chunk:
    """Return the next values of an iterable: up to `limit`, or those that came quickly. May block."""
    found: list[object] = []
    deadline = time.monotonic() + CHUNK_S
    try:
        for value in values:
            found.append(value)
            if len(found) >= limit or time.monotonic() >= deadline:
                break
    except Exception as error:  # the iterable is the caller's, and the run tells it once all have ended
        return Chunk(found, error)
    return Chunk(found)
