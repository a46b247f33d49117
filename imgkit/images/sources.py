"""Sources of an image's bytes: memory, a saved file or a URL."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from imgkit.errors import ImgkitError, NotDownloadedError
from imgkit.redact import safe_url
from imgkit.wire.json_values import Source as Source

if TYPE_CHECKING:
    import hashlib

_BLOCK_BYTES = 256 * 1024


def read_blocks(source: Source) -> Iterator[bytes]:
    """Yield the bytes of an image on disk in blocks, which keeps memory use flat."""
    for position in range(0, source.length, _BLOCK_BYTES):
        yield source.read_at(_BLOCK_BYTES, position)


def hash_source(source: Source) -> hashlib._Hash:
    """Return the SHA-256 object of an image on disk."""
    import hashlib

    digest = hashlib.sha256()
    for block in read_blocks(source):
        digest.update(block)
    return digest


class _InMemorySource(ABC):
    """A source that holds all bytes in memory."""

    __slots__ = ()

    @abstractmethod
    def read(self) -> bytes:
        """Return the bytes."""

    def read_at(self, size: int, position: int) -> bytes:
        """Return `size` bytes from `position` on."""
        return self.read()[position : position + size]

    @property
    def length(self) -> int:
        """Size in bytes."""
        return len(self.read())

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the bytes."""
        import hashlib

        return hashlib.sha256(self.read()).hexdigest()


class BytesSource(_InMemorySource):
    """Bytes in memory.

    >>> BytesSource(b"image").length
    5
    """

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
    """Bytes in a file that `save_to=` has written; each access reads the file.

    Attributes:
        path: the file.
        length: its size in bytes.
        modified_ns: modification time in nanoseconds.
        known_sha256: hexadecimal digest of the bytes; "" if nobody has computed it.
    """

    path: Path
    length: int
    modified_ns: int
    known_sha256: str = ""

    @classmethod
    def from_path(cls, path: Path, sha256: str = "") -> FileSource:
        """Return the source of a complete file. Raises OSError."""
        status = path.stat()
        return cls(path.absolute(), status.st_size, status.st_mtime_ns, sha256)

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the bytes; raises as `read` does."""
        if self.known_sha256:
            return self.known_sha256
        return hash_source(self).hexdigest()

    def read(self) -> bytes:
        """Return the bytes. Raises `NotDownloadedError` if the file has changed or is gone."""
        return self.read_at(self.length, 0)

    def read_at(self, size: int, position: int) -> bytes:
        """Return `size` bytes from `position` on; raises as `read` does."""
        try:
            with self.path.open("rb") as stream:
                now = os.fstat(stream.fileno())
                if (now.st_size, now.st_mtime_ns) == (self.length, self.modified_ns):
                    stream.seek(position)
                    return stream.read(size)
                problem = "The file has changed since"
        except OSError as error:
            problem = f"The file cannot be read any more ({error.strerror or error})"
        raise NotDownloadedError(
            f"The image was saved to {str(self.path)!r} and is not in memory. {problem}.",
            hint="Call without save_to= to keep images in memory, and save them with image.save.",
        )


class UrlSource(_InMemorySource):
    """Bytes behind a URL. The first read fetches them.

    >>> UrlSource("https://host/a.png", lambda url: b"image").read()
    b'image'


    Args:
        url: location of the image.
        fetch: blocking function that fetches a URL; None if only `service.download(image)` can.
        shown_url: the location without secrets, for messages and pickles; `url` by default.

    Attributes:
        url: the location, which may hold a secret that `imgkit.Image.url` does not.
        shown_url: the location without secrets.
    """

    def __init__(self, url: str, fetch: Callable[[str], bytes] | None, shown_url: str = "") -> None:
        self.url = url
        self.shown_url = shown_url or url
        self._fetch = fetch
        self._data: bytes | None = None
        self._lock = threading.Lock()

    @property
    def is_fetched(self) -> bool:
        """Whether the bytes are in memory."""
        return self._data is not None

    def read(self) -> bytes:
        """Return the bytes; the first call fetches them.

        Raises:
            NotDownloadedError: the source has no `fetch`.
        """
        with self._lock:
            if self._data is None:
                if self._fetch is None:
                    raise NotDownloadedError(
                        f"The image is still at {safe_url(self.shown_url)}.",
                        hint="Download it with `image = await service.download(image)` (without await for "
                        "ImageService), or pass save_to=… with the call.",
                    )
                self._data = self._fetch(self.url)
            return self._data

    def __getstate__(self) -> tuple[str, bytes | None]:
        return self.shown_url, self._data

    def __setstate__(self, state: tuple[str, bytes | None]) -> None:
        self.url, self._data = state
        self.shown_url = self.url
        self._fetch = None
        self._lock = threading.Lock()


def have_same_bytes(one: Source, other: Source) -> bool:
    """Return whether two sources have the same bytes, without a download.

    Sources that are not fetched are equal if their URLs are. A file that has changed or is gone equals
    only a source of the same file.

    >>> have_same_bytes(BytesSource(b"image"), BytesSource(b"image"))
    True
    """
    if one is other:
        return True
    remote = [source for source in (one, other) if isinstance(source, UrlSource) and not source.is_fetched]
    if remote:
        return len(remote) == 2 and remote[0].shown_url == remote[1].shown_url
    if isinstance(one, FileSource) and one == other:
        return True
    try:
        return one.length == other.length and one.read() == other.read()
    except ImgkitError:
        return False
