"""The API of Luma's Photon models in small: jobs, their states, result links."""

from __future__ import annotations

import re

from imgkit.images.shapes import parse_ratio, to_size
from imgkit.providers.fakes import LOST, FakeReply, FakeRequest, json_reply
from imgkit.providers.job_fakes import FakeJob, FakeJobApi
from imgkit.wire.json_values import JsonObject

RATIOS = ("1:1", "16:9", "9:16", "4:3", "3:4", "21:9", "9:21")
DEFAULT_RATIO = "16:9"

_SUBMIT = re.compile(r"(/[\w-]+)*/generations/image")
_POLL = re.compile(r"(?:/[\w-]+)*/generations/([\w-]+)")


class FakeLuma(FakeJobApi):
    """Answers the requests of `imgkit.providers.luma.LumaProvider`.

    Example:
        >>> fake = FakeLuma()
        >>> url = "https://api.lumalabs.ai/dream-machine/v1/generations/image"
        >>> fake.answer_parts("POST", url, {}, b'{"prompt": "a fox", "model": "photon-1"}').status
        201
    """

    def handle(self, request: FakeRequest) -> FakeReply:
        """Return the reply to a submit, a poll or a download."""
        if request.path.startswith("/results/"):
            return self._serve(request.path.removeprefix("/results/").removesuffix(".jpg"))
        if request.method == "POST" and _SUBMIT.fullmatch(request.path):
            return self._submit(request)
        match = _POLL.fullmatch(request.path)
        job = self.jobs.get(match[1]) if match and request.method == "GET" else None
        return (
            json_reply(404, {"detail": "Generation not found"}) if job is None else self._poll(request, job)
        )

    def _submit(self, request: FakeRequest) -> FakeReply:
        values = request.json()
        problem = _find_problem(values)
        if problem is not None or self.scenario == "invalid":
            return json_reply(422, {"detail": [{"msg": problem or "Invalid aspect_ratio"}]})
        fault = self.find_fault(
            json_reply(429, {"detail": "Too many concurrent generations"}, retry_after="0"),
            json_reply(500, {"detail": "Internal Server Error"}),
        )
        if fault is not None:
            return fault
        return self.accept(json_reply(201, _describe(self.add_job(values), "queued")))

    def _poll(self, request: FakeRequest, job: FakeJob) -> FakeReply:
        if self.loses_poll(job):
            return LOST
        if not self.is_done(job):
            return json_reply(200, _describe(job, "dreaming" if self.count_ahead(job) == 0 else "queued"))
        if self.scenario == "refused":
            reason = "The request requires moderation and your input was flagged."
            return json_reply(200, _describe(job, "failed") | {"failure_reason": reason})
        link = f"{request.root}/results/{job.id}.jpg"
        return json_reply(200, _describe(job, "completed") | {"assets": {"image": link}})

    def _serve(self, number: str) -> FakeReply:
        if number not in self.jobs:
            return FakeReply(404)
        values = self.jobs[number].values
        ratio = parse_ratio(values.get("aspect_ratio", DEFAULT_RATIO)) or 1.0
        width, height = map(int, to_size(ratio, 1024).split("x"))
        return self.serve_image(str(values.get("prompt")), width, height)


def _describe(job: FakeJob, state: str) -> JsonObject:
    """Return the reply about a job without a result."""
    base = {"id": job.id, "generation_type": "image", "failure_reason": None, "assets": None}
    return {**base, "state": state, "model": job.values.get("model")}


def _find_problem(values: JsonObject) -> str | None:
    """Return the problem of a request that the API would refuse, None for a good one."""
    if not isinstance(values.get("prompt"), str):
        return "Prompt is required"
    if values.get("aspect_ratio", DEFAULT_RATIO) not in RATIOS:
        return "Invalid aspect_ratio"
    return None
