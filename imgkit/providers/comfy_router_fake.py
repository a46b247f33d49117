"""The API of Comfy Router in small: runs, their queue, idempotency keys, files, refusals."""

from __future__ import annotations

import hashlib
import re

from imgkit.images.shapes import parse_size
from imgkit.providers.fakes import LOST, FakeReply, FakeRequest, Paint, json_reply, paint_plain
from imgkit.providers.job_fakes import FakeJob, FakeJobApi

_SUBMIT = re.compile(r".*/v2/models/([\w.-]+/[\w.-]+?)(/requests)?")
_JOB = re.compile(r".*/v2/models/[\w.-]+/[\w.-]+/requests/([\w-]+)(/status|/cancel)?")


class FakeComfyRouter(FakeJobApi):
    """Answers the requests of `imgkit.providers.ComfyRouterProvider`.

    A request with a known key gets the reply to the first; while that runs, 409. In the scenario
    ``lost_submit`` the first reply to each key is lost.

    Example:
        >>> fake = FakeComfyRouter()
        >>> url = "https://api.comfy.org/v2/models/bfl/flux-2-pro/requests"
        >>> fake.answer_parts("POST", url, {}, b'{"prompt": "a fox"}').status
        201
    """

    def __init__(self, scenario: str = "success", *, paint: Paint = paint_plain, polls: int = 2) -> None:
        super().__init__(scenario, paint=paint, polls=polls)
        self._replies: dict[str, tuple[str, FakeReply]] = {}

    def handle(self, request: FakeRequest) -> FakeReply:
        """Return the reply to a run, a submit, a question about a request, or a download."""
        if request.path.startswith("/files/"):
            return self._serve(request.path.removeprefix("/files/").removesuffix(".png"))
        if request.method == "GET" and request.path.endswith("/v2/models"):
            return json_reply(200, {"data": [{"id": "bfl/flux-2-pro"}], "has_more": False, "limit": 20})
        if request.method == "POST" and (match := _SUBMIT.fullmatch(request.path)):
            return self._submit_once(request, is_queued=match[2] is not None)
        match = _JOB.fullmatch(request.path)
        job = self.jobs.get(match[1]) if match is not None else None
        if match is None or job is None:
            return _error(404, "not_found", "No such request.")
        steps = {("GET", "/status"): self._tell_state, ("GET", None): self._tell_result}
        steps[("PUT", "/cancel")] = self._cancel
        step = steps.get((request.method, match[2]))
        return _error(405, "invalid_input", "Method not allowed.") if step is None else step(request, job)

    def _submit_once(self, request: FakeRequest, *, is_queued: bool) -> FakeReply:
        """Answer a submit, under a known key with the first reply."""
        key = request.headers.get("idempotency-key", f"none-{len(self.jobs)}")
        digest = hashlib.sha256(request.path.encode() + b"\0" + request.body).hexdigest()
        known, reply = self._replies.get(key, (digest, None))
        if known != digest:
            return _error(409, "invalid_input", "The key belongs to another request.")
        if reply is not None:
            if not is_queued and self.happens_once(f"running {key}"):
                return _error(
                    409, "concurrency_limit_exceeded", "The call is still running.", retry_after="0"
                )
            return reply._replace(headers={**reply.headers, "idempotent-replayed": "true"})
        reply = self._submit(request, is_queued=is_queued)
        if reply.status < 300:
            self._replies[key] = (digest, reply)
            return self.accept(reply)
        return reply

    def _submit(self, request: FakeRequest, *, is_queued: bool) -> FakeReply:
        values = request.json()
        if not isinstance(values.get("prompt"), str) or self.scenario == "invalid":
            detail = [{"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}]
            return _error(422, "invalid_input", detail)
        fault = self.find_fault(
            _error(429, "rate_limited", "Too many requests.", retry_after="0"),
            _error(503, "service_unavailable", "Try again.", retry_after="0"),
        )
        if fault is not None:
            return fault
        job = self.add_job(values)
        if not is_queued:
            job.polls = self.polls + 1
            return self._tell_result(request, job)
        place = f"{request.root}{request.path}/{job.id}"
        addresses = {"status_url": f"{place}/status", "response_url": place, "cancel_url": f"{place}/cancel"}
        return json_reply(201, {"request_id": job.id, **addresses})

    def _tell_state(self, request: FakeRequest, job: FakeJob) -> FakeReply:
        if self.loses_poll(job):
            return LOST
        ahead = self.count_ahead(job)
        reply = {"request_id": job.id, "status": "IN_QUEUE" if ahead > 0 else "IN_PROGRESS"}
        if ahead < 0:
            reply["status"] = "COMPLETED"
            if self.scenario == "refused":
                reply["error_type"] = "content_policy_violation"
        return json_reply(200, reply)

    def _tell_result(self, request: FakeRequest, job: FakeJob) -> FakeReply:
        if self.scenario == "refused":
            return _error(400, "content_policy_violation", "The maker refuses the content.")
        count = self.count_images(job.values.get("n", 1))
        links = [{"url": f"{request.root}/files/{job.id}-{number}.png"} for number in range(count)]
        value = (
            {"data": links}
            if "n" in job.values
            else {"status": "Ready", "result": {"sample": links[0]["url"]}}
        )
        return json_reply(200, value, x_litellm_response_cost="0.03", x_comfy_request_id="req_fake")

    def _cancel(self, request: FakeRequest, job: FakeJob) -> FakeReply:
        if self.is_done(job):
            return json_reply(409, {"status": "ALREADY_COMPLETED"})
        del self.jobs[job.id]
        return json_reply(202, {"status": "CANCELLATION_REQUESTED"})

    def _serve(self, name: str) -> FakeReply:
        number, _, index = name.rpartition("-")
        if number not in self.jobs:
            return FakeReply(404)
        values = self.jobs[number].values
        width, height = parse_size(values.get("size")) or (1024, 1024)
        sides = values.get("width", width), values.get("height", height)
        return self.serve_image(f"{values['prompt']} {index}", *sides)


def _error(status: int, kind: str, detail: object, **headers: str) -> FakeReply:
    return json_reply(status, {"detail": detail}, x_comfy_error_type=kind, **headers)
