"""The spool: replies on disk, written as they arrive and removed after delivery.

Each reply has a folder of its own, a *record*. ``call.json`` holds the facts of the call. ``0.part``,
``1.part`` … hold the decoded bytes of images, ``reply.json.part`` the text around them, ``raw.part`` bytes
that cannot be decoded. A process locks the record that it writes. A record without a lock is orphaned.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imgkit.files import CREATE_FLAGS, NO_FOLLOW, READ_FLAGS, sync_folder, write_all, write_atomically
from imgkit.locks import FileLock

VERSION = 1
MAX_BYTES = 1024 * 1024 * 1024
MAX_AGE_S = 30 * 24 * 3600.0

_CALL, _LOCK = "call.json", "lock"
_FILE_NAMES = {"reply": "reply.json.part", "raw": "raw.part"}
_UNFINISHED_S = 3600.0


class SpoolRecord:
    """A record that this process writes, one thread at a time.

    Attributes:
        folder: folder of the record.
    """

    def __init__(self, folder: Path, lock: FileLock, facts: Mapping[str, object]) -> None:
        self._open: dict[str, int] = {}
        self.folder = folder
        self._lock = lock
        self._facts = facts

    def write(self, part: str, data: bytes) -> None:
        """Append to a part: "reply", "raw", or the number of an image. Raises OSError."""
        if part not in self._open:
            path = self.folder / _FILE_NAMES.get(part, f"{part}.part")
            self._open[part] = os.open(path, os.O_WRONLY | CREATE_FLAGS, 0o600)
        write_all(self._open[part], data)

    def sync(self) -> None:
        """Flush the record to the disk. Raises OSError."""
        for descriptor in self._open.values():
            os.fsync(descriptor)
        sync_folder(self.folder)

    def keep(self, reason: str) -> None:
        """Leave the record for `Spool.list_replies`, with a reason. Raises OSError."""
        try:
            _write_facts(self.folder / _CALL, {**self._facts, "why": reason})
        finally:
            self._close_files()
            self._lock.release()

    def remove(self) -> None:
        """Remove the record with all its parts. Raises OSError."""
        self._close_files()
        try:
            _remove(self.folder)
        finally:
            self._lock.release(remove=False)

    def __del__(self) -> None:
        self._close_files()  # after Ctrl-C before `keep` or `remove`, the record is orphaned

    def _close_files(self) -> None:
        descriptors, self._open = self._open, {}
        for descriptor in descriptors.values():
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class SpooledReply:
    """A record in the spool.

    Attributes:
        folder: folder of the record.
        facts: facts of the call and of its reply.
        state: "running" while its process writes it, "kept" after a call that did not deliver it,
            "orphaned" after the death of its process.
        size_bytes: size of all parts.
    """

    folder: Path
    facts: Mapping[str, object]
    state: Literal["running", "kept", "orphaned"]
    size_bytes: int

    @property
    def id(self) -> str:
        """The unique name of the record."""
        return self.folder.name

    @property
    def why(self) -> str:
        """The reason why the record was kept."""
        reason = self.facts.get("why")
        return reason if isinstance(reason, str) else "its process ended in the middle of the call"

    @property
    def recovered_to(self) -> tuple[str, ...]:
        """Paths of the recovered images, empty before a recovery."""
        paths = self.facts.get("recovered_to")
        return tuple(str(path) for path in paths) if isinstance(paths, list) else ()

    def text(self) -> bytes:
        """Return the text around the images. Raises OSError."""
        return _read(self.folder / _FILE_NAMES["reply"])

    def undecoded(self) -> bytes:
        """Return the bytes that could not be decoded. Raises OSError."""
        return _read(self.folder / _FILE_NAMES["raw"])

    def pictures(self) -> dict[int, bytes]:
        """Return the bytes of the images by number, truncated images included. Raises OSError."""
        numbers = sorted(
            int(path.stem)
            for path in self.folder.glob("*.part")
            if path.stem.isascii() and path.stem.isdigit()
        )
        return {number: _read(self.folder / f"{number}.part") for number in numbers}


class Spool:
    """A folder of records.

    Args:
        folder: the folder; the first record creates it, for this user only.
        max_bytes: size of all records above which the oldest are dropped, but never the newest.
        max_age_s: age in seconds above which a record is dropped.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES, max_age_s: float = MAX_AGE_S) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s

    def new(self, name: str, facts: Mapping[str, object]) -> SpoolRecord:
        """Start a record. Raises OSError.

        Args:
            name: end of its name, behind the time.
            facts: facts of the call, as JSON values.
        """
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.prune()
        # Built under a hidden name: a visible record is locked and has its facts from the start.
        hidden = self.folder / f".{secrets.token_hex(8)}"
        hidden.mkdir(mode=0o700)
        lock = FileLock.acquire(hidden / _LOCK)
        facts = {"imgkit_spool": VERSION, "started_at": time.time(), **facts}
        try:
            _write_facts(hidden / _CALL, facts)
            folder = self.folder / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{name}"
            hidden.rename(folder)
        except BaseException:
            lock.release(remove=False)
            raise
        lock.path = folder / _LOCK
        return SpoolRecord(folder, lock, facts)

    def list_replies(self) -> list[SpooledReply]:
        """Return the records, oldest first. Raises OSError."""
        found = []
        for folder in self._folders():
            facts = _read_facts(folder)
            if facts is not None:
                with suppress(FileNotFoundError):  # delivered at this moment
                    found.append(SpooledReply(folder, facts, _find_state(folder, facts), _measure(folder)))
        return found

    def mark(self, record: SpooledReply, paths: list[str]) -> None:
        """Record the paths of recovered images. Raises OSError."""
        _write_facts(record.folder / _CALL, {**record.facts, "why": record.why, "recovered_to": paths})

    def drop(self, record: SpooledReply) -> bool:
        """Remove a record; return False while its process writes it. Raises OSError."""
        return _drop(record.folder)

    def prune(self) -> list[SpooledReply]:
        """Drop records above the limits of age and size, and return them. Raises OSError."""
        now, dropped = time.time(), []
        for folder in self._hidden_folders():
            with suppress(FileNotFoundError):  # renamed at this moment
                if now - folder.stat().st_mtime > _UNFINISHED_S:
                    _drop(folder)
        records = self.list_replies()
        total = sum(record.size_bytes for record in records)
        for record in records:
            is_old = now - _start_time(record) > self._max_age_s
            is_excess = total > self._max_bytes and record is not records[-1]
            if (is_old or is_excess) and self.drop(record):
                total -= record.size_bytes
                dropped.append(record)
        return dropped

    def _folders(self) -> Iterator[Path]:
        yield from sorted(path for path in self._entries() if not path.name.startswith("."))

    def _hidden_folders(self) -> Iterator[Path]:
        yield from (path for path in self._entries() if path.name.startswith("."))

    def _entries(self) -> list[Path]:
        try:
            return [path for path in self.folder.iterdir() if path.is_dir() and not path.is_symlink()]
        except FileNotFoundError:
            return []


