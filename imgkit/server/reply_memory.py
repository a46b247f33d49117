"""The memory that the images of all replies share: beyond it, images go to the disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from imgkit.images.image import Image
from imgkit.images.part_files import PartFile, PartFiles
from imgkit.images.sources import Source

MAX_BYTES = 64 * 1024 * 1024

MAX_REPLY_BYTES = 4 * 1024 * 1024
"""Most bytes of one reply in memory."""

MOST_SENT_CHUNKS = 16
"""Most chunks of an image that are sent as they arrived. With more, each is small, so they are joined."""


class ReplyMemory:
    """Counts the bytes of images in memory.

    Args:
        max_bytes: bytes from which on images go to the disk.

    Attributes:
        used: the bytes of images in memory.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.RLock()  # the garbage collector may end a file while one is counted
        self.used = 0

    @property
    def is_full(self) -> bool:
        """Whether further bytes should go to the disk."""
        return self.used >= self._max_bytes

    @property
    def is_scarce(self) -> bool:
        """Whether replies that clients have should leave."""
        return self.used >= self._max_bytes // 2

    def count(self, size: int) -> None:
        """Count bytes that came, or that left if it is negative."""
        with self._lock:
            self.used += size


class ReplyPartFiles(PartFiles):
    """The part files of a reply that stay in memory while there is room.

    Args:
        folder: folder for those that do not.
        memory: the memory of all replies.
        digests: compute the SHA-256 of each image during the download.
    """

    def __init__(self, folder: Path, memory: ReplyMemory, *, digests: bool) -> None:
        super().__init__(folder, digests=digests)
        self.memory = memory

    def make_file(self, folder: Path, digest: bool) -> PartFile:
        """Return a new file."""
        return ReplyPartFile(folder, self.memory, digest=digest)

    @property
    def should_flush(self) -> bool:
        """Whether there is no room, and the buffers hold enough data for a `write`."""
        is_large = any(file.path or file.buffered > MAX_REPLY_BYTES for file in self._files.values())
        return (is_large or self.memory.is_full) and super().should_flush


class ReplyPartFile(PartFile):
    """An image of a reply. It is its own source in memory, too, so its bytes exist once.

    Args:
        folder: folder for its file.
        memory: the memory of all replies.
        digest: compute the SHA-256 during the download.
    """

    _counted = 0

    def __init__(self, folder: Path, memory: ReplyMemory, *, digest: bool) -> None:
        super().__init__(folder, digest=digest)
        self._memory = memory
        self._writing = threading.Lock()  # a late spool writes while the reply arrives

    def add(self, data: bytes) -> None:
        """Append received bytes to the buffer."""
        with self._writing:
            super().add(data)
            self._count()

    def write(self) -> None:
        """Write the buffer to disk; see `PartFile.write`."""
        with self._writing, self._lock:
            super().write()
            self._count()

    def source(self) -> Source:
        """Return this file."""
        return self

    def finish_saving(self, path: Path) -> Source:
        """Return the source of the image after saving it; this file if it stays in memory."""
        return self if self.path is None else super().finish_saving(path)

    def find_block(self, size: int, position: int) -> memoryview | None:
        """Return bytes from a position on without a copy, up to the end of a chunk; None if on disk."""
        with self._lock:
            if self.path is not None:
                return None
            if len(self._chunks) > MOST_SENT_CHUNKS:
                self._chunks = [b"".join(self._chunks)]
            for chunk in self._chunks:
                if position < len(chunk):
                    return memoryview(chunk)[position : position + size]
                position -= len(chunk)
            return memoryview(b"")

    def move_to(self, path: Path) -> None:
        """Give the image a file of its own that outlives the process. May block.

        It stays in memory if the disk is full.

        Raises:
            OSError: the file cannot get its name.
        """
        self.write()
        with self._writing, self._lock:
            if self.path is not None and not self._has_final_name:
                os.replace(self.path, path)
                self.record_move(path)
                self._close()

    def __del__(self) -> None:
        if self._counted:
            self._memory.count(-self._counted)
        super().__del__()

    def _count(self) -> None:
        size = self.length if self.path is None else self.buffered
        self._memory.count(size - self._counted)
        self._counted = size


def is_in_memory(source: Source) -> bool:
    """Return whether an image of a reply is in memory, and may stay there."""
    return isinstance(source, ReplyPartFile) and source.path is None


def read_block(source: Source, size: int, position: int) -> bytes | memoryview:
    """Return bytes of an image from a position on, without a copy if it is in memory.

    A block keeps its chunk in memory, also once the image is on the disk: let go of it soon.

    Args:
        source: the image.
        size: most bytes; the block may be shorter, and is empty at the end only.
        position: the first of them.

    Raises:
        ImgkitError: its file is gone.
    """
    block = source.find_block(size, position) if isinstance(source, ReplyPartFile) else None
    return source.read_at(size, position) if block is None else block


def write_images(images: Sequence[Image]) -> list[Path]:
    """Write images that are in memory to the files that they are named after; return these. May block.

    An image stays in memory if the disk is full.
    """
    paths: list[Path] = []
    for image in images:
        if isinstance(image.source, ReplyPartFile) and image.source.path is None and image.path is not None:
            with suppress(OSError):
                image.source.move_to(image.path)
            paths += [image.path] if image.source.path == image.path else []
    return paths
