"""The contract of providers of jobs: bfl, fal, comfyui and ideogram pass; it finds every planted bug."""

from __future__ import annotations

from typing import Any

import pytest

from imgkit.providers import ComfyUIProvider, Provider
from imgkit.providers.bfl import BflProvider
from imgkit.providers.fal import FalProvider
from imgkit.testing import JobProviderContract, ProviderContract
from tests.support.job_samples import BflSamples, ComfyUISamples, FalSamples, IdeogramSamples
from tests.testing.planted_job_bugs import PLANTED_JOB_BUGS, PlantedJobBug


class TestBfl(BflSamples, JobProviderContract):
    """The provider of Black Forest Labs passes the contract."""


class TestFal(FalSamples, JobProviderContract):
    """The provider of fal.ai passes the contract."""


class TestComfyUI(ComfyUISamples, JobProviderContract):
    """The provider of ComfyUI passes the contract."""


class TestIdeogram(IdeogramSamples, JobProviderContract):
    """The provider of Ideogram passes the contract."""


class Planted:
    """A contract of a provider class with a bug.

    Args:
        kind: the class.
    """

    def __init__(self, kind: type[Any]) -> None:
        self.kind = kind

    def provider(self) -> Provider:
        provider: Provider = self.kind()
        return provider


class FalContract(Planted, FalSamples, JobProviderContract):
    """The contract of a class that derives from the provider of fal.ai."""


class ComfyUIContract(Planted, ComfyUISamples, JobProviderContract):
    """The contract of a class that derives from the provider of ComfyUI."""


class BflContract(Planted, BflSamples, JobProviderContract):
    """The contract of a class that derives from the provider of Black Forest Labs."""


@pytest.mark.parametrize("bug", PLANTED_JOB_BUGS, ids=lambda bug: bug.provider.__name__)
def test_finds_a_planted_bug_of_jobs(bug: PlantedJobBug) -> None:
    """Fails the provider in the test of its bug, with a message that names the bug."""
    contracts = {BflProvider: BflContract, ComfyUIProvider: ComfyUIContract, FalProvider: FalContract}
    contract = next(contracts[kind] for kind in bug.provider.mro() if kind in contracts)
    with pytest.raises(AssertionError, match=f"(?s){bug.message}"):
        getattr(contract(bug.provider), bug.test)()


def test_each_test_of_jobs_can_fail() -> None:
    """Has a planted bug with a reason for each test of the contract."""
    own = {name for name in dir(JobProviderContract) if name.startswith("test_")} - set(dir(ProviderContract))
    assert own - {bug.test for bug in PLANTED_JOB_BUGS} == set()
    reasons = [bug.provider.__doc__ or "" for bug in PLANTED_JOB_BUGS]
    assert all(reason and "\n" not in reason for reason in reasons)
