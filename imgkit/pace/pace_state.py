"""The state of a pace, which all runs against an account share. It decides nothing: `imgkit.pace.pace` does.

It holds only past events and their times. A time in the future is void, and no event counts for long. So
neither a damaged file, nor a clock that jumps, nor a dead process holds a run up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from contextlib import suppress

VERSION = 1

IDLE_S = 60.0
"""Seconds without any request after which runs begin gently again."""

_NUMBERS = ("at", "room", "threshold", "refusals", "refused_at", "pause_s")


class RunShare:
    """The part of a run in the state.

    Attributes:
        requests, images: those in flight.
        since: time since which it waits for its turn, 0 if it does not.
        due: time at which it looks again.
        limits: its own limits, in the order of `imgkit.pace.pace.PaceLimits`; 0 for none.
    """

    def __init__(self, limits: Iterable[float] = (0, 0, 0, 0)) -> None:
        self.requests = self.images = self.since = self.due = 0.0
        self.limits = [float(limit) for limit in limits]  # NumPy's numbers are no JSON

    def to_list(self) -> list[float]:
        """Return the numbers in their order."""
        return [self.requests, self.images, self.since, self.due, *self.limits]


class PaceState:
    """The state: each number is about all runs that share it. Times are monotonic seconds.

    Attributes:
        at: time of the latest change.
        room: requests that may be in flight, 0 before the first start.
        threshold: room below which each success adds a request, and above which each round adds one; 0 for
            none.
        refusals: refusals without a success between them; those of one wave count once.
        refused_at, pause_s: the latest refusal, and the pause that follows it.
        started: time and size of the latest start, by unit ("requests", "images").
        told: time of the reply, units left, and seconds until their reset, as the server tells them by unit.
        runs: the runs by name.
    """

    def __init__(self) -> None:
        self.at = self.room = self.threshold = self.refusals = self.refused_at = self.pause_s = 0.0
        self.started: dict[str, list[float]] = {}
        self.told: dict[str, list[float]] = {}
        self.runs: dict[str, RunShare] = {}

    def to_json(self, boot: str) -> bytes:
        """Return the state as a line of JSON.

        Args:
            boot: name of this start of the machine, whose clock the times are of.
        """
        values = {
            **{name: getattr(self, name) for name in _NUMBERS},
            "started": self.started,
            "told": self.told,
            "runs": {name: share.to_list() for name, share in self.runs.items()},
            "boot": boot,
            "version": VERSION,
        }
        return _encode(values).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, boot: str, now: float) -> PaceState | None:
        """Return the state of the first line of a text; None for another boot, a future time or garbage."""
        with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            values = json.loads(data.partition(b"\n")[0])
            if values["version"] != VERSION or values["boot"] != boot:
                return None
            state = cls()
            for name in _NUMBERS:
                setattr(state, name, _to_number(values[name]))
            state.started = {str(unit): _to_list(each, 2) for unit, each in values["started"].items()}
            state.told = {str(unit): _to_list(each, 3) for unit, each in values["told"].items()}
            for name, numbers in values["runs"].items():
                share = state.runs[str(name)] = RunShare()
                share.requests, share.images, share.since, share.due, *share.limits = _to_list(numbers, 8)
            times = (state.at, state.refused_at, *(each[0] for each in state.started.values()))
            return state if max(times) <= now and max(_list_told(state), default=0.0) <= now else None
        return None

    def tidy(self, now: float) -> None:
        """Forget what counts no more."""
        if now - self.at > IDLE_S and not any(share.requests for share in self.runs.values()):
            self.room = self.threshold = self.refusals = 0.0
        for unit in [unit for unit, (at, _, reset_s) in self.told.items() if now >= at + reset_s]:
            del self.told[unit]
        self.at = now


_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def _list_told(state: PaceState) -> list[float]:
    return [each[0] for each in state.told.values()]


def _to_number(value: float) -> float:
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError("a number of the state is no number")
    return number


def _to_list(values: Iterable[float], length: int) -> list[float]:
    numbers = [_to_number(value) for value in values]
    if len(numbers) != length:
        raise ValueError("a list of the state has another length")
    return numbers
