"""Event streams of a scripted server, and a reader for both services."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.conftest import ServiceRunner
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
    """Return a server-sent event with JSON data."""
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(members).encode() + b"\n\n"


def partial(index: int = 0, data: bytes = PARTIAL, kind: str = "image_generation") -> bytes:
    """Return an event with a partial image."""
    name = f"{kind}.partial_image"
    return event({"type": name, "partial_image_index": index, "b64_json": encoded(data)}, name)


def completed(data: bytes = WHOLE, kind: str = "image_generation", **more: Any) -> bytes:
    """Return an event with the complete image and its usage."""
    members = {
        "type": f"{kind}.completed",
        "created_at": 5,
        "size": "48x48",
        "quality": "low",
        "usage": USAGE,
    }
    return event({**members, "b64_json": encoded(data), **more}, f"{kind}.completed")


def chunk(data: bytes) -> bytes:
    """Return a chunk in HTTP's chunked encoding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def streamed(*pieces: bytes, end: bytes = END) -> Script:
    """Return a script that sends each piece as a chunk; an empty `end` cuts the connection."""
    return lambda line: line.send(HEAD + b"".join(map(chunk, pieces)) + end)


def then(*steps: bytes | Callable[[Line], Any]) -> Script:
    """Return a script that sends bytes as chunks and calls functions between them."""

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
    """Return a script that sends an event and half of the next; `left` is set on disconnect."""

    def script(line: Line) -> None:
        line.send(HEAD + chunk(partial()) + chunk(completed()[:4000]))
        line.until_client_leaves()
        if not line.closing.is_set():
            left.set()

    return script


@dataclass
class Seen:
    """The events and the response of a stream."""

    events: list[Any] = field(default_factory=list)
    response: Any = None

    @property
    def kinds(self) -> list[str]:
        """Class names of the events."""
        return [type(event).__name__ for event in self.events]


def watch(
    flavor: ServiceRunner,
    call: Callable[[Any], Any],
    *args: Any,
    see: Callable[[Any], object] = lambda event: None,
    seen: Seen | None = None,
    **options: Any,
) -> Seen:
    """Read a stream under a service; return its events and response.

    Args:
        flavor: Runner of the service.
        call: Opens the stream of a service.
        args, options: Arguments of the service.
        see: Takes each event; a true result leaves the stream.
        seen: Object to fill; a new object by default.
    """
    result = Seen() if seen is None else seen

    def blocking(service: Any) -> Seen:
        with call(service) as events:
            for event in events:
                result.events.append(event)
                if see(event):
                    return result
            result.response = events.response
        return result

    async def awaiting(service: Any) -> Seen:
        async with call(service) as events:
            async for event in events:
                result.events.append(event)
                if see(event):
                    return result
            result.response = events.response
        return result

    outcome: Seen = flavor.run(blocking if flavor.flavor == "sync" else awaiting, *args, **options)
    return outcome
