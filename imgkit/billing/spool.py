"""Replies on disk while they are not where they belong: written as they arrive, removed once delivered.

Each reply has a folder of its own, a *record*: ``call.json`` says what was asked for, ``0.part``, ``1.part``
and so on are pictures as far as they were decoded, ``reply.json.part`` is the text around them, ``raw.part``
what could not be decoded. A process that writes a record holds a lock on it; one without a lock was left
behind.
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
from typing import Any, Literal

from imgkit.files import CREATE_FLAGS, NO_FOLLOW, READ_FLAGS, sync_folder, write_all, write_atomically
from imgkit.locks import FileLock

VERSION = 1
MAX_BYTES = 1024 * 1024 * 1024
MAX_AGE_S = 30 * 24 * 3600.0

_CALL, _LOCK = "call.json", "lock"
_FILE_OF = {"reply": "reply.json.part", "raw": "raw.part"}
_UNFINISHED_S = 3600.0


class SpoolRecord:
    """A record that this process writes. Not for several threads at once.

    Attributes:
        folder: where it is.
    """

    def __init__(self, folder: Path, lock: FileLock, facts: Mapping[str, Any]) -> None:
        self._open: dict[str, int] = {}
        self.folder = folder
        self._lock = lock
        self._facts = facts

    def write(self, part: str, data: bytes) -> None:
        """Append to a part: "reply", "raw", or the number of a picture. Raises OSError."""
        if part not in self._open:
            path = self.folder / _FILE_OF.get(part, f"{part}.part")
            self._open[part] = os.open(path, os.O_WRONLY | CREATE_FLAGS, 0o600)
        write_all(self._open[part], data)

    def sync(self) -> None:
        """Have the disk take what was written. Raises OSError."""
        for descriptor in self._open.values():
            os.fsync(descriptor)
        sync_folder(self.folder)

    def keep(self, why: str) -> None:
        """Leave it for `Spool.left`, with the reason. Raises OSError."""
        try:
            _write_file(self.folder / _CALL, {**self._facts, "why": why})
        finally:
            self._let_go()
            self._lock.release()

    def remove(self) -> None:
        """Remove it with all its parts. Raises OSError."""
        self._let_go()
        try:
            _remove(self.folder)
        finally:
            self._lock.release(remove=False)

    def __del__(self) -> None:
        self._let_go()  # Ctrl-C may have come before anybody could keep or remove it: then it is orphaned

    def _let_go(self) -> None:
        descriptors, self._open = self._open, {}
        for descriptor in descriptors.values():
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class SpooledReply:
    """A record that was found.

    Attributes:
        folder: where it is.
        facts: what was asked for, and what is known of the reply.
        state: "running" while its process is at it, "kept" if the call ended without delivering it,
            "orphaned" if its process died.
        size_bytes: of all its parts.
    """

    folder: Path
    facts: Mapping[str, Any]
    state: Literal["running", "kept", "orphaned"]
    size_bytes: int

    @property
    def id(self) -> str:
        """Its name, which no other record has."""
        return self.folder.name

    @property
    def why(self) -> str:
        """Why it is there."""
        said = self.facts.get("why")
        return said if isinstance(said, str) else "its process ended in the middle of the call"

    @property
    def recovered_to(self) -> tuple[str, ...]:
        """Where its pictures have been saved, if they have."""
        told = self.facts.get("recovered_to")
        return tuple(str(path) for path in told) if isinstance(told, list) else ()

    def text(self) -> bytes:
        """Return the text around the pictures. Raises OSError."""
        return _read(self.folder / _FILE_OF["reply"])

    def undecoded(self) -> bytes:
        """Return what could not be decoded. Raises OSError."""
        return _read(self.folder / _FILE_OF["raw"])

    def pictures(self) -> dict[int, bytes]:
        """Return the pictures by number, as far as they came. Raises OSError."""
        numbers = sorted(
            int(path.stem)
            for path in self.folder.glob("*.part")
            if path.stem.isascii() and path.stem.isdigit()
        )
        return {number: _read(self.folder / f"{number}.part") for number in numbers}


class Spool:
    """A folder of records.

    Args:
        folder: made when it is needed, for this user only.
        max_bytes: the oldest records are dropped when all together hold more; the newest one never is.
        max_age_s: older ones are dropped.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES, max_age_s: float = MAX_AGE_S) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s

    def new(self, name: str, facts: Mapping[str, Any]) -> SpoolRecord:
        """Begin a record. Raises OSError.

        Args:
            name: its last part; the time is put before it.
            facts: JSON values.
        """
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.prune()
        # Made under a name that nobody looks at: a record is locked, and says what it is, from the first.
        hidden = self.folder / f".{secrets.token_hex(8)}"
        hidden.mkdir(mode=0o700)
        lock = FileLock.try_acquire(hidden / _LOCK)
        assert lock is not None, "nobody else knows this name"
        facts = {"imgkit_spool": VERSION, "started_at": time.time(), **facts}
        try:
            _write_file(hidden / _CALL, facts)
            folder = self.folder / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{name}"
            hidden.rename(folder)
        except BaseException:
            lock.release(remove=False)
            raise
        lock.path = folder / _LOCK
        return SpoolRecord(folder, lock, facts)

    def left(self) -> list[SpooledReply]:
        """Return the records, oldest first. Raises OSError."""
        found = []
        for folder in self._folders():
            facts = _facts(folder)
            if facts is not None:
                with suppress(FileNotFoundError):  # it has just been delivered
                    found.append(SpooledReply(folder, facts, _state(folder, facts), _size(folder)))
        return found

    def mark(self, record: SpooledReply, paths: list[str]) -> None:
        """Note in a record where its pictures have been saved. Raises OSError."""
        _write_file(record.folder / _CALL, {**record.facts, "why": record.why, "recovered_to": paths})

    def drop(self, record: SpooledReply) -> bool:
        """Remove a record; return False if its process is at it. Raises OSError."""
        return _drop(record.folder)

    def prune(self) -> list[SpooledReply]:
        """Drop what is too old or too much, and return it. Raises OSError."""
        now, dropped = time.time(), []
        for folder in self._hidden():
            with suppress(FileNotFoundError):  # it has just got its name
                if now - folder.stat().st_mtime > _UNFINISHED_S:
                    _drop(folder)
        records = self.left()
        total = sum(one.size_bytes for one in records)
        for one in records:
            old = now - _started(one) > self._max_age_s
            if (old or (total > self._max_bytes and one is not records[-1])) and self.drop(one):
                total -= one.size_bytes
                dropped.append(one)
        return dropped

    def _folders(self) -> Iterator[Path]:
        yield from sorted(path for path in self._entries() if not path.name.startswith("."))

    def _hidden(self) -> Iterator[Path]:
        yield from (path for path in self._entries() if path.name.startswith("."))

    def _entries(self) -> list[Path]:
        try:
            return [path for path in self.folder.iterdir() if path.is_dir() and not path.is_symlink()]
        except FileNotFoundError:
            return []


