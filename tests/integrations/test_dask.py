"""Runs on Dask clusters whose workers, schedulers and coordinators die: no request is sent twice."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import distributed
import pytest

from imgkit import ImageService
from imgkit.bulk.bulk_values import BulkOptions
from imgkit.bulk.manifest import Manifest
from imgkit.engines.dask import DaskEngine
from imgkit.errors import ConfigurationError
from imgkit.testing import EngineContract
from tests.support.processes import start_process
from tests.support.slow_api import SlowApi, draw

KEY = "sk-canary-dask-91c4e7"
REPOSITORY = Path(__file__).parents[2]
PLUGIN = """
import os
from dataclasses import replace
from imgkit import hookimpl

@hookimpl
def imgkit_before_send(request, call):
    return replace(request, headers={**request.headers, "x-worker": str(os.getpid())})
"""


class KillingApi(SlowApi):
    """An API that kills the process which a request names, after it has counted the request.

    Args:
        seed: of the times and the choice of requests.
        kills: number of kills.
        chance: of a request to be answered by a kill.
    """

    def __init__(self, seed: int, kills: int, chance: float = 0.2) -> None:
        super().__init__(seed, 0.05)
        self.kills_left = kills
        self._chance = chance

    def _answer(self, handler: Any, method: str, body: bytes) -> None:
        pid = int(handler.headers.get("x-worker", 0))
        with self._guard:
            is_chosen = bool(body and pid and self.kills_left and self._random.random() < self._chance)
            self.kills_left -= is_chosen
        if not is_chosen:
            super()._answer(handler, method, body)
            return
        self._count(str(json.loads(body)["prompt"]))
        os.kill(pid, signal.SIGKILL)


def count_paid(api: SlowApi) -> Counter[str]:
    """Return the number of paid requests of each prompt."""
    return Counter(post.prompt for post in api.list_paid())


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give the workers a key, a folder for replies, and a plugin that names their process."""
    folder = tmp_path / "plugins"
    info = folder / "worker_names-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "worker_names.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: worker-names\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[imgkit]\nworker_names = worker_names\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(REPOSITORY)]))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("IMGKIT_HOME", str(tmp_path / "home"))


@pytest.fixture
def cluster() -> Iterator[distributed.LocalCluster]:
    """A cluster of two worker processes, which come back when they die."""
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=8,
        processes=True,
        memory_limit=0,
        dashboard_address="127.0.0.1:0",
        silence_logs=60,
    ) as made:
        yield made


def carry_out(
    api: SlowApi, folder: Path, rows: int, engine: Any, act: Callable[[int], object] = id, **options: Any
) -> Counter[str]:
    """Carry out a run, and return the number of its rows in each state at the end.

    Args:
        api: the API.
        folder: the output.
        rows: number of rows.
        engine: the engine.
        act: receives the number of outcomes so far, after each.
        options: further options of the run.
    """
    chosen: BulkOptions = {"drain_s": 1.0, "most_in_flight": 16, "engine": engine, **options}  # type: ignore[typeddict-item]  # the test's own
    prompts = [f"fox {number}" for number in range(rows)]
    with (
        ImageService("requests", base_url=f"{api.origin}/v1", model="gpt-image-2") as images,
        images.bulk(prompts, folder=folder, **chosen) as outcomes,
    ):
        for number, _ in enumerate(outcomes, 1):
            act(number)
        assert outcomes.run.stopped is None, outcomes.run.stopped
        return Counter({state: count for state, count in outcomes.run.counts.items() if count})


def check_requests(api: SlowApi, folder: Path, rows: int, *, most_unknown: int) -> Counter[str]:
    """Check that each paid request has its image, or is unknown; return the rows in each state."""
    paid = count_paid(api)
    assert set(paid.values()) <= {1}, "a request was sent twice"
    manifest = Manifest(folder)
    try:
        found = {
            str(row.request["prompt"]): row
            for state in ("waiting", "sending", "accepted", "done", "failed", "unknown")
            for row in manifest.list_rows(state)
        }
    finally:
        manifest.close()
    assert len(found) == rows
    for prompt, row in found.items():
        if row.state == "done":
            (image,) = row.info["images"]
            assert hashlib.sha256((folder / image["file_name"]).read_bytes()).digest() == (
                hashlib.sha256(draw(f"{prompt} #1")).digest()
            )
        else:
            assert row.state == "unknown", row
            assert prompt in paid or row.info["worker"]
    lost = [prompt for prompt in paid if found[prompt].state not in ("done", "unknown")]
    assert lost == []
    listed = [json.loads(line)["id"] for line in (folder / "metadata.jsonl").read_text().splitlines()]
    states = Counter(row.state for row in found.values())
    assert len(listed) == len(set(listed)) == states["done"]
    assert states["unknown"] <= most_unknown
    return Counter({str(state): count for state, count in states.items()})


