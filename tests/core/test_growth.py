"""Memory of long-lived services: thousands of calls hold no more than a few."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.images.saving import SavePlan
from imgkit.testing.samples import answer, png
from imgkit.wire.messages import Head, HttpRequest
from imgkit.wire.transfer import Transfer
from tests.support import event_streams

CALLS = 240
STREAMS = 120
MOST_BYTES = 30_000
"""Growth of the traced memory that many calls may leave."""

BODY = json.dumps({**answer(), "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}}).encode()
REFUSAL = json.dumps({"error": {"message": "no", "code": "invalid_value"}}).encode()


LARGE = png(1, 160)
"""More than stays in memory where it is to be saved."""
STREAM = (
    event_streams.partial(0, LARGE),
    event_streams.partial(1, LARGE),
    event_streams.completed(LARGE),
    b"data: [DONE]\n\n",
)


class _Reply:
    def __init__(self, status: int, pieces: tuple[bytes, ...], kind: str) -> None:
        self.head = Head(status, {"content-type": kind, "x-request-id": "req"})
        self._left = list(reversed(pieces))

    def read(self) -> bytes:
        return self._left.pop() if self._left else b""

    def close(self) -> None: ...


class ScriptedBackend:
    """A backend without a network: every fifth request fails, and streams end at different points."""

    name = "answers"
    wire_errors: tuple[type[Exception], ...] = ()
    unsent_errors: tuple[type[Exception], ...] = ()

    def __init__(self) -> None:
        self.count = 0

    def open(self, request: HttpRequest, transfer: Transfer) -> _Reply:
        self.count += 1
        if self.count % 5 == 0:
            return _Reply(400, (REFUSAL,), "application/json")
        if not request.headers["accept"].startswith("text/event-stream"):
            return _Reply(200, (BODY,), "application/json")
        return _Reply(200, STREAM[: self.count % 4 + 1], "text/event-stream")

    def close(self) -> None: ...


Resources = tuple[int, int, int, int]


def measure_resources() -> Resources:
    """Return the number of objects, bytes, threads and open files that Python holds."""
    gc.collect()
    files = len(os.listdir("/dev/fd")) if os.path.isdir("/dev/fd") else 0
    return len(gc.get_objects()), tracemalloc.get_traced_memory()[0], threading.active_count(), files


async def measure_calls(ask: Any, often: int) -> tuple[Resources, Resources]:
    """Call `count` times; return the resources before and after."""

    async def calls(count: int) -> None:
        for _ in range(count):
            try:
                await ask()
            except (imgkit.BadRequestError, imgkit.StreamError):
                continue

    await calls(100)
    tracemalloc.start()
    try:
        await calls(50)
        after = measure_resources()
        # A table of the interpreter that grows, or an image that is held for a moment, is no leak: a leak
        # grows each time.
        for _ in range(4):
            before = after
            await calls(often)
            after = measure_resources()
            if after[1] - before[1] < MOST_BYTES:
                break
        return before, after
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("flavor", ["sync", "async"])
def test_calls_do_not_grow_memory(flavor: str) -> None:
    """Calls leave objects, memory, threads and files constant, errors included."""
    settings: dict[str, Any] = {"base_url": "http://127.0.0.1:1/v1", "model": "m", "retry": True}

    async def main() -> Any:
        if flavor == "sync":
            with imgkit.ImageService(ScriptedBackend(), **settings) as images:

                async def ask() -> None:
                    images.create_image("a fox")

                return await measure_calls(ask, CALLS)
        async with imgkit.AsyncImageService(ScriptedBackend(), max_in_flight=1, **settings) as async_images:

            async def ask_too() -> None:
                await async_images.create_image("a fox")

            return await measure_calls(ask_too, CALLS)

    assert_no_growth(*asyncio.run(main()))


@pytest.mark.parametrize("saving", [False, True])
@pytest.mark.parametrize("flavor", ["sync", "async"])
def test_streams_do_not_grow_memory(flavor: str, saving: bool, tmp_path: Path) -> None:
    """Streams leave resources constant: complete, left early, too short or refused, saved or not."""
    settings: dict[str, Any] = {"base_url": "http://127.0.0.1:1/v1", "model": "m", "retry": True}
    options: dict[str, Any] = (
        {"save_to": SavePlan.from_target(tmp_path / "fox.png", overwrite=True)} if saving else {}
    )
    turns = itertools.cycle((1, 2, 9))

    async def main() -> Any:
        if flavor == "sync":
            with imgkit.ImageService(ScriptedBackend(), **settings) as images:

                async def ask() -> None:
                    with images.stream_image("a fox", partial_images=2, **options) as events:
                        for _ in itertools.islice(events, next(turns)):
                            pass

                return await measure_calls(ask, STREAMS)
        async with imgkit.AsyncImageService(ScriptedBackend(), max_in_flight=1, **settings) as async_images:

            async def ask_too() -> None:
                left = next(turns)
                async with async_images.stream_image("a fox", partial_images=2, **options) as events:
                    async for _ in events:
                        left -= 1
                        if not left:
                            break

            return await measure_calls(ask_too, STREAMS)

    assert_no_growth(*asyncio.run(main()))
    assert sorted(path.name for path in tmp_path.iterdir()) == (["fox.png", "fox.png.json"] if saving else [])


def assert_no_growth(before: Resources, after: Resources) -> None:
    """Fail if the resources after many calls exceed the resources before."""
    assert after[0] - before[0] < 50, (before, after)
    assert after[1] - before[1] < MOST_BYTES, (before, after)
    assert after[2:] == before[2:]


def test_unused_plugins_add_no_hooks() -> None:
    """A call runs only the hooks that plugins implement, however many plugins there are."""

    class Idle:
        @imgkit.hookimpl
        def imgkit_backends(self) -> list[Any]:
            return []

    few = imgkit.ImageService(ScriptedBackend(), base_url="http://127.0.0.1:1/v1")
    many = imgkit.ImageService(
        ScriptedBackend(), base_url="http://127.0.0.1:1/v1", plugins=[Idle() for _ in range(40)]
    )
    with few, many:
        for name in ("prepares", "before_sends", "authenticates", "observers", "retry_waits"):
            hooks = [getattr(service._core.table, name) for service in (few, many)]
            assert len(hooks[0]) == len(hooks[1])
