"""The rows of a manifest: the requests of a run, and their states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

from imgkit.wire.json_values import JsonMapping

State: TypeAlias = Literal["waiting", "sending", "accepted", "done", "blocked", "failed", "unknown"]
STATES: tuple[State, ...] = ("waiting", "sending", "accepted", "done", "blocked", "failed", "unknown")
"""In the file, a state is its place in this tuple."""

_MOST_PROBLEMS = 20
"""Changed rows that an error lists."""


class NewRow(NamedTuple):
    """A request that a run shall carry out.

    Attributes:
        id: its name in the run.
        digest: digest of what it asks for.
        request: the request as JSON values.
        place: its line or its number in the list that has it.
    """

    id: str
    digest: bytes
    request: JsonMapping
    place: int = 0


class BulkRow(NamedTuple):
    """A request of a run, and what became of it.

    Attributes:
        number: its place in the run, from 1.
        id: its name in the run.
        state: what became of it.
        request: the request as JSON values.
        info: facts about its latest attempt: the call, the files, the cost, the error, the job.
        leader: number of the equal request whose outcome it copies; None if it is sent itself.
    """

    number: int
    id: str
    state: State
    request: JsonMapping
    info: JsonMapping
    leader: int | None = None


class Added(NamedTuple):
    """The result of adding requests to a manifest.

    Attributes:
        new: number of requests that it did not have.
        known: number of those that it had, unchanged.
        amended: number of those that changed, by the state that they had before.
        numbers: the numbers of all.
    """

    new: int = 0
    known: int = 0
    amended: Mapping[State, int] = MappingProxyType({})
    numbers: Sequence[int] = ()


def describe_changed(ids: list[str]) -> str:
    """Return the problem of rows that changed under their ids."""
    shown = ", ".join(repr(each[:80]) for each in ids[:_MOST_PROBLEMS])
    more = f" and {len(ids) - _MOST_PROBLEMS} more" if len(ids) > _MOST_PROBLEMS else ""
    if len(ids) == 1:
        return (
            f"A request of this run has changed under its id: {shown}. Pass amend=True to send it again, "
            "or give it a new id."
        )
    return (
        f"{len(ids):,} requests of this run have changed under their ids: {shown}{more}. Pass amend=True to "
        "send them again, or give them new ids."
    )
