"""Scripted jobs: a provider without a network, whose jobs follow a script and a clock of their own.

An application tests with it what it does about a pending, refused, failed, expired or lost job.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar
from urllib.parse import quote

from imgkit.errors import ImgkitError, JobFailedError
from imgkit.images.inputs import ImageFile, OpenedInputs
from imgkit.jobs.job import Job
from imgkit.models import ImageRequest, field_names
from imgkit.providers.base import DecodedImage, DecodedImages, ReplyBody, Target
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.error_replies import error_from_reply, refused
from imgkit.providers.fakes import LOST, FakeApi, FakeReply, FakeRequest, Paint, json_reply, paint_plain
from imgkit.providers.job_values import JobUpdate
from imgkit.providers.reply_images import readable
from imgkit.redact import Secret
from imgkit.testing.job_scripts import JobNews, JobScript, ScriptClock, script_error
from imgkit.wire.json_values import decode_base64
from imgkit.wire.messages import BytesBody, Head, HttpRequest

_HANDLE_HEADER = "x-scripted-handle"
_SIDE = 512


class ScriptedJobs:
    """An API whose jobs follow a script, offline: without network, key, cost and waiting.

    A call that would wait for a job does not sleep. The pause counts against the ``timeout_s`` of the call,
    and as time of that job alone. So a call with enough time gets its images at once, and another raises
    its `JobPendingError` at once. Between calls, time passes when the test moves `clock`.

    Args:
        scripts: the scripts of the jobs of a call, in the order of its images; each job makes one image.
            The last serves for all further jobs. None for a single script of the following values.
        script: the values of a `JobScript`, if `scripts` is None.

    Attributes:
        scripts: as given. A test may assign other scripts for its next calls.
        clock: the clock.

    Raises:
        ConfigurationError: a script is impossible.

    Example:
        >>> from imgkit import ImageService, JobPendingError
        >>> jobs = ScriptedJobs(after_s=90)
        >>> with ImageService(**jobs.settings()) as images:
        ...     try:
        ...         images.create_image("a red fox", timeout_s=60)
        ...     except JobPendingError as error:
        ...         jobs.clock.advance(60)
        ...         response = images.resume(error, timeout_s=60)
        >>> len(response), len(jobs.submits)
        (1, 1)
    """

    def __init__(self, scripts: Sequence[JobScript] | None = None, **script: Any) -> None:
        self.clock = ScriptClock()
        self.scripts = self._check(scripts, script)
        self._api = _ScriptedApi(self)

    @property
    def provider(self) -> ScriptedProvider:
        """A provider for `settings` and for services that a test builds by itself."""
        return ScriptedProvider(self._api)

    @property
    def submits(self) -> list[dict[str, Any]]:
        """The bodies of the submits that arrived, for a test that counts paid requests."""
        return list(self._api.submits)

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return the arguments of a service that works with these jobs.

        Args:
            more: further arguments.
        """
        return {"backend": "offline", "provider": self.provider, **more}

    @staticmethod
    def _check(scripts: Sequence[JobScript] | None, script: Mapping[str, Any]) -> Sequence[JobScript]:
        unknown = [name for name in script if name not in JobScript.__dataclass_fields__]
        if unknown:
            raise script_error(
                unknown[0], f"is unknown. A JobScript has {', '.join(JobScript.__dataclass_fields__)}"
            )
        if scripts is None:
            return [JobScript(**script)]
        if script:
            raise script_error(next(iter(script)), "stands beside scripts. Put it into one of them")
        is_list = isinstance(scripts, list | tuple) and bool(scripts)
        if not is_list or not all(isinstance(each, JobScript) for each in scripts):
            raise script_error("scripts", "must be a list with at least one JobScript")
        return scripts

    def __repr__(self) -> str:
        return f"ScriptedJobs({self.scripts!r})"


class _RunningJob:
    """A job of the scripted API.

    Attributes:
        script: its course.
        body: the body of its submit.
        part: number of the job among those of its call.
        began_s: the clock at its submit.
        waited_s: the pauses of the calls that follow it.
        cancelled: whether a test has cancelled it.
    """

    def __init__(self, script: JobScript, body: dict[str, Any], part: int, began_s: float) -> None:
        self.script = script
        self.body = body
        self.part = part
        self.began_s = began_s
        self.waited_s = 0.0
        self.cancelled = False


