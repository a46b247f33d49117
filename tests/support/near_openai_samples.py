"""Samples of the dialects near OpenAI's for the contracts of their providers: xai, openrouter, together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar

from imgkit.models import CreateImageEditRequest, CreateImageRequest, ImageRequest, Usage
from imgkit.providers import Provider
from imgkit.providers.openrouter import OpenRouterProvider
from imgkit.providers.together import TogetherProvider
from imgkit.providers.xai import XaiProvider
from imgkit.testing import answer, png
from tests.support.openai_samples import OpenAISamples


class XaiSamples(OpenAISamples):
    """The methods that the contract of the provider "xai" overrides."""

    endpoints: ClassVar[Mapping[str, str]] = {
        "create_image": "/images/generations",
        "create_image_edit": "/images/edits",
    }

    def provider(self) -> Provider:
        return XaiProvider()

    def requests(self) -> list[ImageRequest]:
        return [
            CreateImageRequest(prompt="a fox", n=2, aspect_ratio="9:19.5"),
            CreateImageEditRequest(image=(png(1), png(2)), prompt="a hat"),
        ]

    def error_reply(self, message: str) -> bytes:
        return json.dumps({"code": "invalid", "error": message}).encode()


class OpenRouterSamples(XaiSamples):
    """The methods that the contract of the provider "openrouter" overrides."""

    sends_partial_images: ClassVar[bool] = False

    endpoints: ClassVar[Mapping[str, str]] = {"create_image": "/images", "create_image_edit": "/images"}

    def provider(self) -> Provider:
        return OpenRouterProvider()

    def usage_reply(self, pictures: list[bytes], usage: Usage) -> bytes:
        return json.dumps({**answer(*pictures), "usage": to_prompt_tokens(usage)}).encode()

    def usage_event(self, image: bytes, usage: Usage) -> bytes:
        event = {"type": "image_generation.completed", "usage": to_prompt_tokens(usage)}
        return json.dumps({**event, **answer(image)["data"][0]}).encode()

    def error_reply(self, message: str) -> bytes:
        return json.dumps({"error": {"code": 400, "message": message}}).encode()


class TogetherSamples(XaiSamples):
    """The methods that the contract of the provider "together" overrides."""

    endpoints: ClassVar[Mapping[str, str]] = {
        "create_image": "/images/generations",
        "create_image_edit": "/images/generations",
    }

    def provider(self) -> Provider:
        return TogetherProvider()

    def requests(self) -> list[ImageRequest]:
        return [
            CreateImageRequest(prompt="a fox", n=2, size="1024x768"),
            CreateImageEditRequest(image=(png(1), png(2)), prompt="a hat"),
        ]

    def error_reply(self, message: str) -> bytes:
        return json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode()


def to_prompt_tokens(usage: Usage) -> dict[str, int | None]:
    """Return token counts under OpenRouter's names."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
