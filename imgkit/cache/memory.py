"""Entries in memory, for one process."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from imgkit.plugins.protocols import Busy, Entry, Failure, Hit, Lease, LeaseResult

MAX_BYTES = 256 * 1024 * 1024
FAILURES_S = 3600.0
"""How long a failure is told to those who waited, in seconds."""


class MemoryStore:
    """A `CacheStore` that forgets everything with its process.

    Args:
        max_bytes: of all pictures together; those that were not used for the longest time go first.
        max_age_s: older entries are none.
        clock: Unix time in seconds.
    """

    _leases: dict[str, str]
    _failures: dict[str, tuple[float, Failure]]

    def __init__(
        self,
        *,
        max_bytes: int = MAX_BYTES,
        max_age_s: float = float("inf"),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._clock = clock
        self._begin()
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    def try_lease(self, key: str, *, newer_than: float | None = None, waited_for: str = "") -> LeaseResult:
        """Return the entry, or the right to make it, or that somebody is at it."""
        with self._now():
            entry = self._entries.get(key)
            if entry is not None and self._counts(entry, newer_than):
                self._entries.move_to_end(key)
                return Hit(entry)
            if waited_for in self._failures:
                return Busy(waited_for, self._failures[waited_for][1])
            if key in self._leases:
                return Busy(self._leases[key])
            holder = secrets.token_hex(16)
            self._leases[key] = holder
            return Lease(key, holder, self)

    def commit(self, lease: Lease, entry: Entry) -> None:
        """Keep the entry, and end the lease."""
        with self._now():
            if self._leases.get(lease.key) == lease.holder:
                del self._leases[lease.key]
            self._entries[lease.key] = entry
            self._entries.move_to_end(lease.key)
            total = sum(_size(one) for one in self._entries.values())
            while total > self._max_bytes and len(self._entries) > 1:
                total -= _size(self._entries.popitem(last=False)[1])

    def abandon(self, lease: Lease, failure: Failure | None = None) -> None:
        """End the lease without an entry."""
        with self._now():
            if self._leases.get(lease.key) != lease.holder:
                return
            del self._leases[lease.key]
            now = self._clock()
            self._failures = {
                holder: (at, told) for holder, (at, told) in self._failures.items() if now - at < FAILURES_S
            }
            if failure is not None:
                self._failures[lease.holder] = (now, failure)

    def clear(self) -> None:
        """Forget all entries."""
        with self._now():
            self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._leases = {}
        self._failures = {}

    def _now(self) -> threading.Lock:
        """Return the lock. In a forked child those who held leases are not there, nor who held the lock."""
        if self._pid != os.getpid():
            self._begin()
        return self._lock

    def _counts(self, entry: Entry, newer_than: float | None) -> bool:
        young = self._clock() - entry.created_at <= self._max_age_s
        return young and (newer_than is None or entry.created_at > newer_than)


def _size(entry: Entry) -> int:
    return sum(map(len, entry.pictures))
