"""Server-sent events by the standard, however they are cut."""

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
    """A payload that is only collected."""

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


def events(chunks: Iterable[bytes]) -> list[Any]:
    parser = EventParser(Text)
    return [event for chunk in chunks for event in parser.feed(chunk)]


def data(*chunks: bytes) -> list[str]:
    return [event.data.text for event in events(chunks)]


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
    """Each stream gives the same events whole, byte by byte, and cut in two at any place."""
    assert data(stream) == expected
    assert data(*(stream[at : at + 1] for at in range(len(stream)))) == expected
    for at in range(len(stream) + 1):
        assert data(stream[:at], b"", stream[at:]) == expected


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_the_other_fields(end: str) -> None:
    """Names belong to one event, ids stay, a retry is a whole number."""
    lines = ["event: a", "id: one", "retry: 1500", "data: 1", "", "id: t\0wo", "retry: 15s", "data: 2", "",
             "id", "event: b", "event:c", "data: 3", "", ""]  # fmt: skip
    stream = end.join(lines).encode()
    for cut in (len(stream), 1, 3):
        found = events(stream[at : at + cut] for at in range(0, len(stream), cut))
        assert [(one.name, one.id, one.retry_ms) for one in found] == [
            ("a", "one", 1500), ("", "one", 1500), ("c", "", 1500),
        ]  # fmt: skip


LINES = st.sampled_from(
    [b"data: a", b"data:b", b"data", b"", b"", b": c", b"event: d", b"id: 1", b"x: y", b"data: \xd0\xb8"]
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])


@given(st.lists(st.tuples(LINES, ENDS), max_size=30), st.lists(st.integers(0, 300)))
def test_any_cuts(lines: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    """However a stream is cut, its events are those of the whole."""
    stream = b"".join(line + end for line, end in lines)
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[begin:end] for begin, end in itertools.pairwise(places)]
    whole = [(one.name, one.id, one.data.text) for one in events([stream])]
    assert [(one.name, one.id, one.data.text) for one in events(pieces)] == whole
    assert [text for _, _, text in whole] == reference(stream)


def reference(stream: bytes) -> list[str]:
    """The standard's algorithm, line by line over the whole text."""
    found: list[str] = []
    kept: list[str] = []
    text = stream.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    for line in text.split("\n")[:-1]:
        name, _, value = line.partition(":")
        if not line and kept:
            found.append("\n".join(kept))
            kept = []
        elif name == "data":
            kept.append(value.removeprefix(" "))
    return found


def test_many_events_and_lines() -> None:
    """Two thousand events in one chunk; ten thousand data lines in one event."""
    assert data(b"data: x\n\n" * 2000) == ["x"] * 2000
    assert data(b"data:x\n" * 10_000 + b"\n") == ["\n".join(["x"] * 10_000)]


def test_what_is_passed_over_is_not_kept() -> None:
    """Comments, unknown fields and endless names of events take no memory."""
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


class Count:
    """A payload that keeps nothing."""

    def __init__(self) -> None:
        self.length = 0

    def feed(self, piece: bytes) -> None:
        self.length += len(piece)

    def close(self) -> None:
        """Nothing to do."""


def took_s(line_bytes: int, chunk: bytes) -> float:
    parser = EventParser(Count)
    began = time.perf_counter()
    parser.feed(b"data: ")
    for _ in range(line_bytes // len(chunk)):
        parser.feed(chunk)
    (event,) = parser.feed(b"\n\n")
    assert event.data.length == line_bytes // len(chunk) * len(chunk)
    return time.perf_counter() - began


def test_a_long_line_takes_linear_time_and_no_memory() -> None:
    """There is no ceiling; 64 MiB in one line cost as much a byte as 4 MiB, and are never there whole."""
    chunk = b"A" * 65536
    short_s = min(took_s(4 << 20, chunk) for _ in range(3))
    assert min(took_s(64 << 20, chunk) for _ in range(3)) < 16 * short_s * 3
    tracemalloc.start()
    took_s(8 << 20, chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000
    # byte by byte
    short_s = min(took_s(4096, b"A") for _ in range(5))
    assert min(took_s(65536, b"A") for _ in range(3)) < 16 * short_s * 4


# What is above the frames.


def replies(*chunks: bytes, says_events: bool = True) -> tuple[EventReply, list[Any], Any]:
    body = EventReply(KEYS, says_events=says_events)
    found = [one for chunk in chunks for one in body.feed(chunk)]
    return body, found, body.close()


def test_pictures_are_decoded_as_they_arrive() -> None:
    """The data of an event is JSON whose pictures are bytes already; `[DONE]` ends, whatever follows."""
    wanted = [noise(1), noise(2)]
    stream = b"".join(
        b"event: x\ndata: " + json.dumps({"type": "t", "b64_json": encoded(one)}).encode() + b"\n\n"
        for one in wanted
    )
    stream += b"data: [DONE] \n\ndata: {oops\n\n"
    for size in (1, 97, 100_000):
        body, found, rest = replies(*(stream[at : at + size] for at in range(0, len(stream), size)))
        assert [decode_base64(one.json()["b64_json"]) for one in found] == wanted
        assert body.done
        assert body.count == 2
        assert rest is None
        news = body.news()
        parts = [b"".join(text for part, text in news if part == str(number)) for number in (0, 1)]
        assert parts == wanted
        texts = b"".join(text for part, text in news if part == "reply").split(EVENT_MARK)[1:3]
        assert [json.loads(text)["b64_json"] for text in texts] == ["imgkit-part-0", "imgkit-part-1"]


@pytest.mark.parametrize("says_events", [True, False])
def test_json_instead(says_events: bool) -> None:
    """JSON is known by its first byte, whatever the Content-Type says; and so are events."""
    for start in (b"", b" \r\n", b"\xef\xbb\xbf"):
        body, found, rest = replies(start, b'{"data"', b": []}", says_events=says_events)
        assert found == []
        assert rest.json() == {"data": []}
        assert not body.is_stream
    for start in (
        b"data: 1",
        b": hello\ndata: 1",
        b"id: 3\ndata:1",
        b"event:x\ndata:1",
        b"retry: 3\ndata: 1",
    ):
        body, found, rest = replies(start, b"\n\n", says_events=says_events)
        assert [one.json() for one in found] == [1]
        assert body.is_stream


def test_nothing_at_all() -> None:
    """An empty body is what its Content-Type says."""
    body, _, rest = replies(b"\n", says_events=True)
    assert body.is_stream
    assert rest is None
    body, _, rest = replies(b"\n", says_events=False)
    assert not body.is_stream
    with pytest.raises(ValueError, match="character"):
        rest.json()


def test_an_event_without_its_blank_line() -> None:
    """It is there for whoever can make something of it: it may be paid for."""
    body, found, rest = replies(b'data: {"a":1}')
    assert found == []
    assert body.count == 0
    assert rest.json() == {"a": 1}
    _, _, rest = replies(b'data: {"a":')
    with pytest.raises(ValueError, match="character"):
        rest.json()


def test_what_is_held() -> None:
    """The size of one event is known while it comes, so that it can be bounded."""
    body = EventReply(KEYS, says_events=True)
    body.feed(b"data: 12345")
    assert body.held == 5
    body.feed(b"\n\n: a comment")
    assert body.held == 0
    assert body.length == len(b"data: 12345\n\n: a comment")
