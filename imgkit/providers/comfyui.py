"""The dialect of ComfyUI: graphs of nodes that a server, mostly on the same machine, works through.

Source: server.py and execution.py of ComfyUI, October 2025, and comfy-api-simplified 1.6.0; read 2026-11-28.
Unconfirmed: the words of a refusal, which only nodes of hosted models know.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from os import PathLike
from typing import ClassVar
from urllib.parse import urlencode
from uuid import NAMESPACE_URL, UUID, uuid5

from imgkit.errors import ConfigurationError, ImgkitError, InvalidRequestError, MissingModelError
from imgkit.images.inputs import ImageFile, OpenedInputs
from imgkit.jobs.job import Job
from imgkit.models import CreateImageEditRequest, ImageRequest, resolve_model
from imgkit.providers.base import Credential, DecodedImage, DecodedImages, ReplyBody, Target
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.comfyui_fake import FakeComfyUI
from imgkit.providers.comfyui_replies import (
    Json,
    JsonMapping,
    JsonObject,
    explain_nodes,
    find_earlier,
    find_failure,
    find_own,
    hash_graph,
    list_files,
)
from imgkit.providers.comfyui_workflow import Workflow, load_built_in, load_workflow
from imgkit.providers.error_replies import error_from_reply
from imgkit.providers.job_values import JobUpdate, Upload
from imgkit.providers.reply_images import readable
from imgkit.redact import Secret
from imgkit.wire.messages import Body, BytesBody, Head, HttpRequest
from imgkit.wire.multipart import Field, File, MultipartBody

DEFAULT_SIZE = "1024x1024"
VARIABLE = "IMGKIT_COMFYUI_WORKFLOW"
RECENT_JOBS = 64
"""Finished jobs among which the images of a cached graph are looked for."""

_SEED = {"imgkit": "seed of the job"}
"""Stands for the seed until the job has its id: so equal requests have equal bodies."""

_FIELDS = {"prompt", "model", "size", "n", "extra_body", "extra_headers"}
_REMEDIES = {
    "image": "Call create_image_edit with as many images",
    "mask": "Call create_image_edit with a mask",
    "model": "Pass model=…",
}
_ACCEPT = {"accept": "application/json"}


class ComfyUIProvider(BaseProvider):
    """The provider ``"comfyui"``; `imgkit.providers.Provider` describes its members.

    A workflow is a graph of ComfyUI, exported with "Export (API)", that has placeholders in place of
    values: ``{{prompt}}``, ``{{width}}``, ``{{height}}``, ``{{seed}}``, ``{{model}}``, ``{{image}}``,
    ``{{image_2}}``, ``{{mask}}``. Any other placeholder, such as ``{{steps}}``, takes its value from
    ``extra_body={"steps": 30}``. Without ``seed`` in ``extra_body``, each image has a seed of its own.
    Without a workflow, graphs of ComfyUI's own nodes load the checkpoint that ``model=`` names.

    Args:
        workflow: path of the workflow; None reads the variable ``IMGKIT_COMFYUI_WORKFLOW``.

    Raises:
        ConfigurationError: The workflow cannot be read, has no placeholders, or is no graph.

    Example:
        >>> ComfyUIProvider().base_url
        'http://127.0.0.1:8188'
    """

    base_url: ClassVar[str] = "http://127.0.0.1:8188"
    env: ClassVar[Mapping[str, str]] = {"api_key": "COMFYUI_API_KEY", "base_url": "COMFYUI_BASE_URL"}
    accepts = {"create_image": _FIELDS, "create_image_edit": {*_FIELDS, "image", "mask"}}
    model_facts: ClassVar[str] = "imgkit.providers:comfyui.toml"
    credentials = (
        Credential(variable="COMFYUI_API_KEY", required=False),
        Credential(variable="COMFYUI_AUTH", scheme="Basic", required=False),
    )
    fake = FakeComfyUI

    def __init__(self, workflow: str | PathLike[str] | None = None) -> None:
        source = "workflow" if workflow is not None else VARIABLE
        path = workflow if workflow is not None else os.environ.get(VARIABLE, "").strip() or None
        if path is not None and not isinstance(path, str | PathLike):
            raise ConfigurationError("workflow must be the path of a file.", field="workflow")
        self._workflow = None if path is None else load_workflow(path, source)

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse values that the workflow has no place for, and a workflow that lacks values.

        Raises:
            InvalidRequestError: The message names the placeholders.
            MissingModelError: There is neither a workflow nor a checkpoint.
        """
        super().check(request, target)
        is_offline = target.host_class == "offline"
        model = resolve_model(request, None if is_offline else target.model)
        if self._workflow is None and model is None and not is_offline:
            raise MissingModelError(
                f"ComfyUI needs a workflow ({VARIABLE}), or the file name of a checkpoint.",
                hint='Export a workflow with "Export (API)", or pass model=….',
                field="model",
            )
        workflow = self._choose_workflow(request)
        values = _collect_values(request, model)
        images = request.image if isinstance(request, CreateImageEditRequest) else ()
        names = {*values, *_name_images(len(images) if isinstance(images, tuple) else 1)}
        if getattr(request, "mask", None) is not None:
            names.add("mask")
        has_size = bool(request.size and request.size != "auto")
        given = names if has_size else names - {"width", "height"}
        problems = {}
        for name in sorted(given - workflow.names):
            problems["size" if name in ("width", "height") else name] = (
                f"The workflow has no {{{{{name}}}}}. Leave it out, or give a workflow with it."
            )
        for name in sorted(workflow.names - names - {"seed"} - workflow.defaults.keys()):
            remedy = _REMEDIES.get(name.partition("_")[0]) or f'Pass extra_body={{"{name}": …}}'
            problems[name] = f"The workflow needs a value for {{{{{name}}}}}. {remedy}."
        if (request.n or 1) > 1 and "seed" in values:
            problems["n"] = "Images of the same seed are equal. Leave out n or the seed."
        if problems:
            raise InvalidRequestError(problems)

    def _choose_workflow(self, request: ImageRequest) -> Workflow:
        if self._workflow is not None:
            return self._workflow
        if not isinstance(request, CreateImageEditRequest):
            return load_built_in("create")
        return load_built_in("edit" if request.mask is None else "mask")

    def next_upload(
        self, request: ImageRequest, inputs: OpenedInputs, done: JsonMapping, target: Target
    ) -> Upload | None:
        """Return the upload of the next image; the mask comes last and names the first image."""
        names = _name_images(len(inputs.image))
        for name, image in zip(names, inputs.image, strict=True):
            if name not in done and isinstance(image, ImageFile):
                return _upload(name, "image", image, image.sha256, {}, target)
        mask, first = inputs.mask, inputs.image[0] if inputs.image else None
        if isinstance(mask, ImageFile) and isinstance(first, ImageFile) and "mask" not in done:
            digest = hash_graph([first.sha256, mask.sha256])
            reference = {"original_ref": json.dumps(done["image"], sort_keys=True)}
            return _upload("mask", "mask", mask, digest, reference, target)
        return None

    def decode_upload(
        self, upload: Upload, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> Json:
        """Return the place of an upload on the server."""
        with readable(head, body, secrets):
            reply = body.json()
            return {
                "filename": str(reply["name"]),
                "subfolder": str(reply.get("subfolder") or ""),
                "type": str(reply.get("type") or "input"),
            }

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the submit of the workflow, still without the id of its job."""
        workflow = self._choose_workflow(request)
        width, _, height = (request.size or "auto").replace("auto", DEFAULT_SIZE).partition("x")
        places = {
            name: "/".join(part for part in (place["subfolder"], place["filename"]) if part)
            for name, place in inputs.uploads.items()
        }
        values = {
            **workflow.defaults,
            **{"seed": _SEED, "width": int(width), "height": int(height)},
            **_collect_values(request, resolve_model(request, target.model)),
            **places,
        }
        headers = {**_ACCEPT, **{k: v for k, v in (request.extra_headers or {}).items() if v}}
        return HttpRequest("POST", f"{target.base_url}/prompt", headers, _to_body(workflow.fill(values)))

    def submit_handle(self, request: ImageRequest, call_id: str, target: Target) -> JsonMapping:
        """Return the id that the job will have."""
        return {"prompt_id": str(uuid5(NAMESPACE_URL, f"imgkit:{call_id}"))}

    def add_handle(self, request: HttpRequest, handle: JsonMapping) -> HttpRequest:
        """Return the submit with the id of its job, and a seed that depends on it."""
        prompt_id = handle["prompt_id"]
        seed = UUID(prompt_id).int % 2**53
        graph = json.loads(b"".join(request.body.blocks()))["prompt"]
        body = _to_body(_put_seed(graph, seed), prompt_id=prompt_id)
        return HttpRequest("POST", request.url, request.headers, body)

    def decode(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> JobUpdate:
        """Return the accepted job."""
        with readable(head, body, secrets):
            return JobUpdate(state={"prompt_id": str(body.json()["prompt_id"])}, poll_after_s=0)

    def poll(self, job: Job, target: Target) -> HttpRequest:
        """Return the question for the queue; for the history once the job has left the queue."""
        step = job.state.get("step", "queue")
        path = {
            "queue": "/queue",
            "history": f"/history/{job.state['prompt_id']}",
            "cached": f"/history?max_items={RECENT_JOBS}",
        }[step]
        return HttpRequest("GET", f"{target.base_url}{path}", _ACCEPT)

    def find_lost(self, job: Job, target: Target) -> HttpRequest:
        """Return the question for the queue, then for the history: their ids are imgkit's own."""
        return self.poll(job, target)

    def decode_poll(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | JobUpdate:
        """Return the place in the queue, the next question, or the images of the history.

        Raises:
            JobFailedError: A node has failed, or the server does not know the job.
        """
        if head.status != 200:
            raise self.error(head, body.raw(), secrets)
        state = {"prompt_id": job.state["prompt_id"]}
        step = job.state.get("step", "queue")
        with readable(head, body, secrets):
            reply = body.json()
            if step == "queue":
                ahead = _count_ahead(reply, state["prompt_id"])
                if ahead is None:
                    return JobUpdate(state={**state, "step": "history"}, poll_after_s=0)
                note = "running" if ahead < 0 else f"{ahead} job{'' if ahead == 1 else 's'} ahead"
                return JobUpdate(state=state, note=note)
            find = find_earlier if step == "cached" else find_own
            entry = find(reply, job.state)
            failure = find_failure(head, entry, secrets)
            if failure is not None:
                raise failure
            files = list_files(entry)
            if not files and step == "history":
                # ComfyUI had the graph in its cache; an earlier job has the images.
                digest = hash_graph(entry["prompt"][2]) if "prompt" in entry else ""
                return JobUpdate(state={**state, "step": "cached", "graph": digest}, poll_after_s=0)
            images = tuple(
                DecodedImage(url=f"{target.base_url}/view?{urlencode(file)}", with_key=True) for file in files
            )
        return DecodedImages(pictures=images, extra={"prompt_id": state["prompt_id"]})

    def cancel_job(self, job: Job, target: Target) -> HttpRequest:
        """Return the question for the queue; then the request that fits the job's place in it."""
        step, prompt_id = job.state.get("cancel"), job.state["prompt_id"]
        if step is None:
            return HttpRequest("GET", f"{target.base_url}/queue", _ACCEPT)
        path, value = (
            ("/interrupt", {"prompt_id": prompt_id})
            if step == "interrupt"
            else ("/queue", {"delete": [prompt_id]})
        )
        content = BytesBody(json.dumps(value).encode(), "application/json")
        return HttpRequest("POST", f"{target.base_url}{path}", _ACCEPT, content)

    def decode_cancel(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> bool | JobUpdate:
        """Return whether the job is cancelled, or the next request; False if it had ended before."""
        if head.status != 200:
            raise self.error(head, body.raw(), secrets)
        if "cancel" in job.state:
            return True
        with readable(head, body, secrets):
            ahead = _count_ahead(body.json(), job.state["prompt_id"])
        if ahead is None:
            return False
        return JobUpdate(state={**job.state, "cancel": "interrupt" if ahead < 0 else "delete"})

    def error(self, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return the error of a reply outside 2xx, with the problems of single nodes."""
        return error_from_reply(head, explain_nodes(body), secrets)


def _collect_values(request: ImageRequest, model: str | None) -> JsonObject:
    """Return the values of a request for placeholders, but those of its images."""
    width, _, height = (request.size or "auto").replace("auto", DEFAULT_SIZE).partition("x")
    values: JsonObject = {"width": int(width), "height": int(height), **(request.extra_body or {})}
    if model is not None:
        values["model"] = model
    prompt = getattr(request, "prompt", None)
    return values if prompt is None else {**values, "prompt": prompt}


def _name_images(count: int) -> list[str]:
    return ["image" if number == 1 else f"image_{number}" for number in range(1, count + 1)]


def _upload(
    name: str, kind: str, file: ImageFile, digest: str, fields: Mapping[str, str], target: Target
) -> Upload:
    """Return an upload under a name that depends on its content."""
    extension = "png" if kind == "mask" else file.kind.format
    body: Body = MultipartBody(
        (
            File("image", f"imgkit-{digest[:32]}.{extension}", f"image/{file.kind.format}", file),
            *(Field(key, value) for key, value in {**fields, "type": "input", "overwrite": "true"}.items()),
        )
    )
    request = HttpRequest("POST", f"{target.base_url}/upload/{kind}", _ACCEPT, body)
    return Upload(name, request, f"{kind} {digest}")


def _put_seed(value: Json, seed: int) -> Json:
    """Return a JSON value with a seed in the places that wait for it."""
    if isinstance(value, dict):
        return seed if value == _SEED else {name: _put_seed(each, seed) for name, each in value.items()}
    return [_put_seed(each, seed) for each in value] if isinstance(value, list) else value


def _count_ahead(queue: Json, prompt_id: str) -> int | None:
    """Return the number of jobs ahead of a job, -1 if it runs, None if the queue has it not."""
    running = [entry[1] for entry in queue["queue_running"]]
    if prompt_id in running:
        return -1
    waiting = [entry[1] for entry in sorted(queue["queue_pending"], key=lambda entry: entry[0])]
    return len(running) + waiting.index(prompt_id) if prompt_id in waiting else None


def _to_body(graph: Json, **more: str) -> BytesBody:
    content = json.dumps({"prompt": graph, **more}, sort_keys=True, allow_nan=False)
    return BytesBody(content.encode(), "application/json")
