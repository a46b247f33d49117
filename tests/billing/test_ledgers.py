"""Ledgers: they may refuse an attempt, learn how it ends, and never cost a paid image."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.billing.reservations import ReservationGroup
from imgkit.core.key_checks import build_check_call
from imgkit.core.operations import OperationFlows
from imgkit.plugins import NonblockingLedger, NonblockingReservation
from imgkit.plugins.events import Sent
from imgkit.runtime.flow import Finished, RunBlocking, advance
from imgkit.wire.messages import Head
from tests.support.pictures import answer, encoded, noise, picture
from tests.support.wire_server import WireServer, drop, hang, reply

SETTINGS: dict[str, Any] = {"api_key": "sk-test", "timeout_s": 5}
RATE = reply(429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, retry_after="0.01")


class LedgerLog:
    """A ledger that logs its calls, and fails in one of them if asked."""

    def __init__(self, *, spools: bool = True, wrong: str = "") -> None:
        self.spools = spools
        self.log: list[Any] = []
        self.parts: dict[str, bytes] = {}
        self._wrong = wrong

    @imgkit.hookimpl
    def imgkit_ledger(self, settings: Any) -> Any:
        assert settings.backend in ("requests", "aiohttp")
        return self

    def _note(self, what: str, *facts: Any) -> None:
        self.log.append((what, *facts))
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


def create(flavor: Any, server: WireServer, backend: str, *books: LedgerLog, **call: Any) -> Any:
    """Create an image with these ledgers."""
    retry = call.pop("retry", False)
    settings = {**SETTINGS, "base_url": server.base_url, "plugins": list(books), "retry": retry}
    return flavor.run(lambda service: service.create_image("a fox", **call), backend, **settings)


def test_the_ledger_calls_of_a_call(flavor: Any, http_backend: str) -> None:
    """Calls the ledgers in order, and passes reply data only to a ledger that spools."""
    book, other = LedgerLog(), LedgerLog(spools=False)
    with WireServer(reply(200, answer(2))) as server:
        create(flavor, server, http_backend, book, other)
    assert book.log == [("reserve", 1), ("begin", 200), ("complete",), ("settle", 2)]
    assert other.log == [("reserve", 1), ("settle", 2)]
    assert set(book.parts) == {"reply"}  # small images stay in the text
    with WireServer(reply(200, {"data": [{"b64_json": encoded(noise(1))}]})) as server:
        create(flavor, server, http_backend, book)
    assert book.parts["0"] == noise(1)


def test_each_attempt_has_its_reservation(flavor: Any, http_backend: str) -> None:
    """Reserves and settles each attempt of a call."""
    book = LedgerLog()
    with WireServer(RATE, RATE, reply(200, answer())) as server:
        create(flavor, server, http_backend, book, retry=True)
    assert [call for call in book.log if call[0] in ("reserve", "settle")] == [
        ("reserve", 1), ("settle", None), ("reserve", 2), ("settle", None), ("reserve", 3), ("settle", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "end"),
    [
        (reply(400, {"error": {"message": "no"}}), ("settle", None)),
        (reply(500, {"error": {"message": "no", "code": "server_error"}}), ("settle", None)),
        (drop, ("keep", "OutcomeUnknownError", None)),
        (reply(504, b"<html>"), ("keep", "OutcomeUnknownError", None)),
        (reply(200, b"{}"), ("keep", "EmptyResultError", None)),
        (reply(200, b"what"), ("keep", "UnreadableReplyError", None)),
    ],
    ids=["400", "500", "drop", "504", "empty", "unreadable"],
)
def test_how_failures_end(flavor: Any, http_backend: str, script: Any, end: Any) -> None:
    """Settles refused attempts and keeps those that may be billed."""
    book = LedgerLog()
    with WireServer(script) as server, pytest.raises(imgkit.ImgkitError) as caught:
        create(flavor, server, http_backend, book)
    assert book.log[-1] == end
    if end[0] == "keep":
        assert caught.value.spool_path == "/kept/here"  # type: ignore[attr-defined]


def test_an_unsent_attempt_is_settled(flavor: Any, http_backend: str) -> None:
    """Settles an attempt that was not sent."""
    book = LedgerLog()
    with WireServer(drop) as server:
        pass
    with pytest.raises(imgkit.NotSentError):
        create(flavor, server, http_backend, book)
    assert book.log == [("reserve", 1), ("settle", None)]


def test_images_that_cannot_be_saved_are_kept(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """Keeps the reservation of images that could not be saved."""
    from imgkit.images.saving import SavePlan

    class Full(SavePlan):
        def write(self, image: Any, count: int) -> Path:
            raise imgkit.SaveError("the disk is full", images=(image,))

    book = LedgerLog()
    with WireServer(reply(200, answer())) as server, pytest.raises(imgkit.SaveError) as caught:
        create(flavor, server, http_backend, book, save_to=Full(tmp_path, "x", True))
    assert book.log[-1] == ("keep", "SaveError", 1)
    assert caught.value.spool_path == "/kept/here"


def test_a_ledger_may_refuse(flavor: Any, http_backend: str) -> None:
    """A refusal sends nothing and closes the reservations of other ledgers."""

    class Refuses(LedgerLog):
        def reserve(self, request: Any, call: Any, attempt: int) -> Any:
            raise imgkit.ConfigurationError("no money left")

    first = LedgerLog()
    with WireServer(reply(200, answer())) as server:
        with pytest.raises(imgkit.ConfigurationError, match="no money left"):
            create(flavor, server, http_backend, first, Refuses())
        assert server.accepted == 0
    assert first.log == [("reserve", 1), ("close",)]


@pytest.mark.parametrize("wrong", ["begin", "write", "complete", "settle"])
def test_a_failing_ledger_costs_no_image(flavor: Any, http_backend: str, wrong: str) -> None:
    """A ledger that fails after sending costs a warning, not the image."""
    with WireServer(reply(200, answer())) as server:
        made = create(flavor, server, http_backend, LedgerLog(wrong=wrong))
    assert made[0].data == picture()
    assert "the book is full" in made.warnings[0]
    assert "LedgerLog" in made.warnings[0]


def test_a_ledger_that_fails_before_sending(flavor: Any, http_backend: str) -> None:
    """A ledger that fails to reserve ends the call before it sends."""
    with WireServer(reply(200, answer())) as server:
        with pytest.raises(imgkit.PluginError, match="the book is full"):
            create(flavor, server, http_backend, LedgerLog(wrong="reserve"))
        assert server.accepted == 0


@pytest.mark.parametrize("wrong", [None, 3, object()])
def test_a_wrong_reservation_is_refused(flavor: Any, http_backend: str, wrong: object) -> None:
    """Refuses an object that is no reservation before it sends."""

    class Wrong(LedgerLog):
        def reserve(self, request: Any, call: Any, attempt: int) -> Any:
            return wrong

    with WireServer(reply(200, answer())) as server:
        with pytest.raises(imgkit.PluginError, match="lacks spools, settle, keep, close"):
            create(flavor, server, http_backend, Wrong())
        assert server.accepted == 0


@pytest.mark.parametrize("wrong", ["keep", "settle"])
def test_a_failing_ledger_keeps_the_error(flavor: Any, http_backend: str, wrong: str) -> None:
    """A ledger that fails at the end of a failed attempt adds a note to its error."""
    script, kind = {
        "keep": (drop, imgkit.OutcomeUnknownError),
        "settle": (reply(400, {"error": {"message": "no"}}), imgkit.BadRequestError),
    }[wrong]
    with WireServer(script) as server, pytest.raises(kind) as caught:
        create(flavor, server, http_backend, LedgerLog(wrong=wrong))
    assert ["the book is full" in note for note in caught.value.__notes__] == [True]


def test_a_cancelled_call_is_kept(http_backend: str) -> None:
    """Keeps the reservation of a cancelled call."""
    book = LedgerLog()

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
    assert book.log == [("reserve", 1), ("keep", "GeneratorExit", None)]


def test_an_interrupted_call_that_was_not_sent_is_closed() -> None:
    """Closes the reservation of a call that ends between its reservation and its request."""

    class Interrupting(LedgerLog):
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            if isinstance(event, Sent):
                raise KeyboardInterrupt

    book = Interrupting()
    with (
        imgkit.ImageService(
            "requests", base_url="http://127.0.0.1:1/v1", plugins=[book], **SETTINGS
        ) as service,
        pytest.raises(KeyboardInterrupt),
    ):
        service.create_image("a fox")
    assert book.log == [("reserve", 1), ("close",)]


def test_a_bad_ledger_is_refused() -> None:
    """Refuses a hook result that is no ledger."""

    class Wrong:
        @imgkit.hookimpl
        def imgkit_ledger(self, settings: Any) -> Any:
            return 3

    with pytest.raises(imgkit.PluginError, match="not a Ledger"):
        imgkit.ImageService(plugins=[Wrong()])


def test_a_ledger_added_later(flavor: Any, http_backend: str) -> None:
    """Adding a plugin does not ask other plugins for their ledgers again."""
    asked = []

    class Counts(LedgerLog):
        @imgkit.hookimpl
        def imgkit_ledger(self, settings: Any) -> Any:
            asked.append(1)
            return self

    with imgkit.ImageService("requests", base_url="http://127.0.0.1:1/v1", plugins=[Counts()]) as service:
        service.plugins.add(LedgerLog())
        assert len(service._core.resources.ledgers) == 2
    assert len(asked) == 1


class NonblockingLog(LedgerLog):
    """A ledger that never blocks."""

    reserve_may_block = settle_may_block = False


class UnsureLog(LedgerLog):
    """A ledger that cannot tell whether it blocks at its end."""

    reserve_may_block = False

    @property
    def settle_may_block(self) -> bool:
        raise RuntimeError("unsure")


def count_turns(*books: LedgerLog | imgkit.Budget) -> tuple[int, imgkit.ImagesResponse]:
    """Step through a call; return how often it asks for a place where it may block, and its response."""
    results: list[object] = [Head(200, {}), json.dumps(answer()).encode(), b""]
    with imgkit.ImageService(
        "requests", base_url="http://127.0.0.1:1/v1", **SETTINGS, plugins=books
    ) as service:
        flow = OperationFlows(service._core).create_image("a fox")
        end, turns = advance(flow, None), 0
        while not isinstance(end, Finished):
            turns += isinstance(end, RunBlocking)
            end = advance(flow, end.fn() if isinstance(end, RunBlocking) else results.pop(0))
        return turns, end.value


def test_a_ledger_that_never_blocks_takes_no_thread() -> None:
    """Calls a ledger at once if it tells that it does not block, and any other where it may block."""
    quick, silent = NonblockingLog(spools=False), LedgerLog(spools=False)
    assert isinstance(quick, NonblockingLedger)
    assert isinstance(quick, NonblockingReservation)
    assert count_turns(quick)[0] == 0
    assert quick.log == [("reserve", 1), ("settle", 1)]
    assert count_turns(quick, silent)[0] == 2
    assert silent.log == [("reserve", 1), ("settle", 1)]


def test_a_budget_takes_a_thread_only_for_its_folder(tmp_path: Path) -> None:
    """Counts in memory at once, and in a file where it may block."""
    budgets = imgkit.Budget(5, price_per_image=1), imgkit.Budget(5, tmp_path, price_per_image=1)
    assert [count_turns(budget)[0] for budget in budgets] == [0, 2]
    assert [budget.spent for budget in budgets] == [1, 1]


def test_a_ledger_that_cannot_tell_may_block() -> None:
    """Lets a ledger end where it may block if its answer fails, and warns of the failure."""
    book = UnsureLog(spools=False)
    turns, response = count_turns(book)
    assert turns == 1
    assert book.log == [("reserve", 1), ("settle", 1)]
    assert "unsure" in response.warnings[-1]


def test_a_failure_of_a_ledger_is_told_once() -> None:
    """Keeps one problem of a ledger that fails the same way again and again."""
    with imgkit.ImageService("requests", **SETTINGS, plugins=[UnsureLog(spools=False)]) as service:
        group, request = ReservationGroup(), imgkit.CreateImageRequest(prompt="a fox")
        group.reserve(service._core.resources.ledgers, request, build_check_call(service._core), 1)
        assert [group.settle_may_block for _ in range(3)] == [True] * 3
        assert len(group.problems) == 1
        group.close()
