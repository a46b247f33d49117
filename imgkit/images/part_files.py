"""Pictures on disk while they arrive: hidden files beside where they are to be saved.

So a picture that is to be saved is never in memory as a whole. Its file is written in pieces, in `Run` needs;
saving gives it its name. A file without a name goes as soon as nobody needs it, and at the latest when the
call ends; a partial picture that its caller still holds then is in memory from there on.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

from imgkit.errors import UnreadableReplyError
from imgkit.images.sources import BytesSource, FileSource, Source, hash_source

MOST_OPEN = 64
"""So many files are kept open while they are written; hundreds of pictures may arrive at once."""

PIECE_BYTES = 128 * 1024
"""How much waits in memory until it is written. With hundreds of replies at once, this counts."""

_open: set[int] = set()
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_MORE = os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0)


class PartFiles:
    """The files of one reply, as long as somebody needs them.

    Args:
        folder: where the pictures are to be saved; it is there.
        digests: count the SHA-256 of each picture while it arrives, since it will be asked for.
    """

    def __init__(self, folder: Path, *, digests: bool) -> None:
        self._folder = folder
        self._digests = digests
        self._files: WeakSet[PartFile] = WeakSet()

    def new(self) -> PartFile:
        """Return the place of the next picture."""
        file = PartFile(self._folder, digest=self._digests)
        self._files.add(file)
        return file

    @property
    def due(self) -> bool:
        """Whether there is enough for `write` to be worth while."""
        return any(file.waiting >= PIECE_BYTES for file in self._files)

    @property
    def used(self) -> bool:
        """Whether anything is on disk."""
        return any(file.path is not None for file in self._files)

    def write(self) -> None:
        """Write what waits; a picture of which nothing is on disk stays in memory while it is short."""
        for file in self._files:
            if file.path is not None or file.waiting >= PIECE_BYTES:
                file.write()

    def close(self) -> None:
        """The call ends: remove what nobody has given a name. Idempotent."""
        for file in list(self._files):
            file.end()


class PartFile:
    """One picture while it arrives; see `imgkit.images.image.Source`.

    Attributes:
        path: the file that it is in, None as long as it is in memory.
        length: bytes so far.
        waiting: how many of them are to be written.
    """

    # What `__del__` looks at is there from the first: Ctrl-C may come within `__init__`.
    path: Path | None = None
    _descriptor: int | None = None

    def __init__(self, folder: Path, *, digest: bool) -> None:
        self._folder: Path | None = folder
        self._digest = hashlib.sha256() if digest else None
        self._pieces: list[bytes] = []
        self._named = False
        self._lent = False
        self._process = os.getpid()
        self._lock = threading.Lock()  # a caller may read a partial picture while the call ends
        self.length = 0
        self.waiting = 0

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        self._pieces.append(data)
        self.length += len(data)
        self.waiting += len(data)

    def write(self) -> None:
        """Write what waits. A disk that takes no more leaves the picture in memory: it may be paid for.

        Raises:
            UnreadableReplyError: what is on the disk cannot be read again either.
        """
        if self._folder is None:
            return
        if self._digest is not None:
            for piece in self._pieces:
                self._digest.update(piece)
        written = self.length - self.waiting
        try:
            descriptor = self._opened(self._folder)
            for piece in self._pieces:
                view = memoryview(piece)
                while view:
                    view = view[os.write(descriptor, view) :]
            self._pieces, self.waiting = [], 0
            if len(_open) > MOST_OPEN:
                self._close()
        except OSError:
            self._back_to_memory(written)

    def _opened(self, folder: Path) -> int:
        """Return the descriptor to write to. Raises OSError."""
        if self._descriptor is None:
            if self.path is None:
                self.path = folder / f".imgkit-{secrets.token_hex(8)}.part"
                self._descriptor = os.open(self.path, _NEW, 0o666)
            else:
                self._descriptor = os.open(self.path, _MORE)
            _open.add(self._descriptor)
        return self._descriptor

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            _open.discard(descriptor)
            os.close(descriptor)

    def lend(self) -> None:
        """The caller gets this, as a partial picture: saving makes another file, and it outlives the call."""
        self._lent = True

    @property
    def may_be_named(self) -> bool:
        """Whether this file itself may become that of the saved picture."""
        return self.path is not None and not self._lent

    def source(self) -> Source | None:
        """Return this, None if the picture has stayed in memory."""
        return None if self.path is None else self

    def read(self) -> bytes:
        """Return the bytes.

        Raises:
            UnreadableReplyError: they are on the disk, and cannot be read from there.
        """
        with self._lock:
            if self.path is not None:
                return self._from_disk(self.length - self.waiting, 0) + b"".join(self._pieces)
            self._pieces = [b"".join(self._pieces)]  # so that it is there once, however often it is read
            return self._pieces[0]

    def read_at(self, size: int, position: int) -> bytes:
        """Return some of the bytes; raises as `read` does."""
        with self._lock:
            if self.path is not None:
                return self._from_disk(size, position)
        return self.read()[position : position + size]

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the bytes."""
        if self.path is None:
            return hashlib.sha256(self.read()).hexdigest()
        if self._digest is None:
            self._digest = hash_source(self)
        return self._digest.hexdigest()

    def sync(self) -> Path | None:
        """Have the disk take the whole file, and return it. Raises OSError.

        Somebody may have taken it away, with its folder perhaps: then the picture is in memory again, and the
        answer is None.
        """
        assert self._folder is not None, "it is on disk"
        try:
            descriptor = self._opened(self._folder)
            if os.fstat(descriptor).st_nlink == 0:
                self._back_to_memory(self.length)
            else:
                os.fsync(descriptor)
        finally:
            self._close()
        return self.path

    def moved(self, path: Path) -> None:
        """Take note that the file is now at `path`; it stays there."""
        self.path, self._named = path, True

    def moved_back(self, path: Path) -> None:
        """Take note that it is a hidden file again, at `path`."""
        self.path, self._named = path, False

    def saved(self, path: Path) -> Source:
        """Return the source of a picture that has been saved at `path`."""
        try:
            source = FileSource.at(path, self._digest.hexdigest() if self._digest is not None else "")
        except OSError:  # somebody has taken it away at once
            return BytesSource(self.read())
        self.discard()
        self.moved(path)
        return source

    def end(self) -> None:
        """The call ends: a partial picture that is still held goes to memory, any other file goes."""
        with self._lock:
            if self._lent and self.path is not None:
                with suppress(UnreadableReplyError):  # as whoever reads it will be told
                    self._back_to_memory(self.length)
        self.discard()

    def discard(self) -> None:
        """Remove the file, if it has got no name. Idempotent."""
        self._close()
        if self.path is not None and not self._named and self._process == os.getpid():
            try:
                self.path.unlink(missing_ok=True)
            except OSError:
                return  # hidden, and of no harm

    def __del__(self) -> None:
        self.discard()

    def __reduce__(self) -> tuple[type[BytesSource], tuple[bytes]]:
        return BytesSource, (self.read(),)

    def _from_disk(self, size: int, position: int) -> bytes:
        if self.path is None or not size:
            return b""
        try:
            # The name may be gone, where an open file can be taken away at all: not on Windows.
            if self._descriptor is not None and hasattr(os, "pread"):
                return os.pread(self._descriptor, size, position)
            with self.path.open("rb") as stream:
                stream.seek(position)
                return stream.read(size)
        except OSError as error:
            raise UnreadableReplyError(
                f"the picture was written to {str(self.path)!r} while it arrived, and cannot be read from "
                f"there ({error.strerror or error}). It may have been billed",
                body=b"",
            ) from None

    def _back_to_memory(self, written: int) -> None:
        self._pieces = [self._from_disk(written, 0), *self._pieces]
        self.discard()
        self._folder = self.path = None
        self.waiting = 0  # for good
