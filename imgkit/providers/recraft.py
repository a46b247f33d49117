"""The dialect of Recraft: OpenAI's shape with endpoints of its own for edits, and with native variations.

Source: recraft.ai/docs and the API's OpenAPI description, copies, read 2026-11-28. Unconfirmed: the name of a
mask in a JSON body, how the API refuses content, and whether all models vary an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from imgkit.catalogue.catalogue import is_listed, load_provider_data
from imgkit.errors import InvalidRequestError
from imgkit.images.inputs import ImageFile, OpenedInputs
from imgkit.images.shapes import find_nearest_ratio
from imgkit.models import (
    Cost,
    CreateImageEditRequest,
    CreateImageVariationRequest,
    ImageRequest,
    resolve_model,
)
from imgkit.providers.base import Credential, MaskPolarity, Target
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.json_requests import refuse_more_images, refuse_uploaded_files, to_data_url
from imgkit.providers.openai import OpenAIDialect
from imgkit.providers.recraft_fake import FakeRecraft
from imgkit.providers.reply_images import read_cost
from imgkit.redact import Secret
from imgkit.wire.json_values import JsonMapping, JsonObject
from imgkit.wire.messages import Head, HttpRequest

FACTS = "imgkit.providers:recraft.toml"
DEFAULT_STRENGTH = 0.5
UNITS_PER_DOLLAR = 1000

_FIELDS = {
    *("model", "n", "size", "aspect_ratio", "seed", "output_format", "response_format"),
    *("model_options", "extra_body", "extra_headers"),
}
_NAMES = {"seed": "random_seed", "output_format": "image_format", "aspect_ratio": "size"}


class RecraftProvider(OpenAIDialect):
    """The provider ``"recraft"``; `imgkit.providers.Provider` describes its members.

    ``model_options={"edit_as": "replaceBackground"}`` chooses another endpoint for an edit.

    Example:
        >>> RecraftProvider().mask_polarity
        'white'
    """

    base_url: ClassVar[str] = "https://external.api.recraft.ai/v1"
    env: ClassVar[Mapping[str, str]] = {"api_key": "RECRAFT_API_TOKEN", "base_url": "RECRAFT_BASE_URL"}
    paths = {
        "create_image": "/images/generations",
        "create_image_edit": "/images/imageToImage",
        "create_image_variation": "/images/variateImage",
    }
    accepts = {
        "create_image": {*_FIELDS, "prompt", "negative_prompt"},
        "create_image_edit": {
            *(_FIELDS - {"size", "aspect_ratio"}),
            *("prompt", "negative_prompt", "image", "mask"),
        },
        "create_image_variation": {*(_FIELDS - {"output_format"}), "image"},
    }
    has_free_failures: ClassVar[bool] = False
    model_facts: ClassVar[str] = FACTS
    mask_polarity: ClassVar[MaskPolarity] = "white"
    hard_masks: ClassVar[bool] = True
    credentials = (Credential(variable="RECRAFT_API_TOKEN"), Credential(variable="RECRAFT_API_KEY"))
    fake = FakeRecraft

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse a mask, a model or an option that the endpoint of an edit lacks."""
        BaseProvider.check(self, request, target)
        refuse_uploaded_files(request)
        refuse_more_images(request, 1, "Recraft")
        if not isinstance(request, CreateImageEditRequest):
            return
        name, endpoint = _find_endpoint(request)
        takes_mask = endpoint.get("mask", False)
        problems: dict[str, str] = {}
        if takes_mask is not (request.mask is not None):
            needs = "needs a mask. Pass a mask" if takes_mask else "takes no mask. Leave it out"
            problems["mask"] = f"{name} {needs}, or name another endpoint in edit_as."
        if "strength" in (request.model_options or {}) and name != "imageToImage":
            problems["model_options.strength"] = f"{name} takes no strength. Leave it out."
        model = resolve_model(request, target.model)
        is_known = model is not None and model.startswith("recraft")
        if is_known and not is_listed(str(model), endpoint["models"]):
            models = " or ".join(each.removesuffix("*") for each in endpoint["models"])
            problems["model"] = f"{model} has no {name}. Name {models}, or leave the model out."
        if problems:
            raise InvalidRequestError(problems)

    def models_request(self, target: Target) -> None:
        """Return None: the API documents no list of models."""

    def url(self, request: ImageRequest, target: Target) -> str:
        """Return the URL of a request; edits have several endpoints."""
        if isinstance(request, CreateImageEditRequest):
            return f"{target.base_url}/images/{_find_endpoint(request)[0]}"
        return super().url(request, target)

    def needs_json(self, request: ImageRequest, inputs: OpenedInputs) -> bool:
        """Return whether a form could not hold the request, because it has objects or lists."""
        values = [*(request.model_options or {}).values(), *(request.extra_body or {}).values()]
        return super().needs_json(request, inputs) or any(isinstance(each, Mapping | list) for each in values)

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the request. A variation, which needs a shape, has that of its image if it names none."""
        has_shape = request.size not in (None, "auto") or request.aspect_ratio is not None
        if isinstance(request, CreateImageVariationRequest) and not has_shape:
            request = replace(request, aspect_ratio=_choose_ratio(inputs))
        return super().encode(request, inputs, target)

    def build_members(self, request: ImageRequest, target: Target) -> JsonObject:
        """Return the members of the body, under the API's names."""
        own = {**(request.model_options or {}), **(request.extra_body or {})}
        members = {
            name if name in own else _NAMES.get(name, name): value
            for name, value in super().build_members(request, target).items()
            if name != "size" or name in own or value != "auto"
        }
        if isinstance(request, CreateImageEditRequest):
            members.pop("edit_as", None)
            if _find_endpoint(request)[0] == "imageToImage":
                members.setdefault("strength", DEFAULT_STRENGTH)
        return members

    def encode_inputs(self, inputs: OpenedInputs) -> JsonObject:
        """Return the inputs as members of a JSON body: URLs or ``data:`` URLs."""
        images = {"image_url": inputs.image[0] if inputs.image else None, "mask_url": inputs.mask}
        return {name: to_data_url(image) for name, image in images.items() if image is not None}

    def examine_reply(
        self, head: Head, reply: JsonObject, secrets: tuple[Secret, ...]
    ) -> tuple[Cost | None, tuple[str, ...]]:
        """Return the cost of a reply in units, of which 1,000 are a dollar."""
        return read_cost(reply.get("credits"), UNITS_PER_DOLLAR), ()


def _find_endpoint(request: CreateImageEditRequest) -> tuple[str, JsonMapping]:
    """Return the endpoint of an edit by its option or its mask, and the facts about it."""
    endpoints: Mapping[str, JsonMapping] = load_provider_data(FACTS)["endpoints"]
    name = (request.model_options or {}).get("edit_as")
    if not isinstance(name, str) or name not in endpoints:
        name = "imageToImage" if request.mask is None else "inpaint"
    return name, endpoints[name]


def _choose_ratio(inputs: OpenedInputs) -> str:
    """Return the aspect ratio of the API that is nearest to the shape of the first image."""
    image = inputs.image[0] if inputs.image else None
    kind = image.kind if isinstance(image, ImageFile) else None
    ratio = kind.width / kind.height if kind is not None and kind.width and kind.height else 1.0
    return find_nearest_ratio(ratio, load_provider_data(FACTS)["rules"]["ratios"]["allowed"]) or "1:1"
