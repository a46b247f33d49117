"""The dialect of Stability's own API (v2beta): forms in, an image in base64 out; two tasks are jobs.

Source: OpenAPI copies and npm typings, read 2026-11-28. Unconfirmed: changes of 2026, the member with the
image of a job (``image`` and ``result`` are both read), and whether a filtered image is billed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import quote

from imgkit.errors import ImgkitError
from imgkit.images.inputs import OpenedInputs
from imgkit.jobs.job import Job
from imgkit.models import CreateImageRequest, ImageRequest, resolve_model
from imgkit.providers.base import DecodedImage, DecodedImages, MaskPolarity, ReplyBody, Target
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.error_replies import error_from_reply, refused
from imgkit.providers.job_replies import explain_poll
from imgkit.providers.job_values import JobUpdate
from imgkit.providers.json_requests import (
    ACCEPT_JSON,
    add_extra_headers,
    build_json_request,
    refuse_several_results,
)
from imgkit.providers.openai_forms import build_form
from imgkit.providers.reply_images import decode_content, decode_image_body, readable
from imgkit.providers.stability_endpoints import (
    ENDPOINTS,
    SD3,
    Endpoint,
    check_task,
    choose_task,
    list_members,
)
from imgkit.providers.stability_fake import FakeStability
from imgkit.redact import Secret
from imgkit.wire.messages import Head, HttpRequest

POLL_PAUSE_S = 10.0
"""Seconds between two polls: the API wants no more of them."""

FILTERED = "CONTENT_FILTERED"

_FIELDS = {"prompt", "model", "n", "seed", "negative_prompt", "output_format"}
_DOORS = {"model_options", "extra_body", "extra_headers"}


class StabilityProvider(BaseProvider):
    """The provider ``"stability"``; `imgkit.providers.Provider` describes its members.

    A model is a task of the API: ``core``, ``ultra``, ``inpaint``, ``search-and-replace`` and so on. Any
    other name is a model of the SD3 task, such as ``sd3.5-large``.

    Example:
        >>> StabilityProvider().mask_polarity
        'white'
    """

    base_url: ClassVar[str] = "https://api.stability.ai"
    env: ClassVar[Mapping[str, str]] = {"api_key": "STABILITY_API_KEY", "base_url": "STABILITY_BASE_URL"}
    accepts = {
        "create_image": {*_FIELDS, *_DOORS, "aspect_ratio"},
        "create_image_edit": {*_FIELDS, *_DOORS, "image", "mask"},
    }
    base64_keys: ClassVar[frozenset[str]] = frozenset({"image", "result"})
    model_facts: ClassVar[str] = "imgkit.providers:stability.toml"
    mask_polarity: ClassVar[MaskPolarity] = "white"
    fake = FakeStability

    def choose_model(self, request: ImageRequest) -> str:
        """Return core to draw, inpaint for a mask, and sd3.5-large for an image."""
        return choose_task(request)

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse images, masks and options that the model does not take."""
        super().check(request, target)
        check_task(request, *self._find_endpoint(request, target))

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the form of a request; the API takes no JSON, even for a prompt alone."""
        refuse_several_results(request)
        model, endpoint = self._find_endpoint(request, target)
        members = list_members(request, endpoint)
        if endpoint.path == SD3.path:
            mode = "text-to-image" if isinstance(request, CreateImageRequest) else "image-to-image"
            members = {"mode": mode, "model": model, **members}
        url = f"{target.base_url}/v2beta/stable-image/{endpoint.path}"
        headers = add_extra_headers(ACCEPT_JSON, request)
        return HttpRequest("POST", url, headers, build_form(members, inputs, endpoint.images))

    def decode(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | JobUpdate:
        """Return the image of the reply, or the accepted job."""
        if body.image() is None:
            with readable(head, body, secrets):
                reply = body.json()
                is_job = isinstance(reply.get("id"), str) and not {"errors", *self.base64_keys} & reply.keys()
            if is_job:
                return self._follow({"id": reply["id"]}, target)
        return _decode_image(head, body, target, secrets)

    def poll(self, job: Job, target: Target) -> HttpRequest:
        """Return the GET of the result."""
        return build_json_request(
            "GET", f"{target.base_url}/v2beta/results/{quote(job.state['id'], safe='')}"
        )

    def decode_poll(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | JobUpdate:
        """Return the image, or that the job goes on, which the API says by status 202."""
        if head.status == 202:
            return self._follow(job.state, target)
        if head.status != 200:
            raise explain_poll(head, body, self.error(head, body.raw(), secrets), secrets)
        return _decode_image(head, body, target, secrets)

    def error(self, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return the error of a reply outside 2xx."""
        return error_from_reply(head, body, secrets, is_free=False)

    def _find_endpoint(self, request: ImageRequest, target: Target) -> tuple[str, Endpoint]:
        model = resolve_model(request, target.model) or self.choose_model(request)
        return model, ENDPOINTS.get(model, SD3)

    def _follow(self, state: Mapping[str, object], target: Target) -> JobUpdate:
        return JobUpdate(state=state, poll_after_s=None if target.host_class == "offline" else POLL_PAUSE_S)


def _decode_image(head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...]) -> DecodedImages:
    """Return the image of a reply; the bytes of the image itself for a caller who accepts ``image/*``.

    Raises:
        ModerationBlockedError: The API has filtered the image. It sends it all the same, blurred.
    """
    if body.image() is not None:
        if head.headers.get("finish-reason") == FILTERED:
            raise _refuse(head)
        return decode_image_body(head, body, target, secrets)
    with readable(head, body, secrets):
        reply = dict(body.json())
        encoded = reply.pop("image", None) or reply.pop("result", None)
        reason = reply.pop("finish_reason", None)
        content, problems = decode_content(encoded, None, target)
        if not content and reason != FILTERED:
            raise ValueError("; ".join(problems) or "no image")
    if reason == FILTERED:
        raise _refuse(head)
    warnings = tuple(f"Image 0 {problem}." for problem in problems)
    extra = {"seed": reply["seed"]} if type(reply.get("seed")) is int else {}
    return DecodedImages(
        pictures=(DecodedImage(**content),), warnings=warnings, damaged=bool(problems), extra=extra
    )


def _refuse(head: Head) -> ImgkitError:
    return refused(head, "the result was filtered", stage="output", code=FILTERED, maybe_billed=True)
