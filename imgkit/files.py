"""Flags for opening files, atomic writes, and a detour for standard output.

This module imports nothing else of imgkit.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

BINARY_FLAGS = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
"""Bytes pass unchanged on Windows, and programs that imgkit starts inherit no descriptor."""

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
"""Refuse to open a symbolic link."""

READ_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | BINARY_FLAGS
"""Open for reading. `O_NONBLOCK` keeps a FIFO without a writer from blocking `os.open` forever."""

CREATE_FLAGS = os.O_CREAT | os.O_EXCL | NO_FOLLOW | BINARY_FLAGS
"""Create a new file; fail if the name is taken. Combine with `os.O_WRONLY` or `os.O_RDWR`."""

_BLOCK_BYTES = 64 * 1024


def is_private(folder: Path) -> bool:
    """Return whether no other user can write to a folder, or put another folder in its place.

    The folder belongs to this user, and its parent to this user or to root. Root also accepts a folder of
    another user, such as a volume that a container mounts, if only the owners can write to the folder and
    to its parent. A folder that does not exist yet is as good as its parent.

    Without the owners and modes of POSIX every folder counts as private.

    Args:
        folder: the folder. Its parent may be missing, too.
    """
    if os.name != "posix":
        return True
    return _is_private(_stat(folder), _stat(folder.parent), os.geteuid())


def _is_private(folder: os.stat_result | None, parent: os.stat_result | None, user: int) -> bool:
    """Return whether a folder is private to a user, by its status and that of its parent."""
    if folder is not None and _is_writable_by_others(folder):
        return False
    owners = {status.st_uid for status in (folder, parent) if status is not None}
    if user == 0:
        return owners <= {0} or parent is None or not _is_writable_by_others(parent)
    return owners <= {0, user} and (folder is None or folder.st_uid == user)


def _is_writable_by_others(status: os.stat_result) -> bool:
    return bool(stat.S_IMODE(status.st_mode) & (stat.S_IWGRP | stat.S_IWOTH))


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def write_atomically(
    path: Path,
    data: bytes | Iterable[bytes],
    *,
    mode: int = 0o600,
    suffix: str = "",
    sync: bool = True,
    publish: Callable[[Path, Path], object] = Path.replace,
    part_folder: Path | None = None,
) -> None:
    """Write a hidden temporary file beside `path`, then give it the name `path`.

    Other processes see the old file, the new file or no file, and never half a file.

    Example::

        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_atomically(folder / "state.json", b"{}")
        >>> (folder / "state.json").read_bytes()
        b'{}'

    Args:
        path: the final name of the file.
        data: the content, whole or in chunks.
        mode: permissions of the file; the process's umask applies.
        suffix: end of the temporary name ``.NAME.RANDOM{suffix}``.
        sync: flush the content to the disk before the file gets its name.
        publish: gives the temporary file its name. Receives the temporary path and `path`.
        part_folder: folder of the temporary file, on the same disk; the folder of `path` by default.

    Raises:
        OSError: the file cannot be written. The temporary file is removed.
    """
    part = (part_folder or path.parent) / f".{path.name[:80]}.{secrets.token_hex(6)}{suffix}"
    # A publisher that links the file leaves the temporary name behind.
    with remove_after(part):
        descriptor = os.open(part, os.O_WRONLY | CREATE_FLAGS, mode)
        write_and_close(descriptor, data, sync=sync)
        publish(part, path)


@contextmanager
def remove_after(path: Path) -> Iterator[None]:
    """Delete a temporary file at the end of a block, also if Ctrl-C interrupts the block or the deletion.

    Raises:
        OSError: the file cannot be deleted.
    """
    try:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        # Ctrl-C raises once, at any place: the second attempt is then undisturbed.
        path.unlink(missing_ok=True)


def write_and_close(descriptor: int, data: bytes | Iterable[bytes], *, sync: bool = True) -> None:
    """Write to an open descriptor and close it, also after an error.

    Args:
        descriptor: open for writing.
        data: the content, whole or in chunks.
        sync: flush the content to the disk.

    Raises:
        OSError: the content cannot be written or flushed.
    """
    with os.fdopen(descriptor, "wb") as stream:
        for chunk in (data,) if isinstance(data, bytes) else data:
            stream.write(chunk)
        stream.flush()
        if sync:
            os.fsync(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data` to an open descriptor, which may take several writes.

    Raises:
        OSError: the content cannot be written.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def create_empty(path: Path, mode: int) -> None:
    """Create an empty file.

    Raises:
        FileExistsError: the name is taken.
        OSError: the file cannot be created.
    """
    os.close(os.open(path, os.O_WRONLY | CREATE_FLAGS, mode))


def read_regular_file(path: str | Path, max_bytes: int, *, follow: bool = True) -> bytes:
    """Return the content of a regular file. A FIFO, a device or a huge file is refused, not read.

    Example::

        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "fox.txt"
        >>> _ = path.write_text("a fox")
        >>> read_regular_file(path, max_bytes=100)
        b'a fox'

    Args:
        path: the file.
        max_bytes: size above which the file is refused.
        follow: also read through a symbolic link.

    Raises:
        OSError: the file cannot be read, is no regular file, or is larger.
    """
    with open_regular_file(path, follow=follow) as stream:
        size = os.fstat(stream.fileno()).st_size
        # A buffer of the size that the limit allows could be a gigabyte.
        content = b"" if size > max_bytes else stream.read(size + 1)
        while size < len(content) <= max_bytes and (block := stream.read(_BLOCK_BYTES)):
            content += block  # the file has grown, or its system tells no size
    if max(size, len(content)) > max_bytes:
        raise OSError(errno.EFBIG, f"{max(size, len(content))} bytes, more than {max_bytes}", str(path))
    return content


def open_regular_file(path: str | Path, *, follow: bool = True) -> BufferedReader:
    """Open a regular file for reading.

    Args:
        path: the file.
        follow: also open a symbolic link.

    Raises:
        OSError: the file cannot be read, or is no regular file.
    """
    descriptor = os.open(path, READ_FLAGS | (0 if follow else NO_FOLLOW))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, "is a folder", str(path))
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def sync_file(path: Path) -> None:
    """Flush the content of a file to the disk.

    Raises:
        OSError: the file cannot be opened, or its content cannot be flushed.
    """
    descriptor = os.open(path, os.O_RDWR | BINARY_FLAGS)  # Windows flushes no file that is read only
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link_file(file: Path, path: Path) -> bool:
    """Give a file a second name, flushed to the disk; return False where a file system cannot do so."""
    link = path.parent / f".imgkit-{secrets.token_hex(8)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with remove_after(link):
            create_empty(link, 0o666)
            mode = link.stat().st_mode & 0o777  # as the umask wants it
            link.unlink()
            os.link(file, link)
            with link.open("rb") as stream:
                os.fsync(stream.fileno())
            link.chmod(mode)
            os.replace(link, path)
        sync_folder(path.parent)
    except OSError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk. Does nothing on Windows, which cannot open a folder.

    Raises:
        OSError: the folder cannot be read, or its file system refuses.
    """
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(folder: Path) -> None:
    """Create a folder with its parents, and flush the names of those that are new.

    Example::

        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "a" / "b"
        >>> make_folders(folder)
        >>> folder.is_dir()
        True

    Raises:
        OSError: a folder cannot be created.
    """
    if folder.is_dir():
        return
    missing = [path for path in (folder, *folder.parents) if not path.is_dir()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        with suppress(OSError):  # some file systems refuse
            sync_folder(path.parent)


class _Detour:
    """A stream that stands for standard error in one thread, and for another stream in all others."""

    def __init__(self, stream: object) -> None:
        self._stream = stream
        self._thread = threading.get_ident()
        self.active = True

    def __getattr__(self, name: str) -> Any:
        is_detoured = self.active and threading.get_ident() == self._thread and sys.stderr is not None
        return getattr(sys.stderr if is_detoured else self._stream, name)


@contextmanager
def print_to_stderr() -> Iterator[None]:
    """Send to standard error what foreign code in this thread prints: standard output carries results.

    >>> with print_to_stderr():
    ...     print("hello from an import")
    """
    stdout = sys.stdout
    if stdout is None:
        yield
        return
    detour: Any = _Detour(stdout)
    sys.stdout = detour
    try:
        yield
    finally:
        detour.active = False  # code may have kept it, such as a logging handler
        if sys.stdout is detour:
            sys.stdout = stdout
