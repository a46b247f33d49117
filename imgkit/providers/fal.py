"""The dialect of fal.ai: the models of many makers behind a queue, with inputs of their own.

Source: fal-client 1.0.3 and @ai-sdk/fal 3.0.41 for the requests, fal.ai/docs for states and errors; all
read 2026-11-28.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import quote

from imgkit.catalogue.catalogue import is_listed, load_provider_data
from imgkit.errors import ImgkitError, InvalidRequestError, JobFailedError
from imgkit.images.inputs import OpenedInputs
from imgkit.jobs.job import Job
from imgkit.models import ImageRequest, resolve_model
from imgkit.providers.base import Credential, DecodedImages, MaskPolarity, ReplyBody, Target
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.error_bodies import read_error_body
from imgkit.providers.error_replies import error_from_reply, refused
from imgkit.providers.fal_fake import FakeFal
from imgkit.providers.job_replies import describe_place, explain_poll, read_queue_addresses
from imgkit.providers.job_values import JobUpdate
from imgkit.providers.json_requests import (
    build_json_request,
    choose_by_inputs,
    encode_json_request,
    refuse_uploaded_files,
    to_data_url,
    to_sides,
)
from imgkit.providers.reply_images import decode_entries, readable
from imgkit.redact import Secret
from imgkit.wire.json_values import restore_base64
from imgkit.wire.messages import Head, HttpRequest

FACTS = "imgkit.providers:fal.toml"

_FIELDS = {
    *("prompt", "model", "size", "aspect_ratio", "resolution", "seed", "negative_prompt", "output_format"),
    *("n", "model_options", "extra_body", "extra_headers"),
}
_MODEL = re.compile(r"(?!\.+(/|$))[\w.-]+(/(?!\.+(/|$))[\w.-]+)*", re.ASCII)
_FREE_STATUSES = frozenset({500, 502, 503})
_REFUSALS = frozenset({400, 409, 413, 415, 422})
_MARKS = ("x-fal-request-id", "x-fal-error-type")
"""Headers of fal's own replies, which a gateway in front of it does not send by itself."""


