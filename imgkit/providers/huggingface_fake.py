"""Hugging Face's router in small: bare images, the shapes of fal and OpenAI, a model that loads."""

from __future__ import annotations

import base64

from imgkit.providers.fakes import LOST, FakeApi, FakeReply, FakeRequest, image_reply, json_reply
from imgkit.wire.json_values import JsonObject


class FakeHuggingFace(FakeApi):
    """Answers the requests of `imgkit.providers.huggingface.HuggingFaceProvider`.

    The router has no polls, so ``lost_poll`` succeeds; so does ``expired_link`` but for fal, which alone
    sends links. The scenario ``rate_limited`` is a model that loads.

    Example:
        >>> url = "https://router.huggingface.co/hf-inference/models/a/b"
        >>> FakeHuggingFace().answer_parts("POST", url, {}, b'{"inputs": "a fox"}').headers["content-type"]
        'image/png'
    """

    def handle(self, request: FakeRequest) -> FakeReply:
        """Return the reply to a request for an image, or to the download of an image of fal."""
        folder, _, name = request.path.rpartition("/")
        if request.method == "GET" and folder.endswith("/files"):
            width, _, rest = name.partition("x")
            return self.serve_image("a link", int(width), int(rest.partition(".")[0]))
        if request.method != "POST":
            return json_reply(404, {"error": "Not Found"})
        values = request.json()
        if self.scenario == "invalid":
            return json_reply(
                422, {"error": "width must be a multiple of 8", "error_type": "validation_error"}
            )
        loading = {"error": "Model a/b is currently loading", "estimated_time": 0.01}
        fault = self.find_fault(json_reply(503, loading), json_reply(500, {"error": "Internal Server Error"}))
        if fault is not None:
            return fault
        if self.scenario == "refused":
            text = "The request was rejected as a result of our safety system."
            return json_reply(400, {"error": text})
        return LOST if self.scenario == "lost_submit" else self._make(request, values)

    def _make(self, request: FakeRequest, values: JsonObject) -> FakeReply:
        if "/hf-inference/" in request.path:
            given = values.get("parameters", {})
            width, height = given.get("width", 512), given.get("height", 512)
            return image_reply(
                self.draw_image(given.get("prompt") or values["inputs"], width, height), self.declared_type
            )
        if "/fal-ai/" in request.path:
            size = values.get("image_size", {"width": 512, "height": 512})
            link = f"{request.root}/files/{size['width']}x{size['height']}.png"
            entry = {"url": link, "content_type": self.declared_type}
            return json_reply(200, {"images": [entry], "seed": 7, "prompt": values["prompt"]})
        width, height = values.get("width", 512), values.get("height", 512)
        if "size" in values:
            width, height = map(int, values["size"].split("x"))
        data = base64.b64encode(self.draw_image(values["prompt"], width, height)).decode()
        return json_reply(200, {"data": [{"index": 0, "type": "b64_json", "b64_json": data}]})
