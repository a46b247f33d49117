"""The table in docs/errors.md of the failures that are sent again: it is made by the code that decides."""

from __future__ import annotations

import pytest

from imgkit.core import send
from imgkit.providers import OpenAIProvider
from tests.support.failure_table import build_table, split_page


def test_the_table_is_true() -> None:
    """The page has the table that real calls make; ``python -m tests.support.failure_table`` writes it."""
    _, table, _ = split_page()
    assert table == build_table()


@pytest.mark.parametrize("rule", ["classify", "free", "wait"])
def test_the_table_notices_a_changed_rule(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of any rule that decides makes the table false."""
    if rule == "classify":
        monkeypatch.setattr(send, "classify_failure", lambda error: None)
    elif rule == "free":
        monkeypatch.setattr(OpenAIProvider, "failure_is_free", lambda *_: True)
    else:
        monkeypatch.setattr("imgkit.default_plugins.retry.UNSENT_ATTEMPTS", 5)
    _, table, _ = split_page()
    assert table != build_table()
