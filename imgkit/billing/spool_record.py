"""One record of the spool: the reply to one request, in a folder of its own.

``call.json`` holds the facts of the call. ``0.part``, ``1.part`` … hold the decoded bytes of images,
``reply.json.part`` the text around them, ``raw.part`` bytes that cannot be decoded. A process locks the
record that it writes. A record without a lock is orphaned.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imgkit.billing.spool_size import SizeFile
from imgkit.files import (
    BINARY_FLAGS,
    CREATE_FLAGS,
    read_regular_file,
    sync_file,
    sync_folder,
    write_all,
    write_atomically,
)
from imgkit.locks import FileLock

VERSION = 1
MAX_PART_BYTES = 1024 * 1024 * 1024
"""A larger part is damaged: no reply is as large."""
FLUSH_BYTES = 64 * 1024
"""A complete reply of this size is flushed at once. A smaller one is, if the call does not deliver it."""
FLUSH_INTERVAL_S = 1.0
"""A reply that takes longer than this is flushed while it arrives, at most this often."""

_CALL, _LOCK = "call.json", "lock"
_FILE_NAMES = {"reply": "reply.json.part", "raw": "raw.part"}
_WRITE_FLAGS = os.O_WRONLY | CREATE_FLAGS
_APPEND_FLAGS = os.O_WRONLY | os.O_APPEND | BINARY_FLAGS


class SpoolRecord:
    """A record that this process writes, one thread at a time.

    Args:
        folder: an empty folder.
        size: learns of the record if it is kept.
        lock: the lock of the folder.
        facts: facts of the call, as JSON values.

    Attributes:
        folder: the argument of the same name.
    """

    def __init__(self, folder: Path, size: SizeFile, lock: FileLock, facts: Mapping[str, object]) -> None:
        self._open: dict[str, int] = {}
        self._links: list[str] = []
        self.folder = folder
        self._size = size
        self._lock = lock
        self._facts = facts
        self._size_bytes = 0
        self._has_url = False
        self._flush_at = time.monotonic() + FLUSH_INTERVAL_S
        call = self._create_file(_CALL)
        write_all(call, _encode_facts(facts))

    def write(self, part: str, data: bytes) -> None:
        """Append to a part: "reply", "raw", or the number of an image. Raises OSError."""
        name = _FILE_NAMES.get(part) or f"{part}.part"
        descriptor = self._open.get(name)
        if descriptor is None:
            descriptor = self._create_file(name, _APPEND_FLAGS if name in self._links else _WRITE_FLAGS)
        write_all(descriptor, data)
        self._size_bytes += len(data)
        self._has_url = self._has_url or (part == "reply" and b"http" in data)
        if time.monotonic() >= self._flush_at:
            self.sync()

    def share(self, part: str, path: str) -> bool:
        """Link to the file of an image that somebody else writes. Return False if that is impossible."""
        name = f"{part}.part"
        try:
            os.link(path, f"{self.folder}/{name}")
        except OSError:  # another disk, or a file system without links
            return False
        self._links.append(name)
        return True

    def complete(self) -> None:
        """Record the end of the reply, and flush it if it is large or names a URL. Raises OSError.

        A small reply reaches the caller sooner than the disk. A flush would only prolong the time in which
        a crash of the machine takes it. An image at a URL has yet to be downloaded.
        """
        if self._links or self._size_bytes >= FLUSH_BYTES or self._has_url:
            self.sync()

    def sync(self) -> None:
        """Flush the record and its name to the disk. Raises OSError."""
        for descriptor in self._open.values():
            os.fsync(descriptor)
        for name in self._links:
            if name not in self._open:
                sync_file(self.folder / name)
        sync_folder(self.folder)
        sync_folder(self.folder.parent)
        self._flush_at = time.monotonic() + FLUSH_INTERVAL_S

    def keep(self, reason: str) -> None:
        """Leave the record for `Spool.list_replies`, with a reason, and flush it. Raises OSError."""
        try:
            try:
                linked_bytes = sum(os.stat(self.folder / name).st_size for name in self._links)
                self._size.add(self._size_bytes + linked_bytes)
            finally:
                write_facts(self.folder, {**self._facts, "why": reason})
        finally:
            try:
                os.close(self._open.pop(_CALL))  # the facts have a new file, which is flushed
                self.sync()
            finally:
                self._close_files()
                self._lock.release(remove=False)

    def remove(self) -> None:
        """Remove the record with all its parts. Raises OSError."""
        # The facts go last: a record whose removal was interrupted is still known.
        names = [*({*self._links, *self._open} - {_CALL}), _CALL]
        self._close_files()
        try:
            for name in names:
                os.unlink(f"{self.folder}/{name}")
            os.rmdir(self.folder)
        except OSError:
            _remove_folder(self.folder)
        finally:
            self._lock.release(remove=False)

    def __del__(self) -> None:
        self._close_files()  # after Ctrl-C before `keep` or `remove`, the record is orphaned

    def _create_file(self, name: str, flags: int = _WRITE_FLAGS) -> int:
        descriptor = self._open[name] = os.open(f"{self.folder}/{name}", flags, 0o600)
        return descriptor

    def _close_files(self) -> None:
        descriptors, self._open = self._open, {}
        for descriptor in descriptors.values():
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class SpooledReply:
    """A record in the spool.

    Attributes:
        folder: folder of the record.
        facts: facts of the call and of its reply; only ``started_at`` if a crash of the machine took them.
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
        if isinstance(reason, str):
            return reason
        return "its process ended in the middle of the call" if self.is_known else "its facts are lost"

    @property
    def is_known(self) -> bool:
        """Whether the facts of the call are readable. If not, the request is unknown."""
        return "imgkit_spool" in self.facts

    @property
    def recovered_to(self) -> tuple[str, ...]:
        """Paths of the recovered images, empty before a recovery and if no image was readable."""
        paths = self.facts.get("recovered_to")
        return tuple(str(path) for path in paths) if isinstance(paths, list) else ()

    @property
    def saved_images(self) -> dict[int, str]:
        """Paths by index of the images that an unfinished recovery has saved and that still exist."""
        paths = self.facts.get("saved_images")
        if not isinstance(paths, dict):
            return {}
        known = {int(index): str(path) for index, path in paths.items() if str(index).isdecimal()}
        return {index: path for index, path in known.items() if os.path.isfile(path)}

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


