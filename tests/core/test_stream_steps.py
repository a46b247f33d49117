"""Streams cut at every byte and left at every step: images survive, reservations end once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.plugins.events import Cancelled
from imgkit.runtime.flow import EmitEvent, Finished, ReadChunk, RunBlocking, SendRequest, advance
from imgkit.testing.samples import png
from imgkit.wire.messages import Head, HttpRequest
from imgkit.wire.transfer import Transfer
from tests.support.event_streams import completed, partial
from tests.support.pictures import encoded

SKETCH, WHOLE = png(2), png(1)
HEAD = Head(200, {"content-type": "text/event-stream"})


class CutBackend:
    """A backend whose reply ends or breaks after some bytes."""

    wire_errors: tuple[type[Exception], ...] = (OSError,)
    unsent_errors: tuple[type[Exception], ...] = ()

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.breaks = False
        self.head = HEAD

    def open(self, request: HttpRequest, transfer: Transfer) -> CutBackend:
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
    """Delivers an image as soon as its JSON is complete, not earlier; each cut raises an imgkit error."""
    stream = b"\xef\xbb\xbf: hi\n\n" + partial(0, SKETCH) + completed(WHOLE) + b"data: [DONE]\n\n"
    stream = stream.replace(b"\n", end)
    first, last = stream.index(b"}") + 1, stream.rindex(b"}") + 1
    backend = CutBackend()
    backend.breaks = breaks
    received: list[bytes] = []

    def read(position: int) -> None:
        received.clear()
        backend.pieces = [
            piece for piece in (stream[: position // 2], stream[position // 2 : position]) if piece
        ]
        with service.stream_image("a fox") as events:
            received.extend(item.image.data for item in events)

    with imgkit.ImageService(backend, base_url="http://127.0.0.1:9/v1", retry=False) as service:
        for position in range(last):
            expected: Any = imgkit.OutcomeUnknownError if breaks else imgkit.StreamError
            with pytest.raises(expected) as caught:
                read(position)
            assert received == ([SKETCH] if position >= first else [])
            assert [image.data for image in caught.value.images] == received
        for position in range(last, len(stream) + 1):
            read(position)
            assert received == [SKETCH, WHOLE]


class PluginLog:
    """A plugin that logs its events and the calls of its one reservation."""

    spools = True

    def __init__(self) -> None:
        self.events: list[str] = []
        self.reservations: list[str] = []

    @imgkit.hookimpl
    def imgkit_on_event(self, event: Any, call: Any) -> None:
        self.events.append(type(event).__name__)

    @imgkit.hookimpl
    def imgkit_ledger(self, settings: Any) -> Any:
        return self

    def reserve(self, request: Any, call: Any, attempt: int) -> Any:
        self.reservations.append("reserved")
        return self

    def begin(self, head: Any) -> None:
        """Not looked at, as are the next two."""

    def write(self, part: str, data: bytes) -> None: ...

    def complete(self) -> None: ...

    def settle(self, response: Any) -> None:
        self.reservations.append(f"settled for {len(response.images)}")

    def keep(self, error: BaseException, response: Any) -> None:
        self.reservations.append("kept")

    def close(self) -> None:
        self.reservations.append("closed")


@pytest.mark.parametrize("count", [1, 2])
def test_left_at_every_step(tmp_path: Path, count: int) -> None:
    """Ends each reservation and the call once and leaves no hidden file, wherever the stream is left."""
    large = [png(seed, 300) for seed in (1, 2, 3)]
    stream = partial(0, large[0]) + completed(large[1]) + (completed(large[2]) if count == 2 else b"")
    seen = set()
    for steps in range(1000):
        log, folder = PluginLog(), tmp_path / str(steps)
        service = imgkit.ImageService(
            CutBackend(), base_url="http://127.0.0.1:9/v1", plugins=[log], retry=False
        )
        flow = service.stream_image("a fox", n=count, save_to=f"{folder}/")._flow
        result: object = None
        position = 0
        effect = advance(flow, None)
        for _ in range(steps):
            match effect:
                case SendRequest():
                    result = HEAD
                case ReadChunk():
                    result = stream[position : position + 100_000]
                    position += 100_000
                case RunBlocking(fn, _):
                    result = fn()
                case EmitEvent():
                    result = None
            effect = advance(flow, result)
            if isinstance(effect, Finished):
                break
        flow.close()
        service.close()
        seen.add(type(effect))
        assert log.reservations in ([], ["reserved", "kept"], ["reserved", f"settled for {count}"])
        ends = [event for event in log.events if event in ("Succeeded", "Failed", "Cancelled")]
        assert ends == ["Succeeded" if log.reservations[1:] == [f"settled for {count}"] else "Cancelled"]
        assert list(folder.glob(".*")) == []
        if isinstance(effect, Finished):
            break
    assert seen == {SendRequest, ReadChunk, RunBlocking, EmitEvent, Finished}


@pytest.mark.parametrize(
    "body", [json.dumps({"data": [{"b64_json": encoded(WHOLE)}]}).encode(), b"hello\n" + completed(WHOLE)]
)
def test_left_after_a_whole_reply(body: bytes) -> None:
    """Tells observers that the outcome is known once a reply without announced events is whole."""
    seen: list[Any] = []

    class Spy:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            seen.append(event)

    with imgkit.ImageService(CutBackend(), base_url="http://127.0.0.1:9/v1", plugins=[Spy()]) as service:
        flow = service.stream_image("a fox", n=2)._flow
        assert isinstance(advance(flow, None), SendRequest)
        for news in (Head(200, {"content-type": "application/json"}), body):
            assert isinstance(advance(flow, news), ReadChunk)
        assert isinstance(advance(flow, b""), EmitEvent)
        flow.close()
    assert seen[-1] == Cancelled(maybe_billed=False)
