"""The dialect of Google's image models, at the Gemini API and at Vertex AI.

Source: google-genai 3.6.1 for requests, finish reasons and variables; ai.google.dev for errors and limits;
both read 2026-11-28.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar
from urllib.parse import quote, urlsplit

from imgkit.catalogue.catalogue import load_provider_data
from imgkit.errors import ConfigurationError, ImgkitError, InvalidRequestError
from imgkit.images.inputs import ImageFile, OpenedInputs
from imgkit.images.references import ImageReference
from imgkit.models import CreateImageVariationRequest, ImageRequest, resolve_model
from imgkit.providers.base import Credential, DecodedImages, ReplyBody, Target
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.error_replies import error_from_reply
from imgkit.providers.gemini_fake import FakeGemini
from imgkit.providers.gemini_replies import decode_event, decode_reply
from imgkit.providers.gemini_sizes import FACTS, find_size_problem, to_image_config
from imgkit.providers.json_requests import (
    ACCEPT_JSON,
    build_json_request,
    encode_json_request,
    refuse_several_results,
    to_base64,
)
from imgkit.redact import Secret
from imgkit.wire.json_values import JsonObject
from imgkit.wire.messages import Head, HttpRequest

MEDIA_TYPES = {
    **{suffix: f"image/{suffix}" for suffix in ("png", "jpeg", "webp", "gif", "heic", "heif")},
    "jpg": "image/jpeg",
}

_FIELDS = {
    *("prompt", "model", "size", "aspect_ratio", "resolution", "seed", "n"),
    *("model_options", "extra_body", "extra_headers"),
}
_VERSION = re.compile(r"v\d+(?:(?:alpha|beta)\d*)?")
_MODELS = re.compile(r"(?:/publishers/google)?(?:/models)?/*$")


class GeminiProvider(BaseProvider):
    """The provider ``"gemini"``; `imgkit.providers.Provider` describes its members.

    A ``base_url=`` with a project, such as
    ``https://aiplatform.googleapis.com/v1/projects/PROJECT/locations/global``, is Vertex AI, whose key is an
    access token. ``extra_body=`` takes the API's own members, such as ``{"safetySettings": []}``; imgkit
    merges objects with its own.

    Example:
        >>> GeminiProvider().credentials[0].header
        'x-goog-api-key'
    """

    base_url: ClassVar[str] = "https://generativelanguage.googleapis.com"
    env: ClassVar[Mapping[str, str]] = {"api_key": "GEMINI_API_KEY", "base_url": "GOOGLE_GEMINI_BASE_URL"}
    accepts = {"create_image": _FIELDS, "create_image_edit": {*_FIELDS, "image"}}
    default_model: ClassVar[str | None] = "gemini-3.1-flash-image"
    base64_keys: ClassVar[frozenset[str]] = frozenset({"data"})
    model_facts: ClassVar[str] = FACTS
    takes_references: ClassVar[bool] = True
    credentials = (
        Credential(variable="GEMINI_API_KEY", header="x-goog-api-key", scheme=""),
        Credential(variable="GOOGLE_API_KEY", header="x-goog-api-key", scheme=""),
        Credential(variable="GOOGLE_ACCESS_TOKEN"),
    )
    official_hosts: ClassVar[tuple[str, ...]] = ("*.googleapis.com",)
    fake = FakeGemini

    def choose_credentials(self, target: Target) -> tuple[Credential, ...]:
        """Return the access token for a project of Vertex AI, else the API keys."""
        return self.credentials[2:] if _names_project(target) else self.credentials[:2]

    def models_request(self, target: Target) -> HttpRequest | None:
        """Return the free request that lists the models; Vertex AI has none."""
        if _is_vertex(target):
            return None
        return build_json_request("GET", f"{_build_models_url(target)}?pageSize=1000")

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse fields that the API lacks, sizes that no model draws, and half an address of Vertex AI."""
        super().check(request, target)
        if _names_project(target) and "/locations/" not in target.base_url:
            raise ConfigurationError(
                "base_url names a project of Vertex AI without a location.",
                hint="Pass https://aiplatform.googleapis.com/v1/projects/PROJECT/locations/global.",
                field="base_url",
            )
        if problem := find_size_problem(request.size, self._find_model(request, target)):
            raise InvalidRequestError({"size": problem})

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the request, which holds its inputs."""
        refuse_several_results(request)
        model = self._find_model(request, target)
        prompt = "" if isinstance(request, CreateImageVariationRequest) else request.prompt
        parts = [{"text": prompt}, *(_encode_image(image, target) for image in inputs.image)]
        config: JsonObject = {"responseModalities": ["IMAGE"]}
        options, places = request.model_options or {}, load_provider_data(FACTS)["members"]
        image_config: JsonObject = {
            **to_image_config(request.size, model),
            **({"aspectRatio": request.aspect_ratio} if request.aspect_ratio else {}),
            **({"imageSize": request.resolution} if request.resolution else {}),
            **{name: value for name, value in options.items() if name in places["image_config"]},
        }
        config |= {"imageConfig": image_config} if image_config else {}
        config |= {} if request.seed is None else {"seed": request.seed}
        config |= {
            name: value
            for name, value in options.items()
            if name not in image_config.keys() | {*places["root"]}
        }
        own = {
            "contents": [{"role": "user", "parts": parts}],
            "generationConfig": config,
            **{name: value for name, value in options.items() if name in places["root"]},
        }
        headers = {**ACCEPT_JSON, "accept-encoding": "identity"}
        url = f"{_build_models_url(target)}/{quote(model, safe='')}:generateContent"
        return encode_json_request(
            url, own, replace(request, model_options=None), headers, merge_objects=True
        )

    def encode_stream(
        self, request: ImageRequest, inputs: OpenedInputs, target: Target, partial_images: int | None
    ) -> HttpRequest:
        """Return the request of `encode` for events. The API streams no partial images."""
        plain = self.encode(request, inputs, target)
        url = f"{plain.url.removesuffix(':generateContent')}:streamGenerateContent?alt=sse"
        headers = {**plain.headers, "accept": "text/event-stream"}
        return HttpRequest("POST", url, headers, plain.body)

    def decode(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages:
        """Return the image of the reply."""
        return decode_reply(head, body, target, secrets)

    def decode_event(
        self, head: Head, data: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | None:
        """Return the image or the usage of an event, None for an event without them."""
        return decode_event(head, data, target, secrets)

    def error(self, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return the error of a reply outside 2xx."""
        return error_from_reply(head, body, secrets, is_free=False)

    def _find_model(self, request: ImageRequest, target: Target) -> str:
        name = resolve_model(request, target.model) or self.default_model or ""
        return name.removeprefix("publishers/google/").removeprefix("models/")


