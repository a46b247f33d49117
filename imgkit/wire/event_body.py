"""The reply to a request for a stream, read while it arrives: events, or one JSON value instead.

Many servers answer plain JSON where a stream was asked for, and some say the wrong Content-Type. So the first
byte tells: a line of an event stream begins with the name of a field or a colon, JSON never does.
"""

from __future__ import annotations

from collections.abc import Callable

from imgkit.wire.json_body import ByteSink, InMemory, JsonReply, SpoolChunks
from imgkit.wire.sse import EventParser

EVENT_MARK = b"\x1e"
"""What stands before the text of each event in a spool: a character that JSON text cannot hold (RFC 7464)."""

DONE = b"[DONE]"
"""What the data of the event that ends a stream begins with."""

_BLANK = b" \t\r\n\xef\xbb\xbf"
_EVENT_STARTS = (b":", b"d", b"e", b"i", b"r")
_LONGEST_DONE = 256


class EventReply:
    """The body of a success reply, fed as it comes.

    Args:
        base64_keys, hold: as for `JsonReply`.
        says_events: the Content-Type is that of an event stream; it decides where the body is empty.

    Attributes:
        length: how many bytes came.
        held: how many of them are of what is not complete yet: of one event, or of the one JSON value.
        done: the event that ends a stream has come.
        count: how many events came.
    """

    def __init__(
        self, base64_keys: frozenset[str], hold: Callable[[], ByteSink] = InMemory, *, says_events: bool
    ) -> None:
        self.length = 0
        self.held = 0
        self.done = False
        self.count = 0
        self._keys = base64_keys
        self._hold = hold
        self._says_events = says_events
        self._first = b""  # blanks, until there is something else
        self._parser: EventParser[_Data] | None = None
        self._whole: JsonReply | None = None
        self._news: SpoolChunks = []
        self._pictures = 0  # of the events that are complete

    def feed(self, chunk: bytes) -> list[JsonReply]:
        """Take the next bytes; return the data of the events that they complete."""
        self.length += len(chunk)
        if self.done:
            return []
        if self._parser is None and self._whole is None:
            chunk = self._first + chunk
            start = chunk.lstrip(_BLANK)[:1]
            if not start:
                self._first = chunk[-1024:]
                return []
            if start in _EVENT_STARTS:
                self._parser = EventParser(self._begin)
            else:
                self._whole = JsonReply(self._keys, self._hold)
        if self._whole is not None:
            self._news += self._whole.feed(chunk)
            self.held = self._whole.length
            return []
        assert self._parser is not None, "one of the two has been chosen"
        found = []
        for event in self._parser.feed(chunk):
            reply = event.data.reply
            text = reply.raw() if reply.length <= _LONGEST_DONE else None
            if text is not None and text.startswith(DONE):
                self.done = True
                break
            if text is None or text.strip():  # some servers keep a connection alive by events without data
                found.append(reply)
        self.count += len(found)
        unfinished = self._parser.unfinished
        self.held = unfinished.reply.length if unfinished is not None else 0
        return found

    def close(self) -> JsonReply | None:
        """The reply has come to its end. Idempotent.

        Returns:
            The one JSON value that came instead of events; or the data of an event that lacks nothing but
            the blank line behind it, since it may be paid for; else None.
        """
        if self._parser is not None:
            unfinished = self._parser.unfinished
            if unfinished is None or self.done:
                return None
            unfinished.close()
            return unfinished.reply
        if self._whole is None and not self._says_events:
            self._whole = JsonReply(self._keys, self._hold)
            self._whole.feed(self._first)
        if self._whole is not None:
            self._news += self._whole.close()
        return self._whole

    @property
    def is_stream(self) -> bool:
        """Whether these are events, as far as is known."""
        return self._parser is not None or (self._whole is None and self._says_events)

    def news(self) -> SpoolChunks:
        """Return what is new for a spool; each event's text has `EVENT_MARK` before it."""
        news, self._news = self._news, []
        return news

    def _begin(self) -> _Data:
        self._news.append(("reply", EVENT_MARK))
        return _Data(self, JsonReply(self._keys, self._hold, first_picture=self._pictures))

    def told(self, news: SpoolChunks, reply: JsonReply) -> None:
        """Take note of what an event has for a spool."""
        self._news += news
        self._pictures = reply.next_picture


class _Data:
    """The data of one event."""

    def __init__(self, owner: EventReply, reply: JsonReply) -> None:
        self._owner = owner
        self.reply = reply

    def feed(self, piece: bytes) -> None:
        self._owner.told(self.reply.feed(piece), self.reply)

    def close(self) -> None:
        self._owner.told(self.reply.close(), self.reply)
