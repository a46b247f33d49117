"""Pictures of a cassette as files beside it, each once, named by its digest.

In the text of a cassette ``imgkit-file:DIGEST.png`` stands in place of a picture: for a whole body, for the
content of a part of a form, or for base64 between quotes. Where a body has such words of its own, they get
a second colon.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pybase64

from imgkit.cassettes.keys import key_like
from imgkit.cassettes.parts import in_parts, substitute
from imgkit.errors import ConfigurationError
from imgkit.files import write_atomically
from imgkit.images.sniff import EXTENSIONS, sniff

PLACE = b"imgkit-file:"

_NAME = rb"imgkit-file:([0-9a-f]{64}\.[a-z]{3,4})"
_NAMED = re.compile(_NAME)
_ENCODED = re.compile(rb'("(?:data:[a-z]+/[a-z0-9.+-]+;base64,)?)' + _NAME + rb'(?=")')
REFUSED = ".refused*"
"""Ends the names of what was put aside, as a pattern."""


class SideFiles:
    """The folder of one cassette. Nothing is written before `save`.

    Args:
        cassette: path of the cassette; the folder is beside it.

    Attributes:
        folder: where the pictures are.
        suspect: the beginning of what looks like a key in something that would have become a file; it
            stays in the text, for the text to be refused.
    """

    def __init__(self, cassette: Path) -> None:
        self._cassette = cassette
        self.folder = cassette.with_name(cassette.name + ".files")
        self.suspect: str | None = None
        self._new: dict[str, bytes] = {}

    def put_away(self, body: bytes, content_type: str) -> bytes:
        """Return a body with names of files in place of its pictures."""
        return substitute(_escaped(body, content_type), content_type, self._keep, self._keep)

    def put_back(self, body: bytes, content_type: str) -> bytes:
        """Return a body with its pictures in place.

        Raises:
            ConfigurationError: a file is missing, or is not what was recorded.
        """
        return self._restore(body) if _NAMED.fullmatch(body) else in_parts(body, content_type, self._restore)

    def save(self, folder: Path | None = None) -> None:
        """Write the pictures that are new. Raises OSError.

        Args:
            folder: where to, instead of beside the cassette.
        """
        where = folder or self.folder
        for name, data in self._new.items():
            path = where / name
            if not path.exists():
                where.mkdir(parents=True, exist_ok=True)
                write_atomically(path, data, mode=0o644)

    def unnamed(self, text: bytes) -> list[Path]:
        """Return the files that neither a text names nor what was refused. Raises OSError."""
        if not self.folder.is_dir():
            return []
        refused = self._cassette.parent.glob(f"{self._cassette.name}{REFUSED}")
        texts = [text, *(path.read_bytes() for path in refused if path.is_file())]
        named = {name.decode() for one in texts for name in _NAMED.findall(one)}
        return sorted(path for path in self.folder.iterdir() if path.name not in named)

    def drop_unused(self, text: bytes) -> None:
        """Remove the files that the text of the cassette does not name any more. Raises OSError."""
        for path in self.unnamed(text):
            path.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _keep(self, data: bytes) -> bytes | None:
        kind = sniff(data[:1024])
        if kind is None or kind.format == "svg":
            found = key_like(data)
            if found is not None:
                self.suspect = found
                return None
        name = hashlib.sha256(data).hexdigest() + (EXTENSIONS[kind.format][0] if kind else ".bin")
        self._new[name] = data
        return PLACE + name.encode()

    def _restore(self, content: bytes) -> bytes:
        if PLACE not in content:
            return content
        whole = _NAMED.fullmatch(content)
        if whole is not None:
            return self._read(whole[1].decode())
        text = _ENCODED.sub(
            lambda found: found[1] + pybase64.b64encode(self._read(found[2].decode())), content
        )
        return text.replace(PLACE + b":", PLACE)

    def _read(self, name: str) -> bytes:
        if name in self._new:
            return self._new[name]
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
        return data


def _escaped(body: bytes, content_type: str) -> bytes:
    """Return a body whose own words cannot be taken for the name of a file."""
    if PLACE not in body:
        return body
    return in_parts(
        body, content_type, lambda part: part if sniff(part[:1024]) else part.replace(PLACE, PLACE + b":")
    )
