"""The dialect of Together: one address of OpenAI's shape, sizes as two numbers, input images as members.

Source: together 3.1.1 and @ai-sdk/togetherai 3.0.54, read 2026-11-28. Unconfirmed: ``data:`` URLs in
``reference_images``, the largest ``n``, the words by which it refuses content, and all prices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from imgkit.catalogue.catalogue import is_listed, load_provider_data
from imgkit.images.inputs import OpenedInputs
from imgkit.models import ImageRequest, Operation, resolve_model
from imgkit.providers.base import Target
from imgkit.providers.json_requests import refuse_uploaded_files, to_data_url, to_sides
from imgkit.providers.openai import OpenAIDialect
from imgkit.providers.together_fake import FakeTogether
from imgkit.wire.json_values import JsonObject
from imgkit.wire.messages import HttpRequest

FACTS = "imgkit.providers:together.toml"

_FIELDS = {
    *("prompt", "model", "n", "size", "seed", "negative_prompt", "output_format", "response_format"),
    *("model_options", "extra_body", "extra_headers"),
}


class TogetherProvider(OpenAIDialect):
    """The provider ``"together"``; `imgkit.providers.Provider` describes its members.

    Example:
        >>> TogetherProvider().official_hosts
        ('api.together.xyz',)
    """

    base_url: ClassVar[str] = "https://api.together.ai/v1"
    env: ClassVar[Mapping[str, str]] = {"api_key": "TOGETHER_API_KEY", "base_url": "TOGETHER_BASE_URL"}
    paths: ClassVar[Mapping[Operation, str]] = {
        "create_image": "/images/generations",
        "create_image_edit": "/images/generations",
    }
    accepts = {"create_image": _FIELDS, "create_image_edit": {*_FIELDS, "image"}}
    sends_json: ClassVar[bool] = True
    has_free_failures: ClassVar[bool] = False
    model_facts: ClassVar[str] = FACTS
    official_hosts: ClassVar[tuple[str, ...]] = ("api.together.xyz",)
    fake = FakeTogether

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse files of another API."""
        super().check(request, target)
        refuse_uploaded_files(request)

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the request, whose input images go by the member that the model reads."""
        if not inputs.image:
            return super().encode(request, inputs, target)
        patterns = load_provider_data(FACTS)["image_members"]["list_models"]
        model = resolve_model(request, target.model) or ""
        is_list = len(inputs.image) > 1 or is_listed(model, patterns)
        images = [to_data_url(image) for image in inputs.image]
        own = {"reference_images": images} if is_list else {"image_url": images[0]}
        request = replace(request, extra_body={**own, **(request.extra_body or {})})
        return super().encode(request, OpenedInputs(), target)

    def build_members(self, request: ImageRequest, target: Target) -> JsonObject:
        """Return the members: width and height, and base64 unless the caller wants links."""
        wanted = "url" if request.response_format == "url" else "base64"
        rest = replace(request, size=None, response_format=None)
        return {**to_sides(request.size), "response_format": wanted, **super().build_members(rest, target)}
