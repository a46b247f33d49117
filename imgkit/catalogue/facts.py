"""Facts about models, read from data files; each fact has its date and source.

The providers' files are TOML; the head of `imgkit/providers/openai.toml` describes the format. A user's file
has the same format and overrides them. A value without a fact passes unchecked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from imgkit.images.shapes import Grid

STALE_DAYS = 180
"""Age in days from which a fact only warns."""

Facts: TypeAlias = Mapping[str, Any]
"""The content of a data file."""

_NONE: Mapping[str, Any] = MappingProxyType({})


class FactSource(NamedTuple):
    """The date and source of a fact.

    Attributes:
        as_of: the date on which the source was read, None if a user's file has none.
        source: title or URL of the source.

    Example:
        >>> str(FactSource(date(2026, 11, 23), "API reference"))
        'API reference, read 2026-11-23'
    """

    as_of: date | None = None
    source: str = ""

    def is_stale(self, today: date) -> bool:
        """Return whether the fact is too old to reject a request."""
        return self.as_of is not None and (today - self.as_of).days > STALE_DAYS

    def __str__(self) -> str:
        parts = [self.source] if self.source else []
        parts += [f"read {self.as_of}"] if self.as_of else []
        return ", ".join(parts) or "by your own facts"


class Rule(NamedTuple):
    """A rule for one field of a request.

    Attributes:
        name: the rule's name in the data file.
        field: the field of the request.
        when: values of other fields; the rule applies only with these.
        operations: the operations that it applies to; none for all.
        allowed: the accepted values.
        least, most: bounds of a number.
        longest: maximum length of a text, in characters.
        refused: True if the model does not accept the field.
        grid: the accepted sizes, besides "auto".
        why: the reason in words.
        sure: True if the API is known to reject violations.
        origin: date and source.
    """

    name: str
    field: str
    when: Mapping[str, tuple[Any, ...]] = _NONE
    operations: tuple[str, ...] = ()
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
    """Requirements for input images.

    Attributes:
        formats: the accepted formats.
        most_images: maximum number of images per request.
        most_bytes: maximum size of an image.
        mask_most_bytes: maximum size of the mask.
        data_url_longest: maximum length of an image as a ``data:`` URL, in characters.
        square: True if both sides must be equal.
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
    """Prices per million tokens, or per image, in `currency`; None for a missing price.

    Attributes:
        currency: ISO 4217 code.
        text_in, image_in, text_out, image_out: prices of a million tokens by kind.
        per_image: price of an image.
        per_megapixel: price of a million pixels of an image.
        per_image_by: prices of an image by the value of a field, such as "resolution" or "quality".
        origin: date and source.
    """

    currency: str
    text_in: Decimal | None = None
    image_in: Decimal | None = None
    text_out: Decimal | None = None
    image_out: Decimal | None = None
    per_image: Decimal | None = None
    per_megapixel: Decimal | None = None
    per_image_by: Mapping[str, Mapping[str, Decimal]] = _NONE
    origin: FactSource = FactSource()

    @property
    def is_by_image(self) -> bool:
        """Whether images have prices of their own, whatever tokens they take."""
        return self.per_image is not None or self.per_megapixel is not None or bool(self.per_image_by)


class Tokens(NamedTuple):
    """Output tokens of one image.

    Attributes:
        by_quality: token counts by quality, then by size.
        note: doubts about the counts.
        not_of: values of a request's fields for which the counts do not hold.
        origin: date and source.
    """

    by_quality: Mapping[str, Mapping[str, int]]
    note: str = ""
    not_of: Mapping[str, Collection[str]] = _NONE
    origin: FactSource = FactSource()


class Model(NamedTuple):
    """The data about a model.

    Attributes:
        id: its name.
        snapshots: names of its dated versions.
        hosts: classes of hosts for which the data holds.
        operations: the operations that it has.
        rules: the rules for its requests.
        shutdown: the date of its shutdown, None if none is announced.
        inputs, prices, tokens: None if unknown.
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

    def list_rules(self, operation: str) -> list[Rule]:
        """Return the rules that apply to an operation.

        Example:
            >>> rule = Rule("no-size", "size", operations=("create_image_edit",), refused=True)
            >>> len(Model("a-1", rules=(rule,)).list_rules("create_image"))
            0
        """
        return [rule for rule in self.rules if not rule.operations or operation in rule.operations]


class PaceFacts(NamedTuple):
    """Limits of a provider on the requests of an account; None for an unknown limit.

    Attributes:
        requests_in_flight: most requests, or unfinished jobs, at once.
        images_in_flight: most images that are made at once.
        requests_per_minute, images_per_minute: most starts in a minute.
        sure: True if a document of the provider states them.
        origin: date and source.
    """

    requests_in_flight: int | None = None
    images_in_flight: int | None = None
    requests_per_minute: float | None = None
    images_per_minute: float | None = None
    sure: bool = False
    origin: FactSource = FactSource()


class Retired(NamedTuple):
    """An operation that a provider has switched off, or never had.

    Attributes:
        operation: its name.
        hosts: classes of hosts without it.
        date: the date of the end, None if the operation never existed.
        instead: the alternative.
        origin: date and source.
    """

    operation: str
    hosts: tuple[str, ...]
    date: date | None = None
    instead: str = ""
    origin: FactSource = FactSource()