def _names_project(target: Target) -> bool:
    return "/projects/" in urlsplit(target.base_url).path


def _is_vertex(target: Target) -> bool:
    parts = urlsplit(target.base_url)
    return re.search(r"/(?:projects|publishers)/", parts.path) is not None or bool(
        re.search(r"(?:^|[.-])aiplatform\.(?:[a-z]+\.rep\.)?googleapis\.com$", parts.hostname or "")
    )


def _build_models_url(target: Target) -> str:
    """Return the address of the models; a base URL without a version gets that of the SDK."""
    base = _MODELS.sub("", target.base_url)
    last = urlsplit(base).path.rpartition("/")[2]
    version = "" if _names_project(target) or _VERSION.fullmatch(last) else "/v1"
    return f"{base}{version}{'/publishers/google' if _is_vertex(target) else ''}/models"


def _encode_image(image: ImageFile | ImageReference, target: Target) -> JsonObject:
    if isinstance(image, ImageFile):
        # The spelling of the SDK; the API takes mimeType too.
        return {"inlineData": {"data": to_base64(image), "mime_type": image.kind.media_type}}
    uri = image.url or image.file_id or ""
    if "://" not in uri:
        root = "{0.scheme}://{0.netloc}".format(urlsplit(target.base_url))
        uri = f"{root}/v1beta/files/{uri.removeprefix('files/')}"
    media_type = MEDIA_TYPES.get(urlsplit(uri).path.rpartition(".")[2].lower())
    return {"fileData": {"fileUri": uri, **({"mimeType": media_type} if media_type else {})}}
