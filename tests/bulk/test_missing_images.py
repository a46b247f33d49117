"""Images that a run has no longer: files that were deleted, and those of amended rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from imgkit.bulk import missing_images
from imgkit.bulk.bulk_run import BulkRun
from imgkit.bulk.manifest import Manifest
from imgkit.bulk.output import METADATA, Output
from imgkit.cli.run import run as imgkit_command
from imgkit.testing.wire_server import WireServer, serve_fake
from tests.bulk.test_bulk import carry_out, open_api, read_list
from tests.bulk.test_bulk_recovery import SYNC, Parts, list_indexes, run_parts
from tests.bulk.test_damaged_images import say
from tests.conftest import ServiceRunner
from tests.support.pictures import noise

ROWS = [{"id": "fox", "prompt": "a fox"}, {"id": "hen", "prompt": "a hen"}, {"id": "owl", "prompt": "an owl"}]
FOREIGN = '{"file_name": "mine.png", "note": "my own"}\n'


def find_image(out: Path, row_id: str) -> Path:
    """Return the file of a row's image."""
    [name] = [entry["file_name"] for entry in read_list(out) if entry["id"] == row_id]
    return out / str(name)


def run_rows(server: WireServer, folder: Path, rows: Any = ROWS, **more: Any) -> BulkRun:
    """Carry out a run of some rows, and return it."""
    flavor = more.pop("flavor", SYNC)
    backend = "requests" if flavor.flavor == "sync" else "aiohttp"
    given: dict[str, Any] = {**open_api(server, folder), "most_in_flight": 1, **more}
    return carry_out(flavor, rows, folder / "out", backend, **given)[1]


def test_a_deleted_image(flavor: ServiceRunner, tmp_path: Path) -> None:
    """Its row is unknown at the end of the next run, is not listed, and is sent again only when asked."""
    api, out = Parts(), tmp_path / "out"
    with serve_fake(api) as server:
        run = run_rows(server, tmp_path, flavor=flavor)
        assert run.missing == {}
        find_image(out, "hen").unlink()
        run = run_rows(server, tmp_path, [*ROWS, {"id": "cat", "prompt": "a cat"}], flavor=flavor)
        assert (dict(run.missing), run.counts["unknown"], run.counts["done"]) == ({"hen": "done"}, 1, 3)
        assert [entry["id"] for entry in read_list(out)] == ["fox", "owl", "cat"]
        run = run_rows(server, tmp_path, flavor=flavor)
        assert (run.missing, run.counts["unknown"], len(api.bodies)) == ({}, 1, 4)
        run = run_rows(server, tmp_path, retry_unknown=True, flavor=flavor)
    assert (run.counts["done"], len(api.bodies)) == (4, 5)
    assert [entry["id"] for entry in read_list(out)] == ["fox", "owl", "cat", "hen"]
    assert all((out / entry["file_name"]).is_file() for entry in read_list(out))


def test_an_image_that_is_back(tmp_path: Path) -> None:
    """A deleted image whose file is put back is listed again, and nothing is sent for it."""
    api, out = Parts(), tmp_path / "out"
    with serve_fake(api) as server:
        run_rows(server, tmp_path)
        before = sorted(entry["id"] for entry in read_list(out))
        path = find_image(out, "fox")
        path.rename(tmp_path / "away.png")
        assert run_rows(server, tmp_path).counts["unknown"] == 1
        (tmp_path / "away.png").rename(path)
        run = run_rows(server, tmp_path, retry_unknown=True)
        assert (run.counts["done"], len(api.bodies)) == (3, 3)
        assert sorted(entry["id"] for entry in read_list(out)) == before
        assert run_rows(server, tmp_path).missing == {}


def test_a_deleted_image_of_several(tmp_path: Path) -> None:
    """Sends for the deleted image of a row only, and keeps the others listed."""
    api, out = Parts(), tmp_path / "out"
    with serve_fake(api) as server:
        run_parts(server, tmp_path)
        [entry] = [entry for entry in read_list(out) if entry["index"] == 1]
        (out / entry["file_name"]).unlink()
        _, run = run_parts(server, tmp_path)
        assert (run.counts["unknown"], list_indexes(tmp_path)) == (1, [0, 2])
        _, run = run_parts(server, tmp_path, retry_unknown=True)
    assert (run.counts["done"], list_indexes(tmp_path), len(api.bodies)) == (1, [0, 1, 2], 4)


