"""Amazon Bedrock in small, for Stability's models: images in base64, reasons in place of images, errors."""

from __future__ import annotations

import base64
import re

from imgkit.images.shapes import parse_ratio, to_size
from imgkit.images.sniff import sniff
from imgkit.providers.fakes import LOST, FakeApi, FakeReply, FakeRequest, json_reply, to_jpeg
from imgkit.providers.json_requests import to_sides

_CALL = re.compile(r"(?:/v1)?/model/[\w.%~-]+/invoke")
_IMAGES = ("image", "init_image", "style_image", "subject_image")


class FakeBedrock(FakeApi):
    """Answers the requests of `imgkit.providers.bedrock.BedrockProvider`.

    A reply has one image, so ``fewer`` succeeds. The API has no polls and no links, so ``lost_poll`` and
    ``expired_link`` are successes.

    Example:
        >>> url = "https://bedrock-runtime.us-west-2.amazonaws.com/model/stability.sd3-5-large-v1%3A0/invoke"
        >>> FakeBedrock("refused").answer_parts("POST", url, {}, b'{"prompt": "a fox"}').status
        200
    """

    def handle(self, request: FakeRequest) -> FakeReply:
        """Return the reply to a request for an image."""
        if request.method != "POST" or not _CALL.fullmatch(request.path):
            return _error_reply(404, "ResourceNotFoundException", "Could not resolve the model.")
        values = request.json()
        if self.scenario == "invalid" or not isinstance(values.get("prompt", ""), str):
            return _error_reply(
                400, "ValidationException", "Malformed input request: #/prompt: expected text."
            )
        fault = self.find_fault(
            _error_reply(429, "ThrottlingException", "Too many requests, please wait.", retry_after="0"),
            _error_reply(500, "InternalServerException", "The system encountered an unexpected error."),
        )
        if fault is not None:
            return fault
        if self.scenario == "lost_submit":
            return LOST
        if self.scenario == "refused":
            return json_reply(
                200, {"finish_reasons": ["Filter reason: prompt"], "seeds": [None], "images": []}
            )
        given = next((values[name] for name in _IMAGES if name in values), None)
        kind = sniff(base64.b64decode(given)) if given else None
        ratio = parse_ratio(values.get("aspect_ratio")) or 1.0
        sides = to_sides(f"{kind.width}x{kind.height}" if kind else to_size(ratio, 1024))
        data = self.paint(str(values.get("prompt", "")), sides["width"], sides["height"])
        data = to_jpeg(data) if self.scenario == "wrong_type" else data
        seed = values.get("seed") or 42
        images = [base64.b64encode(data).decode()]
        return json_reply(200, {"seeds": [seed], "finish_reasons": [None], "images": images})


def _error_reply(status: int, code: str, message: str, **headers: str) -> FakeReply:
    kind = f"{code}:http://internal.amazon.com/coral/com.amazon.bedrock/"
    more = {"x_amzn_errortype": kind, "x_amzn_requestid": "00000000-0000-4000-8000-000000000000", **headers}
    return json_reply(status, {"message": message}, **more)
