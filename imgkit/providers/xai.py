"""The dialect of xAI: OpenAI's addresses, JSON for edits, too, ratios in place of sizes, the cost told.

Source: xai-sdk 1.21.0 and @ai-sdk/xai 5.0.12 for requests and replies; docs.x.ai for fields and limits; all
read 2026-11-28. Unconfirmed: the life of a result's URL, and whether a refused image is billed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from imgkit.images.inputs import OpenedInputs
from imgkit.images.references import ImageReference
from imgkit.models import Cost, ImageRequest, Operation
from imgkit.providers.base import Target
from imgkit.providers.error_replies import refused
from imgkit.providers.json_requests import build_json_request, refuse_more_images, to_data_url
from imgkit.providers.openai import OpenAIDialect
from imgkit.providers.reply_images import read_cost
from imgkit.providers.xai_fake import FakeXai
from imgkit.redact import Secret
from imgkit.wire.json_values import JsonObject
from imgkit.wire.messages import Head, HttpRequest

MOST_INPUTS = 3
"""The largest number of input images of an edit."""

TICKS = 10**10
"""Units of ``cost_in_usd_ticks`` in a dollar."""

_FIELDS = {
    *("prompt", "model", "n", "aspect_ratio", "resolution", "quality", "response_format", "user"),
    *("model_options", "extra_body", "extra_headers"),
}


class XaiProvider(OpenAIDialect):
    """The provider ``"xai"``; `imgkit.providers.Provider` describes its members.

    Example:
        >>> XaiProvider().credentials[0].variable
        'XAI_API_KEY'
    """

    base_url: ClassVar[str] = "https://api.x.ai/v1"
    env: ClassVar[Mapping[str, str]] = {"api_key": "XAI_API_KEY", "base_url": "XAI_BASE_URL"}
    paths: ClassVar[Mapping[Operation, str]] = {
        "create_image": "/images/generations",
        "create_image_edit": "/images/edits",
    }
    accepts = {"create_image": _FIELDS, "create_image_edit": {*_FIELDS, "image"}}
    sends_json: ClassVar[bool] = True
    has_free_failures: ClassVar[bool] = False
    model_facts: ClassVar[str] = "imgkit.providers:xai.toml"
    fake = FakeXai

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse more input images than an edit takes."""
        super().check(request, target)
        refuse_more_images(request, MOST_INPUTS, "xAI")

    def build_members(self, request: ImageRequest, target: Target) -> JsonObject:
        """Return the members: the resolution in lower case, and base64 unless the caller wants links."""
        members = {"response_format": "b64_json", **super().build_members(request, target)}
        if request.resolution is not None and "resolution" not in (request.extra_body or {}):
            members["resolution"] = request.resolution.lower()
        return members

    def encode_inputs(self, inputs: OpenedInputs) -> JsonObject:
        """Return an image in ``image``, several in ``images``."""
        images = [
            {"file_id": image.file_id}
            if isinstance(image, ImageReference) and image.file_id is not None
            else {"type": "image_url", "url": to_data_url(image)}
            for image in inputs.image
        ]
        return {"images": images} if len(images) > 1 else {"image": images[0]} if images else {}

    def examine_reply(
        self, head: Head, reply: JsonObject, secrets: tuple[Secret, ...]
    ) -> tuple[Cost | None, tuple[str, ...]]:
        """Return the cost of a reply, and warnings about refused images, which are left out.

        Raises:
            ModerationBlockedError: The API refused the content, or held back every image.
        """
        usage = reply.get("usage")
        ticks = usage.get("cost_in_usd_ticks") if isinstance(usage, dict) else None
        cost = read_cost(ticks, TICKS)
        entries = reply.get("data") if isinstance(reply.get("data"), list) else []
        kept, reasons = [], {}
        for number, entry in enumerate(entries or []):
            told = entry if isinstance(entry, dict) else {}
            if told.get("respect_moderation") is False or told.get("block_reason"):
                reasons[number] = str(told.get("block_reason") or "The image does not respect moderation")
                continue
            if told.get("revised_prompt") == "":
                del told["revised_prompt"]
            kept.append(entry)
        reason = reply.get("block_reason")
        if not kept and (reason or reasons):
            raise refused(
                head,
                str(reason or "; ".join(dict.fromkeys(reasons.values()))),
                stage="output" if reasons else None,
                secrets=secrets,
                maybe_billed=cost is None or bool(cost.amount),
            )
        if reasons:
            reply["data"] = kept
        return cost, tuple(f"data.{number} was refused: {why}." for number, why in reasons.items())

    def models_request(self, target: Target) -> HttpRequest:
        """Return the free request that lists the image models."""
        return build_json_request("GET", f"{target.base_url}/image-generation-models")
