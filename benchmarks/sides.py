"""The libraries under test: imgkit, the official SDK and the bare HTTP libraries, with the same methods.

A side is bound to one reply of the server. `create` returns the bytes of an image, `save` writes it to a
file, `edit` uploads a file, `stream` calls `first` at the first event, and `save_stream` writes each image of
a stream to a file, including partial images. The methods of asynchronous sides are coroutines.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

KEY = "sk-benchmark-0123456789abcdef"
MODEL = "gpt-image-1"
PROMPT = "A cute baby sea otter"
_numbers = itertools.count()


def _next_path(folder: Path) -> Path:
    return folder / f"image-{next(_numbers)}.png"


class Imgkit:
    """imgkit with requests and default settings: a new connection for each request."""

    settings: dict[str, Any] = {}
    save_settings: dict[str, Any] = {}

    def __init__(self, base_url: str, folder: Path) -> None:
        import imgkit

        self.service = imgkit.ImageService(
            "requests", base_url=base_url, api_key=KEY, model=MODEL, **self._settings(folder)
        )

    def _settings(self, folder: Path) -> dict[str, Any]:
        return self.settings

    def create(self) -> bytes:
        return self.service.create_image(PROMPT)[0].data

    def save(self, folder: Path) -> None:
        self.service.create_image(PROMPT, save_to=folder / "image-{index}.png")

    def edit(self, path: Path) -> None:
        self.service.create_image_edit(path, PROMPT)

    def stream(self, first: Callable[[], None]) -> None:
        with self.service.stream_image(PROMPT, partial_images=3) as events:
            for number, event in enumerate(events):
                if not number:
                    first()
                assert event.image.data

    def save_stream(self, folder: Path) -> None:
        from imgkit import PartialImage

        saved = folder / "image-{index}.png"
        with self.service.stream_image(PROMPT, partial_images=3, save_to=saved) as events:
            for event in events:
                if isinstance(event, PartialImage):
                    event.image.save(_next_path(folder), sidecar=False)

    def close(self) -> None:
        self.service.close()


class ImgkitReusing(Imgkit):
    """imgkit with requests, reusing connections like the SDK."""

    settings = {"reuse_connections": True}


class ImgkitBare(ImgkitReusing):
    """imgkit reusing connections, saving without sidecars (no digest, one file)."""

    def save(self, folder: Path) -> None:
        from imgkit.images.saving import SavePlan

        self.service.create_image(
            PROMPT, save_to=SavePlan.from_target(folder / "image-{index}.png", sidecar=False)
        )


class ImgkitSpooling(ImgkitReusing):
    """imgkit reusing connections, with a spool, which the command always has."""

    def _settings(self, folder: Path) -> dict[str, Any]:
        return {**self.settings, "state_folder": folder / "state"}


class ImgkitCaching(ImgkitReusing):
    """imgkit reusing connections, with a cache in a folder; every call is a miss."""

    def _settings(self, folder: Path) -> dict[str, Any]:
        import imgkit

        return {**self.settings, "plugins": [imgkit.CachePlugin(folder=folder / "cache")]}

    def create(self) -> bytes:
        return self.service.create_image(PROMPT, replica=next(_numbers))[0].data


class OpenAI:
    """The official SDK."""

    def __init__(self, base_url: str, folder: Path) -> None:
        import openai

        self.client = openai.OpenAI(base_url=base_url, api_key=KEY)

    def create(self) -> bytes:
        return base64.b64decode(self.client.images.generate(prompt=PROMPT, model=MODEL).data[0].b64_json)

    def save(self, folder: Path) -> None:
        _next_path(folder).write_bytes(self.create())

    def edit(self, path: Path) -> None:
        self.client.images.edit(image=path, prompt=PROMPT, model=MODEL)

    def stream(self, first: Callable[[], None]) -> None:
        events = self.client.images.generate(prompt=PROMPT, model=MODEL, stream=True, partial_images=3)
        for number, event in enumerate(events):
            if not number:
                first()
            assert base64.b64decode(event.b64_json)

    def save_stream(self, folder: Path) -> None:
        for event in self.client.images.generate(prompt=PROMPT, model=MODEL, stream=True, partial_images=3):
            _next_path(folder).write_bytes(base64.b64decode(event.b64_json))

    def close(self) -> None:
        self.client.close()


class OpenAIHandle(OpenAI):
    """The official SDK, uploading an open file."""

    def edit(self, path: Path) -> None:
        with path.open("rb") as file:
            self.client.images.edit(image=file, prompt=PROMPT, model=MODEL)


class Requests:
    """requests, used as in its documentation."""

    def __init__(self, base_url: str, folder: Path) -> None:
        import requests

        self.base_url = base_url
        self.session = requests.Session()
        self.session.headers["authorization"] = f"Bearer {KEY}"

    def create(self) -> bytes:
        reply = self.session.post(
            f"{self.base_url}/images/generations", json={"model": MODEL, "prompt": PROMPT}
        )
        reply.raise_for_status()
        return base64.b64decode(reply.json()["data"][0]["b64_json"])

    def save(self, folder: Path) -> None:
        _next_path(folder).write_bytes(self.create())

    def edit(self, path: Path) -> None:
        with path.open("rb") as file:
            reply = self.session.post(
                f"{self.base_url}/images/edits",
                data={"model": MODEL, "prompt": PROMPT},
                files={"image": ("image.png", file, "image/png")},
            )
        reply.raise_for_status()

    def close(self) -> None:
        self.session.close()


def _request_bytes(base_url: str) -> tuple[str, int, bytes]:
    host, _, rest = base_url.removeprefix("http://").partition(":")
    port, _, path = rest.partition("/")
    body = json.dumps({"model": MODEL, "prompt": PROMPT}).encode()
    head = (
        f"POST /{path}/images/generations HTTP/1.1\r\nhost: {host}:{port}\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return host, int(port), head.encode() + body


def _parse_length(head: bytes) -> int:
    return int(head[head.index(b"content-length: ") + 16 :].split(b"\r\n", 1)[0])


class Floor:
    """A plain socket without any checks: the lower bound."""

    def __init__(self, base_url: str, folder: Path) -> None:
        host, port, self.request = _request_bytes(base_url)
        self.socket = socket.create_connection((host, port))

    def create(self) -> bytes:
        self.socket.sendall(self.request)
        data = self.socket.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        while len(body) < _parse_length(head):
            body += self.socket.recv(65536)
        return base64.b64decode(json.loads(body)["data"][0]["b64_json"])

    def close(self) -> None:
        self.socket.close()


class AsyncImgkit:
    """imgkit with aiohttp and default settings: a new connection for each request."""

    settings: dict[str, Any] = {}

    def __init__(self, base_url: str, folder: Path) -> None:
        import imgkit

        self.service = imgkit.AsyncImageService(
            "aiohttp", base_url=base_url, api_key=KEY, model=MODEL, **self.settings
        )

    async def create(self) -> bytes:
        return (await self.service.create_image(PROMPT))[0].data

    async def save(self, folder: Path) -> None:
        await self.service.create_image(PROMPT, save_to=folder / "image-{index}.png")

    async def stream(self, first: Callable[[], None]) -> None:
        async with self.service.stream_image(PROMPT, partial_images=3) as events:
            started = False
            async for event in events:
                if not started:
                    started = True
                    first()
                assert event.image.data

    async def close(self) -> None:
        await self.service.close()


class AsyncImgkitReusing(AsyncImgkit):
    """imgkit with aiohttp, reusing connections."""

    settings = {"reuse_connections": True}


class AsyncOpenAI:
    """The official SDK's asynchronous client."""

    def __init__(self, base_url: str, folder: Path) -> None:
        import openai

        self.client = openai.AsyncOpenAI(base_url=base_url, api_key=KEY, timeout=120)

    async def create(self) -> bytes:
        reply = await self.client.images.generate(prompt=PROMPT, model=MODEL)
        return base64.b64decode(reply.data[0].b64_json)

    async def save(self, folder: Path) -> None:
        _next_path(folder).write_bytes(await self.create())

    async def stream(self, first: Callable[[], None]) -> None:
        events = await self.client.images.generate(prompt=PROMPT, model=MODEL, stream=True, partial_images=3)
        started = False
        async for event in events:
            if not started:
                started = True
                first()
            assert base64.b64decode(event.b64_json)

    async def close(self) -> None:
        await self.client.close()


