"""Samples of the dialects of Stability's models for the contract of their providers."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import ClassVar

from imgkit.models import CreateImageEditRequest, CreateImageRequest, ImageRequest
from imgkit.providers import Provider, Target
from imgkit.providers.bedrock import BedrockProvider
from imgkit.providers.stability import StabilityProvider
from imgkit.testing import png


class StabilitySamples:
    """The methods that the contract of the provider "stability" overrides: a task that is a job."""

    images_per_reply: ClassVar[int] = 1
    state_member: ClassVar[str] = ""
    endpoints: ClassVar[Mapping[str, str]] = {
        "create_image": "/generate/sd3",
        "create_image_edit": "/upscale/creative",
    }

    def provider(self) -> Provider:
        return StabilityProvider()

    def target(self, provider: Provider) -> Target:
        return Target(base_url=provider.base_url, host_class="compatible", model="sd3.5-large")

    def requests(self) -> list[ImageRequest]:
        return [
            CreateImageEditRequest(image=(png(1),), prompt="a hat", model="creative"),
            CreateImageRequest(prompt="a fox"),
        ]

    def reply(self, pictures: list[bytes]) -> bytes:
        image = {"image": base64.b64encode(pictures[0]).decode()} if pictures else {}
        return json.dumps({**image, "finish_reason": "SUCCESS", "seed": 7}).encode()

    def error_reply(self, message: str) -> bytes:
        return json.dumps({"id": "a1", "name": "bad_request", "errors": [message]}).encode()


class BedrockSamples:
    """The methods that the contract of the provider "bedrock" overrides."""

    images_per_reply: ClassVar[int] = 1
    endpoints: ClassVar[Mapping[str, str]] = {
        "create_image": "/model/stability.sd3-5-large-v1%3A0/invoke",
        "create_image_edit": "/model/us.stability.stable-image-inpaint-v1%3A0/invoke",
    }

    def provider(self) -> Provider:
        return BedrockProvider("us-west-2")

    def target(self, provider: Provider) -> Target:
        return Target(base_url=provider.base_url, host_class="compatible", model="stability.sd3-5-large-v1:0")

    def requests(self) -> list[ImageRequest]:
        model = "us.stability.stable-image-inpaint-v1:0"
        return [
            CreateImageRequest(prompt="a fox"),
            CreateImageEditRequest(image=(png(1),), prompt="a hat", model=model),
        ]

    def reply(self, pictures: list[bytes]) -> bytes:
        images = [base64.b64encode(each).decode() for each in pictures]
        return json.dumps({"seeds": [7], "finish_reasons": [None], "images": images}).encode()

    def error_reply(self, message: str) -> bytes:
        return json.dumps({"message": message}).encode()
