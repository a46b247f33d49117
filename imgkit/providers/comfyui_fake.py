"""The API of ComfyUI in small: uploads, a queue, a history with cached graphs, files."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

from imgkit.providers.comfyui_replies import Json, JsonObject
from imgkit.providers.fakes import LOST, FakeApi, FakeReply, FakeRequest, image_reply, json_reply

_FORM_NAME = re.compile(rb'name="(\w+)"(?:; filename="([^"]*)")?')


class FakeComfyUI(FakeApi):
    """Answers the requests of `imgkit.providers.comfyui.ComfyUIProvider`.

    A submit with the graph of an earlier one makes no image, as its nodes are cached.

    Attributes:
        files: the uploads by name, each with the values of its form.
        graphs: the graphs by id of their job.

    Example:
        >>> fake = FakeComfyUI()
        >>> fake.answer_parts("GET", "http://127.0.0.1:8188/queue", {}, b"").status
        200
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.files: dict[str, dict[str, bytes]] = {}
        self.graphs: JsonObject = {}
        self._looks: dict[str, int] = {}
        self._ended: dict[str, str] = {}

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
        if path == "/history":
            return json_reply(200, {name: self._entry(name) for name in self.graphs if self._is_done(name)})
        if path.startswith("/history/"):
            name = path.rpartition("/")[2]
            return json_reply(200, {name: self._entry(name)} if self._is_done(name) else {})
        return self._serve(request) if path == "/view" else FakeReply(404, {"content-type": "text/plain"})

    def _upload(self, request: FakeRequest, path: str) -> FakeReply:
        form, name = _read_form(request)
        if "image" not in form or (path == "/upload/mask" and not self._has_original(form)):
            return FakeReply(400)
        self.files[name] = form
        return json_reply(200, {"name": name, "subfolder": "", "type": form.get("type", b"input").decode()})

    def _has_original(self, form: dict[str, bytes]) -> bool:
        return json.loads(form.get("original_ref", b"{}")).get("filename") in self.files

    def _submit(self, request: FakeRequest) -> FakeReply:
        values = request.json()
        graph, name = values["prompt"], str(values.get("prompt_id") or f"job-{len(self.graphs) + 1}")
        if self.scenario == "rate_limited" and self.happens_once("wait"):
            return json_reply(429, {"error": {"type": "busy", "message": "Busy"}}, retry_after="0")
        if self.scenario == "failing":
            return FakeReply(500, {"content-type": "text/plain"}, b"500 Internal Server Error")
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
        self.graphs[name] = graph
        self._looks[name] = 0
        if self.scenario == "lost_submit":
            return LOST
        return json_reply(200, {"prompt_id": name, "number": len(self.graphs), "node_errors": {}})

    def _find_problem(self, graph: JsonObject) -> str | None:
        if self.scenario == "invalid":
            return "Value not in list"
        for node in graph.values():
            image = node["inputs"].get("image")
            if isinstance(image, str) and image not in self.files:
                return f"Invalid image file: {image}"
        return None

    def _show_queue(self) -> FakeReply:
        open_jobs = [name for name in self.graphs if not self._is_done(name)]
        for name in open_jobs:
            self._looks[name] += 1
        if self.scenario == "lost_poll" and self.happens_once("poll"):
            return LOST
        entries = [
            [number, name, self.graphs[name], {}, []]
            for number, name in enumerate(open_jobs)
            if not self._is_done(name)
        ]
        running = [entry for entry in entries if self._looks[entry[1]] >= self.polls]
        waiting = [entry for entry in entries if entry not in running]
        return json_reply(200, {"queue_running": running, "queue_pending": waiting})

    def _is_done(self, name: str) -> bool:
        return name in self.graphs and (name in self._ended or self._looks[name] > self.polls)

    def _cancel(self, values: JsonObject, path: str) -> FakeReply:
        for name in values.get("delete", ()):
            if not self._is_done(name):
                self.graphs.pop(name, None)
        if path == "/interrupt" and values.get("prompt_id") in self.graphs:
            self._ended[values["prompt_id"]] = "execution_interrupted"
        return FakeReply(200)

    def _entry(self, name: str) -> JsonObject:
        messages: list[Json] = [["execution_start", {"prompt_id": name}]]
        outputs: JsonObject = {}
        earlier = list(self.graphs)[: list(self.graphs).index(name)]
        state = "success"
        if name in self._ended:
            state, messages = "error", [*messages, [self._ended[name], {"prompt_id": name}]]
        elif self.scenario == "refused":
            details = {"node_id": "7", "node_type": "ApiImage", "exception_type": "Exception"}
            text = "The request requires moderation and your input was flagged."
            state, messages = (
                "error",
                [*messages, ["execution_error", {**details, "exception_message": text}]],
            )
        elif any(self.graphs[other] == self.graphs[name] for other in earlier):
            messages.append(["execution_cached", {"nodes": [*self.graphs[name]], "prompt_id": name}])
        else:
            file = {"filename": f"{name}_00001_.png", "subfolder": "", "type": "output"}
            outputs = {"9": {"images": [file]}, "10": {"images": [{**file, "type": "temp"}]}}
        status = {"status_str": state, "completed": state == "success", "messages": messages}
        return {"prompt": [0, name, self.graphs[name], {}, []], "outputs": outputs, "status": status}

    def _serve(self, request: FakeRequest) -> FakeReply:
        query = parse_qs(urlsplit(request.url).query)
        name = query.get("filename", [""])[0].removesuffix("_00001_.png")
        if name not in self.graphs or self.scenario == "expired_link":
            return FakeReply(404)
        prompt, width, height = _read_graph(self.graphs[name])
        declared = "image/jpeg" if self.scenario == "wrong_type" else "image/png"
        return image_reply(self.paint(prompt, width, height), declared)


def _read_form(request: FakeRequest) -> tuple[dict[str, bytes], str]:
    """Return the values of a form, and the name of its file."""
    boundary = request.headers.get("content-type", "").partition("boundary=")[2].encode()
    values, file_name = {}, ""
    for part in request.body.split(b"--" + boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        match = _FORM_NAME.search(head)
        if match is not None:
            values[match[1].decode()] = content.removesuffix(b"\r\n")
            file_name = match[2].decode() if match[2] else file_name
    return values, file_name


def _read_graph(graph: JsonObject) -> tuple[str, int, int]:
    """Return the first text of a graph, and its size."""
    inputs = [node["inputs"] for node in graph.values()]
    text = next((str(each["text"]) for each in inputs if "text" in each), "")
    sizes = [each for each in inputs if type(each.get("width")) is int and type(each.get("height")) is int]
    return text, *((sizes[0]["width"], sizes[0]["height"]) if sizes else (1024, 1024))
