"""The checks of rows before the first request: their providers, the keys of these, and their models.

A million rows are checked in little time: a row passes like an earlier one that differs in sizes only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from operator import le

from imgkit.bulk.bulk_values import Work
from imgkit.bulk.manifest import BulkRow
from imgkit.bulk.rows import to_request
from imgkit.catalogue.rules import check_inputs
from imgkit.core.core import Core
from imgkit.core.interception import is_intercepting
from imgkit.core.key_checks import has_key, sign_request
from imgkit.core.validation import validate_for_model
from imgkit.errors import InvalidRequestError, MissingKeyError, MissingModelError
from imgkit.images.inputs import OpenedInputs
from imgkit.wire.json_values import JsonMapping

MOST_KINDS = 10_000
"""Kinds of rows that are remembered to have passed."""

LONGEST_WORD, LARGEST_CHOICE = 40, 1000
"""Longest text, and largest number, that may be one of a few choices. Facts limit others by their size."""

_TEXTS, _IMAGES = ("prompt",), ("image", "mask", "markup")


class RowChecks:
    """Checks the rows of a run before anything is sent, so that none fails after others were paid.

    Args:
        core: parts of the service.
        find_core: returns the core that carries out a row; raises ConfigurationError if there is none.
    """

    def __init__(self, core: Core, find_core: Callable[[Work], Core]) -> None:
        self._core = core
        self._find_core = find_core
        self._unsigned: dict[str | None, None] = {None: None}
        self._passed: dict[tuple[object, ...], tuple[list[float], list[float]]] = {}

    def check_provider(self, name: str) -> None:
        """Build the provider that a row names.

        Raises:
            ConfigurationError: the provider is unknown, or lacks a setting.
        """
        self._find({"provider": name})
        self._unsigned.setdefault(name)

    def check_model(self, request: JsonMapping) -> None:
        """Check the values of a row against the facts about its model, as its call would.

        Rows are not checked if plugins change requests before they are sent.

        Raises:
            InvalidRequestError: the model, or the provider, would refuse the row.
            ConfigurationError: the provider refuses all rows.
        """
        kind, sizes = _describe_row(request)
        passed = self._passed.get(kind)
        if passed is not None and all(map(le, passed[0], sizes)) and all(map(le, sizes, passed[1])):
            return
        core = self._find(request)
        if core.table.prepares:
            return
        try:
            _, model, _ = validate_for_model(core, to_request(request))
        except MissingModelError:
            problem = f"The row names no model, and {core.target.base_url} has no default. Name one."
            raise InvalidRequestError({"model": problem}) from None
        images = request.get("image", ())
        if model is not None and images:
            count = len(images) if isinstance(images, list) else 1
            check_inputs(OpenedInputs(), model, core.on_unsupported, date.today(), count)
        if len(self._passed) >= MOST_KINDS:
            self._passed.clear()
        least, most = passed or (sizes, sizes)
        self._passed[kind] = [*map(min, least, sizes)], [*map(max, most, sizes)]

    def require_keys(self, find_row: Callable[[str | None], BulkRow | None], *, is_remote: bool) -> None:
        """Check the keys of all providers that rows have named since the last time. May block.

        Args:
            find_row: returns a row that waits for a provider, None for none; None stands for rows that name
                no provider.
            is_remote: workers carry out the rows of the service's own provider, with keys of their own.

        Raises:
            MissingKeyError: a provider has no key, and rows wait for it.
            ConfigurationError: the key of a provider cannot be used.
        """
        for name in list(self._unsigned):
            core = self._find({} if name is None else {"provider": name})
            is_free = core.target.host_class == "offline" or (is_remote and core is self._core)
            if is_free or is_intercepting():
                continue
            if not has_key(core):
                row = find_row(name)
                if row is None:
                    continue
                self._sign(core, row)
            del self._unsigned[name]

    def _sign(self, core: Core, row: BulkRow) -> None:
        try:
            sign_request(core, to_request(row.request))
        except MissingKeyError as error:
            if core is self._core:
                raise
            raise MissingKeyError(
                f"Rows name the provider {row.request['provider']!r}. {error.problem} Nothing was sent.",
                hint="Set the variable: keys of other providers than that of the service come from there.",
                field="provider",
            ) from None

    def _find(self, request: JsonMapping) -> Core:
        return self._find_core(Work(BulkRow(0, "", "waiting", request, {})))


def _describe_row(request: JsonMapping) -> tuple[tuple[object, ...], list[float]]:
    """Return the kind of a row, and its sizes: lengths of texts, and large numbers.

    Rows of a kind differ in their sizes and in the content of texts and images only.
    """
    kind: list[object] = []
    sizes: list[float] = []
    for name, value in request.items():
        kind.append(name)
        of_value = value.__class__
        if of_value is str:
            if name not in _TEXTS and name not in _IMAGES and len(value) <= LONGEST_WORD:
                kind.append(value)
            elif name not in _IMAGES:
                sizes.append(len(value))
        elif of_value is float or (of_value is int and value > LARGEST_CHOICE):
            sizes.append(value)
        elif of_value is dict:
            inner, inner_sizes = _describe_row(value)
            kind.append(inner)
            sizes += inner_sizes
        elif of_value is list:
            kind.append(len(value) if name in _IMAGES else repr(value))
        else:
            kind.append(value)
    return tuple(kind), sizes


def find_provider(rows: Sequence[BulkRow], provider: str | None) -> BulkRow | None:
    """Return the first row that names a provider, None for none.

    Args:
        rows: the rows.
        provider: the name; None for rows that name no provider.
    """
    return next((row for row in rows if row.request.get("provider") == provider), None)
