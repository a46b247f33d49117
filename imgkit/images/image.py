"""One picture: values, and an opaque source of its bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgkit.errors import NotDownloadedError, UnreadableReplyError
from imgkit.images.sniff import Format, Kind, sniff_file
from imgkit.images.sources import BytesSource, Source, UrlSource
from imgkit.redact import safe_url

if TYPE_CHECKING:
    import PIL.Image

THUMBNAIL_PX = 512
"""Longest edge in pixels of what a notebook shows, so that it does not grow by megabytes."""


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
        from imgkit.images.saving import SavePlan

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
