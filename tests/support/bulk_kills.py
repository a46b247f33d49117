"""Runs that are killed while requests are open, and what must be true of every paid request afterwards."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from imgkit.bulk.bulk_run import BulkRun
from imgkit.bulk.manifest import Manifest
from imgkit.core import job_requests
from imgkit.providers.bfl_fake import FakeBfl
from tests.support.pictures import noise
from tests.support.processes import join_fork, kill_fork, start_fork

ROWS, KILLS_OF_A_RUN = 120, 6

DELIVERY_S = 0.5
"""Time in which a client reads a reply that the server has written, on a busy machine."""


class SlowApi:
    """An API that counts paid requests, and holds its replies for a time.

    Args:
        seed: of the times.
        longest_s: the longest time.

    Attributes:
        paid: number of paid requests by prompt.
        ended: times at which replies were handed to the system, by prompt.
    """

    def __init__(self, seed: int, longest_s: float) -> None:
        self._random = random.Random(seed)
        self._longest_s = longest_s
        self._guard = threading.Lock()
        self._fake = FakeBfl(paint=lambda prompt, width, height: draw(prompt), polls=1)
        self.paid: dict[str, int] = {}
        self.ended: dict[str, float] = {}
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                api._answer(self, "POST", body)

            def do_GET(self) -> None:
                api._answer(self, "GET", b"")

            def log_message(self, *args: Any) -> None:
                """Keep quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Expect clients that die."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler, method: str, body: bytes) -> None:
        prompt = str(json.loads(body)["prompt"]) if body else ""
        if prompt:
            with self._guard:
                self.paid[prompt] = self.paid.get(prompt, 0) + 1
                hold_s = self._random.uniform(0, self._longest_s)
            time.sleep(hold_s)
        if handler.path.startswith("/v1/images/"):
            reply = json.dumps({"data": [{"b64_json": base64.b64encode(draw(prompt)).decode()}]}).encode()
            status, media_type = 200, "application/json"
        else:
            headers = {name.lower(): value for name, value in handler.headers.items()}
            answer = self._fake.answer_parts(method, f"{self.origin}{handler.path}", headers, body)
            status, reply, media_type = answer.status, answer.body, answer.headers["content-type"]
        try:
            handler.send_response(status)
            handler.send_header("content-type", media_type)
            handler.send_header("content-length", str(len(reply)))
            handler.end_headers()
            handler.wfile.write(reply)
        finally:
            with self._guard:
                self.ended.setdefault(prompt, time.monotonic())

    def list_open(self, since: float) -> set[str]:
        """Return the prompts whose replies the client may not have had at a time: bytes are on their way."""
        with self._guard:
            return {prompt for prompt in self.paid if self.ended.get(prompt, since) >= since - DELIVERY_S}


def draw(prompt: str) -> bytes:
    """Return the image of a prompt; no two prompts have the same."""
    return noise(int(hashlib.sha256(prompt.encode()).hexdigest()[:8], 16), 12)


class KillReport:
    """What a killed run has shown.

    Attributes:
        kills: number of kills.
        busy_kills: kills with eight or more requests open.
        problems: what must not be.
        unknown: rows whose outcome is unknown at the end.
    """

    def __init__(self) -> None:
        self.kills = self.busy_kills = self.unknown = 0
        self.problems: list[str] = []


def kill_runs(
    folder: Path, kills: int, *, seed: int, flavor: Any, backend: str, provider: str, longest_s: float = 0.04
) -> KillReport:
    """Kill runs of many requests until the number of kills is reached; finish each run; check every request.

    Args:
        folder: an empty folder.
        kills: number of kills.
        seed: of all times.
        flavor: runner of the service.
        backend, provider: of the service.
        longest_s: the longest time for which the server holds a reply.
    """
    chance, report, number = random.Random(seed), KillReport(), 0
    while report.kills < kills:
        number += 1
        api = SlowApi(chance.randrange(10**9), longest_s)
        try:
            _kill_run(folder / f"run-{number}", kills, chance, report, api, flavor, backend, provider)
        finally:
            api.close()
    return report


