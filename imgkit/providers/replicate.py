"""The dialect of Replicate: predictions of the models of many makers, with inputs of their own.

Source: replicate 1.0.7 (Python), 1.4.0 (JavaScript) and @ai-sdk/replicate for the requests; for states and
inputs replicate.com/docs and the models' own pages; all read 2026-11-28.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import quote

from imgkit.catalogue.catalogue import is_listed, load_provider_data
from imgkit.errors import ImgkitError, InvalidRequestError, JobFailedError
from imgkit.images.inputs import OpenedInputs
from imgkit.jobs.job import Job
from imgkit.models import ImageRequest, resolve_model
from imgkit.providers.base import DecodedImages, MaskPolarity, ReplyBody, Target
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.error_replies import error_from_reply, refused
from imgkit.providers.job_replies import explain_poll
from imgkit.providers.job_values import JobUpdate
from imgkit.providers.json_requests import (
    build_json_request,
    choose_by_inputs,
    encode_json_request,
    refuse_uploaded_files,
    to_data_url,
)
from imgkit.providers.open_outputs import decode_output
from imgkit.providers.replicate_fake import FakeReplicate
from imgkit.providers.reply_images import readable
from imgkit.redact import Secret, scrub
from imgkit.wire.messages import Head, HttpRequest

FACTS = "imgkit.providers:replicate.toml"

_FIELDS = {
    *("prompt", "model", "n", "aspect_ratio", "resolution", "seed", "negative_prompt", "output_format"),
    *("model_options", "extra_body", "extra_headers"),
}
_NAME = r"(?!\.)[\w.-]+/(?!\.)[\w.-]+"
_MODEL = re.compile(rf"(?:deployments/)?{_NAME}|(?:{_NAME}:)?[0-9a-f]{{64}}", re.ASCII)
_FAILED = frozenset({"failed", "canceled", "aborted"})
_REFUSAL = re.compile(r"nsfw|flagged as sensitive|content polic|safety (system|filter|checker)|moderat", re.I)
_PERCENT = re.compile(r"(\d{1,3})%\|")


class ReplicateProvider(BaseProvider):
    """The provider ``"replicate"``; `imgkit.providers.Provider` describes its members.

    A model is ``owner/name``, a version (``owner/name:VERSION``, or its 64 digits alone), or
    ``deployments/owner/name``. ``model_options=`` takes each model's own inputs; ``extra_body=`` the members
    beside ``input``, such as ``webhook``. ``extra_headers={"prefer": "wait=30"}`` lets the API hold its first
    reply until the images are there.

    Example:
        >>> ReplicateProvider().credentials[0].variable
        'REPLICATE_API_TOKEN'
    """

    base_url: ClassVar[str] = "https://api.replicate.com/v1"
    env: ClassVar[Mapping[str, str]] = {
        "api_key": "REPLICATE_API_TOKEN",
        "base_url": "REPLICATE_BASE_URL",
    }
    accepts = {"create_image": _FIELDS, "create_image_edit": {*_FIELDS, "image", "mask"}}
    model_facts: ClassVar[str] = FACTS
    takes_references: ClassVar[bool] = True
    mask_polarity: ClassVar[MaskPolarity] = "white"
    poll_hosts: ClassVar[tuple[str, ...]] = ("api.replicate.com",)
    fake = FakeReplicate

    def choose_model(self, request: ImageRequest) -> str:
        """Return the model for a request that names none: it depends on image and mask."""
        return choose_by_inputs(load_provider_data(FACTS)["names"]["default_models"], request)

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse a model of another form, and an uploaded file."""
        super().check(request, target)
        model = resolve_model(request, target.model)
        if model is not None and target.host_class != "offline" and not _MODEL.fullmatch(model):
            problem = "A model of Replicate is owner/name, owner/name:VERSION or deployments/owner/name."
            raise InvalidRequestError({"model": problem})
        refuse_uploaded_files(request)

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the submit of a prediction."""
        facts = load_provider_data(FACTS)["names"]
        model = resolve_model(request, target.model) or self.choose_model(request)
        plain_model = model.partition(":")[0]
        file_format = getattr(request, "output_format", None)
        if file_format == "jpeg" and not is_listed(plain_model, facts["jpeg_models"]):
            file_format = "jpg"
        members: dict[str, object] = {
            "prompt": getattr(request, "prompt", None),
            "aspect_ratio": request.aspect_ratio,
            "resolution": request.resolution,
            "seed": request.seed,
            "negative_prompt": request.negative_prompt,
            "output_format": file_format,
            facts["count_names"].get(plain_model, "num_outputs"): request.n,
            "mask": None if inputs.mask is None else to_data_url(inputs.mask),
        }
        if inputs.image:
            images = [to_data_url(image) for image in inputs.image]
            names = (name for name, models in facts["image_names"].items() if is_listed(plain_model, models))
            name = next(names, "image")
            members[name] = images if len(images) > 1 or name in facts["list_names"] else images[0]
        members |= request.model_options or {}
        given = {name: value for name, value in members.items() if value is not None}
        name, _, version = model.rpartition(":")
        is_version = bool(name) or "/" not in version
        body = {"version": model if is_version else None, "input": given}
        path = "predictions" if is_version else f"{_to_path(model)}/predictions"
        plain = replace(request, model_options=None)
        return encode_json_request(f"{target.base_url}/{path}", body, plain, merge_objects=True)

    def decode(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | JobUpdate:
        """Return the accepted prediction; its images, if the API has held the reply until they were there."""
        return _read_prediction(head, body, target, secrets, None)

    def poll(self, job: Job, target: Target) -> HttpRequest:
        """Return the GET of the address that the submit named."""
        return build_json_request("GET", job.state["get"])

    def decode_poll(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | JobUpdate:
        """Return the images, or that the prediction goes on: also for a word that is not known."""
        if not 200 <= head.status < 300:
            raise explain_poll(head, body, self.error(head, body.raw(), secrets), secrets)
        return _read_prediction(head, body, target, secrets, job)

    def cancel_job(self, job: Job, target: Target) -> HttpRequest | None:
        """Return the POST that cancels a prediction."""
        url = job.state.get("cancel")
        return build_json_request("POST", url) if url else None

    def decode_cancel(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> bool:
        """Return False for a prediction that had ended before."""
        if not 200 <= head.status < 300:
            raise self.error(head, body.raw(), secrets)
        with readable(head, body, secrets):
            return body.json().get("status") not in ("succeeded", "failed")

    def error(self, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return the error of a reply outside 2xx."""
        return error_from_reply(head, body, secrets)


