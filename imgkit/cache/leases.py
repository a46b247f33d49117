"""The leases of a folder store: locks on files, marks of what was sent, and failures for those who wait.

The operating system releases the lock of a process that dies, and leaves its file. A file with the mark of a
sent request is the only trace of a payment, so it stays until a caller knows how the request ended.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from dataclasses import asdict
from pathlib import Path

from imgkit.files import read_regular_file, write_atomically
from imgkit.locks import FileLock
from imgkit.plugins.protocols import CacheStore, Failure, Lease

FAILURE_TTL_S = 3600.0
"""Time during which waiting callers learn of a failure, in seconds."""

MAX_RECORD_BYTES = 16 * 1024 * 1024
"""Bytes of facts that are read at most. imgkit writes some kilobytes."""

_CLEAN_INTERVAL_S = 60.0
"""Time between two walks over the failures, in seconds: a burst of failures walks once."""

_MAX_LOCK_ATTEMPTS = 50


class LeaseFolder:
    """The leases in the folders ``leases`` and ``failures`` of a store.

    Args:
        root: folder of both.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._locks: dict[str, FileLock] = {}
        self._lost: set[str] = set()  # holders whose lease still has the mark of a dead process
        self._lock = threading.Lock()
        self._clean_at = 0.0

    def acquire(self, key: str) -> tuple[FileLock | None, str]:
        """Return the lock of a key, or None and the id of its holder. Raises OSError.

        The holder writes its id just after it locks the file. Waiting for the id matters: only callers that
        name the holder learn of its failure.
        """
        path = self._root / "leases" / f"{key}.lock"
        for _ in range(_MAX_LOCK_ATTEMPTS):
            lock = FileLock.try_acquire(path)
            if lock is not None:
                return lock, ""
            current_holder = _read_holder(path)
            if current_holder:
                return None, current_holder
            time.sleep(0.001)
        return None, ""

    def grant(self, key: str, lock: FileLock, store: CacheStore) -> Lease:
        """Return the lease of a locked key, which keeps holder and mark of a dead process. Raises OSError."""
        holder, lost_attempt = _parse_holder(lock.read())
        if not lost_attempt:
            holder = secrets.token_hex(16)
            lock.write(holder.encode())
        with self._lock:
            self._locks[holder] = lock
            if lost_attempt:
                self._lost.add(holder)
        return Lease(key, holder, store, lost_attempt)

    def mark(self, lease: Lease, attempt: str) -> None:
        """Mark a lease with a sent attempt, or remove the mark with "". Raises OSError."""
        with self._lock:
            lock = self._locks.get(lease.holder)
            self._lost.discard(lease.holder)
        if lock is not None:
            lock.write(f"{lease.holder} {attempt}".rstrip().encode())

    def end(self, lease: Lease) -> None:
        """End a lease and remove its mark. Idempotent."""
        with self._lock:
            lock = self._locks.pop(lease.holder, None)
            self._lost.discard(lease.holder)
        if lock is not None:
            lock.release()

    def abandon(self, lease: Lease, failure: Failure | None) -> None:
        """End a lease with a failure for those who wait, or leave the mark of a dead process to the next.

        Raises:
            OSError: the failure cannot be written; the lease has ended all the same.
        """
        with self._lock:
            lock = self._locks.pop(lease.holder, None)
            keeps_mark = failure is None and lease.holder in self._lost
            self._lost.discard(lease.holder)
        if lock is None:
            return
        try:
            # Write the failure before the lease is free, for the next caller.
            if failure is not None:
                self._delete_old_failures()
                path = self._root / "failures" / f"{lease.holder}.json"
                write_atomically(path, to_json(asdict(failure)), suffix=".part")
        finally:
            lock.release(remove=not keeps_mark)

    def read_failure(self, holder: str) -> Failure | None:
        """Return the failure that ended the lease of a holder, None for none."""
        try:
            path = self._root / "failures" / f"{os.path.basename(holder)}.json"
            document = json.loads(read_regular_file(path, MAX_RECORD_BYTES, follow=False))
            return Failure(str(document["error"]), str(document["message"]), dict(document["facts"]))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None  # missing or damaged

    def _delete_old_failures(self) -> None:
        if time.monotonic() < self._clean_at:
            return
        self._clean_at = time.monotonic() + _CLEAN_INTERVAL_S
        for path in (self._root / "failures").iterdir():
            if time.time() - path.lstat().st_mtime > FAILURE_TTL_S:
                path.unlink(missing_ok=True)


def release_unused(lock: FileLock) -> None:
    """Release the lock of a key without a lease, and leave the mark of a dead process."""
    lock.release(remove=not _parse_holder(lock.read())[1])


def to_json(value: object) -> bytes:
    """Return a value as JSON in ASCII."""
    return json.dumps(value, ensure_ascii=True).encode("ascii")


def _read_holder(path: Path) -> str:
    try:
        return _parse_holder(read_regular_file(path, MAX_RECORD_BYTES, follow=False))[0]
    except FileNotFoundError:
        return ""


def _parse_holder(content: bytes) -> tuple[str, str]:
    """Return the holder and the sent attempt in a lock file, "" for each that is missing."""
    holder, _, attempt = content.decode("ascii", "replace").strip("\0\n ").partition(" ")
    return holder, attempt
