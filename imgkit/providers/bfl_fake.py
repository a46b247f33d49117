"""The API of Black Forest Labs in small: jobs, polling addresses, result links, refusals."""

from __future__ import annotations

import re
from typing import Any

from imgkit.providers.fakes import (
    LOST,
    FakeApi,
    FakeReply,
    FakeRequest,
    Paint,
    image_reply,
    json_reply,
    paint_plain,
)

_GOOD_SIZE = 16


class FakeBfl(FakeApi):
    """Answers the requests of `imgkit.providers.BflProvider`.

    Example:
        >>> fake = FakeBfl()
        >>> reply = fake.answer_parts("POST", "https://api.bfl.ai/v1/flux-2-pro", {}, b'{"prompt": "a fox"}')
        >>> reply.status
        200
    """

    def __init__(self, scenario: str = "success", *, paint: Paint = paint_plain, polls: int = 2) -> None:
        super().__init__(scenario, paint=paint, polls=polls)
        self._jobs: dict[str, dict[str, Any]] = {}

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
        if self.scenario == "rate_limited" and self.happens_once("wait"):
            return json_reply(429, {"detail": "Too many tasks in progress"}, retry_after="0")
        if self.scenario == "failing":
            return json_reply(500, {"detail": "Internal Server Error"})
        number = f"job-{len(self._jobs) + 1}"
        self._jobs[number] = {"values": values, "polls": 0}
        if self.scenario == "lost_submit":
            return LOST
        return json_reply(
            200, {"id": number, "polling_url": f"{request.root}/v1/get_result?id={number}", "cost": 3.0}
        )

    def _poll(self, request: FakeRequest) -> FakeReply:
        number = request.query.get("id", "")
        job = self._jobs.get(number)
        if job is None:
            return json_reply(404, {"id": number, "status": "Task not found"})
        job["polls"] += 1
        if self.scenario == "lost_poll" and job["polls"] == 1:
            return LOST
        reply: dict[str, Any] = {"id": number, "status": "Pending", "progress": None, "result": None}
        if job["polls"] > self.polls:
            if self.scenario == "refused":
                return json_reply(200, {**reply, "status": "Request Moderated"})
            result = {
                "sample": f"{request.root}/results/{number}.jpeg",
                "prompt": job["values"].get("prompt"),
                "seed": 4111222333,
            }
            return json_reply(200, {**reply, "status": "Ready", "result": result})
        if job["polls"] == self.polls:
            reply |= {"status": "Generating", "progress": 0.5}
        return json_reply(200, reply)

    def _serve(self, number: str) -> FakeReply:
        job = self._jobs.get(number)
        if job is None or self.scenario == "expired_link":
            return FakeReply(404, {"content-type": "text/plain"}, b"Not Found")
        values = job["values"]
        data = self.paint(str(values.get("prompt")), values.get("width", 1024), values.get("height", 1024))
        return image_reply(data, "image/jpeg" if self.scenario == "wrong_type" else "image/png")


def _find_problem(values: dict[str, Any]) -> tuple[str, str] | None:
    """Return the field and the problem of a request that the API would refuse, None for a good one."""
    if not isinstance(values.get("prompt", ""), str):
        return "prompt", "Input should be a valid string"
    for name in ("width", "height"):
        if values.get(name, _GOOD_SIZE) % _GOOD_SIZE:
            return name, "Input should be a multiple of 16"
    return None
