"""Server-sent events by the standard, in chunks of any size."""

from __future__ import annotations

import itertools
import json
import time
import tracemalloc
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgkit.wire.event_body import EVENT_MARK, EventReply
from imgkit.wire.json_values import decode_base64
from imgkit.wire.sse import EventParser
from tests.support.pictures import encoded, noise

KEYS = frozenset({"b64_json"})


class Text:
    """A sink that collects the data."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.closed = False

    def feed(self, piece: bytes) -> None:
        assert piece
        self.pieces.append(piece)

    def close(self) -> None:
        assert not self.closed
        self.closed = True

    @property
    def text(self) -> str:
        return b"".join(self.pieces).decode("utf-8")


def parse_events(chunks: Iterable[bytes]) -> list[Any]:
    parser = EventParser(Text)
    return [event for chunk in chunks for event in parser.feed(chunk)]


def parse_data(*chunks: bytes) -> list[str]:
    return [event.data.text for event in parse_events(chunks)]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b'event: done\ndata: {"a":true}\n\n', ['{"a":true}']),
        (b"event: ping\n\nevent: pong\n\n", []),
        (b"event: ping\ndata: {\ndata: 1\ndata: }\n\n\n", ["{\n1\n}"]),
        ("data: a\u2028b\u2029c\u0085d\x0b\x0c\x1ce\n\n".encode(), ["a\u2028b\u2029c\u0085d\x0b\x0c\x1ce"]),
        (b"data: 1\r\n\r\ndata: 2\r\n\r\n", ["1", "2"]),
        (b"data: 1\r\rdata: 2\r\r", ["1", "2"]),
        (b"data: 1\n\rdata: 2\r\n\n", ["1", "2"]),
        (b"data: x\ndata: x\n", []),
        (b"data: x", []),
        (b"data: a\n: keep-alive\ndata: b\n\n", ["a\nb"]),
        (b":\n:\n\ndata: b\n\n", ["b"]),
        (b"data:\tx\n\n", ["\tx"]),
        (b"data:  x \n\n", [" x "]),
        (b"data\n\n", [""]),
        (b"data\ndata\n\n", ["\n"]),
        (b"data:\n\n", [""]),
        (b"data: a:b: c\n\n", ["a:b: c"]),
        (b"data : x\nDATA: z\ndatabase: q\ndata: y\n\n", ["y"]),
        (b"\xef\xbb\xbfdata: x\n\n", ["x"]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\ndata: y\n\n", ["y"]),
        (b"data: x\n\n\xef\xbb\xbfdata: y\n\n", ["x"]),
        (b"data: [DONE]\n\n", ["[DONE]"]),
        (b"\n\n\r\r\r\n\r\ndata: x\n\n", ["x"]),
        ("data: извeстни 🦊\n\n".encode(), ["извeстни 🦊"]),
        (b"", []),
    ],
)
def test_data(stream: bytes, expected: list[str]) -> None:
    """Gives the same events for a stream whole, byte by byte, and split at any place."""
    assert parse_data(stream) == expected
    assert parse_data(*(stream[at : at + 1] for at in range(len(stream)))) == expected
    for at in range(len(stream) + 1):
        assert parse_data(stream[:at], b"", stream[at:]) == expected


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_the_other_fields(end: str) -> None:
    """Resets the name after each event, keeps the id, and ignores a retry that is no integer."""
    lines = ["event: a", "id: one", "retry: 1500", "data: 1", "", "id: t\0wo", "retry: 15s", "data: 2", "",
             "id", "event: b", "event:c", "data: 3", "", ""]  # fmt: skip
    stream = end.join(lines).encode()
    for cut in (len(stream), 1, 3):
        events = parse_events(stream[at : at + cut] for at in range(0, len(stream), cut))
        assert [(event.name, event.id, event.retry_ms) for event in events] == [
            ("a", "one", 1500), ("", "one", 1500), ("c", "", 1500),
        ]  # fmt: skip


LINES = st.sampled_from(
    [b"data: a", b"data:b", b"data", b"", b"", b": c", b"event: d", b"id: 1", b"x: y", b"data: \xd0\xb8"]
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])


@given(st.lists(st.tuples(LINES, ENDS), max_size=30), st.lists(st.integers(0, 300)))
def test_any_cuts(lines: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    """Gives the events of the whole stream for any chunks."""
    stream = b"".join(line + end for line, end in lines)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    chunks = [stream[begin:end] for begin, end in itertools.pairwise(edges)]
    expected = [(event.name, event.id, event.data.text) for event in parse_events([stream])]
    assert [(event.name, event.id, event.data.text) for event in parse_events(chunks)] == expected
    assert [text for _, _, text in expected] == parse_by_lines(stream)


def parse_by_lines(stream: bytes) -> list[str]:
    """Return the data of each event by the standard's algorithm, line by line over the whole text."""
    events: list[str] = []
    lines: list[str] = []
    text = stream.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    for line in text.split("\n")[:-1]:
        name, _, value = line.partition(":")
        if not line and lines:
            events.append("\n".join(lines))
            lines = []
        elif name == "data":
            lines.append(value.removeprefix(" "))
    return events


def test_many_events_and_lines() -> None:
    """Parses two thousand events in a chunk, and ten thousand data lines in an event."""
    assert parse_data(b"data: x\n\n" * 2000) == ["x"] * 2000
    assert parse_data(b"data:x\n" * 10_000 + b"\n") == ["\n".join(["x"] * 10_000)]


