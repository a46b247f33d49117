"""File locks that the system releases when their process ends. Acquiring one never waits."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from imgkit.files import BINARY_FLAGS, NO_FOLLOW
from imgkit.fork import ForkRegistry

if sys.platform != "win32":
    import fcntl

    def _lock_descriptor(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _probe_descriptor(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def _unlock_descriptor(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _read_start(descriptor: int, limit: int) -> bytes:
        return os.pread(descriptor, limit, 0)

    def _write_start(descriptor: int, data: bytes) -> None:
        os.pwrite(descriptor, data, 0)
else:
    import msvcrt

    def _lock_descriptor(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock_descriptor(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

    _probe_descriptor = _lock_descriptor

    def _read_start(descriptor: int, limit: int) -> bytes:
        os.lseek(descriptor, 0, os.SEEK_SET)
        return os.read(descriptor, limit)

    def _write_start(descriptor: int, data: bytes) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, data)


_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | NO_FOLLOW | BINARY_FLAGS


class FileLock:
    """An exclusive lock on a file. It ends with `release`, with this object, or with the process.

    Two objects exclude each other within one process too. A forked child does not inherit the lock.

    Example::

        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "job.lock"
        >>> lock = FileLock.try_acquire(path)
        >>> FileLock.try_acquire(path) is None
        True
        >>> lock.release()

    Args:
        path: path of the lock file. `try_acquire` creates it with mode 0600; its folder must exist.
        descriptor: descriptor of the locked file.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        self.path = path
        _LOCKS.add(self)

    @classmethod
    def try_acquire(cls, path: Path) -> FileLock | None:
        """Return the lock, or None if another object or process holds it.

        Raises:
            OSError: the file cannot be opened.
        """
        try:
            return cls.acquire(path)
        except BlockingIOError:
            return None

    @classmethod
    def acquire(cls, path: Path) -> FileLock:
        """Return the lock.

        Raises:
            BlockingIOError: another object holds the lock.
            OSError: the file cannot be opened.
        """
        while True:
            descriptor = os.open(path, _LOCK_FLAGS, 0o600)
            try:
                _lock_descriptor(descriptor)
                if is_same_file(descriptor, path):
                    return cls(path, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            # The holder removed the file after this loop opened it: try the new file.
            os.close(descriptor)

    @classmethod
    def acquire_folder(cls, folder: Path) -> FileLock:
        """Return a lock on a folder itself, which costs no file. Release it with ``remove=False``.

        Raises:
            BlockingIOError: another object holds the lock.
            OSError: the folder is missing, or the system locks no folders (Windows, NFS).
        """
        descriptor = os.open(folder, os.O_RDONLY | NO_FOLLOW | BINARY_FLAGS)
        try:
            _lock_descriptor(descriptor)
            if not is_same_file(descriptor, folder):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
        except BaseException:
            os.close(descriptor)
            raise
        return cls(folder, descriptor)

    @staticmethod
    def is_held(path: Path) -> bool:
        """Return whether an object or a process holds the lock on a file. It may block a taker for a moment.

        Raises:
            OSError: the file is missing, or cannot be opened.
        """
        descriptor = os.open(path, os.O_RDONLY | NO_FOLLOW | BINARY_FLAGS)
        try:
            _probe_descriptor(descriptor)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def read(self) -> bytes:
        """Return the content of the lock file, at most 4 KiB."""
        assert self._descriptor is not None, "the lock is held"
        return _read_start(self._descriptor, 4096)

    def write(self, data: bytes) -> None:
        """Replace the content of the lock file, which other processes may read."""
        assert self._descriptor is not None, "the lock is held"
        _write_start(self._descriptor, data)
        os.ftruncate(self._descriptor, len(data))

    def release(self, *, remove: bool = True) -> None:
        """Release the lock. Idempotent.

        Args:
            remove: remove the lock file first, which keeps lock files from piling up.
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
        """Close the descriptor and keep the file. A forked child calls this: its parent keeps the lock."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        self.forget()


class SharedFile:
    """A small file that processes read and change in turns. It stays open between the turns.

    Example::

        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "state"
        >>> one, other = SharedFile(path), SharedFile(path)
        >>> one.try_lock(), other.try_lock()
        (True, False)
        >>> one.write(b"1 turn")
        >>> one.unlock()
        >>> other.try_lock(), other.read(100)
        (True, b'1 turn')
        >>> one.close()
        >>> other.close()

    Args:
        path: path of the file. It is created with mode 0600; its folder must exist.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, _LOCK_FLAGS, 0o600)
        self.path = path
        _SHARED_FILES.add(self)

    def try_lock(self) -> bool:
        """Lock the file, and return True; return False if another object or process has it.

        Raises:
            OSError: the file cannot be locked.
        """
        try:
            _lock_descriptor(self._descriptor)
        except BlockingIOError:
            return False
        return True

    def is_current(self) -> bool:
        """Return whether the path still names this file."""
        return is_same_file(self._descriptor, self.path)

    def read(self, limit: int) -> bytes:
        """Return the content, at most `limit` bytes."""
        return _read_start(self._descriptor, limit)

    def write(self, data: bytes) -> None:
        """Write from the start on. Older content behind the new one stays."""
        _write_start(self._descriptor, data)

    def unlock(self) -> None:
        """Let others have the file."""
        _unlock_descriptor(self._descriptor)

    def close(self) -> None:
        """Close the file. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor != -1:
            os.close(descriptor)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            self.close()


def is_same_file(descriptor: int, path: Path) -> bool:
    """Return whether a path still names the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


_LOCKS = ForkRegistry(FileLock.forget)
_SHARED_FILES = ForkRegistry(SharedFile.close)
