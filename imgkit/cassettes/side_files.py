"""Store the images of a cassette as files beside it, named by their SHA-256 digests.

The cassette holds ``imgkit-file:DIGEST.png`` in place of an image: as a whole body, as the content of a form
part, or in place of base64 between quotes. A body's own text of that form gets a second colon.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pybase64

from imgkit.cassettes.api_keys import find_key
from imgkit.cassettes.bodies import map_parts, replace_images
from imgkit.errors import ConfigurationError
from imgkit.files import read_regular_file, write_atomically
from imgkit.images.sniff import EXTENSIONS, sniff

PLACEHOLDER = b"imgkit-file:"

MAX_FILE_BYTES = 256 * 1024 * 1024
"""Size of the largest image file."""

_FILE_NAME = rb"imgkit-file:([0-9a-f]{64}\.[a-z]{3,4})"
_PLACEHOLDER_PATTERN = re.compile(_FILE_NAME)
_BASE64_PATTERN = re.compile(rb'("(?:data:[a-z]+/[a-z0-9.+-]+;base64,)?)' + _FILE_NAME + rb'(?=")')
REFUSED_PATTERN = ".refused*"
"""Glob pattern for the name suffix of refused cassettes."""


class SideFiles:
    """The image files of one cassette. Only `save` writes new files.

    >>> files = SideFiles(Path("fox.yaml"))
    >>> files.extract_images(b'{"prompt": "a fox"}', "application/json")
    b'{"prompt": "a fox"}'

    Args:
        cassette: Path of the cassette; the folder stands beside it.

    Attributes:
        folder: Folder of the image files.
        suspected_key: Start of a suspected key in data that would have become a file. Such data stays in
            the text, and `imgkit.cassettes.writer.write_cassette` refuses the text.
    """

    def __init__(self, cassette: Path) -> None:
        self._cassette = cassette
        self.folder = cassette.with_name(cassette.name + ".files")
        self.suspected_key: str | None = None
        self._new: dict[str, bytes] = {}

    def extract_images(self, body: bytes, content_type: str) -> bytes:
        """Return the body with file names in place of its images."""
        return replace_images(
            _escape_placeholders(body, content_type), content_type, self._add_file, self._add_file
        )

    def restore_images(self, body: bytes, content_type: str) -> bytes:
        """Return the body with its images in place of file names.

        Raises:
            ConfigurationError: A file is missing, or its content has changed.
        """
        return (
            self._restore_content(body)
            if _PLACEHOLDER_PATTERN.fullmatch(body)
            else map_parts(body, content_type, self._restore_content)
        )

    def save(self, folder: Path | None = None) -> None:
        """Write the new image files.

        Args:
            folder: Target folder; the folder beside the cassette by default.

        Raises:
            OSError: A file cannot be written.
        """
        target = folder or self.folder
        for name, data in self._new.items():
            path = target / name
            if not path.exists():
                target.mkdir(parents=True, exist_ok=True)
                write_atomically(path, data, mode=0o644)

    def list_unreferenced_files(self, text: bytes) -> list[Path]:
        """Return the files that neither the text nor a refused cassette references.

        Raises:
            OSError: A file cannot be read.
        """
        if not self.folder.is_dir():
            return []
        refused = self._cassette.parent.glob(f"{self._cassette.name}{REFUSED_PATTERN}")
        texts = [text, *(path.read_bytes() for path in refused if path.is_file())]
        referenced = {name.decode() for text in texts for name in _PLACEHOLDER_PATTERN.findall(text)}
        return sorted(path for path in self.folder.iterdir() if path.name not in referenced)

    def delete_unreferenced_files(self, text: bytes) -> None:
        """Delete the files that the cassette's text no longer references.

        Raises:
            OSError: A file cannot be deleted.
        """
        for path in self.list_unreferenced_files(text):
            path.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _add_file(self, data: bytes) -> bytes | None:
        kind = sniff(data[:1024])
        if kind is None or kind.format == "svg":
            match = find_key(data)
            if match is not None:
                self.suspected_key = match
                return None
        name = hashlib.sha256(data).hexdigest() + (EXTENSIONS[kind.format][0] if kind else ".bin")
        self._new[name] = data
        return PLACEHOLDER + name.encode()

    def _restore_content(self, content: bytes) -> bytes:
        if PLACEHOLDER not in content:
            return content
        match = _PLACEHOLDER_PATTERN.fullmatch(content)
        if match is not None:
            return self._read_file(match[1].decode())
        text = _BASE64_PATTERN.sub(
            lambda match: match[1] + pybase64.b64encode(self._read_file(match[2].decode())), content
        )
        return text.replace(PLACEHOLDER + b":", PLACEHOLDER)

    def _read_file(self, name: str) -> bytes:
        if name in self._new:
            return self._new[name]
        path = self.folder / name
        try:
            data = read_regular_file(path, MAX_FILE_BYTES)
        except OSError as error:
            raise ConfigurationError(
                f"Image {str(path)!r} of the cassette cannot be read ({error.strerror}). Restore it or "
                "record again."
            ) from None
        if hashlib.sha256(data).hexdigest() != path.stem:
            raise ConfigurationError(
                f"Image {str(path)!r} differs from the recorded image. Restore it or record again."
            )
        return data


def _escape_placeholders(body: bytes, content_type: str) -> bytes:
    """Return the body with its own placeholder-like text escaped."""
    if PLACEHOLDER not in body:
        return body
    return map_parts(
        body,
        content_type,
        lambda part: part if sniff(part[:1024]) else part.replace(PLACEHOLDER, PLACEHOLDER + b":"),
    )
