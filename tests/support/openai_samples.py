"""Samples of OpenAI's dialect for the contracts of providers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar

from imgkit.models import (
    CreateImageEditRequest,
    CreateImageRequest,
    CreateImageVariationRequest,
    ImageRequest,
    Usage,
)
from imgkit.providers import OpenAIProvider, Provider
from imgkit.testing import answer, png


class OpenAISamples:
    """The methods that a contract of OpenAI's dialect overrides."""

    endpoints: ClassVar[Mapping[str, str]] = {
        "create_image": "/images/generations",
        "create_image_edit": "/images/edits",
        "create_image_variation": "/images/variations",
    }

    def provider(self) -> Provider:
        return OpenAIProvider()

    def requests(self) -> list[ImageRequest]:
        return [
            CreateImageRequest(prompt="a fox", n=2, extra_body={"new": [1, {"x": None}]}),
            CreateImageEditRequest(image=(png(1), png(2)), prompt="a hat"),
            CreateImageVariationRequest(image=png(1)),
        ]

    def reply(self, pictures: list[bytes]) -> bytes:
        return json.dumps(answer(*pictures) if pictures else {"created": 1, "data": []}).encode()

    def url_reply(self, urls: list[str]) -> bytes:
        return json.dumps({"created": 1, "data": [{"url": url} for url in urls]}).encode()

    def usage_reply(self, pictures: list[bytes], usage: Usage) -> bytes:
        return json.dumps({**answer(*pictures), "usage": to_json(usage)}).encode()

    def partial_event(self, image: bytes, index: int) -> bytes:
        more = {"partial_image_index": index, "type": "image_edit.partial_image"}
        return json.dumps({**answer(image)["data"][0], **more}).encode()

    def complete_event(self, image: bytes) -> bytes:
        return json.dumps({"type": "image_edit.completed", **answer(image)["data"][0]}).encode()

    def usage_event(self, image: bytes, usage: Usage) -> bytes:
        event = {"type": "image_edit.completed", "usage": to_json(usage)}
        return json.dumps({**event, **answer(image)["data"][0]}).encode()

    def error_event(self, message: str) -> bytes:
        return json.dumps({"type": "error", "error": {"message": message}}).encode()


def to_json(usage: Usage) -> dict[str, int | None]:
    """Return token counts under the API's names."""
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
