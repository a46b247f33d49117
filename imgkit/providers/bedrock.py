"""The dialect of Amazon Bedrock for Stability's models: JSON to the address of a model, images in base64.

Source: @ai-sdk/amazon-bedrock 5.0.101, litellm and the vendor's pages, read 2026-11-28. Amazon's own image
models have ended. Unconfirmed: the polarity of masks, which is taken to be that of Stability's own API.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import quote

from imgkit.errors import ApiError, ConfigurationError, ImgkitError, InvalidRequestError, OutcomeUnknownError
from imgkit.images.inputs import OpenedInputs
from imgkit.models import CreateImageRequest, ImageRequest, resolve_model
from imgkit.providers.aws_signatures import ACCESS_KEY, SECRET_KEY, SESSION_TOKEN, AwsSigner
from imgkit.providers.base import DecodedImage, DecodedImages, MaskPolarity, ReplyBody, Target
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.bedrock_fake import FakeBedrock
from imgkit.providers.credentials import Credential
from imgkit.providers.error_bodies import add_code
from imgkit.providers.error_facts import trim_body
from imgkit.providers.error_replies import error_from_reply, refused
from imgkit.providers.json_requests import (
    ACCEPT_JSON,
    add_extra_headers,
    build_json_request,
    refuse_several_results,
    to_base64,
)
from imgkit.providers.reply_images import decode_content, readable
from imgkit.providers.stability_endpoints import (
    ENDPOINTS,
    SD3,
    Endpoint,
    check_task,
    choose_task,
    list_members,
)
from imgkit.redact import Secret
from imgkit.wire.messages import Head, HttpRequest

MODELS: Mapping[str, str] = {
    "stability.sd3-5-large-v1:0": "sd3.5-large",
    "stability.stable-image-core-v1:1": "core",
    "stability.stable-image-ultra-v1:1": "ultra",
    "us.stability.stable-image-inpaint-v1:0": "inpaint",
    "us.stability.stable-image-erase-object-v1:0": "erase",
    "us.stability.stable-outpaint-v1:0": "outpaint",
    "us.stability.stable-image-search-replace-v1:0": "search-and-replace",
    "us.stability.stable-image-search-recolor-v1:0": "search-and-recolor",
    "us.stability.stable-image-remove-background-v1:0": "remove-background",
    "us.stability.stable-image-control-sketch-v1:0": "sketch",
    "us.stability.stable-image-control-structure-v1:0": "structure",
    "us.stability.stable-image-style-guide-v1:0": "style",
    "us.stability.stable-style-transfer-v1:0": "style-transfer",
    "us.stability.stable-fast-upscale-v1:0": "fast",
    "us.stability.stable-conservative-upscale-v1:0": "conservative",
    "us.stability.stable-creative-upscale-v1:0": "creative",
}
"""The tasks of Stability's own API by the ids of their models; many need a profile, as ``us.``."""

BEARER = "AWS_BEARER_TOKEN_BEDROCK"

_DEFAULTS = {task: model for model, task in MODELS.items()}
_TASKS = {model.rpartition("stability.")[2].rpartition("-v")[0]: task for model, task in MODELS.items()}
_TASK = re.compile(r"stability\.([a-z0-9-]+?)(?:-v\d+(?::\d+)?)?$")
_ENDPOINTS = {**ENDPOINTS, "sd3.5-large": SD3}
_OTHER = Endpoint("", draws=True, takes_mask=True)
"""The task of an id that says nothing of its model, such as the ARN of a profile."""
_AMAZON = re.compile(r"(?:^|\.|/)amazon\.(?:titan|nova)")
_FIELDS = {"prompt", "model", "n", "seed", "negative_prompt", "output_format"}
_DOORS = {"model_options", "extra_body", "extra_headers"}


