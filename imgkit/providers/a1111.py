"""The dialect of AUTOMATIC1111's web UI and of Forge: one request of minutes, with its progress beside it.

Source: webuiapi 0.9.17 and the API's own description at /docs, read 2026-11-28. Unconfirmed: the words by
which an extension refuses content; Forge, but for its equal routes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from imgkit.errors import EmptyResultError, ImgkitError, InvalidRequestError
from imgkit.images.inputs import ImageFile, OpenedInputs
from imgkit.models import CreateImageRequest, ImageRequest, resolve_model
from imgkit.providers.a1111_fake import FakeA1111
from imgkit.providers.base import Credential, DecodedImage, DecodedImages, MaskPolarity, ReplyBody, Target
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.error_replies import error_from_reply
from imgkit.providers.job_values import JobUpdate
from imgkit.providers.json_requests import (
    build_json_request,
    encode_json_request,
    list_images,
    to_base64,
    to_sides,
)
from imgkit.providers.reply_images import decode_content, readable
from imgkit.redact import Secret
from imgkit.wire.json_values import decode_base64, parse_json
from imgkit.wire.messages import Head, HttpRequest

GRID_PX = 8
"""Width and height of an image are multiples of it."""

_FIELDS = {
    *("model", "size", "seed", "negative_prompt", "n"),
    *("model_options", "extra_body", "extra_headers"),
}


class A1111Provider(BaseProvider):
    """The provider ``"a1111"``; `imgkit.providers.Provider` describes its members.

    ``model_options=`` takes the API's own options, such as ``steps``, ``cfg_scale``, ``denoising_strength``,
    ``inpainting_fill`` and ``alwayson_scripts``. ``model=`` names a checkpoint. A login (``--api-auth``)
    is ``name:password`` in ``A1111_AUTH`` or ``api_key=``.

    Example:
        >>> A1111Provider().base_url
        'http://127.0.0.1:7860'
    """

    base_url: ClassVar[str] = "http://127.0.0.1:7860"
    env: ClassVar[Mapping[str, str]] = {"api_key": "A1111_AUTH", "base_url": "A1111_BASE_URL"}
    accepts = {
        "create_image": {*_FIELDS, "prompt"},
        "create_image_edit": {*_FIELDS, "prompt", "image", "mask"},
        "create_image_variation": {*_FIELDS, "image"},
    }
    base64_keys: ClassVar[frozenset[str]] = frozenset({"images"})
    model_facts: ClassVar[str] = "imgkit.providers:a1111.toml"
    mask_polarity: ClassVar[MaskPolarity] = "white"
    credentials = (Credential(variable="A1111_AUTH", scheme="Basic", required=False),)
    fake = FakeA1111

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse what the dialect cannot express."""
        super().check(request, target)
        if len(list_images(request)) > 1:
            raise InvalidRequestError({"image": "This API edits one image. Give one."})

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the request of an image, or of an image from an image."""
        model = resolve_model(request, target.model)
        members: dict[str, object] = {
            "prompt": getattr(request, "prompt", ""),
            "negative_prompt": request.negative_prompt,
            "seed": request.seed,
            **_choose_size(request, inputs),
            "n_iter": request.n,
            "override_settings": None if model is None else {"sd_model_checkpoint": model},
        }
        path = "txt2img"
        if not isinstance(request, CreateImageRequest):
            path = "img2img"
            members["init_images"] = [to_base64(image) for image in inputs.image]
            members["mask"] = None if inputs.mask is None else to_base64(inputs.mask)
        url = f"{target.base_url}/sdapi/v1/{path}"
        return encode_json_request(url, members, request, merge_objects=True)

    def decode(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages:
        """Return the images with their seeds; the grid of all images and those of extensions are left out."""
        with readable(head, body, secrets):
            reply = body.json()
            entries = reply["images"]
            info = _read_info(reply.get("info"))
            count = _count_images(reply.get("parameters"), entries)
            first = info.get("index_of_first_image")
            first = max(0, first) if type(first) is int else 0
            seeds = info["all_seeds"] if isinstance(info.get("all_seeds"), list) else []
            images, warnings = [], []
            for number, entry in enumerate(entries[first : first + count]):
                content, problems = decode_content(entry, None, target)
                warnings += [f"Image {number} {problem}." for problem in problems]
                extra = {"seed": seeds[number]} if number < len(seeds) else {}
                if content:
                    images.append(DecodedImage(**content, extra=extra))
        if not images:
            raise EmptyResultError(
                "The server returned no image: it was interrupted, or send_images is off. Send the request "
                "again.",
                request_id=head.request_id,
            )
        told = {name: info[name] for name in ("seed", "sd_model_name", "sampler_name") if name in info}
        is_damaged = len(images) < len(entries[first : first + count])
        return DecodedImages(pictures=tuple(images), warnings=tuple(warnings), damaged=is_damaged, extra=told)

    def progress(self, request: ImageRequest, target: Target, *, wants_preview: bool = False) -> HttpRequest:
        """Return the question for the progress of the server, which works on one request at a time."""
        skips = "false" if wants_preview else "true"
        url = f"{target.base_url}/sdapi/v1/progress?skip_current_image={skips}"
        return build_json_request("GET", url)

    def decode_progress(self, head: Head, body: ReplyBody, target: Target) -> JobUpdate:
        """Return the progress: a fraction, the step of the image that the server draws, and its preview."""
        reply = body.json()
        state = reply.get("state") or {}
        step, steps = state.get("sampling_step"), state.get("sampling_steps")
        note = f"step {step} of {steps}" if type(step) is int and type(steps) is int and steps else ""
        progress = min(1.0, max(0.0, float(reply["progress"])))
        preview = decode_base64(reply.get("current_image") or "")
        return JobUpdate(state={}, progress=progress, note=note, preview=preview or None)

    def error(self, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return the error of a reply outside 2xx."""
        return error_from_reply(head, body, secrets, is_free=self.failure_is_free(head, body))

    def failure_is_free(self, head: Head, body: bytes) -> bool:
        """Return whether the web UI itself reports its exception: it has stopped, and bills nothing."""
        try:
            reply = parse_json(body)
        except ValueError:
            return False
        return head.status == 500 and isinstance(reply, dict) and {"error", "errors", "body"} <= reply.keys()


def _count_images(parameters: object, entries: list[object]) -> int:
    """Return the number of images that were requested; all, if an odd value tells none: none must be lost."""
    members: Mapping[str, Any] = parameters if isinstance(parameters, Mapping) else {"n_iter": parameters}
    rounds, size = (members.get(name) or 1 for name in ("n_iter", "batch_size"))
    is_readable = type(rounds) is int and type(size) is int and rounds > 0 and size > 0
    return int(rounds * size) if is_readable else len(entries)


def _read_info(text: object) -> Mapping[str, Any]:
    """Return the JSON object within a text of the reply; nothing of one that cannot be read."""
    try:
        info = parse_json(text.encode()) if isinstance(text, str) else None
    except ValueError:
        return {}
    return info if isinstance(info, dict) else {}


def _choose_size(request: ImageRequest, inputs: OpenedInputs) -> dict[str, int]:
    """Return width and height: as requested, else those of the input image, which the API would squeeze."""
    if asked := to_sides(request.size):
        return asked
    first = inputs.image[0] if inputs.image else None
    if not isinstance(first, ImageFile):
        return {}
    sides = {"width": first.kind.width, "height": first.kind.height}
    return {name: max(1, round((side or 0) / GRID_PX)) * GRID_PX for name, side in sides.items()}
