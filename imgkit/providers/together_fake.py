"""The API of Together in small: one address, JPEGs, input images as members."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from imgkit.models import Operation
from imgkit.providers.fakes import FakeReply
from imgkit.providers.openai_fake import FakeCall, FakeOpenAI, read_input
from imgkit.wire.json_values import JsonMapping, JsonObject


class FakeTogether(FakeOpenAI):
    """Answers the requests of `imgkit.providers.together.TogetherProvider`.

    Example:
        >>> fake = FakeTogether()
        >>> url = "https://api.together.ai/v1/images/generations"
        >>> fake.answer_parts("POST", url, {}, b'{"model": "m", "prompt": "a fox"}').status
        200
    """

    paths: ClassVar[Mapping[Operation, str]] = {"create_image": "/images/generations"}
    image_type = "image/jpeg"
    sends_links = True
    failing_status = 503
    most_images = 4
    members: ClassVar[frozenset[str] | None] = frozenset(
        [
            *(
                "model",
                "prompt",
                "n",
                "width",
                "height",
                "steps",
                "seed",
                "negative_prompt",
                "guidance_scale",
            ),
            *("response_format", "output_format", "image_url", "reference_images", "image_loras"),
            "disable_safety_checker",
        ]
    )

    def list_inputs(self, values: JsonMapping) -> list[bytes | str]:
        """Return the images of ``reference_images`` or ``image_url``."""
        images = values.get("reference_images") or ([values["image_url"]] if values.get("image_url") else [])
        return [read_input(image) for image in images]

    def build_entry(self, call: FakeCall, entry: JsonObject) -> JsonObject:
        """Return an entry with its kind."""
        return {**entry, "type": "url" if "url" in entry else "b64_json"}

    def describe(self, call: FakeCall, count: int) -> JsonObject:
        """Return the id and the model: the API tells no cost."""
        return {"id": f"o{sum(self.count.values())}", "model": call.values.get("model"), "object": "list"}

    def refuse(self, call: FakeCall) -> FakeReply:
        """Return the 422 of the safety checker."""
        return self.error_reply(422, "NSFW content detected in the image.", code="nsfw_content_detected")

    def list_models(self) -> list[JsonObject]:
        """Return the list of models, without an object around it."""
        return [{"id": "black-forest-labs/FLUX.2-pro", "type": "image"}]
