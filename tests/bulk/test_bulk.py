"""Bulk runs: outcomes, the manifest, the list of images, pace and stops, on both services."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit import BulkOutcome, BulkRequest, CreateImageRequest
from imgkit.bulk import stop_rules
from imgkit.bulk.bulk_run import BulkRun
from imgkit.bulk.manifest import Manifest, _held
from imgkit.bulk.output import DigestPlan, Output
from imgkit.cli.run import run as imgkit_command
from imgkit.providers.fakes import FakeApi, FakeReply, FakeRequest, json_reply
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import WireServer, hang, reply, serve_fake
from tests.conftest import ServiceRunner
from tests.support.pictures import noise

KEY = "sk-bulk-0123456789"
POST = "POST /v1/images/generations"


def carry_out(
    flavor: ServiceRunner, requests: Any, folder: Path, *args: Any, most: int = 10**6, **more: Any
) -> tuple[list[BulkOutcome], BulkRun]:
    """Carry out a run, or the beginning of it; return its outcomes and the run."""
    settings = {
        name: more.pop(name)
        for name in ("base_url", "api_key", "plugins", "state_folder", "retry", "provider", "model")
        if name in more
    }
    found: list[BulkOutcome] = []

    def now(service: Any) -> BulkRun:
        with service.bulk(requests, folder=folder, **more) as outcomes:
            for outcome in outcomes:
                found.append(outcome)
                if len(found) == most:
                    break
        return outcomes.run  # type: ignore[no-any-return]  # of any service

    async def later(service: Any) -> BulkRun:
        async with service.bulk(requests, folder=folder, **more) as outcomes:
            async for outcome in outcomes:
                found.append(outcome)
                if len(found) == most:
                    break
        return outcomes.run  # type: ignore[no-any-return]  # of any service

    return found, flavor.run(now if flavor.flavor == "sync" else later, *args, **settings)


def read_list(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of the list of images."""
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def open_api(server: WireServer, folder: Path) -> dict[str, Any]:
    """Return the arguments of a service that speaks to a server."""
    return {"base_url": f"{server.origin}/v1", "api_key": KEY, "state_folder": folder / "state"}


