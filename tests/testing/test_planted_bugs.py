"""The contract of providers finds every planted bug, and says what is wrong."""

from __future__ import annotations

import pytest

from imgkit.providers import OpenAIProvider, Provider
from imgkit.testing import StreamingProviderContract
from tests.support.openai_samples import OpenAISamples
from tests.testing import planted_reply_bugs, planted_request_bugs, planted_stream_bugs
from tests.testing.planted_bugs import PLANTED_BUGS, PlantedBug

# Each module adds its bugs to the table when it is imported.
MODULES = (planted_reply_bugs, planted_request_bugs, planted_stream_bugs)
CONTRACT_TESTS = {name for name in dir(StreamingProviderContract) if name.startswith("test_")}


class Contract(OpenAISamples, StreamingProviderContract):
    """The contract of a provider class.

    Args:
        kind: the class.
    """

    def __init__(self, kind: type[OpenAIProvider]) -> None:
        self.kind = kind

    def provider(self) -> Provider:
        return self.kind()


@pytest.mark.parametrize("bug", PLANTED_BUGS, ids=lambda bug: bug.provider.__name__)
def test_finds_a_planted_bug(bug: PlantedBug) -> None:
    """Fails the provider in the test of its bug, with a message that names the bug."""
    with pytest.raises(AssertionError, match=f"(?s){bug.message}"):
        getattr(Contract(bug.provider), bug.test)(*bug.arguments)


def test_each_bug_has_a_reason() -> None:
    """Says in one line why each planted bug matters."""
    assert len(PLANTED_BUGS) >= 16
    reasons = [bug.provider.__doc__ or "" for bug in PLANTED_BUGS]
    assert all(reason and "\n" not in reason for reason in reasons)


def test_each_contract_test_can_fail() -> None:
    """Has a planted bug for each test of the contract."""
    assert {bug.provider.__module__ for bug in PLANTED_BUGS} > {module.__name__ for module in MODULES}
    assert CONTRACT_TESTS - {bug.test for bug in PLANTED_BUGS} == set()
