"""Calls and streams that end early while threads work: they end in order and send nothing more."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from typing import Any

import pytest

import imgkit
from imgkit.runtime.driver import Driver, Watchdog
from imgkit.runtime.flow import EffectFailed, Flow, SendRequest
from imgkit.wire.messages import BytesBody, HttpRequest
from imgkit.wire.transfer import DriverTransfer
from tests.conftest import ServiceRunner
from tests.support.event_streams import half_a_stream
from tests.support.official import official
from tests.support.wire_server import Line, WireServer, head, reply

SLOW_DOWN = reply(429, {"error": {"message": "slow down"}}, retry_after="30")


def test_closing_a_service_ends_the_pause_before_a_retry(http_backend: str) -> None:
    """Closing the service ends the pause before a retry at once, also in each part of a split call."""

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


REQUEST = HttpRequest(method="POST", url="http://127.0.0.1:9/v1", headers={}, body=BytesBody(b"{}"))


def test_an_abort_between_two_transfers_stops_the_part() -> None:
    """A part that another thread aborts just before it sends sends nothing."""

    class Racing(DriverTransfer):
        def for_next_request(self) -> DriverTransfer:
            stop.set()
            driver.abort()  # aborts the previous transfer
            return super().for_next_request()

    class Backend:
        wire_errors: tuple[type[Exception], ...] = ()
        unsent_errors: tuple[type[Exception], ...] = ()

        def open(self, request: Any, transfer: Any) -> Any:
            raise AssertionError("sent")

        def close(self) -> None:
            """Nothing to do."""

    def flow() -> Flow[object]:
        try:
            return (yield SendRequest(REQUEST))
        except imgkit.ImgkitError as error:
            return EffectFailed(error)

    stop = threading.Event()
    driver = Driver(flow(), Backend(), Racing(10, 5, 5), Watchdog(), stop)
    end = driver.run_to_end()
    assert isinstance(end.value.error, imgkit.NotSentError)  # type: ignore[union-attr]


class SlowLedger:
    """A ledger that logs the calls of its reservations; all but one reservation block in `begin`."""

    def __init__(self, quick: int) -> None:
        self.gate = threading.Event()
        self.open = threading.Event()
        self.open.set()
        self.quick = quick
        self.logs: list[list[str]] = []

    @imgkit.hookimpl
    def imgkit_ledger(self, settings: Any) -> Any:
        return self

    def reserve(self, request: Any, call: Any, attempt: int) -> Any:
        self.logs.append([])
        return SlowReservation(self.open if attempt == self.quick else self.gate, self.logs[-1])


class SlowReservation:
    """A reservation whose `begin` waits for a gate."""

    spools = True

    def __init__(self, gate: threading.Event, log: list[str]) -> None:
        self._gate = gate
        self._log = log

    def begin(self, head: Any) -> None:
        self._log.append("begins")
        assert self._gate.wait(10)
        self._log.append("has begun")

    def write(self, part: str, data: bytes) -> None:
        """Nothing to do."""

    def complete(self) -> None:
        """Nothing to do."""

    def settle(self, response: Any) -> None:
        self._log.append("settled")

    def keep(self, error: BaseException, response: Any) -> None:
        self._log.append("kept")

    def close(self) -> None:
        self._log.append("closed")


@pytest.mark.parametrize("cancels", [1, 2])
@pytest.mark.parametrize("count", [1, 23])
def test_a_cancelled_call_waits_for_its_threads(http_backend: str, count: int, cancels: int) -> None:
    """A cancelled call joins its threads before it keeps its reservations, also if cancelled twice."""
    ledger = SlowLedger(quick=2)

    async def main(base_url: str) -> None:
        async with imgkit.AsyncImageService(
            http_backend, provider=official(base_url), api_key="sk-test-0123456789", model="gpt-image-2",
            plugins=[ledger], retry=False,
        ) as service:  # fmt: skip
            call = asyncio.create_task(service.create_image("a fox", n=count))
            while sum(log[:1] == ["begins"] for log in ledger.logs) < (count + 9) // 10:
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
    assert ledger.logs == [["begins", "has begun", "kept"]] * ((count + 9) // 10)


def test_closing_a_stream_waits_for_its_thread(flavor: ServiceRunner, http_backend: str) -> None:
    """The reader ends a stream closed from elsewhere: first its running work, then its reservations."""
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
            while not any(ledger.logs):
                time.sleep(0.01)
            events.close()
            assert ledger.logs == [["begins"]]
            ledger.gate.set()
            reader.join(10)
        # The reader ends with this error, or returns an event that it had received.
        assert all(isinstance(end, imgkit.OutcomeUnknownError) for end in ends)

    async def awaiting(service: Any) -> None:
        async with service.stream_image("a fox") as events:
            reader = asyncio.create_task(anext(events))
            while not any(ledger.logs):
                await asyncio.sleep(0.01)
            await events.close()
            await asyncio.sleep(0.01)
            assert ledger.logs == [["begins"]]
            ledger.gate.set()
            with contextlib.suppress(imgkit.OutcomeUnknownError):
                await reader

    left = threading.Event()
    work = blocking if flavor.flavor == "sync" else awaiting
    with WireServer(half_a_stream(left)) as server:
        flavor.run(work, http_backend, base_url=server.base_url, plugins=[ledger])
        assert left.wait(10)
    assert ledger.logs == [["begins", "has begun", "kept"]]


def test_ctrl_c_while_part_threads_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C aborts and joins the part threads that run; the other parts never send."""
    ledger = SlowLedger(quick=1)
    ledger.gate.set()
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if thread.name.startswith("imgkit-part"):
            started.append(thread)
            if len(started) == 2:
                while not any("has begun" in log for log in ledger.logs):
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
        assert ledger.logs
        assert {log[-1] for log in ledger.logs} <= {"kept", "settled"}
        for thread in started:
            thread.join(10)
            assert not thread.is_alive()


def test_a_closed_watchdog_starts_no_transfer() -> None:
    """A request that begins while another thread closes the service is refused, not left unwatched."""
    watchdog = Watchdog()
    watchdog.close()
    with pytest.raises(imgkit.ServiceClosedError, match="closed while the call ran"):
        watchdog.watch(DriverTransfer(5, 5, 5))


def test_a_forked_watchdog_closes_its_copies() -> None:
    """A forked child holds no descriptor of a request that its parent sends."""
    ours, theirs = socket.socketpair()
    watchdog, transfer = Watchdog(), DriverTransfer(5, 5, 5)
    with theirs:
        with ours:
            transfer.watch_socket(ours)
        watchdog._active.add(transfer)
        watchdog.after_fork()
        theirs.settimeout(1)
        assert theirs.recv(1) == b""
    watchdog.close()
    assert not transfer.aborted
