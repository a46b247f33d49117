"""Runs that are left early: the requests in flight end, nothing is lost, and the manifest is free again."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.bulk.bulk_run import BulkRun
from imgkit.bulk.bulk_values import BulkProgress
from imgkit.bulk.manifest import Manifest
from imgkit.default_plugins.budget import Budget
from imgkit.testing.samples import answer
from imgkit.testing.wire_server import Line, WireServer, reply
from tests.conftest import ServiceRunner
from tests.support.pictures import picture

ROWS = [f"fox {number}" for number in range(8)]
KEY = "sk-bulk-0123456789"


class Api:
    """An API that answers at once, and holds the requests behind the first few until `release` is set."""

    def __init__(self, at_once: int) -> None:
        self.release = threading.Event()
        self.held = threading.Semaphore(0)
        self._at_once = at_once
        self._guard = threading.Lock()
        self._count = 0
        self.server = WireServer(self._answer)

    def _answer(self, line: Line) -> None:
        with self._guard:
            self._count += 1
            is_held = self._count > self._at_once
        if is_held:
            self.held.release()
            while not self.release.wait(0.02):
                if line.closing.is_set():
                    return
        reply(200, answer(picture()))(line)


@pytest.fixture
def api() -> Iterator[Api]:
    """Serve an API that answers the first request, and holds all others."""
    served = Api(at_once=1)
    with served.server:
        yield served


def build_settings(api: Api, folder: Path) -> dict[str, Any]:
    """Return the arguments of a service that speaks to the API."""
    return {"base_url": api.server.base_url, "api_key": KEY, "state_folder": folder / "state"}


def count(folder: Path) -> dict[str, int]:
    """Return the states of a run; its manifest must be free."""
    manifest = Manifest(folder)
    try:
        return {state: number for state, number in manifest.count().items() if number}
    finally:
        manifest.close()


def release_soon(api: Api) -> None:
    """Let the API answer once it holds a request, while the caller waits for the requests in flight."""

    def watch() -> None:
        if api.held.acquire(timeout=20):
            api.release.set()

    threading.Thread(target=watch, daemon=True).start()


class BodyError(Exception):
    """An error of the loop's body."""


@pytest.mark.parametrize("has_block", [True, False], ids=["with", "bare"])
@pytest.mark.parametrize("way", ["break", "error", "interrupt"])
def test_a_loop_that_is_left(
    flavor: ServiceRunner, http_backend: str, way: str, has_block: bool, api: Api, tmp_path: Path
) -> None:
    """Finishes the requests in flight, with and without a block; the same run goes on in the same service."""
    errors: dict[str, type[BaseException]] = {"error": BodyError, "interrupt": KeyboardInterrupt}
    release_soon(api)

    def leave() -> bool:
        if way == "break":
            return True
        raise errors[way]

    def now(service: Any) -> None:
        if has_block:
            with service.bulk(ROWS, folder=tmp_path / "out") as outcomes:
                for _ in outcomes:
                    if leave():
                        break
        else:
            for _ in service.bulk(ROWS, folder=tmp_path / "out"):
                if leave():
                    break
        found = [outcome.state for outcome in service.bulk(ROWS, folder=tmp_path / "out")]
        assert set(found) == {"done"}

    async def later(service: Any) -> None:
        if has_block:
            async with service.bulk(ROWS, folder=tmp_path / "out") as outcomes:
                async for _ in outcomes:
                    if leave():
                        break
        else:
            async for _ in service.bulk(ROWS, folder=tmp_path / "out"):
                if leave():
                    break
        found = [outcome.state async for outcome in service.bulk(ROWS, folder=tmp_path / "out")]
        assert set(found) == {"done"}

    def carry_out() -> None:
        work: Callable[[Any], Any] = now if flavor.flavor == "sync" else later
        flavor.run(work, http_backend, **build_settings(api, tmp_path))

    if way == "break":
        carry_out()
        assert count(tmp_path / "out") == {"done": 8}
        assert api.server.posts == 8
        return
    with pytest.raises(errors[way]):
        carry_out()
    counts = count(tmp_path / "out")
    assert set(counts) == {"done", "waiting"}
    assert counts["done"] == api.server.posts


def test_a_cancelled_task(http_backend: str, api: Api, tmp_path: Path) -> None:
    """A cancelled task finishes the requests in flight before it ends, in a block and without."""

    async def iterate(service: Any, folder: Path, has_block: bool) -> None:
        outcomes = service.bulk(ROWS, folder=folder)
        if has_block:
            await outcomes.__aenter__()
        try:
            async for _ in outcomes:
                continue
        finally:
            if has_block:
                await outcomes.__aexit__(None, None, None)

    async def main(has_block: bool) -> None:
        folder = tmp_path / f"out-{has_block}"
        async with imgkit.AsyncImageService(http_backend, **build_settings(api, tmp_path)) as service:
            task = asyncio.create_task(iterate(service, folder, has_block))
            await asyncio.to_thread(api.held.acquire, timeout=20)
            task.cancel()
            release_soon(api)
            api.held.release()
            with pytest.raises(asyncio.CancelledError):
                await task
        counts = count(folder)
        assert set(counts) == {"done", "waiting"}

    asyncio.run(main(True))
    api.release.clear()
    while api.held.acquire(blocking=False):
        pass
    asyncio.run(main(False))
    done = len(list(tmp_path.glob("out-*/metadata.jsonl")))
    assert done == 2
    assert api.server.posts == sum(
        len(path.read_text().splitlines()) for path in tmp_path.glob("out-*/*.jsonl")
    )


