"""Locks on files that end with the process that holds them, and never make anybody wait."""

from __future__ import annotations

import os
import sys
import weakref
from pathlib import Path

if sys.platform != "win32":
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
else:
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)


_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)


class FileLock:
    """An exclusive lock on a file, held by this object as long as it is there, or until `release`.

    Two objects exclude each other also within one process. A forked child does not inherit the lock.

    Args:
        path: of the lock file; made with mode 0600, its folder must exist.
        descriptor: of the locked file.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        self.path = path
        _held.add(self)

    @classmethod
    def try_acquire(cls, path: Path) -> FileLock | None:
        """Return the lock, None if somebody else holds it.

        Raises:
            OSError: the file cannot be opened.
        """
        while True:
            descriptor = os.open(path, _FLAGS, 0o600)
            try:
                _lock(descriptor)
                if _same_file(descriptor, path):
                    return cls(path, descriptor)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # removed by its holder between our two looks at it

    def write(self, data: bytes) -> None:
        """Replace the content of the lock file, for others to read."""
        assert self._descriptor is not None, "the lock is held"
        os.pwrite(self._descriptor, data, 0)
        os.ftruncate(self._descriptor, len(data))

    def release(self, *, remove: bool = True) -> None:
        """Give the lock up. Idempotent.

        Args:
            remove: remove the file first, so that lock files do not pile up.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            if remove:
                self.path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def forget(self) -> None:
        """Let go of the descriptor. In a forked child the parent keeps the lock."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        self.forget()


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _after_fork() -> None:
    for lock in list(_held):
        lock.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
