"""Part files: hidden files in the target folder that receive images during the download.

They keep images that will be saved out of memory. The core writes them in chunks with `RunBlocking` effects;
saving renames them. imgkit deletes a part file without a final name when nothing refers to it, at the latest
at the end of the call. It first copies a partial image that the caller still holds into memory.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from contextlib import suppress
from pathlib import Path
from weakref import WeakValueDictionary

from imgkit.errors import UnreadableReplyError
from imgkit.files import BINARY_FLAGS, CREATE_FLAGS, write_all
from imgkit.images.sources import BytesSource, FileSource, Source, hash_source

MAX_OPEN_FILES = 64
"""Limit of open part files: hundreds of images may arrive at the same time."""

BUFFER_BYTES = 128 * 1024
"""Size of the memory buffer of each file. It counts with hundreds of concurrent responses."""

MOST_CHUNKS = 64
"""Most chunks in memory. With more, `PartFile.read_at` joins them first."""

_open_descriptors: set[int] = set()
_CREATE_FLAGS = os.O_RDWR | CREATE_FLAGS
_APPEND_FLAGS = os.O_RDWR | os.O_APPEND | BINARY_FLAGS


class PartFiles:
    """The part files of a response.

    Args:
        folder: the existing target folder.
        digests: compute the SHA-256 of each image during the download.
    """

    def __init__(self, folder: Path, *, digests: bool) -> None:
        self._folder = folder
        self._digests = digests
        self._files: WeakValueDictionary[str, PartFile] = WeakValueDictionary()
        self._count = 0

    def new_file(self) -> PartFile:
        """Return a part file for the next image."""
        file = self.make_file(self._folder, self._digests)
        self._files[str(self._count)] = file
        self._count += 1
        return file

    def make_file(self, folder: Path, digest: bool) -> PartFile:
        """Return a new file."""
        return PartFile(folder, digest=digest)

    def find(self, part: str) -> PartFile | None:
        """Return the file of an image by its number in the reply, None for none."""
        return self._files.get(part)

    @property
    def should_flush(self) -> bool:
        """Whether the buffers hold enough data for a `write`."""
        return any(file.buffered >= BUFFER_BYTES for file in self._files.values())

    @property
    def on_disk(self) -> bool:
        """Whether any image is on disk."""
        return any(file.path is not None for file in self._files.values())

    @property
    def is_behind(self) -> bool:
        """Whether a file on disk lacks bytes that its buffer has."""
        return any(file.path is not None and file.buffered for file in self._files.values())

    def write(self) -> None:
        """Write the buffers to disk. A short image without a file stays in memory."""
        for file in list(self._files.values()):
            if file.path is not None or file.buffered >= BUFFER_BYTES:
                file.write()

    def close(self) -> None:
        """Delete the files without a final name at the end of the call. Idempotent."""
        for file in list(self._files.values()):
            file.release()


class PartFile:
    """An image during its download; also its `Source`.

    Attributes:
        path: the file on disk; None while the image is in memory.
        length: bytes received so far.
        buffered: received bytes that are not on disk.
    """

    # Class attributes for `__del__`: Ctrl-C may interrupt `__init__`.
    path: Path | None = None
    _descriptor: int | None = None

    def __init__(self, folder: Path, *, digest: bool) -> None:
        self._folder: Path | None = folder
        self._digest = hashlib.sha256() if digest else None
        self._chunks: list[bytes] = []
        self._has_final_name = False
        self._is_shared = False
        self._process = os.getpid()
        self._lock = threading.Lock()  # the caller may read a partial image while the call ends
        self.length = 0
        self.buffered = 0

    def add(self, data: bytes) -> None:
        """Append received bytes to the buffer."""
        self._chunks.append(data)
        self.length += len(data)
        self.buffered += len(data)

    def write(self) -> None:
        """Write the buffer to disk. If the disk is full, keep the image in memory: it may be billed.

        Raises:
            UnreadableReplyError: the bytes on disk cannot be read back either.
        """
        if self._folder is None:
            return
        if self._digest is not None:
            for chunk in self._chunks:
                self._digest.update(chunk)
        written = self.length - self.buffered
        try:
            descriptor = self._open(self._folder)
            for chunk in self._chunks:
                write_all(descriptor, chunk)
            self._chunks, self.buffered = [], 0
            if len(_open_descriptors) > MAX_OPEN_FILES:
                self._close()
        except OSError:
            if self._descriptor is not None:
                with suppress(OSError):  # a spool may share the file, and go on behind these bytes
                    os.ftruncate(self._descriptor, written)
            self._load_into_memory(written)

    def _open(self, folder: Path) -> int:
        """Return the descriptor for writing. Raises OSError."""
        if self._descriptor is None:
            if self.path is None:
                self.path = folder / f".imgkit-{secrets.token_hex(8)}.part"
                self._descriptor = os.open(self.path, _CREATE_FLAGS, 0o666)
            else:
                self._descriptor = os.open(self.path, _APPEND_FLAGS)
            _open_descriptors.add(self._descriptor)
        return self._descriptor

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            _open_descriptors.discard(descriptor)
            os.close(descriptor)

    def share(self) -> None:
        """Mark the file as handed to the caller: saving copies it, and its image outlives the call."""
        self._is_shared = True

    @property
    def can_be_renamed(self) -> bool:
        """Whether saving may rename this file instead of copying it."""
        return self.path is not None and not self._is_shared

    def source(self) -> Source | None:
        """Return this file as the image's source; None if the image is in memory."""
        return None if self.path is None else self

    def read(self) -> bytes:
        """Return the bytes.

        Raises:
            UnreadableReplyError: the bytes are on disk and cannot be read.
        """
        with self._lock:
            if self.path is not None:
                return self._read_disk(self.length - self.buffered, 0) + b"".join(self._chunks)
            self._chunks = [b"".join(self._chunks)]
            return self._chunks[0]

    def read_at(self, size: int, position: int) -> bytes:
        """Return `size` bytes from `position` on; raises as `read` does."""
        with self._lock:
            if self.path is not None:
                return self._read_disk(size, position)
            if len(self._chunks) > MOST_CHUNKS:
                self._chunks = [b"".join(self._chunks)]
            return self._copy_chunks(size, position)

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the bytes."""
        if self.path is None:
            return hashlib.sha256(self.read()).hexdigest()
        if self._digest is None:
            self._digest = hash_source(self)
        return self._digest.hexdigest()

    def sync(self) -> Path | None:
        """Flush the file to the disk and return its path. Raises OSError.

        Returns None if the image is in memory, where it is again when another process has deleted the file.
        """
        if self._folder is None:
            return None
        try:
            descriptor = self._open(self._folder)
            if self.path is None or not os.path.lexists(self.path):  # a spool may have a link
                self._load_into_memory(self.length)
            else:
                os.fsync(descriptor)
        finally:
            self._close()
        return self.path

    def record_move(self, path: Path) -> None:
        """Record that saving has moved the file to `path`, its final name."""
        self.path, self._has_final_name = path, True

    def record_undo(self, path: Path) -> None:
        """Record that saving has moved the file back to the hidden `path`."""
        self.path, self._has_final_name = path, False

    def finish_saving(self, path: Path) -> Source:
        """Return the source of the image after saving it at `path`; the part file ends."""
        try:
            source = FileSource.from_path(path, self._digest.hexdigest() if self._digest is not None else "")
        except OSError:  # another process has deleted it
            return BytesSource(self.read())
        self.discard()
        self.record_move(path)
        return source

    def release(self) -> None:
        """Delete the file at the end of the call; copy a shared image into memory first."""
        with self._lock:
            if self._is_shared and self.path is not None:
                with suppress(UnreadableReplyError):  # reading the image raises it again
                    self._load_into_memory(self.length)
        self.discard()

    def discard(self) -> None:
        """Delete the file unless it has its final name. Idempotent."""
        self._close()
        if self.path is not None and not self._has_final_name and self._process == os.getpid():
            try:
                self.path.unlink(missing_ok=True)
            except OSError:
                return  # a hidden file does no harm

    def __del__(self) -> None:
        self.discard()

    def __reduce__(self) -> tuple[type[BytesSource], tuple[bytes]]:
        return BytesSource, (self.read(),)

    def _read_disk(self, size: int, position: int) -> bytes:
        if self.path is None or not size:
            return b""
        try:
            # Read by descriptor: another process may have deleted the name (except on Windows).
            if self._descriptor is not None and hasattr(os, "pread"):
                return os.pread(self._descriptor, size, position)
            with self.path.open("rb") as stream:
                stream.seek(position)
                return stream.read(size)
        except OSError as error:
            raise UnreadableReplyError(
                f"imgkit wrote the image to {str(self.path)!r} during the download and cannot read it again "
                f"({error.strerror or error}). The image may have been billed.",
                body=b"",
            ) from None

    def _copy_chunks(self, size: int, position: int) -> bytes:
        """Return bytes that are in memory. The chunks stay apart, so a few bytes are cheap."""
        pieces = []
        for chunk in self._chunks:
            if position < len(chunk) and size > 0:
                pieces.append(chunk[position : position + size])
                size -= len(pieces[-1])
            position = max(0, position - len(chunk))
        return b"".join(pieces)

    def _load_into_memory(self, written: int) -> None:
        self._chunks = [self._read_disk(written, 0), *self._chunks]
        self.discard()
        self._folder = self.path = None
        self.buffered = 0
