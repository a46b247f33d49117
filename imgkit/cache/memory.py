"""Store cache entries in memory, for a single process."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from imgkit.plugins.protocols import Busy, Entry, Failure, Hit, Lease, LeaseResult

MAX_BYTES = 256 * 1024 * 1024
FAILURE_TTL_S = 3600.0
"""Time during which waiting callers learn of a failure, in seconds."""


class MemoryStore:
    """A `CacheStore` in memory; its entries last as long as the process.

    >>> store = MemoryStore(max_bytes=64_000_000)
    >>> lease = store.try_lease("a1" * 32)
    >>> store.commit(lease, Entry({"prompt": "a fox"}, (b"image bytes",), time.time()))
    >>> len(store)
    1

    Args:
        max_bytes: Maximum size of all images. The least recently used entries go first.
        max_age_s: Maximum age of an entry in seconds. Older entries are misses.
        clock: Returns the Unix time in seconds.
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
        self._reset_leases()
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    def try_lease(self, key: str, *, newer_than: float | None = None, waited_for: str = "") -> LeaseResult:
        """Return the entry, a lease to create it, or the holder of the current lease."""
        with self._get_lock():
            entry = self._entries.get(key)
            if entry is not None and self._is_valid(entry, newer_than):
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
        """Store the entry and end the lease."""
        with self._get_lock():
            if self._leases.get(lease.key) == lease.holder:
                del self._leases[lease.key]
            self._entries[lease.key] = entry
            self._entries.move_to_end(lease.key)
            total = sum(_size_bytes(stored) for stored in self._entries.values())
            while total > self._max_bytes and len(self._entries) > 1:
                total -= _size_bytes(self._entries.popitem(last=False)[1])

    def abandon(self, lease: Lease, failure: Failure | None = None) -> None:
        """End the lease without an entry; callers that wait for it learn of the failure."""
        with self._get_lock():
            if self._leases.get(lease.key) != lease.holder:
                return
            del self._leases[lease.key]
            now = self._clock()
            self._failures = {
                holder: (at, past)
                for holder, (at, past) in self._failures.items()
                if now - at < FAILURE_TTL_S
            }
            if failure is not None:
                self._failures[lease.holder] = (now, failure)

    def clear(self) -> None:
        """Delete all entries; leases stay."""
        with self._get_lock():
            self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def _reset_leases(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._leases = {}
        self._failures = {}

    def _get_lock(self) -> threading.Lock:
        """Return the lock; a forked child starts without leases, because their holders stay in the parent."""
        if self._pid != os.getpid():
            self._reset_leases()
        return self._lock

    def _is_valid(self, entry: Entry, newer_than: float | None) -> bool:
        is_recent = self._clock() - entry.created_at <= self._max_age_s
        return is_recent and (newer_than is None or entry.created_at > newer_than)


def _size_bytes(entry: Entry) -> int:
    return sum(map(len, entry.pictures))
