"""Entries in a folder, shared by any number of processes of one user.

The files are the truth, the index is derived from them. An entry is a folder with its pictures, named by
their digests, and ``entry.json``, which is written last: without it there is no entry, and with it there is a
whole one. A lease is a lock on a file, which the system takes back from a process that dies.
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
FAILURES_S = 3600.0
"""How long a failure is told to those who waited, in seconds."""

_USED_EVERY_S = 3600.0
_LOOKS = 50
_ENTRY = "entry.json"
_PROMPT_CHARACTERS = 120


class FolderStore:
    """A `CacheStore` in a folder.

    Args:
        folder: made if it is not there, for this user only.
        max_bytes: of all entries together; those that were not used for the longest time go first.
        max_age_s: older entries are none, and go.
        verify: compute the digest of each picture that is read. Without it only sizes are compared.
        clock: Unix time in seconds.

    Attributes:
        folder, max_bytes: as above.

    Raises:
        ConfigurationError: the folder cannot be made, or others may write to it.
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
        self._held: dict[str, FileLock] = {}
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
                f"{str(self.folder)!r} cannot be a cache ({error.strerror or error}): give another folder"
            ) from None

    @property
    def index(self) -> Index:
        """The index of the entries."""
        from imgkit.cache.index import Index  # SQLite takes longer to import than a hit takes to read

        return Index(self._root / "index.sqlite3", self._scan)

    def try_lease(self, key: str, *, newer_than: float | None = None, waited_for: str = "") -> LeaseResult:
        """Return the entry, or the right to make it, or that somebody is at it. Raises OSError."""
        entry = self.read(key, newer_than=newer_than)
        if entry is not None:
            return Hit(entry)
        lock, other = self._acquire(key)
        try:
            # Looked for again, now that nobody can end a lease unseen.
            entry = self.read(key, newer_than=newer_than)
            failure = self._failure(waited_for) if entry is None and waited_for else None
            if entry is not None or failure is not None:
                if lock is not None:
                    lock.release()
                return Hit(entry) if entry is not None else Busy(waited_for, failure)
            if lock is None:
                return Busy(other)
            holder = secrets.token_hex(16)
            lock.write(holder.encode())
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        with self._lock:
            self._held[holder] = lock
        return Lease(key, holder, self)

    def _acquire(self, key: str) -> tuple[FileLock | None, str]:
        """Return the lock of a key, or None and who has it.

        Who has it is written just after it is locked, and must be known: only those who can name the holder
        that they wait for are told of its failure.
        """
        path = self._root / "leases" / f"{key}.lock"
        for _ in range(_LOOKS):
            lock = FileLock.try_acquire(path)
            if lock is not None:
                return lock, ""
            other = _holder(path)
            if other:
                return None, other
            time.sleep(0.001)
        return None, ""

    def commit(self, lease: Lease, entry: Entry) -> None:
        """Keep the entry, and end the lease. Raises OSError."""
        try:
            row = self._write(lease.key, entry)
        finally:
            self._end(lease)
        self.index.put(row)
        self.prune()

    def abandon(self, lease: Lease, failure: Failure | None = None) -> None:
        """End the lease without an entry. Raises OSError."""
        with self._lock:
            if lease.holder not in self._held:
                return
        try:
            if failure is not None:  # written before the lease is free, for whoever asks next
                self._forget_failures()
                write_atomically(
                    self._root / "failures" / f"{lease.holder}.json", _json(asdict(failure)), suffix=".part"
                )
        finally:
            self._end(lease)

    def read(self, key: str, *, newer_than: float | None = None) -> Entry | None:
        """Return an entry, None if it is not there, too old, or not whole. Raises OSError."""
        folder = f"{self._entries}/{key[:2]}/{key}"  # a hit is quick: pathlib would be a fifth of it
        now = self._clock()
        try:
            text, used_at = _read(f"{folder}/{_ENTRY}")
            told = json.loads(text)
            created_at = float(told["created_at"])
            if now - created_at > self._max_age_s or (newer_than is not None and created_at <= newer_than):
                return None
            pictures = tuple(self._picture(folder, one) for one in told["pictures"])
            facts = told["facts"]
            if not isinstance(facts, dict):
                return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None  # not there, or not as it was written: both are a miss
        if now - used_at > _USED_EVERY_S:
            self._note_use(key, now)
        return Entry(facts, pictures, created_at)

    def _note_use(self, key: str, now: float) -> None:
        try:
            os.utime(self._folder(key) / _ENTRY)
            self.index.used(key, now)
        except OSError:
            return  # a folder that may only be read: what is in it can be used all the same

    def list_keys(self) -> list[str]:
        """Return the keys of all entries, whole or not. Raises OSError."""
        return sorted(path.parent.name for path in (self._root / "entries").glob(f"??/*/{_ENTRY}"))

    def remove(self, key: str) -> bool:
        """Remove an entry; return False if somebody is making it anew. Raises OSError."""
        lock = FileLock.try_acquire(self._root / "leases" / f"{key}.lock")
        if lock is None:
            return False
        try:
            self._erase(key)
        finally:
            lock.release()
        self.index.drop(key)
        return True

    def prune(self) -> list[str]:
        """Remove what is too old or too much, and return the keys. Raises OSError."""
        rows, now = self.index.rows(), self._clock()
        total = sum(row.size_bytes for row in rows)
        gone = []
        for row in rows:
            # The last one stays, however large: there may be callers who wait for it.
            much = total > self.max_bytes and row is not rows[-1]
            if (now - row.created_at > self._max_age_s or much) and self.remove(row.key):
                total -= row.size_bytes
                gone.append(row.key)
        return gone

    def sweep(self) -> int:
        """Remove files of no entry, which killed processes leave; return how many. Raises OSError."""
        swept = 0
        for folder in (self._root / "entries").glob("??/*"):
            if folder.is_dir() and not (folder / _ENTRY).exists():
                lock = FileLock.try_acquire(self._root / "leases" / f"{folder.name}.lock")
                if lock is not None:
                    swept += len(list(folder.iterdir()))
                    self._erase(folder.name)
                    lock.release()
        return swept

    def _folder(self, key: str) -> Path:
        return self._root / "entries" / key[:2] / key

    def _picture(self, folder: str, told: Mapping[str, Any]) -> bytes:
        """Return a picture of an entry. Raises ValueError if it is not what was written."""
        name = told["file"]
        if os.path.basename(name) != name:
            raise ValueError("not a name")
        data, _ = _read(f"{folder}/{name}")
        if len(data) != told["bytes"]:
            raise ValueError("another size")
        if self._verify and hashlib.sha256(data).hexdigest() != told["sha256"]:
            raise ValueError("another digest")
        return data

    def _write(self, key: str, entry: Entry) -> Row:
        folder = self._folder(key)
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        told = []
        for data in entry.pictures:
            digest, kind = hashlib.sha256(data).hexdigest(), sniff(data)
            name = digest + (EXTENSIONS[kind.format][0] if kind else ".bin")
            write_atomically(folder / name, data, suffix=".part")
            told.append({"file": name, "bytes": len(data), "sha256": digest})
        text = _json({"created_at": entry.created_at, "facts": dict(entry.facts), "pictures": told})
        write_atomically(folder / _ENTRY, text, suffix=".part")
        wanted = {_ENTRY, *(one["file"] for one in told)}
        for path in folder.iterdir():
            if path.name not in wanted:
                path.unlink(missing_ok=True)
        return _row(key, json.loads(text), self._clock())

    def _erase(self, key: str) -> None:
        folder = self._folder(key)
        (folder / _ENTRY).unlink(missing_ok=True)
        if folder.is_dir():
            for path in folder.iterdir():
                path.unlink(missing_ok=True)
            folder.rmdir()

    def _scan(self) -> Iterator[Row]:
        for key in self.list_keys():
            try:
                text, used_at = _read(self._folder(key) / _ENTRY)
                yield _row(key, json.loads(text), used_at)
            except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
                continue  # no entry, so nothing to count

    def _failure(self, holder: str) -> Failure | None:
        try:
            text, _ = _read(self._root / "failures" / f"{os.path.basename(holder)}.json")
            told = json.loads(text)
            return Failure(str(told["error"]), str(told["message"]), dict(told["facts"]))
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def _forget_failures(self) -> None:
        for path in (self._root / "failures").iterdir():
            if time.time() - path.lstat().st_mtime > FAILURES_S:
                path.unlink(missing_ok=True)

    def _end(self, lease: Lease) -> None:
        with self._lock:
            lock = self._held.pop(lease.holder, None)
        if lock is not None:
            lock.release()


