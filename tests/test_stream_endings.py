"""How streams and calls are ended by others: dropped, closed by another thread, closed with their service."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit import PartialImage
from imgkit.drivers import Driver, Watchdog
from imgkit.flow import Failed, Flow, Open
from imgkit.hooks.spool import spool_in
from imgkit.transfer import Transfer
from imgkit.wire import BytesBody, HttpRequest
from tests.conftest import Face
from tests.support.event_streams import HEAD, chunk, completed, partial, then
from tests.support.official import official
from tests.support.wire_server import Line, Script, WireServer, head, reply

SLOW_DOWN = reply(429, {"error": {"message": "slow down"}}, retry_after="30")


class Watcher:
    """A plugin that keeps the events of calls."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    @imgkit.hookimpl
    def imgkit_on_event(self, event: Any, call: Any) -> None:
        self.events.append(event)


def half_a_stream(left: threading.Event) -> Script:
    """Send one event and half of the next; `left` is set when the client hangs up."""

    def script(line: Line) -> None:
        line.send(HEAD + chunk(partial()) + chunk(completed()[:4000]))
        line.until_client_leaves()
        if not line.closing.is_set():
            left.set()

    return script


def test_a_dropped_stream(face: Face, http_backend: str, tmp_path: Path) -> None:
    """One that nobody closes is closed when nobody holds it any more, and a warning says so."""
    left = threading.Event()
    watcher = Watcher()

    def blocking(service: Any) -> None:
        events = service.stream_image("a fox").__enter__()
        assert isinstance(next(events), PartialImage)
        del events
        gc.collect()
        assert left.wait(10)

    async def awaiting(service: Any) -> None:
        events = await service.stream_image("a fox").__aenter__()
        assert isinstance(await anext(events), PartialImage)
        del events
        gc.collect()
        assert await asyncio.to_thread(left.wait, 10)

    work = blocking if face.colour == "sync" else awaiting
    with (
        WireServer(half_a_stream(left)) as server,
        pytest.warns(ResourceWarning, match="was dropped without"),
    ):
        face.run(work, http_backend, base_url=server.base_url, plugins=[watcher], state_folder=tmp_path)
    assert watcher.events[-1] == imgkit.call.Cancelled(maybe_billed=True)
    assert [record.why for record in spool_in(tmp_path).left()] == ["the call was broken off"]


def test_a_stream_that_outlives_its_loop(http_backend: str) -> None:
    """Nothing can be closed any more, and nothing fails."""
    kept: list[Any] = []

    async def main(base_url: str) -> None:
        async with imgkit.AsyncImageService(http_backend, base_url=base_url) as service:
            kept.append(await service.stream_image("a fox").__aenter__())
            await anext(kept[0])

    with WireServer(half_a_stream(threading.Event())) as server:
        asyncio.run(main(server.base_url))
        with pytest.warns(ResourceWarning, match="AsyncImageStream"):
            del kept[0]


def test_what_is_closed_or_never_entered_is_silent() -> None:
    """Only a stream that is open is warned of."""
    with imgkit.ImageService() as service, warnings.catch_warnings():
        warnings.simplefilter("error")
        service.stream_image("a fox")
        with service.stream_image("a fox", size="64x64") as events:
            next(events)
        with service.stream_image("a fox", size="64x64") as events:
            list(events)
        del events
        gc.collect()


def test_closed_by_another(face: Face, http_backend: str) -> None:
    """A thread or task that waits for an event while another closes the stream ends with an error of ours."""

    def blocking(service: Any) -> None:
        with service.stream_image("a fox") as events:
            next(events)
            stop = threading.Timer(0.05, events.close)
            stop.start()
            with pytest.raises(imgkit.OutcomeUnknownError, match="aborted"):
                next(events)
            stop.join()
            with pytest.raises(imgkit.StreamError):
                iter(events)

    async def awaiting(service: Any) -> None:
        async with service.stream_image("a fox") as events:
            await anext(events)
            waiting = asyncio.create_task(anext(events))
            await asyncio.sleep(0.05)
            await events.close()
            with pytest.raises(imgkit.OutcomeUnknownError, match="aborted"):
                await waiting

    left = threading.Event()
    with WireServer(half_a_stream(left)) as server:
        face.run(blocking if face.colour == "sync" else awaiting, http_backend, base_url=server.base_url)
        assert left.wait(10)