def test_a_run_and_the_next(flavor: ServiceRunner, tmp_path: Path) -> None:
    """Saves each image under its digest and lists it; the same call again sends nothing."""
    requests = [
        "a fox",
        {"id": "hen", "prompt": "a hen", "seed": 4},
        CreateImageRequest(prompt="a cat", size="32x32"),
        BulkRequest("b", CreateImageRequest(prompt="a cat", size="32x32")),
    ]
    found, run = carry_out(flavor, requests, tmp_path / "out", defaults={"size": "64x64"})
    assert sorted(outcome.id for outcome in found) == ["1", "3", "b", "hen"]
    assert run.counts["done"] == 4
    entries = read_list(tmp_path / "out")
    assert sorted(entry["id"] for entry in entries) == ["1", "3", "b", "hen"]
    for entry in entries:
        data = (tmp_path / "out" / entry["file_name"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
        assert entry["file_name"].startswith(f"images/{entry['sha256'][:2]}/{entry['sha256']}")
    assert KEY not in (tmp_path / "out" / "manifest.sqlite").read_bytes().decode("latin-1")
    again, run = carry_out(flavor, requests, tmp_path / "out", defaults={"size": "64x64"})
    assert again == []
    assert run.counts["done"] == 4


def test_an_endless_iterable(flavor: ServiceRunner, tmp_path: Path) -> None:
    """Reads an endless iterable as the run goes; leaving early keeps the rest for the next run."""

    def prompts() -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield f"picture {number}"

    found, run = carry_out(flavor, prompts(), tmp_path / "out", most=3, defaults={"size": "32x32"})
    assert len(found) == 3
    assert run.counts["done"] >= 3
    assert len(read_list(tmp_path / "out")) == run.counts["done"]


def test_an_iterable_again(flavor: ServiceRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same iterable again finds its rows by their places, through any number of chunks it knows."""
    monkeypatch.setattr("imgkit.bulk.bulk_run.CHUNK", 2)

    def prompts(count: int) -> Iterator[object]:
        return (CreateImageRequest(prompt=f"picture {number}", size="32x32") for number in range(count))

    carry_out(flavor, prompts(5), tmp_path)
    found, run = carry_out(flavor, prompts(5), tmp_path)
    assert found == []
    assert run.counts["done"] == 5
    found, _ = carry_out(flavor, prompts(7), tmp_path)
    assert sorted(outcome.id for outcome in found) == ["6", "7"]


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        (["a fox", {"prompt": ""}, {"prompt": "x", "sise": 1}], ["row 2", "row 3", "did you mean 'size'"]),
        ([{"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"}], ["Two rows have the id 'a'"]),
        ([{"image": b"bytes", "prompt": "x"}], ["image"]),
        ([5], ["5 is not a request. Pass a prompt"]),
        ([{"operation": "sing", "prompt": "x"}], ["Unknown operation 'sing'"]),
        ([CreateImageRequest(prompt="x", extra_headers={"authorization": KEY})], ["extra_headers"]),
    ],
)
def test_invalid_rows(flavor: ServiceRunner, requests: Any, words: list[str], tmp_path: Path) -> None:
    """Names the invalid rows before anything is sent; with `skip`, the others are carried out."""
    with pytest.raises(imgkit.InvalidRequestError) as caught:
        carry_out(flavor, requests, tmp_path / "out")
    for word in words:
        assert word in str(caught.value)
    assert KEY not in str(caught.value)
    problems: list[str] = []
    found, _ = carry_out(flavor, [*requests, "a fox"], tmp_path / "new", skip=problems.append,
                         defaults={"size": "32x32"})  # fmt: skip
    assert problems
    assert found[-1].state == "done"


def test_changed_rows(flavor: ServiceRunner, tmp_path: Path) -> None:
    """Refuses a request that changed under its id, unless the run is amended."""
    carry_out(flavor, [{"id": "a", "prompt": "a fox"}], tmp_path, defaults={"size": "32x32"})
    with pytest.raises(imgkit.InvalidRequestError, match="has changed under its id: 'a'"):
        carry_out(flavor, [{"id": "a", "prompt": "a hen"}], tmp_path, defaults={"size": "32x32"})
    found, _ = carry_out(
        flavor, [{"id": "a", "prompt": "a hen"}], tmp_path, amend=True, defaults={"size": "32x32"}
    )
    assert [outcome.state for outcome in found] == ["done"]


def test_changed_rows_of_an_iterable(flavor: ServiceRunner, tmp_path: Path) -> None:
    """The counts stay right while an iterable amends requests that are done."""
    rows = [{"id": name, "prompt": name, "size": "32x32"} for name in "abc"]
    carry_out(flavor, rows[:2], tmp_path)
    changed = ({**row, "prompt": "new"} for row in rows)
    found, run = carry_out(flavor, changed, tmp_path, amend=True)
    assert len(found) == 3
    assert {state: count for state, count in run.counts.items() if count} == {"done": 3}


def test_a_second_process_is_refused(flavor: ServiceRunner, tmp_path: Path) -> None:
    """A run that a process has open is refused, with the number of that process."""
    manifest = Manifest(tmp_path)
    with pytest.raises(imgkit.ConfigurationError, match="This process carries out the run in .* already"):
        carry_out(flavor, ["a fox"], tmp_path)
    _held.clear()  # as another process sees it
    with pytest.raises(imgkit.ConfigurationError, match=r"Another process \(\d+\)"):
        carry_out(flavor, ["a fox"], tmp_path)
    manifest.close()


@pytest.mark.parametrize("damage", ["cut", "garbage", "newer"])
def test_damaged_manifests(flavor: ServiceRunner, damage: str, tmp_path: Path) -> None:
    """A manifest that is damaged, or of a later version, is an error of imgkit's own, and stays as it is."""
    carry_out(flavor, ["a fox"], tmp_path, defaults={"size": "32x32"})
    path = tmp_path / "manifest.sqlite"
    if damage == "newer":
        with sqlite3.connect(path) as rows:
            rows.execute("PRAGMA user_version = 99")
        rows.close()
    else:
        path.write_bytes(path.read_bytes()[:5000] if damage == "cut" else b"not a database" * 500)
        for other in tmp_path.glob("manifest.sqlite-*"):
            other.unlink()
    before = path.read_bytes()
    with pytest.raises(
        imgkit.ConfigurationError, match="later version" if damage == "newer" else "cannot be used"
    ):
        carry_out(flavor, ["a fox"], tmp_path)
    assert path.read_bytes() == before


def test_images_without_their_manifest(flavor: ServiceRunner, tmp_path: Path) -> None:
    """Images whose manifest is lost, cut to nothing, or elsewhere are not made again."""
    carry_out(flavor, ["a fox"], tmp_path / "out", run_folder=tmp_path / "run", defaults={"size": "32x32"})
    with pytest.raises(imgkit.ConfigurationError, match="has the images of a run"):
        carry_out(flavor, ["a fox"], tmp_path / "out", defaults={"size": "32x32"})
    for file in (tmp_path / "run").glob("manifest.sqlite*"):
        file.write_bytes(b"")
    with pytest.raises(imgkit.ConfigurationError, match="has the images of a run"):
        carry_out(flavor, ["a fox"], tmp_path / "out", run_folder=tmp_path / "run")


def test_a_database_of_another_program(flavor: ServiceRunner, tmp_path: Path) -> None:
    """A database that is no manifest is refused, and stays as it is."""
    with sqlite3.connect(tmp_path / "manifest.sqlite") as rows:
        rows.execute("CREATE TABLE songs (title TEXT)")
    rows.close()
    with pytest.raises(imgkit.ConfigurationError, match="another program has written it"):
        carry_out(flavor, ["a fox"], tmp_path)
    with sqlite3.connect(tmp_path / "manifest.sqlite") as rows:
        assert rows.execute("SELECT name FROM sqlite_master").fetchall() == [("songs",)]
    rows.close()


@pytest.mark.parametrize("value", ["a fox", b"a fox", {"prompt": "a fox"}])
def test_one_request_is_no_list(flavor: ServiceRunner, value: Any, tmp_path: Path) -> None:
    """A single prompt is refused: each of its letters would be a paid request."""
    with pytest.raises(imgkit.InvalidRequestError, match="is not a list of requests"):
        carry_out(flavor, value, tmp_path)


def test_a_run_of_an_api_goes_on_offline(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> None:
    """A request that an API may have been paid for stays unknown under the offline backend."""
    prompts, out = [{"prompt": "a fox", "size": "32x32"}], tmp_path / "out"
    with serve_fake(BadPrompts(OUTCOMES["refused"][0])) as server:
        carry_out(flavor, prompts, out, http_backend, **open_api(server, tmp_path))
    rewrite_row(out, "sending", {"call_id": "0" * 32, "attempt": 1, "paid": True})
    found, run = carry_out(flavor, prompts, out, state_folder=tmp_path / "state")
    assert (found, run.counts["unknown"]) == ([], 1)
    rewrite_row(out, "sending", {"call_id": "0" * 32, "attempt": 1, "paid": False})
    found, _ = carry_out(flavor, prompts, out, state_folder=tmp_path / "state")
    assert [outcome.state for outcome in found] == ["done"]


def test_an_unknown_row_finds_its_reply_later(
    flavor: ServiceRunner, http_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks for the kept reply of an unknown request in every run, also before it is sent again."""
    api, prompts, out = BadPrompts(OUTCOMES["refused"][0]), ["a fox"], tmp_path / "out"
    with serve_fake(api) as server:
        settings = open_api(server, tmp_path)
        with monkeypatch.context() as broken:
            broken.setattr(DigestPlan, "write", reject)
            carry_out(flavor, prompts, out, http_backend, **settings)
        elsewhere = {**settings, "state_folder": tmp_path / "elsewhere"}
        _, run = carry_out(flavor, prompts, out, http_backend, **elsewhere)
        assert run.counts["unknown"] == 1
        _, run = carry_out(flavor, prompts, out, http_backend, retry_unknown=True, **settings)
        assert run.counts["done"] == 1
        assert api.posts == 1


@pytest.mark.parametrize("kind", ["gateway", "unreachable"])
def test_an_outage_stops_the_run(flavor: ServiceRunner, http_backend: str, kind: str, tmp_path: Path) -> None:
    """Ten equal failures in a row end a run, also those that leave the outcome unknown or send nothing."""
    prompts = [f"bad {number}" for number in range(60)]
    with ExitStack() as stack:
        server = stack.enter_context(serve_fake(BadPrompts(OUTCOMES["gateway"][0])))
        settings = open_api(server, tmp_path)
        if kind == "unreachable":
            stack.close()
        found, run = carry_out(flavor, prompts, tmp_path / "out", http_backend, retry=False,
                               most_in_flight=4, **settings)  # fmt: skip
    assert isinstance(run.stopped, imgkit.NotSentError | imgkit.OutcomeUnknownError)
    assert len(found) <= 14
    assert run.counts["waiting"] >= 46


def test_a_silent_server(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> None:
    """The seconds of a run's calls end a call whose server says nothing."""
    started = time.monotonic()
    with WireServer(hang) as server:
        [outcome], _ = carry_out(flavor, ["a fox"], tmp_path / "out", http_backend, timeout_s=0.3,
                                 **open_api(server, tmp_path))  # fmt: skip
    assert outcome.state == "unknown"
    assert time.monotonic() - started < 20


def rewrite_row(folder: Path, state: str, info: dict[str, Any]) -> None:
    """Let the first request of a run be in another state."""
    manifest = Manifest(folder)
    manifest.mark(1, state, info)  # type: ignore[arg-type]  # one of the states
    manifest.close()


OUTCOMES: dict[str, tuple[FakeReply, str]] = {
    "refused": (json_reply(400, {"error": {"code": "moderation_blocked", "message": "no"}}), "blocked"),
    "invalid": (json_reply(400, {"error": {"message": "no such size"}}), "failed"),
    "gateway": (FakeReply(502, {"content-type": "text/html"}, b"<html>busy</html>"), "unknown"),
}


class BadPrompts(FakeApi):
    """OpenAI's API, which answers a prompt that begins with "bad" in another way."""

    def __init__(self, bad: FakeReply) -> None:
        super().__init__()
        self._bad = bad

    def handle(self, request: FakeRequest) -> FakeReply:
        """Return an image, or the other answer."""
        if request.json()["prompt"].startswith("bad"):
            return self._bad
        image = base64.b64encode(self.paint("a fox", 8, 8)).decode()
        return json_reply(200, {"data": [{"b64_json": image}]})

    @property
    def posts(self) -> int:
        """The number of paid requests."""
        return self.count.get(POST, 0)


@pytest.mark.parametrize("name", list(OUTCOMES))
def test_one_bad_row(flavor: ServiceRunner, http_backend: str, name: str, tmp_path: Path) -> None:
    """One bad row stops no other; a run again sends neither what is done nor what is unknown."""
    bad, state = OUTCOMES[name]
    api, prompts = BadPrompts(bad), ["good 1", "bad", "good 2"]
    with serve_fake(api) as server:
        settings = open_api(server, tmp_path)
        found, run = carry_out(flavor, prompts, tmp_path / "out", http_backend, **settings)
        assert {outcome.id: outcome.state for outcome in found} == {"1": "done", "2": state, "3": "done"}
        posts = api.posts
        carry_out(flavor, prompts, tmp_path / "out", http_backend, **settings)
        assert api.posts == posts
    assert dict(run.counts)[state] == 1  # type: ignore[index]  # one of the states


@pytest.mark.parametrize(
    ("status", "body"), [(401, {"error": {"code": "invalid_api_key", "message": "no"}}),
                         (429, {"error": {"code": "insufficient_quota", "message": "pay"}})]
)  # fmt: skip
def test_a_dead_key_stops_at_the_first(
    flavor: ServiceRunner, http_backend: str, status: int, body: Any, tmp_path: Path
) -> None:
    """An error that every request would meet ends the run; the requests wait for the next."""
    api = BadPrompts(json_reply(status, body))
    with serve_fake(api) as server:
        found, run = carry_out(flavor, [f"bad {n}" for n in range(40)], tmp_path / "out", http_backend,
                               **open_api(server, tmp_path))  # fmt: skip
        assert api.posts <= 2
    assert isinstance(run.stopped, imgkit.ImgkitError)
    assert run.counts["waiting"] == 40
    assert len(found) == api.posts


def test_refusals_protect_the_account(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> None:
    """A run stops once too many of its requests were refused."""
    api = BadPrompts(OUTCOMES["refused"][0])
    with serve_fake(api) as server:
        _, run = carry_out(flavor, [f"bad {n}" for n in range(60)], tmp_path / "out", http_backend,
                           stop_after_blocked=5, most_in_flight=2, **open_api(server, tmp_path))  # fmt: skip
        assert api.posts <= 7
    assert "refused by the content policy" in str(run.stopped)


def test_a_full_disk_stops_the_sending(
    flavor: ServiceRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sends nothing while the disk has no room for the replies; the requests wait for the next run."""
    monkeypatch.setattr(stop_rules, "LEAST_FREE_BYTES", 10**18)
    found, run = carry_out(flavor, ["a fox"], tmp_path, defaults={"size": "32x32"})
    assert found == []
    assert isinstance(run.stopped, imgkit.SaveError)
    monkeypatch.undo()
    found, _ = carry_out(flavor, ["a fox"], tmp_path, defaults={"size": "32x32"})
    assert [outcome.state for outcome in found] == ["done"]


def test_a_disk_that_fills_up(flavor: ServiceRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at the disk of the replies, too, and while the run goes on; what is in flight is delivered."""
    monkeypatch.setattr(stop_rules, "SPACE_CHECK_S", 0.0)
    disk_usage = shutil.disk_usage
    looks: list[Path] = []

    def fill_up(place: Path) -> Any:
        looks.append(place)
        is_full = place == tmp_path and looks.count(place) > 3
        return disk_usage(place)._replace(free=1000 if is_full else 10**12)

    monkeypatch.setattr(shutil, "disk_usage", fill_up)
    folders: dict[str, Any] = {"state_folder": tmp_path / "state"}
    found, run = carry_out(flavor, ["a fox"] * 9, tmp_path / "out", defaults={"size": "32x32"}, **folders)
    assert {outcome.state for outcome in found} == {"done"}
    assert 1 <= len(found) < 9
    assert f"free in {str(tmp_path / 'state')!r}" in str(run.stopped)
    assert run.counts["waiting"] == 9 - len(found)


def test_a_paid_image_that_cannot_be_saved_is_delivered_later(
    flavor: ServiceRunner, http_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keeps the reply of an image that the disk rejects, stops, and saves it in the next run, unpaid."""
    api = BadPrompts(OUTCOMES["refused"][0])
    api.paint = lambda *_: noise(7, 120)  # large enough for a file of its own in the spool
    with serve_fake(api) as server:
        given: Any = (["a fox"], tmp_path / "out", http_backend)
        with monkeypatch.context() as broken:
            broken.setattr(DigestPlan, "write", reject)
            [outcome], run = carry_out(flavor, *given, **open_api(server, tmp_path))
            assert outcome.state == "sending"
            assert isinstance(run.stopped, imgkit.SaveError)
            with monkeypatch.context() as linkless:
                linkless.setattr(os, "link", refuse_link)
                with pytest.raises(imgkit.SaveError, match="disk is full"):
                    carry_out(flavor, *given, **open_api(server, tmp_path))
            [part] = (tmp_path / "state").rglob("0.part")
            number = part.stat().st_ino
            _, run = carry_out(flavor, *given, **open_api(server, tmp_path))
        assert run.counts["done"] == 1
        assert api.posts == 1
    [entry] = read_list(tmp_path / "out")
    saved = (tmp_path / "out" / entry["file_name"]).stat()
    assert (saved.st_ino, saved.st_nlink) == (number, 1)  # the reply moved, without a copy
    assert os.listdir((tmp_path / "out" / entry["file_name"]).parent) == [Path(entry["file_name"]).name]


def reject(*_: object) -> Path:
    """Fail as a full disk does."""
    raise imgkit.SaveError("The disk is full.")


def refuse_link(*_: object) -> None:
    """Fail as a file system without links does."""
    raise OSError(errno.EPERM, "Operation not permitted")


def test_the_list_is_repaired(flavor: ServiceRunner, tmp_path: Path) -> None:
    """A line that a killed process left unfinished is cut, and the images of its request are listed again."""
    carry_out(flavor, ["a fox", "a hen"], tmp_path, defaults={"size": "32x32"})
    path = tmp_path / "metadata.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:20])
    with sqlite3.connect(tmp_path / "manifest.sqlite") as rows:
        rows.execute("UPDATE rows SET listed = 0")
    rows.close()
    carry_out(flavor, ["a fox", "a hen"], tmp_path, defaults={"size": "32x32"})
    assert sorted(path.read_bytes().splitlines()) == sorted(line.strip() for line in lines)


def test_every_image_of_a_request_is_listed_again(flavor: ServiceRunner, tmp_path: Path) -> None:
    """The second image of a request is listed again, also where the request is not done."""
    rows = [{"prompt": "a fox", "n": 2, "size": "32x32"}]
    carry_out(flavor, rows, tmp_path)
    path, lines = tmp_path / "metadata.jsonl", read_list(tmp_path)
    for state in ("done", "failed"):
        path.write_text(json.dumps(lines[0]) + "\n" + json.dumps(lines[1])[:20])
        rewrite_row(tmp_path, state, {"images": lines})
        carry_out(flavor, rows, tmp_path)
        assert read_list(tmp_path) == lines


def test_half_a_line_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full in the midst of a line leaves the list as it was."""
    output = Output(tmp_path)
    output.list_images([{"id": "a"}])

    def write_half(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("imgkit.bulk.output.write_all", write_half)
        with pytest.raises(imgkit.SaveError, match="No space left"):
            output.list_images([{"id": "b"}])
    output.list_images([{"id": "c"}])
    assert [entry["id"] for entry in read_list(tmp_path)] == ["a", "c"]


def test_a_list_that_cannot_be_written(flavor: ServiceRunner, tmp_path: Path) -> None:
    """Images whose line cannot be written stay done, the run stops, and the next one lists them."""
    path = tmp_path / "metadata.jsonl"

    def prompts() -> Iterator[str]:
        path.mkdir()  # the run has begun
        yield "a fox"

    found, run = carry_out(flavor, prompts(), tmp_path, defaults={"size": "32x32"})
    assert [outcome.state for outcome in found] == ["done"]
    assert isinstance(run.stopped, imgkit.SaveError)
    with pytest.raises(imgkit.SaveError, match="Cannot repair"):
        carry_out(flavor, ["a fox"], tmp_path, defaults={"size": "32x32"})
    path.rmdir()
    found, _ = carry_out(flavor, ["a fox"], tmp_path, defaults={"size": "32x32"})
    assert found == []
    assert [entry["id"] for entry in read_list(tmp_path)] == ["1"]


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`imgkit bulk` carries out a file, goes on, counts, and lists failures that it reads again."""
    monkeypatch.chdir(tmp_path)
    Path("p.csv").write_text('\ufeffid,prompt,size\na,a fox,64x64\nb,"a hen, red",64x64\n', "utf-8")
    assert imgkit_command(["bulk", "p.csv", "-o", "out"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert imgkit_command(["bulk", "p.csv", "-o", "out"]) == 0
    assert capsys.readouterr().out == ""
    assert imgkit_command(["bulk", "status", "out"]) == 0
    assert "2  done" in capsys.readouterr().out
    assert imgkit_command(["bulk", "failures", "out"]) == 0
    assert imgkit_command(["bulk", "status", "elsewhere"]) == 2
    Path("q.tsv").write_text("id\tprompt\tsise\na\ta fox\t64x64\n")
    assert imgkit_command(["bulk", "q.tsv", "-o", "out"]) == 2
    assert imgkit_command(["bulk", "q.txt", "-o", "out"]) == 2
    capsys.readouterr()
    Path("r.jsonl").write_text('{"prompt": "a cat", "size": "64x64"}\n')
    assert imgkit_command(["bulk", "r.jsonl", "-o", "out2", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["start", "outcome", "summary"]
    assert (events[1]["state"], events[-1]["counts"]["done"], events[-1]["exit_code"]) == ("done", 1, 0)


def test_equal_images_are_written_once(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> None:
    """An image that is at its place already stays untouched; other bytes at its place are replaced."""
    out = tmp_path / "out"
    settings: dict[str, Any] = {"api_key": KEY, "state_folder": tmp_path / "state"}
    for prompts in (["a"], ["a", "b"], ["a", "b", "c"]):
        with WireServer(reply(200, answer(png(1, 400)))) as server:
            carry_out(flavor, prompts, out, http_backend, base_url=server.base_url, **settings)
        (path,) = (out / "images").rglob("*.png")
        assert path.read_bytes() == png(1, 400)
        if prompts == ["a"]:
            first = path.stat().st_ino
        assert (path.stat().st_ino == first) == (len(prompts) < 3)
        if len(prompts) == 2:
            path.write_bytes(bytes(len(png(1, 400))))
    assert len((out / "metadata.jsonl").read_text().splitlines()) == 3
    assert not list(out.rglob(".imgkit-*"))
    assert not list((tmp_path / "state" / "spool").glob("2*"))


def test_many_rows_check_the_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output folder is checked at the start of a run, and once a second from then on."""
    probes: list[Path] = []
    monkeypatch.setattr("imgkit.images.saving.create_empty", lambda path, _: probes.append(path))
    plan = Output(tmp_path).plan
    plan.check()
    plan.check()
    assert len(probes) == 1
    monkeypatch.setattr(time, "monotonic", lambda: 1e9)
    plan.check()
    Output(tmp_path).plan.check()
    assert len(probes) == 3


@pytest.mark.parametrize(("name", "words"), [("inflight", "most_in_flight"), ("size", "belong in defaults=")])
def test_unknown_options(name: str, words: str, tmp_path: Path) -> None:
    """Names the options of a run, and where the parameters of its requests belong."""
    options: dict[str, Any] = {name: 1}
    with imgkit.ImageService() as service, pytest.raises(imgkit.ConfigurationError, match=words) as caught:
        service.bulk(["a fox"], folder=tmp_path, **options)
    assert caught.value.field == name
