"""Streams of a scripted server, and both services reading them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.conftest import Face
from tests.support.pictures import encoded, noise
from tests.support.wire_server import Line, Script, head

PARTIAL, WHOLE = noise(11), noise(12)
HEAD = head(
    200,
    {
        "content-type": "text/event-stream; charset=utf-8",
        "transfer-encoding": "chunked",
        "connection": "close",
        "x-request-id": "req_s",
    },
)
END = b"0\r\n\r\n"
USAGE = {"total_tokens": 9, "input_tokens": 2, "output_tokens": 7}


def event(members: Any, name: str = "") -> bytes:
    """Return an event with JSON data."""
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(members).encode() + b"\n\n"


def partial(index: int = 0, data: bytes = PARTIAL, kind: str = "image_generation") -> bytes:
    name = f"{kind}.partial_image"
    return event({"type": name, "partial_image_index": index, "b64_json": encoded(data)}, name)


def completed(data: bytes = WHOLE, kind: str = "image_generation", **more: Any) -> bytes:
    members = {
        "type": f"{kind}.completed",
        "created_at": 5,
        "size": "48x48",
        "quality": "low",
        "usage": USAGE,
    }
    return event({**members, "b64_json": encoded(data), **more}, f"{kind}.completed")


def chunk(data: bytes) -> bytes:
    """Return a chunk of HTTP's own framing."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def streamed(*pieces: bytes, end: bytes = END) -> Script:
    """Send each piece as a chunk; without an `end` the connection is cut."""
    return lambda line: line.send(HEAD + b"".join(map(chunk, pieces)) + end)


def then(*steps: bytes | Callable[[Line], Any]) -> Script:
    """Send a stream piece by piece, and do what is to be done between them."""

    def script(line: Line) -> None:
        line.send(HEAD)
        for step in steps:
            if callable(step):
                step(line)
            else:
                line.send(chunk(step))
        line.send(END)

    return script


def half_a_stream(left: threading.Event) -> Script:
    """Send one event and half of the next; `left` is set when the client hangs up."""

    def script(line: Line) -> None:
        line.send(HEAD + chunk(partial()) + chunk(completed()[:4000]))
        line.until_client_leaves()
        if not line.closing.is_set():
            left.set()

    return script


@dataclass
class Seen:
    """What came of a stream."""

    events: list[Any] = field(default_factory=list)
    response: Any = None

    @property
    def kinds(self) -> list[str]:
        return [type(one).__name__ for one in self.events]


def watch(
    flavor: Face,
    call: Callable[[Any], Any],
    *args: Any,
    see: Callable[[Any], object] = lambda one: None,
    seen: Seen | None = None,
    **options: Any,
) -> Seen:
    """Read a stream under one of the services; a true answer of `see` to an event leaves the context."""
    found = Seen() if seen is None else seen

    def blocking(service: Any) -> Seen:
        with call(service) as events:
            for one in events:
                found.events.append(one)
                if see(one):
                    return found
            found.response = events.response
        return found

    async def awaiting(service: Any) -> Seen:
        async with call(service) as events:
            async for one in events:
                found.events.append(one)
                if see(one):
                    return found
            found.response = events.response
        return found

    result: Seen = flavor.run(blocking if flavor.flavor == "sync" else awaiting, *args, **options)
    return result
