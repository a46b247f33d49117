"""How one call uses the cache, and what it gets from there or from the API."""

from __future__ import annotations

from typing import Literal, NamedTuple

from imgkit.errors import InvalidRequestError
from imgkit.providers.base import DecodedImages
from imgkit.wire.messages import Head

_MODES = ("use", "refresh", "only", "off")


class CacheUse(NamedTuple):
    """How one call uses the cache.

    Attributes:
        mode: "use"; "refresh": nothing that was there before the call; "only": send nothing; "off".
        replica: number of a further picture for an equal request, 0 for the first.
        part: number of a request among the equal ones of one call, 0 for the first.
    """

    mode: Literal["use", "refresh", "only", "off"] = "use"
    replica: int = 0
    part: int = 0

    @property
    def salt(self) -> str:
        """What tells equal requests apart."""
        return f"{self.replica}.{self.part}" if self.part else str(self.replica)

    @classmethod
    def of(cls, cache: str | None, replica: int) -> CacheUse:
        """Read the arguments of a call. Raises `InvalidRequestError`."""
        wrong = {}
        if cache is not None and cache not in _MODES:
            wrong["cache"] = f"is {str(cache)[:40]!r}: give one of {', '.join(map(repr, _MODES))}"
        if type(replica) is not int or replica < 0:
            wrong["replica"] = "must be a whole number from 0 on"
        if wrong:
            raise InvalidRequestError(wrong)
        return cls(cache or "use", replica)  # type: ignore[arg-type]  # checked above


class Fetched(NamedTuple):
    """What a call has got.

    Attributes:
        head, answer: of the reply.
        cached: it came from the cache, or from another call.
    """

    head: Head
    answer: DecodedImages
    cached: bool = False
