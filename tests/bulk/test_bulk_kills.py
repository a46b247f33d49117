"""Killed runs: nothing is paid twice, and nothing that was paid is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ServiceRunner
from tests.support.bulk_kills import kill_runs


@pytest.mark.parametrize(
    ("flavor_name", "backend", "provider"), [("sync", "requests", "bfl"), ("async", "aiohttp", "openai")]
)
def test_killed_runs(flavor_name: str, backend: str, provider: str, tmp_path: Path) -> None:
    """Every paid request is at its place, in a job, or listed as unknown; the rest is sent once."""
    flavor = ServiceRunner(flavor_name)
    report = kill_runs(tmp_path, 3, seed=7, flavor=flavor, backend=backend, provider=provider)
    assert report.problems == []
    assert report.kills == 3
