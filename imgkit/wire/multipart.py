"""Bodies of multipart/form-data, with a boundary that depends on the content.

Equal parts give equal bytes on every backend, machine and run, so recorded requests can be matched
by their body. The boundary is the SHA-256 of all parts. A part with the boundary inside would have
to contain its own digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from imgkit.wire.messages import hash_blocks


class FileContent(Protocol):
    """The bytes of a file part; `imgkit.images.inputs.ImageFile` implements it."""

    @property
    def length(self) -> int:
        """The size in bytes."""

    @property
    def sha256(self) -> str:
        """The hexadecimal SHA-256 of the bytes."""

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes from the beginning, the same each time."""


@dataclass(frozen=True, slots=True)
class Field:
    """A text part of a form.

    Attributes:
        name: name of the form field, such as "prompt".
        value: its text.
    """

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class File:
    """A file part of a form.

    Attributes:
        name: name of the form field, such as "image" or "image[]".
        filename: the file name for the server; never a path on the caller's machine.
        media_type: MIME type, detected from the bytes.
        content: the bytes.
    """

    name: str
    filename: str
    media_type: str
    content: FileContent


@dataclass(frozen=True)
class MultipartBody:
    """A form that is ready to send; see `imgkit.wire.messages.Body`.

    Example::

        >>> body = MultipartBody((Field("prompt", "a fox"), Field("n", "1")))
        >>> body.length == len(b"".join(body.blocks()))
        True

    Attributes:
        parts: the parts in their order on the wire.
    """

    parts: Sequence[Field | File]

    @cached_property
    def boundary(self) -> str:
        """The line between the parts: 64 hexadecimal digits (RFC 2046 allows 70 characters)."""
        digest = hashlib.sha256()
        for part in self.parts:
            texts = (
                ("field", part.name, part.value)
                if isinstance(part, Field)
                else ("file", part.name, part.filename, part.media_type, part.content.sha256)
            )
            for text in texts:
                encoded = text.encode("utf-8")
                # The length keeps "ab"+"c" apart from "a"+"bc".
                digest.update(b"%d:" % len(encoded) + encoded)
            digest.update(b";")
        return digest.hexdigest()

    @property
    def content_type(self) -> str:
        """The value of the Content-Type header."""
        return f"multipart/form-data; boundary={self.boundary}"

    @cached_property
    def length(self) -> int:
        """The size in bytes."""
        files = sum(part.content.length for part in self.parts if isinstance(part, File))
        return files + sum(len(piece) for piece in self._yield_frame() if piece is not None)

    def blocks(self) -> Iterator[bytes]:
        """Yield the form from its beginning; files block by block."""
        contents = (part.content for part in self.parts if isinstance(part, File))
        for piece in self._yield_frame():
            if piece is None:
                yield from next(contents).blocks()
            else:
                yield piece

    def sha256(self) -> str:
        """Return the hexadecimal SHA-256 of the whole form. Only the first use reads its files."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        return hash_blocks(self)

    def _yield_frame(self) -> Iterator[bytes | None]:
        """Yield the bytes around the files, and None in place of each file."""
        delimiter = f"--{self.boundary}\r\n".encode("ascii")
        for part in self.parts:
            disposition = f'Content-Disposition: form-data; name="{_escape_name(part.name)}"'
            if isinstance(part, Field):
                yield delimiter + f"{disposition}\r\n\r\n{part.value}\r\n".encode()
            else:
                filename = _escape_name(part.filename)
                head = f'{disposition}; filename="{filename}"\r\nContent-Type: {part.media_type}'
                yield delimiter + f"{head}\r\n\r\n".encode()
                yield None
                yield b"\r\n"
        yield f"--{self.boundary}--\r\n".encode("ascii")

    def __repr__(self) -> str:
        return f"MultipartBody({', '.join(part.name for part in self.parts)}; {self.length} bytes)"


def _escape_name(text: str) -> str:
    """Escape a name as browsers do (WHATWG HTML, multipart/form-data, read 2026-11-23)."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
