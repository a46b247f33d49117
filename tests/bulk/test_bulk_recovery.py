"""A run after an end that nobody planned: it finds what is there, repairs it, and sends nothing twice."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pkgutil
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit import BulkOutcome
from imgkit.bulk.bulk_run import BulkRun
from imgkit.bulk.manifest import Manifest, State
from imgkit.core import job_requests, pipeline
from imgkit.providers.bfl_fake import FakeBfl
from imgkit.providers.fakes import FakeApi, FakeReply, FakeRequest, json_reply
from imgkit.testing.wire_server import WireServer, serve_fake
from tests.bulk.test_bulk import carry_out, open_api, read_list
from tests.conftest import ServiceRunner
from tests.support.official import official
from tests.support.pictures import noise
from tests.support.power_loss import watch
from tests.support.processes import run_in_fork

SYNC = ServiceRunner("sync")
SMALL = {"size": "32x32"}


def list_hidden(folder: Path) -> list[str]:
    """Return the hidden files and folders below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(".*"))


def test_incomplete_images_of_dead_runs(tmp_path: Path) -> None:
    """A run removes the incomplete images of its dead processes, and none of other runs or calls."""
    carry_out(SYNC, ["a fox", "a hen"], tmp_path, most=1, defaults=SMALL)
    assert list_hidden(tmp_path) == []
    manifest = Manifest(tmp_path)
    own = tmp_path / "images" / f".parts-{manifest.read_token()}"
    manifest.close()
    others = [tmp_path / "images" / ".parts-other" / ".imgkit-1.part", tmp_path / ".imgkit-2.part"]
    for path in [own / ".imgkit-0.part", own / ".fox.png.0123.part", *others]:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    _, run = carry_out(SYNC, ["a fox", "a hen"], tmp_path, defaults=SMALL)
    assert run.counts["done"] == 2
    assert list_hidden(tmp_path) == [
        ".imgkit-2.part",
        "images/.parts-other",
        "images/.parts-other/.imgkit-1.part",
    ]


PROMPTS = ["a fox", "a hen", "a cat"]
FOREIGN = '{"file_name": "mine.png", "note": "my own"}\n'


def drop(text: str) -> str:
    """Drop the second line."""
    first, _, *rest = text.splitlines(keepends=True)
    return first + "".join(rest)


@pytest.mark.parametrize(
    ("edit", "foreign"),
    [
        (None, []),
        (lambda text: "", []),
        (drop, []),
        (lambda text: FOREIGN + text, [FOREIGN]),
        (lambda text: drop(text) + FOREIGN + "no JSON\n", [FOREIGN, "no JSON\n"]),
        (lambda text: text[:-1], []),
        (lambda text: text[:-9], []),
        (lambda text: text.replace('"a hen"', '"my hen"', 1), []),
        (lambda text: drop(text) + FOREIGN[:-1], [FOREIGN]),
        (lambda text: drop(text) + "my own", ["my own\n"]),
    ],
    ids=["deleted", "emptied", "dropped", "added", "mixed", "end", "half", "caption", "last", "text"],
)
def test_an_edited_list(edit: Callable[[str], str] | None, foreign: list[str], tmp_path: Path) -> None:
    """Completes a list that was deleted or edited from the manifest, and leaves foreign lines alone."""
    carry_out(SYNC, PROMPTS, tmp_path, defaults=SMALL)
    path = tmp_path / "metadata.jsonl"
    before = path.read_text()
    if edit is None:
        path.unlink()
    else:
        path.write_text(edit(before))
    edited = "" if edit is None else edit(before)
    carry_out(SYNC, [*PROMPTS, "an owl"], tmp_path, defaults=SMALL)
    lines = path.read_text().splitlines(keepends=True)
    own = [json.loads(line) for line in lines if line not in foreign]
    assert sorted(entry["id"] for entry in own) == ["1", "2", "3", "4"]
    assert all((tmp_path / entry["file_name"]).is_file() for entry in own)
    assert [line for line in lines if line in foreign] == foreign
    assert "".join(lines).startswith(edited[: edited.rfind("\n") + 1])
    carry_out(SYNC, [*PROMPTS, "an owl"], tmp_path, defaults=SMALL)
    assert path.read_text() == "".join(lines)


def test_a_lost_manifest_and_list(tmp_path: Path) -> None:
    """Refuses a folder with images whose manifest and list are gone: they would be made again."""
    carry_out(SYNC, ["a fox"], tmp_path, defaults=SMALL)
    for path in tmp_path.glob("m*"):
        path.unlink()
    with pytest.raises(imgkit.ConfigurationError, match="has the images of a run"):
        carry_out(SYNC, ["a fox"], tmp_path, defaults=SMALL)


