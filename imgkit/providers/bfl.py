"""The dialect of Black Forest Labs: FLUX models that work on jobs, polled at the host that they name.

Source: @ai-sdk/black-forest-labs 2.0.41 for the requests of edits and masks; docs.bfl.ai for fields, states
and lifetimes; both read 2026-11-28.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import ClassVar
from urllib.parse import quote

import pybase64

from imgkit.errors import ImgkitError, InvalidRequestError, JobFailedError
from imgkit.images.inputs import ImageFile, OpenedInputs
from imgkit.images.references import ImageReference
from imgkit.jobs.job import Job
from imgkit.models import Cost, CreateImageEditRequest, ImageRequest, resolve_model
from imgkit.providers.base import Credential, DecodedImage, DecodedImages, MaskPolarity, ReplyBody, Target
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.bfl_fake import FakeBfl
from imgkit.providers.error_replies import error_from_reply, refused
from imgkit.providers.job_values import JobUpdate
from imgkit.providers.reply_images import readable
from imgkit.redact import Secret
from imgkit.wire.messages import BytesBody, Head, HttpRequest

DEFAULT_MODEL, MASK_MODEL = "flux-2-pro", "flux-pro-1.0-fill"
LINK_S = 600
"""Seconds for which a result is served after the job is ready; FLUX.3 says an hour."""

_FIELDS = {"prompt", "model", "size", "output_format", "n", "extra_body", "extra_headers"}
_MODERATED = {"Request Moderated": "input", "Content Moderated": "output"}
_FAILED = frozenset({"Error", "Failed"})


class BflProvider(BaseProvider):
    """The provider ``"bfl"``; `imgkit.providers.Provider` describes its members.

    ``extra_body=`` takes each model's own fields, such as ``seed`` and ``safety_tolerance``.

    Example:
        >>> BflProvider().poll_hosts[0]
        'api.bfl.ai'
    """

    base_url: ClassVar[str] = "https://api.bfl.ai"
    env: ClassVar[Mapping[str, str]] = {"api_key": "BFL_API_KEY", "base_url": "BFL_BASE_URL"}
    accepts = {
        "create_image": _FIELDS,
        "create_image_edit": {*_FIELDS, "image", "mask"},
    }
    model_facts: ClassVar[str] = "imgkit.providers:bfl.toml"
    takes_references: ClassVar[bool] = True
    mask_polarity: ClassVar[MaskPolarity] = "white"
    credentials = (Credential(variable="BFL_API_KEY", header="x-key", scheme=""),)
    official_hosts: ClassVar[tuple[str, ...]] = (
        "api.eu.bfl.ai",
        "api.us.bfl.ai",
        "api.eu1.bfl.ai",
        "api.us1.bfl.ai",
    )
    poll_hosts: ClassVar[tuple[str, ...]] = ("api.bfl.ai", "api.*.bfl.ai")
    fake = FakeBfl

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse what the dialect cannot express."""
        super().check(request, target)
        if isinstance(request, CreateImageEditRequest):
            images = request.image if isinstance(request.image, tuple) else (request.image,)
            if request.mask is not None and len(images) > 1:
                raise InvalidRequestError({"image": "A FLUX model with a mask takes one image. Give one."})
            if any(isinstance(each, ImageReference) and each.url is None for each in (*images, request.mask)):
                raise InvalidRequestError({"image": "This API fetches a url; it has no uploaded files."})

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the submit of a job."""
        mask = inputs.mask
        default = MASK_MODEL if mask is not None else DEFAULT_MODEL
        model = resolve_model(request, target.model) or default
        body: dict[str, object] = {"prompt": getattr(request, "prompt", None)}
        if request.size and request.size != "auto":
            width, _, height = request.size.partition("x")
            body |= {"width": int(width), "height": int(height)}
        body["output_format"] = getattr(request, "output_format", None)
        for number, image in enumerate(inputs.image, 1):
            name = "image" if mask is not None else "input_image"
            body[name if number == 1 else f"{name}_{number}"] = _encode_image(image)
        if mask is not None:
            body["mask"] = _encode_image(mask)
        body |= {name: value for name, value in (request.extra_body or {}).items() if name != "model"}
        content = json.dumps({k: v for k, v in body.items() if v is not None}, sort_keys=True).encode()
        headers = {
            "accept": "application/json",
            **{k: v for k, v in (request.extra_headers or {}).items() if v},
        }
        url = f"{target.base_url}/v1/{quote(model, safe='.-_/')}"
        return HttpRequest("POST", url, headers, BytesBody(content, "application/json"))

    def decode(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> JobUpdate:
        """Return the accepted job: its id, the address to ask, and its cost in cents."""
        with readable(head, body, secrets):
            reply = body.json()
            state = {"id": str(reply["id"]), "polling_url": str(reply["polling_url"])}
        return JobUpdate(state=state, cost=_read_cost(reply.get("cost")))

    def poll(self, job: Job, target: Target) -> HttpRequest:
        """Return the GET of the address that the submit named."""
        return HttpRequest("GET", job.state["polling_url"], {"accept": "application/json"})

    def decode_poll(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | JobUpdate:
        """Return the image, or that the job goes on: also for a word that is not known."""
        if head.status != 200:
            raise self.error(head, body.raw(), secrets)
        with readable(head, body, secrets):
            reply = body.json()
            status, result = str(reply["status"]), reply.get("result")
        if status in _MODERATED:
            details = reply.get("details")
            raise refused(
                head,
                f"{status}. {details if isinstance(details, str) else ''}".strip(),
                stage=_MODERATED[status],
                secrets=secrets,
            )
        if status in _FAILED:
            raise JobFailedError(f"The job has failed: {status}.", status=head.status, code=status)
        if status == "Task not found":
            raise JobFailedError("The API does not know the job any more.", status=404, code=status)
        if status != "Ready":
            progress = reply.get("progress")
            fraction = float(progress) if type(progress) in (int, float) else None
            return JobUpdate(state=job.state, progress=fraction, note=status)
        with readable(head, body, secrets):
            image = DecodedImage(url=str(result["sample"]), revised_prompt=result.get("prompt"))
        extra = {"seed": result["seed"]} if "seed" in result else {}
        cost = None if job.cost is None else Cost(amount=Decimal(job.cost), note="as the API announced it")
        return DecodedImages(pictures=(image,), cost=cost, extra=extra)

    def error(self, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return the error of a reply outside 2xx."""
        return error_from_reply(head, body, secrets)


def _encode_image(image: ImageFile | ImageReference) -> str:
    """Return an image as base64, or the URL that the API fetches."""
    if isinstance(image, ImageReference):
        return image.url or ""
    return pybase64.b64encode(image.read()).decode("ascii")


def _read_cost(credits: object) -> Cost | None:
    """Return the cost in dollars of a number of credits, each a cent."""
    try:
        return Cost(amount=Decimal(str(credits)) / 100, note="as the API announced it")
    except InvalidOperation:
        return None
