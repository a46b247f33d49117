"""A service that has made thousands of calls holds no more than one that has made a few."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import tracemalloc
from typing import Any

import pytest

import imgkit
from imgkit.testing.samples import answer
from imgkit.transfer import Transfer
from imgkit.wire import Head, HttpRequest

CALLS = 1000
BODY = json.dumps({**answer(), "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}}).encode()
REFUSAL = json.dumps({"error": {"message": "no", "code": "invalid_value"}}).encode()


class _Reply:
    def __init__(self, status: int) -> None:
        self.head = Head(status, {"content-type": "application/json", "x-request-id": "req"})
        self._left = [BODY if status == 200 else REFUSAL]

    def read(self) -> bytes:
        return self._left.pop() if self._left else b""

    def close(self) -> None: ...


class Answers:
    """A backend without a wire: every fifth request is refused."""

    name = "answers"
    errors = ()
    unsent_errors = ()

    def __init__(self) -> None:
        self.count = 0

    def open(self, request: HttpRequest, transfer: Transfer) -> _Reply:
        self.count += 1
        return _Reply(400 if self.count % 5 == 0 else 200)

    def close(self) -> None: ...


def held() -> tuple[int, int, int]:
    """Return what Python holds: objects, bytes, threads."""
    gc.collect()
    return len(gc.get_objects()), tracemalloc.get_traced_memory()[0], threading.active_count()


async def measured(ask: Any) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Call often, and look before and after."""

    async def calls(count: int) -> None:
        for _ in range(count):
            try:
                await ask()
            except imgkit.BadRequestError:
                continue

    await calls(200)
    tracemalloc.start()
    try:
        await calls(100)
        before = held()
        await calls(CALLS)
        return before, held()
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_nothing_is_kept_of_a_call(colour: str) -> None:
    """Objects, memory and threads stay what they were, errors included."""
    settings: dict[str, Any] = {"base_url": "http://127.0.0.1:1/v1", "model": "m", "retry": True}

    async def main() -> Any:
        if colour == "sync":
            with imgkit.ImageService(Answers(), **settings) as images:

                async def ask() -> None:
                    images.create_image("a fox")

                return await measured(ask)
        async with imgkit.AsyncImageService(Answers(), max_in_flight=1, **settings) as more:

            async def ask_too() -> None:
                await more.create_image("a fox")

            return await measured(ask_too)

    before, after = asyncio.run(main())
    assert after[0] - before[0] < 50, (before, after)
    assert after[1] - before[1] < 50_000, (before, after)
    assert after[2] == before[2]


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
