"""Store cache entries in a folder that any number of processes of the same user share.

The files are authoritative; the index is derived from them. An entry is one file: a line of JSON, then the
bytes of its images. It gets its name when it is whole and flushed, so an entry is whole or absent. A lease
is a lock on a file; the operating system releases the lock of a process that dies.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from imgkit.cache.leases import MAX_RECORD_BYTES, LeaseFolder, release_unused, to_json
from imgkit.errors import ConfigurationError
from imgkit.files import is_private, open_regular_file, write_atomically
from imgkit.locks import FileLock
from imgkit.plugins.protocols import Busy, Entry, Failure, Hit, Lease, LeaseResult

if TYPE_CHECKING:
    from imgkit.cache.index import Index, Row

LAYOUT = "v2"
MAX_BYTES = 2 * 1024 * 1024 * 1024
MAX_AGE_S = 90 * 24 * 3600.0
_USE_UPDATE_INTERVAL_S = 3600.0
_PRUNE_INTERVAL_S = 60.0
_SUFFIX, _PART_SUFFIX = ".entry", ".part"
_DAMAGE = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""Errors of reading an entry that is missing or damaged, both of which are a miss."""


class FolderStore:
    """A `CacheStore` in a folder.

    >>> import tempfile
    >>> store = FolderStore(tempfile.mkdtemp(), max_bytes=500_000_000)
    >>> lease = store.try_lease("a1" * 32)
    >>> store.commit(lease, Entry({"prompt": "a fox"}, (b"image bytes",), time.time()))
    >>> store.list_keys() == ["a1" * 32]
    True

    Args:
        folder: Folder of the cache. The store creates it with access for this user only.
        max_bytes: Maximum size of all entries. The least recently used entries go first.
        max_age_s: Maximum age of an entry in seconds. Older entries are misses, and are deleted.
        verify: Compare the digest of each image on reading. If False, compare only the size.
        clock: Returns the Unix time in seconds.

    Attributes:
        folder, max_bytes: The arguments of the same names.

    Raises:
        ConfigurationError: The folder cannot be created, or other users may write to it.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        max_bytes: int = MAX_BYTES,
        max_age_s: float = MAX_AGE_S,
        verify: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._verify = verify
        self._clock = clock
        # Bytes that fit, and time that may pass, before the next look for entries to remove.
        self._room_bytes, self._prune_at = -1, 0.0
        self._root = self.folder / LAYOUT
        self._leases = LeaseFolder(self._root)
        self._entries = str(self._root / "entries")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for part in (self._root, *(self._root / name for name in ("entries", "leases", "failures"))):
                part.mkdir(mode=0o700, exist_ok=True)
            _check_private(self.folder)
        except OSError as error:
            raise ConfigurationError(
                f"The folder {str(self.folder)!r} cannot hold a cache ({error.strerror or error}). "
                "Pass another folder."
            ) from None

    @property
    def index(self) -> Index:
        """The index of the entries."""
        # Importing SQLite takes longer than reading a hit.
        from imgkit.cache.index import Index

        return Index(self._root / "index.sqlite3", self._scan_entries)

    def try_lease(self, key: str, *, newer_than: float | None = None, waited_for: str = "") -> LeaseResult:
        """Return the entry, a lease to create it, or the holder of the current lease.

        Raises:
            OSError: A file cannot be read or locked.
        """
        entry = self.read(key, newer_than=newer_than)
        if entry is not None:
            return Hit(entry)
        lock, current_holder = self._leases.acquire(key)
        try:
            # Look again: now no other caller can end a lease unseen.
            entry = self.read(key, newer_than=newer_than)
            failure = self._leases.read_failure(waited_for) if entry is None and waited_for else None
            if entry is None and failure is None and lock is not None:
                return self._leases.grant(key, lock, self)
        except BaseException:
            if lock is not None:
                release_unused(lock)
            raise
        if entry is None and failure is None:
            return Busy(current_holder)
        if lock is not None:
            release_unused(lock)
        return Busy(waited_for, failure) if entry is None else Hit(entry)

    def mark_sent(self, lease: Lease, attempt: str) -> None:
        """Mark a lease before its request is sent, as `imgkit.plugins.SentMarks` says.

        The mark outlives the process, not a crash of the machine: flushing it would cost each miss more than
        all its other work.

        Raises:
            OSError: The mark cannot be written.
        """
        self._leases.mark(lease, attempt)

    def commit(self, lease: Lease, entry: Entry) -> None:
        """Write the entry and end the lease.

        Raises:
            OSError: The entry cannot be written; the lease stays open until `abandon`.
        """
        row = self._write_entry(lease.key, entry)
        self._leases.end(lease)
        with suppress(OSError):  # the entry is stored; a later use of the index finds it
            self.index.put(row)
            # A walk over all rows at each miss would cost more than the miss.
            self._room_bytes -= row.size_bytes
            if self._room_bytes < 0 or time.monotonic() > self._prune_at:
                self.prune()

    def abandon(self, lease: Lease, failure: Failure | None = None) -> None:
        """End the lease without an entry.

        Raises:
            OSError: The failure cannot be written; the lease has ended all the same.
        """
        self._leases.abandon(lease, failure)

    def read(self, key: str, *, newer_than: float | None = None) -> Entry | None:
        """Return an entry; return None if it is missing, too old or damaged.

        Raises:
            OSError: The index cannot be used.
        """
        now = self._clock()
        try:
            with _OpenEntry(self._entry_path(key)) as opened:
                document, used_at = opened.document, opened.modified_at
                created_at = float(document["created_at"])
                is_old = now - created_at > self._max_age_s
                if is_old or (newer_than is not None and created_at <= newer_than):
                    return None
                images = opened.read_images(verify=self._verify)
            facts = document["facts"]
            if not isinstance(facts, dict):
                return None
        except _DAMAGE:
            return None
        if now - used_at > _USE_UPDATE_INTERVAL_S:
            self._update_use_time(key, now)
        return Entry(facts, images, created_at)

    def _update_use_time(self, key: str, now: float) -> None:
        try:
            os.utime(self._entry_path(key))
            self.index.mark_used(key, now)
        except OSError:
            # A read-only folder still serves its entries.
            return

    def list_keys(self) -> list[str]:
        """Return the keys of all entries, damaged entries included; raise OSError on failure."""
        return sorted(path.stem for path in (self._root / "entries").glob(f"??/[!.]*{_SUFFIX}"))

    def remove(self, key: str) -> bool:
        """Remove an entry; return False if another caller holds its lease.

        Raises:
            OSError: A file cannot be deleted.
        """
        lock = FileLock.try_acquire(self._root / "leases" / f"{key}.lock")
        if lock is None:
            return False
        try:
            Path(self._entry_path(key)).unlink(missing_ok=True)
        finally:
            release_unused(lock)
        self.index.delete(key)
        return True

    def prune(self) -> list[str]:
        """Remove entries beyond the age and size limits; return their keys.

        Raises:
            OSError: A file cannot be deleted.
        """
        now = self._clock()
        total, oldest = self.index.totals()
        self._prune_at = time.monotonic() + _PRUNE_INTERVAL_S
        if total <= self.max_bytes and now - oldest <= self._max_age_s:
            # Other processes add entries too, so a store uses only a part of the room by itself.
            self._room_bytes = (self.max_bytes - total) // 8
            return []
        rows, removed = self.index.rows(), []
        for row in rows:
            # Keep the newest entry, however large: other callers may wait for it.
            is_over_limit = total > self.max_bytes and row is not rows[-1]
            if (now - row.created_at > self._max_age_s or is_over_limit) and self.remove(row.key):
                total -= row.size_bytes
                removed.append(row.key)
        return removed

    def sweep(self) -> int:
        """Remove the partial entries of killed processes; return their number.

        Raises:
            OSError: A file cannot be deleted.
        """
        count = 0
        for path in (self._root / "entries").glob(f"??/.*{_PART_SUFFIX}"):
            key = path.name[1:].partition(".")[0]
            lock = FileLock.try_acquire(self._root / "leases" / f"{key}.lock")
            if lock is not None:
                path.unlink(missing_ok=True)
                count += 1
                release_unused(lock)
        return count

    def _entry_path(self, key: str) -> str:
        # Hits are fast: pathlib alone would take a fifth of the time.
        return f"{self._entries}/{key[:2]}/{key}{_SUFFIX}"

    def _write_entry(self, key: str, entry: Entry) -> Row:
        from imgkit.cache.index import build_row

        items = [{"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for data in entry.pictures]
        document = {"created_at": entry.created_at, "facts": dict(entry.facts), "pictures": items}
        path, line = Path(self._entry_path(key)), to_json(document) + b"\n"
        if not path.parent.exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomically(path, (line, *entry.pictures), suffix=_PART_SUFFIX)
        return build_row(key, json.loads(line), self._clock())

    def _scan_entries(self) -> Iterator[Row]:
        from imgkit.cache.index import build_row

        for key in self.list_keys():
            try:
                with _OpenEntry(self._entry_path(key)) as opened:
                    row = build_row(key, opened.document, opened.modified_at)
            except _DAMAGE:
                # A damaged entry has no row.
                continue
            yield row


class _OpenEntry:
    """An open entry file; a context manager that closes it.

    Args:
        path: path of the file.

    Attributes:
        document: the line of JSON.
        modified_at: Unix time of the last change in seconds.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it is no regular file, or no entry.
    """

    def __init__(self, path: str) -> None:
        self._stream = open_regular_file(path, follow=False)
        try:
            info = os.fstat(self._stream.fileno())
            self.modified_at = info.st_mtime
            line = self._stream.readline(MAX_RECORD_BYTES)
            self.document = json.loads(line)
            # Look at the sizes first: a damaged entry may be larger than the memory.
            sizes = [item["bytes"] for item in self.document["pictures"]]
            if info.st_size != len(line) + sum(sizes) or min(sizes, default=0) < 0:
                raise ValueError("The size differs.")
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> _OpenEntry:
        return self

    def __exit__(self, *args: object) -> None:
        self._stream.close()

    def read_images(self, *, verify: bool) -> tuple[bytes, ...]:
        """Return the images.

        Raises:
            ValueError: an image differs from the image that was written.
        """
        images = []
        for item in self.document["pictures"]:
            data = self._stream.read(item["bytes"])
            if len(data) != item["bytes"]:
                raise ValueError("The size differs.")
            if verify and hashlib.sha256(data).hexdigest() != item["sha256"]:
                raise ValueError("The digest differs.")
            images.append(data)
        return tuple(images)


def _check_private(folder: Path) -> None:
    """Raise an error if other users may write to a cache."""
    if not is_private(folder):
        raise ConfigurationError(
            f"Other users can write to {str(folder)!r}, or own it or its parent, so it is unsafe as a cache. "
            f"Run `chmod 700 {str(folder)!r}` as its owner, or pass another folder."
        )
