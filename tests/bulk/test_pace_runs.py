"""The pace of whole runs: calls that retry, rows that are refused, and processes that share an account."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.bulk.run_pace import MOST_REFUSALS, MOST_WAVES, choose_limits
from imgkit.catalogue.facts import PaceFacts
from imgkit.core import job_requests
from imgkit.pace import pace as pace_module
from imgkit.pace.pace import PaceLimits
from imgkit.providers.bfl_fake import FakeBfl
from imgkit.providers.fakes import FakeApi, FakeReply, FakeRequest, json_reply
from imgkit.testing.wire_server import WireServer, serve_fake
from tests.bulk.test_bulk import carry_out, open_api
from tests.conftest import ServiceRunner
from tests.support.processes import join_fork, start_fork

Refusal = Callable[[int, str], FakeReply | None]


class BusyApi(FakeApi):
    """OpenAI's API, which may refuse a paid request by its number and prompt, and notes each start.

    Args:
        refuse: returns another answer, or None.
        hold_s: time that each request takes.

    Attributes:
        starts: times of the paid requests.
        busiest: most requests at once.
    """

    def __init__(self, refuse: Refusal = lambda number, prompt: None, hold_s: float = 0.0) -> None:
        super().__init__()
        self._refuse = refuse
        self._hold_s = hold_s
        self._lock = threading.Lock()
        self._open = 0
        self.starts: list[float] = []
        self.busiest = 0

    def answer(self, request: FakeRequest) -> FakeReply:
        """Hold the request, and answer it; other requests are answered meanwhile."""
        with self._lock:
            self.starts.append(time.monotonic())
            self._open += 1
            self.busiest = max(self.busiest, self._open)
            number = len(self.starts)
        time.sleep(self._hold_s)
        with self._lock:
            self._open -= 1
        found = self._refuse(number, request.json()["prompt"])
        image = {"b64_json": base64.b64encode(self.paint("a fox", 8, 8)).decode()}
        return found or json_reply(200, {"data": [image] * request.json().get("n", 1)})


def limit(status: int = 429, **headers: str) -> FakeReply:
    """Return a refusal for now."""
    return json_reply(status, {"error": {"message": "Too many requests.", "code": "rate_limit"}}, **headers)


def read_state(folder: Path) -> dict[str, Any]:
    """Return the state that the runs of a state folder have left."""
    [path] = (folder / "state" / "pace").glob("*.json")
    state: dict[str, Any] = json.loads(path.read_text().splitlines()[0])
    return state


@contextmanager
def quick_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make pauses so short that a test can wait for them."""
    with monkeypatch.context() as changed:
        for name in ("LONGEST_PAUSE_S", "LONGEST_BACKOFF_S", "LONGEST_FAILURE_PAUSE_S", "SHARED_LOOK_S"):
            changed.setattr(pace_module, name, 0.002)
        yield


def test_a_refusal_that_retries_hide_slows_the_run(
    flavor: ServiceRunner, http_backend: str, tmp_path: Path
) -> None:
    """A call that succeeds after a refusal leaves its mark on the pace, and the state has no key."""
    api = BusyApi(lambda number, prompt: limit(retry_after="0.01") if number == 1 else None)
    with serve_fake(api) as server:
        found, run = carry_out(flavor, ["a fox", "a hen"], tmp_path / "out", http_backend,
                               retry=imgkit.RetryPlugin(), **open_api(server, tmp_path))  # fmt: skip
    assert [outcome.state for outcome in found] == ["done"] * 2
    state = read_state(tmp_path)
    assert state["threshold"] >= 1
    assert state["refused_at"] > 0
    assert state["runs"] == {}
    assert run.counts["done"] == 2
    assert len(api.starts) == 3


