"""Jobs and kept replies of earlier processes: one flow has their row, each job at its own provider."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imgkit.bulk.earlier_work import choose_work
from imgkit.bulk.manifest import BulkRow
from imgkit.core import job_requests
from imgkit.jobs.job import Job
from imgkit.providers.bfl_fake import FakeBfl
from imgkit.testing.wire_server import serve_fake
from tests.bulk import test_bulk_recovery as recovery
from tests.bulk.test_bulk import carry_out, open_api, read_list
from tests.bulk.test_bulk_recovery import KEY, MODEL, SYNC, Parts, kill_run, list_hidden, run_parts
from tests.conftest import ServiceRunner
from tests.support.official import official
from tests.support.pictures import noise


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let jobs be polled without pauses."""
    monkeypatch.setattr(job_requests, "FIRST_PAUSE_S", 0.005)


def test_amending_a_row_with_a_job(flavor: ServiceRunner, tmp_path: Path) -> None:
    """An amended row of an iterable is sent once its job is collected, whose paid image stays."""
    backend = "requests" if flavor.flavor == "sync" else "aiohttp"
    fake, out = FakeBfl(paint=lambda prompt, width, height: noise(len(prompt)), polls=10**6), tmp_path / "out"
    with serve_fake(fake) as server:
        given: dict[str, Any] = {
            "provider": "bfl",
            "model": "flux-2-pro",
            "base_url": server.origin,
            "api_key": "k",
            "state_folder": tmp_path / "state",
        }
        rows = [{"id": "a", "prompt": "a fox"}]
        [outcome], _ = carry_out(flavor, rows, out, backend, timeout_s=0.3, **given)
        assert outcome.state == "accepted"

        def read() -> Iterator[Any]:
            yield {"id": "a", "prompt": "a red fox"}
            fake.polls = 0

        found, run = carry_out(flavor, read(), out, backend, amend=True, **given)
    assert [(outcome.id, outcome.state) for outcome in found] == [("a", "done")]
    assert (run.counts["done"], sum(run.counts.values()), len(fake.jobs)) == (1, 1, 2)
    assert [entry["prompt"] for entry in read_list(out)] == ["a red fox"]
    images = [path.read_bytes() for path in (out / "images").glob("*/*.*")]
    assert sorted(images) == sorted([noise(len("a fox")), noise(len("a red fox"))])
    assert list((tmp_path / "state").glob("jobs/*.json")) == []


@pytest.mark.parametrize("is_switched", [False, True], ids=["same", "switched"])
def test_missing_images_beside_jobs(
    is_switched: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Collects jobs at their own provider, and sends for missing images at the one that the run has now."""
    fake = FakeBfl(paint=lambda prompt, width, height: noise(77), polls=1)
    api, rows, out = Parts(), [{"id": "a", "prompt": "a fox", "n": 3}], tmp_path / "out"
    with serve_fake(fake) as bfl, serve_fake(api) as server:
        monkeypatch.setenv("BFL_API_KEY", "k")
        monkeypatch.setenv("BFL_BASE_URL", bfl.origin)
        first: dict[str, Any] = {"provider": "bfl", "model": "flux-2-pro", "state_folder": tmp_path / "state"}
        monkeypatch.setattr(
            recovery, "run_parts", lambda server, folder: carry_out(SYNC, rows, out, "requests", **first)
        )
        kill_run(bfl, tmp_path, "bulk.row_calls.RowRecord.mark_sending", first=2)
        assert len(fake.jobs) == 2
        second = {**open_api(server, tmp_path), "model": "dall-e-3"} if is_switched else first
        [outcome], run = carry_out(SYNC, rows, out, "requests", **second)
    assert (outcome.state, run.counts["done"], len(outcome.paths)) == ("done", 1, 3)
    assert (len(fake.jobs), len(api.bodies)) == ((2, 1) if is_switched else (3, 0))
    assert [entry["index"] for entry in read_list(out)] == [0, 1, 2]
    assert list_hidden(out) == []
    if is_switched:
        assert [entry["model"] for entry in read_list(out)] == ["flux-2-pro"] * 2 + ["dall-e-3"]


def test_a_row_that_is_not_in_the_file(tmp_path: Path) -> None:
    """Collects the kept images of a row that was removed from the file, and sends nothing for it."""
    api, out = Parts(at_urls=True), tmp_path / "out"
    with serve_fake(api) as server:
        kill_run(server, tmp_path, "bulk.row_calls.RowRecord.mark_sending", first=2)
        given: dict[str, Any] = {
            "provider": official(f"{server.origin}/v1"),
            "api_key": KEY,
            "state_folder": tmp_path / "state",
        }
        rows = [{"id": "b", "prompt": "a hen", "model": MODEL}]
        found, run = carry_out(SYNC, rows, out, "requests", extend=True, **given)
        assert [(outcome.id, outcome.error) for outcome in found] == [("b", None)]
        assert (len(api.bodies), run.counts["done"], run.counts["waiting"], run.left_out) == (3, 1, 0, 1)
        _, run = run_parts(server, tmp_path, extend=True)
    assert (len(api.bodies), run.counts["done"]) == (4, 2)
    entries = [entry for entry in read_list(out) if entry["id"] == "a"]
    assert [entry["index"] for entry in entries] == [0, 1, 2]


def test_jobs_at_several_providers() -> None:
    """Jobs of a row at other providers are collected by a flow of their own, afterwards."""
    jobs = [
        Job(id=f"{n}", provider=name, base_url="http://127.0.0.1", operation="create_image", call_id="c",
            images=1, images_of_call=3, submitted_at=0.0, facts={}, state_version=1)
        for n, name in enumerate(["bfl", "luma", "bfl"])
    ]  # fmt: skip
    work = choose_work(BulkRow(1, "a", "accepted", {}, {}), jobs)
    assert ([job.id for job in work.jobs], [job.id for job in work.later]) == (["0", "2"], ["1"])
    assert work.provider == "bfl"
