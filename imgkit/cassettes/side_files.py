"""Pictures of a cassette as files beside it, each once, named by its digest.

In the text of a cassette ``imgkit-file:DIGEST.png`` stands in place of a picture: for a whole body, for the
content of a part of a form, or for the base64 text of a ``b64_json``.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

import pybase64

from imgkit.errors import ConfigurationError
from imgkit.sniff import EXTENSIONS, sniff

PLACE = "imgkit-file:"

_SMALLEST = 512
_BASE64 = re.compile(rb'("b64_json"[ \t\r\n]*:[ \t\r\n]*")([A-Za-z0-9+/]{%d,}={0,2})(")' % _SMALLEST)
_PLACED = re.compile(rb'("b64_json"[ \t\r\n]*:[ \t\r\n]*")imgkit-file:([0-9a-f]{64}\.[a-z]{3,4})(")')
_WHOLE = re.compile(rb"imgkit-file:([0-9a-f]{64}\.[a-z]{3,4})")
_BOUNDARY = re.compile(r"multipart/form-data;.*boundary=\"?([^\";,]+)", re.IGNORECASE)


class SideFiles:
    """The folder of one cassette.

    Args:
        cassette: path of the cassette; the folder is beside it.
    """

    def __init__(self, cassette: Path) -> None:
        self.folder = cassette.with_name(cassette.name + ".files")
        self.used: set[str] = set()

    def put_away(self, body: bytes, content_type: str) -> bytes:
        """Return a body with its pictures in files. Raises OSError."""
        if len(body) >= _SMALLEST and sniff(body[:1024]) is not None:
            return self._keep(body)
        return _in_parts(body, content_type, self._keep_picture, self._keep_encoded)

    def put_back(self, body: bytes, content_type: str) -> bytes:
        """Return a body with its pictures in place.

        Raises:
            ConfigurationError: a file is missing, or is not what was recorded.
        """
        whole = _WHOLE.fullmatch(body)
        if whole is not None:
            return self._read(whole.group(1).decode())
        return _in_parts(body, content_type, self._restore, self._restore_encoded)

    def drop_unused(self) -> None:
        """Remove files that the cassette does not name any more. Raises OSError."""
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if path.name not in self.used:
                    path.unlink(missing_ok=True)
            if not self.used:
                self.folder.rmdir()

    def _keep(self, data: bytes) -> bytes:
        kind = sniff(data[:1024])
        name = hashlib.sha256(data).hexdigest() + (EXTENSIONS[kind.format][0] if kind else ".bin")
        self.used.add(name)
        path = self.folder / name
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        return f"{PLACE}{name}".encode()

    def _keep_picture(self, content: bytes) -> bytes:
        big = len(content) >= _SMALLEST and sniff(content[:1024]) is not None
        return self._keep(content) if big else content

    def _keep_encoded(self, text: bytes) -> bytes:
        return _BASE64.sub(self._kept_match, text)

    def _kept_match(self, found: re.Match[bytes]) -> bytes:
        before, encoded, after = found.groups()
        try:
            data = pybase64.b64decode(encoded, validate=True)
        except ValueError:
            return found.group()
        if pybase64.b64encode(data) != encoded:
            return found.group()  # it must come back byte for byte
        return before + self._keep(data) + after

    def _restore(self, content: bytes) -> bytes:
        found = _WHOLE.fullmatch(content)
        return content if found is None else self._read(found.group(1).decode())

    def _restore_encoded(self, text: bytes) -> bytes:
        return _PLACED.sub(
            lambda found: found[1] + pybase64.b64encode(self._read(found[2].decode())) + found[3], text
        )

    def _read(self, name: str) -> bytes:
        path = self.folder / name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigurationError(
                f"the cassette's picture {str(path)!r} cannot be read ({error.strerror}): restore it, or "
                "record again"
            ) from None
        if hashlib.sha256(data).hexdigest() != path.stem:
            raise ConfigurationError(
                f"{str(path)!r} is not the picture that was recorded: restore it, or record again"
            )
        self.used.add(name)
        return data


def _in_parts(
    body: bytes, content_type: str, content: Callable[[bytes], bytes], text: Callable[[bytes], bytes]
) -> bytes:
    """Return a body with `content` done to the contents of a form, or `text` to anything else."""
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        return text(body)
    delimiter = b"--" + boundary.group(1).strip().encode()
    parts = []
    for part in body.split(delimiter):
        head, gap, rest = part.partition(b"\r\n\r\n")
        if gap and rest.endswith(b"\r\n"):
            part = head + gap + content(rest[:-2]) + b"\r\n"
        parts.append(part)
    return delimiter.join(parts)


def write_whole(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file under another name, and then give it its own. Raises OSError."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
