"""The API of Fireworks in small: images as bytes, the jobs of FLUX Kontext, refusals."""

from __future__ import annotations

import re
from collections.abc import Mapping

from imgkit.images.shapes import parse_ratio, parse_size, to_size
from imgkit.providers.fakes import LOST, FakeReply, FakeRequest, image_reply, json_reply
from imgkit.providers.job_fakes import FakeJobApi

_JOB = re.compile(r".*/workflows/accounts/[\w.-]+/models/[\w.-]+")
_IMAGE = re.compile(rf"{_JOB.pattern}/text_to_image|.*/image_generation/accounts/[\w.-]+/models/[\w.-]+")


class FakeFireworks(FakeJobApi):
    r"""Answers the requests of `imgkit.providers.FireworksProvider`.

    Example:
        >>> fake = FakeFireworks()
        >>> url = "https://api.fireworks.ai/inference/v1/workflows/accounts/a/models/m/text_to_image"
        >>> fake.answer_parts("POST", url, {}, b'{"prompt": "a fox"}').body[:4]
        b'\x89PNG'
    """

    def handle(self, request: FakeRequest) -> FakeReply:
        """Return the reply to a request for an image, a submit, a poll or a download."""
        if request.path.startswith("/files/"):
            return self._serve(request.path.removeprefix("/files/").removesuffix(".png"))
        if request.method == "POST" and request.path.endswith("/get_result"):
            return self._poll(request)
        if request.method == "GET" and request.path.endswith("/models"):
            return json_reply(200, {"data": [{"id": "accounts/fireworks/models/flux-1-schnell-fp8"}]})
        is_image = _IMAGE.fullmatch(request.path) is not None
        if request.method == "POST" and (is_image or _JOB.fullmatch(request.path)):
            return self._submit(request, is_image=is_image)
        return _error(404, "Model not found, inaccessible, and/or not deployed")

    def _submit(self, request: FakeRequest, *, is_image: bool) -> FakeReply:
        values = request.json()
        if not isinstance(values.get("prompt"), str) or self.scenario == "invalid":
            return _error(400, "prompt: field required")
        busy = _error(429, "Too many requests", retry_after="0")
        fault = self.find_fault(busy, _error(500, "Internal server error"))
        if fault is not None:
            return fault
        job = self.add_job(values)
        if not is_image:
            return self.accept(json_reply(200, {"request_id": job.id}))
        reply = image_reply(self.paint(values["prompt"], *_find_sides(values)), self.declared_type)
        reason = "CONTENT_FILTERED" if self.scenario == "refused" else "SUCCESS"
        return self.accept(reply._replace(headers={**reply.headers, "finish-reason": reason, "seed": "7"}))

    def _poll(self, request: FakeRequest) -> FakeReply:
        number = str(request.json().get("id"))
        job = self.jobs.get(number)
        if job is None:
            return json_reply(200, {"id": number, "status": "Task not found"})
        if self.loses_poll(job):
            return LOST
        reply: dict[str, object] = {"id": number, "status": "Pending", "result": None, "progress": None}
        if self.is_done(job):
            link = f"{request.root}/files/{number}.png"
            is_refused = self.scenario == "refused"
            reply |= {"status": "Request Moderated"} if is_refused else {"status": "Ready"}
            reply |= {} if is_refused else {"result": {"sample": link, "prompt": job.values["prompt"]}}
        return json_reply(200, reply)

    def _serve(self, number: str) -> FakeReply:
        if number not in self.jobs:
            return FakeReply(404)
        values = self.jobs[number].values
        return self.serve_image(values["prompt"], *_find_sides(values))


def _find_sides(values: Mapping[str, int]) -> tuple[int, int]:
    if "width" in values and "height" in values:
        return values["width"], values["height"]
    return parse_size(to_size(parse_ratio(values.get("aspect_ratio")) or 1.0, 1024)) or (1024, 1024)


def _error(status: int, message: str, **headers: str) -> FakeReply:
    return json_reply(status, {"error": {"message": message}}, **headers)