def _kill_run(
    folder: Path,
    kills: int,
    chance: random.Random,
    report: KillReport,
    api: SlowApi,
    flavor: Any,
    backend: str,
    provider: str,
) -> None:
    prompts = [f"picture {number}" for number in range(ROWS)]
    settings = {
        "provider": provider,
        "base_url": api.origin + ("/v1" if provider == "openai" else ""),
        "api_key": "key-0123456789",
        "state_folder": folder / "state",
        "model": "gpt-image-2" if provider == "openai" else "flux-2-pro",
        "allow_insecure": True,
    }
    left_open: set[str] = set()
    for _ in range(min(KILLS_OF_A_RUN, kills - report.kills)):
        child = start_fork(lambda: run_bulk(flavor, prompts, folder / "out", backend, settings))
        before = sum(api.paid.values())
        until = time.monotonic() + chance.uniform(0.0, 6) * api._longest_s
        while time.monotonic() < until and _runs(child):
            time.sleep(0.002)
            if sum(api.paid.values()) == before:
                until = max(until, time.monotonic() + 0.02)  # nothing was sent yet
        if not _runs(child):
            join_fork(child)
            break
        killed_at = time.monotonic()
        kill_fork(child)
        open_now = api.list_open(killed_at)
        left_open |= open_now
        report.kills += 1
        report.busy_kills += len(open_now) >= 8
    child = start_fork(lambda: run_bulk(flavor, prompts, folder / "out", backend, settings))
    if join_fork(child) not in (0, None):
        report.problems.append("the last run did not end well")
    _check(folder / "out", prompts, report, api, left_open)


def _runs(child: int) -> bool:
    """Return whether a child process runs."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def run_bulk(flavor: Any, prompts: list[str], folder: Path, backend: str, settings: dict[str, Any]) -> bool:
    """Carry out a run; return whether all its requests ended."""
    job_requests.FIRST_PAUSE_S, job_requests.LONGEST_PAUSE_S = 0.005, 0.01

    def now(service: Any) -> BulkRun:
        with service.bulk(prompts, folder=folder, most_in_flight=12) as outcomes:
            for _ in outcomes:
                pass
            run: BulkRun = outcomes.run
            return run

    async def later(service: Any) -> BulkRun:
        async with service.bulk(prompts, folder=folder, most_in_flight=12) as outcomes:
            async for _ in outcomes:
                pass
            run: BulkRun = outcomes.run
            return run

    run: BulkRun = flavor.run(now if flavor.flavor == "sync" else later, backend, **settings)
    return run.counts["waiting"] == 0


def _check(folder: Path, prompts: list[str], report: KillReport, api: SlowApi, left_open: set[str]) -> None:
    """Check every paid request of a finished run."""
    manifest = Manifest(folder)
    listed = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    by_id: dict[str, list[dict[str, Any]]] = {}
    for entry in listed:
        by_id.setdefault(entry["id"], []).append(entry)
    for number, prompt in enumerate(prompts, 1):
        row, paid = manifest.find(str(number)), api.paid.get(prompt, 0)
        state = "missing" if row is None else row.state
        if paid > 1:
            report.problems.append(f"{prompt}: paid {paid} times ({state})")
        entries = by_id.get(str(number), [])
        if state == "done":
            digest = hashlib.sha256(draw(prompt)).hexdigest()
            files = [folder / entry["file_name"] for entry in entries]
            if [entry["sha256"] for entry in entries] != [digest]:
                report.problems.append(f"{prompt}: is listed {len(entries)} times, or with another digest")
            elif files[0].read_bytes() != draw(prompt):
                report.problems.append(f"{prompt}: its file has other bytes")
            if paid != 1:
                report.problems.append(f"{prompt}: done, but paid {paid} times")
        elif state == "unknown":
            report.unknown += 1
            if prompt not in left_open and paid:
                report.problems.append(f"{prompt}: unknown, though its reply was whole at each kill")
        else:
            report.problems.append(f"{prompt}: {state} at the end")
    manifest.close()
