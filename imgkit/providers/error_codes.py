"""What codes of error replies mean: dated data, read from ``errors.toml`` with the first error."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources
from typing import Any

from imgkit import errors as tree


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorMeaning:
    """What some error replies mean. A condition that is empty fits any of them.

    Attributes:
        codes: it fits replies with one of these.
        statuses: it fits replies with one of these HTTP statuses.
        param: it fits replies about this parameter.
        says: it fits replies in whose message this expression is found.
        error: the class of error.
        next: what to do, "" for what the class has to say.
        source: where the fact comes from.
        unconfirmed: nobody has shown a reply with it.
    """

    error: type[tree.ApiError]
    source: str
    codes: frozenset[str] = frozenset()
    statuses: frozenset[int] = frozenset()
    param: str = ""
    says: re.Pattern[str] | None = None
    next: str = ""
    unconfirmed: bool = False

    def fits(self, status: int, codes: Iterable[str], param: str | None, message: str) -> bool:
        """Return whether a reply means this."""
        return (
            (not self.codes or not self.codes.isdisjoint(codes))
            and (not self.statuses or status in self.statuses)
            and (not self.param or self.param == param)
            and (self.says is None or self.says.search(message) is not None)
        )


def meaning_of(status: int, codes: Iterable[str], param: str | None, message: str) -> ErrorMeaning | None:
    """Return what a reply means, None where the data has nothing on it.

    Args:
        status: HTTP status.
        codes: the reply's own code, and those of errors within the error.
        param: the parameter that it names.
        message: what it says.
    """
    known = tuple(codes)
    return next((one for one in meanings() if one.fits(status, known, param, message)), None)


@cache
def meanings() -> tuple[ErrorMeaning, ...]:
    """Return the data, in the order in which it is asked."""
    return tuple(
        ErrorMeaning(
            error=getattr(tree, entry["error"]),
            source=entry["source"],
            codes=frozenset(entry.get("codes", ())),
            statuses=frozenset(entry.get("statuses", ())),
            param=entry.get("param", ""),
            says=re.compile(entry["says"], re.IGNORECASE | re.DOTALL) if "says" in entry else None,
            next=entry.get("next", ""),
            unconfirmed=entry.get("unconfirmed", False),
        )
        for entry in _data()["meanings"]
    )


def as_of() -> date:
    """Return the date of the data."""
    found: date = _data()["as_of"]
    return found


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(resources.files("imgkit.providers").joinpath("errors.toml").read_text("utf-8"))
