"""Jobs: one submit whatever happens, and images that any process can collect."""

from __future__ import annotations

import copy
import json
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit import Cost, Job, JobPendingError
from imgkit.cli.run import run
from imgkit.core import job_requests
from imgkit.core.job_keeper import apply_update
from imgkit.core.resume import find_jobs, resume_jobs
from imgkit.jobs.store import JobStore
from imgkit.plugins import hookimpl
from imgkit.plugins.events import JobProgress
from imgkit.providers import JobUpdate
from imgkit.providers.bfl_fake import FakeBfl
from imgkit.providers.fakes import FakeReply, json_reply
from imgkit.runtime.flow import RunBlocking, SendRequest, advance
from imgkit.testing.wire_server import WireServer, serve_fake
from tests.conftest import ServiceRunner
from tests.support.processes import TIMEOUT_S, kill_fork, start_fork

SUBMIT = "POST /v1/flux-2-pro"
NEVER = 10**9
NAN = float("nan")
GOOD_JOB = Job(id="a-0", provider="bfl", base_url="https://api.bfl.ai", operation="create_image").to_json()
KEY = "bfl-key-0123456789"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between polls, so that no test waits for them."""
    monkeypatch.setattr(job_requests, "FIRST_PAUSE_S", 0.005)
    monkeypatch.setattr(job_requests, "LONGEST_PAUSE_S", 0.01)


@pytest.fixture
def fake() -> FakeBfl:
    """The API of Black Forest Labs."""
    return FakeBfl()


@pytest.fixture
def server(fake: FakeBfl) -> Iterator[WireServer]:
    """The API on loopback."""
    with serve_fake(fake) as running:
        yield running


def open_with(server: WireServer, folder: Path, **settings: Any) -> dict[str, Any]:
    """Return the arguments of a service with a state folder."""
    return {
        "provider": "bfl",
        "base_url": server.origin,
        "api_key": KEY,
        "state_folder": folder / "state",
        **settings,
    }


def create(timeout_s: float | None = None, **fields: Any) -> Callable[[Any], Any]:
    """Return a call."""
    return lambda service: service.create_image("a red fox", timeout_s=timeout_s, **fields)


def list_records(folder: Path) -> list[Path]:
    """Return the files of the job records."""
    return sorted((folder / "state" / "jobs").glob("*.json"))


def make_pending(
    flavor: ServiceRunner, backend: str, fake: FakeBfl, settings: dict[str, Any], **fields: Any
) -> JobPendingError:
    """Make a call whose deadline would pass before the next poll; then let the job end."""
    fake.polls = 0
    with pytest.MonkeyPatch.context() as patch, pytest.raises(JobPendingError) as caught:
        patch.setattr(job_requests, "FIRST_PAUSE_S", NEVER)
        patch.setattr(job_requests, "LONGEST_PAUSE_S", NEVER)
        flavor.run(create(**fields), backend, **settings)
    return caught.value


def test_a_job_becomes_a_response(
    flavor: ServiceRunner, http_backend: str, fake: FakeBfl, server: WireServer, tmp_path: Path
) -> None:
    """Submits once, polls until the image is there, saves it with its cost, and keeps no record."""
    seen: list[JobProgress] = []

    class Watch:
        @hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            if isinstance(event, JobProgress):
                seen.append(event)

    settings = open_with(server, tmp_path, plugins=[Watch()])
    response = flavor.run(create(save_to=tmp_path / "fox.png"), http_backend, **settings)
    assert response[0].path == tmp_path / "fox.png"
    assert response.cost.amount == Decimal("0.03")
    assert response.extra == {"seed": 4111222333}
    assert fake.count[SUBMIT] == 1
    assert [event.note for event in seen] == ["", "Pending", "Generating"]
    assert seen[-1].progress == 0.5
    sidecar = json.loads((tmp_path / "fox.png.json").read_text())
    assert sidecar["prompt"] == "a red fox"
    assert list_records(tmp_path) == []


@pytest.mark.parametrize("way", ["error", "job", "json", "list"])
def test_another_service_collects(
    flavor: ServiceRunner, http_backend: str, fake: FakeBfl, server: WireServer, tmp_path: Path, way: str
) -> None:
    """A deadline leaves the job pending; any later service delivers what the call would have delivered."""
    settings = open_with(server, tmp_path)
    error = make_pending(flavor, http_backend, fake, settings, save_to=tmp_path / "fox.png")
    assert error.maybe_billed
    assert not (tmp_path / "fox.png").exists()
    (record,) = list_records(tmp_path)
    assert KEY not in record.read_text()
    source: Any = {
        "error": error,
        "job": error.jobs[0],
        "json": Job.from_json(error.jobs[0].to_json()),
        "list": flavor.run(lambda service: service.list_jobs(), http_backend, **settings),
    }[way]
    response = flavor.run(lambda service: service.resume(source), http_backend, **settings)
    assert response[0].path == tmp_path / "fox.png"
    assert json.loads((tmp_path / "fox.png.json").read_text())["prompt"] == "a red fox"
    assert response.cost.amount == Decimal("0.03")
    assert fake.count[SUBMIT] == 1
    assert list_records(tmp_path) == []


def test_without_a_state_folder(
    flavor: ServiceRunner, http_backend: str, fake: FakeBfl, server: WireServer, tmp_path: Path
) -> None:
    """The error itself carries the job where nothing is kept on disk."""
    settings = open_with(server, tmp_path, state_folder=None)
    error = make_pending(flavor, http_backend, fake, settings)
    response = flavor.run(lambda service: service.resume(error), http_backend, **settings)
    assert len(response) == 1
    assert fake.count[SUBMIT] == 1


def test_some_jobs_of_a_call_are_pending(
    flavor: ServiceRunner, http_backend: str, fake: FakeBfl, server: WireServer, tmp_path: Path
) -> None:
    """Returns the images that are there; resuming the response adds the others in their places."""
    handle = fake.handle

    def hold_second(request: Any) -> Any:
        fake.polls = NEVER if request.query.get("id") == "job-2" else 0
        return handle(request)

    fake.handle = hold_second  # type: ignore[method-assign]  # one job of three is slow
    settings = open_with(server, tmp_path)
    first = flavor.run(create(1.0, n=3, save_to=tmp_path / "fox.png"), http_backend, **settings)
    assert len(first) == 2
    (error,) = first.errors
    assert isinstance(error, JobPendingError)
    fake.handle = handle  # type: ignore[method-assign]
    fake.polls = 0
    whole = flavor.run(lambda service: service.resume(first), http_backend, **settings)
    assert [image.index for image in whole] == [0, 1, 2]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["fox-1.png", "fox-2.png", "fox-3.png"]
    assert whole.cost.amount == Decimal("0.09")
    assert (whole.errors, whole.warnings) == ((), ())
    assert whole.errors == ()
    assert fake.count[SUBMIT] == 3


@pytest.mark.parametrize("ends", ["killed", "pending"])
def test_a_job_without_a_record(
    flavor: ServiceRunner,
    http_backend: str,
    fake: FakeBfl,
    server: WireServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ends: str,
) -> None:
    """The spool keeps the reply of a submit whose job cannot be written down, and `recover` collects it."""
    jobs, settings = tmp_path / "state" / "jobs", open_with(server, tmp_path)
    jobs.parent.mkdir(mode=0o700)
    jobs.write_text("no folder")
    if ends == "killed":
        fake.polls = NEVER
        child = start_fork(lambda: flavor.run(create(), http_backend, **settings) is None)
        until = time.monotonic() + TIMEOUT_S
        while fake.count.get("GET /v1/get_result", 0) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        kill_fork(child)
    else:
        error = make_pending(flavor, http_backend, fake, settings)
        assert "could not be written" in " ".join(error.__notes__)
    jobs.unlink()
    fake.polls = 0
    monkeypatch.setenv("BFL_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    command = [
        "recover",
        "--state-folder",
        str(tmp_path / "state"),
        "--backend",
        http_backend,
        "-o",
        "fox.png",
    ]
    assert run(command) == 0
    assert (tmp_path / "fox.png").exists()
    assert list_records(tmp_path) == []
    assert not list((tmp_path / "state" / "spool").glob("2*"))
    assert fake.count[SUBMIT] == 1


def test_a_job_without_a_record_is_delivered(
    flavor: ServiceRunner, http_backend: str, fake: FakeBfl, server: WireServer, tmp_path: Path
) -> None:
    """A full disk costs a warning and no image, and nothing stays in the spool."""
    jobs = tmp_path / "state" / "jobs"
    jobs.parent.mkdir(mode=0o700)
    jobs.write_text("no folder")
    response = flavor.run(create(), http_backend, **open_with(server, tmp_path))
    assert len(response) == 1
    assert "could not be written" in " ".join(response.warnings)
    assert not list((tmp_path / "state" / "spool").glob("2*"))


def test_one_process_follows_a_job(fake: FakeBfl, server: WireServer, tmp_path: Path) -> None:
    """A job that another service follows is refused, and its record stays."""
    settings = open_with(server, tmp_path)
    runner = ServiceRunner("sync")
    error = make_pending(runner, "requests", fake, settings)
    fake.polls = NEVER
    with imgkit.ImageService("requests", **settings) as follower:
        flow = resume_jobs(follower._core, error)
        effect = advance(flow, None)
        while not isinstance(effect, SendRequest):
            effect = advance(flow, effect.fn() if isinstance(effect, RunBlocking) else None)
        with pytest.raises(imgkit.InvalidRequestError, match="Another process follows"):
            runner.run(lambda service: service.resume(error), "requests", **settings)
        flow.close()
    assert len(list_records(tmp_path)) == 1


@pytest.mark.parametrize("status", [429, 500, 503, 404, 400, 302, 200, 204, 409])
def test_polls_survive(
    flavor: ServiceRunner, http_backend: str, fake: FakeBfl, server: WireServer, status: int, tmp_path: Path
) -> None:
    """A poll that fails, or gets a page or a strange status, is repeated; the submit is not."""
    handle = fake.handle

    def fail_twice(request: Any) -> Any:
        if request.path == "/v1/get_result" and fake.count["GET /v1/get_result"] <= 2:
            if status in (204, 409):
                return json_reply(409, {"detail": "busy"}) if status == 409 else FakeReply(204)
            return FakeReply(status, {"content-type": "text/html"}, b"<html>busy</html>" * 50_000)
        return handle(request)

    fake.handle = fail_twice  # type: ignore[method-assign]
    response = flavor.run(create(), http_backend, **open_with(server, tmp_path, retry=True))
    assert len(response) == 1
    assert fake.count[SUBMIT] == 1


def test_a_lost_poll_and_an_unknown_word(
    flavor: ServiceRunner, http_backend: str, server: WireServer, fake: FakeBfl, tmp_path: Path
) -> None:
    """A dropped poll, a state that nobody knows and "not found" right after the submit do not end a job."""
    fake.scenario = "lost_poll"
    handle = fake.handle

    def say_new_word(request: Any) -> Any:
        if request.path == "/v1/get_result" and fake.count["GET /v1/get_result"] == 2:
            return json_reply(200, {"id": "job-1", "status": "Dreaming"})
        if request.path == "/v1/get_result" and fake.count["GET /v1/get_result"] == 3:
            return json_reply(200, {"id": "job-1", "status": "Task not found"})
        return handle(request)

    fake.handle = say_new_word  # type: ignore[method-assign]
    assert len(flavor.run(create(), http_backend, **open_with(server, tmp_path, retry=True))) == 1
    assert fake.count[SUBMIT] == 1


def test_a_job_is_as_old_as_its_acceptance(fake: FakeBfl, server: WireServer, tmp_path: Path) -> None:
    """A submit that waits for minutes makes no old job, for which a 404 would be the end."""
    handle, accepted_at = fake.handle, time.time()

    def note_time(request: Any) -> Any:
        nonlocal accepted_at
        if request.method == "POST":
            accepted_at = time.time()
        return handle(request)

    fake.handle = note_time  # type: ignore[method-assign]
    error = make_pending(ServiceRunner("sync"), "requests", fake, open_with(server, tmp_path))
    (job,) = find_jobs(error)
    assert job.submitted_at >= accepted_at


def test_a_foreign_place_to_ask(
    flavor: ServiceRunner, http_backend: str, fake: FakeBfl, server: WireServer, tmp_path: Path
) -> None:
    """A poll at a strange host is not sent, and the job can still be collected."""
    with WireServer(lambda line: None) as stranger:
        handle = fake.handle

        def lure(request: Any) -> Any:
            reply = handle(request)
            return reply._replace(body=reply.body.replace(server.origin.encode(), stranger.origin.encode()))

        fake.handle = lure  # type: ignore[method-assign]
        with pytest.raises(JobPendingError, match="no host of bfl") as caught:
            flavor.run(create(), http_backend, **open_with(server, tmp_path))
        assert stranger.accepted == 0
    assert caught.value.jobs
    assert len(list_records(tmp_path)) == 1


def test_an_expired_link_keeps_the_job(
    flavor: ServiceRunner, http_backend: str, fake: FakeBfl, server: WireServer, tmp_path: Path
) -> None:
    """A result that cannot be fetched leaves the job, which names a new link when it is asked again."""
    fake.scenario = "expired_link"
    settings = open_with(server, tmp_path)
    with pytest.raises(JobPendingError, match="could not be fetched") as caught:
        flavor.run(create(), http_backend, **settings)
    fake.scenario = "success"
    response = flavor.run(lambda service: service.resume(caught.value), http_backend, **settings)
    assert len(response) == 1
    assert fake.count[SUBMIT] == 1


@pytest.mark.parametrize("scenario", ["lost_submit", "failing"])
def test_a_lost_submit_is_unknown(
    flavor: ServiceRunner, http_backend: str, fake: FakeBfl, server: WireServer, scenario: str, tmp_path: Path
) -> None:
    """A submit whose reply was lost is not repeated."""
    fake.scenario = scenario
    with pytest.raises(imgkit.OutcomeUnknownError):
        flavor.run(create(), http_backend, **open_with(server, tmp_path, retry=True))
    assert fake.count[SUBMIT] == 1


def test_only_a_refused_submit_is_repeated(
    flavor: ServiceRunner, http_backend: str, fake: FakeBfl, server: WireServer, tmp_path: Path
) -> None:
    """A 429 accepts nothing, so the submit is sent again."""
    fake.scenario = "rate_limited"
    assert len(flavor.run(create(), http_backend, **open_with(server, tmp_path, retry=True))) == 1
    assert fake.count[SUBMIT] == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"provider": "acme"}, "Provider acme has job"),
        ({"base_url": "https://other.example"}, "runs at https://other.example"),
        ({"state_version": 99}, "later version of provider bfl"),
    ],
)
def test_jobs_of_others_are_refused(
    flavor: ServiceRunner,
    fake: FakeBfl,
    server: WireServer,
    change: dict[str, Any],
    words: str,
    tmp_path: Path,
) -> None:
    """A job of another provider, host or version is refused before anything is sent."""
    job = Job(id="a-0", provider="bfl", base_url=server.origin, operation="create_image").advance(**change)
    with pytest.raises(imgkit.ImgkitError, match=words):
        flavor.run(lambda service: service.resume(job), "requests", **open_with(server, tmp_path))
    assert server.accepted == 0


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "{", '{"imgkit_job": 1}', '{"imgkit_job": 2, "id": "a"}', '{"imgkit_job": "x"}',
        *(json.dumps({**json.loads(GOOD_JOB), **change}) for change in (
            {"id": "../../etc"}, {"provider": 5}, {"operation": "sing"}, {"state": 5}, {"images": -1},
            {"phase": "new"}, {"save_to": "x"}, {"submitted_at": "now"}, {"base_url": "http://["},
            {"base_url": "ftp://a"}, {"submitted_at": 10**400}, {"expires_at": NAN}, {"cost": "much"})),
        "[" * 100_000,
    ],
)  # fmt: skip
def test_damaged_jobs(text: str) -> None:
    """A damaged job, or one of a later version, is an error of imgkit's own."""
    with pytest.raises(imgkit.ConfigurationError):
        Job.from_json(text)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_jobs_can_be_copied(clone: Callable[[Any], Any]) -> None:
    """A job and its error survive a copy and the way to another process."""
    job = Job.from_json(GOOD_JOB)
    assert clone(job) == job
    assert clone(JobPendingError("late", jobs=(job,))).jobs == (job,)


