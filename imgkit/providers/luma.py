"""The dialect of Luma's Photon models: jobs whose input images the API fetches from URLs.

Source: lumaai 1.21.0 and @ai-sdk/luma for requests and states, docs.lumalabs.ai for errors; all read
2026-11-28. Unconfirmed: the words of a refusal, and the life of a result's address.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from imgkit.errors import ImgkitError, InvalidRequestError, JobFailedError
from imgkit.images.inputs import OpenedInputs
from imgkit.images.references import ImageReference
from imgkit.jobs.job import Job
from imgkit.models import ImageRequest, resolve_model
from imgkit.providers.base import DecodedImage, DecodedImages, ReplyBody, Target
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.error_replies import error_from_reply, refused
from imgkit.providers.job_replies import explain_poll, is_refusal
from imgkit.providers.job_values import JobUpdate
from imgkit.providers.json_requests import (
    build_json_request,
    encode_json_request,
    list_images,
    refuse_more_images,
    refuse_uploaded_files,
)
from imgkit.providers.luma_fake import FakeLuma
from imgkit.providers.reply_images import readable
from imgkit.redact import Secret, scrub
from imgkit.wire.messages import Head, HttpRequest

MAX_IMAGES = 4

_FIELDS = {
    *("prompt", "model", "aspect_ratio", "output_format", "n"),
    *("model_options", "extra_body", "extra_headers"),
}


class LumaProvider(BaseProvider):
    """The provider ``"luma"``; `imgkit.providers.Provider` describes its members.

    An edit of one image changes it; several images are references for a new image. The API fetches images,
    so each is an ``ImageReference(url=…)``.

    Example:
        >>> LumaProvider().default_model
        'photon-1'
    """

    base_url: ClassVar[str] = "https://api.lumalabs.ai/dream-machine/v1"
    env: ClassVar[Mapping[str, str]] = {"api_key": "LUMAAI_API_KEY", "base_url": "LUMAAI_BASE_URL"}
    accepts = {"create_image": _FIELDS, "create_image_edit": {*_FIELDS, "image"}}
    default_model: ClassVar[str | None] = "photon-1"
    model_facts: ClassVar[str] = "imgkit.providers:luma.toml"
    takes_references: ClassVar[bool] = True
    fake = FakeLuma

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse images that the API cannot fetch, and too many images."""
        super().check(request, target)
        refuse_uploaded_files(request)
        if not all(isinstance(image, ImageReference) for image in list_images(request)):
            raise InvalidRequestError(
                {"image": "Luma fetches images and takes no files. Pass ImageReference(url=…)."}
            )
        refuse_more_images(request, MAX_IMAGES, "Luma")

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the submit of a job."""
        links = [{"url": image.url} for image in inputs.image if isinstance(image, ImageReference)]
        image_format = getattr(request, "output_format", None)
        members = {
            "prompt": getattr(request, "prompt", None),
            "model": resolve_model(request, target.model) or self.default_model,
            "aspect_ratio": request.aspect_ratio,
            "format": "jpg" if image_format == "jpeg" else image_format,
            "modify_image_ref": links[0] if len(links) == 1 else None,
            "image_ref": links if len(links) > 1 else None,
        }
        url = f"{target.base_url}/generations/image"
        return encode_json_request(url, members, request, merge_objects=True)

    def decode(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> JobUpdate:
        """Return the accepted job."""
        with readable(head, body, secrets):
            reply = body.json()
            return JobUpdate(state={"id": str(reply["id"])}, note=str(reply.get("state", ""))[:60])

    def poll(self, job: Job, target: Target) -> HttpRequest:
        """Return the GET of the job."""
        return build_json_request("GET", f"{target.base_url}/generations/{job.state['id']}")

    def decode_poll(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | JobUpdate:
        """Return the image, or that the job goes on: also for a word that is not known."""
        if not 200 <= head.status < 300:
            raise explain_poll(head, body, self.error(head, body.raw(), secrets), secrets)
        with readable(head, body, secrets):
            reply = body.json()
            word = str(reply["state"])
            if word == "completed":
                return DecodedImages(pictures=(DecodedImage(url=str(reply["assets"]["image"])),))
            reason = str(reply.get("failure_reason") or "no reason given")
        if word != "failed":
            return JobUpdate(state=job.state, note=word[:60])
        if is_refusal(reason):
            raise refused(head, reason, secrets=secrets)
        reason = scrub(reason, secrets, limit=400).rstrip(". ")
        raise JobFailedError(f"The job has failed: {reason}.", status=head.status, code="failed")

    def error(self, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return the error of a reply outside 2xx."""
        return error_from_reply(head, body, secrets)