class _ScriptedApi(FakeApi):
    """The API's own side. All services of a `ScriptedJobs` share it, so any of them can resume a job."""

    def __init__(self, jobs: ScriptedJobs) -> None:
        super().__init__()
        self.jobs = jobs
        self.submits: list[dict[str, Any]] = []
        self._running: dict[str, _RunningJob] = {}
        self._ids: dict[str, str] = {}

    def paint_with(self, paint: Paint = paint_plain) -> _ScriptedApi:
        """Return this API with another painter; the offline backend calls it."""
        self.paint = paint
        return self

    def handle(self, request: FakeRequest) -> FakeReply:
        """Return the reply to a submit, a question or a cancel request."""
        if request.method == "POST":
            return self._accept(request)
        name = request.path.rpartition("/")[2]
        if "handle" in request.query:
            name = self._ids.get(request.query["handle"], "")
        job = self._running.get(name)
        if job is None:
            return json_reply(200, {"state": "unknown"})
        if request.method == "DELETE":
            job.cancelled = job.cancelled or self._elapsed_s(job) < job.script.after_s
            return json_reply(200, {"cancelled": job.cancelled})
        return json_reply(200, self._describe(name, job))

    def pass_time(self, name: str, wait_s: float) -> None:
        """Let the pause of a call pass for one job."""
        with self._lock:
            if name in self._running:
                self._running[name].waited_s += wait_s

    def _accept(self, request: FakeRequest) -> FakeReply:
        handle = request.headers.get(_HANDLE_HEADER, "")
        # imgkit's id of a submit ends with the number of the job in its call.
        last = handle.rpartition("-")[2]
        part = int(last) if last.isdigit() else 0
        scripts = self.jobs.scripts
        script = scripts[min(part, len(scripts) - 1)]
        if script.submit == "lost":
            self._ids.pop(handle, None)  # an equal request has an equal handle
            return LOST
        body = request.json()
        self.submits.append(body)
        name = f"job-{len(self.submits)}"
        self._ids[handle] = name
        self._running[name] = _RunningJob(script, body, part, self.jobs.clock.now_s)
        if script.submit == "reply_lost":
            return LOST
        return json_reply(202, self._describe(name, self._running[name], is_submit=True))

    def _elapsed_s(self, job: _RunningJob) -> float:
        return self.jobs.clock.now_s - job.began_s + job.waited_s

    def _describe(self, name: str, job: _RunningJob, *, is_submit: bool = False) -> dict[str, Any]:
        """Return the news of a job, or its end."""
        script, elapsed_s = job.script, self._elapsed_s(job)
        reply: dict[str, Any] = {"id": name, "billed": script.billed}
        if job.cancelled:
            return {**reply, "state": "cancelled"}
        is_over = elapsed_s >= script.after_s and not is_submit
        if is_over and script.end != "images":
            return {**reply, "state": script.end}
        rest_s = None
        if script.expires_after_s is not None:
            rest_s = script.after_s + script.expires_after_s - elapsed_s
            if is_over and rest_s <= 0:
                return {**reply, "state": "expired"}
        if is_over:
            return {**reply, "state": "ready", "image": self._paint(job)}
        news = sorted(script.news, key=lambda each: each.at_s)
        told = [each for each in news if each.at_s <= elapsed_s]
        times = [each.at_s for each in news if elapsed_s < each.at_s < script.after_s]
        latest = told[-1] if told else JobNews(0.0)
        reply |= {"state": "working", "note": latest.note, "progress": latest.progress}
        if latest.preview:
            reply["preview"] = self._paint(job)
        return {
            **reply,
            "wait_s": max(0.0, min([*times, script.after_s]) - elapsed_s),
            "expires_in_s": rest_s,
        }

    def _paint(self, job: _RunningJob) -> str:
        """Return the image of a job as base64. The jobs of a call make different images."""
        prompt = str(job.body.get("prompt") or "")
        width, _, height = str(job.body.get("size")).partition("x")
        sides = [int(side) if side.isdigit() else _SIDE for side in (width, height)]
        text = f"{prompt}, number {job.part + 1}" if job.part else prompt
        return base64.b64encode(self.paint(text, *sides)).decode()


