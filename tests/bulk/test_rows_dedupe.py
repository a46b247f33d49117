"""Equal rows: different images by default, a single request with `dedupe`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imgkit.bulk import bulk_run as run_module
from imgkit.bulk.manifest import Manifest
from imgkit.cli.run import run as imgkit_command
from imgkit.providers.fakes import json_reply
from imgkit.testing.wire_server import serve_fake
from tests.bulk.test_bulk import (
    OUTCOMES,
    BadPrompts,
    carry_out,
    open_api,
    read_list,
)
from tests.conftest import ServiceRunner

SIZE = {"size": "32x32"}


def build_rows(*groups: str) -> list[dict[str, str]]:
    """Return a row for each letter, with the letters of a group as its prompt and equal requests."""
    return [{"id": letter, "prompt": group} for group in groups for letter in group]


def count_posts(
    flavor: ServiceRunner, rows: Any, folder: Path, bad: str = "refused", **options: Any
) -> tuple[int, dict[str, str], Any]:
    """Carry out rows at a server; return its paid requests, the state of each row, and the run."""
    api = BadPrompts(OUTCOMES[bad][0])
    with serve_fake(api) as server:
        backend = "requests" if flavor.flavor == "sync" else "aiohttp"
        found, run = carry_out(flavor, rows, folder / "out", backend,
                               **open_api(server, folder), **options)  # fmt: skip
    states = {outcome.id: str(outcome.state) for outcome in found}
    assert len(states) == len(found)
    return api.posts, states, run


@pytest.mark.parametrize("is_list", [True, False])
def test_equal_rows(
    flavor: ServiceRunner, is_list: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `dedupe`, each group of equal rows is sent once; all are listed under their own ids."""
    monkeypatch.setattr(run_module, "CHUNK", 3)
    rows = build_rows("abcdefgh", "ijk", "l")
    mixed = [rows[index] for index in (0, 8, 1, 2, 11, 9, 3, 4, 5, 10, 6, 7)]
    given: Any = mixed if is_list else iter(mixed)
    posts, states, run = count_posts(flavor, given, tmp_path, dedupe=True)
    assert posts == 3
    assert states == dict.fromkeys("abcdefghijkl", "done")
    assert (run.counts["done"], run.counts["waiting"]) == (12, 0)
    listed = read_list(tmp_path / "out")
    assert sorted(entry["id"] for entry in listed) == list("abcdefghijkl")
    assert len({entry["file_name"] for entry in listed if entry["prompt"] == "abcdefgh"}) == 1
    given = mixed if is_list else iter(mixed)
    assert count_posts(flavor, given, tmp_path, dedupe=True)[:2] == (0, {})


def test_equal_rows_without_dedupe(flavor: ServiceRunner, tmp_path: Path) -> None:
    """Equal rows under different ids are different images by default, also in a run that was deduped."""
    assert count_posts(flavor, build_rows("abc"), tmp_path)[0] == 3
    later = tmp_path / "later"
    count_posts(flavor, build_rows("bad"), later, bad="refused", dedupe=True)
    assert count_posts(flavor, build_rows("bad", "xyz"), later, most=1, most_in_flight=1, dedupe=True)[0] == 1
    posts, states, _ = count_posts(flavor, build_rows("bad", "xyz"), later)
    assert (posts, sorted(states)) in ((2, ["y", "z"]), (0, []))


@pytest.mark.parametrize(("bad", "state"), [(name, state) for name, (_, state) in OUTCOMES.items()])
def test_followers_copy_any_outcome(flavor: ServiceRunner, bad: str, state: str, tmp_path: Path) -> None:
    """Followers end as their leader does, and do not count as refusals of their own."""
    posts, states, run = count_posts(
        flavor, build_rows("bad"), tmp_path, bad=bad, dedupe=True, stop_after_blocked=2
    )
    assert (posts, states) == (1, dict.fromkeys("bad", state))
    assert run.stopped in (None, "The outcomes were left before their end.")
    assert count_posts(flavor, build_rows("bad"), tmp_path, bad=bad, dedupe=True)[:2] == (0, {})
    if state == "unknown":
        posts, states, _ = count_posts(
            flavor, build_rows("bad"), tmp_path, bad=bad, dedupe=True, retry_unknown=True
        )
        assert (posts, len(states)) == (1, 3)


def test_a_killed_run_copies_later(flavor: ServiceRunner, tmp_path: Path) -> None:
    """A follower that an earlier process did not reach copies the outcome in the next run, unpaid."""
    rows = build_rows("abc")
    count_posts(flavor, rows, tmp_path, dedupe=True)
    manifest = Manifest(tmp_path / "out")
    manifest.mark(3, "waiting", {})
    manifest.close()
    posts, states, _ = count_posts(flavor, rows, tmp_path, dedupe=True)
    assert (posts, states) == (0, {"c": "done"})


