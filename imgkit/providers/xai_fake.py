"""The API of xAI in small: JSON only, JPEGs, costs in ticks, refusals under 200."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from imgkit.providers.fakes import FakeReply, json_reply
from imgkit.providers.openai_fake import FakeCall, FakeOpenAI, read_input
from imgkit.wire.json_values import JsonMapping, JsonObject

RATIOS = frozenset(
    [
        *(
            "1:1",
            "3:4",
            "4:3",
            "9:16",
            "16:9",
            "2:3",
            "3:2",
            "9:19.5",
            "19.5:9",
            "9:20",
            "20:9",
            "1:2",
            "2:1",
        ),
        "auto",
    ]
)

_TICKS = 400_000_000


class FakeXai(FakeOpenAI):
    """Answers the requests of `imgkit.providers.xai.XaiProvider`.

    Example:
        >>> fake = FakeXai("refused")
        >>> url = "https://api.x.ai/v1/images/generations"
        >>> fake.answer_parts("POST", url, {}, b'{"model": "m", "prompt": "a fox"}').status
        200
    """

    image_type = "image/jpeg"
    takes_form_edits = False
    sends_links = True
    most_inputs = 3
    models_path = "/image-generation-models"
    members: ClassVar[frozenset[str] | None] = frozenset(
        [
            *("prompt", "model", "n", "aspect_ratio", "resolution", "quality", "response_format", "user"),
            *("storage_options", "image", "images"),
        ]
    )

    def list_inputs(self, values: JsonMapping) -> list[bytes | str]:
        """Return the images of ``image`` or ``images``."""
        images = values.get("images") or ([values["image"]] if values.get("image") else [])
        return [read_input(image) for image in images]

    def find_problem(self, call: FakeCall) -> tuple[str | None, str] | None:
        """Return the problem of a request that the API refuses: other ratios or resolutions, too."""
        if call.values.get("aspect_ratio", "auto") not in RATIOS:
            return "aspect_ratio", f"Invalid aspect ratio: {call.values['aspect_ratio']}"
        if call.values.get("resolution", "1k") not in ("1k", "2k"):
            return "resolution", f"Invalid resolution: {call.values['resolution']}"
        return super().find_problem(call)

    def build_entry(self, call: FakeCall, entry: JsonObject) -> JsonObject:
        """Return an entry with its declared type and an empty revised prompt."""
        return {**entry, "mime_type": self.declared_type, "revised_prompt": ""}

    def describe(self, call: FakeCall, count: int) -> JsonObject:
        """Return the cost: four cents an image, and a cent for each input image."""
        ticks = count * _TICKS + len(call.images) * _TICKS // 4
        return {"usage": {"cost_in_usd_ticks": ticks}}

    def refuse(self, call: FakeCall) -> FakeReply:
        """Return a success status whose image was held back."""
        entry = {"url": None, "respect_moderation": False, "mime_type": self.declared_type}
        return json_reply(200, {"data": [entry] * call.image_count, "usage": {"cost_in_usd_ticks": 0}})

    def list_models(self) -> JsonObject:
        """Return the list of image models."""
        return {"models": [{"id": "grok-imagine-image-2.0"}, {"id": "grok-imagine-image"}]}

    def error_reply(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str = "invalid_request_error",
        **headers: str,
    ) -> FakeReply:
        """Return an error in the shortest of the API's shapes."""
        texts: Mapping[str, str] = {"code": code or kind, "error": message}
        return json_reply(status, texts, **headers)
