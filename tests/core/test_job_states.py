"""The states of a job: each cell of the tables in docs/architecture.md, on both services and backends."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import imgkit
from imgkit.core import job_requests
from imgkit.plugins import hookimpl
from imgkit.plugins.events import JobProgress
from imgkit.providers.fakes import LOST, FakeReply
from imgkit.testing import png
from tests.conftest import ServiceRunner
from tests.support.job_scenes import (
    CALL_S,
    LONG_S,
    Found,
    HeldApi,
    HeldBfl,
    HeldComfyUI,
    Scene,
    describe,
    open_scene,
)
from tests.support.processes import TIMEOUT_S

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
BUSY = FakeReply(503)
HANDLE = "sending, with a handle"


class Row(NamedTuple):
    """A state of the first table; the traces that each column leaves.

    Attributes:
        deadline, ctrl_c, kill, close: after the interruption.
        resume: after a deadline, and another service that resumes.
        joined: after a deadline, and an equal call that waited for it.
        held: while the call is in the state: budget and lease.
        again, again_after_kill: after Ctrl-C or `kill -9`, and a later equal call.
    """

    deadline: Found
    ctrl_c: Found
    kill: Found
    close: Found
    resume: Found
    joined: Found
    held: Found
    again: Found
    again_after_kill: Found


NAMES = "interrupted, names the job"
DELIVERED = Found("response", 1, "", 3, 0, "entry")


def pending(phase: str) -> Row:
    """Return the row of a state in which the provider works, or has worked."""
    left = Found("JobPendingError", 1, phase, 0, 5)
    return Row(
        deadline=left,
        ctrl_c=left._replace(outcome=NAMES),
        kill=left._replace(outcome="killed", lease="left"),
        close=left,
        resume=DELIVERED,
        joined=DELIVERED,
        held=left._replace(outcome="held", lease="sent"),
        again=DELIVERED,
        again_after_kill=DELIVERED,
    )


STATES = {
    "reserved": Row(
        deadline=Found("NotSentError", 0),
        ctrl_c=Found("interrupted", 0),
        kill=Found("killed", 0, "", 5, 0, "left"),
        close=Found("ServiceClosedError", 0),
        resume=Found("no job", 0),
        joined=Found("NotSentError", 0),
        held=Found("held", 0, "", 0, 5, "sent"),
        again=DELIVERED,
        again_after_kill=Found("OutcomeUnknownError", 0, "", 5),
    ),
    "sending": Row(
        deadline=Found("OutcomeUnknownError", 1, "", 5),
        ctrl_c=Found("interrupted", 1, "", 5),
        kill=Found("killed", 1, "", 5, 0, "left"),
        close=Found("OutcomeUnknownError", 1, "", 5),
        resume=Found("no job", 1, "", 5),
        joined=Found("OutcomeUnknownError", 1, "", 5),
        held=Found("held", 1, "", 0, 5, "sent"),
        again=Found("response", 2, "", 8, 0, "entry"),
        again_after_kill=Found("OutcomeUnknownError", 1, "", 5),
    ),
    HANDLE: Row(
        deadline=Found("OutcomeUnknownError", 1, "sending", 5),
        ctrl_c=Found(NAMES, 1, "sending", 5),
        kill=Found("killed", 1, "sending", 5, 0, "left"),
        close=Found("OutcomeUnknownError", 1, "sending", 5),
        resume=Found("response", 1, "", 5, 0, "entry"),
        joined=Found("OutcomeUnknownError", 1, "sending", 5),
        held=Found("held", 1, "sending", 0, 5, "sent"),
        again=Found("response", 1, "", 5, 0, "entry"),
        again_after_kill=Found("response", 1, "", 5, 0, "entry"),
    ),
    "accepted": pending("accepted"),
    "ready": pending("ready"),
    "delivered": Row(
        deadline=DELIVERED,
        ctrl_c=DELIVERED._replace(outcome="interrupted"),
        kill=DELIVERED._replace(outcome="killed"),
        close=DELIVERED,
        resume=DELIVERED._replace(outcome="no job"),
        joined=DELIVERED._replace(outcome="cached"),
        held=DELIVERED._replace(outcome="held"),
        again=DELIVERED._replace(outcome="cached"),
        again_after_kill=DELIVERED._replace(outcome="cached"),
    ),
}
COLUMNS = {
    "deadline": "deadline",
    "Ctrl-C, cancelled task": "ctrl_c",
    "`kill -9`": "kill",
    "`service.close`": "close",
    "another process": "resume",
    "equal call": "joined",
    "budget": "held",
    "cache's lease": "held",
}


class End(NamedTuple):
    """An end of the second table: the traces of the call, and those after a later equal call."""

    call: Found
    again: Found


FREE = Found("response", 2, "", 3, 0, "entry")
ENDS = {
    "refused": End(Found("ModerationBlockedError", 1), FREE),
    "failed, billed": End(Found("JobFailedError", 1, "", 5), FREE._replace(spent=8)),
    "unknown": End(Found("OutcomeUnknownError", 1, "", 5), FREE._replace(spent=8)),
    "expired": End(Found("JobFailedError", 1), FREE),
    "cancelled": End(Found("JobPendingError", 1, "accepted", 0, 5), FREE._replace(spent=5)),
}
END_COLUMNS = ("the call", "another process", "equal call", "budget", "cache's lease")


@pytest.fixture
def scene(
    request: pytest.FixtureRequest,
    flavor: ServiceRunner,
    http_backend: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Scene]:
    """A scene with the API of Black Forest Labs, or with ComfyUI where a test needs more of an API."""
    state = request.node.callspec.params.get("state", "")
    needs_more = state in (HANDLE, "cancelled") or "upload" in request.node.name
    fake: HeldApi = HeldComfyUI() if needs_more else HeldBfl()
    with open_scene(fake, tmp_path, flavor, http_backend, monkeypatch) as opened:
        yield opened


def name_moment(state: str) -> str:
    """Return the state of a scene for the row of a table."""
    return state.partition(",")[0]


@pytest.mark.parametrize("state", STATES)
def test_a_deadline_and_another_process(scene: Scene, state: str) -> None:
    """A deadline leaves in each state the traces of the table, and another service finds what is left."""
    row = STATES[state]
    outcome = scene.interrupt(name_moment(state), scene.pass_deadline)
    assert scene.find_traces(outcome) == row.deadline
    assert scene.find_traces(scene.resume()) == row.resume


@pytest.mark.parametrize("state", STATES)
def test_ctrl_c(scene: Scene, state: str) -> None:
    """Ctrl-C and a cancelled task keep their type; a later equal call pays again only where none can tell."""
    row = STATES[state]
    outcome = scene.interrupt(name_moment(state), scene.press_ctrl_c)
    assert scene.find_traces(outcome) == row.ctrl_c
    assert scene.find_traces(scene.call()) == row.again


@pytest.mark.parametrize("state", STATES)
def test_close(scene: Scene, state: str) -> None:
    """`close` from another thread or task ends a call in each state, and loses no job."""
    row = STATES[state]
    outcome = scene.interrupt(name_moment(state), scene.close_service)
    assert scene.find_traces(outcome) == row.close
    assert scene.find_traces(scene.call()) == row.again


@pytest.mark.parametrize("state", STATES)
def test_an_equal_call(scene: Scene, state: str) -> None:
    """An equal call that waits for a call goes on, behind its deadline, as the table says."""
    joined: list[str] = []
    scene.interrupt(name_moment(state), lambda: scene.join(scene.pass_deadline, joined))
    for thread in scene.threads:
        thread.join(TIMEOUT_S)
    assert scene.find_traces(joined[0]) == STATES[state].joined


@pytest.mark.parametrize("state", STATES)
def test_budget_and_lease(scene: Scene, state: str) -> None:
    """Budget and lease belong to the call in each state, and to nobody behind it."""
    held: list[Found] = []

    def look() -> None:
        held.append(scene.find_traces("held"))
        scene.fake.released.set()

    outcome = scene.interrupt(name_moment(state), look)
    assert held == [STATES[state].held]
    assert scene.find_traces(outcome) == DELIVERED._replace(spent=5 if state == HANDLE else 3)


@pytest.mark.parametrize("state", STATES)
def test_kill(flavor: ServiceRunner, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process leaves what an equal call of another process needs to pay at most once."""
    row = STATES[state]
    fake: HeldApi = HeldComfyUI() if state == HANDLE else HeldBfl()
    is_even = (list(STATES).index(state) + (flavor.flavor == "sync")) % 2 == 0
    backend = "requests" if is_even else "aiohttp"
    with open_scene(fake, tmp_path, flavor, backend, monkeypatch) as scene:
        assert scene.find_traces(scene.kill(name_moment(state))) == row.kill
        assert scene.find_traces(scene.call()) == row.again_after_kill