def _find_state(folder: Path, facts: Mapping[str, object]) -> Literal["running", "kept", "orphaned"]:
    if "why" in facts:
        return "kept"
    lock = FileLock.try_acquire(folder / _LOCK)
    if lock is None:
        return "running"
    lock.release()
    return "orphaned"


def _drop(folder: Path) -> bool:
    try:
        lock = FileLock.try_acquire(folder / _LOCK)
    except FileNotFoundError:
        return True  # another process was faster
    if lock is None:
        return False
    try:
        _remove(folder)
    finally:
        lock.release(remove=False)
    return True


def _remove(folder: Path) -> None:
    """Remove a record. Its facts go first, so that nobody finds half a record."""
    (folder / _CALL).unlink(missing_ok=True)
    for path in folder.iterdir():
        path.unlink(missing_ok=True)
    folder.rmdir()


def _read_facts(folder: Path) -> Mapping[str, object] | None:
    try:
        facts = json.loads(_read(folder / _CALL))
    except (OSError, ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) and facts.get("imgkit_spool") == VERSION else None


def _start_time(record: SpooledReply) -> float:
    started_at = record.facts.get("started_at")
    return float(started_at) if isinstance(started_at, int | float) else 0.0


def _measure(folder: Path) -> int:
    total = 0
    for path in folder.glob("*.part"):
        try:
            total += path.lstat().st_size
        except FileNotFoundError:
            continue  # delivered at this moment
    return total


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, READ_FLAGS | NO_FOLLOW)
    except FileNotFoundError:
        return b""
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read()


def _write_facts(path: Path, facts: Mapping[str, object]) -> None:
    text = json.dumps(facts, indent=2, ensure_ascii=True, default=str)
    write_atomically(path, text.encode("ascii"), sync=False)