def test_a_service_that_is_closed_while_a_call_pauses(http_backend: str) -> None:
    """The pause before another try ends at once, and nothing more is sent, also by the parts of a call."""

    async def main(base_url: str, count: int) -> list[Any]:
        service = imgkit.AsyncImageService(http_backend, base_url=base_url)
        calls = [asyncio.create_task(service.create_image("a fox", n=count))]
        while server.posts < min(4, count // 10):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        await asyncio.wait_for(service.close(), 1)
        return await asyncio.gather(*calls, return_exceptions=True)

    for count in (10, 60):
        with WireServer(SLOW_DOWN) as server:
            (end,) = asyncio.run(main(server.base_url, count))
            assert isinstance(end, imgkit.ServiceClosedError)
            assert server.posts == min(4, count // 10)


def test_a_picture_that_came_before_the_deadline() -> None:
    """What has been received when the deadline passes is handed on, though the caller was busy then."""
    seen: list[str] = []

    with (
        WireServer(then(partial(), completed())) as server,
        imgkit.ImageService("requests", base_url=server.base_url) as service,
        service.stream_image("a fox", timeout_s=0.1) as events,
    ):
        for one in events:
            seen.append(type(one).__name__)
            while events._driver is not None and not events._driver._transfer.aborted:
                time.sleep(0.01)
    assert seen == ["PartialImage", "Completed"]


REQUEST = HttpRequest(method="POST", url="http://127.0.0.1:9/v1", headers={}, body=BytesBody(b"{}"))


def test_a_part_is_aborted_between_two_transfers() -> None:
    """Wherever the abort of another thread meets a part that is about to send, nothing is sent."""

    class Racing(Transfer):
        def anew(self) -> Transfer:
            stop.set()
            driver.abort()  # it finds the transfer of the request before
            return super().anew()

    class Backend:
        errors: tuple[type[Exception], ...] = ()
        unsent_errors: tuple[type[Exception], ...] = ()

        def open(self, request: Any, transfer: Any) -> Any:
            raise AssertionError("sent")

        def close(self) -> None:
            """Nothing to do."""

    def flow() -> Flow[object]:
        try:
            return (yield Open(REQUEST))
        except imgkit.ImgkitError as error:
            return Failed(error)

    stop = threading.Event()
    driver = Driver(flow(), Backend(), Racing(10, 5, 5), Watchdog(), stop)
    end = driver.result()
    assert isinstance(end.value.error, imgkit.NotSentError)  # type: ignore[union-attr]


def _finish(deadline: Any, task: Any, work: asyncio.Future[None]) -> None:
    if not work.done():
        work.set_result(None)


STEPS: dict[str, Callable[[Any, asyncio.Task[Any], asyncio.Future[None]], object]] = {
    "the deadline passes": lambda deadline, task, work: deadline._pass(),
    "somebody cancels": lambda deadline, task, work: task.cancel(),
    "the work is done": _finish,
}


@pytest.mark.parametrize("length", [1, 2, 3, 4])
@pytest.mark.parametrize("begun_before", [False, True])
def test_every_order_of_deadline_cancel_and_end(length: int, begun_before: bool) -> None:
    """A cancel of somebody else is never lost, ours never leaks, and the task can go on afterwards."""
    from imgkit.async_driver import Deadline, DeadlinePassed

    async def one(order: tuple[str, ...]) -> None:
        deadline, work = Deadline(1000), asyncio.get_running_loop().create_future()
        ends: list[str] = []

        async def bounded() -> None:
            if begun_before:
                with deadline:
                    pass
            try:
                async with asyncio.timeout(1000):
                    with deadline:
                        await work
                    ends.append("done")
            except DeadlinePassed:
                ends.append("deadline")
            left.append(task.cancelling())
            await asyncio.sleep(0)

        left: list[int] = []
        task = asyncio.create_task(bounded())
        await asyncio.sleep(0)
        for step in order:
            if step:
                STEPS[step](deadline, task, work)
            else:
                await asyncio.sleep(0)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(task), 5)
        deadline.close()
        first = next(step for step in order if step)
        if "somebody cancels" not in order:
            assert not task.cancelled(), order
            assert left == [0], order
            assert ends == ["deadline" if first == "the deadline passes" else "done"] or len(set(order)) > 1
        elif first == "somebody cancels":
            assert task.cancelled(), order

    async def main() -> None:
        for order in itertools.product(["", *STEPS], repeat=length):
            if any(order):
                await one(order)

    asyncio.run(main())


def test_read_in_another_loop(http_backend: str) -> None:
    """It is refused, whether the loop of the stream runs or is closed, and the stream goes on in its own."""
    kept: list[Any] = []

    async def elsewhere() -> None:
        with pytest.raises(imgkit.StreamError, match="belongs to the event loop"):
            await anext(kept[0])

    async def main(base_url: str) -> None:
        service = imgkit.AsyncImageService(http_backend, base_url=base_url)
        kept.append(await service.stream_image("a fox").__aenter__())
        await anext(kept[0])
        await asyncio.to_thread(asyncio.run, elsewhere())
        assert type(await anext(kept[0])).__name__ == "Completed"
        await service.close()

    async def close() -> None:
        await kept[0].close()

    with WireServer(then(partial(), completed())) as server:
        asyncio.run(main(server.base_url))
        asyncio.run(elsewhere())
        asyncio.run(close())


def test_a_forked_child(http_backend: str, tmp_path: Path) -> None:
    """It cannot read its parent's stream, and what it does to its copy changes no budget and no record."""
    program = f"""
import os, sys
import imgkit
from imgkit.hooks.spool import spool_in
from pathlib import Path
budget = imgkit.Budget(1, folder={str(tmp_path / "budget")!r}, allow_unknown=True)
service = imgkit.ImageService(
    {http_backend!r}, base_url=sys.argv[1], state_folder={str(tmp_path)!r}, plugins=[budget]
)
with service, service.stream_image("a fox") as events:
    next(events)
    child = os.fork()
    if not child:
        try:
            next(events)
        except imgkit.StreamError as error:
            print(error, flush=True)
        events.close()
        os._exit(0)
    os.waitpid(child, 0)
    (record,) = spool_in(Path({str(tmp_path)!r})).left()
    print(budget.unpriced, record.state, record.facts.get("why"), flush=True)
    print([type(one).__name__ for one in events], budget.unpriced)
"""
    with WireServer(then(partial(), completed())) as server:
        run = [sys.executable, "-W", "error", "-c", program, server.base_url]
        done = subprocess.run(run, capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    assert "belongs to the process" in done.stdout
    assert done.stdout.splitlines()[1:] == ["0 running None", "['Completed'] 1"]


def test_closed_by_a_plugin(http_backend: str) -> None:
    """An observer may close the stream that it is told of, as the button of a window may."""

    class Closer:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any, call: Any) -> None:
            if isinstance(event, imgkit.call.Progress):
                events.close()

    left = threading.Event()
    with (
        WireServer(half_a_stream(left)) as server,
        imgkit.ImageService(http_backend, base_url=server.base_url, plugins=[Closer()]) as service,
        service.stream_image("a fox") as events,
    ):
        with contextlib.suppress(imgkit.OutcomeUnknownError):
            list(events)
        assert left.wait(10)


class SlowLedger:
    """A plugin whose reservations note what they are told; all but one are slow with the beginning."""

    def __init__(self, quick: int) -> None:
        self.gate = threading.Event()
        self.open = threading.Event()
        self.open.set()
        self.quick = quick
        self.told: list[list[str]] = []

    @imgkit.hookimpl
    def imgkit_ledger(self, settings: Any) -> Any:
        return self

    def reserve(self, request: Any, call: Any, attempt: int) -> Any:
        self.told.append([])
        return SlowReservation(self.open if attempt == self.quick else self.gate, self.told[-1])


class SlowReservation:
    spools = True

    def __init__(self, gate: threading.Event, told: list[str]) -> None:
        self._gate = gate
        self._told = told

    def begin(self, head: Any) -> None:
        self._told.append("begins")
        assert self._gate.wait(10)
        self._told.append("has begun")

    def write(self, part: str, data: bytes) -> None:
        """Nothing to do."""

    def complete(self) -> None:
        """Nothing to do."""

    def settle(self, response: Any) -> None:
        self._told.append("settled")

    def keep(self, error: BaseException, response: Any) -> None:
        self._told.append("kept")

    def close(self) -> None:
        self._told.append("closed")


@pytest.mark.parametrize("cancels", [1, 2])
@pytest.mark.parametrize("count", [1, 23])
def test_a_cancelled_call_ends_in_order(http_backend: str, count: int, cancels: int) -> None:
    """What runs in a thread is waited for before accounts end, also by parts, and if cancelled twice."""
    ledger = SlowLedger(quick=2)

    async def main(base_url: str) -> None:
        async with imgkit.AsyncImageService(
            http_backend, provider=official(base_url), api_key="sk-test-0123456789", model="gpt-image-2",
            plugins=[ledger], retry=False,
        ) as service:  # fmt: skip
            call = asyncio.create_task(service.create_image("a fox", n=count))
            while sum(one[:1] == ["begins"] for one in ledger.told) < (count + 9) // 10:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.02)
            for _ in range(cancels):
                call.cancel()
                await asyncio.sleep(0.01)
            ledger.gate.set()
            with pytest.raises(asyncio.CancelledError):
                await call

    def half(line: Line) -> None:
        line.send(head(200, {"content-length": "500"}) + b"{")
        line.until_client_leaves()

    with WireServer(half) as server:
        asyncio.run(main(server.base_url))
    assert ledger.told == [["begins", "has begun", "kept"]] * ((count + 9) // 10)


def test_closed_by_another_while_a_thread_is_at_work(face: Face, http_backend: str) -> None:
    """Whoever reads ends the stream, in order: what runs is done first, and accounts end after it."""
    ledger = SlowLedger(quick=0)

    def blocking(service: Any) -> None:
        ends: list[BaseException] = []

        def read() -> None:
            try:
                next(events)
            except BaseException as error:
                ends.append(error)

        with service.stream_image("a fox") as events:
            reader = threading.Thread(target=read)
            reader.start()
            while not any(ledger.told):
                time.sleep(0.01)
            events.close()
            assert ledger.told == [["begins"]]
            ledger.gate.set()
            reader.join(10)
        assert all(isinstance(one, imgkit.OutcomeUnknownError) for one in ends)  # or the event that had come

    async def awaiting(service: Any) -> None:
        async with service.stream_image("a fox") as events:
            reader = asyncio.create_task(anext(events))
            while not any(ledger.told):
                await asyncio.sleep(0.01)
            await events.close()
            await asyncio.sleep(0.01)
            assert ledger.told == [["begins"]]
            ledger.gate.set()
            with contextlib.suppress(imgkit.OutcomeUnknownError):
                await reader

    left = threading.Event()
    work = blocking if face.colour == "sync" else awaiting
    with WireServer(half_a_stream(left)) as server:
        face.run(work, http_backend, base_url=server.base_url, plugins=[ledger])
        assert left.wait(10)
    assert ledger.told == [["begins", "has begun", "kept"]]


def test_ctrl_c_while_the_threads_of_parts_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that run already are broken off and waited for, and the others never send."""
    ledger = SlowLedger(quick=1)
    ledger.gate.set()
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if thread.name.startswith("imgkit-part"):
            started.append(thread)
            if len(started) == 2:
                while not any("has begun" in one for one in ledger.told):
                    time.sleep(0.01)
                raise KeyboardInterrupt

    def half(line: Line) -> None:
        line.send(head(200, {"content-length": "500"}) + b"{")
        line.until_client_leaves()

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with (
        WireServer(half) as server,
        imgkit.ImageService(
            "requests", provider=official(server.base_url), api_key="sk-test-0123456789", model="gpt-image-2",
            plugins=[ledger], retry=False,
        ) as service,
    ):  # fmt: skip
        with pytest.raises(KeyboardInterrupt):
            service.create_image("a fox", n=43)
        assert 0 < server.posts <= 2
        assert ledger.told
        assert {one[-1] for one in ledger.told} <= {"kept", "settled"}
        for thread in started:
            thread.join(10)
            assert not thread.is_alive()
