"""The dialect of OpenRouter: image models of many makers, references as inputs, streams, and the cost told.

Source: openrouter 1.3.84 (Python) and @openrouter/sdk 1.3.19, read 2026-11-28. Unconfirmed: whether the
API takes a number of partial images, and batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from imgkit.images.inputs import OpenedInputs
from imgkit.models import Cost, ImageRequest, Operation
from imgkit.providers.base import Target
from imgkit.providers.json_requests import build_json_request, refuse_uploaded_files, to_data_url
from imgkit.providers.openai import OpenAIProvider
from imgkit.providers.openrouter_fake import FakeOpenRouter
from imgkit.providers.reply_images import read_cost
from imgkit.redact import Secret
from imgkit.wire.json_values import JsonObject
from imgkit.wire.messages import Head, HttpRequest

_FIELDS = {
    *("prompt", "model", "n", "aspect_ratio", "resolution", "size", "quality", "background", "seed", "user"),
    *("output_format", "output_compression", "model_options", "extra_body", "extra_headers"),
}
_USAGE = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}


class OpenRouterProvider(OpenAIProvider):
    """The provider ``"openrouter"``; `imgkit.providers.Provider` describes its members.

    ``extra_headers=`` takes ``HTTP-Referer`` and ``X-Title``, by which OpenRouter names your application.

    Example:
        >>> OpenRouterProvider().paths["create_image_edit"]
        '/images'
    """

    base_url: ClassVar[str] = "https://openrouter.ai/api/v1"
    env: ClassVar[Mapping[str, str]] = {"api_key": "OPENROUTER_API_KEY", "base_url": "OPENROUTER_BASE_URL"}
    paths: ClassVar[Mapping[Operation, str]] = {"create_image": "/images", "create_image_edit": "/images"}
    accepts = {"create_image": _FIELDS, "create_image_edit": {*_FIELDS, "image"}}
    sends_json: ClassVar[bool] = True
    has_free_failures: ClassVar[bool] = False
    model_facts: ClassVar[str] = "imgkit.providers:openrouter.toml"
    fake = FakeOpenRouter

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse files of another API."""
        super().check(request, target)
        refuse_uploaded_files(request)

    def encode_inputs(self, inputs: OpenedInputs) -> JsonObject:
        """Return the input images as references: URLs, or ``data:`` URLs."""
        references = [{"type": "image_url", "image_url": {"url": to_data_url(each)}} for each in inputs.image]
        return {"input_references": references} if references else {}

    def encode_stream(
        self, request: ImageRequest, inputs: OpenedInputs, target: Target, partial_images: int | None
    ) -> HttpRequest:
        """Return the request of `encode` with ``stream``; the model chooses the number of partial images."""
        return super().encode_stream(request, inputs, target, None)

    def examine_reply(
        self, head: Head, reply: JsonObject, secrets: tuple[Secret, ...]
    ) -> tuple[Cost | None, tuple[str, ...]]:
        """Return the cost of a reply, and give its token counts OpenAI's names."""
        usage = reply.get("usage")
        if not isinstance(usage, dict):
            return None, ()
        reply["usage"] = {_USAGE.get(name, name): value for name, value in usage.items()}
        return read_cost(usage.get("cost")), ()

    def models_request(self, target: Target) -> HttpRequest:
        """Return the free request that lists the image models."""
        return build_json_request("GET", f"{target.base_url}/images/models")
