"""Reused connections to servers that say more than they were asked, or read less than they were sent."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest

import imgkit
from imgkit.backends import aiohttp as aiohttp_backend
from imgkit.backends import connections as requests_connections
from imgkit.backends import plain_http
from imgkit.backends.plain_http import PlainHttpBackend
from imgkit.testing.wire_server import CA_FILE
from imgkit.wire.messages import BackendOptions
from tests.support.pictures import encoded, noise, picture
from tests.support.wire_server import Line, WireServer, head

COLORS = ["red", "lime", "blue"]
LINGER_S = 0.03
"""Seconds in which an event loop reads bytes that have arrived."""


@pytest.fixture(autouse=True)
def keep_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep idle connections for a minute, because a busy machine may pause a test."""
    for module in (aiohttp_backend, requests_connections, plain_http):
        monkeypatch.setattr(module, "REUSE_S", 60.0)


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


def build_settings(server: WireServer) -> dict[str, Any]:
    settings: dict[str, Any] = {"base_url": server.base_url, "retry": False, "ca": CA_FILE}
    return settings | {"reuse_connections": True, "timeout_s": 5}


def open_sync(backend: str, server: WireServer) -> imgkit.ImageService:
    settings = build_settings(server)
    given: Any = backend
    if backend == "plain":
        options = BackendOptions(reuse_connections=True, ca=settings.pop("ca"))
        settings.pop("reuse_connections")
        given = PlainHttpBackend(options)
    return imgkit.ImageService(given, **settings)


def create_three(backend: str, server: WireServer, sharing: OversharingServer) -> list[bytes]:
    """Return the images of three calls, one after the other."""
    images = []
    if backend == "aiohttp":

        async def main() -> None:
            async with imgkit.AsyncImageService("aiohttp", **build_settings(server)) as service:
                for _ in COLORS:
                    images.append((await service.create_image("a fox")).images[0].data)
                    await asyncio.to_thread(sharing.wait)
                    await asyncio.sleep(LINGER_S)

        asyncio.run(main())
        return images
    with open_sync(backend, server) as service:
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


def refuse_unread(line: Line) -> None:
    """Refuse an upload whose body nobody reads; create an image for any other request."""
    while True:
        while b"\r\n\r\n" not in line.head:
            if not (data := line.connection.recv(1000)):
                return
            line.head += data
        if int(line.headers["content-length"]) > len(UNASKED):
            body = json.dumps({"error": {"message": "too large"}}).encode()
            line.send(head(413, {"content-length": str(len(body))}) + body)
            line.until_client_leaves()
            return
        line.send(build_reply("red"))
        line.head = b""


def test_no_request_follows_an_upload_that_was_refused() -> None:
    """Sends the request after a refused upload over a connection whose server has read everything."""
    image = noise(1, 1000)

    async def main(server: WireServer) -> bytes:
        async with imgkit.AsyncImageService("aiohttp", **build_settings(server)) as service:
            await service.create_image("a fox")
            with pytest.raises(imgkit.ApiError):
                await service.create_image_edit(image, "a fox")
            return (await service.create_image("a fox")).images[0].data

    with WireServer(refuse_unread, read_first=False) as server:
        assert asyncio.run(main(server)) == picture(color="red")
        assert server.accepted > 1


@pytest.mark.parametrize("backend", ["aiohttp", "requests", "plain"])
def test_a_connection_ends_with_a_refusal(backend: str) -> None:
    """Reuses no connection after an error, since its server may discard the next request."""
    replies = [head(400, {"content-length": "2"}) + b"{}", build_reply("red"), build_reply("lime")]

    def serve(line: Line) -> None:
        while replies:
            line.send(replies.pop(0))
            if not line.read_request():
                return

    async def main(server: WireServer) -> None:
        async with imgkit.AsyncImageService("aiohttp", **build_settings(server)) as service:
            with pytest.raises(imgkit.ApiError):
                await service.create_image("a fox")
            await service.create_image("a fox")
            await service.create_image("a fox")

    with WireServer(serve) as server:
        if backend == "aiohttp":
            asyncio.run(main(server))
        else:
            with open_sync(backend, server) as service:
                with pytest.raises(imgkit.ApiError):
                    service.create_image("a fox")
                service.create_image("a fox")
                service.create_image("a fox")
        assert server.accepted == 2


def test_an_aborted_upload_ends_a_reused_connection() -> None:
    """Hangs up at once when a call over a reused connection is cancelled during its upload."""
    image = noise(1, 1000)
    has_begun, has_left = threading.Event(), threading.Event()

    def serve(line: Line) -> None:
        line.send(build_reply("red"))
        line.connection.recv(1000)
        has_begun.set()
        line.until_client_leaves()
        if not line.closing.is_set():
            has_left.set()

    async def main(server: WireServer) -> None:
        async with imgkit.AsyncImageService("aiohttp", **build_settings(server)) as service:
            await service.create_image("a fox")
            task = asyncio.create_task(service.create_image_edit(image, "a fox"))
            await asyncio.to_thread(has_begun.wait, 5)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await asyncio.to_thread(has_left.wait, 2)

    with WireServer(serve) as server:
        asyncio.run(main(server))
        assert server.accepted == 1
