"""The contract of providers: servers of OpenAI's shape, Hugging Face's router and Cloudflare pass it."""

from __future__ import annotations

from imgkit.testing import ProviderContract
from tests.support.server_samples import (
    CloudflareFormSamples,
    CloudflareSamples,
    HuggingFaceSamples,
    LocalAIMaskSamples,
    LocalAISamples,
    RoutedFalSamples,
    RoutedTogetherSamples,
    SGLangSamples,
    VllmSamples,
)


class TestVllm(VllmSamples, ProviderContract):
    """The provider of vLLM-Omni passes the contract."""


class TestSGLang(SGLangSamples, ProviderContract):
    """The provider of SGLang passes the contract."""


class TestLocalAI(LocalAISamples, ProviderContract):
    """The provider of LocalAI passes the contract."""


class TestLocalAIMasks(LocalAIMaskSamples, ProviderContract):
    """The provider of LocalAI passes the contract by its route for masks."""


class TestHuggingFace(HuggingFaceSamples, ProviderContract):
    """The provider of Hugging Face passes the contract by hf-inference."""


class TestRoutedFal(RoutedFalSamples, ProviderContract):
    """The provider of Hugging Face passes the contract by fal."""


class TestRoutedTogether(RoutedTogetherSamples, ProviderContract):
    """The provider of Hugging Face passes the contract by Together."""


class TestCloudflare(CloudflareSamples, ProviderContract):
    """The provider of Cloudflare passes the contract with JSON."""


class TestCloudflareForms(CloudflareFormSamples, ProviderContract):
    """The provider of Cloudflare passes the contract with forms."""
