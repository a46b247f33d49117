"""A parser for server-sent events, in chunks of any size.

It follows the WHATWG rules (HTML standard, section 9.2.6, read 2026-11-23). The parser passes the
content of ``data:`` lines on in pieces, so a line of 32 MB never exists as a whole. It scans
nothing twice.
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
"""Longest kept value of a field other than ``data``, in bytes."""


class DataSink(Protocol):
    """A receiver for the data of an event."""

    def feed(self, piece: bytes, /) -> object:
        """Read the next piece. The line feeds between ``data`` lines are among the pieces."""

    def close(self) -> object:
        """Read the end of the event."""


S = TypeVar("S", bound=DataSink)


@dataclass(frozen=True, slots=True)
class ServerEvent(Generic[S]):
    """A complete event.

    Attributes:
        data: the sink that received the event's data.
        name: value of the event's ``event:`` line, "" without such a line.
        id: value of the last ``id:`` line, in this event or an earlier event.
        retry_ms: value of the last ``retry:`` line in milliseconds, None without such a line.
    """

    data: S
    name: str = ""
    id: str = ""
    retry_ms: int | None = None


class EventParser(Generic[S]):
    r"""A parser that turns bytes into events.

    Example::

        >>> class Text:
        ...     content = b""
        ...     def feed(self, piece: bytes) -> None:
        ...         self.content += piece
        ...     def close(self) -> None: ...
        >>> parser = EventParser(Text)
        >>> [event.data.content for event in parser.feed(b"data: fox\n\n")]
        [b'fox']

    Args:
        make_sink: returns a sink for the data of an event, at its first ``data`` line.

    Attributes:
        unfinished: the sink of an incomplete event, None between events. The standard drops an
            event that is incomplete at the end of the stream.
    """

    def __init__(self, make_sink: Callable[[], S]) -> None:
        self.unfinished: S | None = None
        self._make_sink = make_sink
        # The first bytes, until they are known to be a byte-order mark or not.
        self._start: bytes | None = b""
        self._after_cr = False
        # Field name of this line once its colon has arrived; b"" for a field to skip.
        self._field: bytes | None = None
        # This line, as long as it may become the name of a field.
        self._line = b""
        # The value of a field other than data.
        self._value = b""
        self._drop_space = False
        self._name = self._id = ""
        self._retry_ms: int | None = None

    def feed(self, chunk: bytes) -> list[ServerEvent[S]]:
        """Parse the next bytes; return the events that they complete."""
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
            # Each mark is searched again only after the parser has passed it.
            cr = _find_next(chunk, b"\r", cr, at)
            lf = _find_next(chunk, b"\n", lf, at)
            stop = min(cr, lf)
            if stop > at:
                self._read_piece(chunk[at:stop])
            if stop < end:
                self._after_cr = stop == cr
                event = self._end_line()
                if event is not None:
                    events.append(event)
            at = stop + 1
        return events

    def _read_piece(self, piece: bytes) -> None:
        """Read the next piece of a line."""
        if self._field is None:
            self._line += piece
            name, colon, piece = self._line.partition(b":")
            if not colon:
                if len(self._line) > _LONGEST_NAME:
                    self._field, self._line = b"", b""
                return
            self._begin_value(name)
        if self._drop_space and piece:
            self._drop_space = False
            if piece[0] == _SPACE:
                piece = piece[1:]
        if self._field == b"data":
            if piece and self.unfinished is not None:
                self.unfinished.feed(piece)
        elif self._field:
            self._value += piece[: _LONGEST_VALUE - len(self._value)]

    def _begin_value(self, name: bytes) -> None:
        """Prepare for the value of a line."""
        self._field = name if name in _FIELDS else b""
        self._line = self._value = b""
        self._drop_space = True
        if self._field == b"data":
            if self.unfinished is None:
                self.unfinished = self._make_sink()
            else:
                self.unfinished.feed(b"\n")

    def _end_line(self) -> ServerEvent[S] | None:
        """Store the field of a line; return the event that a blank line completes."""
        if self._field is None:
            if not self._line:
                return self._end_event()
            self._begin_value(self._line)
        value = self._value.decode("utf-8", "replace")
        if self._field == b"event":
            self._name = value
        elif self._field == b"id" and "\0" not in value:
            self._id = value
        elif self._field == b"retry" and value.isascii() and value.isdigit() and len(value) < 19:
            self._retry_ms = int(value)
        self._field, self._value = None, b""
        return None

    def _end_event(self) -> ServerEvent[S] | None:
        """Return the complete event, None if it has no data."""
        data, self.unfinished = self.unfinished, None
        name, self._name = self._name, ""
        if data is None:
            return None
        data.close()
        return ServerEvent(data, name, self._id, self._retry_ms)


def _find_next(chunk: bytes, mark: bytes, known: int, at: int) -> int:
    """Return the position of the next `mark`, or the end of `chunk` if there is none.

    Args:
        chunk: the bytes to search.
        mark: the bytes to find.
        known: the previous result for the same chunk and mark.
        at: the first position to search.
    """
    if known >= at:
        return known
    position = chunk.find(mark, at)
    return position if position >= 0 else len(chunk)