class ScriptedProvider(BaseProvider):
    """The provider of a `ScriptedJobs`. It works with the offline backend.

    Args:
        api: the API's own side.
    """

    name = "scripted"
    base_url: ClassVar[str] = "https://scripted.example/v1"
    env: ClassVar[Mapping[str, str]] = {"api_key": "SCRIPTED_API_KEY"}
    base64_keys: ClassVar[frozenset[str]] = frozenset({"image", "preview"})
    model_facts: ClassVar[str] = "imgkit.testing:scripted_jobs.toml"
    takes_references: ClassVar[bool] = True

    def __init__(self, api: _ScriptedApi) -> None:
        self._api = api
        self.fake = api.paint_with  # type: ignore[misc,assignment]  # shared by all services of a script

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the submit, with the digests of the input images."""
        names = [name for name in field_names(type(request)) if name not in ("image", "mask", "markup")]
        body = {name: value for name in names if (value := getattr(request, name)) is not None}
        body |= {"operation": request.operation, "model": body.get("model", target.model)}
        body["inputs"] = [each.sha256 if isinstance(each, ImageFile) else asdict(each) for each in inputs]
        content = json.dumps(body, sort_keys=True, default=dict).encode()
        return HttpRequest("POST", f"{target.base_url}/jobs", {}, BytesBody(content, "application/json"))

    def submit_handle(self, request: ImageRequest, call_id: str, target: Target) -> Mapping[str, Any]:
        """Return imgkit's id of the submit, by which `find_lost` finds the job."""
        return {"handle": call_id}

    def add_handle(self, request: HttpRequest, handle: Mapping[str, Any]) -> HttpRequest:
        """Return the submit with its handle in a header."""
        headers = {**request.headers, _HANDLE_HEADER: handle["handle"]}
        return HttpRequest(request.method, request.url, headers, request.body)

    def decode(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> JobUpdate:
        """Return the accepted job."""
        with readable(head, body, secrets):
            return _read_update(body.json())

    def poll(self, job: Job, target: Target) -> HttpRequest:
        """Return the question about a job."""
        return HttpRequest("GET", f"{target.base_url}/jobs/{quote(str(job.state['id']), safe='')}")

    def find_lost(self, job: Job, target: Target) -> HttpRequest | None:
        """Return the question about a job by its handle, None once the API has named it."""
        handle = job.state.get("handle")
        return HttpRequest("GET", f"{target.base_url}/jobs?handle={quote(str(handle))}") if handle else None

    def decode_poll(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | JobUpdate:
        """Return the image, or the news of a job that is at work."""
        with readable(head, body, secrets):
            reply = body.json()
            state = reply["state"]
        if state == "working" or (state != "unknown" and "id" not in job.state):
            return _read_update(reply)  # a lost submit has arrived
        if state == "ready":
            image = DecodedImage(data=decode_base64(reply["image"]))
            return DecodedImages(pictures=(image,))
        billed = bool(reply.get("billed"))
        if state == "refused":
            raise refused(head, "The script refuses the image.", stage="output", maybe_billed=billed)
        problems = {
            "failed": "The job has failed: the script says so.",
            "cancelled": "The job was cancelled.",
            "expired": "The job has expired: its images are gone.",
        }
        problem = problems.get(state, "The API does not know the job.")
        error = JobFailedError(problem, status=head.status, code=state)
        error.maybe_billed = state == "expired" or (state == "failed" and billed)
        raise error

    def cancel_job(self, job: Job, target: Target) -> HttpRequest:
        """Return the request that cancels a job."""
        return HttpRequest("DELETE", self.poll(job, target).url)

    def decode_cancel(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> bool:
        """Return whether the job is cancelled; False if it had ended."""
        return bool(body.json().get("cancelled"))

    def pass_time(self, job: Job, wait_s: float) -> None:
        """Let the pause before a question pass for its job; see `ClockProvider`."""
        self._api.pass_time(str(job.state.get("id")), wait_s)

    def error(self, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return the error of a reply outside 2xx."""
        return error_from_reply(head, body, secrets)


def _read_update(reply: Mapping[str, Any]) -> JobUpdate:
    preview, rest_s = reply.get("preview"), reply.get("expires_in_s")
    return JobUpdate(
        state={"id": reply["id"]},
        poll_after_s=reply.get("wait_s", 0.0),
        progress=reply.get("progress"),
        note=reply.get("note", ""),
        preview=None if preview is None else decode_base64(preview),
        expires_at=None if rest_s is None else time.time() + rest_s,
    )
