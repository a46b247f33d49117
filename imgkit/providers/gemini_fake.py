"""Google's image API in small: images in the reply, thoughts, refusals under 200, waits in the body."""

from __future__ import annotations

import base64
import json
import re

from imgkit.providers.fakes import LOST, FakeApi, FakeReply, FakeRequest, json_reply, paint_plain
from imgkit.providers.gemini_sizes import RATIOS, RESOLUTIONS, to_pixels
from imgkit.wire.json_values import JsonObject

_CALL = re.compile(r"/v1\w*/(?:.*/)?models/([^/:]+):(generateContent|streamGenerateContent)")
_LIST = re.compile(r"/v1\w*/models")
_MEMBERS = frozenset(
    [
        *("contents", "generationConfig", "systemInstruction", "safetySettings", "tools", "toolConfig"),
        *("cachedContent", "labels", "serviceTier", "store", "continuationToken"),
    ]
)
_TOKENS = 1120


class FakeGemini(FakeApi):
    """Answers the requests of `imgkit.providers.GeminiProvider`.

    Of several requests under ``fewer``, the second draws nothing. The API has no polls and no links, so
    ``lost_poll`` and ``expired_link`` succeed.

    Example:
        >>> fake = FakeGemini("refused")
        >>> url = "https://generativelanguage.googleapis.com/v1/models/m:generateContent"
        >>> fake.answer_parts("POST", url, {}, b'{"contents": [{"parts": []}]}').status
        200
    """

    def handle(self, request: FakeRequest) -> FakeReply:
        """Return the reply to a request for an image, or for the models."""
        if request.method == "GET" and _LIST.fullmatch(request.path):
            return json_reply(200, {"models": [{"name": "models/gemini-3.1-flash-image"}]})
        call = _CALL.fullmatch(request.path)
        if request.method != "POST" or call is None:
            return _error_reply(404, "NOT_FOUND", f"{request.path} is not found.")
        values = request.json()
        problem = _find_problem(values)
        if problem is not None or self.scenario == "invalid":
            text = problem or "Invalid value at 'generation_config.image_config.aspect_ratio'"
            violations = [{"field": "generation_config", "description": text}]
            detail = {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations}
            return _error_reply(400, "INVALID_ARGUMENT", text, detail)
        detail = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.010s"}
        fault = self.find_fault(
            _error_reply(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted.", detail),
            _error_reply(503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
        )
        if fault is not None:
            return fault
        if self.scenario == "lost_submit":
            return LOST
        reply = self._draw(values, call[1])
        if call[2] == "generateContent":
            return json_reply(200, reply)
        if request.query.get("alt") != "sse":
            return json_reply(200, [reply])
        lines = [f"data: {json.dumps(chunk)}\r\n\r\n" for chunk in _split_reply(reply)]
        return FakeReply(200, {"content-type": "text/event-stream"}, "".join(lines).encode())

    def _draw(self, values: JsonObject, model: str) -> JsonObject:
        parts = [part for content in values["contents"] for part in content.get("parts", ())]
        prompt = " ".join(part["text"] for part in parts if "text" in part)
        images = sum("text" not in part for part in parts)
        details = [
            {"modality": "TEXT", "tokenCount": 8},
            *([{"modality": "IMAGE", "tokenCount": 258 * images}] if images else []),
        ]
        asked = 8 + 258 * images
        usage: JsonObject = {
            "promptTokenCount": asked,
            "promptTokensDetails": details,
            "totalTokenCount": asked,
        }
        base = {"usageMetadata": usage, "modelVersion": model, "responseId": f"r-{sum(self.count.values())}"}
        if self.scenario == "refused":
            ratings = [
                {"category": "HARM_CATEGORY_SEXUALLY_EXPLICIT", "probability": "HIGH", "blocked": True}
            ]
            return {**base, "promptFeedback": {"blockReason": "SAFETY", "safetyRatings": ratings}}
        drawing = sum(number for name, number in self.count.items() if name.startswith("POST "))
        if self.scenario == "fewer" and drawing == 2:
            return {**base, "candidates": [{"finishReason": "NO_IMAGE", "index": 0}]}
        usage |= {
            "candidatesTokenCount": _TOKENS,
            "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": _TOKENS}],
            "thoughtsTokenCount": 100,
            "totalTokenCount": asked + _TOKENS + 100,
        }
        config = values.get("generationConfig", {}).get("imageConfig", {})
        drawn = self.paint(prompt, *to_pixels(config, model))
        content = [
            {"text": "A draft first.", "thought": True},
            {**_image_part(paint_plain("draft", 8, 8), "image/png"), "thought": True},
            {"text": "Here it is."},
            {**_image_part(drawn, self.declared_type), "thoughtSignature": "c2lnbmF0dXJl"},
        ]
        candidate = {"content": {"role": "model", "parts": content}, "finishReason": "STOP", "index": 0}
        return {**base, "candidates": [candidate]}


def _image_part(data: bytes, media_type: str) -> JsonObject:
    return {"inlineData": {"mimeType": media_type, "data": base64.b64encode(data).decode()}}


def _split_reply(reply: JsonObject) -> list[JsonObject]:
    """Return a reply as the events of a stream: an event for each part, then the end with the usage."""
    candidates = reply.get("candidates", [])
    events: list[JsonObject] = [
        {"candidates": [{"content": {"role": "model", "parts": [part]}}]}
        for candidate in candidates
        for part in candidate.get("content", {}).get("parts", ())
    ]
    ends = [{key: value for key, value in each.items() if key != "content"} for each in candidates]
    return [*events, {**reply, **({"candidates": ends} if candidates else {})}]


def _error_reply(status: int, word: str, message: str, *details: JsonObject) -> FakeReply:
    error = {"code": status, "message": message, "status": word, "details": list(details)}
    return json_reply(status, {"error": error})


def _find_problem(values: JsonObject) -> str | None:
    """Return the problem of a request that the API would refuse, None for a good one."""
    for name in values:
        if name not in _MEMBERS:
            return f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'
    if not values.get("contents"):
        return "* GenerateContentRequest.contents: contents is not specified"
    config = values.get("generationConfig", {}).get("imageConfig", {})
    if config.get("aspectRatio", "1:1") not in RATIOS:
        return f"Invalid value at 'generation_config.image_config.aspect_ratio': {config['aspectRatio']}"
    if config.get("imageSize", "1K") not in RESOLUTIONS:
        return f"Invalid value at 'generation_config.image_config.image_size': {config['imageSize']}"
    return None