def test_another_output_folder(tmp_path: Path) -> None:
    """Refuses an output folder without any image of the run: its list would name missing files."""
    kept: dict[str, Any] = {"run_folder": tmp_path / "run", "defaults": SMALL}
    carry_out(SYNC, ["a fox"], tmp_path / "one", **kept)
    with pytest.raises(imgkit.ConfigurationError, match="The images of this run are not in '.*two'"):
        carry_out(SYNC, ["a fox"], tmp_path / "two", **kept)
    assert not (tmp_path / "two" / "metadata.jsonl").exists()
    shutil.move(tmp_path / "one", tmp_path / "moved")
    carry_out(SYNC, ["a fox"], tmp_path / "moved", **kept)


KEY = "sk-recovery-0123456789"
MODEL = "dall-e-3"
"""A model that makes one image at once, so that a row with n=3 has three requests."""


class Parts(FakeApi):
    """An API whose images have the numbers of their requests; some requests have a scripted end.

    Args:
        ends: the reply to each request, or `LOST`; None, and any later request, gets an image.
        at_urls: send the addresses of images in place of their bytes.
    """

    def __init__(self, *ends: FakeReply | None, at_urls: bool = False) -> None:
        super().__init__()
        self.ends = list(ends)
        self.at_urls = at_urls
        self.bodies: list[dict[str, Any]] = []
        self.is_expired = False

    def handle(self, request: FakeRequest) -> FakeReply:
        if request.method == "GET":
            number = int(request.path.rpartition("/")[2])
            return (
                FakeReply(403)
                if self.is_expired
                else FakeReply(200, {"content-type": "image/png"}, noise(number))
            )
        self.bodies.append(request.json())
        number = len(self.bodies)
        end = self.ends[number - 1] if number <= len(self.ends) else None
        if end is not None:
            return end
        if self.at_urls:
            return json_reply(200, {"data": [{"url": f"{request.root}/made/{number}"}]})
        return json_reply(200, {"data": [{"b64_json": base64.b64encode(noise(number)).decode()}]})


def run_parts(server: WireServer, folder: Path, **more: Any) -> tuple[list[BulkOutcome], BulkRun]:
    """Carry out a run of a row with three requests."""
    provider = official(f"{server.origin}/v1")
    settings = {"provider": provider, "api_key": KEY, "state_folder": folder / "state"}
    row = {"id": "a", "prompt": "a fox", "model": more.pop("model", MODEL), "n": 3}
    more = {**settings, "most_in_flight": 1, **more}
    return carry_out(SYNC, [row], folder / "out", "requests", **more)


def kill_run(server: WireServer, folder: Path, place: str, first: int | None = None, **more: Any) -> None:
    """Carry out a run in a process that dies at a place.

    Args:
        server: the API.
        folder: as `run_parts`.
        place: the function of `imgkit.core` or `imgkit.bulk` at which it dies.
        first: the part at which it dies, None for any.
        more: as `run_parts`.
    """

    def die(*args: Any) -> Any:
        part = next((each for each in args if hasattr(each, "first") or hasattr(each, "first_index")), None)
        if first is None or first == getattr(part, "first", getattr(part, "first_index", None)):
            os._exit(0)
        return work(*args)

    owner, _, name = place.rpartition(".")
    target = pkgutil.resolve_name(f"imgkit.{owner}")
    work = getattr(target, name)

    def run() -> bool:
        pipeline.MAX_PARALLEL_PARTS = 1
        setattr(target, name, die)
        run_parts(server, folder, **more)
        return False

    assert run_in_fork(run) == 0


def list_indexes(folder: Path) -> list[int]:
    """Return the places of the listed images, each of which has its own bytes."""
    entries = [json.loads(line) for line in (folder / "out" / "metadata.jsonl").read_text().splitlines()]
    assert len({(folder / "out" / entry["file_name"]).read_bytes() for entry in entries}) == len(entries)
    return sorted(entry["index"] for entry in entries)


def test_kept_parts_of_a_row(tmp_path: Path) -> None:
    """Delivers the kept parts of a killed row, says unknown of the open part, and sends nothing unasked."""
    api = Parts()
    with serve_fake(api) as server:
        kill_run(server, tmp_path, "core.send.read_response", first=2)
        _, run = run_parts(server, tmp_path)
        assert run.counts["unknown"] == 1
        assert list_indexes(tmp_path) == [0, 1]
        _, run = run_parts(server, tmp_path)
        assert (len(api.bodies), run.counts["unknown"]) == (3, 1)
        _, run = run_parts(server, tmp_path, retry_unknown=True)
    assert (len(api.bodies), run.counts["done"]) == (4, 1)
    assert list_indexes(tmp_path) == [0, 1, 2]