def test_a_run_that_stops_looks_for_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output is listed at the end of a run that has earlier images, if a folder has changed since."""
    looks: list[Path] = []
    list_names = missing_images.list_names

    def look(output: Output) -> set[int] | None:
        looks.append(output.folder)
        return list_names(output)

    monkeypatch.setattr(missing_images, "list_names", look)
    small: dict[str, Any] = {"defaults": {"size": "32x32"}}
    carry_out(SYNC, ["a fox"], tmp_path, **small)
    carry_out(SYNC, ["a fox", "a hen", "a cat"], tmp_path, most=1, **small)
    assert looks == []
    for _ in range(3):
        carry_out(SYNC, ["a fox", "a hen", "a cat"], tmp_path, **small)
    assert looks == [tmp_path]
    find_image(tmp_path, "1").unlink()
    _, run = carry_out(SYNC, ["a fox", "a hen", "a cat"], tmp_path, **small)
    assert (looks, dict(run.missing)) == ([tmp_path] * 2, {"1": "done"})


def test_the_command_names_missing_images(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The command names the rows of deleted images, ends with 9, and says how to go on."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    command = ["bulk", str(rows), "-o", str(tmp_path / "out"), "--size", "32x32"]
    assert imgkit_command(command) == 0
    find_image(tmp_path / "out", "hen").unlink()
    capfd.readouterr()
    assert imgkit_command(command) == 9
    shown = capfd.readouterr().err
    assert "The images of 1 request are missing in the output: 'hen'." in " ".join(shown.split())
    assert "--retry-unknown" in shown
    find_image(tmp_path / "out", "owl").unlink()
    assert imgkit_command([*command, "--json"]) == 9
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["missing_ids"] == ["owl"]


@pytest.mark.parametrize("is_lazy", [False, True], ids=["list", "iterable"])
def test_the_line_of_an_amended_row(is_lazy: bool, tmp_path: Path) -> None:
    """An amended row has the line of its new image only; its old file and foreign lines stay."""
    api, out = Parts(), tmp_path / "out"
    with serve_fake(api) as server:
        run_rows(server, tmp_path)
        old = find_image(out, "hen")
        with (out / METADATA).open("a") as file:
            file.write(FOREIGN)
        rows = [ROWS[0], {**ROWS[1], "prompt": "a red hen"}, ROWS[2]]
        given: Any = iter(rows) if is_lazy else rows
        run = run_rows(server, tmp_path, given, amend=True)
        lines = (out / METADATA).read_text().splitlines(keepends=True)
        assert run_rows(server, tmp_path, rows).missing == {}
    assert (run.counts["done"], len(api.bodies)) == (3, 4)
    assert lines.count(FOREIGN) == 1
    entries = [json.loads(line) for line in lines if line != FOREIGN]
    assert sorted(entry["id"] for entry in entries) == ["fox", "hen", "owl"]
    assert [entry["prompt"] for entry in entries if entry["id"] == "hen"] == ["a red hen"]
    assert old.is_file()
    assert (out / METADATA).read_text().splitlines(keepends=True) == lines


def test_an_amended_row_with_an_equal_image(tmp_path: Path) -> None:
    """An amended row whose new image is the old one has a single line, of the new request."""
    with serve_fake(Parts(say(noise(9)), say(noise(9)))) as server:
        run_rows(server, tmp_path, ROWS[:1])
        before = find_image(tmp_path / "out", "fox")
        run_rows(server, tmp_path, iter([{"id": "fox", "prompt": "a red fox"}]), amend=True)
    [entry] = read_list(tmp_path / "out")
    assert (tmp_path / "out" / entry["file_name"], entry["prompt"]) == (before, "a red fox")


def test_a_kill_before_lines_are_dropped(tmp_path: Path) -> None:
    """The next run drops the lines that an amending process has left."""
    small: dict[str, Any] = {"defaults": {"size": "32x32"}}
    carry_out(SYNC, ROWS, tmp_path, **small)
    manifest = Manifest(tmp_path)
    manifest.add_dropped([entry for entry in read_list(tmp_path) if entry["id"] == "owl"])
    row = manifest.find("owl")
    assert row is not None
    manifest.mark(row.number, "blocked", {})
    manifest.close()
    carry_out(SYNC, ROWS, tmp_path, **small)
    assert sorted(entry["id"] for entry in read_list(tmp_path)) == ["fox", "hen"]
    manifest = Manifest(tmp_path)
    assert manifest.list_dropped() == []
    manifest.close()