def read_record(folder: Path) -> SpooledReply | None:
    """Return the record in a folder, None for a folder without facts and without parts."""
    facts, size_bytes = _read_facts(folder), _measure(folder)
    if facts is None and not size_bytes:
        return None
    if facts is None:
        facts = {"started_at": folder.stat().st_mtime}
    return SpooledReply(folder, facts, _find_state(folder, facts), size_bytes)


def _find_state(folder: Path, facts: Mapping[str, object]) -> Literal["running", "kept", "orphaned"]:
    if "why" in facts:
        return "kept"
    lock = _try_lock(folder)
    if lock is None:
        return "running"
    lock.release(remove=False)
    return "orphaned"


def lock_record(folder: Path) -> FileLock:
    """Return the lock of a record: on its folder, or on a file where the system locks no folders.

    Raises:
        BlockingIOError: a process has it.
        OSError: the folder cannot be locked.
    """
    try:
        return FileLock.acquire_folder(folder)
    except (BlockingIOError, FileNotFoundError):
        raise
    except OSError:
        return FileLock.acquire(folder / _LOCK)


def _try_lock(folder: Path) -> FileLock | None:
    """Return the lock of a record that another process may write, also of an older imgkit."""
    try:
        lock = lock_record(folder)
        if lock.path == folder and (folder / _LOCK).exists():
            FileLock.acquire(folder / _LOCK).release()
    except BlockingIOError:
        return None
    return lock


def drop_folder(folder: Path) -> bool:
    """Remove a record; return False while its process writes it. Raises OSError."""
    try:
        lock = _try_lock(folder)
    except FileNotFoundError:
        return True  # another process was faster
    if lock is None:
        return False
    try:
        with suppress(FileNotFoundError):  # another process was faster
            _remove_folder(folder)
    finally:
        lock.release(remove=False)
    return True


def _remove_folder(folder: Path) -> None:
    """Remove a record. Its facts go last, so that an interrupted removal leaves no unknown request."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)  # imgkit makes none
        elif path.name != _CALL:
            path.unlink(missing_ok=True)
    (folder / _CALL).unlink(missing_ok=True)
    folder.rmdir()


def _read_facts(folder: Path) -> Mapping[str, object] | None:
    try:
        facts = json.loads(_read(folder / _CALL))
    except (OSError, ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) and facts.get("imgkit_spool") == VERSION else None


def _measure(folder: Path) -> int:
    total = 0
    for path in folder.glob("*.part"):
        with suppress(FileNotFoundError):  # delivered at this moment
            info = path.lstat()
            total += info.st_size if stat.S_ISREG(info.st_mode) and info.st_size <= MAX_PART_BYTES else 0
    return total


def _read(path: Path) -> bytes:
    """Return the content of a part, b"" for a missing, irregular or oversized one. Raises OSError."""
    try:
        return read_regular_file(path, MAX_PART_BYTES, follow=False)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.EFBIG):
            return b""
        raise


def write_facts(folder: Path, facts: Mapping[str, object]) -> None:
    """Replace the facts of a record. Raises OSError."""
    write_atomically(folder / _CALL, _encode_facts(facts))


def _encode_facts(facts: Mapping[str, object]) -> bytes:
    return json.dumps(facts, ensure_ascii=True, default=str).encode("ascii")