@pytest.mark.parametrize("state", ENDS)
def test_ends(scene: Scene, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An end leaves no job and no lease, spends what may be billed, and an equal call sends anew."""
    fake = scene.fake
    scenarios = {"refused": "refused", "unknown": "lost_submit"}
    fake.scenario = scenarios.get(state, "success")
    if state == "failed, billed":
        monkeypatch.setattr(imgkit.JobFailedError, "maybe_billed", True)
        fake.failures["accepted"] = [FakeReply(200, {}, b'{"id": "job-1", "status": "Error"}')]
    elif state == "expired":
        monkeypatch.setattr(job_requests, "UNKNOWN_AT_FIRST_S", 0.0)
        fake.failures["accepted"] = [FakeReply(200, {}, b'{"id": "job-1", "status": "Task not found"}')]
    is_cancelled = state == "cancelled"
    outcome = scene.interrupt("accepted", scene.pass_deadline) if is_cancelled else scene.call()
    assert scene.find_traces(outcome) == ENDS[state].call
    if is_cancelled:
        (job,) = scene.run(lambda service: service.list_jobs())
        assert scene.run(lambda service: service.cancel_job(job, timeout_s=LONG_S)) is None
        assert scene.find_traces("cancelled") == Found("cancelled", 1)
    fake.scenario = "success"
    assert scene.resume() == "no job"
    assert scene.find_traces(scene.call()) == ENDS[state].again


def read_tables() -> list[tuple[str, str]]:
    """Return row and column of each cell with a text in the tables of states."""
    section = PAGE.read_text().partition("## Jobs:")[2].partition("\n## ")[0]
    cells: list[tuple[str, str]] = []
    for table in re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE):
        header, _, *rows = ([text.strip() for text in line.split("|")[1:-1]] for line in table.splitlines())
        cells += [(row[0], name) for row in rows for name, text in zip(header[1:], row[1:], strict=True)]
        assert all(text not in ("", "–") for row in rows for text in row)
    return cells


def test_each_cell_is_tested() -> None:
    """The tables of the page have the cells that these tests check, and no others."""
    tested = [(state, column) for state in STATES for column in COLUMNS]
    assert set(COLUMNS.values()) == {*Row._fields} - {"again", "again_after_kill"}
    tested += [(state, column) for state in ENDS for column in END_COLUMNS]
    assert read_tables() == tested


@pytest.mark.parametrize("failures", [3, 4])
def test_downloads_have_four_tries(scene: Scene, failures: int) -> None:
    """A download that fails four times leaves the job; nothing is submitted again."""
    scene.fake.failures["ready"] = [BUSY, LOST, BUSY, LOST][:failures]
    found = scene.find_traces(scene.call())
    assert scene.fake.received["ready"] == 4
    if failures == 3:
        assert found == DELIVERED
    else:
        assert found == STATES["ready"].deadline
        scene.fake.failures["ready"] = [BUSY]
        assert scene.find_traces(scene.resume()) == DELIVERED
        assert scene.fake.received["ready"] == 6


def edit(service: Any, timeout_s: float = CALL_S) -> Any:
    """Make a call that uploads an image first."""
    return service.create_image_edit(png(16, 16), "add a hat", timeout_s=timeout_s)


@pytest.mark.parametrize("failures", [3, 4])
def test_uploads_have_four_tries(scene: Scene, failures: int) -> None:
    """An upload that fails four times ends the call: nothing is sent and nothing is paid."""
    scene.fake.failures["uploading"] = [BUSY, LOST, BUSY, LOST][:failures]
    found = scene.find_traces(describe(lambda: scene.run(edit)))
    assert scene.fake.received["uploading"] == 4
    assert found == (Found("response", 1, "", 5, 0, "entry") if failures == 3 else Found("NotSentError", 0))


@pytest.mark.parametrize("how", ["deadline", "ctrl-c", "close"])
def test_interrupted_uploads(scene: Scene, how: str) -> None:
    """An interrupted upload pays nothing."""
    act, outcome = {
        "deadline": (scene.pass_deadline, "NotSentError"),
        "ctrl-c": (scene.press_ctrl_c, "interrupted"),
        "close": (scene.close_service, "ServiceClosedError"),
    }[how]
    assert scene.find_traces(scene.interrupt("uploading", act, edit)) == Found(outcome, 0)


def test_a_resume_without_a_key(scene: Scene) -> None:
    """A service without a key leaves the job as it is."""
    scene.interrupt("accepted", scene.pass_deadline)
    (job,) = scene.run(lambda service: service.list_jobs())

    def find_key() -> str:
        raise RuntimeError("The vault is closed.")

    resume = partial(scene.run, lambda service: service.resume(job, timeout_s=LONG_S), api_key=find_key)
    assert scene.find_traces(describe(resume)) == STATES["accepted"].deadline


def test_close_ends_the_pause(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """`close` ends the pause between two polls, also in the parts of a call, and the job stays."""
    for name in ("FIRST_PAUSE_S", "LONGEST_PAUSE_S"):
        monkeypatch.setattr(job_requests, name, CALL_S / 2)

    class Close:
        @hookimpl
        def imgkit_on_event(self, event: object) -> None:
            if isinstance(event, JobProgress):
                seen.append(event)
                if len(seen) == 2:
                    threading.Thread(target=scene.close_service).start()

    seen: list[object] = []
    began = time.perf_counter()
    outcome = scene.interrupt(
        "", lambda: None, lambda service: service.create_image("a red fox", n=2), Close()
    )
    assert scene.find_traces(outcome) == Found("JobPendingError", 2, "accepted accepted", 0, 10)
    assert time.perf_counter() - began < CALL_S / 4


def test_ctrl_c_ends_the_parts_of_a_call(scene: Scene) -> None:
    """Ctrl-C ends the threads of a call with several jobs, and names both jobs."""
    work = lambda service: service.create_image("a red fox", n=2, timeout_s=CALL_S)  # noqa: E731
    scene.fake.polls, scene.fake.calls = 10**9, 2
    outcome = scene.interrupt("accepted", scene.press_ctrl_c, work)
    assert scene.find_traces(outcome) == Found(NAMES, 2, "accepted accepted", 0, 10)
    until = time.perf_counter() + TIMEOUT_S
    while any(thread.name.startswith("imgkit-part") for thread in threading.enumerate()):
        assert time.perf_counter() < until
        time.sleep(0.001)
