"""Runs that are killed while requests are open, and what must be true of every paid request afterwards."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import random
import shutil
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from imgkit.bulk.bulk_run import BulkRun
from imgkit.bulk.manifest import FILE, STATES
from imgkit.core import job_requests
from tests.conftest import ServiceRunner
from tests.support.processes import join_fork, kill_fork, start_fork
from tests.support.slow_api import PaidPost, SlowApi

ROWS, KILLS_OF_A_RUN, IN_FLIGHT, BUSY = 160, 6, 32, 8

DELIVERY_S = 0.5
"""Time in which a client reads a reply that the server has written, on a busy machine."""

HOLDS_OF_A_KILL = 8
"""A process is killed within this many times the longest hold of a reply after its first request."""

EARLY_KILLS = 0.1
"""Share of the kills that come before a process sends anything, or as it begins to."""

COUNTS = ("kills", "busy", "held", "posts", "delivered", "kept", "jobs", "unknown", "unsent", "twice")
"""Counts of a report. A busy kill meets eight or more rows in flight; it counts as held if the server holds
as many replies. Kept replies and jobs were delivered by a later process. Unsent requests are unknown, and
never reached the server."""


class Scene(NamedTuple):
    """The way in which a run is started.

    Attributes:
        door: "sync" or "async" for a service, "command" for `imgkit bulk`.
        backend, provider: of the service.
    """

    door: str
    backend: str
    provider: str


class KillReport:
    """What the killed runs of a scene have shown.

    Attributes:
        counts: numbers by the names of `COUNTS`.
        problems: what must not be.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []


def kill_runs(
    folder: Path,
    kills: int,
    *,
    seed: int,
    scene: Scene,
    longest_s: float = 0.04,
    stop_at: float | None = None,
) -> KillReport:
    """Kill runs of many requests until the number of kills is reached; finish each run; check every request.

    Args:
        folder: an empty folder.
        kills: number of kills.
        seed: of all times.
        scene: the way in which the runs are started.
        longest_s: the longest time for which the server holds a reply.
        stop_at: monotonic time from which no other run is started.
    """
    chance, report, number = random.Random(seed), KillReport(), 0
    while report.counts["kills"] < kills and (stop_at is None or time.monotonic() < stop_at):
        number += 1
        api = SlowApi(chance.randrange(10**9), longest_s)
        try:
            run = _KilledRun(folder / f"run-{number}", api, scene, report)
            run.kill(min(KILLS_OF_A_RUN, kills - report.counts["kills"]), chance)
            run.finish()
            run.check()
        finally:
            api.close()
    return report


