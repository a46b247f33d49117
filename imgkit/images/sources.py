"""Sources of an image's bytes: memory, a saved file, a URL."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from imgkit.errors import NotDownloadedError
from imgkit.redact import safe_url
from imgkit.wire.json_values import Source as Source

if TYPE_CHECKING:
    import hashlib

_BLOCK_BYTES = 256 * 1024


def blocks(source: Source) -> Iterator[bytes]:
    """Yield the bytes of a picture that is on disk, which so is never in memory as a whole."""
    for position in range(0, source.length, _BLOCK_BYTES):
        yield source.read_at(_BLOCK_BYTES, position)


def hash_source(source: Source) -> hashlib._Hash:
    """Return the digest of a picture that is on disk."""
    import hashlib

    digest = hashlib.sha256()
    for block in blocks(source):
        digest.update(block)
    return digest


class _Whole(ABC):
    """What a source can do that has all bytes in memory."""

    __slots__ = ()

    @abstractmethod
    def read(self) -> bytes:
        """Return the bytes."""

    def read_at(self, size: int, position: int) -> bytes:
        """Return some of the bytes."""
        return self.read()[position : position + size]

    @property
    def length(self) -> int:
        """How many they are."""
        return len(self.read())

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the bytes."""
        import hashlib

        return hashlib.sha256(self.read()).hexdigest()


class BytesSource(_Whole):
    """Bytes that are here."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self) -> bytes:
        """Return the bytes."""
        return self._data

    def read_at(self, size: int, position: int) -> bytes:
        """Return `size` bytes from `position` on."""
        return self._data[position : position + size]


class FileSource(NamedTuple):
    """Bytes in a file that `save_to=` has written; they are read when they are asked for.

    Attributes:
        path: the file.
        length: its size in bytes.
        modified_ns: when it was written.
        known_sha256: hexadecimal digest of the bytes, "" if it is not known yet.
    """

    path: Path
    length: int
    modified_ns: int
    known_sha256: str = ""

    @classmethod
    def at(cls, path: Path, sha256: str = "") -> FileSource:
        """Return the source for a file that is complete. Raises OSError."""
        found = path.stat()
        return cls(path.absolute(), found.st_size, found.st_mtime_ns, sha256)

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the bytes; raises as `read` does."""
        if self.known_sha256:
            return self.known_sha256
        return hash_source(self).hexdigest()

    def read(self) -> bytes:
        """Return the bytes. Raises `NotDownloadedError` if the file is not as it was written."""
        return self.read_at(self.length, 0)

    def read_at(self, size: int, position: int) -> bytes:
        """Return some of the bytes; raises as `read` does."""
        try:
            with self.path.open("rb") as stream:
                now = os.fstat(stream.fileno())
                if (now.st_size, now.st_mtime_ns) == (self.length, self.modified_ns):
                    stream.seek(position)
                    return stream.read(size)
                problem = "has changed since"
        except OSError as error:
            problem = f"cannot be read any more ({error.strerror or error})"
        raise NotDownloadedError(
            f"the picture was saved to {str(self.path)!r}, and not kept in memory; that file {problem}. Ask "
            "without save_to= for pictures in memory, and save them with image.save"
        )


class UrlSource(_Whole):
    """Bytes behind a URL, fetched once, when first asked for.

    Args:
        url: where the picture is.
        fetch: fetches it, blocking; None where only `service.download(image)` can.
    """

    def __init__(self, url: str, fetch: Callable[[str], bytes] | None) -> None:
        self._url = url
        self._fetch = fetch
        self._data: bytes | None = None
        self._lock = threading.Lock()

    @property
    def here(self) -> bool:
        """Whether the bytes have been fetched."""
        return self._data is not None

    def read(self) -> bytes:
        """Return the bytes, fetching them the first time."""
        with self._lock:
            if self._data is None:
                if self._fetch is None:
                    raise NotDownloadedError(
                        f"the picture is still at {safe_url(self._url)}: get it with "
                        "`image = await service.download(image)` (without await under ImageService), "
                        "or ask for it in the reply with save_to=…"
                    )
                self._data = self._fetch(self._url)
            return self._data

    def __getstate__(self) -> tuple[str, bytes | None]:
        return self._url, self._data

    def __setstate__(self, state: tuple[str, bytes | None]) -> None:
        self._url, self._data = state
        self._fetch = None
        self._lock = threading.Lock()
