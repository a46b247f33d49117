"""The size of a spool, known without a walk over its records."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from imgkit.files import BINARY_FLAGS, NO_FOLLOW, read_regular_file, write_atomically

NAME = ".size"
_MAX_BYTES = 16 * 1024 * 1024


class SizeFile:
    """A hidden file in a spool with the size of its kept records, shared by processes.

    The first line is the time and the result of the last walk over the records. Each kept record appends a
    line with its size. The file is a hint: orphaned records are missing in it, and whoever deletes a record
    forgets the file. It exists only if the spool has kept records.

    >>> import tempfile
    >>> size = SizeFile(Path(tempfile.mkdtemp()))
    >>> size.read(60) is None
    True
    >>> size.replace(100)
    >>> size.add(20)
    >>> size.read(60)
    120

    Args:
        folder: folder of the spool.
    """

    def __init__(self, folder: Path) -> None:
        self._path = str(folder / NAME)
        self._known: tuple[tuple[int, int, int], int, float] | None = None
        self._empty_until = 0.0

    def read(self, max_age_s: float) -> int | None:
        """Return the size in bytes, None if a walk over the records is due. Raises OSError.

        Args:
            max_age_s: age in seconds above which a walk is due.
        """
        try:
            info = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return 0 if time.monotonic() < self._empty_until else None
        stamp = (info.st_ino, info.st_mtime_ns, info.st_size)
        if self._known is None or self._known[0] != stamp:
            content = _parse(self._path)
            if content is None:
                return None
            self._known = (stamp, *content)
        _, total, scanned_at = self._known
        return total if abs(time.time() - scanned_at) <= max_age_s else None

    def add(self, size_bytes: int) -> None:
        """Add the size of a record that is kept from now on. Raises OSError."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | NO_FOLLOW | BINARY_FLAGS
        descriptor = os.open(self._path, flags, 0o600)
        try:
            # A new file has no result of a walk: the next reader of any process makes one.
            os.write(descriptor, b"%d\n" % size_bytes if os.fstat(descriptor).st_size else b"0 0\n")
        finally:
            os.close(descriptor)

    def replace(self, total: int) -> None:
        """Record the result of a walk over the records. Raises OSError."""
        if total:
            write_atomically(Path(self._path), b"%d %d\n" % (time.time(), total), sync=False)
        else:
            self.forget()
            self._empty_until = time.monotonic() + 60.0

    def forget(self) -> None:
        """Let the next reader walk over the records. Raises OSError."""
        self._empty_until = 0.0
        with suppress(FileNotFoundError):
            os.unlink(self._path)


def _parse(path: str) -> tuple[int, float] | None:
    """Return the total and the time of the last walk, None for a damaged file."""
    try:
        first, *more = read_regular_file(path, _MAX_BYTES, follow=False).splitlines() or [b""]
        scanned_at, total = map(int, first.split())
        return total + sum(map(int, more)), float(scanned_at)
    except (OSError, ValueError, OverflowError):
        return None
