"""Images that arrive: as base64 in a JSON reply, or as the whole body of a reply."""

from __future__ import annotations

import io
import re
from typing import Protocol

import pybase64

from imgkit.wire.base64_stream import Base64Decoder
from imgkit.wire.json_values import DivertedImage, Source

IMAGE_MARK_BYTES = 12
"""Bytes that tell an image file from any text."""

_IMAGE_MARK = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP|.{4}ftyp(?:avi[fs]|hei[cx]|mif1)", re.DOTALL
)


def begins_with_image(head: bytes) -> bool:
    r"""Return whether a body begins as an image file.

    >>> begins_with_image(b"\x89PNG\r\n\x1a\n\0\0\0\r"), begins_with_image(b'{"data": []}')
    (True, False)
    """
    return _IMAGE_MARK.match(head) is not None


class ByteSink(Protocol):
    """A receiver for the bytes of an arriving image, such as `imgkit.images.part_files.PartFile`."""

    def add(self, data: bytes) -> None:
        """Append the next bytes."""

    def read(self) -> bytes:
        """Return all bytes."""

    def source(self) -> Source | None:
        """Return the place of bytes that are on disk, or None for bytes in memory."""


class MemorySink:
    """A `ByteSink` in memory: the bytes exist once."""

    def __init__(self) -> None:
        self._data = io.BytesIO()

    def add(self, data: bytes) -> None:
        """Append the next bytes."""
        self._data.write(data)

    def read(self) -> bytes:
        """Return all bytes without a copy."""
        return self._data.getvalue()

    def source(self) -> None:
        """Return None: the bytes are in memory."""


class ArrivingImage(DivertedImage):
    """An image that the reader diverts from the text, with the spelling of its string.

    Args:
        prefix: text of the string before the base64.
        sink: receives the bytes.
    """

    def __init__(self, prefix: bytes, sink: ByteSink) -> None:
        self.decoder = Base64Decoder()
        self.spooled_rejects = 0
        self._prefix = prefix
        self._sink = sink

    def keep_text(self) -> None:
        """Keep the text as it arrives: its beginning is not base64."""
        self.decoder.failed = True

    def feed(self, text: bytes) -> list[bytes]:
        """Decode the next text; return the new bytes."""
        return self._store_pieces(self.decoder.feed(text))

    def close(self) -> list[bytes]:
        """Decode the end of the text; return the new bytes."""
        return self._store_pieces([self.decoder.close()])

    def _store_pieces(self, pieces: list[bytes]) -> list[bytes]:
        for piece in pieces:
            self._sink.add(piece)
        return pieces

    def to_bytes(self) -> bytes:
        """Return the decoded bytes."""
        return self._sink.read()

    def source(self) -> Source | None:
        """Return the place of bytes that are on disk already, None for bytes in memory."""
        return self._sink.source()

    def to_text(self) -> bytes:
        """Return the content of the JSON string; the image is encoded anew."""
        return self._prefix + pybase64.b64encode(self._sink.read()) + b"".join(self.decoder.rejected)


class WholeBodyImage(DivertedImage):
    """The whole body of a reply, which is an image file.

    Args:
        sink: receives its bytes.
    """

    def __init__(self, sink: ByteSink) -> None:
        self._sink = sink

    def add(self, data: bytes) -> None:
        """Keep the next bytes."""
        self._sink.add(data)

    def to_bytes(self) -> bytes:
        """Return the decoded bytes."""
        return self._sink.read()

    def source(self) -> Source | None:
        """Return the place of bytes that are on disk already, None for bytes in memory."""
        return self._sink.source()
