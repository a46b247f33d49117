"""Reused connections to a server that says more than it was asked."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest

import imgkit
from imgkit.backends.plain_http import PlainHttpBackend
from imgkit.testing.wire_server import CA_FILE
from imgkit.wire.messages import BackendOptions
from tests.support.pictures import encoded, picture
from tests.support.wire_server import Line, WireServer, head

COLORS = ["red", "lime", "blue"]
LINGER_S = 0.03
"""Seconds in which an event loop reads bytes that have arrived."""


def build_reply(color: str) -> bytes:
    body = json.dumps({"data": [{"b64_json": encoded(picture(color=color))}]}).encode()
    return head(200, {"content-length": str(len(body))}) + body


UNASKED = build_reply("gray")


class OversharingServer:
    """Replies with an image per request, and says more than it was asked.

    Args:
        more: bytes behind each reply.
        is_late: send them once the client has the reply.
    """

    def __init__(self, more: bytes, is_late: bool) -> None:
        self.more, self.is_late = more, is_late
        self.requests = 0
        self.has_reply, self.has_more = threading.Semaphore(0), threading.Semaphore(0)

    def serve(self, line: Line) -> None:
        """Serve a connection until the client leaves."""
        while True:
            reply = build_reply(COLORS[self.requests])
            self.requests += 1
            line.send(reply[:-40])
            time.sleep(LINGER_S)  # so that the head of the reply arrives on its own
            if self.is_late:
                line.send(reply[-40:])
                self.has_reply.acquire(timeout=5)
                line.send(self.more)
            else:
                line.send(reply[-40:] + self.more)
                self.has_reply.acquire(timeout=5)
            self.has_more.release()
            if not line.read_request():
                return

    def wait(self) -> None:
        """Wait until all bytes behind a reply have left."""
        self.has_reply.release()
        assert self.has_more.acquire(timeout=5)


def create_three(backend: str, server: WireServer, sharing: OversharingServer) -> list[bytes]:
    """Return the images of three calls, one after the other."""
    settings: dict[str, Any] = {"base_url": server.base_url, "retry": False, "ca": CA_FILE}
    settings |= {"reuse_connections": True, "timeout_s": 5}
    images = []
    if backend == "aiohttp":

        async def main() -> None:
            async with imgkit.AsyncImageService("aiohttp", **settings) as service:
                for _ in COLORS:
                    images.append((await service.create_image("a fox")).images[0].data)
                    await asyncio.to_thread(sharing.wait)
                    await asyncio.sleep(LINGER_S)

        asyncio.run(main())
        return images
    given: Any = backend
    if backend == "plain":
        options = BackendOptions(reuse_connections=True, ca=settings.pop("ca"))
        settings.pop("reuse_connections")
        given = PlainHttpBackend(options)
    with imgkit.ImageService(given, **settings) as service:
        for _ in COLORS:
            images.append(service.create_image("a fox").images[0].data)
            sharing.wait()
    return images


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("is_late", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize(
    "more",
    [UNASKED, UNASKED[:90], UNASKED[:20], b"\r\n"],
    ids=["reply", "half a reply", "half a head", "line break"],
)
@pytest.mark.parametrize("backend", ["aiohttp", "requests", "plain"])
def test_bytes_that_nobody_asked_for_are_no_reply(
    backend: str, more: bytes, is_late: bool, tls: bool
) -> None:
    """Never takes bytes behind a reply for the reply to the next request, which goes out once."""
    sharing = OversharingServer(more, is_late)
    with WireServer(sharing.serve, tls=tls) as server:
        images = create_three(backend, server, sharing)
    assert images == [picture(color=color) for color in COLORS]
    assert sharing.requests == len(COLORS)
