"""Cloudflare's Workers AI in small: forms or JSON, base64 or a bare PNG by model, an array of errors."""

from __future__ import annotations

import base64
import re

from imgkit.providers.fakes import LOST, FakeApi, FakeReply, FakeRequest, image_reply, json_reply
from imgkit.wire.json_values import JsonObject

_ROUTE = re.compile(r".*(?:/ai/run|/workers-ai)/(@?[\w.-]+(?:/[\w.-]+)*)")


class FakeCloudflare(FakeApi):
    """Answers the requests of `imgkit.providers.cloudflare.CloudflareProvider`.

    The API has neither polls nor links: ``lost_poll`` and ``expired_link`` succeed.

    Example:
        >>> url = "https://api.cloudflare.com/client/v4/accounts/a/ai/run/@cf/black-forest-labs/flux-1-schnell"
        >>> FakeCloudflare().answer_parts("POST", url, {}, b'{"prompt": "a fox"}').status
        200
    """

    def handle(self, request: FakeRequest) -> FakeReply:
        """Return the reply to a request for an image."""
        match = _ROUTE.fullmatch(request.path.replace("%40", "@"))
        if request.method != "POST" or match is None:
            return _fail(404, 7003, "Could not route to this path")
        model = match[1]
        is_form = request.headers.get("content-type", "").startswith("multipart/form-data")
        if is_form != ("/flux-2-" in model):
            return _fail(400, 5006, "Error: required properties at '/' are 'multipart'")
        values: JsonObject = {}
        if is_form:
            values = {part.name: part.data.decode() for part in request.form() if part.filename is None}
        else:
            values = request.json()
        fault = self.find_fault(
            _fail(429, 3040, "AiError: Capacity temporarily exceeded, please try again.", retry_after="0"),
            _fail(500, 5000, "AiError: Internal server error"),
        )
        if fault is not None:
            return fault
        if self.scenario == "invalid" or not values.get("prompt"):
            return _fail(400, 5006, "AiError: Bad input: Error: oneOf at '/' not met")
        if self.scenario == "refused":
            return _fail(400, 3030, "AiError: Input prompt contains NSFW content.")
        if self.scenario == "lost_submit":
            return LOST
        side_px = 512 if "stable-diffusion" in model else 1024
        width, height = int(values.get("width") or side_px), int(values.get("height") or side_px)
        data = self.draw_image(values["prompt"], width, height)
        if "stable-diffusion" in model:
            return image_reply(data, self.declared_type)
        image = base64.b64encode(data).decode()
        return json_reply(200, {"result": {"image": image}, "success": True, "errors": [], "messages": []})


def _fail(status: int, code: int, message: str, **headers: str) -> FakeReply:
    errors = [{"code": code, "message": message}]
    return json_reply(status, {"result": None, "success": False, "errors": errors, "messages": []}, **headers)