def test_skipped_fields_take_no_memory() -> None:
    """Holds less than 300 kB for endless comments, unknown fields, event names and ids."""
    parser = EventParser(Text)
    line = b"x" * 65536
    tracemalloc.start()
    for start in (b":", b"unknown: ", b"nocolon", b"event: ", b"id: "):
        parser.feed(start)
        for _ in range(100):
            parser.feed(line)
        parser.feed(b"\n")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300_000


class ByteCounter:
    """A sink that counts the bytes and drops them."""

    def __init__(self) -> None:
        self.length = 0

    def feed(self, piece: bytes) -> None:
        self.length += len(piece)

    def close(self) -> None:
        """Do nothing."""


def measure_parse_s(line_bytes: int, chunk: bytes) -> float:
    """Return the seconds that a data line of about `line_bytes` takes."""
    parser = EventParser(ByteCounter)
    began = time.perf_counter()
    parser.feed(b"data: ")
    for _ in range(line_bytes // len(chunk)):
        parser.feed(chunk)
    (event,) = parser.feed(b"\n\n")
    assert event.data.length == line_bytes // len(chunk) * len(chunk)
    return time.perf_counter() - began


def test_a_long_line_takes_linear_time_and_no_memory() -> None:
    """Parses a line of 64 MiB as fast per byte as 4 MiB, and never holds it whole."""
    chunk = b"A" * 65536
    short_s = min(measure_parse_s(4 << 20, chunk) for _ in range(3))
    assert min(measure_parse_s(64 << 20, chunk) for _ in range(3)) < 16 * short_s * 8
    tracemalloc.start()
    measure_parse_s(8 << 20, chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000
    # The same byte by byte.
    short_s = min(measure_parse_s(4096, b"A") for _ in range(5))
    assert (
        min(measure_parse_s(65536, b"A") for _ in range(3)) < 16 * short_s * 8
    )  # quadratic time would take 256


# Replies: the JSON data of events, or JSON in place of events.


def read_replies(*chunks: bytes, expect_events: bool = True) -> tuple[EventReply, list[Any], Any]:
    """Return a body, the data of its events, and the rest that `close` returns."""
    body = EventReply(KEYS, expect_events=expect_events)
    replies = [reply for chunk in chunks for reply in body.feed(chunk)]
    return body, replies, body.close()


def test_decodes_images_while_they_arrive() -> None:
    """Decodes the images of each event, those behind `[DONE]`, too."""
    images = [noise(1), noise(2)]
    stream = b"".join(
        b"event: x\ndata: " + json.dumps({"type": "t", "b64_json": encoded(image)}).encode() + b"\n\n"
        for image in images
    )
    end = stream.rindex(b"event: x")
    stream = stream[:end] + b"data: [DONE] \n\n" + stream[end:]
    for size in (1, 97, 100_000):
        body, replies, rest = read_replies(*(stream[at : at + size] for at in range(0, len(stream), size)))
        assert [decode_base64(reply.json()["b64_json"]) for reply in replies] == images
        assert body.done
        assert body.count == 2
        assert rest is None
        chunks = body.take_spool_chunks()
        parts = [b"".join(text for part, text in chunks if part == str(number)) for number in (0, 1)]
        assert parts == images
        texts = b"".join(text for part, text in chunks if part == "reply").split(EVENT_MARK)[1::2]
        assert [json.loads(text)["b64_json"] for text in texts] == ["imgkit-part-0", "imgkit-part-1"]


@pytest.mark.parametrize("expect_events", [True, False])
def test_json_instead_of_events(expect_events: bool) -> None:
    """Tells JSON from events by the first byte, whatever the Content-Type announces."""
    for start in (b"", b" \r\n", b"\xef\xbb\xbf"):
        body, replies, rest = read_replies(start, b'{"data"', b": []}", expect_events=expect_events)
        assert replies == []
        assert rest.json() == {"data": []}
        assert not body.is_stream
    for start in (
        b"data: 1",
        b": hello\ndata: 1",
        b"id: 3\ndata:1",
        b"event:x\ndata:1",
        b"retry: 3\ndata: 1",
    ):
        body, replies, rest = read_replies(start, b"\n\n", expect_events=expect_events)
        assert [reply.json() for reply in replies] == [1]
        assert body.is_stream


def test_empty_body() -> None:
    """Takes an empty body for the format that its Content-Type announces."""
    body, _, rest = read_replies(b"\n", expect_events=True)
    assert body.is_stream
    assert rest is None
    body, _, rest = read_replies(b"\n", expect_events=False)
    assert not body.is_stream
    with pytest.raises(ValueError, match="character"):
        rest.json()


def test_an_event_without_its_blank_line() -> None:
    """Returns the data of a last event without a blank line, because it may be paid for."""
    body, replies, rest = read_replies(b'data: {"a":1}')
    assert replies == []
    assert body.count == 0
    assert rest.json() == {"a": 1}
    _, _, rest = read_replies(b'data: {"a":')
    with pytest.raises(ValueError, match="character"):
        rest.json()


def test_pending_length() -> None:
    """Counts the bytes of an incomplete event, so a caller can limit its size."""
    body = EventReply(KEYS, expect_events=True)
    body.feed(b"data: 12345")
    assert body.pending_length == 5
    body.feed(b"\n\n: a comment")
    assert body.pending_length == 0
    assert body.length == len(b"data: 12345\n\n: a comment")
