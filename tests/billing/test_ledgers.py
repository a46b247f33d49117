"""Ledgers: they may refuse a sending, are told how each ends, and cost no picture that is paid for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import imgkit
from tests.support.pictures import answer, encoded, noise, picture
from tests.support.wire_server import WireServer, drop, hang, reply

SETTINGS = {"api_key": "sk-test", "timeout_s": 5}
RATE = reply(429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, retry_after="0.01")


class Book:
    """A ledger that writes down what it is told."""

    def __init__(self, *, spools: bool = True, wrong: str = "") -> None:
        self.spools = spools
        self.told: list[Any] = []
        self.parts: dict[str, bytes] = {}
        self._wrong = wrong

    @imgkit.hookimpl
    def imgkit_ledger(self, settings: Any) -> Any:
        assert settings.backend in ("requests", "aiohttp")
        return self

    def _note(self, what: str, *facts: Any) -> None:
        self.told.append((what, *facts))
        if what == self._wrong:
            raise RuntimeError("the book is full")

    def reserve(self, request: Any, call: Any, attempt: int) -> Any:
        assert request.prompt == "a fox"
        self._note("reserve", attempt)
        return self

    def begin(self, head: Any) -> None:
        self._note("begin", head.status)

    def write(self, part: str, data: bytes) -> None:
        self.parts[part] = self.parts.get(part, b"") + data
        if self._wrong == "write":
            self._note("write")

    def complete(self) -> None:
        self._note("complete")

    def settle(self, response: Any) -> None:
        self._note("settle", None if response is None else len(response))

    def keep(self, error: BaseException, response: Any) -> str:
        self._note("keep", type(error).__name__, None if response is None else len(response))
        return "/kept/here"

    def close(self) -> None:
        self._note("close")


def create(flavor: Any, server: WireServer, backend: str, *books: Book, **call: Any) -> Any:
    retry = call.pop("retry", False)
    settings = {**SETTINGS, "base_url": server.base_url, "plugins": list(books), "retry": retry}
    return flavor.run(lambda service: service.create_image("a fox", **call), backend, **settings)


def test_the_course_of_a_call(flavor: Any, http_backend: str) -> None:
    book, other = Book(), Book(spools=False)
    with WireServer(reply(200, answer(2))) as server:
        create(flavor, server, http_backend, book, other)
    assert book.told == [("reserve", 1), ("begin", 200), ("complete",), ("settle", 2)]
    assert other.told == [("reserve", 1), ("settle", 2)]
    assert set(book.parts) == {"reply"}  # pictures this small stay in the text
    with WireServer(reply(200, {"data": [{"b64_json": encoded(noise(1))}]})) as server:
        create(flavor, server, http_backend, book)
    assert book.parts["0"] == noise(1)


def test_each_sending_has_its_reservation(flavor: Any, http_backend: str) -> None:
    book = Book()
    with WireServer(RATE, RATE, reply(200, answer())) as server:
        create(flavor, server, http_backend, book, retry=True)
    assert [one for one in book.told if one[0] in ("reserve", "settle")] == [
        ("reserve", 1), ("settle", None), ("reserve", 2), ("settle", None), ("reserve", 3), ("settle", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "end"),
    [
        (reply(400, {"error": {"message": "no"}}), ("settle", None)),
        (reply(500, {"error": {"message": "no"}}), ("settle", None)),
        (drop, ("keep", "OutcomeUnknownError", None)),
        (reply(504, b"<html>"), ("keep", "OutcomeUnknownError", None)),
        (reply(200, b"{}"), ("keep", "EmptyResultError", None)),
        (reply(200, b"what"), ("keep", "UnreadableReplyError", None)),
    ],
    ids=["400", "500", "drop", "504", "empty", "unreadable"],
)
def test_how_failures_end(flavor: Any, http_backend: str, script: Any, end: Any) -> None:
    book = Book()
    with WireServer(script) as server, pytest.raises(imgkit.ImgkitError) as caught:
        create(flavor, server, http_backend, book)
    assert book.told[-1] == end
    if end[0] == "keep":
        assert caught.value.spool_path == "/kept/here"  # type: ignore[attr-defined]


def test_what_was_not_sent_is_settled(flavor: Any, http_backend: str) -> None:
    book = Book()
    with WireServer(drop) as server:
        pass
    with pytest.raises(imgkit.NotSentError):
        create(flavor, server, http_backend, book)
    assert book.told == [("reserve", 1), ("settle", None)]


def test_pictures_that_are_not_saved(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    from imgkit.images.saving import SavePlan

    class Full(SavePlan):
        def write(self, image: Any, count: int) -> Path:
            raise imgkit.SaveError("the disk is full", images=(image,))

    book = Book()
    with WireServer(reply(200, answer())) as server, pytest.raises(imgkit.SaveError) as caught:
        create(flavor, server, http_backend, book, save_to=Full(tmp_path, "x", True))
    assert book.told[-1] == ("keep", "SaveError", 1)
    assert caught.value.spool_path == "/kept/here"


def test_a_ledger_may_refuse(flavor: Any, http_backend: str) -> None:
    """Nothing is sent then, and what another one had reserved is given up."""

    class Refuses(Book):
        def reserve(self, request: Any, call: Any, attempt: int) -> Any:
            raise imgkit.ConfigurationError("no money left")

    first = Book()
    with WireServer(reply(200, answer())) as server:
        with pytest.raises(imgkit.ConfigurationError, match="no money left"):
            create(flavor, server, http_backend, first, Refuses())
        assert server.accepted == 0
    assert first.told == [("reserve", 1), ("close",)]


@pytest.mark.parametrize("wrong", ["begin", "write", "complete", "settle"])
def test_a_ledger_that_fails_costs_no_picture(flavor: Any, http_backend: str, wrong: str) -> None:
    with WireServer(reply(200, answer())) as server:
        made = create(flavor, server, http_backend, Book(wrong=wrong))
    assert made[0].data == picture()
    assert "the book is full" in made.warnings[0]
    assert "Book" in made.warnings[0]


def test_a_ledger_that_fails_before_anything_is_sent(flavor: Any, http_backend: str) -> None:
    with WireServer(reply(200, answer())) as server:
        with pytest.raises(imgkit.PluginError, match="the book is full"):
            create(flavor, server, http_backend, Book(wrong="reserve"))
        assert server.accepted == 0


def test_a_call_that_is_broken_off(http_backend: str) -> None:
    book = Book()

    async def main(server: WireServer) -> None:
        settings = {**SETTINGS, "base_url": server.base_url, "plugins": [book]}
        async with imgkit.AsyncImageService(http_backend, **settings) as service:
            task = asyncio.create_task(service.create_image("a fox"))
            while not server.lines:
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with WireServer(hang) as server:
        asyncio.run(main(server))
    assert book.told == [("reserve", 1), ("keep", "GeneratorExit", None)]


def test_something_that_is_no_ledger() -> None:
    class Wrong:
        @imgkit.hookimpl
        def imgkit_ledger(self, settings: Any) -> Any:
            return 3

    with pytest.raises(imgkit.PluginError, match="no Ledger"):
        imgkit.ImageService(plugins=[Wrong()])


def test_a_ledger_that_is_added_later(flavor: Any, http_backend: str) -> None:
    """Adding a plugin asks the others not again what they supply."""
    asked = []

    class Counts(Book):
        @imgkit.hookimpl
        def imgkit_ledger(self, settings: Any) -> Any:
            asked.append(1)
            return self

    with imgkit.ImageService("requests", base_url="http://127.0.0.1:1/v1", plugins=[Counts()]) as service:
        service.plugins.add(Book())
        assert len(service._core.resources.ledgers) == 2
    assert len(asked) == 1
