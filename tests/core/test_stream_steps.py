"""Streams cut at every byte, and left at every step: what came is there, and accounts end once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.runtime.flow import EmitEvent, Finished, ReadChunk, RunBlocking, SendRequest, advance
from imgkit.testing.samples import png
from imgkit.wire.messages import Head, HttpRequest
from imgkit.wire.transfer import Transfer
from tests.support.event_streams import completed, partial

SKETCH, WHOLE = png(2), png(1)
HEAD = Head(200, {"content-type": "text/event-stream"})


class Cut:
    """A backend whose reply ends, or breaks, behind some bytes."""

    errors = (OSError,)
    unsent_errors = ()

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.breaks = False
        self.head = HEAD

    def open(self, request: HttpRequest, transfer: Transfer) -> Cut:
        return self

    def read(self) -> bytes:
        if self.pieces:
            return self.pieces.pop(0)
        if self.breaks:
            raise OSError("cut")
        return b""

    def close(self) -> None:
        """Nothing to do."""


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("breaks", [False, True])
def test_cut_at_every_byte(end: bytes, breaks: bool) -> None:
    """A picture is handed on as soon as its JSON is whole, and no earlier; each end is an error of ours."""
    stream = b"\xef\xbb\xbf: hi\n\n" + partial(0, SKETCH) + completed(WHOLE) + b"data: [DONE]\n\n"
    stream = stream.replace(b"\n", end)
    first, last = stream.index(b"}") + 1, stream.rindex(b"}") + 1
    backend = Cut()
    backend.breaks = breaks
    came: list[bytes] = []

    def read(place: int) -> None:
        came.clear()
        backend.pieces = [piece for piece in (stream[: place // 2], stream[place // 2 : place]) if piece]
        with service.stream_image("a fox") as events:
            came.extend(one.image.data for one in events)

    with imgkit.ImageService(backend, base_url="http://127.0.0.1:9/v1", retry=False) as service:
        for place in range(last):
            with pytest.raises(imgkit.OutcomeUnknownError if breaks else imgkit.StreamError) as caught:
                read(place)
            assert came == ([SKETCH] if place >= first else [])
            assert [one.data for one in caught.value.images] == came
        for place in range(last, len(stream) + 1):
            read(place)
            assert came == [SKETCH, WHOLE]


class Told:
    """A plugin: an observer, and a ledger of one reservation, that keep what they are told."""

    spools = True

    def __init__(self) -> None:
        self.events: list[str] = []
        self.accounts: list[str] = []

    @imgkit.hookimpl
    def imgkit_on_event(self, event: Any, call: Any) -> None:
        self.events.append(type(event).__name__)

    @imgkit.hookimpl
    def imgkit_ledger(self, settings: Any) -> Any:
        return self

    def reserve(self, request: Any, call: Any, attempt: int) -> Any:
        self.accounts.append("reserved")
        return self

    def begin(self, head: Any) -> None:
        """Not looked at, as are the next two."""

    def write(self, part: str, data: bytes) -> None: ...

    def complete(self) -> None: ...

    def settle(self, response: Any) -> None:
        self.accounts.append(f"settled for {len(response.images)}")

    def keep(self, error: BaseException, response: Any) -> None:
        self.accounts.append("kept")

    def close(self) -> None:
        self.accounts.append("closed")


@pytest.mark.parametrize("count", [1, 2])
def test_left_at_every_step(tmp_path: Path, count: int) -> None:
    """Each account ends once, the call ends once, and no hidden file stays, wherever a stream is left."""
    large = [png(seed, 300) for seed in (1, 2, 3)]
    stream = partial(0, large[0]) + completed(large[1]) + (completed(large[2]) if count == 2 else b"")
    seen = set()
    for steps in range(1000):
        told, folder = Told(), tmp_path / str(steps)
        service = imgkit.ImageService(Cut(), base_url="http://127.0.0.1:9/v1", plugins=[told], retry=False)
        flow = service.stream_image("a fox", n=count, save_to=f"{folder}/")._flow
        news: object = None
        place = 0
        need = advance(flow, None)
        for _ in range(steps):
            match need:
                case SendRequest():
                    news = HEAD
                case ReadChunk():
                    news = stream[place : place + 100_000]
                    place += 100_000
                case RunBlocking(fn, _):
                    news = fn()
                case EmitEvent():
                    news = None
            need = advance(flow, news)
            if isinstance(need, Finished):
                break
        flow.close()
        service.close()
        seen.add(type(need))
        assert told.accounts in ([], ["reserved", "kept"], ["reserved", f"settled for {count}"])
        ends = [event for event in told.events if event in ("Succeeded", "Failed", "Cancelled")]
        assert ends == ["Succeeded" if told.accounts[1:] == [f"settled for {count}"] else "Cancelled"]
        assert list(folder.glob(".*")) == []
        if isinstance(need, Finished):
            break
    assert seen == {SendRequest, ReadChunk, RunBlocking, EmitEvent, Finished}
