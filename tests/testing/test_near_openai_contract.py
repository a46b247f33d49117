"""The contract of providers near OpenAI: xai, together and, with its streams, openrouter pass it."""

from __future__ import annotations

from imgkit.testing import ProviderContract, StreamingProviderContract
from tests.support.near_openai_samples import OpenRouterSamples, TogetherSamples, XaiSamples


class TestXai(XaiSamples, ProviderContract):
    """The provider of xAI passes the contract."""


class TestOpenRouter(OpenRouterSamples, StreamingProviderContract):
    """The provider of OpenRouter passes the contract of streams."""


class TestTogether(TogetherSamples, ProviderContract):
    """The provider of Together passes the contract."""
