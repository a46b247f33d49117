"""The dialect of vLLM-Omni, which serves diffusion models in the shape of OpenAI's API.

Source: vLLM-Omni 0.30.0, read 2026-11-28. Unconfirmed: the polarity of masks, which each pipeline chooses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from imgkit.images.inputs import OpenedInputs
from imgkit.models import CreateImageRequest, ImageRequest
from imgkit.providers.base import MaskPolarity, Target
from imgkit.providers.openai_servers import OpenAIServer
from imgkit.providers.openai_servers_fake import FakeVllm
from imgkit.wire.json_values import JsonObject
from imgkit.wire.messages import HttpRequest
from imgkit.wire.multipart import File, MultipartBody

_FIELDS = {
    *("prompt", "model", "n", "size", "seed", "negative_prompt", "output_format", "output_compression"),
    *("model_options", "extra_body", "extra_headers"),
}


class VllmProvider(OpenAIServer):
    """The provider ``"vllm"``; `imgkit.providers.Provider` describes its members.

    Masks are greyscale, white where the image may change: the pipelines ignore transparency.

    Example:
        >>> VllmProvider().base_url
        'http://127.0.0.1:8000/v1'
    """

    base_url: ClassVar[str] = "http://127.0.0.1:8000/v1"
    env: ClassVar[Mapping[str, str]] = {"api_key": "VLLM_API_KEY", "base_url": "VLLM_BASE_URL"}
    accepts = {
        "create_image": _FIELDS,
        "create_image_edit": {*_FIELDS, "image", "mask", "background"},
    }
    model_facts: ClassVar[str] = "imgkit.providers:vllm.toml"
    mask_polarity: ClassVar[MaskPolarity] = "white"
    fake = FakeVllm

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the request; the server reads a mask as ``mask_image`` and ignores one by another name."""
        encoded = super().encode(request, inputs, target)
        if inputs.mask is None or not isinstance(encoded.body, MultipartBody):
            return encoded
        parts = [
            replace(part, name="mask_image") if isinstance(part, File) and part.name == "mask" else part
            for part in encoded.body.parts
        ]
        return replace(encoded, body=MultipartBody(tuple(parts)))

    def build_members(self, request: ImageRequest, target: Target) -> JsonObject:
        """Return the members; a form holds objects, such as ``lora``, as JSON."""
        members = super().build_members(request, target)
        if isinstance(request, CreateImageRequest):
            return members
        return {
            name: json.dumps(value, sort_keys=True) if isinstance(value, Mapping) else value
            for name, value in members.items()
        }
