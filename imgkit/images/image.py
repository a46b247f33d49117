"""An image of a response: metadata and an opaque source of its bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgkit.errors import InvalidRequestError, NotDownloadedError, UnreadableReplyError
from imgkit.images.sniff import Format, Kind, sniff_file
from imgkit.images.sources import BytesSource, Source, UrlSource, have_same_bytes
from imgkit.redact import safe_url
from imgkit.wire.plain_values import to_flag, to_integer

if TYPE_CHECKING:
    import PIL.Image

THUMBNAIL_PX = 512
"""Longest edge in pixels of a notebook's thumbnail. It keeps notebooks small."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Image:
    """An image of a response.

    >>> from imgkit import ImageService
    >>> with ImageService() as service:
    ...     image = service.create_image("a red fox", size="64x32")[0]
    >>> image.format, image.width, image.height
    ('png', 64, 32)

    Images are equal if the server's values and the bytes are; `path` and `about` do not count. A
    comparison downloads nothing: an image at its URL equals another at the same URL.

    Attributes:
        index: position in the response, from 0.
        url: the server's URL of the image; None if the response body contained it.
        revised_prompt: the prompt as the model rewrote it, if the server reports it.
        path: the file that `save_to=` wrote, else None.
        extra: unknown keys of the response's entry, unchanged.
        about: facts for the sidecar: operation, prompt, parameters, backend, ids, usage.
        source: access to the bytes, in memory, on disk or behind the URL.
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
        """Return an image with these bytes; `values` are the other attributes.

        >>> Image.from_bytes(b"GIF89a", index=2).format
        'gif'
        """
        return cls(source=BytesSource(data), **values)

    @property
    def data(self) -> bytes:
        """The file's bytes, exactly as the server sent them.

        If `save_to=` has saved a large image, each access reads its file.

        Raises:
            NotDownloadedError: the image is at a URL that only the service can fetch; or its file has
                changed or is gone.
            DownloadError: the download failed.
        """
        return self.source.read()

    @property
    def b64_json(self) -> str:
        """The bytes as base64 text; each access encodes them again."""
        return base64.b64encode(self.data).decode("ascii")

    @property
    def format(self) -> Format | None:
        """The file format by the bytes: "png", "jpeg", "webp", "gif" or "svg"; None if unknown."""
        kind = self._kind()
        return kind.format if kind else None

    @property
    def width(self) -> int | None:
        """Width in pixels; None if the header does not contain it."""
        kind = self._kind()
        return kind.width if kind else None

    @property
    def height(self) -> int | None:
        """Height in pixels; None if the header does not contain it."""
        kind = self._kind()
        return kind.height if kind else None

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the bytes."""
        return self.source.sha256

    def save(
        self, target: str | PathLike[str] = "", *, overwrite: bool = False, sidecar: bool = True
    ) -> Path:
        """Write the unchanged bytes to a file, with a JSON sidecar beside it.

        Args:
            target: a file, a folder, or a pattern such as ``"out/{index}-{slug}.{ext}"``; the
                current folder if empty. The bytes determine the extension.
            overwrite: replace an existing file. Otherwise imgkit takes the next free name
                (``otter-2.png``).
            sidecar: write ``NAME.json`` with prompt, parameters, model, backend and digest.

        Returns:
            The path of the written file.

        Raises:
            InvalidRequestError: the target is no path, or a flag is neither True nor False.
            NotDownloadedError, DownloadError: the bytes are unavailable.
            SaveError: the file could not be written; the image is still in memory.
        """
        from imgkit.images.saving import SavePlan

        flags = {"overwrite": to_flag(overwrite), "sidecar": to_flag(sidecar)}
        wrong = [name for name, flag in flags.items() if flag is None]
        if wrong:
            raise InvalidRequestError(dict.fromkeys(wrong, "Must be True or False."))
        plan = SavePlan.from_target(
            target, overwrite=bool(flags["overwrite"]), sidecar=bool(flags["sidecar"]), field="target"
        )
        return plan.write(self, count=1)

    def to_pil(self) -> PIL.Image.Image:
        """Return the decoded image as a `PIL.Image.Image`.

        Raises:
            UnreadableReplyError: Pillow cannot read the bytes (an SVG, or no image).
        """
        import PIL.Image

        try:
            decoded = PIL.Image.open(io.BytesIO(self.data), formats=["PNG", "JPEG", "WEBP", "GIF"])
            decoded.load()
        except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
            raise UnreadableReplyError(
                f"Pillow cannot read this image ({self.format or 'unknown format'}): {type(error).__name__}.",
                hint="Its bytes are in image.data.",
                body=self.data,
            ) from None
        return decoded

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Image):
            return NotImplemented
        if self is other:
            return True
        mine = (self.index, self.url, self.revised_prompt, self.extra)
        return mine == (other.index, other.url, other.revised_prompt, other.extra) and have_same_bytes(
            self.source, other.source
        )

    def __hash__(self) -> int:
        return hash((self.index, self.url, self.revised_prompt))

    def _kind(self) -> Kind | None:
        return sniff_file(self.source.length, self.source.read_at)[0]

    def __repr__(self) -> str:
        if self._is_remote():
            return f"Image(index={self.index}, url={safe_url(self.url or '')!r}, not downloaded)"
        try:
            kind = self._kind()
        except (NotDownloadedError, UnreadableReplyError):
            # A repr must not fail: logs, debuggers and error messages contain it.
            return f"Image(index={self.index}, saved to {str(self.path)!r}, which is gone or has changed)"
        name = kind.format if kind else "unknown format"
        size = f", {kind.width}x{kind.height}" if kind and kind.width else ""
        return f"Image(index={self.index}, {name}{size}, {self.source.length} bytes)"

    def _is_remote(self) -> bool:
        return isinstance(self.source, UrlSource) and not self.source.is_fetched

    def thumbnail_png(self, size_px: int = THUMBNAIL_PX) -> bytes:
        """Return a PNG of the image whose longest edge is at most `size_px` pixels.

        Raises:
            InvalidRequestError: `size_px` is no number of pixels.
            UnreadableReplyError: as `to_pil`.
        """
        import PIL.Image

        edge = to_integer(size_px)
        if edge is None or edge < 1:
            raise InvalidRequestError({"size_px": "Must be a whole number of pixels from 1 on."})
        thumbnail = self.to_pil()
        if max(thumbnail.size) > edge:
            thumbnail.thumbnail((edge, edge), PIL.Image.Resampling.LANCZOS)
        if thumbnail.mode not in ("RGB", "RGBA", "L"):
            thumbnail = thumbnail.convert("RGBA")
        stream = io.BytesIO()
        thumbnail.save(stream, "PNG")
        return stream.getvalue()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """Return a thumbnail for a notebook cell."""
        bundle = {"text/plain": repr(self)}
        if not self._is_remote():
            try:
                bundle["image/png"] = base64.b64encode(self.thumbnail_png()).decode("ascii")
            except (NotDownloadedError, UnreadableReplyError):
                return bundle  # the text line describes the image
        return bundle
