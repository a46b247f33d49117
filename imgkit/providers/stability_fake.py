"""Stability's API in small: forms, images in base64, filtered results under 200, jobs."""

from __future__ import annotations

import base64

from imgkit.images.shapes import parse_ratio, to_size
from imgkit.images.sniff import sniff
from imgkit.providers.fakes import LOST, FakeReply, FakeRequest, json_reply, to_jpeg
from imgkit.providers.job_fakes import FakeJobApi
from imgkit.providers.json_requests import to_sides
from imgkit.providers.stability_endpoints import ENDPOINTS, SD3, Endpoint

_ROOT, _RESULTS = "/v2beta/stable-image/", "/v2beta/results/"
_JOBS = frozenset({"upscale/creative", "edit/replace-background-and-relight"})
_RATIOS = frozenset(["21:9", "16:9", "3:2", "5:4", "1:1", "4:5", "2:3", "9:16", "9:21"])
_UNKNOWN_ID = "0" * 64


class FakeStability(FakeJobApi):
    """Answers the requests of `imgkit.providers.stability.StabilityProvider`.

    A reply has one image, so ``fewer`` succeeds. Only jobs have polls, and results that expire.

    Example:
        >>> fake = FakeStability()
        >>> url = "https://api.stability.ai/v2beta/stable-image/generate/core"
        >>> fake.answer_parts("POST", url, {}, b"").status
        400
    """

    def handle(self, request: FakeRequest) -> FakeReply:
        """Return the reply to a form, or to a poll."""
        # The offline backend's address ends with /v1.
        path = request.path.removeprefix("/v1")
        if request.method == "GET" and path.startswith(_RESULTS):
            return self._poll(path.removeprefix(_RESULTS))
        endpoints = {each.path: each for each in (SD3, *ENDPOINTS.values())}
        endpoint = endpoints.get(path.removeprefix(_ROOT))
        if request.method != "POST" or endpoint is None:
            return _error_reply(404, "not_found", "path: not found")
        return self._submit(request, endpoint)

    def _submit(self, request: FakeRequest, endpoint: Endpoint) -> FakeReply:
        parts = {part.name: part for part in request.form()}
        values = {name: part.data.decode() for name, part in parts.items() if part.filename is None}
        files = {name: part.data for name, part in parts.items() if part.filename is not None}
        problem = _find_problem(values, files, endpoint)
        if problem is not None or self.scenario == "invalid":
            return _error_reply(400, "bad_request", problem or "prompt: cannot be blank")
        fault = self.find_fault(
            _error_reply(429, "rate_limit_exceeded", "Slow down.", retry_after="0"),
            _error_reply(500, "internal_error", "An unexpected error occurred."),
        )
        if fault is not None:
            return fault
        values["size"] = _choose_size(values, files, endpoint)
        if endpoint.path in _JOBS:
            job = self.add_job(values, f"{len(self.jobs) + 1:064x}")
            return self.accept(json_reply(200, {"id": job.id}))
        return self.accept(self._draw(values, "image"))

    def _poll(self, number: str) -> FakeReply:
        job = self.jobs.get(number)
        if job is None or self.scenario == "expired_link":
            return _error_reply(404, "not_found", "id: not found")
        if self.loses_poll(job):
            return LOST
        if not self.is_done(job):
            return json_reply(202, {"id": number, "status": "in-progress"})
        return self._draw(job.values, "result")

    def _draw(self, values: dict[str, str], member: str) -> FakeReply:
        sides = to_sides(values["size"])
        data = self.paint(f"{values.get('prompt', '')}", sides["width"], sides["height"])
        if self.scenario == "wrong_type":
            data = to_jpeg(data)
        reason = "CONTENT_FILTERED" if self.scenario == "refused" else "SUCCESS"
        seed = int(values.get("seed", "0")) or 343940597
        encoded = base64.b64encode(data).decode()
        return json_reply(200, {member: encoded, "finish_reason": reason, "seed": seed})


def _error_reply(status: int, name: str, problem: str, **headers: str) -> FakeReply:
    return json_reply(status, {"id": _UNKNOWN_ID, "name": name, "errors": [problem]}, **headers)


def _choose_size(values: dict[str, str], files: dict[str, bytes], endpoint: Endpoint) -> str:
    kind = next((sniff(files[name]) for name in endpoint.images if name in files), None)
    if kind is not None:
        return f"{kind.width}x{kind.height}"
    return to_size(parse_ratio(values.get("aspect_ratio", "1:1")) or 1.0, 1024)


def _find_problem(values: dict[str, str], files: dict[str, bytes], endpoint: Endpoint) -> str | None:
    """Return the problem of a form that the API would refuse, None for a good one."""
    if endpoint.prompt == "prompt" and not values.get("prompt", "").strip():
        return "prompt: cannot be blank"
    if not endpoint.draws and endpoint.images[0] not in files:
        return f"{endpoint.images[0]}: cannot be blank"
    if endpoint.draws and endpoint.images and endpoint.images[0] in files and "strength" not in values:
        return "strength: cannot be blank"
    if values.get("aspect_ratio", "1:1") not in _RATIOS:
        return "aspect_ratio: must be one of " + ", ".join(sorted(_RATIOS))
    return None
