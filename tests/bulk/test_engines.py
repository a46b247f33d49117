"""Engines: a run sends nothing twice, whatever an engine does to its tasks."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Never

import pytest

from imgkit import AsyncImageService, ImageService
from imgkit.bulk.bulk_values import BulkOptions, BulkOutcome, Work
from imgkit.bulk.manifest import Manifest
from imgkit.bulk.outcomes import BulkOutcomes
from imgkit.bulk.output import DigestPlan, Output
from imgkit.bulk.reports import end_reservations, reserve_claim
from imgkit.default_plugins.budget import Budget
from imgkit.engines.local import LocalEngine
from imgkit.engines.worker import _Worker
from imgkit.errors import (
    ConfigurationError,
    NotSentError,
    OutcomeUnknownError,
    SaveError,
    ServerError,
    UnknownPluginError,
)
from imgkit.plugins import EngineSpec, hookimpl
from imgkit.plugins.engines import Answer, AskedTask, Claim, EngineHost, EngineTask, Report, ReportFuture
from imgkit.plugins.events import Call
from imgkit.providers.bfl_fake import FakeBfl
from imgkit.testing import EngineContract, WireServer, answer, png, reply
from imgkit.testing.wire_server import serve_fake
from tests.bulk.test_bulk import reject
from tests.bulk.test_rows_providers import wait_until
from tests.conftest import ServiceRunner


class Prefix:
    """A plugin of this process."""

    @hookimpl
    def imgkit_on_event(self, event: object) -> None:
        """Do nothing."""


class ThreadEngine:
    """An engine whose workers are threads, each with a memory of its own.

    Attributes:
        workers: the workers that live.
        starts: how often the next tasks are started, and what becomes of their results; the last one stays.
    """

    is_remote = True

    def __init__(self, *starts: str, workers: int = 2) -> None:
        self.workers = [_Worker() for _ in range(workers)]
        self.starts = list(starts) or ["once"]
        self.submitted: list[EngineTask] = []
        self._pool = ThreadPoolExecutor(8)

    def open(self, host: EngineHost) -> None:
        self._host = host

    def submit(self, task: EngineTask) -> ReportFuture:
        self.submitted.append(task)
        start = self.starts.pop(0) if len(self.starts) > 1 else self.starts[0]
        json.dumps(task.payload)
        worker = self.workers[len(self.submitted) % len(self.workers)]
        if start == "twice":
            twin = self.workers[(len(self.submitted) + 1) % len(self.workers)]
            self._pool.submit(worker.carry_out, task.payload, self._host.claim)
            return self._pool.submit(twin.carry_out, task.payload, self._host.claim)
        if start == "never":
            lost: ReportFuture = Future()
            lost.cancel()
            return lost
        if start == "forgotten":  # the worker goes on, the engine loses its result
            return self._pool.submit(self._forget, worker.carry_out, task)
        if start == "killed":  # the worker dies before it can send, but after its claim
            return self._pool.submit(self._kill, worker, task)
        return self._pool.submit(worker.carry_out, task.payload, self._host.claim)

    def _forget(self, carry_out: Callable[..., Report], task: EngineTask) -> None:
        has_claimed = threading.Event()

        def claim(claim: Claim) -> bool:
            is_granted = self._host.claim(claim)
            has_claimed.set()
            return is_granted

        threading.Thread(target=carry_out, args=(task.payload, claim)).start()
        has_claimed.wait(30)

    def _kill(self, worker: _Worker, task: EngineTask) -> None:
        def die(claim: Claim) -> bool:
            self._host.claim({**claim, "worker": "gone"})
            raise ConnectionError("killed")

        worker.carry_out(task.payload, die)
        raise RuntimeError("KilledWorker")

    def ask(self, tasks: Sequence[AskedTask]) -> Sequence[Answer]:
        return [worker.find(tasks) for worker in self.workers]

    def close(self) -> None:
        self._pool.shutdown()


class TestLocalEngine(EngineContract):
    """The engine of this process keeps the contract."""

    def engine(self) -> LocalEngine:
        return LocalEngine()


class TestThreadEngine(EngineContract):
    """The engine of these tests keeps the contract."""

    def engine(self) -> ThreadEngine:
        return ThreadEngine()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-engines-7")
    monkeypatch.setenv("IMGKIT_HOME", str(tmp_path / "home"))


def carry_out(
    flavor: ServiceRunner,
    folder: Path,
    base_url: str,
    rows: int,
    *,
    service: Mapping[str, object] = MappingProxyType({}),
    **options: object,
) -> list[BulkOutcome]:
    """Carry out a run, and return its outcomes in the order of their rows."""
    requests = [f"fox {number}" for number in range(rows)]
    chosen: BulkOptions = {"drain_s": 0.4, **options}  # type: ignore[typeddict-item]  # the test's own

    def work(images: ImageService) -> list[BulkOutcome]:
        with images.bulk(requests, folder=folder, **chosen) as outcomes:
            return list(outcomes)

    async def work_async(images: AsyncImageService) -> list[BulkOutcome]:
        async with images.bulk(requests, folder=folder, **chosen) as outcomes:
            return [outcome async for outcome in outcomes]

    is_sync = flavor.flavor == "sync"
    found: list[BulkOutcome] = flavor.run(
        work if is_sync else work_async,
        "requests" if is_sync else "aiohttp",
        base_url=base_url,
        model="gpt-image-2",
        **service,
    )
    return sorted(found, key=lambda outcome: int(outcome.id))


@pytest.mark.parametrize("start", ["twice", "forgotten"])
def test_a_task_that_the_engine_repeats_or_loses_is_sent_once(
    flavor: ServiceRunner, tmp_path: Path, start: str
) -> None:
    """Whatever an engine does to its tasks, each request is sent once, and its image arrives."""
    with WireServer(*(reply(200, answer(png(2 + number))) for number in range(6))) as server:
        found = carry_out(flavor, tmp_path / "out", server.base_url, 6, engine=ThreadEngine(start))
        assert [outcome.state for outcome in found] == ["done"] * 6, found
        assert server.posts == 6
    assert len(list((tmp_path / "out" / "images").rglob("*.png"))) == 6
    assert not (tmp_path / "out" / "reports").exists()


def test_a_task_that_never_began_is_handed_out_again(flavor: ServiceRunner, tmp_path: Path) -> None:
    """A task that was lost before its claim is void, and its request goes out as another task."""
    engine = ThreadEngine("never", "once")
    with WireServer(reply(200, answer(png(3)))) as server:
        found = carry_out(flavor, tmp_path / "out", server.base_url, 1, engine=engine)
        assert [outcome.state for outcome in found] == ["done"]
        assert server.posts == 1
    first, second = engine.submitted
    assert first.name != second.name
    assert not engine._host.claim({"task": first.name, "epoch": 1, "worker": "w", "part": ("c", 1, 0, 1)})


def test_a_worker_that_dies_leaves_its_request_unknown(flavor: ServiceRunner, tmp_path: Path) -> None:
    """A request that a dead worker had claimed is unknown, never sent again, until someone asks for it."""
    with WireServer(reply(200, answer(png(3)))) as server:
        engine = ThreadEngine("killed", "once")
        found = carry_out(flavor, tmp_path / "out", server.base_url, 2, engine=engine, most_in_flight=1)
        assert [outcome.state for outcome in found] == ["unknown", "done"]
        again = carry_out(flavor, tmp_path / "out", server.base_url, 2, engine=ThreadEngine())
        assert again == []
        assert server.posts == 1
        retried = carry_out(
            flavor, tmp_path / "out", server.base_url, 2, engine=ThreadEngine(), retry_unknown=True
        )
        assert [outcome.state for outcome in retried] == ["done"]
        assert server.posts == 2


def test_a_report_that_comes_too_late_stays(flavor: ServiceRunner, tmp_path: Path) -> None:
    """A report that reaches the output while its task is given up is there for the next run."""
    out = tmp_path / "out"

    class LateEngine(ThreadEngine):
        def ask(self, tasks: Sequence[AskedTask]) -> Sequence[Answer]:
            Output(out).write_report(tasks[0]["payload"]["name"], b"{}")
            return []

    with WireServer(reply(200, answer(png(3)))) as server:
        [outcome] = carry_out(flavor, out, server.base_url, 1, engine=LateEngine("killed"), drain_s=0)
    assert outcome.state == "unknown"
    assert len(list((out / "reports").iterdir())) == 1


def test_a_budget_is_kept_for_all_workers(flavor: ServiceRunner, tmp_path: Path) -> None:
    """The budget of the run refuses the claim that would exceed it; the rest waits, and nothing is paid."""
    budget = Budget("0.05", price_per_image="0.02")
    with WireServer(reply(200, answer(png(3)))) as server:
        found = carry_out(
            flavor,
            tmp_path / "out",
            server.base_url,
            20,
            service={"plugins": [budget]},
            engine=ThreadEngine(),
        )
        states = [outcome.state for outcome in found]
        assert states.count("done") == server.posts == 2
        assert "unknown" not in states
    assert budget.spent <= budget.limit


def test_a_worker_whose_disk_was_full_delivers_later(
    flavor: ServiceRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that could not save an image saves the reply that it keeps, once the next run asks."""
    engine, out = ThreadEngine(), tmp_path / "out"
    with WireServer(reply(200, answer(png(3)))) as server:
        with monkeypatch.context() as full:
            full.setattr(DigestPlan, "write", reject)
            [outcome] = carry_out(flavor, out, server.base_url, 1, engine=engine)
        assert (outcome.state, type(outcome.error)) == ("sending", SaveError)
        later = ThreadEngine()
        later.workers = engine.workers
        assert carry_out(flavor, out, server.base_url, 1, engine=later) == []
        assert server.posts == 1
    manifest = Manifest(out)
    assert manifest.count()["done"] == 1
    manifest.close()
    assert len(list((out / "images").rglob("*.png"))) == 1


