"""The API of OpenRouter in small: references, costs, numbers as error codes, streams without event names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar

from imgkit.models import Operation
from imgkit.providers.fakes import FakeReply, json_reply
from imgkit.providers.openai_fake import FakeCall, FakeOpenAI, read_input
from imgkit.wire.json_values import JsonMapping, JsonObject

_PRICE, _TOKENS = 0.067, 1120


class FakeOpenRouter(FakeOpenAI):
    """Answers the requests of `imgkit.providers.openrouter.OpenRouterProvider`.

    Example:
        >>> fake = FakeOpenRouter()
        >>> url = "https://openrouter.ai/api/v1/images"
        >>> fake.answer_parts("POST", url, {}, b'{"model": "m/x", "prompt": "a fox"}').status
        200
    """

    paths: ClassVar[Mapping[Operation, str]] = {"create_image": "/images"}
    models_path = "/images/models"
    failing_status = 502
    members: ClassVar[frozenset[str] | None] = frozenset(
        [
            *("model", "prompt", "n", "aspect_ratio", "resolution", "size", "quality", "background"),
            *("output_format", "output_compression", "seed", "input_references", "provider", "stream"),
            *("user", "session_id", "trace"),
        ]
    )

    def list_inputs(self, values: JsonMapping) -> list[bytes | str]:
        """Return the images of ``input_references``."""
        return [read_input(each) for each in values.get("input_references") or ()]

    def build_entry(self, call: FakeCall, entry: JsonObject) -> JsonObject:
        """Return an entry with its declared type."""
        return {**entry, "media_type": self.declared_type}

    def describe(self, call: FakeCall, count: int) -> JsonObject:
        """Return token counts and the cost in dollars."""
        made = _TOKENS * count
        counts = {"prompt_tokens": 5, "completion_tokens": made, "total_tokens": 5 + made}
        return {"usage": {**counts, "cost": round(_PRICE * count, 6)}}

    def list_events(self, call: FakeCall, reply: JsonMapping) -> list[JsonObject]:
        """Return the events of a stream: a partial image, words, and the images."""
        partial = super().list_events(call._replace(values={**call.values, "partial_images": 1}), reply)
        return [*partial[:1], {"type": "image_generation.text_chunk", "text": "Here it is."}, *partial[1:]]

    def write_event(self, event: JsonMapping) -> str:
        """Return an event without its name, after a comment."""
        return f": OPENROUTER PROCESSING\n\ndata: {json.dumps(event)}\n\n"

    def refuse(self, call: FakeCall) -> FakeReply:
        """Return the 403 of the moderation, with its reasons."""
        metadata = {"reasons": ["violence"], "flagged_input": call.prompt[:100], "provider_name": "Acme"}
        message = "The model requires moderation and your input was flagged."
        return json_reply(403, {"error": {"code": 403, "message": message, "metadata": metadata}})

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
        """Return an error whose code is its status."""
        metadata = {"provider_name": "Acme", "raw": message}
        error = {"code": status, "message": message, "metadata": metadata}
        return json_reply(status, {"error": error}, **headers)
