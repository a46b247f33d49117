"""The API of fal.ai in small: a queue with its addresses, results, files, refusals."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

from imgkit.images.shapes import parse_ratio, to_size
from imgkit.providers.fakes import LOST, FakeReply, FakeRequest, json_reply
from imgkit.providers.job_fakes import FakeJob, FakeJobApi

SIZES = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
"""Width and height by the name of an ``image_size``."""

Values: TypeAlias = dict[str, Any]
"""The inputs of a model."""

_JOB = re.compile(r"/[\w.-]+/[\w.-]+/requests/([\w-]+)(/status|/cancel)?")
_MARK = {"x_fal_request_id": "req_fake"}


class FakeFal(FakeJobApi):
    """Answers the requests of `imgkit.providers.FalProvider`.

    Example:
        >>> fake = FakeFal()
        >>> url = "https://queue.fal.run/fal-ai/flux/schnell"
        >>> fake.answer_parts("POST", url, {}, b'{"prompt": "a fox"}').status
        200
    """

    def handle(self, request: FakeRequest) -> FakeReply:
        """Return the reply to a submit, a question about a job, or a download."""
        if request.path.startswith("/files/"):
            return self._serve(request.path.removeprefix("/files/").removesuffix(".png"))
        if match := _JOB.fullmatch(request.path):
            job = self.jobs.get(match[1])
            if job is None:
                return json_reply(404, {"detail": "Request not found"})
            steps = {
                ("GET", "/status"): self._tell_state,
                ("GET", None): self._tell_result,
                ("PUT", "/cancel"): self._cancel,
            }
            step = steps.get((request.method, match[2]))
            return json_reply(405, {"detail": "Method Not Allowed"}) if step is None else step(request, job)
        if request.method == "POST" and re.fullmatch(r"(/[\w.-]+){2,}", request.path):
            return self._submit(request)
        return json_reply(404, {"detail": "Application not found"})

    def _submit(self, request: FakeRequest) -> FakeReply:
        values = request.json()
        fault = self.find_fault(
            json_reply(429, {"detail": "Too many concurrent requests"}, retry_after="0", **_MARK),
            json_reply(500, {"detail": "Internal Server Error"}, retry_after="0", **_MARK),
        )
        if fault is not None:
            return fault
        job = self.add_job(values)
        owner, app = request.path.split("/")[1:3]
        place = f"{request.root}/{owner}/{app}/requests/{job.id}"
        addresses = {"response_url": place, "status_url": f"{place}/status", "cancel_url": f"{place}/cancel"}
        reply = {"status": "IN_QUEUE", "request_id": job.id, "queue_position": self.polls, **addresses}
        return self.accept(json_reply(200, reply))

    def _tell_state(self, request: FakeRequest, job: FakeJob) -> FakeReply:
        if self.loses_poll(job):
            return LOST
        ahead = self.count_ahead(job)
        if ahead > 0:
            return json_reply(202, {"status": "IN_QUEUE", "queue_position": ahead})
        if ahead == 0:
            return json_reply(202, {"status": "IN_PROGRESS", "logs": None})
        return json_reply(200, {"status": "COMPLETED", "metrics": {"inference_time": 1.2}})

    def _tell_result(self, request: FakeRequest, job: FakeJob) -> FakeReply:
        values = job.values
        if not self.is_done(job):
            return json_reply(400, {"detail": "Request is still in progress"})
        problem = _find_problem(values)
        if self.scenario == "invalid":
            problem = problem or ("image_size", "Input should be a valid size", "value_error")
        if self.scenario == "refused":
            text = "The content could not be processed because it was flagged by a content checker."
            problem = ("prompt", text, "content_policy_violation")
        if problem is not None:
            name, text, kind = problem
            return json_reply(422, {"detail": [{"loc": ["body", name], "msg": text, "type": kind}]}, **_MARK)
        count = self.count_images(values.get("num_images", 1))
        width, height = _find_size(values)
        declared = {"content_type": self.declared_type, "width": width, "height": height}
        images = [{"url": f"{request.root}/files/{job.id}-{n}.png", **declared} for n in range(count)]
        result = {"images": images, "seed": 7, "has_nsfw_concepts": [False] * count, "timings": {}}
        return json_reply(200, {**result, "prompt": values["prompt"]})

    def _cancel(self, request: FakeRequest, job: FakeJob) -> FakeReply:
        if self.is_done(job):
            return json_reply(400, {"status": "ALREADY_COMPLETED"})
        del self.jobs[job.id]
        return json_reply(202, {"status": "CANCELLATION_REQUESTED"})

    def _serve(self, name: str) -> FakeReply:
        number, _, index = name.rpartition("-")
        job = self.jobs.get(number)
        if job is None:
            return FakeReply(404)
        return self.serve_image(f"{job.values['prompt']} {index}", *_find_size(job.values))


def _find_size(values: Values) -> tuple[int, int]:
    ratio = parse_ratio(values.get("aspect_ratio"))
    if ratio is not None and "image_size" not in values:
        width, height = to_size(ratio, 1024).split("x")
        return int(width), int(height)
    size = values.get("image_size", "square_hd")
    if isinstance(size, dict):
        return size["width"], size["height"]
    return SIZES.get(size, SIZES["square_hd"])


def _find_problem(values: Values) -> tuple[str, str, str] | None:
    """Return field, problem and type of a request that a model would refuse, None for a good one."""
    if not isinstance(values.get("prompt"), str):
        return "prompt", "Field required", "missing"
    if values.get("num_images", 1) not in range(1, 5):
        return "num_images", "Input should be less than or equal to 4", "less_than_equal"
    size = values.get("image_size", "square_hd")
    if not isinstance(size, dict) and size not in SIZES:
        return "image_size", "Input should be a valid size", "value_error"
    return None