@pytest.mark.parametrize(
    ("place", "first", "posts"), [("core.lifecycle.save_all", None, 3), ("core.send.read_response", 2, 4)]
)
def test_jobs_of_a_row(
    place: str, first: int | None, posts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Collects the jobs of a killed row; a part whose submit got no reply is unknown, and sent when asked."""
    monkeypatch.setattr(job_requests, "FIRST_PAUSE_S", 0.005)
    fake = FakeBfl(paint=lambda prompt, width, height: noise(1), polls=1)
    with serve_fake(fake) as server:
        api: dict[str, Any] = {"provider": "bfl", "base_url": server.origin, "model": "flux-2-pro"}
        kill_run(server, tmp_path, place, first, **api)
        (outcome,), run = run_parts(server, tmp_path, **api)
        assert outcome.state == ("unknown" if first else "done")
        if first:
            assert [entry["index"] for entry in read_list(tmp_path / "out")] == [0, 1]
            _, run = run_parts(server, tmp_path, retry_unknown=True, **api)
    assert (fake.count["POST /v1/flux-2-pro"], run.counts["done"]) == (posts, 1)
    assert [entry["index"] for entry in read_list(tmp_path / "out")] == [0, 1, 2]


def test_parts_that_were_not_sent(tmp_path: Path) -> None:
    """Delivers the kept parts of a killed row, and sends for the others only."""
    api = Parts()
    with serve_fake(api) as server:
        kill_run(server, tmp_path, "bulk.row_calls.RowRecord.mark_sending", first=2)
        _, run = run_parts(server, tmp_path)
    assert (len(api.bodies), run.counts["done"]) == (3, 1)
    assert list_indexes(tmp_path) == [0, 1, 2]


def test_parts_that_were_refused(tmp_path: Path) -> None:
    """The next run completes a row of which one request was refused for now: the missing image only."""
    busy = json_reply(429, {"error": {"message": "slow down"}}, retry_after="0")
    api = Parts(None, busy, None, busy)
    with serve_fake(api) as server:
        (outcome,), _ = run_parts(server, tmp_path)
        assert (outcome.state, len(list_indexes(tmp_path)), len(api.bodies)) == ("failed", 2, 3)
        (outcome,), run = run_parts(server, tmp_path)
    assert (outcome.state, len(api.bodies), run.counts["done"]) == ("done", 5, 1)
    assert list_indexes(tmp_path) == [0, 1, 2]


def test_a_kill_in_a_pause(tmp_path: Path) -> None:
    """A row whose process died in the pause after a free refusal is sent again."""
    api = Parts(json_reply(429, {"error": {"message": "slow down"}}, retry_after="1"))
    with serve_fake(api) as server:
        kill_run(server, tmp_path, "core.send.pause_before_retry", retry=True)
        _, run = run_parts(server, tmp_path)
    assert (len(api.bodies), run.counts["done"]) == (4, 1)


def test_kept_addresses(tmp_path: Path) -> None:
    """Fetches the images of a kept reply that has addresses only; an expired one is unknown and kept."""
    api = Parts(at_urls=True)
    with serve_fake(api) as server:
        kill_run(server, tmp_path, "core.lifecycle.save_all")
        api.is_expired = True
        (outcome,), run = run_parts(server, tmp_path)
        assert (outcome.state, run.counts["unknown"]) == ("unknown", 1)
        assert isinstance(outcome.error, imgkit.DownloadError)
        api.is_expired = False
        (outcome,), run = run_parts(server, tmp_path)
    assert (len(api.bodies), run.counts["done"], len(outcome.paths)) == (3, 1, 3)
    assert list_indexes(tmp_path) == [0, 1, 2]


def test_expired_addresses(tmp_path: Path) -> None:
    """Sends for images again whose kept addresses have expired, once and only if that is asked for."""
    api = Parts(at_urls=True)
    with serve_fake(api) as server:
        kill_run(server, tmp_path, "core.lifecycle.save_all")
        api.is_expired, api.at_urls = True, False
        _, run = run_parts(server, tmp_path)
        assert (len(api.bodies), run.counts["unknown"]) == (3, 1)
        (outcome,), run = run_parts(server, tmp_path, retry_unknown=True)
        assert (len(api.bodies), run.counts["done"], len(outcome.paths)) == (6, 1, 3)
        run_parts(server, tmp_path, retry_unknown=True)
    assert len(api.bodies) == 6
    assert list_indexes(tmp_path) == [0, 1, 2]


def test_a_forked_child(flavor: ServiceRunner, tmp_path: Path) -> None:
    """A forked child that goes on or leaves sends nothing, waits for nothing, and disturbs no parent."""
    prompts = [f"picture {number}" for number in range(6)]

    def use(outcomes: Any, step: Any) -> bool:
        with pytest.raises(imgkit.ConfigurationError, match="is a fork of it"):
            drive(step())
        drive(outcomes.close())
        return True

    def drive(step: Any) -> Any:
        if flavor.flavor == "sync":
            return step
        with contextlib.suppress(StopIteration):  # of a coroutine that waits for nothing
            step.send(None)
        return None

    def now(service: Any) -> BulkRun:
        with service.bulk(prompts, folder=tmp_path, defaults=SMALL) as outcomes:
            next(outcomes)
            assert run_in_fork(lambda: use(outcomes, lambda: next(outcomes))) == 0
            assert len(list(outcomes)) == 5
        run: BulkRun = outcomes.run
        return run

    async def later(service: Any) -> BulkRun:
        async with service.bulk(prompts, folder=tmp_path, defaults=SMALL) as outcomes:
            await anext(outcomes)
            assert run_in_fork(lambda: use(outcomes, outcomes.__anext__)) == 0
            assert len([outcome async for outcome in outcomes]) == 5
        run: BulkRun = outcomes.run
        return run

    run = flavor.run(now if flavor.flavor == "sync" else later)
    assert run.counts["done"] == 6
    assert len((tmp_path / "metadata.jsonl").read_text().splitlines()) == 6


@pytest.mark.parametrize("place", ["emptied", "moved"])
def test_a_lost_state_folder(place: str, tmp_path: Path) -> None:
    """Rows whose kept replies are in a state folder that is gone are unknown, and never sent again."""
    api = Parts()
    with serve_fake(api) as server:
        kill_run(server, tmp_path, "core.lifecycle.save_all")
        (tmp_path / "state").rename(tmp_path / "away")
        for _ in range(2):
            _, run = run_parts(server, tmp_path)
            assert (len(api.bodies), run.counts["unknown"]) == (3, 1)
        if place == "moved":
            shutil.rmtree(tmp_path / "state", ignore_errors=True)
            (tmp_path / "away").rename(tmp_path / "state")
            _, run = run_parts(server, tmp_path)
            assert (len(api.bodies), run.counts["done"]) == (3, 1)
            assert list_indexes(tmp_path) == [0, 1, 2]


def test_kept_replies_of_others(tmp_path: Path) -> None:
    """A run leaves kept replies and jobs alone that no row of it has asked for."""
    api = Parts()
    with serve_fake(api) as server:
        kill_run(server, tmp_path, "core.lifecycle.save_all")
        (tmp_path / "out").rename(tmp_path / "other")
        before = sorted((tmp_path / "state" / "spool").glob("2*"))
        _, run = run_parts(server, tmp_path)
        assert run.counts["done"] == 1
        assert sorted((tmp_path / "state" / "spool").glob("2*")) == before
    assert len(before) == 3


def test_the_order_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest flushes "sending" before a request leaves; the image is flushed before it says "done"."""
    steps: list[str] = []
    mark = Manifest.mark

    def record(manifest: Manifest, number: int, state: State, *args: Any, **options: Any) -> None:
        mark(manifest, number, state, *args, **options)
        durable = manifest._rows.execute("PRAGMA synchronous").fetchone()[0] >= 2
        steps.append(f"{state} {'flushed' if durable else 'written'}, {len(list_flushed())} images")

    def list_flushed() -> list[str]:
        loss.record("mark")
        tree = loss.moments.pop().trees["flushed"]
        return [name for name, data in tree.items() if data == noise(1) and name.startswith("out/images/")]

    monkeypatch.setattr(Manifest, "mark", record)
    disk = tmp_path / "disk"
    disk.mkdir()
    with serve_fake(Parts()) as server, watch(disk, monkeypatch) as loss:
        settings: dict[str, Any] = open_api(server, disk)
        carry_out(SYNC, ["a fox"], disk / "out", "requests", **settings)
    assert steps == ["sending flushed, 0 images", "done written, 1 images"]