class BedrockProvider(BaseProvider):
    """The provider ``"bedrock"``; `imgkit.providers.Provider` describes its members.

    Requests are signed with ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY`` and, for temporary keys,
    ``AWS_SESSION_TOKEN``; a bearer token in ``AWS_BEARER_TOKEN_BEDROCK`` or ``api_key=`` comes first.

    Args:
        region: such as "us-west-2"; None reads ``AWS_REGION``, then ``AWS_DEFAULT_REGION``.

    Raises:
        ConfigurationError: The region has characters that no region has.

    Example:
        >>> BedrockProvider("us-west-2").base_url
        'https://bedrock-runtime.us-west-2.amazonaws.com'
    """

    env: ClassVar[Mapping[str, str]] = {
        "api_key": BEARER,
        "base_url": "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
        "region": "AWS_REGION",
    }
    accepts = {
        "create_image": {*_FIELDS, *_DOORS, "aspect_ratio"},
        "create_image_edit": {*_FIELDS, *_DOORS, "image", "mask"},
    }
    base64_keys: ClassVar[frozenset[str]] = frozenset({"images"})
    model_facts: ClassVar[str] = "imgkit.providers:bedrock.toml"
    mask_polarity: ClassVar[MaskPolarity] = "white"
    official_hosts: ClassVar[tuple[str, ...]] = ("*.amazonaws.com", "*.api.aws")
    fake = FakeBedrock

    def __init__(self, region: str | None = None) -> None:
        names = ("AWS_REGION", "AWS_DEFAULT_REGION")
        region = region or next((text for name in names if (text := os.environ.get(name, "").strip())), "")
        if not re.fullmatch(r"[a-z0-9-]{0,40}", region):
            raise ConfigurationError("Invalid region (AWS_REGION). Give a region such as 'us-west-2'.")
        if region:
            self.base_url = f"https://bedrock-runtime.{region}.amazonaws.com"  # type: ignore[misc]  # each instance has its region
        self._signer = AwsSigner("bedrock", region)

    @property
    def credentials(self) -> tuple[Credential, ...]:
        """A bearer token, or the keys of a signature."""
        return (
            Credential(variable=BEARER),
            Credential(
                variable=ACCESS_KEY, sign=self._signer, needs=(SECRET_KEY,), may_need=(SESSION_TOKEN,)
            ),
        )

    def choose_model(self, request: ImageRequest) -> str:
        """Return core to draw, inpaint for a mask, and SD3.5 for an image."""
        return _DEFAULTS[choose_task(request)]

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse images, masks and options that the model does not take."""
        super().check(request, target)
        model, endpoint = self._find_endpoint(request, target)
        if _AMAZON.search(model):
            raise InvalidRequestError(
                {"model": "Amazon's own image models have ended. Name a model of Stability."}
            )
        check_task(request, model, endpoint)

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the request to the address of a model."""
        refuse_several_results(request)
        model, endpoint = self._find_endpoint(request, target)
        members = list_members(request, endpoint)
        if endpoint.draws and inputs.mask is None:
            mode = "text-to-image" if isinstance(request, CreateImageRequest) else "image-to-image"
            members = {"mode": mode, **members}
        images = zip(endpoint.images, inputs.image, strict=False)
        members = {**{name: to_base64(image) for name, image in images}, **members}
        if inputs.mask is not None:
            members["mask"] = to_base64(inputs.mask)
        url = f"{target.base_url}/model/{quote(model, safe='-_.~')}/invoke"
        return build_json_request("POST", url, members, add_extra_headers(ACCEPT_JSON, request))

    def decode(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages:
        """Return the image of the reply; a reason tells, under status 200, that it was filtered."""
        with readable(head, body, secrets):
            reply = dict(body.json())
            reasons = _find_refusals(reply.get("finish_reasons"))
            images, warnings = [], [f"Image {number} was refused: {why}." for number, why in reasons.items()]
            for number, entry in enumerate(reply.get("images") or () if reasons else reply["images"]):
                if number in reasons:
                    continue
                content, problems = decode_content(entry, None, target)
                warnings += [f"Image {number} {problem}." for problem in problems]
                if content:
                    images.append(DecodedImage(**content))
            if not images and not reasons:
                raise ValueError("; ".join(warnings) or "no image")
            seeds = reply.get("seeds")
        if not images:
            reason = next(iter(reasons.values()))
            stage = "input" if "prompt" in reason.lower() else "output"
            raise refused(head, reason, stage=stage, secrets=secrets, maybe_billed=True)
        extra = {"seed": seeds[0]} if isinstance(seeds, list) and seeds and type(seeds[0]) is int else {}
        return DecodedImages(
            pictures=tuple(images), warnings=tuple(warnings), damaged=bool(warnings), extra=extra
        )

    def error(self, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return the error of a reply outside 2xx; a header holds its code."""
        code = re.split("[:#]", head.headers.get("x-amzn-errortype", ""))[0]
        error = error_from_reply(head, add_code(body, code), secrets, is_free=False)
        if isinstance(error, ApiError | OutcomeUnknownError):
            error.body = trim_body(body, secrets)
        return error

    def _find_endpoint(self, request: ImageRequest, target: Target) -> tuple[str, Endpoint]:
        model = resolve_model(request, target.model) or self.choose_model(request)
        task = _TASK.search(model)
        return model, _ENDPOINTS.get(_TASKS.get(task[1], "") if task else "", _OTHER)


def _find_refusals(reasons: object) -> dict[int, str]:
    """Return the reasons why images were filtered, by number; an odd value is no reason to lose an image."""
    texts = enumerate(reasons) if isinstance(reasons, list) else ()
    return {number: text for number, text in texts if isinstance(text, str) and text not in ("", "SUCCESS")}
