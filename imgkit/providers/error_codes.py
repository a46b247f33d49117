"""The meaning of codes in error replies: dated data from ``errors.toml``, read with the first error."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources
from typing import Any

from imgkit import errors

_QUOTED = re.compile(
    r"""(?<!\w)'[^']*+(?:'(?=\w)[^']*+)*+(?:'|\Z)|(?<!\w)"[^"]*+(?:"(?=\w)[^"]*+)*+(?:"|\Z)|`[^`]*+(?:`|\Z)"""
)
"""A quoted part of a sentence; an apostrophe within a word is no quote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorMeaning:
    """A kind of error replies, with its class of error. An empty condition matches every reply.

    Attributes:
        codes: matches replies with any of these codes.
        types: matches replies of any of these types.
        statuses: matches replies with any of these HTTP statuses.
        param: matches replies about this parameter.
        says: matches replies whose message contains this expression.
        error: the class of error.
        next: the remedy, "" for the remedy of the class.
        source: the origin of the fact.
        unconfirmed: True if no such reply has been seen.
    """

    error: type[errors.ApiError]
    source: str
    codes: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    statuses: frozenset[int] = frozenset()
    param: str = ""
    says: re.Pattern[str] | None = None
    next: str = ""
    unconfirmed: bool = False

    def is_match(
        self, status: int, codes: Iterable[str], param: str | None, message: str, type: str | None = None
    ) -> bool:
        """Return whether all conditions match a reply."""
        return (
            (not self.codes or not self.codes.isdisjoint(codes))
            and (not self.types or type in self.types)
            and (not self.statuses or status in self.statuses)
            and (not self.param or self.param == param)
            and (self.says is None or self.says.search(message) is not None)
        )


def find_meaning(
    status: int,
    codes: Iterable[str],
    param: str | None,
    message: str,
    type: str | None = None,
    outer_codes: Iterable[str] = (),
) -> ErrorMeaning | None:
    """Return the meaning of an error reply, None if the data has none.

    A code of the outer object decides. Inner errors and sentences may quote the request, so they only make
    its class more precise. Quoted parts of the message do not count.

    Args:
        status: HTTP status.
        codes: the reply's own code, and the codes of inner errors.
        param: the parameter that the reply names.
        message: the reply's message.
        type: the type of error that the reply names.
        outer_codes: the codes of the outer object.

    Example:
        >>> meaning = find_meaning(429, ("insufficient_quota",), None, "")
        >>> meaning.error.__name__
        'QuotaExceededError'
    """
    code_list, outer_list, sentence = tuple(codes), tuple(outer_codes), _QUOTED.sub(" ", message)
    meanings = load_meanings()
    found = (each for each in meanings if each.is_match(status, code_list, param, sentence, type))
    own = (
        each for each in meanings if each.codes and each.is_match(status, outer_list, param, sentence, type)
    )
    meaning, own_meaning = next(found, None), next(own, None)
    if own_meaning is None or (meaning is not None and issubclass(meaning.error, own_meaning.error)):
        return meaning
    return own_meaning


@cache
def load_meanings() -> tuple[ErrorMeaning, ...]:
    """Return all meanings, in the order in which `find_meaning` tries them."""
    return tuple(
        ErrorMeaning(
            error=getattr(errors, entry["error"]),
            source=entry["source"],
            codes=frozenset(entry.get("codes", ())),
            types=frozenset(entry.get("types", ())),
            statuses=frozenset(entry.get("statuses", ())),
            param=entry.get("param", ""),
            says=re.compile(entry["says"], re.IGNORECASE | re.DOTALL) if "says" in entry else None,
            next=entry.get("next", ""),
            unconfirmed=entry.get("unconfirmed", False),
        )
        for entry in _load_data()["meanings"]
    )


@cache
def known_codes() -> frozenset[str]:
    """Return all codes that have a meaning."""
    return frozenset(code for meaning in load_meanings() for code in meaning.codes)


def data_date() -> date:
    """Return the date of the data."""
    as_of: date = _load_data()["as_of"]
    return as_of


@cache
def _load_data() -> dict[str, Any]:
    return tomllib.loads(resources.files("imgkit.providers").joinpath("errors.toml").read_text("utf-8"))
