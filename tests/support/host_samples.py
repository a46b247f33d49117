"""Samples of the dialects of services that host models of many makers, for the contract."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar

from imgkit.models import CreateImageEditRequest, CreateImageRequest, ImageRequest
from imgkit.providers import (
    ComfyRouterProvider,
    FireworksProvider,
    Provider,
    ReplicateProvider,
    Target,
)
from imgkit.testing import png


class ReplicateSamples:
    """The methods that the contract of the provider "replicate" overrides."""

    endpoints: ClassVar[Mapping[str, str]] = {
        "create_image": "/models/acme/paint/predictions",
        "create_image_edit": "/models/acme/paint/predictions",
    }

    def provider(self) -> Provider:
        return ReplicateProvider()

    def target(self, provider: Provider) -> Target:
        return Target(base_url=provider.base_url, host_class="compatible", model="acme/paint")

    def reply(self, pictures: list[bytes]) -> bytes | None:
        return None

    def url_reply(self, urls: list[str]) -> bytes:
        return json.dumps({"id": "job-1", "status": "succeeded", "output": urls, "urls": {}}).encode()

    def error_reply(self, message: str) -> bytes:
        return json.dumps({"title": "Failed", "detail": message, "status": 400}).encode()

    def field_values(self, field: str) -> list[object]:
        if field == "model":
            return ["acme/paint", "acme/draw", f"acme/paint:{'a' * 64}", "b" * 64, "deployments/acme/paint"]
        values: list[object] = super().field_values(field)  # type: ignore[misc]  # a mixin of the contract
        return values


class ComfyRouterSamples:
    """The methods that the contract of the provider "comfy_router" overrides."""

    endpoints: ClassVar[Mapping[str, str]] = {
        "create_image": "/v2/models/acme/paint/requests",
        "create_image_edit": "/v2/models/acme/paint/requests",
    }

    def provider(self) -> Provider:
        return ComfyRouterProvider()

    def target(self, provider: Provider) -> Target:
        return Target(base_url=provider.base_url, host_class="compatible", model="acme/paint")

    def reply(self, pictures: list[bytes]) -> bytes | None:
        return None

    def url_reply(self, urls: list[str]) -> bytes:
        return json.dumps({"data": [{"url": url} for url in urls], "created": 1}).encode()

    def error_reply(self, message: str) -> bytes:
        return json.dumps({"detail": message}).encode()

    def field_values(self, field: str) -> list[object]:
        if field == "model":
            return ["acme/paint", "acme/draw"]
        values: list[object] = super().field_values(field)  # type: ignore[misc]  # a mixin of the contract
        return values


class FireworksSamples:
    """The methods that the contract of the provider "fireworks" overrides."""

    images_per_reply: ClassVar[int] = 1
    poll_methods: ClassVar[tuple[str, ...]] = ("POST",)
    endpoints: ClassVar[Mapping[str, str]] = {
        "create_image": "/workflows/accounts/fireworks/models/flux-kontext-pro",
        "create_image_edit": "/workflows/accounts/fireworks/models/flux-kontext-pro",
    }

    def provider(self) -> Provider:
        return FireworksProvider()

    def target(self, provider: Provider) -> Target:
        return Target(base_url=provider.base_url, host_class="compatible", model="flux-kontext-pro")

    def requests(self) -> list[ImageRequest]:
        return [
            CreateImageRequest(prompt="a fox"),
            CreateImageEditRequest(image=(png(1),), prompt="a hat"),
        ]

    def reply(self, pictures: list[bytes]) -> bytes | None:
        return None

    def url_reply(self, urls: list[str]) -> bytes:
        result = {"sample": urls[0]} if urls else {}
        return json.dumps({"id": "job-1", "status": "Ready", "result": result}).encode()

    def error_reply(self, message: str) -> bytes:
        return json.dumps({"error": {"message": message}}).encode()

    def field_values(self, field: str) -> list[object]:
        if field == "model":
            return ["flux-kontext-pro", "flux-kontext-max"]
        values: list[object] = super().field_values(field)  # type: ignore[misc]  # a mixin of the contract
        return values