def _state(folder: Path, facts: Mapping[str, Any]) -> Literal["running", "kept", "orphaned"]:
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
        return True  # somebody else was faster
    if lock is None:
        return False
    try:
        _remove(folder)
    finally:
        lock.release(remove=False)
    return True


def _remove(folder: Path) -> None:
    """Remove a record; what says that it is one goes first, so that no half of it is ever found."""
    (folder / _CALL).unlink(missing_ok=True)
    for path in folder.iterdir():
        path.unlink(missing_ok=True)
    folder.rmdir()


def _facts(folder: Path) -> Mapping[str, Any] | None:
    try:
        facts = json.loads(_read(folder / _CALL))
    except (OSError, ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) and facts.get("imgkit_spool") == VERSION else None


def _started(record: SpooledReply) -> float:
    at = record.facts.get("started_at")
    return float(at) if isinstance(at, int | float) else 0.0


def _size(folder: Path) -> int:
    total = 0
    for path in folder.glob("*.part"):
        try:
            total += path.lstat().st_size
        except FileNotFoundError:
            continue  # delivered in this moment
    return total


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, READ_FLAGS | NO_FOLLOW)
    except FileNotFoundError:
        return b""
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read()


def _write_file(path: Path, facts: Mapping[str, Any]) -> None:
    text = json.dumps(facts, indent=2, ensure_ascii=True, default=str)
    write_atomically(path, text.encode("ascii"), sync=False)
