"""vLLM-Omni, SGLang and LocalAI in small: OpenAI's shape with the errors and traps of each server."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import ClassVar

from imgkit.models import Operation
from imgkit.providers.fakes import FakeReply, FakeRequest, json_reply
from imgkit.providers.openai_fake import FakeCall, FakeOpenAI, read_input
from imgkit.wire.json_values import JsonMapping, JsonObject

INPAINTING_SIDE_PX = 512
"""Width and height of every image that LocalAI repaints by a mask."""


class FakeServer(FakeOpenAI):
    """A base class: the server describes nothing beside its images, and reads edits as forms."""

    takes_json_edits: ClassVar[bool] = False

    def describe(self, call: FakeCall, count: int) -> JsonObject:
        """Return nothing."""
        return {}

    def list_inputs(self, values: JsonMapping) -> list[bytes | str]:
        """Return the images that a form names by URL; a form repeats the field, and the last one stays."""
        url = values.get("url[]") or values.get("url")
        return [read_input(url)] if url else []


class FakeVllm(FakeServer):
    """Answers the requests of `imgkit.providers.vllm.VllmProvider`.

    Example:
        >>> url = "http://127.0.0.1:8000/v1/images/generations"
        >>> FakeVllm().answer_parts("POST", url, {}, b'{"prompt": "a fox"}').status
        200
    """

    def read_call(self, request: FakeRequest, operation: Operation) -> FakeCall | FakeReply:
        """Return the request; the mask is in ``mask_image``."""
        call = super().read_call(request, operation)
        if isinstance(call, FakeReply):
            return call
        masks = [part.data for part in request.form() if part.name == "mask_image"]
        return call._replace(mask=masks[0] if masks else None)

    def find_problem(self, call: FakeCall) -> tuple[str | None, str] | None:
        """Return the problem of a request: the server sends no URLs."""
        if call.values.get("response_format", "b64_json") not in ("b64_json", "file"):
            return "response_format", "Only response_format b64_json and file are supported."
        return super().find_problem(call)

    def describe(self, call: FakeCall, count: int) -> JsonObject:
        """Return format and size of the images."""
        width, height = self.to_sides(call)
        return {"output_format": self.declared_type.removeprefix("image/"), "size": f"{width}x{height}"}


class FakeSGLang(FakeServer):
    """Answers the requests of `imgkit.providers.sglang.SGLangProvider`.

    Example:
        >>> url = "http://127.0.0.1:30000/v1/images/generations"
        >>> FakeSGLang().answer_parts("POST", url, {}, b'{"prompt": "a fox"}').status
        400
    """

    def find_problem(self, call: FakeCall) -> tuple[str | None, str] | None:
        """Return the problem of a request: URLs are the default, and need a store."""
        if call.values.get("response_format", "url") != "b64_json":
            return "response_format", "response_format='url' requires cloud storage to be configured."
        return super().find_problem(call)

    def describe(self, call: FakeCall, count: int) -> JsonObject:
        """Return the usage, which counts images only."""
        return {"id": "fake", "inference_time_s": 2.1, "usage": {"image_count": count}}

    def error_reply(self, status: int, message: str, **details: str | None) -> FakeReply:
        """Return an error of FastAPI."""
        wait_s = details.get("retry_after")
        waits = {} if wait_s is None else {"retry_after": wait_s}
        return json_reply(status, {"detail": message}, **waits)


class FakeLocalAI(FakeServer):
    """Answers the requests of `imgkit.providers.localai.LocalAIProvider`.

    Example:
        >>> url = "http://127.0.0.1:8080/v1/images/generations"
        >>> FakeLocalAI().answer_parts("POST", url, {}, b'{"prompt": "a fox"}').status
        200
    """

    paths: ClassVar[Mapping[Operation, str]] = {
        "create_image": "/images/generations",
        "create_image_edit": "/images/inpainting",
    }
    sends_links: ClassVar[bool] = True
    default_side_px: ClassVar[int] = INPAINTING_SIDE_PX

    def list_inputs(self, values: JsonMapping) -> list[bytes | str]:
        """Return the references of a creation, in base64 or as URLs."""
        links = values.get("ref_images") or ()
        return [link if link.startswith("http") else base64.b64decode(link) for link in links]

    def find_problem(self, call: FakeCall) -> tuple[str | None, str] | None:
        """Return the problem of a request: the route for masks needs one."""
        if call.operation == "create_image_edit" and call.mask is None:
            return "mask", "missing mask file"
        return super().find_problem(call)

    def describe(self, call: FakeCall, count: int) -> JsonObject:
        """Return the usage, which is always zero."""
        return {"id": "fake", "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}

    def error_reply(self, status: int, message: str, **details: str | None) -> FakeReply:
        """Return an error in LocalAI's shape, whose code is the status."""
        wait_s = details.get("retry_after")
        waits = {} if wait_s is None else {"retry_after": wait_s}
        return json_reply(status, {"error": {"code": status, "message": message, "type": ""}}, **waits)
