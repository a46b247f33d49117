"""A reader of replies to streaming requests: server-sent events, or a JSON value instead.

Many servers answer a streaming request with plain JSON, and some send a wrong Content-Type. The
first byte decides: a line of an event stream starts with the name of a field or a colon, and JSON
never does.
"""

from __future__ import annotations

from collections.abc import Callable

from imgkit.wire.json_body import ByteSink, JsonReply, MemorySink, SpoolChunks
from imgkit.wire.sse import EventParser

EVENT_MARK = b"\x1e"
"""Separator before the text of each event in a spool. JSON text cannot contain it (RFC 7464)."""

DONE = b"[DONE]"
"""The start of the data of the event that ends a stream."""

_BLANK = b" \t\r\n\xef\xbb\xbf"
_EVENT_STARTS = (b":", b"d", b"e", b"i", b"r")
_LONGEST_DONE = 256


class EventReply:
    r"""The body of a success reply to a streaming request, in chunks of any size.

    Example::

        >>> body = EventReply(frozenset({"b64_json"}), expect_events=True)
        >>> [event.json() for event in body.feed(b'data: {"type": "ping"}\n\n')]
        [{'type': 'ping'}]

    Args:
        base64_keys, make_sink: as for `JsonReply`.
        expect_events: the Content-Type announces events. It decides only for an empty body.

    Attributes:
        length: number of received bytes.
        pending_length: number of received bytes of the incomplete event, or of the JSON value.
        done: the event that ends a stream has arrived.
        count: number of events that have arrived.
    """

    def __init__(
        self,
        base64_keys: frozenset[str],
        make_sink: Callable[[], ByteSink] = MemorySink,
        *,
        expect_events: bool,
    ) -> None:
        self.length = 0
        self.pending_length = 0
        self.done = False
        self.count = 0
        self._keys = base64_keys
        self._make_sink = make_sink
        self._expect_events = expect_events
        # White space before the first byte that decides.
        self._leading_blanks = b""
        self._parser: EventParser[_EventData] | None = None
        self._json: JsonReply | None = None
        self._spool_chunks: SpoolChunks = []
        self._next_image = 0

    def feed(self, chunk: bytes) -> list[JsonReply]:
        """Read the next bytes; return the data of the events that they complete."""
        self.length += len(chunk)
        if self.done:
            return []
        if self._parser is None and self._json is None:
            chunk = self._leading_blanks + chunk
            start = chunk.lstrip(_BLANK)[:1]
            if not start:
                self._leading_blanks = chunk[-1024:]
                return []
            if start in _EVENT_STARTS:
                self._parser = EventParser(self._begin_event)
            else:
                self._json = JsonReply(self._keys, self._make_sink)
        if self._json is not None:
            self._spool_chunks += self._json.feed(chunk)
            self.pending_length = self._json.length
            return []
        assert self._parser is not None, "the first byte has chosen a reader"
        replies = []
        for event in self._parser.feed(chunk):
            reply = event.data.reply
            text = reply.raw() if reply.length <= _LONGEST_DONE else None
            if text is not None and text.startswith(DONE):
                self.done = True
                break
            # Some servers keep a connection alive with events without data.
            if text is None or text.strip():
                replies.append(reply)
        self.count += len(replies)
        unfinished = self._parser.unfinished
        self.pending_length = unfinished.reply.length if unfinished is not None else 0
        return replies

    def close(self) -> JsonReply | None:
        """Read the end of the reply. Idempotent.

        Returns:
            The JSON value that arrived in place of events. Otherwise the data of a last event
            without its final blank line, which may be paid for. None in all other cases.
        """
        if self._parser is not None:
            unfinished = self._parser.unfinished
            if unfinished is None or self.done:
                return None
            unfinished.close()
            return unfinished.reply
        if self._json is None and not self._expect_events:
            self._json = JsonReply(self._keys, self._make_sink)
            self._json.feed(self._leading_blanks)
        if self._json is not None:
            self._spool_chunks += self._json.close()
        return self._json

    @property
    def is_stream(self) -> bool:
        """Whether the body holds events. Before its first byte, the Content-Type decides."""
        return self._parser is not None or (self._json is None and self._expect_events)

    def take_spool_chunks(self) -> SpoolChunks:
        """Return the new bytes for a spool, with `EVENT_MARK` before the text of each event."""
        chunks, self._spool_chunks = self._spool_chunks, []
        return chunks

    def _begin_event(self) -> _EventData:
        self._spool_chunks.append(("reply", EVENT_MARK))
        return _EventData(self, JsonReply(self._keys, self._make_sink, first_image=self._next_image))

    def add_chunks(self, chunks: SpoolChunks, reply: JsonReply) -> None:
        """Add the new spool bytes of an event."""
        self._spool_chunks += chunks
        self._next_image = reply.next_image


class _EventData:
    """A sink for the data of an event."""

    def __init__(self, owner: EventReply, reply: JsonReply) -> None:
        self._owner = owner
        self.reply = reply

    def feed(self, piece: bytes) -> None:
        self._owner.add_chunks(self.reply.feed(piece), self.reply)

    def close(self) -> None:
        self._owner.add_chunks(self.reply.close(), self.reply)