class TestDaskEngine(EngineContract):
    """The engine of Dask keeps the contract."""

    def engine(self) -> DaskEngine:
        return DaskEngine(workers=2, threads=4)


def test_workers_that_join_and_leave(tmp_path: Path, cluster: distributed.LocalCluster) -> None:
    """Workers that join, and workers that are asked to leave, neither repeat nor lose a request."""
    api = SlowApi(5, 0.1)
    with distributed.Client(cluster, set_as_default=False) as client:

        def act(number: int) -> None:
            if number == 20:
                cluster.scale(4)
            if number in (60, 100):
                address = next(iter(client.scheduler_info(n_workers=-1)["workers"]))
                threading.Thread(target=client.retire_workers, args=([address],), daemon=True).start()

        carry_out(api, tmp_path / "out", 160, DaskEngine(client=client), act)
    check_requests(api, tmp_path / "out", 160, most_unknown=0)
    api.close()


class Processes:
    """A scheduler and workers as processes of their own."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.scheduler = self.start_scheduler()
        self.workers = [self.start_worker() for _ in range(2)]

    @property
    def address(self) -> str:
        """Address of the scheduler."""
        return f"tcp://127.0.0.1:{self.port}"

    def start_scheduler(self) -> subprocess.Popen[str]:
        return self._start("scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard")

    def start_worker(self) -> subprocess.Popen[str]:
        return self._start("worker", self.address, "--nthreads", "8", "--no-nanny", "--no-dashboard")

    @contextmanager
    def replace_dead_workers(self) -> Iterator[None]:
        """Start a worker for each that dies."""
        is_over = threading.Event()

        def watch() -> None:
            while not is_over.wait(0.05):
                for place, worker in enumerate(self.workers):
                    if worker.poll() is not None:
                        self.workers[place] = self.start_worker()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        return start_process(
            [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )


def test_fifty_kills(tmp_path: Path) -> None:
    """Fifty workers are killed with requests open: no request is sent twice, and none is lost."""
    api = KillingApi(seed=17, kills=50)
    rows, folder = 500, tmp_path / "out"
    processes = Processes()
    with processes.replace_dead_workers():
        states = carry_out(api, folder, rows, DaskEngine(scheduler=processes.address))
        assert api.kills_left == 0
        assert check_requests(api, folder, rows, most_unknown=50 * 8) == states
        again = carry_out(api, folder, rows, DaskEngine(scheduler=processes.address))
    assert again["done"] >= states["done"]  # a report may be found late
    assert again["done"] + again["unknown"] == rows
    assert set(count_paid(api).values()) == {1}
    api.close()


def test_a_killed_scheduler(tmp_path: Path) -> None:
    """A scheduler that is killed and started again costs no request twice, and the run goes on."""
    api = SlowApi(6, 0.1)
    processes = Processes()

    def act(number: int) -> None:
        if number == 30:
            processes.scheduler.kill()
            processes.scheduler.wait()
            processes.scheduler = processes.start_scheduler()
            processes.workers += [processes.start_worker() for _ in range(2)]

    folder = tmp_path / "out"
    carry_out(api, folder, 80, DaskEngine(scheduler=processes.address), act)
    carry_out(api, folder, 80, DaskEngine(scheduler=processes.address))
    check_requests(api, folder, 80, most_unknown=16)
    api.close()


COORDINATOR = """
import sys
from imgkit import ImageService
if __name__ == "__main__":
    origin, folder, scheduler, rows = sys.argv[1:]
    prompts = [f"fox {number}" for number in range(int(rows))]
    options = {"engine": "dask", "engine_options": {"scheduler": scheduler}}
    with ImageService("requests", base_url=origin + "/v1", model="gpt-image-2") as images:
        with images.bulk(prompts, folder=folder, **options) as outcomes:
            for outcome in outcomes:
                print(outcome.state, flush=True)
