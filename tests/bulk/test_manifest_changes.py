"""Changes of rows are written together, and a large manifest opens without a read of all of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from imgkit.bulk import manifest as manifest_module
from imgkit.bulk.manifest import STATES, Manifest, NewRow
from imgkit.errors import ConfigurationError


def open_manifest(folder: Path, count: int = 40) -> Manifest:
    """Return a manifest with some rows."""
    manifest = Manifest(folder)
    manifest.add(NewRow(str(number), b"x", {"prompt": "a fox" * 50}) for number in range(1, count + 1))
    return manifest


def test_changes_that_come_together_are_one_transaction(tmp_path: Path) -> None:
    """Threads that wait for the file share a transaction, and each finds its change written."""
    manifest = open_manifest(tmp_path)
    statements: list[str] = []
    manifest._rows.set_trace_callback(statements.append)
    with ThreadPoolExecutor(16) as pool:
        with manifest._guard:  # as during a slow flush
            marks = [pool.submit(manifest.mark, number, "sending", {"n": number}) for number in range(1, 17)]
            while len(manifest._changes) < 16:
                pass
        for mark in marks:
            mark.result()
    assert statements.count("COMMIT") == 1
    assert [row.info for row in manifest.list_rows("sending")] == [{"n": number} for number in range(1, 17)]
    assert manifest.count()["sending"] == 16
    manifest.close()


def test_failed_change_reaches_each_caller(tmp_path: Path) -> None:
    """A change that the disk rejects raises an error in its own thread, and later changes go on."""
    manifest = open_manifest(tmp_path)
    manifest._rows.execute("PRAGMA query_only = ON")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        manifest.mark(1, "sending", {})
    manifest._rows.execute("PRAGMA query_only = OFF")
    manifest.mark(2, "sending", {})
    assert [row.number for row in manifest.list_rows("sending")] == [2]
    manifest.close()


def test_listed_rows_are_written_at_the_end(tmp_path: Path) -> None:
    """A row that is listed is unlisted again for no run that reads or closes the manifest."""
    manifest = open_manifest(tmp_path)
    for number in (1, 2):
        manifest.mark(number, "done", {"images": []}, durable=False)
    manifest.mark_listed([1], None)
    assert [row.number for row in manifest.list_unlisted()] == [2]
    manifest.mark_listed([2], None)
    manifest.close()
    again = Manifest(tmp_path)
    assert again.list_unlisted() == []
    again.close()


def test_costs_of_rows_that_wait_again(tmp_path: Path) -> None:
    """The costs of earlier attempts stay in the sum while their rows wait, and after they are amended."""
    manifest = open_manifest(tmp_path, 3)
    assert str(manifest.sum_costs()) == "0"
    manifest.mark(1, "waiting", {"covered": [[0, 1]], "cost": "0.04"})
    manifest.mark(2, "done", {"images": [], "cost": "0.10"})
    manifest.mark(3, "unknown", {"sent": []})
    manifest.close()
    manifest = Manifest(tmp_path)
    manifest.add([NewRow(number, b"y", {"prompt": "a hen"}) for number in ("2", "3")], amend=True)
    assert str(manifest.sum_costs()) == "0.14"
    assert [row.info for row in manifest.list_waiting()[1:]] == [{"cost": "0.10"}, {"unpriced": True}]
    assert [row.id for row in manifest.list_without_cost()] == ["3"]
    manifest.close()


@pytest.mark.parametrize("damage", ["cut", "zeros"])
def test_large_damaged_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    """A manifest that is too large to be read through is refused if it is cut, or once a page is wrong."""
    open_manifest(tmp_path, 4000).close()
    path = tmp_path / manifest_module.FILE
    size = path.stat().st_size
    with path.open("r+b") as file:
        if damage == "cut":
            file.truncate(size // 2 // 4096 * 4096)
        else:
            file.seek(8192)
            file.write(bytes(size - 8192))
    monkeypatch.setattr("imgkit.bulk.manifest_file.CHECKED_BYTES", 0)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        Manifest(tmp_path)


def test_finding_what_is_left_uses_indexes(tmp_path: Path) -> None:
    """No look for what is left reads the rows that are done: there may be a million."""
    manifest = open_manifest(tmp_path)
    queries: list[str] = []
    manifest._rows.set_trace_callback(queries.append)
    manifest.list_unlisted()
    for state in STATES:
        if state not in ("waiting", "done"):
            assert list(manifest.list_rows(state)) == []
    manifest.list_waiting()
    manifest.count()
    manifest._rows.set_trace_callback(None)
    plans = [str(manifest._rows.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()) for query in queries]
    assert len(plans) > 8
    assert all("INDEX" in plan and "PRIMARY KEY" not in plan for plan in plans), plans
    manifest.close()


def test_a_request_that_waits_with_some_of_its_images(tmp_path: Path) -> None:
    """Its images stay in the list, and their cost counts, while it waits for the others."""
    manifest = open_manifest(tmp_path)
    images = [{"file_name": "images/ab/ab.png"}]
    manifest.mark(1, "waiting", {"images": images, "covered": [[0, 1]], "cost": "0.04"})
    manifest.mark(2, "waiting", {"images": images, "covered": [[0, 1]]})
    manifest.mark(3, "waiting", {"error": "RateLimitError: Busy."})
    manifest.mark(4, "done", {"images": images, "cost": "0.5"})
    assert [row.number for row in manifest.list_with_images()] == [1, 2, 4]
    assert manifest.sum_costs() == Decimal("0.54")
    assert [row.number for row in manifest.list_without_cost()] == [2]
    manifest.close()
