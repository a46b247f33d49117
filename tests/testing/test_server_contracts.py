"""The contract of providers: servers of OpenAI's shape, Hugging Face's router and Cloudflare pass it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from imgkit.providers import DecodedImages, Provider
from imgkit.providers.huggingface import HuggingFaceProvider
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


class MarksNothing(HuggingFaceProvider):
    """Returns a cut image like a whole one."""

    def decode(self, *arguments: Any, **options: Any) -> DecodedImages:
        return replace(super().decode(*arguments, **options), damaged=False)


class MarksNothingContract(HuggingFaceSamples, ProviderContract):
    """The contract of such a provider."""

    def provider(self) -> Provider:
        return MarksNothing()


def test_a_cut_image_must_be_marked() -> None:
    """Fails a provider that returns the cut body of a reply without a mark."""
    with pytest.raises(AssertionError, match="cut off after"):
        MarksNothingContract().test_truncated_replies()
