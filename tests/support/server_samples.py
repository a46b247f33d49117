"""Samples of servers of OpenAI's shape, of Hugging Face's router and of Cloudflare for contracts."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import ClassVar

from imgkit.models import CreateImageEditRequest, CreateImageRequest, ImageRequest
from imgkit.providers import Provider, Target
from imgkit.providers.cloudflare import CloudflareProvider
from imgkit.providers.huggingface import HuggingFaceProvider
from imgkit.providers.localai import LocalAIProvider
from imgkit.providers.sglang import SGLangProvider
from imgkit.providers.vllm import VllmProvider
from imgkit.testing import answer, png


class VllmSamples:
    """The methods that the contract of the provider "vllm" overrides."""

    endpoints: ClassVar[Mapping[str, str]] = {
        "create_image": "/v1/images/generations",
        "create_image_edit": "/v1/images/edits",
    }

    def provider(self) -> Provider:
        return VllmProvider()

    def requests(self) -> list[ImageRequest]:
        return [
            CreateImageRequest(prompt="a fox", n=2, model_options={"guidance_scale": 4.5}),
            CreateImageEditRequest(image=(png(1), png(2)), prompt="a hat", model_options={"lora": {"a": 1}}),
        ]

    def reply(self, pictures: list[bytes]) -> bytes:
        return json.dumps(answer(*pictures) if pictures else {"created": 1, "data": []}).encode()

    def url_reply(self, urls: list[str]) -> bytes:
        return json.dumps({"created": 1, "data": [{"url": url} for url in urls]}).encode()


class SGLangSamples(VllmSamples):
    """The methods that the contract of the provider "sglang" overrides."""

    def provider(self) -> Provider:
        return SGLangProvider()

    def error_reply(self, message: str) -> bytes:
        return json.dumps({"detail": message}).encode()


class LocalAISamples(VllmSamples):
    """The methods that the contract of the provider "localai" overrides."""

    endpoints: ClassVar[Mapping[str, str]] = {
        "create_image": "/v1/images/generations",
        "create_image_edit": "/v1/images/generations",
    }

    def provider(self) -> Provider:
        return LocalAIProvider()

    def requests(self) -> list[ImageRequest]:
        return [
            CreateImageRequest(prompt="a fox", n=2, model_options={"step": 9}),
            CreateImageEditRequest(image=(png(1),), prompt="a hat", model="model-a"),
        ]

    def error_reply(self, message: str) -> bytes:
        return json.dumps({"error": {"code": 500, "message": message, "type": ""}}).encode()


class LocalAIMaskSamples(LocalAISamples):
    """The methods that the contract of LocalAI's route for masks overrides."""

    endpoints: ClassVar[Mapping[str, str]] = {
        "create_image": "/v1/images/generations",
        "create_image_edit": "/v1/images/inpainting",
    }

    def requests(self) -> list[ImageRequest]:
        edit = CreateImageEditRequest(image=png(1), prompt="a hat", mask=png(4, 8, "L"))
        return [CreateImageRequest(prompt="a fox"), edit]


class HuggingFaceSamples:
    """The methods that the contract of the provider "huggingface" overrides, for a bare image."""

    images_per_reply: ClassVar[int] = 1
    reply_headers: ClassVar[Mapping[str, str]] = {"content-type": "image/png"}
    model: ClassVar[str] = "hf-inference/a/b"
    endpoints: ClassVar[Mapping[str, str]] = dict.fromkeys(("create_image", "create_image_edit"), "/a/b")

    def provider(self) -> Provider:
        return HuggingFaceProvider()

    def target(self, provider: Provider) -> Target:
        return Target(base_url=provider.base_url, host_class="compatible", model=self.model)

    def requests(self) -> list[ImageRequest]:
        return [CreateImageRequest(prompt="a fox", model_options={"guidance_scale": 4.5})]

    def reply(self, pictures: list[bytes]) -> bytes | None:
        return b"".join(pictures)

    def url_reply(self, urls: list[str]) -> bytes | None:
        return None

    def error_reply(self, message: str) -> bytes:
        return json.dumps({"error": message}).encode()


class RoutedFalSamples(HuggingFaceSamples):
    """The methods that the contract of Hugging Face's router overrides, for fal."""

    reply_headers: ClassVar[Mapping[str, str]] = {"content-type": "application/json"}
    model: ClassVar[str] = "fal-ai/a/b"

    def reply(self, pictures: list[bytes]) -> bytes | None:
        return None

    def url_reply(self, urls: list[str]) -> bytes:
        return json.dumps({"images": [{"url": url} for url in urls], "seed": 7}).encode()


class RoutedTogetherSamples(HuggingFaceSamples):
    """The methods that the contract of Hugging Face's router overrides, for Together and nscale."""

    reply_headers: ClassVar[Mapping[str, str]] = {"content-type": "application/json"}
    model: ClassVar[str] = "together/a/b"
    endpoints: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("create_image", "create_image_edit"), "/together/v1/images/generations"
    )

    def reply(self, pictures: list[bytes]) -> bytes:
        encoded = [base64.b64encode(each).decode() for each in pictures]
        data = [{"index": 0, "type": "b64_json", "b64_json": text} for text in encoded]
        return json.dumps({"data": data}).encode()


class CloudflareSamples:
    """The methods that the contract of the provider "cloudflare" overrides, for models that read JSON."""

    images_per_reply: ClassVar[int] = 1
    model: ClassVar[str] = "@cf/a/stable-diffusion-inpainting"
    endpoints: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("create_image", "create_image_edit"), "/accounts/0a1b/ai/run/@cf/a/stable-diffusion-inpainting"
    )

    def provider(self) -> Provider:
        return CloudflareProvider(account_id="0a1b")

    def target(self, provider: Provider) -> Target:
        return Target(base_url=provider.base_url, host_class="compatible", model=self.model)

    def requests(self) -> list[ImageRequest]:
        return [CreateImageRequest(prompt="a fox", model_options={"guidance": 4.5})]

    def reply(self, pictures: list[bytes]) -> bytes:
        result = {"image": base64.b64encode(pictures[0]).decode()} if pictures else None
        return json.dumps({"result": result, "success": True, "errors": [], "messages": []}).encode()

    def error_reply(self, message: str) -> bytes:
        errors = [{"code": 5006, "message": message}]
        return json.dumps({"result": None, "success": False, "errors": errors, "messages": []}).encode()


class CloudflareFormSamples(CloudflareSamples):
    """The methods that the contract of the provider "cloudflare" overrides, for models that read forms."""

    model: ClassVar[str] = "@cf/black-forest-labs/flux-2-dev"
    endpoints: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("create_image", "create_image_edit"), "/accounts/0a1b/ai/run/@cf/black-forest-labs/flux-2-dev"
    )
