"""The API of ComfyUI in small: uploads, a queue, a history with cached graphs, files."""

from __future__ import annotations

import json
import re
from typing import Any

from imgkit.providers.fakes import LOST, FakeReply, FakeRequest, json_reply
from imgkit.providers.job_fakes import FakeJob, FakeJobApi
from imgkit.wire.json_values import Json, JsonObject


class FakeComfyUI(FakeJobApi):
    """Answers the requests of `imgkit.providers.comfyui.ComfyUIProvider`.

    A submit with the graph of an earlier one makes no image, as its nodes are cached. The values of a job
    are its graph.

    Attributes:
        files: the uploads by name, each with the values of its form.
        interrupted: ids of the jobs that were interrupted.

    Example:
        >>> fake = FakeComfyUI()
        >>> fake.answer_parts("GET", "http://127.0.0.1:8188/queue", {}, b"").status
        200
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.files: dict[str, dict[str, bytes]] = {}
        self.interrupted: set[str] = set()

    def handle(self, request: FakeRequest) -> FakeReply:
        """Return the reply to an upload, a submit, a question, a cancel request or a download."""
        path = re.sub(r"^(/v1|/api)(?=/)", "", request.path)
        if request.method == "POST" and path.startswith("/upload/"):
            return self._upload(request, path)
        if request.method == "POST" and path == "/prompt":
            return self._submit(request)
        if request.method == "POST" and path in ("/queue", "/interrupt"):
            return self._cancel(request.json(), path)
        if path == "/queue":
            return self._show_queue()
        if path.startswith("/history"):
            wanted = path.rpartition("/")[2]
            jobs = [job for job in self.jobs.values() if self.is_done(job) and wanted in ("history", job.id)]
            return json_reply(200, {job.id: self.build_entry(job) for job in jobs})
        return self._serve(request) if path == "/view" else FakeReply(404, {"content-type": "text/plain"})

    def _upload(self, request: FakeRequest, path: str) -> FakeReply:
        parts = request.form()
        form = {part.name: part.data for part in parts}
        name = next((part.filename for part in parts if part.filename), "")
        if "image" not in form or (path == "/upload/mask" and not self._has_original(form)):
            return FakeReply(400)
        self.files[name] = form
        return json_reply(200, {"name": name, "subfolder": "", "type": form.get("type", b"input").decode()})

    def _has_original(self, form: dict[str, bytes]) -> bool:
        return json.loads(form.get("original_ref", b"{}")).get("filename") in self.files

    def _submit(self, request: FakeRequest) -> FakeReply:
        values = request.json()
        graph = values["prompt"]
        fault = self.find_fault(
            json_reply(429, {"error": {"type": "busy", "message": "Busy"}}, retry_after="0"),
            FakeReply(500, {"content-type": "text/plain"}, b"500 Internal Server Error"),
        )
        if fault is not None:
            return fault
        problem = self._find_problem(graph)
        if problem is not None:
            details = {"message": problem, "details": "", "type": "value_not_in_list"}
            number = next(iter(graph))
            node = {"errors": [details], "class_type": graph[number]["class_type"]}
            error = {
                "type": "prompt_outputs_failed_validation",
                "message": "Prompt outputs failed validation",
            }
            return json_reply(400, {"error": {**error, "details": ""}, "node_errors": {number: node}})
        job = self.add_job(graph, values.get("prompt_id"))
        return self.accept(
            json_reply(200, {"prompt_id": job.id, "number": len(self.jobs), "node_errors": {}})
        )

    def _find_problem(self, graph: JsonObject) -> str | None:
        if self.scenario == "invalid":
            return "Value not in list"
        for node in graph.values():
            image = node["inputs"].get("image")
            if isinstance(image, str) and image not in self.files:
                return f"Invalid image file: {image}"
        return None

    def _show_queue(self) -> FakeReply:
        lost = [self.loses_poll(job) for job in self.jobs.values() if not self.is_done(job)]
        if any(lost):
            return LOST
        open_jobs = [job for job in self.jobs.values() if not self.is_done(job)]
        entries = [[number, job.id, job.values, {}, []] for number, job in enumerate(open_jobs)]
        running = [entry for entry in entries if self.count_ahead(self.jobs[entry[1]]) == 0]
        waiting = [entry for entry in entries if entry not in running]
        return json_reply(200, {"queue_running": running, "queue_pending": waiting})

    def is_done(self, job: FakeJob) -> bool:
        """Return whether a job has ended, also by an interruption."""
        return job.id in self.interrupted or super().is_done(job)

    def _cancel(self, values: JsonObject, path: str) -> FakeReply:
        for name in values.get("delete", ()):
            if name in self.jobs and not self.is_done(self.jobs[name]):
                del self.jobs[name]
        if path == "/interrupt" and values.get("prompt_id") in self.jobs:
            self.interrupted.add(values["prompt_id"])
        return FakeReply(200)

    def build_entry(self, job: FakeJob) -> JsonObject:
        """Return the entry of the history about a job."""
        messages: list[Json] = [["execution_start", {"prompt_id": job.id}]]
        outputs: JsonObject = {}
        earlier = list(self.jobs.values())[: list(self.jobs).index(job.id)]
        state = "success"
        if job.id in self.interrupted:
            state = "error"
            messages.append(["execution_interrupted", {"prompt_id": job.id}])
        elif self.scenario == "refused":
            state = "error"
            text = "The request requires moderation and your input was flagged."
            details = {"node_id": "7", "node_type": "ApiImage", "exception_type": "Exception"}
            messages.append(["execution_error", {**details, "exception_message": text}])
        elif any(other.values == job.values for other in earlier):
            messages.append(["execution_cached", {"nodes": [*job.values], "prompt_id": job.id}])
        else:
            file = {"filename": f"{job.id}_00001_.png", "subfolder": "", "type": "output"}
            outputs = {"9": {"images": [file]}, "10": {"images": [{**file, "type": "temp"}]}}
        status = {"status_str": state, "completed": state == "success", "messages": messages}
        return {"prompt": [0, job.id, job.values, {}, []], "outputs": outputs, "status": status}

    def _serve(self, request: FakeRequest) -> FakeReply:
        job = self.jobs.get(request.query.get("filename", "").removesuffix("_00001_.png"))
        return FakeReply(404) if job is None else self.serve_image(*_read_graph(job.values))


def _read_graph(graph: JsonObject) -> tuple[str, int, int]:
    """Return the first text of a graph, and its size."""
    inputs = [node["inputs"] for node in graph.values()]
    text = next((str(each["text"]) for each in inputs if "text" in each), "")
    sizes = [each for each in inputs if type(each.get("width")) is int and type(each.get("height")) is int]
    return text, *((sizes[0]["width"], sizes[0]["height"]) if sizes else (1024, 1024))