class Aiohttp:
    """aiohttp, used as in its documentation."""

    def __init__(self, base_url: str, folder: Path) -> None:
        self.base_url = base_url
        self.session: Any = None

    async def create(self) -> bytes:
        import aiohttp

        if self.session is None:
            self.session = aiohttp.ClientSession(
                headers={"authorization": f"Bearer {KEY}"}, connector=aiohttp.TCPConnector(limit=0)
            )
        async with self.session.post(
            f"{self.base_url}/images/generations", json={"model": MODEL, "prompt": PROMPT}
        ) as reply:
            reply.raise_for_status()
            return base64.b64decode((await reply.json())["data"][0]["b64_json"])

    async def save(self, folder: Path) -> None:
        _next_path(folder).write_bytes(await self.create())

    async def close(self) -> None:
        await self.session.close()


class _Connection(asyncio.Protocol):
    """One connection of `AsyncFloor`."""

    def __init__(self) -> None:
        self.data = b""
        self.waiter: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        if found and len(body) >= _parse_length(head) and self.waiter is not None:
            self.data = b""
            self.waiter.set_result(body)


class AsyncFloor:
    """Plain asyncio protocols without any checks: the lower bound."""

    def __init__(self, base_url: str, folder: Path) -> None:
        self.host, self.port, self.request = _request_bytes(base_url)
        self.idle: list[_Connection] = []

    async def create(self) -> bytes:
        loop = asyncio.get_running_loop()
        connection = (
            self.idle.pop()
            if self.idle
            else (await loop.create_connection(_Connection, self.host, self.port))[1]
        )
        connection.waiter = loop.create_future()
        connection.transport.write(self.request)
        body = await connection.waiter
        self.idle.append(connection)
        return base64.b64decode(json.loads(body)["data"][0]["b64_json"])

    async def close(self) -> None:
        for connection in self.idle:
            connection.transport.close()


SYNC: dict[str, type[Any]] = {
    "imgkit": Imgkit, "imgkit, reusing": ImgkitReusing, "imgkit, reusing, no sidecar": ImgkitBare,
    "imgkit, reusing, spool": ImgkitSpooling, "imgkit, reusing, cache": ImgkitCaching,
    "openai": OpenAI, "openai, open file": OpenAIHandle, "requests": Requests, "raw socket": Floor,
}  # fmt: skip
ASYNC: dict[str, type[Any]] = {
    "imgkit": AsyncImgkit, "imgkit, reusing": AsyncImgkitReusing,
    "openai": AsyncOpenAI, "aiohttp": Aiohttp, "asyncio protocol": AsyncFloor,
}  # fmt: skip
