"""The dialect of fal.ai: the models of many makers behind a queue, with inputs of their own.

Source: fal-client 1.0.3 and @ai-sdk/fal 3.0.41 for the requests, fal.ai/docs for states and errors; all
read 2026-11-28.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import ClassVar

import pybase64

from imgkit.errors import ImgkitError, InvalidRequestError, JobFailedError
from imgkit.images.inputs import ImageFile, OpenedInputs
from imgkit.images.references import ImageReference
from imgkit.jobs.job import Job
from imgkit.models import CreateImageEditRequest, ImageRequest, resolve_model
from imgkit.providers.base import Credential, DecodedImage, DecodedImages, MaskPolarity, ReplyBody, Target
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.error_bodies import read_error_body
from imgkit.providers.error_replies import error_from_reply, refused
from imgkit.providers.fal_fake import FakeFal
from imgkit.providers.job_values import JobUpdate
from imgkit.providers.reply_images import decode_content, readable, unreadable_reply_error
from imgkit.redact import Secret
from imgkit.wire.json_values import restore_base64
from imgkit.wire.messages import BytesBody, Head, HttpRequest

DEFAULT_MODEL, EDIT_MODEL, MASK_MODEL = (
    "fal-ai/flux/schnell",
    "fal-ai/flux-pro/kontext",
    "fal-ai/flux-pro/v1/fill",
)

LIST_MODELS = (
    "fal-ai/nano-banana*/edit",
    "fal-ai/flux-2*/edit",
    "fal-ai/flux-pro/kontext*/multi",
    "fal-ai/bytedance/seedream/*/edit",
)
"""Models that take a single image in ``image_urls`` too. All others take it in ``image_url``."""

_FIELDS = {"prompt", "model", "size", "output_format", "n", "extra_body", "extra_headers"}
_MODEL = re.compile(r"(?!\.+(/|$))[\w.-]+(/(?!\.+(/|$))[\w.-]+)*", re.ASCII)
_FREE_STATUSES = frozenset({500, 502, 503})
_REFUSALS = frozenset({400, 409, 413, 415, 422})
_MARKS = ("x-fal-request-id", "x-fal-error-type")
"""Headers of fal's own replies, which a gateway in front of it does not send by itself."""


