"""Samples of FLUX.2 at Azure and of Luma for the contract of their providers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import ClassVar

from imgkit.models import CreateImageEditRequest, CreateImageRequest, ImageRequest
from imgkit.providers import HttpRequest, ImageReference, Provider
from imgkit.providers.azure_flux import AzureFluxProvider
from imgkit.providers.luma import LumaProvider
from imgkit.testing.provider_samples import change

LINKS = tuple(ImageReference(url=f"https://files.example/{number}.png") for number in range(3))


class AzureFluxSamples:
    """The methods that the contract of the provider "azure_flux" overrides."""

    images_per_reply: ClassVar[int] = 3
    endpoints: ClassVar[Mapping[str, str]] = {
        "create_image": "/providers/blackforestlabs/v1/a-model",
        "create_image_edit": "/providers/blackforestlabs/v1/a-model",
    }

    def provider(self) -> Provider:
        return AzureFluxProvider()

    def reply(self, pictures: list[bytes]) -> bytes:
        entries = [{"b64_json": base64.b64encode(each).decode()} for each in pictures]
        return json.dumps({"created": 1, "data": entries}).encode()


class LumaSamples:
    """The methods that the contract of the provider "luma" overrides: its images are URLs."""

    images_per_reply: ClassVar[int] = 1
    state_member: ClassVar[str] = "state"
    endpoints: ClassVar[Mapping[str, str]] = {
        "create_image": "/generations/image",
        "create_image_edit": "/generations/image",
    }

    def provider(self) -> Provider:
        return LumaProvider()

    def requests(self) -> list[ImageRequest]:
        return [
            CreateImageRequest(prompt="a fox"),
            CreateImageEditRequest(image=LINKS[0], prompt="a hat"),
        ]

    def reply(self, pictures: list[bytes]) -> bytes | None:
        return None

    def url_reply(self, urls: list[str]) -> bytes:
        assets = {"image": urls[0]} if urls else None
        return json.dumps({"id": "job-1", "state": "completed", "assets": assets}).encode()

    def error_reply(self, message: str) -> bytes:
        return json.dumps({"detail": message}).encode()

    def assert_images_are_sent(
        self, request: ImageRequest, encode: Callable[[ImageRequest, ExitStack], HttpRequest]
    ) -> None:
        """Fail unless the lists of two links give different requests: the API takes no files."""
        lists = (LINKS[:1], LINKS[1:2], LINKS[:2], LINKS[1::-1], LINKS)
        bodies = set()
        for images in lists:
            with ExitStack() as cleanup:
                bodies.add(b"".join(encode(change(request, image=images), cleanup).body.blocks()))
        assert len(bodies) == len(lists)
