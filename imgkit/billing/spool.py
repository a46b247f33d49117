"""The spool: replies on disk, written as they arrive and removed after delivery.

Each reply is a record in a folder of its own; see `imgkit.billing.spool_record`. A crash of the machine may
take any file that was not flushed. So every folder that holds parts counts as a record, also without its
facts. Only a recovered record is ever deleted by itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from imgkit.billing.spool_record import (
    VERSION,
    SpooledReply,
    SpoolRecord,
    drop_folder,
    lock_record,
    read_record,
    write_facts,
)
from imgkit.billing.spool_size import SizeFile
from imgkit.files import sync_folder

MAX_BYTES = 1024 * 1024 * 1024
MAX_AGE_S = 30 * 24 * 3600.0
SCAN_INTERVAL_S = 24 * 3600.0
"""Time between two walks over all records, in seconds."""

_UNFINISHED_S = 3600.0


class Spool:
    """A folder of records.

    Args:
        folder: the folder; the first record creates it, for this user only.
        max_bytes: size of all records from which `is_full` is true and recovered records are dropped.
        max_age_s: age in seconds above which a recovered record is dropped.

    Attributes:
        folder: the argument of the same name.
        size: the size of all records, as far as it is known without a walk over them.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES, max_age_s: float = MAX_AGE_S) -> None:
        self.folder = folder
        self.size = SizeFile(folder)
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s

    def new(self, name: str, facts: Mapping[str, object]) -> SpoolRecord:
        """Start a record. Raises OSError.

        Args:
            name: end of its name, behind the time.
            facts: facts of the call, as JSON values.
        """
        folder = self.folder / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{name}"
        try:
            os.mkdir(folder, 0o700)
        except FileNotFoundError:
            _create_folders(self.folder)
            os.mkdir(folder, 0o700)
        lock = lock_record(folder)
        try:
            return SpoolRecord(
                folder, self.size, lock, {"imgkit_spool": VERSION, "started_at": time.time(), **facts}
            )
        except BaseException:
            lock.release(remove=False)
            raise

    def list_replies(self) -> list[SpooledReply]:
        """Return the records, oldest first. Raises OSError."""
        found = []
        for folder in self._folders():
            with suppress(FileNotFoundError):  # delivered at this moment
                record = read_record(folder)
                if record is not None:
                    found.append(record)
        return found

    def find_replies(self, name: str) -> list[SpooledReply]:
        """Return the records whose `new` got this name. Raises OSError."""
        folders = (folder for folder in self._folders() if folder.name.endswith(f"-{name}"))
        return [record for folder in folders if (record := read_record(folder)) is not None]

    def mark(self, record: SpooledReply, paths: list[str]) -> None:
        """Record that all readable images were recovered, and to which paths. Raises OSError."""
        self._add_facts(record, {"recovered_to": paths})

    def mark_saved(self, record: SpooledReply, paths: Mapping[int, str]) -> None:
        """Record the images of an unfinished recovery, by index. Raises OSError."""
        self._add_facts(record, {"saved_images": {str(index): path for index, path in paths.items()}})

    def _add_facts(self, record: SpooledReply, facts: Mapping[str, object]) -> None:
        known = {"imgkit_spool": VERSION, **record.facts, "why": record.why}
        write_facts(record.folder, {**known, **facts})

    def drop(self, record: SpooledReply) -> bool:
        """Remove a record; return False while its process writes it. Raises OSError."""
        is_gone = drop_folder(record.folder)
        self.size.forget()
        return is_gone

    def is_full(self) -> bool:
        """Return whether the records have reached `max_bytes`. Raises OSError.

        Walks over the records once a day, and before it returns True.
        """
        total = self.size.read(SCAN_INTERVAL_S)
        if total is None or total >= self._max_bytes:
            self.prune()
            total = self.size.read(SCAN_INTERVAL_S) or 0
        return total >= self._max_bytes

    def prune(self) -> list[SpooledReply]:
        """Drop recovered records above the limits of age and size, and return them. Raises OSError.

        Any other record stays, whatever its age: nobody may have seen it.
        """
        now, dropped = time.time(), []
        records = self.list_replies()
        kept = {record.folder for record in records}
        for folder in self._folders():
            if folder not in kept:
                with suppress(OSError):  # another process was faster
                    _remove_unfinished(folder, now)
        total = sum(record.size_bytes for record in records)
        for record in records:
            is_old = abs(now - _start_time(record)) > self._max_age_s
            is_recovered = "recovered_to" in record.facts
            if is_recovered and (is_old or total >= self._max_bytes) and drop_folder(record.folder):
                total -= record.size_bytes
                dropped.append(record)
        running = sum(record.size_bytes for record in records if record.state == "running")
        self.size.replace(total - running)
        return dropped

    def _folders(self) -> Iterator[Path]:
        try:
            with os.scandir(self.folder) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return
        yield from (self.folder / name for name in names)


def _create_folders(folder: Path) -> None:
    """Create a folder and its parents for this user only, and flush their names."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(path.parent)


def _remove_unfinished(folder: Path, now: float) -> None:
    """Remove an old folder in which nothing was ever written."""
    if now - folder.stat().st_mtime > _UNFINISHED_S and not any(
        path.lstat().st_size for path in folder.iterdir()
    ):
        drop_folder(folder)


def _start_time(record: SpooledReply) -> float:
    started_at = record.facts.get("started_at")
    return float(started_at) if isinstance(started_at, int | float) else 0.0
