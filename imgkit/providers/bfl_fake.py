"""The API of Black Forest Labs in small: jobs, polling addresses, result links, refusals."""

from __future__ import annotations

import re

from imgkit.images.shapes import parse_ratio, to_size
from imgkit.providers.fakes import LOST, FakeReply, FakeRequest, json_reply
from imgkit.providers.job_fakes import FakeJobApi
from imgkit.wire.json_values import JsonObject

_GOOD_SIZE = 16


class FakeBfl(FakeJobApi):
    """Answers the requests of `imgkit.providers.BflProvider`.

    Example:
        >>> fake = FakeBfl()
        >>> reply = fake.answer_parts("POST", "https://api.bfl.ai/v1/flux-2-pro", {}, b'{"prompt": "a fox"}')
        >>> reply.status
        200
    """

    def handle(self, request: FakeRequest) -> FakeReply:
        """Return the reply to a submit, a poll or a download."""
        if request.path.startswith("/results/"):
            return self._serve(request.path.removeprefix("/results/").removesuffix(".jpeg"))
        if request.method == "GET" and request.path == "/v1/get_result":
            return self._poll(request)
        if request.method == "POST" and re.fullmatch(r"/v1/[\w./-]+", request.path):
            return self._submit(request)
        return json_reply(404, {"detail": "Not Found"})

    def _submit(self, request: FakeRequest) -> FakeReply:
        values = request.json()
        problem = _find_problem(values)
        if problem is not None or self.scenario == "invalid":
            entry = problem or ("width", "Input should be a multiple of 16")
            detail = [{"type": "value_error", "loc": ["body", entry[0]], "msg": entry[1]}]
            return json_reply(422, {"detail": detail})
        fault = self.find_fault(
            json_reply(429, {"detail": "Too many tasks in progress"}, retry_after="0"),
            json_reply(500, {"detail": "Internal Server Error"}),
        )
        if fault is not None:
            return fault
        job = self.add_job(values)
        place = f"{request.root}/v1/get_result?id={job.id}"
        return self.accept(json_reply(200, {"id": job.id, "polling_url": place, "cost": 3.0}))

    def _poll(self, request: FakeRequest) -> FakeReply:
        number = request.query.get("id", "")
        job = self.jobs.get(number)
        if job is None:
            return json_reply(404, {"id": number, "status": "Task not found"})
        if self.loses_poll(job):
            return LOST
        reply: JsonObject = {"id": number, "status": "Pending", "progress": None, "result": None}
        if self.count_ahead(job) == 0:
            reply |= {"status": "Generating", "progress": 0.5}
        elif self.is_done(job) and self.scenario == "refused":
            reply |= {"status": "Request Moderated"}
        elif self.is_done(job):
            link = f"{request.root}/results/{number}.jpeg"
            result = {"sample": link, "prompt": job.values.get("prompt"), "seed": 4111222333}
            reply |= {"status": "Ready", "result": result}
        return json_reply(200, reply)

    def _serve(self, number: str) -> FakeReply:
        if number not in self.jobs:
            return FakeReply(404)
        values = self.jobs[number].values
        sides = _find_sides(values)
        return self.serve_image(str(values.get("prompt")), *sides)


def _find_sides(values: JsonObject) -> tuple[int, int]:
    """Return width and height of the image for the values of a job."""
    ratio = parse_ratio(values.get("aspect_ratio"))
    if ratio is not None:
        width, height = to_size(ratio, 1024).split("x")
        return int(width), int(height)
    return values.get("width", 1024), values.get("height", 1024)


def _find_problem(values: JsonObject) -> tuple[str, str] | None:
    """Return the field and the problem of a request that the API would refuse, None for a good one."""
    if not isinstance(values.get("prompt", ""), str):
        return "prompt", "Input should be a valid string"
    for name in ("width", "height"):
        if values.get(name, _GOOD_SIZE) % _GOOD_SIZE:
            return name, "Input should be a multiple of 16"
    return None