def _row(key: str, told: Mapping[str, Any], used_at: float) -> Row:
    from imgkit.cache.index import Row

    facts = told["facts"]
    return Row(
        key=key,
        created_at=float(told["created_at"]),
        used_at=used_at,
        size_bytes=sum(int(one["bytes"]) for one in told["pictures"]),
        pictures=len(told["pictures"]),
        operation=_text(facts.get("operation")),
        model=_text(facts.get("model")),
        prompt=_text(facts.get("prompt")),
    )


def _text(value: object) -> str:
    """Return the beginning of a text, as SQLite takes it: without lone surrogates."""
    return str(value or "")[:_PROMPT_CHARACTERS].encode("utf-8", "replace").decode("utf-8")


def _check_private(folder: Path) -> None:
    """Refuse a folder in which somebody else could put pictures."""
    if os.name != "posix":
        return
    about = folder.stat()
    if about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) & 0o022:
        raise ConfigurationError(
            f"{str(folder)!r} can be written to by others, and so is no cache: "
            f"run `chmod 700 {str(folder)!r}`, or give another folder"
        )


def _holder(path: Path) -> str:
    try:
        return _read(path)[0].decode("ascii", "replace")
    except FileNotFoundError:
        return ""


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode("ascii")


def _read(path: str | Path) -> tuple[bytes, float]:
    """Return content and time of change of a regular file. Raises OSError, ValueError if it is none."""
    descriptor = os.open(path, READ_FLAGS | NO_FOLLOW)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("not a regular file")
        return stream.read(), about.st_mtime
