"""Bodies of multipart/form-data, with a boundary that depends on the content.

Equal parts give equal bytes on every backend, machine and run, so recorded requests can be matched
by their body. The boundary is the SHA-256 of all parts. A part with the boundary inside would have
to contain its own digest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol
from urllib.parse import unquote

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


class FormPart(NamedTuple):
    """A part of a form that a server has received.

    Attributes:
        name: name of the form field.
        filename: the file name that the client sent; None for a text.
        media_type: the declared type, such as "image/png".
        data: the content.
    """

    name: str
    filename: str | None
    media_type: str
    data: bytes


def read_form(content_type: str, body: bytes) -> Iterator[FormPart]:
    r"""Yield the parts of a form in their order: for servers and tests.

    Args:
        content_type: the header's value, with the boundary.
        body: the complete form.

    Example:
        >>> body = b'--b\r\nContent-Disposition: form-data; name="n"\r\n\r\n2\r\n--b--\r\n'
        >>> [(part.name, part.data) for part in read_form("multipart/form-data; boundary=b", body)]
        [('n', b'2')]
    """
    boundary = content_type.partition("boundary=")[2].strip('"').encode()
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary)[1:]:
        head, separator, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        text = head.decode("utf-8", "replace")
        name = _find_parameter(text, "name")
        if separator and name is not None:
            match = re.search(r"(?im)^content-type:\s*([^\s;]+)", text)
            media_type = match[1] if match else "application/octet-stream"
            yield FormPart(name, _find_parameter(text, "filename"), media_type, content)


def _find_parameter(head: str, name: str) -> str | None:
    """Return a parameter of a part's Content-Disposition header."""
    match = re.search(rf'[ ;]{name}="([^"]*)"', head)
    return unquote(match[1]) if match else None
