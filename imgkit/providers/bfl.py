"""The dialect of Black Forest Labs: FLUX models that work on jobs, polled at the host that they name.

Source: @ai-sdk/black-forest-labs 2.0.41 for the requests of edits and masks; docs.bfl.ai for fields, states
and lifetimes; both read 2026-11-28.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import ClassVar
from urllib.parse import quote

from imgkit.catalogue.catalogue import load_provider_data
from imgkit.errors import ImgkitError, InvalidRequestError
from imgkit.images.inputs import OpenedInputs
from imgkit.jobs.job import Job
from imgkit.models import Cost, ImageRequest, resolve_model
from imgkit.providers.base import Credential, DecodedImages, MaskPolarity, ReplyBody, Target
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.bfl_fake import FakeBfl
from imgkit.providers.error_replies import error_from_reply
from imgkit.providers.flux_replies import decode_flux_poll
from imgkit.providers.job_replies import explain_poll
from imgkit.providers.job_values import JobUpdate
from imgkit.providers.json_requests import (
    build_json_request,
    encode_json_request,
    find_by_pattern,
    list_images,
    name_images,
    refuse_uploaded_files,
    to_base64,
    to_sides,
)
from imgkit.providers.reply_images import read_cost, readable
from imgkit.redact import Secret
from imgkit.wire.messages import Head, HttpRequest

CENTS_PER_DOLLAR = 100

DEFAULT_MODEL, MASK_MODEL = "flux-2-pro", "flux-pro-1.0-fill"

FACTS = "imgkit.providers:bfl.toml"

_FIELDS = {
    *("prompt", "model", "size", "aspect_ratio", "resolution", "seed", "output_format", "n"),
    *("model_options", "extra_body", "extra_headers"),
}


class BflProvider(BaseProvider):
    """The provider ``"bfl"``; `imgkit.providers.Provider` describes its members.

    ``model_options=`` takes each model's own options, such as ``safety_tolerance``.

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
    model_facts: ClassVar[str] = FACTS
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

    def choose_model(self, request: ImageRequest) -> str:
        """Return the model for a request that names none: another with a mask."""
        return DEFAULT_MODEL if getattr(request, "mask", None) is None else MASK_MODEL

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse what the dialect cannot express."""
        super().check(request, target)
        refuse_uploaded_files(request)
        if getattr(request, "mask", None) is not None and len(list_images(request)) > 1:
            raise InvalidRequestError({"image": "A FLUX model with a mask takes one image. Give one."})

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the submit of a job."""
        model = resolve_model(request, target.model) or self.choose_model(request)
        members = load_provider_data(FACTS)["members"]["images"]
        name = "image" if inputs.mask is not None else find_by_pattern(members, model)
        images = [to_base64(image) for image in inputs.image]
        body = {
            "prompt": getattr(request, "prompt", None),
            **to_sides(request.size),
            "aspect_ratio": request.aspect_ratio,
            "resolution": _to_resolution(request.resolution),
            "seed": request.seed,
            "output_format": getattr(request, "output_format", None),
            **({name: images or None} if name == "images" else name_images(name, images)),
            "mask": None if inputs.mask is None else to_base64(inputs.mask),
        }
        return encode_json_request(f"{target.base_url}/v1/{quote(model, safe='.-_/')}", body, request)

    def decode(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> JobUpdate:
        """Return the accepted job: its id, the address to ask, and its cost in cents."""
        with readable(head, body, secrets):
            reply = body.json()
            state = {"id": str(reply["id"]), "polling_url": str(reply["polling_url"])}
            cost = read_cost(reply.get("cost"), CENTS_PER_DOLLAR, "as the API announced it")
        return JobUpdate(state=state, cost=cost)

    def poll(self, job: Job, target: Target) -> HttpRequest:
        """Return the GET of the address that the submit named."""
        return build_json_request("GET", job.state["polling_url"])

    def decode_poll(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | JobUpdate:
        """Return the image, or that the job goes on: also for a word that is not known."""
        if head.status != 200:
            raise explain_poll(head, body, self.error(head, body.raw(), secrets), secrets)
        cost = None if job.cost is None else Cost(amount=Decimal(job.cost), note="as the API announced it")
        return decode_flux_poll(head, body, job.state, secrets, cost)

    def error(self, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return the error of a reply outside 2xx."""
        return error_from_reply(head, body, secrets)


def _to_resolution(resolution: str | None) -> str | None:
    """Return a resolution as the API writes it.

    >>> _to_resolution("1.5K"), _to_resolution("768")
    ('1.5k', '768sq')
    """
    return f"{resolution}sq" if resolution and resolution.isdigit() else resolution and resolution.lower()
