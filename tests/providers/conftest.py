"""Fixtures of the tests of providers."""

from __future__ import annotations

import pytest

from imgkit.core import job_requests


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between polls, so that no test waits for them."""
    monkeypatch.setattr(job_requests, "FIRST_PAUSE_S", 0.005)
    monkeypatch.setattr(job_requests, "LONGEST_PAUSE_S", 0.01)