"""


def test_a_killed_coordinator(tmp_path: Path) -> None:
    """The process of the run is killed three times: the next asks the workers, and repeats nothing."""
    api = SlowApi(7, 0.3)
    processes = Processes()
    script = tmp_path / "coordinator.py"
    script.write_text(COORDINATOR)
    folder, rows = tmp_path / "out", 120
    for kill_after in (5, 20, 30):
        process = start_process(
            [sys.executable, str(script), api.origin, str(folder), processes.address, str(rows)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for _ in range(kill_after):
            assert process.stdout.readline() == "done\n"
        process.kill()
        process.wait()
        process.stdout.close()
    carry_out(api, folder, rows, DaskEngine(scheduler=processes.address))
    check_requests(api, folder, rows, most_unknown=0)
    assert len(count_paid(api)) == rows
    api.close()


def read_scheduler(dask_scheduler: Any = None) -> bytes:
    """Return all that a scheduler knows: its tasks with their arguments, events, logs and plugins."""
    import pickle

    parts: list[object] = []
    for state in dask_scheduler.tasks.values():
        parts += [
            repr(state.run_spec),
            repr(state.key),
            repr(state.exception_text),
            repr(state.traceback_text),
        ]
        try:
            parts.append(pickle.dumps(state.run_spec))
        except Exception as error:
            parts.append(repr(error))
    broker = dask_scheduler._broker
    parts += [repr(topic.events) for topic in broker._topics.values()]
    parts += [
        repr(dask_scheduler.get_logs()),
        repr(dask_scheduler.plugins),
        repr(dask_scheduler.transition_log),
    ]
    return b"\n".join(part if isinstance(part, bytes) else str(part).encode() for part in parts)


def test_no_key_reaches_the_cluster(tmp_path: Path, cluster: distributed.LocalCluster) -> None:
    """The key is in no task, event, log or plugin of the scheduler; a text put into a prompt is found."""
    api = SlowApi(8, 0.3)
    seen: list[bytes] = []
    with distributed.Client(cluster, set_as_default=False) as client:

        def act(number: int) -> None:
            if number in (1, 10):
                seen.append(client.run_on_scheduler(read_scheduler))
                logs = [*client.get_worker_logs().values(), client.get_scheduler_logs()]
                seen.append(repr(logs).encode())

        carry_out(api, tmp_path / "out", 40, DaskEngine(client=client), act)
    everything = b"\n".join(seen)
    assert b"fox 1" in everything, "the search finds what is there"
    assert KEY.encode() not in everything
    api.close()


def test_a_scheduler_that_is_not_there(tmp_path: Path) -> None:
    """No scheduler at the address is a clear error, and nothing is sent."""
    api = SlowApi(9, 0.1)
    for address in ("tcp://127.0.0.1:1", "tls://127.0.0.1:1", "nonsense"):
        with pytest.raises(ConfigurationError, match="No Dask scheduler answers at .*Start it"):
            carry_out(api, tmp_path / "out", 2, DaskEngine(scheduler=address))
    assert api.list_paid() == []
    api.close()


def test_a_frozen_worker(tmp_path: Path, cluster: distributed.LocalCluster) -> None:
    """A worker that is frozen while it sends, and wakes up later, costs no request twice."""
    api = SlowApi(10, 0.2)
    frozen: list[int] = []
    with distributed.Client(cluster, set_as_default=False) as client:

        def act(number: int) -> None:
            if number == 10:
                frozen.extend(client.run(os.getpid).values())
                os.kill(frozen[0], signal.SIGSTOP)
                threading.Timer(2.0, os.kill, (frozen[0], signal.SIGCONT)).start()

        started = time.monotonic()
        carry_out(api, tmp_path / "out", 60, DaskEngine(client=client), act)
        assert time.monotonic() - started < 60
    check_requests(api, tmp_path / "out", 60, most_unknown=0)
    api.close()
