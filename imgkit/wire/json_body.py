"""A JSON reply, read while it arrives: pictures in base64 are taken out and decoded at once.

What is left is small, and the standard library parses it. So the base64 text of a picture never exists as a
whole, and its bytes exist once. Whatever is out of the ordinary in a picture's text is put back where it was
and parsed with the rest: the result is always that of `parse_json` and `decode_base64` on the whole reply.
"""

from __future__ import annotations

import io
import re
import secrets
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol, TypeAlias

import pybase64

from imgkit.wire.base64_stream import Base64Decoder
from imgkit.wire.json_values import DivertedImage, Source, is_data_url, parse_json, says_base64, swapped

SHORT_BYTES = 1024
"""Strings up to this length stay in the JSON text."""

_SLICE_BYTES = 256 * 1024
_LOOK_BACK_BYTES = 512
"""How much of the text around pictures is held back, for a key that may be cut in two."""

_CONTENT = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_NEXT_ELEMENT = re.compile(rb'[ \t\r\n]*,[ \t\r\n]*"')
_MAYBE_NEXT = re.compile(rb"[ \t\r\n]*,?[ \t\r\n]*")
_BEFORE_VALUE = b" \t\r\n\xef\xbb\xbf"

SpoolChunks = list[tuple[str, bytes]]
"""What is new for a file of its own each: "reply" for the text, "0", "1" … for pictures, "raw" for what
cannot be decoded."""


class ByteSink(Protocol):
    """What takes the bytes of a picture while they arrive; `imgkit.images.part_files.ScratchFile` is one."""

    def add(self, data: bytes) -> None:
        """Take the next bytes."""

    def read(self) -> bytes:
        """Return them all."""

    def source(self) -> Source | None:
        """Return where they are, None if they are just here."""


class InMemory:
    """A `Holder` in memory: the bytes exist once."""

    def __init__(self) -> None:
        self._data = io.BytesIO()

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        self._data.write(data)

    def read(self) -> bytes:
        """Return them all; it is the stream's own memory."""
        return self._data.getvalue()

    def source(self) -> None:
        """They are here."""


class _Picture(DivertedImage):
    """A string that is taken out: its bytes, and how it was written."""

    def __init__(self, prefix: bytes, holder: ByteSink) -> None:
        self.decoder = Base64Decoder()
        self.told = 0  # how many refused pieces have been told
        self._prefix = prefix
        self._holder = holder

    def feed(self, text: bytes) -> list[bytes]:
        return self._held(self.decoder.feed(text))

    def close(self) -> list[bytes]:
        return self._held([self.decoder.close()])

    def _held(self, pieces: list[bytes]) -> list[bytes]:
        for piece in pieces:
            self._holder.add(piece)
        return pieces

    def decoded(self) -> bytes:
        return self._holder.read()

    def source(self) -> Source | None:
        return self._holder.source()

    def text(self) -> bytes:
        """Return the string's content, encoded anew, as JSON has it."""
        return self._prefix + pybase64.b64encode(self._holder.read()) + b"".join(self.decoder.refused)