def test_a_copy_of_a_repeated_request_lists_new_images_only(flavor: ServiceRunner, tmp_path: Path) -> None:
    """A follower that copies again, once its leader has more images, lists no image twice."""
    rows = build_rows("ab")
    count_posts(flavor, rows, tmp_path, dedupe=True)
    manifest = Manifest(tmp_path / "out")
    follower = manifest.find_number(2)
    assert follower is not None
    manifest.mark(2, "waiting", {"images": follower.info["images"]})
    manifest.close()
    assert count_posts(flavor, rows, tmp_path, dedupe=True)[:2] == (0, {"b": "done"})
    assert [entry["id"] for entry in read_list(tmp_path / "out")] == ["a", "b"]


def test_a_leader_that_is_no_longer_listed(flavor: ServiceRunner, tmp_path: Path) -> None:
    """The first of the rows that waited for it goes in its place; rows that are not listed are left out."""
    rows = build_rows("abcd")
    count_posts(flavor, rows, tmp_path, dedupe=True)
    manifest = Manifest(tmp_path / "out")
    for number in (1, 2, 3, 4):
        manifest.mark(number, "waiting", {})
    manifest.close()
    more = build_rows("xyz")
    posts, states, run = count_posts(flavor, more, tmp_path, dedupe=True, extend=True)
    assert (posts, set(states), run.left_out, run.counts["waiting"]) == (1, set("xyz"), 4, 0)
    posts, states, run = count_posts(flavor, [*rows[1:3], *more], tmp_path, dedupe=True)
    assert (posts, set(states)) == (1, set("bcd")), "all copies of a sent request are free"
    assert (run.left_out, run.counts["waiting"]) == (1, 0)
    assert count_posts(flavor, rows, tmp_path, dedupe=True)[:2] == (0, {"a": "done"})


def test_a_leader_that_an_iterable_brings_later(flavor: ServiceRunner, tmp_path: Path) -> None:
    """Equal rows of an iterable are sent once, also if the row that led them comes last or not at all."""
    rows = build_rows("abc")
    count_posts(flavor, rows, tmp_path, dedupe=True)
    manifest = Manifest(tmp_path / "out")
    for number in (1, 2, 3):
        manifest.mark(number, "waiting", {})
    manifest.close()
    assert count_posts(flavor, iter(rows[1:2]), tmp_path, dedupe=True)[0] == 1
    posts, states, _ = count_posts(flavor, iter([rows[2], rows[1], rows[0]]), tmp_path, dedupe=True)
    assert (posts, states) == (0, {"a": "done"})


def test_amended_leaders(flavor: ServiceRunner, tmp_path: Path) -> None:
    """A leader that is amended leaves its followers to the next of them."""
    rows = build_rows("abcd")
    count_posts(flavor, rows, tmp_path, dedupe=True)
    manifest = Manifest(tmp_path / "out")
    for number in (1, 2, 3, 4):
        manifest.mark(number, "waiting", {})
    manifest.close()
    rows[0] = {"id": "a", "prompt": "another"}
    posts, states, _ = count_posts(flavor, rows, tmp_path, dedupe=True, amend=True)
    assert (posts, set(states)) == (2, set("abcd"))


def test_a_slow_leader(flavor: ServiceRunner, tmp_path: Path) -> None:
    """An endless iterable may repeat a request at any time."""

    def forever() -> Iterator[dict[str, str]]:
        number = 0
        while True:
            number += 1
            yield {"id": str(number), "prompt": f"{number % 3}"}

    api = BadPrompts(json_reply(500, {}))
    with serve_fake(api) as server:
        found, _ = carry_out(flavor, forever(), tmp_path / "out", "requests", most=40, dedupe=True,
                             **open_api(server, tmp_path))  # fmt: skip
        assert api.posts == 3
    assert Counter(outcome.state for outcome in found) == {"done": 40}


def test_the_command_dedupes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`imgkit bulk --dedupe` sends equal rows once, and prices them once."""
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("id,prompt,size\na,x,32x32\nb,x,32x32\nc,y,32x32\n")
    assert imgkit_command(["bulk", "a.csv", "-o", "out", "--dedupe"]) == 0
    shown = capsys.readouterr()
    assert "2 requests to send" in shown.err
    assert len(shown.out.splitlines()) == 3
    assert len(read_list(Path("out"))) == 3