@pytest.mark.parametrize("expires_at", [NAN, float("inf"), 10**400, -1e300])
def test_an_impossible_expiry_leaves_a_readable_record(expires_at: float) -> None:
    """An impossible time or cost of an API stays out of the record, which could not be read with it."""
    update = JobUpdate(state={}, expires_at=expires_at, cost=Cost(amount=Decimal("NaN"), note=""))
    job = apply_update(Job.from_json(GOOD_JOB), update)
    assert (job.expires_at, job.cost) == (None, None)
    assert Job.from_json(job.to_json()) == job


def test_a_long_prompt_leaves_a_readable_record(tmp_path: Path) -> None:
    """A record that would be too large to be read again has the beginning of the prompt alone."""
    tmp_path.chmod(0o700)
    store = JobStore(tmp_path / "jobs")
    store.save(Job.from_json(GOOD_JOB).advance(facts={"prompt": "a" * 1_300_000, "model": "flux"}))
    (record,) = store.list_jobs()
    assert record.job is not None
    assert record.job.facts == {"prompt": "a" * 1000, "model": "flux"}


def test_a_damaged_record_hides_no_other(fake: FakeBfl, server: WireServer, tmp_path: Path) -> None:
    """A damaged record is left out of the list of jobs, and the others are listed."""
    settings = open_with(server, tmp_path)
    runner = ServiceRunner("sync")
    error = make_pending(runner, "requests", fake, settings)
    (record,) = list_records(tmp_path)
    record.with_name("zzz-0.json").write_bytes(b"\0" * 50)
    broken = {**json.loads(GOOD_JOB), "id": "zzz-1", "base_url": "http://[", "submitted_at": 10**400}
    record.with_name("zzz-1.json").write_text(json.dumps(broken))
    jobs = runner.run(lambda service: service.list_jobs(), "requests", **settings)
    assert [job.id for job in jobs] == [error.jobs[0].id]


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_jobs_are_collected_at_once(
    is_interrupted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No job waits for the end of another; an interruption closes the services of all, and keeps the jobs."""
    tmp_path.chmod(0o700)
    store = JobStore(tmp_path / "jobs")
    for number in range(3):
        store.save(Job.from_json(GOOD_JOB).advance(id=f"job-{number}"))
    barrier, closed = threading.Barrier(3, timeout=30), threading.Event()

    def resume(self: Any, job: Job, **given: Any) -> None:
        place = barrier.wait()
        if is_interrupted and place:
            assert closed.wait(30)
        raise JobPendingError("It is at work.", jobs=(job,))

    def close(self: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            closed.set()

    def interrupt(*given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("BFL_API_KEY", KEY)
    monkeypatch.setattr(imgkit.ImageService, "resume", resume)
    if is_interrupted:
        monkeypatch.setattr(imgkit.ImageService, "close", close)
        monkeypatch.setattr("imgkit.cli.jobs._print_end", interrupt)
    code = run(["jobs", "wait", "--state-folder", str(tmp_path)])
    assert code == (130 if is_interrupted else 10)
    assert capsys.readouterr().err.count("It is at work.") == (0 if is_interrupted else 3)
    assert len(store.list_jobs()) == 3


def test_several_jobs_are_cancelled_one_by_one(fake: FakeBfl, server: WireServer, tmp_path: Path) -> None:
    """Refuses an error of two jobs, whose types say that one of them may be given."""
    settings, runner = open_with(server, tmp_path), ServiceRunner("sync")
    jobs = [make_pending(runner, "requests", fake, settings).jobs[0] for _ in range(2)]
    both: Any = JobPendingError("They are at work.", jobs=tuple(jobs))
    with imgkit.ImageService("requests", **settings) as service:
        with pytest.raises(imgkit.InvalidRequestError, match="2 jobs are given. Cancel them one by one"):
            service.cancel_job(both)
        with pytest.raises(imgkit.InvalidRequestError, match="cannot cancel jobs"):
            service.cancel_job(jobs[0])
    assert len(list_records(tmp_path)) == 2


def test_each_of_several_jobs_is_named(
    fake: FakeBfl,
    server: WireServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Puts the id of its job before the cost of each image, unless there is only one job."""
    runner, settings = ServiceRunner("sync"), open_with(server, tmp_path)
    monkeypatch.setenv("BFL_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    for count in (1, 2):
        jobs = [make_pending(runner, "requests", fake, settings).jobs[0].id for _ in range(count)]
        capsys.readouterr()
        assert run(["jobs", "collect", "--state-folder", str(tmp_path / "state")]) == 0
        shown = [line for line in capsys.readouterr().err.splitlines() if "0.0300 USD" in line]
        starts = sorted(f"imgkit: {job}: " for job in jobs) if count > 1 else ["imgkit: "]
        assert [line.partition("0.0300")[0] for line in sorted(shown)] == starts


def test_offline_jobs_are_not_on_disk(tmp_path: Path) -> None:
    """The offline backend keeps its jobs in memory, and the error says so; a folder would not help."""
    with imgkit.ImageService("offline", provider="bfl", state_folder=tmp_path) as service:
        with pytest.raises(imgkit.ConfigurationError, match="stay in memory"):
            service.list_jobs()


def test_cancel_names_the_way_out(
    fake: FakeBfl, server: WireServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command that cannot cancel a job names the command that collects it; the library, its method."""
    settings = open_with(server, tmp_path)
    make_pending(ServiceRunner("sync"), "requests", fake, settings)
    with imgkit.ImageService("requests", **settings) as service:
        (job,) = service.list_jobs()
        with pytest.raises(imgkit.InvalidRequestError, match=r"cannot cancel jobs\. Collect it with service"):
            service.cancel_job(job)
    assert run(["jobs", "cancel", job.id, "--state-folder", str(tmp_path / "state")]) == 2
    assert "cannot cancel jobs. `imgkit jobs wait` collects it." in " ".join(capsys.readouterr().err.split())
    assert run(["jobs", "cancel", "nope", "--state-folder", str(tmp_path / "state")]) == 2
    assert "`imgkit jobs ls` lists them." in capsys.readouterr().err


@pytest.mark.parametrize("action", ["drop", "cancel", "wait"])
def test_an_empty_id_names_no_job(tmp_path: Path, action: str) -> None:
    """An unset variable of a script is no id: the only job stays."""
    tmp_path.chmod(0o700)
    store = JobStore(tmp_path / "jobs")
    store.save(Job.from_json(GOOD_JOB))
    assert run(["jobs", action, "", "--state-folder", str(tmp_path)]) == 2
    assert len(store.list_jobs()) == 1


def test_a_refusal_names_its_stage(fake: FakeBfl, server: WireServer, tmp_path: Path) -> None:
    """A refusal of the prompt says so."""
    fake.scenario = "refused"
    with pytest.raises(imgkit.ModerationBlockedError) as caught:
        ServiceRunner("sync").run(create(), "requests", **open_with(server, tmp_path))
    assert caught.value.stage == "input"


def test_offline_shows_the_course_of_a_job(flavor: ServiceRunner) -> None:
    """The offline backend answers with the provider's fake: free, without a key, with polls."""
    response = flavor.run(lambda service: service.create_image("a red fox", size="64x64"), provider="bfl",
                          backend="offline")  # fmt: skip
    assert response[0].width == 64
    assert response.cost.amount == 0