class FalProvider(BaseProvider):
    """The provider ``"fal"``; `imgkit.providers.Provider` describes its members.

    A model is a path such as ``fal-ai/flux/schnell``. ``extra_body=`` takes each model's own fields, such as
    ``seed``, ``aspect_ratio`` and ``image_size="landscape_16_9"``.

    Example:
        >>> FalProvider().credentials[0].scheme
        'Key'
    """

    base_url: ClassVar[str] = "https://queue.fal.run"
    env: ClassVar[Mapping[str, str]] = {"api_key": "FAL_KEY", "base_url": "FAL_BASE_URL"}
    base64_keys: ClassVar[frozenset[str]] = frozenset({"url"})
    accepts = {"create_image": _FIELDS, "create_image_edit": {*_FIELDS, "image", "mask"}}
    model_facts: ClassVar[str] = "imgkit.providers:fal.toml"
    takes_references: ClassVar[bool] = True
    mask_polarity: ClassVar[MaskPolarity] = "white"
    credentials = (Credential(variable="FAL_KEY", scheme="Key"),)
    official_hosts: ClassVar[tuple[str, ...]] = ("fal.run",)
    poll_hosts: ClassVar[tuple[str, ...]] = ("queue.fal.run",)
    fake = FakeFal

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse a model that is no path, and an uploaded file."""
        super().check(request, target)
        model = resolve_model(request, target.model)
        if model is not None and not _MODEL.fullmatch(model):
            raise InvalidRequestError({"model": "A model of fal is a path, such as fal-ai/flux/schnell."})
        if isinstance(request, CreateImageEditRequest):
            images = request.image if isinstance(request.image, tuple) else (request.image,)
            for field, each in (*(("image", image) for image in images), ("mask", request.mask)):
                if isinstance(each, ImageReference) and each.url is None:
                    raise InvalidRequestError({field: "fal fetches a url; it has no uploaded files."})

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the submit of a job."""
        default = MASK_MODEL if inputs.mask is not None else EDIT_MODEL if inputs.image else DEFAULT_MODEL
        model = resolve_model(request, target.model) or default
        body: dict[str, object] = {"prompt": getattr(request, "prompt", None), "num_images": request.n}
        if request.size and request.size != "auto":
            width, _, height = request.size.partition("x")
            body["image_size"] = {"width": int(width), "height": int(height)}
        body["output_format"] = getattr(request, "output_format", None)
        images = [_encode_image(image) for image in inputs.image]
        if len(images) > 1 or (images and any(fnmatchcase(model, pattern) for pattern in LIST_MODELS)):
            body["image_urls"] = images
        elif images:
            body["image_url"] = images[0]
        if inputs.mask is not None:
            body["mask_url"] = _encode_image(inputs.mask)
        body |= {name: value for name, value in (request.extra_body or {}).items() if name != "model"}
        content = json.dumps({k: v for k, v in body.items() if v is not None}, sort_keys=True).encode()
        headers = {
            "accept": "application/json",
            **{name: value for name, value in (request.extra_headers or {}).items() if value},
        }
        url = f"{target.base_url}/{model}"
        return HttpRequest("POST", url, headers, BytesBody(content, "application/json"))

    def decode(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | JobUpdate:
        """Return the accepted job with its three addresses; the images at the direct door, ``fal.run``."""
        with readable(head, body, secrets):
            reply = body.json()
            if "status_url" not in reply:
                return _decode_images(head, body, target, secrets)
            state = {name: str(reply[name]) for name in ("request_id", "status_url", "response_url")}
            state |= {"cancel_url": str(reply["cancel_url"])} if "cancel_url" in reply else {}
        return JobUpdate(state=state, note=_describe_place(reply))

    def poll(self, job: Job, target: Target) -> HttpRequest:
        """Return the GET of the state, or of the result once the job has ended."""
        name = "response_url" if _asks_for_result(job) else "status_url"
        return HttpRequest("GET", job.state[name], {"accept": "application/json"})

    def decode_poll(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | JobUpdate:
        """Return the images, that the job goes on, or the step to its result."""
        if _asks_for_result(job):
            return self._decode_result(job, head, body, target, secrets)
        if not 200 <= head.status < 300:
            raise self._explain_status(head, body, secrets)
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
        raise self._explain_status(head, body, secrets)

    def _explain_status(self, head: Head, body: ReplyBody, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return the error of a poll outside 2xx: few statuses tell that the job is lost."""
        if head.status in (404, 410):
            return JobFailedError("fal does not know the job any more.", status=head.status)
        error = self.error(head, body.raw(), secrets)
        is_refused_key = head.status in (401, 403)
        return error if is_refused_key else unreadable_reply_error(head, body, error.problem, secrets)

    def failure_is_final(self, job: Job, head: Head) -> bool:
        """Return True where fal says itself that the model has failed: its result is the failure."""
        return _asks_for_result(job) and bool(job.state.get("error") or head.headers.get("x-fal-error-type"))

    def cancel_job(self, job: Job, target: Target) -> HttpRequest | None:
        """Return the PUT that cancels a job; certain only while the job waits in the queue."""
        url = job.state.get("cancel_url")
        return HttpRequest("PUT", url, {"accept": "application/json"}) if url else None

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
    return f"{place} job{'' if place == 1 else 's'} ahead"


def _encode_image(image: ImageFile | ImageReference) -> str:
    """Return the URL that the API fetches, or the image as a ``data:`` URL."""
    if isinstance(image, ImageReference):
        return image.url or ""
    return f"data:{image.kind.media_type};base64,{pybase64.b64encode(image.read()).decode('ascii')}"


def _decode_images(head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...]) -> DecodedImages:
    """Return the images of a model's output.

    Raises:
        ModerationBlockedError: the safety checker flags every image; fal sends black images then.
    """
    with readable(head, body, secrets):
        reply = dict(body.json())
        entries = reply.pop("images", None) or [reply.pop("image")]
        flags, prompt = reply.pop("has_nsfw_concepts", None), reply.pop("prompt", None)
        prompt = prompt if isinstance(prompt, str) else None
        images: list[DecodedImage] = []
        broken: list[str] = []
        flagged: list[str] = []
        for number, entry in enumerate(entries):
            if isinstance(flags, list) and flags[number : number + 1] == [True]:
                flagged.append(f"images.{number} was refused by the safety checker")
                continue
            link = entry.pop("url", None) if isinstance(entry, dict) else None
            is_text = isinstance(link, str)
            content, problems = decode_content(None if is_text else link, link if is_text else None, target)
            if content:
                images.append(DecodedImage(**content, revised_prompt=prompt, extra=restore_base64(entry)))
            elif not problems:
                problems = ["has no image"]
            broken += [f"images.{number} {problem}" for problem in problems]
        if not images and not flagged:
            raise ValueError("; ".join(broken) or "no image")
    if not images:
        raise refused(head, "; ".join(flagged), stage="output", secrets=secrets, maybe_billed=True)
    return DecodedImages(
        pictures=tuple(images),
        warnings=(*flagged, *broken),
        damaged=bool(broken),
        extra=restore_base64(reply),
    )
