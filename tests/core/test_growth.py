"""A service that has made thousands of calls holds no more than one that has made a few."""

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

CALLS = 1000
STREAMS = 300
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


class Answers:
    """A backend without a wire: every fifth request is refused, and streams end sooner or later."""

    name = "answers"
    errors = ()
    unsent_errors = ()

    def __init__(self) -> None:
        self.count = 0

    def open(self, request: HttpRequest, transfer: Transfer) -> _Reply:
        self.count += 1
        if self.count % 5 == 0:
            return _Reply(400, (REFUSAL,), "application/json")
        if request.headers["accept"] != "text/event-stream":
            return _Reply(200, (BODY,), "application/json")
        return _Reply(200, STREAM[: self.count % 4 + 1], "text/event-stream")

    def close(self) -> None: ...


Held = tuple[int, int, int, int]


def held() -> Held:
    """Return what Python holds: objects, bytes, threads, open files where the system tells."""
    gc.collect()
    files = len(os.listdir("/dev/fd")) if os.path.isdir("/dev/fd") else 0
    return len(gc.get_objects()), tracemalloc.get_traced_memory()[0], threading.active_count(), files


async def measured(ask: Any, often: int) -> tuple[Held, Held]:
    """Call often, and look before and after."""

    async def calls(count: int) -> None:
        for _ in range(count):
            try:
                await ask()
            except (imgkit.BadRequestError, imgkit.StreamError):
                continue

    await calls(200)
    tracemalloc.start()
    try:
        await calls(100)
        before = held()
        await calls(often)
        return before, held()
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("flavor", ["sync", "async"])
def test_nothing_is_kept_of_a_call(flavor: str) -> None:
    """Objects, memory and threads stay what they were, errors included."""
    settings: dict[str, Any] = {"base_url": "http://127.0.0.1:1/v1", "model": "m", "retry": True}

    async def main() -> Any:
        if flavor == "sync":
            with imgkit.ImageService(Answers(), **settings) as images:

                async def ask() -> None:
                    images.create_image("a fox")

                return await measured(ask, CALLS)
        async with imgkit.AsyncImageService(Answers(), max_in_flight=1, **settings) as more:

            async def ask_too() -> None:
                await more.create_image("a fox")

            return await measured(ask_too, CALLS)

    check(*asyncio.run(main()))


@pytest.mark.parametrize("saving", [False, True])
@pytest.mark.parametrize("flavor", ["sync", "async"])
def test_nothing_is_kept_of_a_stream(flavor: str, saving: bool, tmp_path: Path) -> None:
    """So it is whether it is read to its end, left early, ends too soon or is refused; to files as well."""
    settings: dict[str, Any] = {"base_url": "http://127.0.0.1:1/v1", "model": "m", "retry": True}
    wish = {"save_to": SavePlan.from_target(tmp_path / "fox.png", overwrite=True)} if saving else {}
    turns = itertools.cycle((1, 2, 9))

    async def main() -> Any:
        if flavor == "sync":
            with imgkit.ImageService(Answers(), **settings) as images:

                async def ask() -> None:
                    with images.stream_image("a fox", partial_images=2, **wish) as events:
                        for _ in itertools.islice(events, next(turns)):
                            pass

                return await measured(ask, STREAMS)
        async with imgkit.AsyncImageService(Answers(), max_in_flight=1, **settings) as more:

            async def ask_too() -> None:
                left = next(turns)
                async with more.stream_image("a fox", partial_images=2, **wish) as events:
                    async for _ in events:
                        left -= 1
                        if not left:
                            break

            return await measured(ask_too, STREAMS)

    check(*asyncio.run(main()))
    assert sorted(path.name for path in tmp_path.iterdir()) == (["fox.png", "fox.png.json"] if saving else [])


def check(before: Held, after: Held) -> None:
    """Hold what is held after many calls against what was held before."""
    assert after[0] - before[0] < 50, (before, after)
    assert after[1] - before[1] < 50_000, (before, after)
    assert after[2:] == before[2:]


def test_plugins_that_are_not_used_cost_no_call_anything() -> None:
    """The hooks of a call are those of plugins that implement them, however many others there are."""

    class Idle:
        @imgkit.hookimpl
        def imgkit_backends(self) -> list[Any]:
            return []

    few = imgkit.ImageService(Answers(), base_url="http://127.0.0.1:1/v1")
    many = imgkit.ImageService(
        Answers(), base_url="http://127.0.0.1:1/v1", plugins=[Idle() for _ in range(40)]
    )
    with few, many:
        for name in ("prepares", "before_sends", "authenticates", "observers", "retry_waits"):
            hooks = [getattr(service._core.table, name) for service in (few, many)]
            assert len(hooks[0]) == len(hooks[1])
