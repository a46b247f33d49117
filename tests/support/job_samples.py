"""Samples of the dialects of jobs for the contract of their providers."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit
from uuid import NAMESPACE_URL, uuid5

from imgkit.models import CreateImageEditRequest, CreateImageRequest, ImageRequest
from imgkit.providers import ComfyUIProvider, Provider, Target
from imgkit.providers.bfl import BflProvider
from imgkit.providers.fal import FalProvider
from imgkit.providers.ideogram import IdeogramProvider
from imgkit.testing import png
from imgkit.testing.job_course import CALL_ID

COMFYUI_JOB = str(uuid5(NAMESPACE_URL, f"imgkit:{CALL_ID}"))
"""The id of the contract's job at ComfyUI."""


class BflSamples:
    """The methods that the contract of the provider "bfl" overrides."""

    images_per_reply: ClassVar[int] = 1
    endpoints: ClassVar[Mapping[str, str]] = {
        "create_image": "/v1/a-model",
        "create_image_edit": "/v1/a-model",
    }

    def provider(self) -> Provider:
        return BflProvider()

    def reply(self, pictures: list[bytes]) -> bytes | None:
        return None

    def url_reply(self, urls: list[str]) -> bytes:
        result = {"sample": urls[0]} if urls else {}
        return json.dumps({"id": "job-1", "status": "Ready", "result": result}).encode()

    def error_reply(self, message: str) -> bytes:
        return json.dumps({"detail": message}).encode()


class FalSamples:
    """The methods that the contract of the provider "fal" overrides."""

    endpoints: ClassVar[Mapping[str, str]] = {
        "create_image": "/fal-ai/flux/dev",
        "create_image_edit": "/fal-ai/flux/dev",
    }

    def provider(self) -> Provider:
        return FalProvider()

    def target(self, provider: Provider) -> Target:
        return Target(base_url=provider.base_url, host_class="compatible", model="fal-ai/flux/dev")

    def requests(self) -> list[ImageRequest]:
        return [
            CreateImageRequest(prompt="a fox", extra_body={"sync_mode": False}),
            CreateImageEditRequest(image=(png(1),), prompt="a hat"),
        ]

    def reply(self, pictures: list[bytes]) -> bytes:
        return _result([f"data:image/png;base64,{base64.b64encode(each).decode()}" for each in pictures])

    def url_reply(self, urls: list[str]) -> bytes:
        return _result(urls)

    def error_reply(self, message: str) -> bytes:
        return json.dumps({"detail": message}).encode()


def _result(links: list[str]) -> bytes:
    value: dict[str, Any] = {"images": [{"url": link} for link in links], "seed": 7}
    return json.dumps(value).encode()


class ComfyUISamples:
    """The methods that the contract of the provider "comfyui" overrides."""

    state_member: ClassVar[str] = ""
    endpoints: ClassVar[Mapping[str, str]] = {"create_image": "/prompt", "create_image_edit": "/prompt"}

    def provider(self) -> Provider:
        return ComfyUIProvider()

    def reply(self, pictures: list[bytes]) -> bytes | None:
        return None

    def sample_url(self, name: str) -> str:
        return f"{ComfyUIProvider.base_url}/view?filename={name}&subfolder=&type=output"

    def url_reply(self, urls: list[str]) -> bytes:
        queries = [dict(parse_qsl(urlsplit(url).query, keep_blank_values=True)) for url in urls]
        return json.dumps({COMFYUI_JOB: {"outputs": {"9": {"images": queries}}}}).encode()


class IdeogramSamples:
    """The methods that the contract of the provider "ideogram" overrides."""

    endpoints: ClassVar[Mapping[str, str]] = {
        "create_image": "/v2/image/generate/a-model",
        "create_image_edit": "/v2/image/generate/a-model",
    }

    def provider(self) -> Provider:
        return IdeogramProvider()

    def reply(self, pictures: list[bytes]) -> bytes | None:
        return None

    def url_reply(self, urls: list[str]) -> bytes:
        images = [{"url": url, "prompt": "a fox", "seed": 5, "is_image_safe": True} for url in urls]
        return json.dumps({"generation_id": "job-1", "status": "completed", "data": images}).encode()

    def error_reply(self, message: str) -> bytes:
        return json.dumps({"error": message}).encode()
