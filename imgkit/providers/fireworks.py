"""The dialect of Fireworks: FLUX.1 and older models that answer with bytes, FLUX Kontext as jobs.

Source: @ai-sdk/fireworks 3.0.62 for the requests; docs.fireworks.ai for replies and states; read 2026-11-28.
Unconfirmed: which of these models are still switched on, and the body of an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import quote

from imgkit.catalogue.catalogue import is_listed, load_provider_data
from imgkit.errors import ImgkitError, InvalidRequestError
from imgkit.images.inputs import OpenedInputs
from imgkit.jobs.job import Job
from imgkit.models import ImageRequest, resolve_model
from imgkit.providers.base import DecodedImages, ReplyBody, Target
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.error_replies import error_from_reply, refused
from imgkit.providers.fireworks_fake import FakeFireworks
from imgkit.providers.flux_replies import decode_flux_poll
from imgkit.providers.job_replies import explain_poll
from imgkit.providers.job_values import JobUpdate
from imgkit.providers.json_requests import (
    build_json_request,
    choose_by_inputs,
    encode_json_request,
    list_images,
    refuse_more_images,
    refuse_uploaded_files,
    to_data_url,
    to_sides,
)
from imgkit.providers.open_outputs import decode_output
from imgkit.providers.reply_images import decode_image_body, readable
from imgkit.redact import Secret
from imgkit.wire.messages import Head, HttpRequest

FACTS = "imgkit.providers:fireworks.toml"

_FIELDS = {
    *("prompt", "model", "n", "size", "aspect_ratio", "seed", "negative_prompt", "output_format"),
    *("model_options", "extra_body", "extra_headers"),
}
_ACCOUNT = "accounts/fireworks/models/"
_FILTERED = "CONTENT_FILTERED"


class FireworksProvider(BaseProvider):
    """The provider ``"fireworks"``; `imgkit.providers.Provider` describes its members.

    A model is a name such as ``flux-1-schnell-fp8``, or its whole path ``accounts/…/models/…``.

    Example:
        >>> FireworksProvider().credentials[0].variable
        'FIREWORKS_API_KEY'
    """

    base_url: ClassVar[str] = "https://api.fireworks.ai/inference/v1"
    env: ClassVar[Mapping[str, str]] = {"api_key": "FIREWORKS_API_KEY", "base_url": "FIREWORKS_BASE_URL"}
    base64_keys: ClassVar[frozenset[str]] = frozenset({"base64"})
    accepts = {"create_image": _FIELDS, "create_image_edit": {*_FIELDS, "image"}}
    model_facts: ClassVar[str] = FACTS
    takes_references: ClassVar[bool] = True
    poll_hosts: ClassVar[tuple[str, ...]] = ("api.fireworks.ai",)
    fake = FakeFireworks

    def models_request(self, target: Target) -> HttpRequest:
        """Return the GET of the models, as OpenAI's shape has it."""
        return build_json_request("GET", f"{target.base_url}/models")

    def choose_model(self, request: ImageRequest) -> str:
        """Return flux-1-schnell-fp8 to draw, and flux-kontext-pro for an edit."""
        return choose_by_inputs(load_provider_data(FACTS)["default_models"], request)

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse an edit by a model that only creates, more than one image, and an uploaded file."""
        super().check(request, target)
        refuse_uploaded_files(request)
        refuse_more_images(request, 1, "Fireworks")
        model = resolve_model(request, None if target.host_class == "offline" else target.model)
        jobs = load_provider_data(FACTS)["doors"]["jobs"]
        if list_images(request) and model is not None and not is_listed(model, jobs):
            raise InvalidRequestError({"model": "This model edits no images. Use flux-kontext-pro."})

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the request of the door that the model has."""
        facts = load_provider_data(FACTS)
        model = resolve_model(request, target.model) or self.choose_model(request)
        path = _find_path(model)
        is_job = bool(inputs.image) or is_listed(model, facts["doors"]["jobs"])
        file_format = getattr(request, "output_format", None)
        members: dict[str, object] = {
            "prompt": getattr(request, "prompt", None),
            "aspect_ratio": request.aspect_ratio,
            **to_sides(request.size),
            "seed": request.seed,
            "negative_prompt": request.negative_prompt,
            "samples": request.n,
        }
        if is_job:
            members["output_format"] = file_format
            members["input_image"] = to_data_url(inputs.image[0]) if inputs.image else None
            return encode_json_request(f"{target.base_url}/workflows/{path}", members, request)
        is_workflow = is_listed(model, facts["doors"]["workflows"])
        door = f"workflows/{path}/text_to_image" if is_workflow else f"image_generation/{path}"
        headers = {"accept": f"image/{file_format or 'png'}"}
        return encode_json_request(f"{target.base_url}/{door}", members, request, headers)

    def decode(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | JobUpdate:
        """Return the image of the body, the images of a JSON reply, or the accepted job."""
        if head.headers.get("finish-reason", "").upper() == _FILTERED:
            raise refused(head, _FILTERED, stage="output", secrets=secrets, maybe_billed=True)
        if body.image() is not None:
            return decode_image_body(head, body, target, secrets)
        with readable(head, body, secrets):
            reply = body.json()
            entries: list[dict[str, object]] = reply if isinstance(reply, list) else [reply]
            reasons = {str(entry.get("finishReason", "")).upper() for entry in entries}
            if entries and "request_id" in entries[0]:
                return JobUpdate(state={"id": str(entries[0]["request_id"])})
        if _FILTERED in reasons:
            raise refused(head, _FILTERED, stage="output", secrets=secrets, maybe_billed=True)
        images, broken = decode_output(reply, head, body, target)
        extra = {"seed": entries[0]["seed"]} if "seed" in entries[0] else {}
        return DecodedImages(pictures=images, warnings=tuple(broken), damaged=bool(broken), extra=extra)

    def poll(self, job: Job, target: Target) -> HttpRequest:
        """Return the question for the result, at the door of the job's model."""
        model = job.facts.get("model")
        model = model if isinstance(model, str) else ""
        path = _find_path(model or load_provider_data(FACTS)["default_models"]["edit"])
        return build_json_request(
            "POST", f"{target.base_url}/workflows/{path}/get_result", {"id": job.state["id"]}
        )

    def decode_poll(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | JobUpdate:
        """Return the image, or that the job goes on: also for a word that is not known."""
        if head.status != 200:
            raise explain_poll(head, body, self.error(head, body.raw(), secrets), secrets)
        return decode_flux_poll(head, body, job.state, secrets)

    def error(self, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return the error of a reply outside 2xx."""
        return error_from_reply(head, body, secrets)


def _find_path(model: str) -> str:
    """Return the path of a model, also for its name alone."""
    return quote(model if "/" in model else f"{_ACCOUNT}{model}", safe="/-_.")