def _to_path(model: str) -> str:
    """Return the path of a model without a version, or of a deployment."""
    path = quote(model, safe="/")
    return path if model.startswith("deployments/") else f"models/{path}"


def _read_addresses(reply: Mapping[str, Any], target: Target, job: Job | None) -> tuple[str, dict[str, str]]:
    """Return the id of a prediction and its addresses; the one follows from the other if it is missing.

    Raises:
        ValueError: both are missing.
    """
    urls = reply["urls"] if isinstance(reply.get("urls"), Mapping) else {}
    state = {} if job is None else dict(job.state)
    state |= {name: url for name in ("get", "cancel") if isinstance(url := urls.get(name), str) and url}
    number = str(reply.get("id") or state.get("get", "").rpartition("/")[2])
    if not number:
        raise ValueError("a prediction without an id")
    return number, {"get": f"{target.base_url}/predictions/{quote(number, safe='')}", **state}


def _read_prediction(
    head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...], job: Job | None
) -> DecodedImages | JobUpdate:
    """Return the images of a prediction that has succeeded, or the news of one at work.

    Raises:
        ModerationBlockedError: the model has refused its input, or its own output.
        JobFailedError: the prediction has failed. The API bills some models by their time.
    """
    with readable(head, body, secrets):
        reply = body.json()
        number, state = _read_addresses(reply, target, job)
        # A submit without a word for its state is accepted, and goes on.
        status = reply["status"] if job else reply.get("status") or "starting"
        if not isinstance(status, str):
            raise TypeError("the word for the state is no text")
        failure = reply.get("error")
        metrics = reply.get("metrics") or {}
        percents = _PERCENT.findall(str(reply.get("logs") or "")[-2000:])
    if status in _FAILED:
        text = scrub(str(failure), secrets, limit=500) if failure else ""
        if _REFUSAL.search(text):
            raise refused(head, text, secrets=secrets, maybe_billed=True)
        reason = f"{status}: {text}" if text else status
        error = JobFailedError(f"The prediction has ended: {reason}.", status=head.status, code=status)
        error.maybe_billed = status != "aborted"
        raise error
    if status != "succeeded":
        progress = min(int(percents[-1]), 100) / 100 if percents else None
        return JobUpdate(state=state, note=status[:60], progress=progress)
    images, broken = decode_output(reply.get("output"), head, body, target)
    extra = {"prediction_id": number, "metrics": metrics}
    return DecodedImages(pictures=images, warnings=tuple(broken), damaged=bool(broken), extra=extra)