def test_a_worker_that_cannot_write_its_report(
    flavor: ServiceRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request all of whose images are saved is done, though the copy of its report could not be written."""

    def fail(self: Output, name: str, report: bytes) -> None:
        raise SaveError("Cannot write reports.")

    monkeypatch.setattr(Output, "write_report", fail)
    with WireServer(reply(200, answer(png(3)))) as server:
        [outcome] = carry_out(flavor, tmp_path / "out", server.base_url, 1, engine=ThreadEngine())
    assert outcome.state == "done"


@pytest.mark.parametrize(
    ("report", "spent"),
    [
        ({"images": [{}], "cost": "0.03"}, "0.03"),
        ({"images": [{}], "cost": None}, "0.04"),
        ({"images": [{}], "cost": "0.01", "error": OutcomeUnknownError("Lost.")}, "0.04"),
        ({"images": [{}], "cost": "0.01", "error": ServerError("Busy.", status=503)}, "0.01"),
        ({"error": OutcomeUnknownError("Lost.")}, "0.04"),
        ({"error": ServerError("Busy.", status=503)}, "0"),
    ],
)
def test_a_budget_counts_what_a_report_may_cost(report: Report, spent: str) -> None:
    """A task some of whose requests may be paid counts with all that was reserved for it."""
    budget = Budget("1", price_per_image="0.02")
    service = ImageService("requests", model="a-model", base_url="http://127.0.0.1:9/v1", plugins=[budget])
    request = {"operation": "create_image", "prompt": "a fox", "n": 2}
    claim: Claim = {"task": "t", "epoch": 1, "worker": "w", "part": ("call", 1, 0, 2)}
    with service:
        reserved = reserve_claim(service._core, request, claim, 9.0)
        assert budget.reserved == Decimal("0.04")
        reserved.sent = True
        end_reservations(service._core, reserved, request, report)
    assert (budget.spent, budget.reserved) == (Decimal(spent), Decimal(0))


def test_a_ledger_learns_the_model_of_a_row() -> None:
    """The ledgers of a run reserve the claim of a worker for the model that the row names."""
    calls: list[Call] = []

    class Books:
        @hookimpl
        def imgkit_ledger(self, settings: object) -> Books:
            return self

        def reserve(self, request: object, call: Call, attempt: int) -> Never:
            calls.append(call)
            raise NotSentError("The books are closed.")

    service = ImageService("requests", model="a", base_url="http://127.0.0.1:9/v1", plugins=[Books()])
    request = {"operation": "create_image", "prompt": "a fox", "model": "b"}
    claim: Claim = {"task": "t", "epoch": 1, "worker": "w", "part": ("call", 1, 0, 1)}
    with service, pytest.raises(NotSentError, match="books are closed"):
        reserve_claim(service._core, request, claim, 9.0)
    assert [call.model for call in calls] == ["b"]


def test_keys_and_objects_do_not_travel(tmp_path: Path) -> None:
    """A service with a key, or with a plugin of its own, is refused before anything is sent."""
    with (
        ImageService("requests", api_key="sk-private-1", model="gpt-image-2") as images,
        pytest.raises(ConfigurationError, match="cannot get api_key.*environment"),
        images.bulk(["a fox"], folder=tmp_path / "a", engine=ThreadEngine()) as outcomes,
    ):
        next(outcomes)
    with (
        ImageService(plugins=[Prefix()]) as images,
        pytest.raises(ConfigurationError, match="cannot get plugins.*name"),
        images.bulk(["a fox"], folder=tmp_path / "b", engine=ThreadEngine()) as outcomes,
    ):
        next(outcomes)


def test_no_key_is_in_a_task(flavor: ServiceRunner, tmp_path: Path) -> None:
    """What an engine gets of a run holds its prompts and no key."""
    engine = ThreadEngine()
    with WireServer(reply(200, answer(png(3)))) as server:
        carry_out(flavor, tmp_path / "out", server.base_url, 1, engine=engine)
    text = json.dumps(engine.submitted[0].payload)
    assert "fox 0" in text
    assert "sk-" not in text


def test_an_engine_is_found_by_its_name(tmp_path: Path) -> None:
    """A plugin's engine is selected by name, with its options; a wrong name or option is refused."""

    class Engines:
        @hookimpl
        def imgkit_engines(self) -> list[EngineSpec]:
            return [EngineSpec(name="threads", target="tests.bulk.test_engines:ThreadEngine")]

    with ImageService(plugins=[Engines()]) as images:
        for name, options, problem in (
            ("thread", {}, "threads"),
            ("threads", {"worker": 2}, "Engine 'threads' has no option 'worker' .did you mean 'workers'"),
        ):
            with (
                pytest.raises((ConfigurationError, UnknownPluginError), match=problem),
                images.bulk(["a"], folder=tmp_path / "a", engine=name, engine_options=options) as outcomes,
            ):
                next(outcomes)


def test_a_run_that_is_left_takes_its_tasks_back(tmp_path: Path) -> None:
    """Tasks that wait at an engine are taken back when a run is left: they send nothing later."""
    engine = ThreadEngine("once")
    engine.submit = lambda task: Future()  # type: ignore[method-assign]  # no worker is free
    with ImageService() as images:
        outcomes = images.bulk(["a fox"], folder=tmp_path / "out", engine=engine)
        with outcomes:
            outcomes.run.read_more()
            step = outcomes.run.take(0)
            assert isinstance(step, Work)
            future = outcomes.run.hand_out(step)
            outcomes.run.stop("enough")
            assert future.result(timeout=0).state == "waiting"


def test_an_engine_that_cannot_close_leaves_a_whole_run(tmp_path: Path) -> None:
    """An engine whose cluster is gone may fail to close; the run is closed all the same."""

    class StuckEngine(LocalEngine):
        def close(self) -> None:
            raise ConnectionError("The cluster is gone.")

    with ImageService() as images:
        with (
            pytest.raises(ConnectionError, match="The cluster is gone"),
            images.bulk(["a fox"], folder=tmp_path, engine=StuckEngine()) as outcomes,
        ):
            list(outcomes)
        with images.bulk(["a fox"], folder=tmp_path) as outcomes:
            assert list(outcomes) == []
            assert outcomes.run.counts["done"] == 1


def test_a_lost_task_may_be_the_last_of_a_run_that_was_left(tmp_path: Path) -> None:
    """The thread that settles lost tasks may close the run: it does not wait for itself."""
    engine = ThreadEngine("killed")
    with ImageService() as images:
        outcomes = images.bulk(["a fox"], folder=tmp_path, engine=engine, drain_s=0.1)
        iter(outcomes)
        future = hand_out_first(outcomes)
        has_closed = threading.Event()

        def close(_: object) -> None:
            outcomes.run.close()
            has_closed.set()

        future.add_done_callback(close)
        assert has_closed.wait(10)
        with images.bulk(["a fox"], folder=tmp_path) as again:
            assert [outcome.state for outcome in again] == ["done"]


def test_a_stop_leaves_the_jobs_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers leave their jobs as soon as the run stops; the next run collects them, and sends nothing."""
    monkeypatch.setenv("BFL_API_KEY", "bfl-engines-7")
    fake, engine = FakeBfl(polls=10**6), ThreadEngine()
    with serve_fake(fake) as server:
        given: Any = {"provider": "bfl", "base_url": server.origin, "model": "flux-2-pro"}
        with ImageService("requests", **given) as images, ThreadPoolExecutor(1) as threads:
            with images.bulk(["a fox", "a hen"], folder=tmp_path / "out", engine=engine) as outcomes:
                left = threads.submit(list, outcomes)
                wait_until(lambda: len(fake.jobs) == 2 and len(fake.count) == 2)
                outcomes.stop()
                assert [outcome.state for outcome in left.result(20)] == ["accepted"] * 2
            fake.polls = 0
            with images.bulk(["a fox", "a hen"], folder=tmp_path / "out", engine=ThreadEngine()) as outcomes:
                assert [outcome.state for outcome in outcomes] == ["done"] * 2
        assert server.posts == 2


class IdleEngine(ThreadEngine):
    """An engine whose workers are busy: its futures wait."""

    def submit(self, task: EngineTask) -> ReportFuture:
        self.submitted.append(task)
        self.future: ReportFuture = Future()
        return self.future

    def build_claim(self, attempt: int = 1) -> Claim:
        """Return a claim of a worker for the latest task."""
        payload = self.submitted[-1].payload
        part = ("call", attempt, 0, 1)
        return {"task": payload["name"], "epoch": payload["epoch"], "worker": "w", "part": part}


def hand_out_first(outcomes: BulkOutcomes) -> Future[BulkOutcome]:
    """Hand out the first request of a run, and return the future of its outcome."""
    outcomes.run.read_more()
    step = outcomes.run.take(0)
    assert isinstance(step, Work)
    return outcomes.run.hand_out(step)


def test_a_stop_waits_for_no_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal may interrupt a thread that has the manifest, which a claim waits for; it does not wait."""
    engine, is_committing, may_commit = IdleEngine(), threading.Event(), threading.Event()
    write = Manifest.mark

    def mark(*args: Any, **options: Any) -> None:
        is_committing.set()
        may_commit.wait(10)
        write(*args, **options)

    with ImageService() as images, images.bulk(["a fox"], folder=tmp_path, engine=engine) as outcomes:
        future = hand_out_first(outcomes)
        monkeypatch.setattr(Manifest, "mark", mark)
        with ThreadPoolExecutor(2) as threads:
            claim = threads.submit(engine._host.claim, engine.build_claim())
            assert is_committing.wait(10)
            try:
                threads.submit(outcomes.stop).result(timeout=5)
            finally:
                may_commit.set()
            assert claim.result() is True
        assert not engine._host.claim(engine.build_claim(2)), "the run has stopped"
        engine.future.set_result({"name": engine.submitted[0].name, "worker": "w", "refused": "busy"})
        assert future.result(timeout=0).state == "waiting"
        assert outcomes.run.manifest.count()["waiting"] == 1


def test_a_task_begins_here_or_at_a_worker(tmp_path: Path) -> None:
    """An engine that carries out a task here as well, or twice, sends its request once."""
    engine = IdleEngine()
    with ImageService() as images, images.bulk(["a", "b"], folder=tmp_path, engine=engine) as outcomes:
        hand_out_first(outcomes)
        assert engine._host.claim(engine.build_claim())
        with pytest.raises(NotSentError, match="has begun before"):
            engine._host.carry_out_here(engine.submitted[0])
        engine.future.set_result({"name": engine.submitted[0].name, "worker": "w", "refused": "busy"})
        step = outcomes.run.take(0)
        assert isinstance(step, Work)
        future = outcomes.run.hand_out(step)
        here = engine._host.carry_out_here(engine.submitted[1])
        assert not engine._host.claim(engine.build_claim())
        with pytest.raises(NotSentError, match="has begun before"):
            engine._host.carry_out_here(engine.submitted[1])
        engine.future.set_result(here.result(timeout=10))
        assert future.result(timeout=0).state == "done"


def test_a_lost_task_that_cannot_be_written_down_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest that fails while a lost task is settled raises its error; the run does not wait for ever."""
    write = Manifest.mark

    def mark(self: Manifest, number: int, state: Any, *args: Any, **options: Any) -> None:
        if state == "unknown":
            raise ConfigurationError("The disk is full.")
        write(self, number, state, *args, **options)

    monkeypatch.setattr(Manifest, "mark", mark)
    with ImageService() as images:
        outcomes = images.bulk(["a"], folder=tmp_path, engine=ThreadEngine("killed"), drain_s=0.1)
        with pytest.raises(ConfigurationError, match="The disk is full"), outcomes:
            next(outcomes)


class ForeignThreads(LocalEngine):
    """An engine that carries out requests in the run's process, from threads of its own."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(4)

    def submit(self, task: EngineTask) -> ReportFuture:
        report: ReportFuture = Future()
        host_future = self._pool.submit(self._host.carry_out_here, task)
        host_future.add_done_callback(
            lambda done: done.result().add_done_callback(lambda ended: report.set_result(ended.result()))
        )
        return report

    def close(self) -> None:
        self._pool.shutdown()


def test_any_thread_of_an_engine_may_start_requests(flavor: ServiceRunner, tmp_path: Path) -> None:
    """`carry_out_here` starts requests under both services from a thread that they do not know."""
    with WireServer(*(reply(200, answer(png(2 + number))) for number in range(4))) as server:
        found = carry_out(flavor, tmp_path / "out", server.base_url, 4, engine=ForeignThreads())
        assert [outcome.state for outcome in found] == ["done"] * 4
        assert server.posts == 4


def test_an_engine_that_cannot_be_opened(flavor: ServiceRunner, tmp_path: Path) -> None:
    """An error of an engine's own becomes one of imgkit, and nothing is sent."""

    class Broken(LocalEngine):
        def open(self, host: EngineHost) -> None:
            raise RuntimeError("no cluster")

    with WireServer(reply(200, answer(png(3)))) as server:
        with pytest.raises(ConfigurationError, match="The engine cannot be opened .*no cluster"):
            carry_out(flavor, tmp_path / "out", server.base_url, 1, engine=Broken())
        assert server.posts == 0
