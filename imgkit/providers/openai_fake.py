"""The shape of OpenAI's Images API in small, which many APIs share: JSON, forms, links, streams, errors."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from imgkit.images.shapes import parse_ratio, parse_resolution, parse_size, to_size
from imgkit.models import Operation
from imgkit.providers.fakes import (
    LOST,
    FakeApi,
    FakeReply,
    FakeRequest,
    Paint,
    json_reply,
    paint_plain,
    to_jpeg,
)
from imgkit.wire.json_values import Json, JsonMapping, JsonObject, decode_data_url, is_data_url

PARTIAL_SIDE_PX = 64
"""Width and height of the partial images of a stream."""


class FakeCall(NamedTuple):
    """A request for images, as a fake of OpenAI's shape has read it.

    Attributes:
        operation: by the path.
        values: the members of the body by name; those of a form are texts.
        images: the input images: their bytes, or the URL or the id of a file.
        mask: the mask; None without a mask.
        root: scheme and host of the URL.
    """

    operation: Operation
    values: JsonMapping
    images: tuple[bytes | str, ...]
    mask: bytes | str | None
    root: str

    @property
    def image_count(self) -> int:
        """The number of images that the caller asks for."""
        return int(self.values.get("n") or 1)

    @property
    def prompt(self) -> str:
        """The prompt, "" without any."""
        return str(self.values.get("prompt") or "")


class FakeOpenAI(FakeApi):
    """Answers requests in the shape of OpenAI's Images API.

    A subclass sets the attributes, and overrides the methods, in which its API differs. The API has no
    polls, so ``lost_poll`` succeeds; without links, ``expired_link`` succeeds, too.

    Attributes:
        paths: the end of the path of each operation. Two operations may share a path.
        models_path: the end of the path that lists the models.
        members: the names of the members that the API takes; None for any.
        most_images: the largest ``n``.
        sends_links: send links where the request has no ``response_format``.
        takes_json_edits, takes_form_edits: the bodies of edits that the API reads.
        fewest_inputs: the number of images that an edit needs.
        most_inputs: the largest number of input images.
        failing_status: the status of the scenario ``failing``.
        default_side_px: width and height of an image without a size.

    Example:
        >>> fake = FakeOpenAI()
        >>> url = "https://api.openai.com/v1/images/generations"
        >>> fake.answer_parts("POST", url, {}, b'{"prompt": "a fox", "n": 2}').status
        200
    """

    paths: ClassVar[Mapping[Operation, str]] = {
        "create_image": "/images/generations",
        "create_image_edit": "/images/edits",
    }
    models_path: ClassVar[str] = "/models"
    members: ClassVar[frozenset[str] | None] = None
    most_images: ClassVar[int] = 10
    sends_links: ClassVar[bool] = False
    takes_json_edits: ClassVar[bool] = True
    takes_form_edits: ClassVar[bool] = True
    fewest_inputs: ClassVar[int] = 1
    most_inputs: ClassVar[int] = 16
    failing_status: ClassVar[int] = 500
    default_side_px: ClassVar[int] = 1024

    def __init__(self, scenario: str = "success", *, paint: Paint = paint_plain, polls: int = 2) -> None:
        super().__init__(scenario, paint=paint, polls=polls)
        self.files: list[tuple[str, int, int]] = []

    def handle(self, request: FakeRequest) -> FakeReply:
        """Return the reply to a request for images, for a file, or for the models."""
        folder, _, name = request.path.rpartition("/")
        if request.method == "GET" and folder.endswith("/files"):
            number = name.partition(".")[0]
            is_known = number.isdecimal() and int(number) < len(self.files)
            return self.serve_image(*self.files[int(number)]) if is_known else FakeReply(404)
        if request.method == "GET" and request.path.endswith(self.models_path):
            return json_reply(200, self.list_models())
        operation = self.find_operation(request)
        if operation is None:
            return self.error_reply(404, f"Invalid URL ({request.method} {request.path})")
        call = self.read_call(request, operation)
        if isinstance(call, FakeReply):
            return call
        problem = self.find_problem(call)
        if problem is not None or self.scenario == "invalid":
            param, message = problem or ("size", "Invalid size.")
            return self.error_reply(400, message, code="invalid_value", param=param)
        fault = self.find_fault(self.busy_reply(), self.failing_reply())
        if fault is not None:
            return fault
        if self.scenario == "refused":
            return self.refuse(call)
        if self.scenario == "lost_submit":
            return LOST
        return self.make_images(call)

    # --- The request -------------------------------------------------------------------------

    def find_operation(self, request: FakeRequest) -> Operation | None:
        """Return the operation of a request by the end of its path, None without any."""
        found = [name for name, path in self.paths.items() if request.path.endswith(path)]
        return found[0] if found and request.method == "POST" else None

    def read_call(self, request: FakeRequest, operation: Operation) -> FakeCall | FakeReply:
        """Return a request for images; the error of a body that the API does not read."""
        content_type = request.headers.get("content-type", "application/json")
        is_form = content_type.startswith("multipart/form-data")
        takes = self.takes_form_edits if is_form else self.takes_json_edits
        if operation == "create_image":
            takes = not is_form
        if not takes or not (is_form or content_type.startswith("application/json")):
            return self.error_reply(415, f"Unsupported content type: '{content_type.partition(';')[0]}'.")
        if is_form:
            parts = request.form()
            values: Json = {part.name: part.data.decode() for part in parts if part.filename is None}
            files = [(part.name.removesuffix("[]"), part.data) for part in parts if part.filename is not None]
        else:
            values = request.json()
            if not isinstance(values, dict):
                return self.error_reply(400, "The body must be a JSON object.")
            files = []
        images = [data for name, data in files if name == "image"] or self.list_inputs(values)
        mask = next((data for name, data in files if name == "mask"), None) or self.find_mask(values)
        return FakeCall(operation, values, tuple(images), mask, request.root)

    def list_inputs(self, values: JsonMapping) -> list[bytes | str]:
        """Return the input images of a JSON body; OpenAI's stand in ``images``."""
        images = values.get("images") or ()
        return [read_input(image) for image in images] if isinstance(images, list | tuple) else []

    def find_mask(self, values: JsonMapping) -> bytes | str | None:
        """Return the mask of a JSON body, None without any."""
        return read_input(values["mask"]) if values.get("mask") else None

    def find_problem(self, call: FakeCall) -> tuple[str | None, str] | None:
        """Return the parameter and the problem of a request that the API refuses; None for a good one."""
        if self.members is not None:
            for name in call.values:
                if name.removesuffix("[]") not in self.members:
                    return name, f"Unknown parameter: '{name}'."
        count = call.values.get("n")
        if count is not None and not (str(count).isdecimal() and 1 <= int(count) <= self.most_images):
            return "n", f"Invalid 'n': {count}. Expected a value from 1 to {self.most_images}."
        if call.operation != "create_image_variation" and not call.prompt.strip():
            return "prompt", "Missing required parameter: 'prompt'."
        if call.operation != "create_image" and len(call.images) < self.fewest_inputs:
            return "image", "Missing required parameter: 'image'."
        if len(call.images) > self.most_inputs:
            return "image", f"Too many images: {len(call.images)}. The maximum is {self.most_inputs}."
        return None

    def to_sides(self, call: FakeCall) -> tuple[int, int]:
        """Return width and height of the images: of the size, or of the aspect ratio and the resolution."""
        values = call.values
        if values.get("width") and values.get("height"):
            return int(values["width"]), int(values["height"])
        size = parse_size(values.get("size"))
        if size is None:
            ratio = parse_ratio(values.get("aspect_ratio")) or 1.0
            side_px = parse_resolution(values.get("resolution")) or self.default_side_px
            size = parse_size(to_size(ratio, side_px))
        return size or (self.default_side_px, self.default_side_px)

    # --- The reply ---------------------------------------------------------------------------

    def make_images(self, call: FakeCall) -> FakeReply:
        """Return the reply with the images, whole or as a stream."""
        width, height = self.to_sides(call)
        count = self.count_images(call.image_count)
        has_links = self.wants_links(call)
        entries = []
        for number in range(count):
            prompt = f"{call.prompt} {number}" if number else call.prompt
            if has_links:
                self.files.append((prompt, width, height))
                ending = self.declared_type.removeprefix("image/")
                link = f"{call.root}/files/{len(self.files) - 1}.{ending}"
                entries.append(self.build_entry(call, {"url": link}))
            else:
                data = base64.b64encode(self.draw_entry(call, prompt, width, height)).decode()
                entries.append(self.build_entry(call, {"b64_json": data}))
        reply = {"created": 1764000000, "data": entries, **self.describe(call, count)}
        if str(call.values.get("stream", "")).lower() == "true":
            return self.stream(call, reply)
        return json_reply(200, reply, **self.reply_headers(call))

    def draw_entry(self, call: FakeCall, prompt: str, width: int, height: int) -> bytes:
        """Return an image in the format that the request asks for, PNG or JPEG; else in the API's own."""
        wanted = call.values.get("output_format")
        if wanted not in ("png", "jpeg"):
            return self.draw_image(prompt, width, height)
        data = self.paint(prompt, width, height)
        return to_jpeg(data) if wanted == "jpeg" else data

    def wants_links(self, call: FakeCall) -> bool:
        """Return whether the reply has links in place of images."""
        wanted = call.values.get("response_format")
        return self.sends_links if wanted is None else wanted == "url"

    def build_entry(self, call: FakeCall, entry: JsonObject) -> JsonObject:
        """Return an entry of ``data`` for an image in ``b64_json`` or ``url``."""
        return entry

    def describe(self, call: FakeCall, count: int) -> JsonObject:
        """Return the members of the reply beside its images, such as ``usage`` or a cost."""
        details = {"text_tokens": 8, "image_tokens": 258 * len(call.images)}
        asked = sum(details.values())
        usage = {
            **{"total_tokens": asked + 1000 * count, "input_tokens": asked, "output_tokens": 1000 * count},
            "input_tokens_details": details,
        }
        return {"usage": usage, "output_format": self.declared_type.removeprefix("image/")}

    def reply_headers(self, call: FakeCall) -> dict[str, str]:
        """Return the headers of a reply with images; underscores stand for hyphens."""
        return {"x_request_id": f"req-{sum(self.count.values())}"}

    def stream(self, call: FakeCall, reply: JsonMapping) -> FakeReply:
        """Return the reply as the events of a stream."""
        text = "".join(self.write_event(event) for event in self.list_events(call, reply))
        return FakeReply(200, {"content-type": "text/event-stream"}, text.encode())

    def list_events(self, call: FakeCall, reply: JsonMapping) -> list[JsonObject]:
        """Return the events of a stream: the partial images, then each image with the rest of the reply."""
        start = "image_generation" if call.operation == "create_image" else "image_edit"
        draft = self.draw_image("a draft", PARTIAL_SIDE_PX, PARTIAL_SIDE_PX)
        events: list[JsonObject] = [
            {
                **{"type": f"{start}.partial_image", "partial_image_index": number},
                "b64_json": base64.b64encode(draft).decode(),
            }
            for number in range(int(call.values.get("partial_images") or 0))
        ]
        rest = {name: value for name, value in reply.items() if name not in ("data", "created")}
        return [*events, *({"type": f"{start}.completed", **entry, **rest} for entry in reply["data"])]

    def write_event(self, event: JsonMapping) -> str:
        """Return an event as text; some APIs leave out its name."""
        return f"event: {event.get('type')}\ndata: {json.dumps(event)}\n\n"

    def list_models(self) -> Json:
        """Return the list of models."""
        return {"object": "list", "data": [{"id": "a-model", "object": "model"}]}

    # --- Errors ------------------------------------------------------------------------------

    def error_reply(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str = "invalid_request_error",
        **headers: str,
    ) -> FakeReply:
        """Return an error in the API's shape.

        Args:
            status: HTTP status.
            message: the API's words.
            code, param, kind: of OpenAI's error object; ``kind`` is its type.
            **headers: further headers; underscores stand for hyphens.
        """
        error = {"message": message, "type": kind, "param": param, "code": code}
        return json_reply(status, {"error": error}, **headers)

    def busy_reply(self) -> FakeReply:
        """Return the 429 with its wait."""
        return self.error_reply(
            429, "Rate limit reached.", code="rate_limit_exceeded", kind="rate_limit_error", retry_after="0"
        )

    def failing_reply(self) -> FakeReply:
        """Return the reply of the scenario ``failing``."""
        return self.error_reply(self.failing_status, "The server had an error.", kind="server_error")

    def refuse(self, call: FakeCall) -> FakeReply:
        """Return the reply by which the safety system refuses the content."""
        return self.error_reply(
            400,
            "Your request was rejected by the safety system.",
            code="moderation_blocked",
            kind="image_generation_user_error",
        )


def read_input(value: Json) -> bytes | str:
    r"""Return the bytes of an input image of a JSON body; the URL or the id of a file that the API fetches.

    Args:
        value: a ``data:`` URL, another URL or an id, or an object with it in ``image_url``, ``url`` or
            ``file_id``.

    Example:
        >>> read_input({"image_url": {"url": "https://files.example/1.png"}})
        'https://files.example/1.png'
        >>> read_input("data:image/png;base64,AAAA")
        b'\x00\x00\x00'
    """
    while isinstance(value, dict):
        value = value.get("image_url") or value.get("url") or value.get("file_id") or ""
    text = str(value)
    return decode_data_url(text) if is_data_url(text) else text
