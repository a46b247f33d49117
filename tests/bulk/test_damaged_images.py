"""Replies of a run whose bytes are no whole image: not listed, not lost, and not paid again by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from imgkit.bulk.output import METADATA
from imgkit.providers.fakes import FakeReply, json_reply
from imgkit.testing import answer
from imgkit.testing.wire_server import serve_fake
from tests.bulk.test_bulk import KEY, carry_out, open_api, read_list
from tests.bulk.test_bulk_recovery import SYNC, Parts, list_indexes, run_parts
from tests.bulk.test_engines import ThreadEngine
from tests.conftest import ServiceRunner
from tests.support.pictures import noise

ZEROS, CUT = bytes(3), noise(7)[:-20]
AVIF = b"\0\0\0\x1cftypavif" + bytes(20)


def say(*images: bytes) -> FakeReply:
    """Return a reply with these bytes in place of images."""
    return json_reply(200, answer(*images))


def list_kept(out: Path) -> list[bytes]:
    """Return the bytes that are kept without being listed."""
    return [path.read_bytes() for path in (out / "images").glob("*/*.bin")]


@pytest.mark.parametrize(
    ("data", "problem", "backend"),
    [
        (ZEROS, "unrecognized data, and no image", "requests"),
        (CUT, "is cut off", "requests"),
        (CUT, "is cut off", "aiohttp"),
        (AVIF, "AVIF", "aiohttp"),
    ],
)
def test_a_reply_without_an_image(data: bytes, problem: str, backend: str, tmp_path: Path) -> None:
    """Its row is unknown, its bytes are kept and not listed, and only `retry_unknown` sends it again."""
    flavor = ServiceRunner("async" if backend == "aiohttp" else "sync")
    api, out = Parts(say(data)), tmp_path / "out"
    with serve_fake(api) as server:
        given: dict[str, Any] = open_api(server, tmp_path)
        (outcome,), run = carry_out(flavor, ["a fox"], out, backend, **given)
        assert (outcome.state, outcome.paths, run.counts["unknown"]) == ("unknown", (), 1)
        assert problem in str(outcome.error)
        assert ".bin" in str(outcome.error)
        assert not (out / METADATA).exists()
        assert list_kept(out) == [data]
        assert list((out / "images").glob("*/*.png")) == []
        _, run = carry_out(flavor, ["a fox"], out, backend, **given)
        assert (run.counts["unknown"], len(api.bodies)) == (1, 1)
        (outcome,), run = carry_out(flavor, ["a fox"], out, backend, retry_unknown=True, **given)
    assert (outcome.state, len(api.bodies), len(read_list(out))) == ("done", 2, 1)


@pytest.mark.parametrize("engine", [None, ThreadEngine])
def test_some_images_of_a_row(
    engine: type[ThreadEngine] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists the whole images of a row, and sends for the damaged ones only, when asked to."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("IMGKIT_HOME", str(tmp_path / "state"))
    api = Parts(say(noise(1), ZEROS, noise(2)), say(noise(3)))
    out, rows = tmp_path / "out", [{"id": "a", "prompt": "a fox", "n": 3}]
    with serve_fake(api) as server:
        given: dict[str, Any] = {"base_url": f"{server.origin}/v1"}

        def start(**more: Any) -> Any:
            made: dict[str, Any] = {} if engine is None else {"engine": engine()}
            return carry_out(SYNC, rows, out, "requests", **given, **made, **more)

        (outcome,), _ = start()
        assert (outcome.state, list_indexes(tmp_path), list_kept(out)) == ("unknown", [0, 2], [ZEROS])
        _, run = start()
        assert (run.counts["unknown"], len(api.bodies)) == (1, 1)
        (outcome,), _ = start(retry_unknown=True)
    assert (outcome.state, list_indexes(tmp_path)) == ("done", [0, 1, 2])
    assert [body.get("n") for body in api.bodies] == [3, 1]


def test_a_damaged_part_of_a_row(tmp_path: Path) -> None:
    """A damaged reply to one of three requests leaves the images of the others listed."""
    api = Parts(None, say(ZEROS))
    with serve_fake(api) as server:
        (outcome,), _ = run_parts(server, tmp_path)
        assert (outcome.state, len(outcome.paths)) == ("unknown", 2)
        (outcome,), _ = run_parts(server, tmp_path, retry_unknown=True)
    assert (outcome.state, list_indexes(tmp_path), len(api.bodies)) == ("done", [0, 1, 2], 4)


def test_damaged_bytes_at_a_url(tmp_path: Path) -> None:
    """Uploads bytes that are no image without listing them."""
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    url: Any = "memory://damaged"
    with serve_fake(Parts(say(ZEROS), say(CUT))) as server:
        given: dict[str, Any] = {**open_api(server, tmp_path), "run_folder": tmp_path / "run"}
        found, _ = carry_out(SYNC, ["a fox", "a hen"], url, "requests", **given)
    assert [outcome.state for outcome in found] == ["unknown", "unknown"]
    kept = [memory.cat_file(name) for name in memory.find("/damaged/images")]
    assert sorted(kept) == sorted([ZEROS, CUT])
    assert all(name.endswith(".bin") for name in memory.find("/damaged/images"))
    assert not memory.exists("/damaged/metadata.jsonl")


def test_ten_replies_without_an_image(tmp_path: Path) -> None:
    """Stops a run after ten replies in a row that hold no image: each of them may cost money."""
    api = Parts(*[say(ZEROS)] * 30)
    with serve_fake(api) as server:
        given: dict[str, Any] = {**open_api(server, tmp_path), "most_in_flight": 1}
        _, run = carry_out(SYNC, [f"fox {n}" for n in range(30)], tmp_path / "out", "requests", **given)
    assert (len(api.bodies), run.counts["unknown"], run.counts["waiting"]) == (10, 10, 20)
