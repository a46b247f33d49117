"""FLUX.2 at Azure AI Foundry in small: images in the reply, and Azure's errors."""

from __future__ import annotations

import base64
import re

from imgkit.providers.fakes import LOST, FakeApi, FakeReply, FakeRequest, json_reply
from imgkit.wire.json_values import JsonObject

_PATH = re.compile(r"/(?:[\w-]+/)*providers/blackforestlabs/v1/flux-2-[\w-]+|/.*/v1/[\w-]+")


class FakeAzureFlux(FakeApi):
    """Answers the requests of `imgkit.providers.azure_flux.AzureFluxProvider`.

    The API has no polls and no links, so ``lost_poll`` and ``expired_link`` are a success.

    Example:
        >>> fake = FakeAzureFlux()
        >>> url = "https://a.services.ai.azure.com/providers/blackforestlabs/v1/flux-2-pro"
        >>> fake.answer_parts("POST", url, {}, b'{"prompt": "a fox", "model": "flux-2-pro"}').status
        200
    """

    def handle(self, request: FakeRequest) -> FakeReply:
        """Return the reply to a request for images."""
        if request.method != "POST" or not _PATH.fullmatch(request.path):
            return _error_reply(404, "404", "Resource not found")
        values = request.json()
        problem = _find_problem(values)
        if problem is not None or self.scenario == "invalid":
            return _error_reply(400, "invalid_request_error", problem or "width must be a multiple of 16")
        fault = self.find_fault(
            _error_reply(429, "429", "Rate limit is exceeded.", retry_after="0"),
            _error_reply(500, "InternalServerError", "Internal Server Error"),
        )
        if fault is not None:
            return fault
        if self.scenario == "refused":
            return _error_reply(400, "content_policy_violation", "The request was flagged.")
        if self.scenario == "lost_submit":
            return LOST
        sides = values.get("width", 1024), values.get("height", 1024)
        count = self.count_images(values.get("num_images", 1))
        data = base64.b64encode(self.paint(values["prompt"], *sides)).decode()
        if self.scenario == "wrong_type":
            data = f"data:image/jpeg;base64,{data}"
        return json_reply(200, {"created": 1, "data": [{"b64_json": data} for _ in range(count)]})


def _error_reply(status: int, code: str, message: str, **headers: str) -> FakeReply:
    return json_reply(status, {"error": {"code": code, "message": message}}, **headers)


def _find_problem(values: JsonObject) -> str | None:
    """Return the problem of a request that the API would refuse, None for a good one."""
    if not isinstance(values.get("prompt"), str):
        return "prompt is required"
    if any(values.get(name, 16) % 16 for name in ("width", "height")):
        return "width and height must be multiples of 16"
    return None
