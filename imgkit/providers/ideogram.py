"""The dialect of Ideogram's API v2: an address for each model, jobs, masks of either colour, quoted prices.

Source: developer.ideogram.ai and the API's OpenAPI description of 2026-10-07, copies, read 2026-11-28. There
is no official SDK. Unconfirmed: the members of ideogram-4-6, how a form writes objects, and whether a quote
for several images is for all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import ClassVar
from urllib.parse import quote

from imgkit.catalogue.catalogue import load_provider_data
from imgkit.errors import ImgkitError, InvalidRequestError, JobFailedError
from imgkit.images.inputs import OpenedInputs
from imgkit.jobs.job import Job
from imgkit.models import CreateImageRequest, Estimate, ImageRequest, resolve_model
from imgkit.providers.base import Credential, DecodedImages, MaskPolarity, ReplyBody, Target
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.error_bodies import read_error_body
from imgkit.providers.error_replies import error_from_reply, refused
from imgkit.providers.ideogram_fake import FakeIdeogram
from imgkit.providers.job_replies import explain_poll
from imgkit.providers.job_values import JobUpdate
from imgkit.providers.json_requests import (
    ACCEPT_JSON,
    add_extra_headers,
    build_json_request,
    encode_json_request,
    find_by_pattern,
    list_images,
    to_sides,
)
from imgkit.providers.openai_forms import build_form
from imgkit.providers.reply_images import decode_entries, read_cost, readable
from imgkit.redact import Secret
from imgkit.wire.json_values import JsonMapping
from imgkit.wire.messages import Head, HttpRequest

FACTS = "imgkit.providers:ideogram.toml"
DEFAULT_MODEL = "ideogram-4-5"
MICROS_PER_DOLLAR = 1_000_000

_FIELDS = {
    *("prompt", "model", "n", "size", "aspect_ratio", "resolution", "seed", "negative_prompt", "quality"),
    *("background", "model_options", "extra_body", "extra_headers"),
}
_MODEL = re.compile(r"(?:[a-z][a-z-]*/)?\w[\w.-]*", re.ASCII)


class IdeogramProvider(BaseProvider):
    """The provider ``"ideogram"``; `imgkit.providers.Provider` describes its members.

    A model is a name such as ``ideogram-4-5``, or an action with a name, such as ``remix/ideogram-3``.

    Example:
        >>> IdeogramProvider().mask_polarity
        'black'
    """

    base_url: ClassVar[str] = "https://api.ideogram.ai"
    env: ClassVar[Mapping[str, str]] = {"api_key": "IDEOGRAM_API_KEY", "base_url": "IDEOGRAM_BASE_URL"}
    accepts = {"create_image": _FIELDS, "create_image_edit": {*_FIELDS, "image", "mask"}}
    default_model: ClassVar[str | None] = DEFAULT_MODEL
    model_facts: ClassVar[str] = FACTS
    mask_polarity: ClassVar[MaskPolarity] = "black"
    hard_masks: ClassVar[bool] = True
    credentials = (Credential(variable="IDEOGRAM_API_KEY", header="api-key", scheme=""),)
    fake = FakeIdeogram

    def choose_mask_polarity(self, request: ImageRequest, target: Target) -> MaskPolarity:
        """Return black for Ideogram's own models, white for those of OpenAI."""
        colour: MaskPolarity = _find_endpoint(request, target)[1].get("mask", self.mask_polarity)
        return colour

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse images, a mask, and fields for the shape that the endpoint lacks."""
        super().check(request, target)
        model = resolve_model(request, target.model)
        if model is not None and not _MODEL.fullmatch(model):
            raise InvalidRequestError(
                {"model": "Give a name such as ideogram-4-5, or an action and a name: remix/ideogram-3."}
            )
        place, endpoint = _find_endpoint(request, target)
        problems = {}
        for field, member in (("size", "size"), ("aspect_ratio", "ratio"), ("resolution", "resolution")):
            value = getattr(request, field)
            if value not in (None, "auto") and member not in endpoint:
                problems[field] = f"{place} takes no {field}. Leave it out, or name another model."
        has_mask = getattr(request, "mask", None) is not None
        if has_mask and "mask" not in endpoint:
            problems["mask"] = f"{place} takes no mask. Name another model, such as ideogram-4-5."
        count, most = len(list_images(request)), endpoint.get("most_images")
        beside = " with a mask" if has_mask and endpoint.get("mask_counts") else ""
        if most is not None and count > (most := most - bool(beside)):
            takes = "one image" if most == 1 else f"at most {most} images"
            problems["image"] = f"{place} takes {takes}{beside}, not {count}. Leave out the others."
        if (count > 0) > ("images" in endpoint) or (count == 0) > place.startswith("generate/"):
            problems["model"] = f"{place} has no {request.operation}. Name another model."
        if problems:
            raise InvalidRequestError(problems)

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the submit of a job: JSON for a prompt alone, a form with images."""
        place, endpoint = _find_endpoint(request, target)
        url = f"{target.base_url}/v2/image/{quote(place, safe='/')}"
        members = {
            "prompt": getattr(request, "prompt", None),
            "num_images": request.n,
            "seed": request.seed,
            "negative_prompt": request.negative_prompt,
            **{name: getattr(request, name, None) for name in ("quality", "background")},
            **_encode_shape(request, endpoint),
            "async": True,
        }
        if not inputs.image:
            return encode_json_request(url, members, request)
        extra = {name: value for name, value in (request.extra_body or {}).items() if name != "model"}
        members |= {**(request.model_options or {}), **extra}
        fields = {name: _to_text(value) for name, value in members.items()}
        first, *rest = endpoint.get("images", ("image",))
        names = (first, *(rest[-1:] or [first]) * (len(inputs.image) - 1))
        body = build_form(fields, inputs, names)
        return HttpRequest("POST", url, add_extra_headers(ACCEPT_JSON, request), body)

    def price_request(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the same request as a dry run, which the API checks and prices for free."""
        encoded = self.encode(request, inputs, target)
        return replace(encoded, url=f"{encoded.url}?dry_run=true")

    def decode_price(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> Estimate:
        """Return the quoted price; without bounds if the API estimates it and names no upper bound."""
        with readable(head, body, secrets):
            reply = body.json()
            low = _read_price(reply["usd_micros"])
            is_exact = reply["qualifier"] == "exact"
            bound = low if is_exact else reply.get("upper_bound_usd_micros")
            if bound is None:
                return Estimate(note=f"the API estimates {low:f} USD, and names no upper bound")
            high = low if is_exact else _read_price(bound)
            if high < low:
                raise ValueError("the upper bound is less than the price")
        return Estimate(low=low, high=high, note="quoted by the API")

    def decode(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | JobUpdate:
        """Return the accepted job; the images if ``extra_body`` has asked for them at once."""
        with readable(head, body, secrets):
            reply = body.json()
            if reply.get("data") is None:
                return JobUpdate(state={"generation_id": str(reply["generation_id"])})
        return _decode_images(head, body, target, secrets)

    def poll(self, job: Job, target: Target) -> HttpRequest:
        """Return the GET of the state, with the images once they are there."""
        number = quote(job.state["generation_id"], safe="")
        return build_json_request("GET", f"{target.base_url}/v2/generations/{number}")

    def decode_poll(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | JobUpdate:
        """Return the images, or that the job goes on: also for a word that is not known."""
        if not 200 <= head.status < 300:
            raise explain_poll(head, body, self.error(head, body.raw(), secrets), secrets)
        with readable(head, body, secrets):
            reply = body.json()
            status, reason = str(reply["status"]), reply.get("failure_reason")
        if status == "failed":
            code = reason if isinstance(reason, str) else None
            if code is not None and "policy" in code:
                raise refused(head, code=code, secrets=secrets)
            # The errors page: a generation that fails is not billed.
            raise JobFailedError(f"The job has failed: {code or status}.", status=head.status, code=code)
        if status != "completed":
            return JobUpdate(state=job.state, note=status)
        return _decode_images(head, body, target, secrets)

    def error(self, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return the error of a reply outside 2xx; 422 says that the prompt or an image is unsafe."""
        if head.status == 422:
            return refused(head, read_error_body(body).message, stage="input", secrets=secrets)
        return error_from_reply(head, body, secrets, is_free=False)


def _find_endpoint(request: ImageRequest, target: Target) -> tuple[str, JsonMapping]:
    """Return action and model of a request, and the facts about their address."""
    facts = load_provider_data(FACTS)
    place = resolve_model(request, target.model) or DEFAULT_MODEL
    if "/" not in place:
        actions = find_by_pattern(facts["actions"], place)
        kind = "mask" if getattr(request, "mask", None) is not None else "edit"
        action = "generate" if isinstance(request, CreateImageRequest) else actions[kind]
        place = f"{action}/{place}"
    return place, find_by_pattern(facts["endpoints"], place)


def _encode_shape(request: ImageRequest, endpoint: JsonMapping) -> dict[str, object]:
    """Return the members for size, aspect ratio and resolution, which each endpoint names differently."""
    shape: dict[str, object] = {}
    if request.size is not None and (request.size != "auto" or endpoint.get("size") == "size"):
        sides = {f"custom_{side}": pixels for side, pixels in to_sides(request.size).items()}
        shape |= sides if endpoint["size"] == "custom" else {endpoint["size"]: request.size}
    if request.aspect_ratio is not None:
        shape["aspect_ratio"] = request.aspect_ratio.replace(":", endpoint["ratio"])
    if request.resolution is not None:
        is_lower = endpoint.get("lower", False)
        shape[endpoint["resolution"]] = request.resolution.lower() if is_lower else request.resolution
    return shape


def _to_text(value: object) -> object:
    """Return a value for a form: JSON in place of an object or a list."""
    return json.dumps(value, sort_keys=True) if isinstance(value, Mapping | list | tuple) else value


def _decode_images(head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...]) -> DecodedImages:
    """Return the images of a finished generation.

    Raises:
        ModerationBlockedError: the API withholds every image; it bills them all the same.
    """
    with readable(head, body, secrets):
        reply = body.json()
        entries = {number: dict(entry) for number, entry in enumerate(reply["data"])}
        withheld = [
            n for n, entry in entries.items() if entry.get("is_image_safe") is False and not entry.get("url")
        ]
        notes = tuple(f"images.{number} was withheld by the safety check, and billed" for number in withheld)
        given = {number: entry for number, entry in entries.items() if number not in withheld}
        images, broken = decode_entries(given, target)
        if not images and not withheld:
            raise ValueError("; ".join(broken) or "no image")
        cost = read_cost(reply.get("usage_cost_usd_micros"), MICROS_PER_DOLLAR)
    if not images:
        raise refused(head, "; ".join(notes), stage="output", secrets=secrets, maybe_billed=True)
    pictures = tuple(
        replace(
            image, revised_prompt=prompt if isinstance(prompt := image.extra.get("prompt"), str) else None
        )
        for image in images
    )
    return DecodedImages(pictures=pictures, warnings=(*notes, *broken), damaged=bool(broken), cost=cost)


def _read_price(micros: object) -> Decimal:
    """Return a quoted price in dollars.

    Raises:
        ValueError: it is no amount.
    """
    cost = read_cost(micros, MICROS_PER_DOLLAR)
    if cost is None or cost.amount is None:
        raise ValueError("the price is no amount")
    return cost.amount
