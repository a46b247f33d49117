"""Server-sent events from bytes, fed as they come.

The rules are those of the WHATWG (HTML standard, section 9.2.6, read 2026-11-23). What ``data:`` lines hold
is handed on piece by piece, so that a line of 32 MB never exists as a whole; nothing is scanned twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

_BOM = b"\xef\xbb\xbf"
_LINE_FEED, _SPACE = 10, 32
_FIELDS = (b"data", b"event", b"id", b"retry")
_LONGEST_NAME = max(map(len, _FIELDS))
_LONGEST_VALUE = 4096
"""How much is kept of a field other than ``data``, in bytes."""


class Payload(Protocol):
    """What takes the data of one event."""

    def feed(self, piece: bytes, /) -> object:
        """Take the next piece; the line feeds between ``data`` lines are among them."""

    def close(self) -> object:
        """The event is complete."""


P = TypeVar("P", bound=Payload)


@dataclass(frozen=True, slots=True)
class ServerEvent(Generic[P]):
    """One event.

    Attributes:
        data: what took its data.
        name: of its ``event:`` line, "" if it has none.
        id: the last ``id:`` that came, with this event or before it.
        retry_ms: the last ``retry:`` that came, None if none did.
    """

    data: P
    name: str = ""
    id: str = ""
    retry_ms: int | None = None


class EventParser(Generic[P]):
    """Takes bytes, cut anywhere, and returns events.

    Args:
        begin: makes what takes the data of an event, when its first ``data`` line begins.

    Attributes:
        unfinished: what has the data of an event that is not complete, None between events. At the end of
            the stream the standard wants it to be dropped.
    """

    def __init__(self, begin: Callable[[], P]) -> None:
        self.unfinished: P | None = None
        self._begin = begin
        self._start: bytes | None = b""  # the first bytes, until they are known to be a BOM or none
        self._after_cr = False
        self._field: bytes | None = None  # of this line, once its colon has come; b"" for one to pass over
        self._line = b""  # this line, as long as it may become the name of a field
        self._value = b""  # of a field other than data
        self._drop_space = False
        self._name = self._id = ""
        self._retry_ms: int | None = None

    def feed(self, chunk: bytes) -> list[ServerEvent[P]]:
        """Take the next bytes; return the events that they complete."""
        if self._start is not None:
            chunk = self._start + chunk
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._start = chunk
                return []
            self._start = None
            chunk = chunk.removeprefix(_BOM)
        events = []
        at, end = 0, len(chunk)
        cr = lf = -1
        while at < end:
            if self._after_cr:
                self._after_cr = False
                if chunk[at] == _LINE_FEED:
                    at += 1
                    continue
            # Each is looked for again only when it has been passed.
            cr = _next(chunk, b"\r", cr, at)
            lf = _next(chunk, b"\n", lf, at)
            stop = min(cr, lf)
            if stop > at:
                self._content(chunk[at:stop])
            if stop < end:
                self._after_cr = stop == cr
                event = self._end_of_line()
                if event is not None:
                    events.append(event)
            at = stop + 1
        return events

    def _content(self, piece: bytes) -> None:
        """Take the next piece of a line."""
        if self._field is None:
            self._line += piece
            name, colon, piece = self._line.partition(b":")
            if not colon:
                if len(self._line) > _LONGEST_NAME:
                    self._field, self._line = b"", b""
                return
            self._open(name)
        if self._drop_space and piece:
            self._drop_space = False
            if piece[0] == _SPACE:
                piece = piece[1:]
        if self._field == b"data":
            if piece and self.unfinished is not None:
                self.unfinished.feed(piece)
        elif self._field:
            self._value += piece[: _LONGEST_VALUE - len(self._value)]

    def _open(self, name: bytes) -> None:
        """Begin with the value of a line."""
        self._field = name if name in _FIELDS else b""
        self._line = self._value = b""
        self._drop_space = True
        if self._field == b"data":
            if self.unfinished is None:
                self.unfinished = self._begin()
            else:
                self.unfinished.feed(b"\n")

    def _end_of_line(self) -> ServerEvent[P] | None:
        if self._field is None:
            if not self._line:
                return self._dispatched()
            self._open(self._line)
        value = self._value.decode("utf-8", "replace")
        if self._field == b"event":
            self._name = value
        elif self._field == b"id" and "\0" not in value:
            self._id = value
        elif self._field == b"retry" and value.isascii() and value.isdigit() and len(value) < 19:
            self._retry_ms = int(value)
        self._field, self._value = None, b""
        return None

    def _dispatched(self) -> ServerEvent[P] | None:
        """Return the event that a blank line completes; one without data is none."""
        data, self.unfinished = self.unfinished, None
        name, self._name = self._name, ""
        if data is None:
            return None
        data.close()
        return ServerEvent(data, name, self._id, self._retry_ms)


def _next(chunk: bytes, mark: bytes, known: int, at: int) -> int:
    """Return where the next `mark` is, the end of `chunk` if there is none; `known` is the last answer."""
    if known >= at:
        return known
    found = chunk.find(mark, at)
    return found if found >= 0 else len(chunk)
