"""The contract of providers: both doors to Stability's models pass it."""

from __future__ import annotations

from imgkit.testing import JobProviderContract, ProviderContract
from tests.support.stability_samples import BedrockSamples, StabilitySamples


class TestStability(StabilitySamples, JobProviderContract):
    """The provider of Stability's own API passes the contract, with its jobs."""


class TestBedrock(BedrockSamples, ProviderContract):
    """The provider of Amazon Bedrock passes the contract."""