class FalProvider(BaseProvider):
    """The provider ``"fal"``; `imgkit.providers.Provider` describes its members.

    A model is a path such as ``fal-ai/flux/schnell``. ``model_options=`` takes each model's own inputs, such
    as ``num_inference_steps`` and ``image_size="landscape_16_9"``.

    Example:
        >>> FalProvider().credentials[0].scheme
        'Key'
    """

    base_url: ClassVar[str] = "https://queue.fal.run"
    env: ClassVar[Mapping[str, str]] = {"api_key": "FAL_KEY", "base_url": "FAL_BASE_URL"}
    base64_keys: ClassVar[frozenset[str]] = frozenset({"url"})
    accepts = {"create_image": _FIELDS, "create_image_edit": {*_FIELDS, "image", "mask"}}
    model_facts: ClassVar[str] = FACTS
    takes_references: ClassVar[bool] = True
    mask_polarity: ClassVar[MaskPolarity] = "white"
    credentials = (Credential(variable="FAL_KEY", scheme="Key"),)
    official_hosts: ClassVar[tuple[str, ...]] = ("fal.run",)
    poll_hosts: ClassVar[tuple[str, ...]] = ("queue.fal.run",)
    fake = FakeFal

    def choose_model(self, request: ImageRequest) -> str:
        """Return the model for a request that names none: it depends on image and mask."""
        return choose_by_inputs(load_provider_data(FACTS)["members"]["default_models"], request)

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse a model that is no path, and an uploaded file."""
        super().check(request, target)
        model = resolve_model(request, target.model)
        if model is not None and not _MODEL.fullmatch(model):
            raise InvalidRequestError({"model": "A model of fal is a path, such as fal-ai/flux/schnell."})
        refuse_uploaded_files(request)

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the submit of a job."""
        model = resolve_model(request, target.model) or self.choose_model(request)
        list_models = load_provider_data(FACTS)["members"]["image_list_models"]
        images = [to_data_url(image) for image in inputs.image]
        is_list = len(images) > 1 or is_listed(model, list_models)
        members = {
            "prompt": getattr(request, "prompt", None),
            "num_images": request.n,
            "image_size": to_sides(request.size) or None,
            "aspect_ratio": request.aspect_ratio,
            "resolution": request.resolution,
            "seed": request.seed,
            "negative_prompt": request.negative_prompt,
            "output_format": getattr(request, "output_format", None),
            "image_urls" if is_list else "image_url": (images if is_list else images[0]) if images else None,
            "mask_url": None if inputs.mask is None else to_data_url(inputs.mask),
        }
        return encode_json_request(f"{target.base_url}/{quote(model, safe='/-_.:@')}", members, request)

    def decode(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | JobUpdate:
        """Return the accepted job with its three addresses; the images at the direct door, ``fal.run``."""
        with readable(head, body, secrets):
            reply = body.json()
            state = read_queue_addresses(reply)
            if state is None:
                return _decode_images(head, body, target, secrets)
        return JobUpdate(state=state, note=_describe_place(reply))

    def poll(self, job: Job, target: Target) -> HttpRequest:
        """Return the GET of the state, or of the result once the job has ended."""
        name = "response_url" if _asks_for_result(job) else "status_url"
        return build_json_request("GET", job.state[name])

    def decode_poll(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | JobUpdate:
        """Return the images, that the job goes on, or the step to its result."""
        if _asks_for_result(job):
            return self._decode_result(job, head, body, target, secrets)
        if not 200 <= head.status < 300:
            raise explain_poll(head, body, self.error(head, body.raw(), secrets), secrets)
        with readable(head, body, secrets):
            reply = body.json()
            word = str(reply["status"])
        if word != "COMPLETED":
            return JobUpdate(state=job.state, note=_describe_place(reply))
        failure = reply.get("error")
        more = {"error": str(failure)[:500], "error_type": str(reply.get("error_type"))} if failure else {}
        return JobUpdate(state={**job.state, **more, "step": "result"}, poll_after_s=0, note=word)

    def _decode_result(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...]
    ) -> DecodedImages | JobUpdate:
        if head.status == 202 or (head.status == 400 and b"still in progress" in body.raw()):
            return JobUpdate(state={k: v for k, v in job.state.items() if k != "step"}, note="IN_PROGRESS")
        failure = job.state.get("error")
        if head.status < 300 and not failure:
            return _decode_images(head, body, target, secrets)
        if head.status in _REFUSALS:
            error = self.error(head, body.raw(), secrets)
            # fal's FAQ: such a request is billed if the model had begun.
            error.maybe_billed = head.status == 422
            raise error
        if failure or head.status >= 500:
            code = job.state.get("error_type") or head.headers.get("x-fal-error-type")
            if code == "content_policy_violation":
                raise refused(head, failure or "", code=code, secrets=secrets)
            reason = failure or f"HTTP {head.status}"
            raise JobFailedError(f"The job has failed: {reason}.", status=head.status, code=code)
        raise explain_poll(head, body, self.error(head, body.raw(), secrets), secrets)

    def failure_is_final(self, job: Job, head: Head) -> bool:
        """Return True where fal says itself that the model has failed: its result is the failure."""
        return _asks_for_result(job) and bool(job.state.get("error") or head.headers.get("x-fal-error-type"))

    def cancel_job(self, job: Job, target: Target) -> HttpRequest | None:
        """Return the PUT that cancels a job; certain only while the job waits in the queue."""
        url = job.state.get("cancel_url")
        return build_json_request("PUT", url) if url else None

    def decode_cancel(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> bool:
        """Return True for an accepted cancellation, False for a job that had ended."""
        if 200 <= head.status < 300:
            return True
        if b"ALREADY_COMPLETED" in body.raw():
            return False
        raise self.error(head, body.raw(), secrets)

    def error(self, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return the error of a reply outside 2xx."""
        return error_from_reply(head, body, secrets, is_free=self.failure_is_free(head, body))

    def failure_is_free(self, head: Head, body: bytes) -> bool:
        """Return True for fal's own error under 500, 502 or 503: fal bills no failed request.

        Source: fal.ai/docs, "Reliability", read 2026-11-28. A 504 tells only that a gateway gave up.
        """
        is_own = any(head.headers.get(name) for name in _MARKS)
        return head.status in _FREE_STATUSES and is_own and read_error_body(body).structured


def _asks_for_result(job: Job) -> bool:
    return job.state.get("step") == "result"


def _describe_place(reply: Mapping[str, object]) -> str:
    """Return the place in the queue, or the word for the state."""
    place = reply.get("queue_position")
    if reply.get("status") != "IN_QUEUE" or type(place) is not int:
        return str(reply.get("status", ""))[:60]
    return describe_place(place)


def _decode_images(head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...]) -> DecodedImages:
    """Return the images of a model's output.

    Raises:
        ModerationBlockedError: the safety checker flags every image; fal sends black images then.
    """
    with readable(head, body, secrets):
        reply = dict(body.json())
        entries = reply.pop("images", None) or [reply.pop("image")]
        flags, prompt = reply.pop("has_nsfw_concepts", None), reply.pop("prompt", None)
        flags = flags[: len(entries)] if isinstance(flags, list) else []
        flagged = [number for number, flag in enumerate(flags) if flag is True]
        notes = [f"images.{number} was refused by the safety checker" for number in flagged]
        given = {number: entry for number, entry in enumerate(entries) if number not in flagged}
        prompt = prompt if isinstance(prompt, str) else None
        images, broken = decode_entries(given, target, revised_prompt=prompt)
        if not images and not flagged:
            raise ValueError("; ".join(broken) or "no image")
    if not images:
        raise refused(head, "; ".join(notes), stage="output", secrets=secrets, maybe_billed=True)
    return DecodedImages(
        pictures=tuple(images), warnings=(*notes, *broken), damaged=bool(broken), extra=restore_base64(reply)
    )
