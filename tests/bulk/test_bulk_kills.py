"""Killed runs: nothing is paid twice, and nothing that was paid is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.bulk_kills import Scene, kill_runs


@pytest.mark.parametrize(
    "scene", [Scene("sync", "requests", "bfl"), Scene("async", "aiohttp", "openai")], ids=" ".join
)
def test_killed_runs(scene: Scene, tmp_path: Path) -> None:
    """Every paid request is at its place, in a job, or listed as unknown; the rest is sent once."""
    report = kill_runs(tmp_path, 3, seed=7, scene=scene)
    assert report.problems == []
    assert report.counts["kills"] == 3