class _KilledRun:
    """A run with its server, and what was left at each kill.

    Args:
        folder: a new folder.
        api: the server.
        scene: the way in which the run is started.
        report: receives counts and problems.
    """

    def __init__(self, folder: Path, api: SlowApi, scene: Scene, report: KillReport) -> None:
        self._folder = folder
        self._api = api
        self._scene = scene
        self._report = report
        self._prompts = [f"picture {number}" for number in range(ROWS)]
        self._open: set[PaidPost] = set()
        self._left: dict[str, str] = {}
        folder.mkdir(parents=True)

    def kill(self, kills: int, chance: random.Random) -> None:
        """Start processes and kill them, until the run ends or the number of kills is reached."""
        for _ in range(kills):
            self._api.process += 1
            child = start_fork(lambda: run_bulk(self._scene, self._prompts, self._folder, self._api.origin))
            is_early, wait_s = chance.random() < EARLY_KILLS, chance.uniform(0.0, self._api.longest_s)
            if not is_early:
                wait_s *= HOLDS_OF_A_KILL
                while _runs(child) and not self._api.list_open(0.0):
                    time.sleep(0.002)
            until = time.monotonic() + wait_s
            while _runs(child) and time.monotonic() < until:
                time.sleep(0.002)
            if not _runs(child):
                self._check_end(join_fork(child))
                return
            killed_at = time.monotonic()
            kill_fork(child)
            open_posts = self._api.list_open(killed_at)
            self._open |= {*open_posts, *self._api.list_open(killed_at - DELIVERY_S)}
            left = self._find_left()
            self._left |= left
            self._report.counts["kills"] += 1
            self._report.counts["busy"] += len(left) >= BUSY
            self._report.counts["held"] += len(open_posts) >= BUSY

    def finish(self) -> None:
        """Run the same once more, to its end."""
        self._api.process += 1
        child = start_fork(lambda: run_bulk(self._scene, self._prompts, self._folder, self._api.origin))
        self._check_end(join_fork(child))

    def _check_end(self, code: int) -> None:
        """Check the exit code of a process that was not killed."""
        unknown = [row for row in self._read_rows().values() if row[0] == "unknown"]
        if code != (9 if unknown else 0):
            self._problem(f"a process ended with {code}, and {len(unknown)} rows are unknown")

    def _find_left(self) -> dict[str, str]:
        """Return what a killed process has left of each request that it was about to send, by prompt."""
        found: dict[str, str] = {}
        log: list[str] = []
        images = {post.prompt: post.image for post in self._api.list_paid()}
        replies = list((self._folder / "state" / "spool").glob("*/"))
        jobs = [path.read_text() for path in (self._folder / "state" / "jobs").glob("[!.]*.json")]
        with contextlib.suppress(FileNotFoundError):
            token, *log = (self._folder / "out" / "departures.log").read_text().splitlines()
            log = [token.split()[0], *log]
        for prompt, (state, info) in self._read_rows().items():
            if state != "sending" or not info["sent"]:  # the last attempt was free, the next has not begun
                continue
            ((call_id, attempt, _, _),) = info["sent"]
            if log and info.get("log") == log[0] and f"{call_id} {attempt}" not in log:
                if prompt in images:
                    self._problem(f"{prompt}: paid, though its log says that it never left")
                continue
            records = [path for path in replies if path.name.endswith(f"-{call_id[:12]}-{attempt}")]
            if any(call_id in text for text in jobs):
                found[prompt] = "jobs"
            elif any(_is_whole(record, images.get(prompt, b"")) for record in records):
                found[prompt] = "kept"
            else:
                found[prompt] = "unknown"
        return found

    def _read_rows(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Return state and facts of all rows by prompt, from a copy: the next process shall find the file."""
        copy = self._folder / "copy"
        copy.mkdir(exist_ok=True)
        for name in (FILE, f"{FILE}-wal"):
            (copy / name).unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(self._folder / "out" / name, copy / name)
        with contextlib.closing(sqlite3.connect(copy / FILE)) as rows:
            try:
                found = rows.execute("SELECT request, state, info FROM rows").fetchall()
            except sqlite3.OperationalError:  # killed before it made the table
                return {}
        return {
            json.loads(request)["prompt"]: (STATES[state], json.loads(info)) for request, state, info in found
        }

    def check(self) -> None:
        """Check every paid request of the finished run."""
        out, rows, posts = self._folder / "out", self._read_rows(), self._api.list_paid()
        listed: dict[str, list[dict[str, Any]]] = {}
        for line in (out / "metadata.jsonl").read_text().splitlines():
            listed.setdefault(json.loads(line)["prompt"], []).append(json.loads(line))
        counts = self._report.counts
        counts["posts"] += len(posts)
        for prompt in self._prompts:
            state = rows[prompt][0]
            paid = [post for post in posts if post.prompt == prompt]
            left = self._left.get(prompt, "delivered")
            if len(paid) > 1:
                counts["twice"] += 1
                self._problem(f"{prompt}: paid {len(paid)} times, and is {state}")
            elif state == "done":
                counts[left if paid else "none"] += 1
                self._check_images(prompt, paid, listed.get(prompt, []))
                if left == "unknown":
                    self._problem(f"{prompt}: done, though a kill left nothing of it")
            elif state == "unknown":
                counts["unknown" if paid else "unsent"] += 1
                if left != "unknown":
                    self._problem(f"{prompt}: unknown, though a kill left {left}")
                if paid and paid[0] not in self._open:
                    self._problem(f"{prompt}: unknown, though its reply was whole at each kill")
            else:
                self._problem(f"{prompt}: {state} at the end")
        hidden = [path.name for path in out.rglob(".*") if path.is_file()]
        if hidden:
            self._problem(f"hidden files are left: {hidden[:3]}")

    def _check_images(self, prompt: str, paid: list[PaidPost], entries: list[dict[str, Any]]) -> None:
        """Check the image of a request that is done: that of its paid request, listed once."""
        if len(paid) != 1 or len(entries) != 1:
            self._problem(f"{prompt}: done, paid {len(paid)} times, listed {len(entries)} times")
            return
        path = self._folder / "out" / entries[0]["file_name"]
        digest = hashlib.sha256(paid[0].image).hexdigest()
        if entries[0]["sha256"] != digest or path.stem != digest or path.read_bytes() != paid[0].image:
            self._problem(f"{prompt}: its file or its digest is not that of its paid request")

    def _problem(self, text: str) -> None:
        self._report.problems.append(f"{' '.join(self._scene)}, {self._folder.name}: {text}")


def _is_whole(record: Path, image: bytes) -> bool:
    """Return whether a record of the spool has all of a reply: its text, and its image or a job."""
    try:
        reply = json.loads((record / "reply.json.part").read_bytes())
    except (OSError, ValueError):
        return False
    if "data" not in reply:
        return True
    part = record / "0.part"
    data = part.read_bytes() if part.exists() else base64.b64decode(reply["data"][0]["b64_json"])
    return data == image


def _runs(child: int) -> bool:
    """Return whether a child process runs."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def run_bulk(scene: Scene, prompts: list[str], folder: Path, origin: str) -> bool:
    """Carry out a run in this process; exit as the command does: with 0, or with 9 if not all are done."""
    job_requests.FIRST_PAUSE_S, job_requests.LONGEST_PAUSE_S = 0.005, 0.01
    base_url = origin + ("/v1" if scene.provider == "openai" else "")
    model = "gpt-image-2" if scene.provider == "openai" else "flux-2-pro"
    if scene.door == "command":
        os._exit(_run_command(scene, prompts, folder, base_url, model))
    settings = {
        "provider": scene.provider,
        "base_url": base_url,
        "api_key": "key-0123456789",
        "state_folder": folder / "state",
        "model": model,
    }

    def now(service: Any) -> BulkRun:
        with service.bulk(prompts, folder=folder / "out", most_in_flight=IN_FLIGHT) as outcomes:
            for _ in outcomes:
                pass
            run: BulkRun = outcomes.run
            return run

    async def later(service: Any) -> BulkRun:
        async with service.bulk(prompts, folder=folder / "out", most_in_flight=IN_FLIGHT) as outcomes:
            async for _ in outcomes:
                pass
            run: BulkRun = outcomes.run
            return run

    run: BulkRun = ServiceRunner(scene.door).run(
        now if scene.door == "sync" else later, scene.backend, **settings
    )
    os._exit(0 if run.counts["done"] == len(prompts) else 9)


def _run_command(scene: Scene, prompts: list[str], folder: Path, base_url: str, model: str) -> int:
    """Return the exit code of `imgkit bulk`. It starts in this process, which has no other work."""
    from imgkit.cli.run import run

    table, key = folder / "rows.jsonl", folder / "key"
    table.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    key.write_text("key-0123456789")
    key.chmod(0o600)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    options = {
        "output": folder / "out",
        "state-folder": folder / "state",
        "in-flight": IN_FLIGHT,
        "backend": scene.backend,
        "provider": scene.provider,
        "base-url": base_url,
        "model": model,
        "api-key-file": key,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return run(["bulk", str(table), "--no-retry", *words])