class JsonReply:
    """The body of a reply, fed as it comes.

    Args:
        base64_keys: members whose values, strings or arrays of strings, are pictures in base64.
        hold: makes what takes the bytes of one picture.
        first_picture: number of the first picture in a spool, where others came before this reply.

    Attributes:
        length: how many bytes came.
    """

    def __init__(
        self,
        base64_keys: frozenset[str],
        hold: Callable[[], ByteSink] = InMemory,
        *,
        first_picture: int = 0,
    ) -> None:
        self.length = 0
        self._hold = hold
        self._first_picture = first_picture
        self._step: Step = JsonReply._beginning if base64_keys else JsonReply._plain
        self._opening = _opening(base64_keys)
        self._pending = b""
        self._in_array = False
        self._parts: list[bytes | _Picture] = []
        self._pictures: list[_Picture] = []
        self._news: SpoolChunks = []

    @property
    def next_picture(self) -> int:
        """The number of the picture that would come next."""
        return self._first_picture + len(self._pictures)

    def feed(self, chunk: bytes) -> SpoolChunks:
        """Take the next bytes; return what is new for a spool."""
        self.length += len(chunk)
        for start in range(0, len(chunk), _SLICE_BYTES):
            self._take(self._pending + chunk[start : start + _SLICE_BYTES])
        return self._told()

    def close(self) -> SpoolChunks:
        """The reply has come to its end; return what is still new for a spool. Idempotent."""
        pending, self._pending = self._pending, b""
        if self._step is JsonReply._taking:
            picture = self._pictures[-1]
            self._tell(picture, picture.feed(pending))
            self._tell(picture, picture.close())
            self._step = JsonReply._plain
        elif pending:
            self._keep(pending)
        return self._told()

    def json(self) -> Any:
        """Return the value, with a `TakenOut` in place of each string that was taken out.

        Raises:
            ValueError: as `parse_json` does.
        """
        if not self._pictures or any(picture.decoder.failed for picture in self._pictures):
            return parse_json(self.raw())
        token = secrets.token_hex(16)  # nothing that a server writes can be mistaken for it
        marks: dict[str, _Picture] = {}

        def mark(picture: _Picture) -> bytes:
            name = f"{token}{len(marks)}"
            marks[name] = picture
            return name.encode()

        value = parse_json(self._joined(mark))
        return swapped(value, str, lambda one: marks.get(one, one))

    def raw(self) -> bytes:
        """Return what came; pictures that could be decoded are encoded anew."""
        return self._joined(_Picture.text)

    def _joined(self, shown: Callable[[_Picture], bytes]) -> bytes:
        return b"".join(shown(part) if isinstance(part, _Picture) else part for part in self._parts)

    def _take(self, buffer: bytes) -> None:
        """Go through `buffer`; the step that needs more to go on leaves the rest in ``_pending``."""
        at: int | None = 0
        while at is not None:
            at = self._step(self, buffer, at)

    def _beginning(self, buffer: bytes, at: int) -> int | None:
        """Nothing but white space has come."""
        rest = buffer.lstrip(_BEFORE_VALUE)
        if rest:
            self._step = JsonReply._around if rest[:1] in b"{[" else JsonReply._plain
            return at
        self._keep(buffer)
        self._pending = b""
        return None

    def _plain(self, buffer: bytes, at: int) -> int | None:
        """This is no JSON object or array: it is only collected."""
        self._keep(buffer[at:])
        self._pending = b""
        return None

    def _around(self, buffer: bytes, at: int) -> int | None:
        """In the text around pictures."""
        found = self._opening.search(buffer, at)
        if found is None:
            keep = max(at, len(buffer) - _LOOK_BACK_BYTES)
            self._keep(buffer[at:keep])
            self._pending = buffer[keep:]
            return None
        self._keep(buffer[at : found.end()])
        self._in_array = found.group(1) is not None
        self._step = JsonReply._opened
        return found.end()

    def _opened(self, buffer: bytes, at: int) -> int | None:
        """In a string that may be a picture; not enough of it has come."""
        end, closed = _end_of_string(buffer, at)
        if closed and end - at <= SHORT_BYTES:
            self._keep(buffer[at : end + 1])
            self._step = JsonReply._between if self._in_array else JsonReply._around
            return end + 1
        if end - at <= SHORT_BYTES:
            self._pending = buffer[at:]
            return None
        begin = _begin_of_base64(buffer[at : at + SHORT_BYTES])
        if begin is None:
            self._step = JsonReply._leaving
            return at
        picture = _Picture(buffer[at : at + begin], self._hold())
        self._news.append(("reply", b"imgkit-part-%d" % self.next_picture))
        self._pictures.append(picture)
        self._parts.append(picture)
        self._step = JsonReply._taking
        return at + begin

    def _taking(self, buffer: bytes, at: int) -> int | None:
        """In a picture."""
        end, closed = _end_of_string(buffer, at)
        picture = self._pictures[-1]
        self._tell(picture, picture.feed(buffer[at:end]))
        if not closed:
            self._pending = buffer[end:]
            return None
        self._tell(picture, picture.close())
        return self._behind(end)

    def _leaving(self, buffer: bytes, at: int) -> int | None:
        """In a long string that is none."""
        end, closed = _end_of_string(buffer, at)
        self._keep(buffer[at:end])
        if closed:
            return self._behind(end)
        self._pending = buffer[end:]
        return None

    def _behind(self, quote: int) -> int:
        self._keep(b'"')
        self._step = JsonReply._between if self._in_array else JsonReply._around
        return quote + 1

    def _between(self, buffer: bytes, at: int) -> int | None:
        """Behind an element of an array of pictures."""
        found = _NEXT_ELEMENT.match(buffer, at)
        if found is not None:
            self._keep(buffer[at : found.end()])
            self._step = JsonReply._opened
            return found.end()
        if _MAYBE_NEXT.fullmatch(buffer, at) and len(buffer) - at < _LOOK_BACK_BYTES:
            self._pending = buffer[at:]
            return None
        self._step = JsonReply._around
        return at

    def _keep(self, text: bytes) -> None:
        if text:
            self._parts.append(text)
            self._news.append(("reply", text))

    def _tell(self, picture: _Picture, pieces: list[bytes]) -> None:
        self._news += [(str(self.next_picture - 1), piece) for piece in pieces if piece]
        for text in picture.decoder.refused[picture.told :]:
            self._news.append(("raw", text))
        picture.told = len(picture.decoder.refused)

    def _told(self) -> SpoolChunks:
        news, self._news = self._news, []
        return news


Step: TypeAlias = Callable[[JsonReply, bytes, int], int | None]
"""Goes through some of a buffer from a place on; returns where to go on, None if that needs more bytes."""


@lru_cache(maxsize=64)
def _opening(base64_keys: frozenset[str]) -> re.Pattern[bytes]:
    """Return what finds a key of a picture, and the start of its value."""
    names = b"|".join(re.escape(key.encode()) for key in sorted(base64_keys))
    # A quote inside a string has a backslash before it: this is always a key and the start of its value.
    return re.compile(rb'[^\\]"(?:%b)"[ \t\r\n]*:[ \t\r\n]*(\[[ \t\r\n]*)?"' % names)


def _end_of_string(buffer: bytes, at: int) -> tuple[int, bool]:
    """Return where the content of a string ends in `buffer`, and whether its closing quote is there."""
    quote = buffer.find(b'"', at)
    end = quote if quote >= 0 else len(buffer)
    if buffer.find(b"\\", at, end) >= 0:
        content = _CONTENT.match(buffer, at)
        end = content.end() if content else at
    return end, buffer[end : end + 1] == b'"'


def _begin_of_base64(head: bytes) -> int | None:
    """Return where base64 begins in the first part of a string, None if it is none."""
    text = head.decode("utf-8", "replace")
    if not is_data_url(text):
        return 0
    comma = head.find(b",")
    return comma + 1 if comma >= 0 and says_base64(text.partition(",")[0]) else None
