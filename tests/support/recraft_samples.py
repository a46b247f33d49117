"""Samples of Recraft's dialect for the contract of its provider."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from imgkit.models import CreateImageRequest, ImageRequest
from imgkit.providers import Provider
from imgkit.providers.recraft import RecraftProvider
from imgkit.testing import answer


class RecraftSamples:
    """The methods that the contract of the provider "recraft" overrides."""

    endpoints: ClassVar[Mapping[str, str]] = {
        "create_image": "/images/generations",
        "create_image_edit": "/images/imageToImage",
        "create_image_variation": "/images/variateImage",
    }

    def provider(self) -> Provider:
        return RecraftProvider()

    def requests(self) -> list[ImageRequest]:
        return [CreateImageRequest(prompt="a fox", n=2, size="1024x1024")]

    def reply(self, pictures: list[bytes]) -> bytes:
        reply = answer(*pictures) if pictures else {"created": 1, "data": []}
        return json.dumps({**reply, "credits": 40}).encode()

    def url_reply(self, urls: list[str]) -> bytes:
        entries: list[Any] = [{"image_id": str(number), "url": url} for number, url in enumerate(urls)]
        return json.dumps({"created": 1, "credits": 40, "data": entries}).encode()

    def error_reply(self, message: str) -> bytes:
        return json.dumps({"code": "invalid_size", "message": message}).encode()
