"""The API of Replicate in small: predictions with their states, files, refusals."""

from __future__ import annotations

import re

from imgkit.images.shapes import parse_ratio, parse_size, to_size
from imgkit.providers.fakes import LOST, FakeReply, FakeRequest, json_reply
from imgkit.providers.job_fakes import FakeJob, FakeJobApi

_SUBMIT = re.compile(r"(?:/v1)?/(?:(?:models|deployments)/[\w.-]+/[\w.-]+/)?predictions")
_JOB = re.compile(r"(?:/v1)?/predictions/([\w-]+)(/cancel)?")


class FakeReplicate(FakeJobApi):
    """Answers the requests of `imgkit.providers.ReplicateProvider`.

    Example:
        >>> fake = FakeReplicate()
        >>> url = "https://api.replicate.com/v1/models/acme/paint/predictions"
        >>> fake.answer_parts("POST", url, {}, b'{"input": {"prompt": "a fox"}}').status
        202
    """

    def handle(self, request: FakeRequest) -> FakeReply:
        """Return the reply to a submit, a poll, a cancellation or a download."""
        if request.path.startswith("/files/"):
            return self._serve(request.path.removeprefix("/files/").removesuffix(".png"))
        if request.method == "POST" and _SUBMIT.fullmatch(request.path):
            return self._submit(request)
        match = _JOB.fullmatch(request.path)
        job = self.jobs.get(match[1]) if match is not None else None
        if match is None or job is None:
            return _problem(404, "Not found", "The requested resource could not be found.")
        if request.method == "POST" and match[2]:
            return self._cancel(request, job)
        if request.method != "GET" or match[2]:
            return _problem(405, "Method not allowed", "Use another method.")
        return LOST if self.loses_poll(job) else json_reply(200, self._describe(request, job))

    def _submit(self, request: FakeRequest) -> FakeReply:
        values = request.json().get("input", {})
        if not isinstance(values.get("prompt"), str) or self.scenario == "invalid":
            field = {"type": "required", "field": "input.prompt", "description": "prompt is required"}
            detail = "- input: prompt is required\n"
            return _problem(422, "Input validation failed", detail, invalid_fields=[field])
        limit = "Request was throttled. Your rate limit resets in ~0s."
        fault = self.find_fault(
            json_reply(429, {"detail": limit, "status": 429, "retry_after": 0}, retry_after="0"),
            _problem(500, "Internal server error", "Something went wrong."),
        )
        if fault is not None:
            return fault
        job = self.add_job(values)
        if request.headers.get("prefer", "").startswith("wait"):
            job.polls = self.polls + 1
        is_done = self.is_done(job)
        return self.accept(json_reply(201 if is_done else 202, self._describe(request, job)))

    def _describe(self, request: FakeRequest, job: FakeJob) -> dict[str, object]:
        """Return a prediction as the API shows it."""
        place = f"{request.root}{'/v1' if request.path.startswith('/v1/') else ''}/predictions/{job.id}"
        reply: dict[str, object] = {
            "id": job.id,
            "model": "acme/paint",
            "version": "hidden",
            "status": "processing" if self.count_ahead(job) <= 0 else "starting",
            "input": job.values,
            "output": None,
            "error": None,
            "logs": "",
            "metrics": {},
            "urls": {"get": place, "cancel": f"{place}/cancel", "web": f"https://replicate.com/p/{job.id}"},
            "created_at": "2026-11-28T12:00:00.000Z",
        }
        if not self.is_done(job):
            return reply
        if self.scenario == "refused":
            text = "NSFW content detected. Try running it again, or try a different prompt."
            return reply | {"status": "failed", "error": text}
        count = self.count_images(job.values.get("num_outputs", 1))
        links = [f"{request.root}/files/{job.id}-{number}.png" for number in range(count)]
        return reply | {"status": "succeeded", "output": links, "metrics": {"predict_time": 0.5}}

    def _cancel(self, request: FakeRequest, job: FakeJob) -> FakeReply:
        reply = self._describe(request, job)
        if self.is_done(job):
            return json_reply(200, reply)
        del self.jobs[job.id]
        return json_reply(200, reply | {"status": "canceled"})

    def _serve(self, name: str) -> FakeReply:
        number, _, index = name.rpartition("-")
        if number not in self.jobs:
            return FakeReply(404)
        values = self.jobs[number].values
        sides = values.get("width"), values.get("height")
        if not all(isinstance(side, int) for side in sides):
            sides = parse_size(to_size(parse_ratio(values.get("aspect_ratio")) or 1.0, 1024)) or (1024, 1024)
        return self.serve_image(f"{values['prompt']} {index}", *sides)


def _problem(status: int, title: str, detail: str, **more: object) -> FakeReply:
    return json_reply(status, {"title": title, "detail": detail, "status": status, **more})
