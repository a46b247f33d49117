"""A reader of replies to streaming requests: server-sent events, or a JSON value instead.

Many servers answer a streaming request with plain JSON, and some send a wrong Content-Type. So the
first bytes decide first: an object or array is JSON under any Content-Type, and a comment or a known
field begins events. The Content-Type decides about all others, such as a field of a later standard.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from imgkit.wire.arriving_images import ByteSink, MemorySink
from imgkit.wire.json_body import JsonReply, SpoolChunks
from imgkit.wire.secret_filter import NO_SECRETS, SecretFilter
from imgkit.wire.sse import EventParser

EVENT_MARK = b"\x1e"
"""Separator before the text of each event in a spool. JSON text cannot contain it (RFC 7464)."""

DONE = b"[DONE]"
"""The start of the data of the event that ends a stream."""

_BLANK = b" \t\r\n\xef\xbb\xbf"
_JSON_STARTS = (b"{", b"[", b'"')
_EVENT_STARTS = (b":", b"data:", b"event:", b"id:", b"retry:")
_EVENT_DATA = re.compile(rb"(?:\A|[\r\n])(?:\xef\xbb\xbf)?data:")
_LONGEST_DONE = 256
_LONGEST_BLANKS = 1024


class EventReply:
    r"""The body of a success reply to a streaming request, in chunks of any size.

    Example::

        >>> body = EventReply(frozenset({"b64_json"}), expect_events=True)
        >>> [event.json() for event in body.feed(b'data: {"type": "ping"}\n\n')]
        [{'type': 'ping'}]

    Args:
        base64_keys, make_sink, secrets: as for `JsonReply`.
        expect_events: the Content-Type announces events. It decides where the first bytes do not.

    Attributes:
        length: number of received bytes.
        pending_length: number of received bytes of the incomplete event, or of the JSON value.
        done: the event that ends a stream has arrived. Some servers send images behind it.
        count: number of events that have arrived.
    """

    def __init__(
        self,
        base64_keys: frozenset[str],
        make_sink: Callable[[], ByteSink] = MemorySink,
        *,
        expect_events: bool,
        secrets: SecretFilter = NO_SECRETS,
    ) -> None:
        self.length = 0
        self.pending_length = 0
        self.done = False
        self.count = 0
        self._keys = base64_keys
        self._make_sink = make_sink
        self._expect_events = expect_events
        # The first bytes, until they decide.
        self._start = b""
        self._secrets = secrets
        self._parser: EventParser[_EventData] | None = None
        self._json: JsonReply | None = None
        self._spool_chunks: SpoolChunks = []
        self._next_image = 0

    def feed(self, chunk: bytes) -> list[JsonReply]:
        """Read the next bytes; return the data of the events that they complete."""
        self.length += len(chunk)
        if self._parser is None and self._json is None:
            chunk = self._start + chunk
            is_stream = _is_event_start(chunk, self._expect_events)
            if is_stream is None:
                blanks = len(chunk) - len(chunk.lstrip(_BLANK))
                self._start = chunk[max(0, blanks - _LONGEST_BLANKS) :]
                return []
            if is_stream:
                self._parser = EventParser(self._begin_event)
            else:
                self._json = JsonReply(self._keys, self._make_sink, secrets=self._secrets)
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
                continue
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
            if unfinished is None:
                return None
            unfinished.close()
            return unfinished.reply
        if self._json is None and not self._expect_events:
            self._json = JsonReply(self._keys, self._make_sink, secrets=self._secrets)
            self._json.feed(self._start)
        if self._json is not None:
            self._spool_chunks += self._json.close()
        return self._json

    @property
    def is_stream(self) -> bool:
        """Whether the body holds events. Before its first bytes, the Content-Type decides."""
        return self._parser is not None or (self._json is None and self._expect_events)

    def take_spool_chunks(self) -> SpoolChunks:
        """Return the new bytes for a spool, with `EVENT_MARK` before the text of each event."""
        chunks, self._spool_chunks = self._spool_chunks, []
        return chunks

    def _begin_event(self) -> _EventData:
        self._spool_chunks.append(("reply", EVENT_MARK))
        reply = JsonReply(self._keys, self._make_sink, first_image=self._next_image, secrets=self._secrets)
        return _EventData(self, reply)

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


def is_event_reply(reply: JsonReply) -> bool:
    """Return whether a reply that was read as JSON holds events."""
    return reply.is_text and is_event_text(reply.raw())


def is_event_text(text: bytes) -> bool:
    r"""Return whether a text holds events, under any Content-Type.

    Example::

        >>> is_event_text(b"version: 1\ndata: {}\n\n"), is_event_text(b'{"data": []}')
        (True, False)
    """
    return not text.lstrip(_BLANK).startswith(_JSON_STARTS) and _EVENT_DATA.search(text) is not None


def split_events(text: bytes, base64_keys: frozenset[str]) -> list[JsonReply]:
    """Return the data of the events in a text, with that of a last event without its blank line."""
    body = EventReply(base64_keys, expect_events=True)
    events = body.feed(text)
    rest = body.close()
    return [*events, *([rest] if rest is not None else [])]


def _is_event_start(start: bytes, expect_events: bool) -> bool | None:
    """Return whether a body with these first bytes holds events, None if they do not decide yet."""
    start = start.lstrip(_BLANK)
    if not start:
        return None
    if start.startswith(_JSON_STARTS):
        return False
    if expect_events or start.startswith(_EVENT_STARTS):
        return True
    return None if any(name.startswith(start) for name in _EVENT_STARTS) else False
