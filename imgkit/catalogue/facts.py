"""Facts about models, read from data files; each with its date and source.

The files of the providers are TOML (`imgkit/providers/openai.toml` tells the form); a user's own file has the
same form and wins. What no file knows is not judged.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

STALE_DAYS = 180
"""Facts older than this only warn."""

_NONE: Mapping[str, Any] = MappingProxyType({})


class FactSource(NamedTuple):
    """Where a fact is from.

    Attributes:
        as_of: the day it was read, None where a user's file does not say.
        source: what it was read in.
    """

    as_of: date | None = None
    source: str = ""

    def stale(self, today: date) -> bool:
        """Whether it is too old to refuse anything."""
        return self.as_of is not None and (today - self.as_of).days > STALE_DAYS

    def __str__(self) -> str:
        told = [self.source] if self.source else []
        told += [f"read {self.as_of}"] if self.as_of else []
        return ", ".join(told) or "by your own facts"


class Grid(NamedTuple):
    """Which sizes in pixels are possible.

    Attributes:
        multiple_of_px: of both sides.
        most_ratio: of the longer side to the shorter one.
        longest_edge_px: of either side.
        least_px, most_px: pixels in all.
    """

    multiple_of_px: int = 1
    most_ratio: float | None = None
    longest_edge_px: int | None = None
    least_px: int | None = None
    most_px: int | None = None


class Rule(NamedTuple):
    """What one field of a request may be.

    Attributes:
        name: in the data file.
        field: of the request.
        when: values of other fields for which it holds.
        allowed: values that are taken.
        least, most: bounds of a number.
        longest: characters of a text.
        refused: it must not be given at all.
        grid: sizes that are taken, beside "auto".
        why: the reason in words.
        sure: the API is known to refuse anything else.
        origin: date and source.
    """

    name: str
    field: str
    when: Mapping[str, tuple[Any, ...]] = _NONE
    allowed: tuple[Any, ...] = ()
    least: float | None = None
    most: float | None = None
    longest: int | None = None
    refused: bool = False
    grid: Grid | None = None
    why: str = ""
    sure: bool = False
    origin: FactSource = FactSource()


class InputFacts(NamedTuple):
    """What input pictures must be.

    Attributes:
        formats: that are taken.
        most_images: of one request.
        most_bytes: of one picture.
        mask_most_bytes: of the mask.
        data_url_longest: characters of a picture that goes as a ``data:`` URL.
        square: both sides must be equal.
        sure, origin: as in `Rule`.
    """

    formats: frozenset[str] = frozenset()
    most_images: int | None = None
    most_bytes: int | None = None
    mask_most_bytes: int | None = None
    data_url_longest: int | None = None
    square: bool = False
    sure: bool = False
    origin: FactSource = FactSource()


class Prices(NamedTuple):
    """Prices per million tokens, in `currency`; None where there is none."""

    currency: str
    text_in: Decimal | None = None
    image_in: Decimal | None = None
    text_out: Decimal | None = None
    image_out: Decimal | None = None
    origin: FactSource = FactSource()


class Tokens(NamedTuple):
    """Output tokens of one picture.

    Attributes:
        by_quality: for each quality the tokens by size.
        note: what is doubtful about them.
        not_of: values of a request's fields for which these counts say nothing.
        origin: date and source.
    """

    by_quality: Mapping[str, Mapping[str, int]]
    note: str = ""
    not_of: Mapping[str, Collection[str]] = _NONE
    origin: FactSource = FactSource()


class Model(NamedTuple):
    """What is known of a model.

    Attributes:
        id: its name.
        snapshots: further names, of dated versions.
        hosts: classes of hosts that these facts hold for.
        operations: that it has.
        rules: that its requests are judged by.
        shutdown: the day from which it is gone, None where none is announced.
        inputs, prices, tokens: None where nothing is known.
        origin: date and source.
    """

    id: str
    snapshots: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    shutdown: date | None = None
    inputs: InputFacts | None = None
    prices: Prices | None = None
    tokens: Tokens | None = None
    origin: FactSource = FactSource()


class Retired(NamedTuple):
    """An operation that a provider has switched off, or never had.

    Attributes:
        operation: its name.
        hosts: classes of hosts where it is not there.
        date: since when, None where it never was.
        instead: what to do.
        origin: date and source.
    """

    operation: str
    hosts: tuple[str, ...]
    date: date | None = None
    instead: str = ""
    origin: FactSource = FactSource()
