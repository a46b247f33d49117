"""Equal calls of one process that run at the same time: one pays, and the others take its outcome.

A cache store does the same for all processes, as long as its disk has room. A flight needs no disk.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from pathlib import Path

from imgkit.fork import run_in_forked_children
from imgkit.plugins.protocols import CacheStore, Entry, Failure


class Flight:
    """The calls of this process for one key of one store. Get it by `join_flight`.

    Attributes:
        outcome: entry or failure of the call that paid, None until it ends.
    """

    def __init__(self, name: Hashable) -> None:
        self.outcome: Entry | Failure | None = None
        self._name = name
        self._is_led = False
        self._calls = 0

    @property
    def entry(self) -> Entry | None:
        """The entry of the call that paid, None without one."""
        return self.outcome if isinstance(self.outcome, Entry) else None

    def lead(self) -> bool:
        """Make the caller the leader, the only call that pays; return False if there is another."""
        with _LOCK:
            if self._is_led or self.outcome is not None:
                return False
            self._is_led = True
            return True

    def end(self, outcome: Entry | Failure | None) -> None:
        """Tell the others how the leader ended; None lets the next of them lead."""
        with _LOCK:
            self.outcome = outcome
            self._is_led = False

    def leave(self) -> None:
        """Leave the flight, which ends with its last call."""
        with _LOCK:
            self._calls -= 1
            if not self._calls and _FLIGHTS.get(self._name) is self:
                del _FLIGHTS[self._name]

    def _join(self) -> None:
        self._calls += 1


def join_flight(store: CacheStore, key: str) -> Flight:
    """Return the flight of a key, for a call that leaves it by `Flight.leave`.

    A call that begins after the outcome gets a new flight: only waiting calls share a failure.
    """
    folder = getattr(store, "folder", None)
    place: Hashable = str(folder.absolute()) if isinstance(folder, Path) else id(store)
    with _LOCK:
        flight = _FLIGHTS.get((place, key))
        if flight is None or flight.outcome is not None:
            flight = _FLIGHTS[place, key] = Flight((place, key))
        flight._join()
        return flight


def _reset() -> None:
    """Forget the flights of the parent: their leaders stay there."""
    global _LOCK
    _LOCK = threading.Lock()
    _FLIGHTS.clear()


_LOCK = threading.Lock()
_FLIGHTS: dict[Hashable, Flight] = {}
run_in_forked_children(_reset)
