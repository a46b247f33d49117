"""Store cache entries in a folder that any number of processes of the same user share.

The files are authoritative; the index is derived from them. An entry is a folder of image files, named by
their digests, and ``entry.json``. The store writes ``entry.json`` last, so an entry is whole or absent. A
lease is a lock on a file; the operating system releases the lock of a process that dies.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgkit.errors import ConfigurationError
from imgkit.files import NO_FOLLOW, READ_FLAGS, write_atomically
from imgkit.images.sniff import EXTENSIONS, sniff
from imgkit.locks import FileLock
from imgkit.plugins.protocols import Busy, Entry, Failure, Hit, Lease, LeaseResult

if TYPE_CHECKING:
    from imgkit.cache.index import Index, Row

LAYOUT = "v1"
MAX_BYTES = 2 * 1024 * 1024 * 1024
MAX_AGE_S = 90 * 24 * 3600.0
FAILURE_TTL_S = 3600.0
"""Time during which waiting callers learn of a failure, in seconds."""

_USE_UPDATE_INTERVAL_S = 3600.0
_MAX_LOCK_ATTEMPTS = 50
_ENTRY_FILE = "entry.json"


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
        self._locks: dict[str, FileLock] = {}
        self._lock = threading.Lock()
        self._root = self.folder / LAYOUT
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
        lock, current_holder = self._acquire_lock(key)
        try:
            # Look again: now no other caller can end a lease unseen.
            entry = self.read(key, newer_than=newer_than)
            failure = self._read_failure(waited_for) if entry is None and waited_for else None
            if entry is not None or failure is not None:
                if lock is not None:
                    lock.release()
                return Hit(entry) if entry is not None else Busy(waited_for, failure)
            if lock is None:
                return Busy(current_holder)
            holder = secrets.token_hex(16)
            lock.write(holder.encode())
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        with self._lock:
            self._locks[holder] = lock
        return Lease(key, holder, self)

    def _acquire_lock(self, key: str) -> tuple[FileLock | None, str]:
        """Return the lock of a key, or None and the id of its holder.

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

    def commit(self, lease: Lease, entry: Entry) -> None:
        """Write the entry and end the lease.

        Raises:
            OSError: The entry cannot be written; the lease has ended all the same.
        """
        try:
            row = self._write_entry(lease.key, entry)
        finally:
            self._release(lease)
        self.index.put(row)
        self.prune()

    def abandon(self, lease: Lease, failure: Failure | None = None) -> None:
        """End the lease without an entry.

        Raises:
            OSError: The failure cannot be written; the lease has ended all the same.
        """
        with self._lock:
            if lease.holder not in self._locks:
                return
        try:
            # Write the failure before the lease is free, for the next caller.
            if failure is not None:
                self._delete_old_failures()
                write_atomically(
                    self._root / "failures" / f"{lease.holder}.json",
                    _to_json(asdict(failure)),
                    suffix=".part",
                )
        finally:
            self._release(lease)

    def read(self, key: str, *, newer_than: float | None = None) -> Entry | None:
        """Return an entry; return None if it is missing, too old or damaged.

        Raises:
            OSError: The index cannot be used.
        """
        # Hits are fast: pathlib alone would take a fifth of the time.
        folder = f"{self._entries}/{key[:2]}/{key}"
        now = self._clock()
        try:
            text, used_at = _read_file(f"{folder}/{_ENTRY_FILE}")
            document = json.loads(text)
            created_at = float(document["created_at"])
            if now - created_at > self._max_age_s or (newer_than is not None and created_at <= newer_than):
                return None
            images = tuple(self._read_image(folder, item) for item in document["pictures"])
            facts = document["facts"]
            if not isinstance(facts, dict):
                return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            # A missing entry and a damaged entry are both a miss.
            return None
        if now - used_at > _USE_UPDATE_INTERVAL_S:
            self._update_use_time(key, now)
        return Entry(facts, images, created_at)

    def _update_use_time(self, key: str, now: float) -> None:
        try:
            os.utime(self._entry_folder(key) / _ENTRY_FILE)
            self.index.mark_used(key, now)
        except OSError:
            # A read-only folder still serves its entries.
            return

    def list_keys(self) -> list[str]:
        """Return the keys of all entries, damaged entries included; raise OSError on failure."""
        return sorted(path.parent.name for path in (self._root / "entries").glob(f"??/*/{_ENTRY_FILE}"))

    def remove(self, key: str) -> bool:
        """Remove an entry; return False if another caller holds its lease.

        Raises:
            OSError: A file cannot be deleted.
        """
        lock = FileLock.try_acquire(self._root / "leases" / f"{key}.lock")
        if lock is None:
            return False
        try:
            self._delete_entry(key)
        finally:
            lock.release()
        self.index.delete(key)
        return True

    def prune(self) -> list[str]:
        """Remove entries beyond the age and size limits; return their keys.

        Raises:
            OSError: A file cannot be deleted.
        """
        rows, now = self.index.rows(), self._clock()
        total = sum(row.size_bytes for row in rows)
        removed = []
        for row in rows:
            # Keep the newest entry, however large: other callers may wait for it.
            is_over_limit = total > self.max_bytes and row is not rows[-1]
            if (now - row.created_at > self._max_age_s or is_over_limit) and self.remove(row.key):
                total -= row.size_bytes
                removed.append(row.key)
        return removed

    def sweep(self) -> int:
        """Remove the partial entries of killed processes; return the number of files removed.

        Raises:
            OSError: A file cannot be deleted.
        """
        count = 0
        for folder in (self._root / "entries").glob("??/*"):
            if folder.is_dir() and not (folder / _ENTRY_FILE).exists():
                lock = FileLock.try_acquire(self._root / "leases" / f"{folder.name}.lock")
                if lock is not None:
                    count += len(list(folder.iterdir()))
                    self._delete_entry(folder.name)
                    lock.release()
        return count

    def _entry_folder(self, key: str) -> Path:
        return self._root / "entries" / key[:2] / key

    def _read_image(self, folder: str, item: Mapping[str, Any]) -> bytes:
        """Return an image of an entry.

        Raises:
            ValueError: The file differs from the file that was written.
        """
        name = item["file"]
        if os.path.basename(name) != name:
            raise ValueError("The file name contains a path.")
        data, _ = _read_file(f"{folder}/{name}")
        if len(data) != item["bytes"]:
            raise ValueError("The size differs.")
        if self._verify and hashlib.sha256(data).hexdigest() != item["sha256"]:
            raise ValueError("The digest differs.")
        return data

    def _write_entry(self, key: str, entry: Entry) -> Row:
        from imgkit.cache.index import build_row

        folder = self._entry_folder(key)
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        items = []
        for data in entry.pictures:
            digest, kind = hashlib.sha256(data).hexdigest(), sniff(data)
            name = digest + (EXTENSIONS[kind.format][0] if kind else ".bin")
            write_atomically(folder / name, data, suffix=".part")
            items.append({"file": name, "bytes": len(data), "sha256": digest})
        text = _to_json({"created_at": entry.created_at, "facts": dict(entry.facts), "pictures": items})
        write_atomically(folder / _ENTRY_FILE, text, suffix=".part")
        expected = {_ENTRY_FILE, *(item["file"] for item in items)}
        for path in folder.iterdir():
            if path.name not in expected:
                path.unlink(missing_ok=True)
        return build_row(key, json.loads(text), self._clock())

    def _delete_entry(self, key: str) -> None:
        folder = self._entry_folder(key)
        (folder / _ENTRY_FILE).unlink(missing_ok=True)
        if folder.is_dir():
            for path in folder.iterdir():
                path.unlink(missing_ok=True)
            folder.rmdir()

    def _scan_entries(self) -> Iterator[Row]:
        from imgkit.cache.index import build_row

        for key in self.list_keys():
            try:
                text, used_at = _read_file(self._entry_folder(key) / _ENTRY_FILE)
                yield build_row(key, json.loads(text), used_at)
            except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
                # A damaged entry has no row.
                continue

    def _read_failure(self, holder: str) -> Failure | None:
        try:
            text, _ = _read_file(self._root / "failures" / f"{os.path.basename(holder)}.json")
            document = json.loads(text)
            return Failure(str(document["error"]), str(document["message"]), dict(document["facts"]))
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def _delete_old_failures(self) -> None:
        for path in (self._root / "failures").iterdir():
            if time.time() - path.lstat().st_mtime > FAILURE_TTL_S:
                path.unlink(missing_ok=True)

    def _release(self, lease: Lease) -> None:
        with self._lock:
            lock = self._locks.pop(lease.holder, None)
        if lock is not None:
            lock.release()


def _check_private(folder: Path) -> None:
    """Raise an error if other users may write to the folder."""
    if os.name != "posix":
        return
    info = folder.stat()
    if info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) & 0o022:
        raise ConfigurationError(
            f"Other users can write to {str(folder)!r}, so it is unsafe as a cache. "
            f"Run `chmod 700 {str(folder)!r}` or pass another folder."
        )


def _read_holder(path: Path) -> str:
    try:
        return _read_file(path)[0].decode("ascii", "replace")
    except FileNotFoundError:
        return ""


def _to_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode("ascii")


def _read_file(path: str | Path) -> tuple[bytes, float]:
    """Return the content and the modification time of a regular file.

    Raises:
        OSError: The file cannot be read.
        ValueError: The path is not a regular file.
    """
    descriptor = os.open(path, READ_FLAGS | NO_FOLLOW)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise ValueError("The path is not a regular file.")
        return stream.read(), info.st_mtime
