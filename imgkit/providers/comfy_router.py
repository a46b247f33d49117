"""The dialect of Comfy Router: models of many makers, each with its own input, run once per idempotency key.

Source: comfy-sdk 0.5.0 for the requests; docs.comfy.org for keys, errors, the queue and the inputs of models;
all read 2026-11-28.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar
from urllib.parse import quote

from imgkit.catalogue.catalogue import is_listed, load_provider_data
from imgkit.errors import ImgkitError, InvalidRequestError, JobFailedError, OutcomeUnknownError
from imgkit.images.inputs import OpenedInputs
from imgkit.jobs.job import Job
from imgkit.models import ImageRequest, resolve_model
from imgkit.providers.base import Credential, DecodedImages, MaskPolarity, ReplyBody, Target
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.comfy_router_fake import FakeComfyRouter
from imgkit.providers.error_bodies import add_code
from imgkit.providers.error_replies import error_from_reply, refused
from imgkit.providers.flux_replies import MODERATED, decode_flux_poll
from imgkit.providers.job_replies import explain_poll, read_queue_addresses
from imgkit.providers.job_values import JobUpdate
from imgkit.providers.json_requests import (
    build_json_request,
    choose_by_inputs,
    encode_json_request,
    name_images,
    refuse_uploaded_files,
    to_base64,
    to_data_url,
    to_sides,
)
from imgkit.providers.open_outputs import decode_output
from imgkit.providers.reply_images import decode_image_body, read_cost, readable
from imgkit.redact import Secret, scrub
from imgkit.wire.headers import retry_after_s
from imgkit.wire.messages import Head, HttpRequest

FACTS = "imgkit.providers:comfy_router.toml"
KEY_LIFE_S = 23 * 3600.0
"""The API keeps a key for 24 hours; an hour less leaves no doubt."""

_FIELDS = {
    *("prompt", "model", "n", "size", "aspect_ratio", "seed", "negative_prompt", "quality", "output_format"),
    *("model_options", "extra_body", "extra_headers"),
}
_PART = r"[a-z0-9]+(?:[._-][a-z0-9]+)*"
_MODEL = re.compile(rf"{_PART}/{_PART}", re.ASCII)
_REFUSAL = re.compile(r"policy|moderat|safety")
_BUSY = frozenset({"concurrency_limit_exceeded", "rate_limited", "service_unavailable"})
_NEXT_STEPS = {
    "not_enabled": 'Pass model_options={"queue": False}, or use a key of a workspace that has the queue.',
    "idempotency_key_reuse": "Repeat the first request unchanged, or leave the key out.",
}


class ComfyRouterProvider(BaseProvider):
    """The provider ``"comfy_router"``; `imgkit.providers.Provider` describes its members.

    A model is ``maker/name``, such as ``bfl/flux-2-pro``. ``model_options=`` takes each model's own inputs,
    and ``{"queue": False}`` to hold the connection in place of the queue. imgkit sends each request with an
    Idempotency-Key, and repeats it under this key if its reply was lost: the API runs it once.

    Example:
        >>> ComfyRouterProvider().repeats_within_s
        82800.0
    """

    base_url: ClassVar[str] = "https://api.comfy.org"
    env: ClassVar[Mapping[str, str]] = {"api_key": "COMFY_API_KEY", "base_url": "COMFY_ROUTER_BASE_URL"}
    base64_keys: ClassVar[frozenset[str]] = frozenset({"b64_json", "data"})
    accepts = {"create_image": _FIELDS, "create_image_edit": {*_FIELDS, "image", "mask"}}
    model_facts: ClassVar[str] = FACTS
    takes_references: ClassVar[bool] = True
    mask_polarity: ClassVar[MaskPolarity] = "white"
    credentials = (Credential(variable="COMFY_API_KEY", header="x-api-key", scheme=""),)
    poll_hosts: ClassVar[tuple[str, ...]] = ("api.comfy.org",)
    repeats_within_s: ClassVar[float] = KEY_LIFE_S
    fake = FakeComfyRouter

    def models_request(self, target: Target) -> HttpRequest:
        """Return the GET of the first models."""
        return build_json_request("GET", f"{target.base_url}/v2/models?limit=100")

    def choose_model(self, request: ImageRequest) -> str:
        """Return the model for a request that names none: it depends on image and mask."""
        return choose_by_inputs(load_provider_data(FACTS)["names"]["default_models"], request)

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse a model of another form, a model whose input has no prompt, and an uploaded file."""
        super().check(request, target)
        model = resolve_model(request, target.model)
        if model is not None and target.host_class != "offline":
            if not _MODEL.fullmatch(model):
                problem = "A model of Comfy Router is maker/name in lower case, such as bfl/flux-2-pro."
                raise InvalidRequestError({"model": problem})
            if is_listed(model, load_provider_data(FACTS)["names"]["other_models"]):
                problem = "The input of this model has another shape. Use the provider of its maker: gemini."
                raise InvalidRequestError({"model": problem})
        refuse_uploaded_files(request)

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the submit to the queue; with the option ``queue=False`` the request that waits."""
        facts = load_provider_data(FACTS)["names"]
        model = resolve_model(request, target.model) or self.choose_model(request)
        options = dict(request.model_options or {})
        path = f"/v2/models/{quote(model, safe='/-_.:@')}{'/requests' if options.pop('queue', True) else ''}"
        has_sides = is_listed(model, facts["side_models"])
        to_text = to_base64 if is_listed(model, facts["base64_models"]) else to_data_url
        images = [to_text(image) for image in inputs.image]
        members: dict[str, object] = {
            "prompt": getattr(request, "prompt", None),
            "n": request.n,
            "aspect_ratio": request.aspect_ratio,
            "seed": request.seed,
            "negative_prompt": request.negative_prompt,
            "quality": getattr(request, "quality", None),
            "output_format": getattr(request, "output_format", None),
            "mask": None if inputs.mask is None else to_text(inputs.mask),
            **(to_sides(request.size) if has_sides else {"size": request.size}),
        }
        if is_listed(model, facts["numbered_models"]):
            members |= name_images("input_image", images)
        elif images:
            members["image"] = images if len(images) > 1 else images[0]
        plain = replace(request, model_options=options)
        return encode_json_request(f"{target.base_url}{path}", members, plain)

    def decode(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | JobUpdate:
        """Return the accepted request, or the images of a run."""
        if body.image() is not None:
            return _add_headers(decode_image_body(head, body, target, secrets), head, secrets)
        with readable(head, body, secrets):
            reply = body.json()
            state = read_queue_addresses(reply)
            if state is None:
                return _decode_run(reply, head, body, target, secrets)
        return JobUpdate(state=state, poll_after_s=retry_after_s(head.headers), note="IN_QUEUE")

    def poll(self, job: Job, target: Target) -> HttpRequest:
        """Return the GET of the state, or of the result once the request has ended."""
        return build_json_request("GET", job.state["response_url" if _has_ended(job) else "status_url"])

    def decode_poll(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | JobUpdate:
        """Return the images, that the request goes on, or the step to its result."""
        if _has_ended(job):
            return self._decode_result(job, head, body, target, secrets)
        if not 200 <= head.status < 300:
            raise explain_poll(head, body, self.error(head, body.raw(), secrets), secrets)
        with readable(head, body, secrets):
            reply = body.json()
            word, kind = str(reply["status"]), reply.get("error_type")
        if word != "COMPLETED":
            return JobUpdate(state=job.state, poll_after_s=retry_after_s(head.headers), note=word[:60])
        more = {"error_type": str(kind)[:80]} if kind else {}
        return JobUpdate(state={**job.state, **more, "step": "result"}, poll_after_s=0, note=word)

    def _decode_result(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...]
    ) -> DecodedImages | JobUpdate:
        kind = job.state.get("error_type") or head.headers.get("x-comfy-error-type")
        if 200 <= head.status < 300 and not kind:
            return self.decode(head, body, target, secrets)
        named = Head(head.status, {**head.headers, "x-comfy-error-type": kind or ""})
        error = self.error(named, body.raw(), secrets)
        if not kind or (kind in _BUSY and "error_type" not in job.state):
            raise explain_poll(head, body, error, secrets)
        if isinstance(error, OutcomeUnknownError) or head.status < 400:
            reason = scrub(f"The run has failed: {kind}.", secrets, limit=200)
            failure = JobFailedError(reason, status=head.status, code=kind)
            # A generation that the maker has completed is charged, also if the router lost it.
            failure.maybe_billed = True
            raise failure
        raise error

    def failure_is_final(self, job: Job, head: Head) -> bool:
        """Return True where the state of the request has told its failure: its result repeats it."""
        return _has_ended(job) and "error_type" in job.state

    def cancel_job(self, job: Job, target: Target) -> HttpRequest | None:
        """Return the PUT that asks to cancel a request. A run at its maker may go on, and is charged then."""
        url = job.state.get("cancel_url")
        return build_json_request("PUT", url) if url else None

    def decode_cancel(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> bool:
        """Return True for an accepted cancellation, False for a request that had ended."""
        if head.status == 409:
            return False
        if 200 <= head.status < 300:
            return True
        raise self.error(head, body.raw(), secrets)

    def error(self, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return the error of a reply outside 2xx: the header ``x-comfy-error-type`` has its code."""
        kind = head.headers.get("x-comfy-error-type", "")
        error = error_from_reply(head, add_code(body, kind), secrets, next_steps=_NEXT_STEPS, is_free=False)
        if _REFUSAL.search(kind) and head.status < 500:
            # Some makers charge for a refusal.
            return refused(head, error.problem, code=kind, secrets=secrets, maybe_billed=head.status != 422)
        if head.status != 409 or kind != "concurrency_limit_exceeded":
            return error
        running = OutcomeUnknownError(error.problem, request_id=head.request_id, status=head.status)
        running.retry_after_s = retry_after_s(head.headers)
        return running


