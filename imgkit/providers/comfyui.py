"""The dialect of ComfyUI: graphs of nodes that a server, mostly on the same machine, works through.

Source: server.py and execution.py of ComfyUI, October 2025, and comfy-api-simplified 1.6.0; read 2026-11-28.
Unconfirmed: the words of a refusal, which only nodes of hosted models know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from typing import ClassVar
from urllib.parse import urlencode
from uuid import NAMESPACE_URL, UUID, uuid5

from imgkit.errors import ImgkitError, InvalidRequestError, MissingModelError
from imgkit.images.inputs import ImageFile, OpenedInputs
from imgkit.jobs.job import Job
from imgkit.models import ImageRequest, resolve_model
from imgkit.providers.base import Credential, DecodedImage, DecodedImages, ReplyBody, Target
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.comfyui_fake import FakeComfyUI
from imgkit.providers.comfyui_replies import (
    count_ahead,
    explain_nodes,
    hash_graph,
    read_history,
)
from imgkit.providers.comfyui_workflow import VARIABLE, choose_built_in, load_given_workflow
from imgkit.providers.error_replies import error_from_reply
from imgkit.providers.job_replies import describe_place
from imgkit.providers.job_values import JobUpdate, Upload
from imgkit.providers.json_requests import (
    ACCEPT_JSON,
    add_extra_headers,
    build_json_request,
    list_images,
    to_sides,
)
from imgkit.providers.reply_images import readable
from imgkit.redact import Secret
from imgkit.wire.json_values import Json, JsonMapping, JsonObject, replace_values
from imgkit.wire.messages import Head, HttpRequest
from imgkit.wire.multipart import Field, File, MultipartBody

DEFAULT_SIDES = {"width": 1024, "height": 1024}
RECENT_JOBS = 64
"""Finished jobs among which the images of a cached graph are looked for."""

_SEED = "{{imgkit: seed of the job}}"
"""Stands for the seed until the job has its id: so equal requests have equal bodies."""

_FIELDS = {
    *("prompt", "model", "size", "seed", "negative_prompt", "n"),
    *("model_options", "extra_body", "extra_headers"),
}


class ComfyUIProvider(BaseProvider):
    """The provider ``"comfyui"``; `imgkit.providers.Provider` describes its members.

    A workflow is a graph of ComfyUI, exported with "Export (API)", that has placeholders in place of
    values: ``{{prompt}}``, ``{{negative_prompt}}``, ``{{width}}``, ``{{height}}``, ``{{seed}}``,
    ``{{model}}``, ``{{image}}``, ``{{image_2}}``, ``{{mask}}``. Any other placeholder, such as ``{{steps}}``,
    takes its value from ``model_options={"steps": 30}``. Without ``seed``, each image has its own.
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
        self._workflow = load_given_workflow(workflow)

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
        values = _collect_values(request, model)
        problems = (self._workflow or choose_built_in(request)).find_problems(
            {*values, *_name_inputs(request)},
            in_extra_body=frozenset(request.extra_body or ()),
            optional=frozenset() if to_sides(request.size) else frozenset({"width", "height"}),
        )
        if (request.n or 1) > 1 and "seed" in {**(request.model_options or {}), **(request.extra_body or {})}:
            problems["n"] = "Images of the same seed are equal. Leave out n, or pass seed=…."
        if problems:
            raise InvalidRequestError(problems)

    def next_upload(
        self, request: ImageRequest, inputs: OpenedInputs, done: JsonMapping, target: Target
    ) -> Upload | None:
        """Return the upload of the next image; the mask comes last and names the first image."""
        for name, file in zip(_name_inputs(request), (*inputs.image, inputs.mask), strict=False):
            if name in done or not isinstance(file, ImageFile):
                continue
            if name != "mask":
                return _upload(name, "image", file, file.sha256, {}, target)
            reference = {"original_ref": json.dumps(done["image"], sort_keys=True)}
            return _upload(name, "mask", file, hash_graph([reference, file.sha256]), reference, target)
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
        workflow = self._workflow or choose_built_in(request)
        places = {
            name: "/".join(part for part in (place["subfolder"], place["filename"]) if part)
            for name, place in inputs.uploads.items()
        }
        own = _collect_values(request, resolve_model(request, target.model))
        graph = workflow.fill({**workflow.defaults, "seed": _SEED, **own, **places})
        headers = add_extra_headers(ACCEPT_JSON, request)
        return build_json_request("POST", f"{target.base_url}/prompt", {"prompt": graph}, headers)

    def submit_handle(self, request: ImageRequest, call_id: str, target: Target) -> JsonMapping:
        """Return the id that the job will have."""
        return {"prompt_id": str(uuid5(NAMESPACE_URL, f"imgkit:{call_id}"))}

    def add_handle(self, request: HttpRequest, handle: JsonMapping) -> HttpRequest:
        """Return the submit with the id of its job, and a seed that depends on it."""
        seed = UUID(handle["prompt_id"]).int % 2**53
        submit = json.loads(b"".join(request.body.blocks()))
        graph = replace_values(submit["prompt"], str, lambda text: seed if text == _SEED else text)
        return build_json_request("POST", request.url, {"prompt": graph, **handle}, request.headers)

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
        return build_json_request("GET", f"{target.base_url}{path}")

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
        with readable(head, body, secrets):
            reply = body.json()
            if job.state.get("step", "queue") == "queue":
                ahead = count_ahead(reply, state["prompt_id"])
                if ahead is None:
                    return JobUpdate(state={**state, "step": "history"}, poll_after_s=0)
                return JobUpdate(state=state, note="running" if ahead < 0 else describe_place(ahead))
            files, digest = read_history(head, reply, job.state, secrets)
            if files is None:
                return JobUpdate(state={**state, "step": "cached", "graph": digest}, poll_after_s=0)
            images = tuple(
                DecodedImage(url=f"{target.base_url}/view?{urlencode(file)}", with_key=True) for file in files
            )
        return DecodedImages(pictures=images, extra={"prompt_id": state["prompt_id"]})

    def cancel_job(self, job: Job, target: Target) -> HttpRequest:
        """Return the question for the queue; then the request that fits the job's place in it."""
        step, prompt_id = job.state.get("cancel"), job.state["prompt_id"]
        if step is None:
            return build_json_request("GET", f"{target.base_url}/queue")
        path, value = {
            "interrupt": ("/interrupt", {"prompt_id": prompt_id}),
            "delete": ("/queue", {"delete": [prompt_id]}),
        }[step]
        return build_json_request("POST", f"{target.base_url}{path}", value)

    def decode_cancel(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> bool | JobUpdate:
        """Return whether the job is cancelled, or the next request; False if it had ended before."""
        if head.status != 200:
            raise self.error(head, body.raw(), secrets)
        if "cancel" in job.state:
            return True
        with readable(head, body, secrets):
            ahead = count_ahead(body.json(), job.state["prompt_id"])
        if ahead is None:
            return False
        return JobUpdate(state={**job.state, "cancel": "interrupt" if ahead < 0 else "delete"})

    def error(self, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return the error of a reply outside 2xx, with the problems of single nodes."""
        return error_from_reply(head, explain_nodes(body), secrets)


def _collect_values(request: ImageRequest, model: str | None) -> JsonObject:
    """Return the values of a request for placeholders, but those of its images."""
    shared = {"seed": request.seed, "negative_prompt": request.negative_prompt}
    more = {"model": model, "prompt": getattr(request, "prompt", None)}
    return {
        **(to_sides(request.size) or DEFAULT_SIDES),
        **{name: value for name, value in shared.items() if value is not None},
        **(request.model_options or {}),
        **(request.extra_body or {}),
        **{name: value for name, value in more.items() if value is not None},
    }


def _name_inputs(request: ImageRequest) -> list[str]:
    """Return the placeholders of the images of a request, and that of its mask."""
    count = len(list_images(request))
    names = ["image", *(f"image_{number}" for number in range(2, count + 1))][:count]
    return names if getattr(request, "mask", None) is None else [*names, "mask"]


def _upload(
    name: str, kind: str, file: ImageFile, digest: str, fields: Mapping[str, str], target: Target
) -> Upload:
    """Return an upload under a name that depends on its content."""
    form = {**fields, "type": "input", "overwrite": "true"}
    file_name = f"imgkit-{digest[:32]}.{file.kind.format}"
    content = File("image", file_name, file.kind.media_type, file)
    body = MultipartBody((content, *(Field(key, value) for key, value in form.items())))
    request = HttpRequest("POST", f"{target.base_url}/upload/{kind}", ACCEPT_JSON, body)
    return Upload(name, request, f"{kind} {digest}")
