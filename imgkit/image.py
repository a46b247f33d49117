"""One picture: values, and an opaque source of its bytes."""

from __future__ import annotations

import base64
import io
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from imgkit.errors import NotDownloadedError, UnreadableReplyError
from imgkit.redact import safe_url
from imgkit.sniff import Format, Kind, sniff_file

if TYPE_CHECKING:
    import hashlib

    import PIL.Image

THUMBNAIL_PX = 512
"""Longest edge in pixels of what a notebook shows, so that it does not grow by megabytes."""


_BLOCK_BYTES = 256 * 1024


class Source(Protocol):
    """Where a picture's bytes come from."""

    def read(self) -> bytes:
        """Return the whole file. Raises `NotDownloadedError` where it cannot be reached from here."""

    def read_at(self, size: int, position: int) -> bytes:
        """Return a part of the file; raises as `read` does."""

    @property
    def length(self) -> int:
        """Size in bytes; raises as `read` does."""

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the bytes; raises as `read` does."""


def blocks(source: Source) -> Iterator[bytes]:
    """Yield the bytes of a picture that is on disk, which so is never in memory as a whole."""
    for position in range(0, source.length, _BLOCK_BYTES):
        yield source.read_at(_BLOCK_BYTES, position)


def sha256_of(source: Source) -> hashlib._Hash:
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
        return sha256_of(self).hexdigest()

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


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Image:
    """A picture of a reply.

    Attributes:
        index: its place among the pictures of the reply, from 0.
        url: where the server keeps it, None if it came inside the reply.
        revised_prompt: the prompt as the model rewrote it, where the server says so.
        path: the file that `save_to=` wrote, else None.
        extra: keys of the reply's entry that imgkit does not know, as they came.
        about: what a sidecar tells of it: operation, prompt, parameters, backend, ids, usage.
    """

    index: int = 0
    url: str | None = None
    revised_prompt: str | None = None
    path: Path | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    source: Source

    @classmethod
    def from_bytes(cls, data: bytes, **values: Any) -> Image:
        """Return an image of these bytes; `values` are the other attributes."""
        return cls(source=BytesSource(data), **values)

    @property
    def data(self) -> bytes:
        """The file's bytes, exactly as the server sent them.

        A large picture that `save_to=` has saved is read from its file each time.

        Raises:
            NotDownloadedError: the picture is at a URL and cannot be fetched from here; or its file is gone,
                or has changed.
            DownloadError: fetching it failed.
        """
        return self.source.read()

    @property
    def b64_json(self) -> str:
        """The bytes as base64 text, encoded anew each time."""
        return base64.b64encode(self.data).decode("ascii")

    @property
    def format(self) -> Format | None:
        """What the bytes are: "png", "jpeg", "webp", "gif", "svg"; None if none of these."""
        kind = self._kind()
        return kind.format if kind else None

    @property
    def width(self) -> int | None:
        """Width in pixels, None where the bytes do not say."""
        kind = self._kind()
        return kind.width if kind else None

    @property
    def height(self) -> int | None:
        """Height in pixels, None where the bytes do not say."""
        kind = self._kind()
        return kind.height if kind else None

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the bytes."""
        return self.source.sha256

    def save(
        self, target: str | PathLike[str] = "", *, overwrite: bool = False, sidecar: bool = True
    ) -> Path:
        """Write the bytes to a file, untouched, with a JSON sidecar beside it.

        Args:
            target: a file, a folder, or a pattern such as ``"out/{index}-{slug}.{ext}"``; the
                current folder if empty. The extension follows the bytes, not the name.
            overwrite: replace what is there. Otherwise the next free name is taken
                (``otter-2.png``).
            sidecar: write ``NAME.json`` with prompt, parameters, model, backend and digest.

        Returns:
            The path that was written.

        Raises:
            NotDownloadedError, DownloadError: the bytes are not here and could not be fetched.
            SaveError: the file could not be written; the picture is still in memory.
        """
        from imgkit.saving import SavePlan

        return SavePlan.of(target, overwrite=overwrite, sidecar=sidecar).write(self, count=1)

    def to_pil(self) -> PIL.Image.Image:
        """Return the picture as a `PIL.Image.Image`, decoded.

        Raises:
            UnreadableReplyError: Pillow cannot read the bytes (SVG, or not a picture).
        """
        import PIL.Image

        try:
            picture = PIL.Image.open(io.BytesIO(self.data), formats=["PNG", "JPEG", "WEBP", "GIF"])
            picture.load()
        except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
            raise UnreadableReplyError(
                f"Pillow cannot read this picture ({self.format or 'unknown format'}): "
                f"{type(error).__name__}. Its bytes are in image.data.",
                body=self.data,
            ) from None
        return picture

    def _kind(self) -> Kind | None:
        return sniff_file(self.source.length, self.source.read_at)[0]

    def __repr__(self) -> str:
        if self._is_remote():
            return f"Image(index={self.index}, url={safe_url(self.url or '')!r}, not downloaded)"
        try:
            kind = self._kind()
        except (NotDownloadedError, UnreadableReplyError):  # in the midst of somebody's message, perhaps
            return f"Image(index={self.index}, saved to {str(self.path)!r}, which is gone or has changed)"
        name = kind.format if kind else "unknown format"
        size = f", {kind.width}x{kind.height}" if kind and kind.width else ""
        return f"Image(index={self.index}, {name}{size}, {self.source.length} bytes)"

    def _is_remote(self) -> bool:
        return isinstance(self.source, UrlSource) and not self.source.here

    def thumbnail_png(self, size_px: int = THUMBNAIL_PX) -> bytes:
        """Return a PNG of the picture with no edge longer than `size_px` pixels."""
        import PIL.Image

        picture = self.to_pil()
        if max(picture.size) > size_px:
            picture.thumbnail((size_px, size_px), PIL.Image.Resampling.LANCZOS)
        if picture.mode not in ("RGB", "RGBA", "L"):
            picture = picture.convert("RGBA")
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        return stream.getvalue()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Show the picture itself as the last line of a notebook cell."""
        bundle = {"text/plain": repr(self)}
        if not self._is_remote():
            try:
                bundle["image/png"] = base64.b64encode(self.thumbnail_png()).decode("ascii")
            except (NotDownloadedError, UnreadableReplyError):
                return bundle  # not for Pillow, or gone: the line of text says what it is
        return bundle
