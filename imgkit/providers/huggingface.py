"""The dialect of Hugging Face's router, which passes requests on to inference providers.

Source: huggingface_hub 2.4.0 and @huggingface/inference 4.13.30, read 2026-11-28. Unconfirmed: the providers'
own ids of models in ``huggingface.toml``, and whether a 5xx other than a loading model is billed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, NamedTuple
from urllib.parse import quote

from imgkit.catalogue.catalogue import load_provider_data
from imgkit.errors import ImgkitError, InvalidRequestError
from imgkit.images.inputs import OpenedInputs
from imgkit.models import ImageRequest, resolve_model
from imgkit.providers.base import DecodedImages, ReplyBody, Target
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.error_replies import error_from_reply
from imgkit.providers.fal import FalProvider
from imgkit.providers.huggingface_fake import FakeHuggingFace
from imgkit.providers.job_values import JobUpdate
from imgkit.providers.json_requests import (
    encode_json_request,
    list_images,
    refuse_several_results,
    to_base64,
    to_sides,
)
from imgkit.providers.openai import OpenAIProvider
from imgkit.providers.reply_images import decode_image_body, unreadable_reply_error
from imgkit.providers.together import TogetherProvider
from imgkit.redact import Secret
from imgkit.wire.json_values import parse_json
from imgkit.wire.messages import Head, HttpRequest

FACTS = "imgkit.providers:huggingface.toml"
DEFAULT_ROUTE = "hf-inference"

_FIELDS = {
    *("prompt", "model", "n", "size", "seed", "negative_prompt", "output_format"),
    *("model_options", "extra_body", "extra_headers"),
}
_MODEL = re.compile(r"(?!\.+(/|$))[\w.-]+(/(?!\.+(/|$))[\w.-]+)*", re.ASCII)


class RoutedModel(NamedTuple):
    """A model behind the router.

    Attributes:
        route: name of the inference provider.
        id: the model's id at this provider.
    """

    route: str
    id: str


class HuggingFaceProvider(BaseProvider):
    """The provider ``"huggingface"``; `imgkit.providers.Provider` describes its members.

    A model is an inference provider and a model of it, such as ``fal-ai/black-forest-labs/FLUX.1-dev``;
    without a provider, hf-inference runs it. ``organization=`` names the organization that pays.

    Example:
        >>> HuggingFaceProvider.find_model("together/black-forest-labs/FLUX.1-dev").route
        'together'
    """

    base_url: ClassVar[str] = "https://router.huggingface.co"
    env: ClassVar[Mapping[str, str]] = {
        "api_key": "HF_TOKEN",
        "base_url": "HF_ROUTER_URL",
        "organization": "HF_BILL_TO",
    }
    base64_keys: ClassVar[frozenset[str]] = frozenset({"b64_json", "url"})
    accepts = {"create_image": _FIELDS, "create_image_edit": {*_FIELDS, "image"}}
    default_model: ClassVar[str] = "hf-inference/black-forest-labs/FLUX.1-schnell"
    model_facts: ClassVar[str] = FACTS
    fake = FakeHuggingFace

    @staticmethod
    def find_model(name: str | None) -> RoutedModel:
        """Return the model that a name stands for.

        Args:
            name: a model with or without an inference provider in front; None for the default model.

        Raises:
            InvalidRequestError: The name is no path, or imgkit does not know the provider's shape.
        """
        name = name or HuggingFaceProvider.default_model
        routes = load_provider_data(FACTS)["routes"]
        route, _, rest = name.partition("/")
        if route in routes["others"]:
            raise InvalidRequestError(
                {"model": f"imgkit cannot ask {route} here. Use one of {', '.join(routes['takes'])}."}
            )
        if route not in routes["takes"]:
            route, rest = DEFAULT_ROUTE, name
        if not _MODEL.fullmatch(rest):
            raise InvalidRequestError(
                {"model": "A model is a path, such as fal-ai/black-forest-labs/FLUX.1-dev."}
            )
        return RoutedModel(route, routes["ids"].get(route, {}).get(rest, rest))

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse fields that the inference provider of the model lacks."""
        super().check(request, target)
        model = self.find_model(resolve_model(request, target.model))
        takes = load_provider_data(FACTS)["routes"]["takes"][model.route]
        images = list_images(request)
        problems = {
            name: f"{model.route} takes no {name}. Leave it out."
            for name in ("size", "seed", "negative_prompt", "output_format")
            if getattr(request, name) is not None and name not in takes
        }
        if images and "image" not in takes:
            problems["image"] = f"imgkit edits no images by {model.route}. Use hf-inference or fal-ai."
        if len(images) > 1 and model.route == DEFAULT_ROUTE:
            problems["image"] = "hf-inference edits one image. Give one."
        if problems:
            raise InvalidRequestError(problems)

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the request in the shape of the inference provider."""
        refuse_several_results(request)
        route, model = self.find_model(resolve_model(request, target.model))
        extra = {name: value for name, value in (request.extra_body or {}).items() if name != "model"}
        plain = replace(request, n=None, model=model, extra_body=extra or None)
        inner = replace(target, base_url=f"{target.base_url}/{route}/v1", organization=None, model=None)
        if route == "fal-ai":
            inner = replace(inner, base_url=f"{target.base_url}/{route}")
            encoded = FalProvider().encode(_move_to_options(plain), inputs, inner)
        elif route == "together":
            encoded = TogetherProvider().encode(plain, inputs, inner)
        elif route == "nscale":
            encoded = OpenAIProvider().encode(replace(plain, response_format="b64_json"), inputs, inner)
        else:
            encoded = _encode_for_models(plain, inputs, f"{target.base_url}/{route}/models/{quote(model)}")
        if target.organization is None:
            return encoded
        return replace(encoded, headers={"x-hf-bill-to": target.organization, **encoded.headers})

    def decode(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages:
        """Return the images: the body itself, fal's shape, or OpenAI's."""
        if body.image() is not None:
            return decode_image_body(head, body, target, secrets)
        try:
            reply = body.json()
        except ValueError as error:
            raise unreadable_reply_error(head, body, str(error), secrets) from None
        if isinstance(reply, dict) and ("images" in reply or "image" in reply):
            decoded = FalProvider().decode(head, body, target, secrets)
            if not isinstance(decoded, JobUpdate):
                return decoded
        return OpenAIProvider().decode(head, body, target, secrets)

    def error(self, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return the error of a reply outside 2xx; its wait is the time that a model takes to load."""
        return error_from_reply(head, body, secrets, is_free=self.failure_is_free(head, body))

    def failure_is_free(self, head: Head, body: bytes) -> bool:
        """Return True for the 503 of a model that still loads: it has not run."""
        try:
            reply = parse_json(body)
        except ValueError:
            return False
        return head.status == 503 and isinstance(reply, dict) and {"error", "estimated_time"} <= reply.keys()


def _encode_for_models(request: ImageRequest, inputs: OpenedInputs, url: str) -> HttpRequest:
    """Return the request of hf-inference, whose fields stand in ``parameters``."""
    plain = _move_to_options(request)
    given = {**to_sides(request.size), **(plain.model_options or {})}
    prompt = getattr(request, "prompt", None)
    members: dict[str, object] = {"inputs": prompt, "parameters": given or None}
    if inputs.image:
        members = {"inputs": to_base64(inputs.image[0]), "parameters": {"prompt": prompt, **given}}
    plain = replace(plain, model_options=None)
    return encode_json_request(url, members, plain, {"accept": "image/*"}, merge_objects=True)


def _move_to_options(request: ImageRequest) -> ImageRequest:
    """Return a request whose seed and negative prompt are options of the model."""
    words = {"seed": request.seed, "negative_prompt": request.negative_prompt}
    given = {name: value for name, value in words.items() if value is not None}
    options = {**given, **(request.model_options or {})}
    return replace(request, seed=None, negative_prompt=None, model_options=options or None)