def test_a_cancelled_preparation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is cancelled while the run is opened leaves its manifest free."""
    started, may_go = threading.Event(), threading.Event()
    prepare = BulkRun.prepare

    def prepare_slowly(run: BulkRun, *arguments: Any) -> None:
        prepare(run, *arguments)
        started.set()
        may_go.wait(20)

    monkeypatch.setattr(BulkRun, "prepare", prepare_slowly)

    async def main() -> None:
        async with imgkit.AsyncImageService() as service:
            outcomes = service.bulk(["a fox"], folder=tmp_path)
            task = asyncio.ensure_future(anext(outcomes))
            await asyncio.to_thread(started.wait, 20)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            may_go.set()

    asyncio.run(main())
    monkeypatch.undo()
    assert count(tmp_path) == {"waiting": 1}


def test_a_real_interrupt(http_backend: str, api: Api, tmp_path: Path) -> None:
    """Ctrl-C under `asyncio.run` finishes the requests in flight, without any block of the run."""

    async def main() -> None:
        async with imgkit.AsyncImageService(http_backend, **build_settings(api, tmp_path)) as service:
            async for _ in service.bulk(ROWS, folder=tmp_path / "out"):
                continue

    def interrupt() -> None:
        if api.held.acquire(timeout=20):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            api.held.acquire(timeout=1)
            api.release.set()

    threading.Thread(target=interrupt, daemon=True).start()
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(main())
    finally:
        signal.signal(signal.SIGINT, handler)
    counts = count(tmp_path / "out")
    assert counts["done"] == api.server.posts
    assert set(counts) == {"done", "waiting"}


def test_the_progress(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> None:
    """A callback receives counts, rate, money and the last error, at the start and at the end."""
    seen: list[BulkProgress] = []
    blocked = {"error": {"message": "No.", "type": "image_generation", "code": "moderation_blocked"}}

    def respond(line: Line) -> None:
        (reply(400, blocked) if b"gun" in line.body else reply(200, answer(picture())))(line)

    def now(service: Any) -> None:
        list(service.bulk(["a fox", "a gun"], folder=tmp_path / "out", progress=seen.append))

    async def later(service: Any) -> None:
        async for _ in service.bulk(["a fox", "a gun"], folder=tmp_path / "out", progress=seen.append):
            continue

    with WireServer(respond) as server:
        flavor.run(
            now if flavor.flavor == "sync" else later,
            http_backend,
            base_url=server.base_url,
            api_key=KEY,
            state_folder=tmp_path / "state",
            plugins=[Budget(1, price_per_image="0.25")],
        )
    first, last = seen[0], seen[-1]
    assert first.counts["waiting"] == 2
    assert (first.in_flight, first.spent, first.left) == (0, Decimal(0), Decimal(1))
    assert (last.counts["done"], last.counts["blocked"], last.in_flight) == (1, 1, 0)
    assert (last.spent, last.reserved, last.left) == (Decimal("0.25"), Decimal(0), Decimal("0.75"))
    assert last.per_minute > 0
    assert last.last_error is not None
    assert last.last_error.startswith("2: ")
    assert KEY not in repr(seen)


@pytest.mark.parametrize("place", [0, 1, -1], ids=["first", "middle", "last"])
def test_a_callback_that_raises(
    flavor: ServiceRunner,
    http_backend: str,
    place: int,
    api: Api,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its error ends the run once the requests in flight have ended; the next run goes on."""
    monkeypatch.setattr("imgkit.bulk.progress_reporter.REPORT_S", 0.0)
    calls: list[BulkProgress] = []
    release_soon(api)

    def complain(progress: BulkProgress) -> None:
        calls.append(progress)
        is_last = progress.counts["done"] == len(ROWS)
        if (place == 0) or (place == 1 and progress.in_flight > 1) or (place == -1 and is_last):
            raise BodyError

    def now(service: Any) -> None:
        list(service.bulk(ROWS, folder=tmp_path / "out", progress=complain))

    async def later(service: Any) -> None:
        async for _ in service.bulk(ROWS, folder=tmp_path / "out", progress=complain):
            continue

    work = now if flavor.flavor == "sync" else later
    with pytest.raises(BodyError):
        flavor.run(work, http_backend, **build_settings(api, tmp_path))
    counts = count(tmp_path / "out")
    assert set(counts) <= {"done", "waiting"}
    assert counts.get("done", 0) == api.server.posts
    assert api.server.posts >= {0: 0, 1: 2, -1: 8}[place]


def test_outcomes_that_nobody_takes(api: Api, tmp_path: Path) -> None:
    """Outcomes without a reference finish the requests in flight, and close the run."""
    release_soon(api)
    with imgkit.ImageService("requests", **build_settings(api, tmp_path)) as service:
        outcomes = service.bulk(ROWS, folder=tmp_path / "out")
        next(outcomes)
        del outcomes
        gc.collect()
        counts = count(tmp_path / "out")
    assert counts["done"] == api.server.posts >= 2
