"""The dialect of LocalAI: OpenAI's shape for creations, and a route of its own for masks.

Source: LocalAI's repository (August 2026), read 2026-11-28. Unconfirmed: which backends use ``ref_images``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from imgkit.errors import InvalidRequestError
from imgkit.images.inputs import OpenedInputs
from imgkit.images.references import ImageReference
from imgkit.models import ImageRequest, Operation, resolve_model
from imgkit.providers.base import MaskPolarity, Target
from imgkit.providers.json_requests import ACCEPT_JSON, add_extra_headers, list_images, to_base64
from imgkit.providers.openai import OpenAIDialect
from imgkit.providers.openai_forms import build_form
from imgkit.providers.openai_servers import OpenAIServer
from imgkit.providers.openai_servers_fake import FakeLocalAI
from imgkit.wire.json_values import JsonObject
from imgkit.wire.messages import HttpRequest

_FIELDS = {
    *("prompt", "model", "n", "size", "seed", "negative_prompt"),
    *("model_options", "extra_body", "extra_headers"),
}
_NOT_WITH_MASK = ("size", "seed", "negative_prompt")


class LocalAIProvider(OpenAIServer):
    """The provider ``"localai"``; `imgkit.providers.Provider` describes its members.

    An edit sends its images as references of a creation. An edit with a mask goes to another route, which
    draws a single image of 512x512 pixels.

    Example:
        >>> LocalAIProvider().paths["create_image_edit"]
        '/images/generations'
    """

    base_url: ClassVar[str] = "http://127.0.0.1:8080/v1"
    env: ClassVar[Mapping[str, str]] = {"api_key": "LOCALAI_API_KEY", "base_url": "LOCALAI_BASE_URL"}
    paths: ClassVar[Mapping[Operation, str]] = {
        "create_image": "/images/generations",
        "create_image_edit": "/images/generations",
    }
    sends_json: ClassVar[bool] = True
    accepts = {"create_image": _FIELDS, "create_image_edit": {*_FIELDS, "image", "mask"}}
    model_facts: ClassVar[str] = "imgkit.providers:localai.toml"
    mask_polarity: ClassVar[MaskPolarity] = "white"
    fake = FakeLocalAI

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse fields that the server lacks, those that it ignores beside a mask, and the sign ``|``."""
        super().check(request, target)
        problems = {}
        for name in ("prompt", "negative_prompt"):
            if "|" in (getattr(request, name, None) or ""):
                problems[name] = "LocalAI takes text behind | as the negative prompt. Leave the sign out."
        if getattr(request, "mask", None) is not None:
            images = list_images(request)
            if len(images) > 1 or any(isinstance(image, ImageReference) for image in images):
                problems["image"] = "With a mask, LocalAI takes one image as a file. Give the image itself."
            if (request.n or 1) > 1:
                problems["n"] = "With a mask, LocalAI draws one image. Ask for one."
            for name in _NOT_WITH_MASK:
                if getattr(request, name) not in (None, "auto"):
                    problems[name] = f"With a mask, LocalAI ignores {name}. Leave it out."
            if target.host_class != "offline" and resolve_model(request, target.model) is None:
                problems["model"] = "With a mask, LocalAI needs a model. Pass model=…"
        if problems:
            raise InvalidRequestError(problems)

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the request: JSON, or a form with the image and its mask."""
        if inputs.mask is None:
            return OpenAIDialect.encode(self, request, inputs, target)
        members = self.build_members(request, target)
        for name in ("response_format", "n"):
            members.pop(name, None)
        if "step" in members:
            members["steps"] = members.pop("step")
        url = f"{target.base_url}/images/inpainting"
        headers = add_extra_headers({**ACCEPT_JSON, "accept-encoding": "identity"}, request)
        return HttpRequest("POST", url, headers, build_form(members, inputs))

    def build_members(self, request: ImageRequest, target: Target) -> JsonObject:
        """Return the members; the negative prompt stands behind the prompt."""
        members = super().build_members(request, target)
        if members.get("negative_prompt") is not None:
            members["prompt"] = f"{members.get('prompt', '')}|{members.pop('negative_prompt')}"
        return members

    def encode_inputs(self, inputs: OpenedInputs) -> JsonObject:
        """Return the images as base64 or as URLs; the server reads no ``data:`` URLs."""
        return {"ref_images": [to_base64(image) for image in inputs.image]} if inputs.image else {}