def _has_ended(job: Job) -> bool:
    return job.state.get("step") == "result"


def _decode_run(
    reply: object, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...]
) -> DecodedImages:
    """Return the images of a run: each model has an output of its own."""
    if isinstance(reply, dict) and reply.get("status") in MODERATED:
        decode_flux_poll(head, body, {}, secrets)
    images, broken = decode_output(reply, head, body, target)
    decoded = DecodedImages(pictures=images, warnings=tuple(broken), damaged=bool(broken))
    return _add_headers(decoded, head, secrets)


def _add_headers(decoded: DecodedImages, head: Head, secrets: tuple[Secret, ...]) -> DecodedImages:
    """Return images with the cost of their run, and with the changes that the router has made."""
    texts = {
        name: scrub(head.headers[header], secrets, limit=200)
        for name, header in (
            ("dropped_params", "x-comfy-router-dropped-params"),
            ("fallback_provider", "x-comfy-router-fallback-provider"),
            ("replayed", "idempotent-replayed"),
        )
        if head.headers.get(header)
    }
    warnings = list(decoded.warnings)
    if "dropped_params" in texts:
        warnings.append(f"The router has left out parameters: {texts['dropped_params']}.")
    if "fallback_provider" in texts:
        warnings.append(f"Another provider has made the images: {texts['fallback_provider']}.")
    cost = read_cost(head.headers.get("x-litellm-response-cost"), note="as the API reports it")
    return replace(decoded, cost=cost, warnings=tuple(warnings), extra={**decoded.extra, **texts})