def test_a_long_wait_does_not_fail_a_row(
    flavor: ServiceRunner, http_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that the server refuses for longer than a call waits has another turn in the same run."""
    api = BusyApi(lambda number, prompt: limit(retry_after="300") if number <= 3 else None)
    with serve_fake(api) as server, quick_pauses(monkeypatch):
        found, run = carry_out(flavor, ["a fox", "a hen"], tmp_path / "out", http_backend,
                               retry=imgkit.RetryPlugin(), **open_api(server, tmp_path))  # fmt: skip
    assert sorted((outcome.id, outcome.state) for outcome in found) == [("1", "done"), ("2", "done")]
    assert run.counts["done"] == 2
    assert len(api.starts) == 5


def test_a_server_that_refuses_all(
    flavor: ServiceRunner, http_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refusals without end stop the run with their cause; its rows wait for the next one."""
    api = BusyApi(lambda number, prompt: limit())
    prompts = [f"picture {number}" for number in range(40)]
    with serve_fake(api) as server, quick_pauses(monkeypatch):
        _, run = carry_out(flavor, prompts, tmp_path / "out", http_backend, retry=False,
                           **open_api(server, tmp_path))  # fmt: skip
    assert isinstance(run.stopped, imgkit.RateLimitError)
    assert run.counts["waiting"] == 40
    assert MOST_WAVES <= len(api.starts) <= 2 * MOST_WAVES


def test_one_row_that_is_always_refused(
    flavor: ServiceRunner, http_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that the server refuses again and again fails at last; the others are done."""
    api = BusyApi(lambda number, prompt: limit() if prompt == "bad" else None)
    prompts = ["bad", *(f"picture {number}" for number in range(30))]
    with serve_fake(api) as server, quick_pauses(monkeypatch):
        found, run = carry_out(flavor, prompts, tmp_path / "out", http_backend, retry=False,
                               **open_api(server, tmp_path))  # fmt: skip
    assert (run.counts["done"], run.counts["failed"]) == (30, 1)
    assert len(api.starts) == 30 + MOST_REFUSALS
    assert len(found) == 31


@pytest.mark.parametrize("status", [401, 402])
def test_a_stopped_run_waits_for_no_retry(
    flavor: ServiceRunner, http_backend: str, status: int, tmp_path: Path
) -> None:
    """A dead key ends the pause of another row's call, which sends nothing more, and waits."""
    both = threading.Barrier(2)

    def refuse(number: int, prompt: str) -> FakeReply | None:
        both.wait(30)  # a pause that the server asks for would hold the other request back
        if prompt == "slow":
            return limit(retry_after="100")
        time.sleep(0.04)  # the other call has begun its pause
        return json_reply(status, {"error": {"message": "no", "code": "invalid_api_key"}})

    api, started = BusyApi(refuse), time.monotonic()
    with serve_fake(api) as server:
        found, run = carry_out(flavor, ["slow", "bad", "rest"], tmp_path / "out", http_backend, timeout_s=300,
                               retry=imgkit.RetryPlugin(), **open_api(server, tmp_path))  # fmt: skip
    assert time.monotonic() - started < 50
    assert isinstance(run.stopped, imgkit.ApiError)
    assert run.stopped.status == status
    assert run.counts["waiting"] == 3
    assert len(api.starts) == 2
    assert sorted(outcome.state for outcome in found) == ["waiting"] * 2


def test_ten_failures_of_the_server(
    flavor: ServiceRunner, http_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten equal failures of the server in a row stop the run with their cause."""
    failure = json_reply(500, {"error": {"message": "The server had an error.", "type": "server_error"}})
    api = BusyApi(lambda number, prompt: failure)
    prompts = [f"picture {number}" for number in range(40)]
    with serve_fake(api) as server, quick_pauses(monkeypatch):
        _, run = carry_out(flavor, prompts, tmp_path / "out", http_backend, retry=False,
                           **open_api(server, tmp_path))  # fmt: skip
    assert isinstance(run.stopped, imgkit.ServerError)
    assert len(api.starts) <= 12
    assert run.counts["waiting"] >= 28


def test_limits_in_replies(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> None:
    """No request leaves before the reset that a reply tells, once no request is left."""
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "300ms"}
    image = {"b64_json": base64.b64encode(FakeApi().paint("a fox", 8, 8)).decode()}
    api = BusyApi(lambda number, prompt: FakeReply(
        200, {"content-type": "application/json", **headers}, json.dumps({"data": [image]}).encode()
    ) if number == 1 else None)  # fmt: skip
    with serve_fake(api) as server:
        carry_out(flavor, ["a fox", "a hen"], tmp_path / "out", http_backend, most_in_flight=1,
                  **open_api(server, tmp_path))  # fmt: skip
    assert api.starts[1] - api.starts[0] >= 0.29


class CountedBfl(FakeBfl):
    """The API of Black Forest Labs, which counts unfinished tasks."""

    def __init__(self) -> None:
        super().__init__(polls=1)
        self.open = self.busiest = 0

    def handle(self, request: FakeRequest) -> FakeReply:
        """Answer a request. The fake holds a lock meanwhile."""
        self.open += (request.method == "POST") - request.path.startswith("/results/")
        self.busiest = max(self.busiest, self.open)
        return super().handle(request)


@pytest.mark.parametrize("most", [1, 3])
def test_jobs_stay_in_flight(
    flavor: ServiceRunner, http_backend: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that the provider has accepted is in flight until its image is there, and each part is a job."""
    monkeypatch.setattr(job_requests, "FIRST_PAUSE_S", 0.005)
    monkeypatch.setattr(pace_module, "SHARED_LOOK_S", 0.002)
    api = CountedBfl()
    rows = [{"prompt": f"picture {number}", "n": 2} for number in range(4)]
    with serve_fake(api) as server:
        settings = {**open_api(server, tmp_path), "base_url": server.origin}
        _, run = carry_out(flavor, rows, tmp_path / "out", http_backend, provider="bfl", most_in_flight=most,
                           **settings)  # fmt: skip
    assert run.counts["done"] == 4
    assert api.open == 0
    assert api.busiest == most


def test_two_processes_keep_the_limits_together(tmp_path: Path) -> None:
    """Two runs of one account have the requests in flight and the starts of one, and neither starves."""
    api = BusyApi(hold_s=0.03)

    def carry_out_run(server: WireServer, name: str) -> bool:
        prompts = [f"{name} {number}" for number in range(12)]
        with (
            imgkit.ImageService("requests", **open_api(server, tmp_path)) as images,
            images.bulk(prompts, folder=tmp_path / name, most_in_flight=3, per_minute=2400) as outcomes,
        ):
            return all(outcome.state == "done" for outcome in outcomes)

    with serve_fake(api) as server:
        children = [start_fork(lambda name=name: carry_out_run(server, name)) for name in ("a", "b")]  # type: ignore[misc]
        assert [join_fork(child) for child in children] == [0, 0]
    assert len(api.starts) == 24
    assert api.busiest <= 3
    # A pace of its own would let each start its 12 requests within 0.3 s.
    assert max(api.starts) - min(api.starts) > 0.45
    assert read_state(tmp_path)["runs"] == {}


def test_limits_come_from_options_and_facts() -> None:
    """An option wins over a fact about the provider, which wins over the default."""
    facts = PaceFacts(requests_in_flight=24, images_in_flight=10, requests_per_minute=80)
    assert choose_limits(None) == PaceLimits(16, 0, 0, 0)
    assert choose_limits(facts) == PaceLimits(24, 10, 80, 0)
    assert choose_limits(facts, 4, 30, 60) == PaceLimits(4, 10, 30, 60)
