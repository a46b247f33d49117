"""The contract of the providers of services that host models of many makers."""

from __future__ import annotations

from imgkit.testing import JobProviderContract
from tests.support.host_samples import ComfyRouterSamples, FireworksSamples, ReplicateSamples


class TestReplicate(ReplicateSamples, JobProviderContract):
    """The provider of Replicate passes the contract."""


class TestComfyRouter(ComfyRouterSamples, JobProviderContract):
    """The provider of Comfy Router passes the contract."""


class TestFireworks(FireworksSamples, JobProviderContract):
    """The provider of Fireworks passes the contract."""
