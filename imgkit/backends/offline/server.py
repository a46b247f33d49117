"""An Images API inside the process: bytes in, bytes out, like the real server.

The layers above cannot tell the difference: JSON, forms, errors and result URLs are all real.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import PIL.Image

from imgkit.backends.offline.server_requests import (
    OutputOptions,
    RequestRejected,
    ServerRequest,
    open_image,
    parse_output,
    parse_request,
    parse_size,
)
from imgkit.painter import image_files, paint

MAX_STORED_IMAGES = 64
"""Maximum number of images behind result URLs; the oldest expire, like on a real server."""

DEFAULT_SIZE = "1024x1024"
TOKENS_PER_MEGAPIXEL = 1056
"""Output tokens of a 1024x1024 image of medium quality (gpt-image-1's table), for `usage`."""

PARTIAL_IMAGE_TOKENS = 100
"""Output tokens of a partial image (API reference, 2026-11-23)."""

_EVENT_PREFIXES = {"generations": "image_generation", "edits": "image_edit"}

Painter = Callable[[paint.Brief], PIL.Image.Image]


@dataclass(frozen=True, slots=True)
class ServerResponse:
    """A response of the server.

    Attributes:
        status: HTTP status.
        headers: by lower-case name.
        body: the complete body.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class OfflineServer:
    """An Images API: the three operations, and the result URLs.

    Args:
        seed: another seed changes every image.

    Example:
        >>> server = OfflineServer()
        >>> body = b'{"prompt": "a red fox", "size": "64x64"}'
        >>> server.handle_request("POST", "http://localhost/v1/images/generations", {}, body).status
        200
    """

    def __init__(self, seed: str = "") -> None:
        self._seed = seed
        self._stored: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def handle_request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        before_image: Callable[[], None] = lambda: None,
    ) -> ServerResponse:
        """Return the response to a request.

        Args:
            method: "GET" or "POST".
            url: absolute URL; the end of its path selects the operation.
            headers: by lower-case name.
            body: the complete body.
            before_image: called before each image; its error ends the painting.
        """
        path = urlsplit(url).path
        if method == "GET":
            return self._serve_image(path.rpartition("/")[2])
        handlers = {
            "/images/generations": self._generate,
            "/images/edits": self._edit,
            "/images/variations": self._vary,
        }
        for ending, handler in handlers.items():
            if path.endswith(ending):
                try:
                    request = parse_request(ending.rpartition("/")[2], headers, body, self._seed)
                    request.before_image = before_image
                    return handler(request, url[: -len(ending)])
                except RequestRejected as error:
                    kind = "image_generation_user_error"
                    return _error_response(400, str(error), kind, error.param, error.code)
        message = (
            f"The offline backend does not serve {method} {path}: it serves OpenAI's endpoints, and those of "
            "the `fake` of a provider."
        )
        return _error_response(404, message, "invalid_request_error", None, None)

    def clear_images(self) -> None:
        """Drop the images behind result URLs."""
        with self._lock:
            self._stored.clear()

    def _generate(self, request: ServerRequest, root: str) -> ServerResponse:
        size = parse_size(request, DEFAULT_SIZE)
        return self._paint_response(request, root, parse_output(request, size, None), paint.paint_image)

    def _edit(self, request: ServerRequest, root: str) -> ServerResponse:
        base = open_image(request, ("image", "image[]"), "image")
        mask = open_image(request, ("mask",), "mask") if request.files.get("mask") else None
        if mask is not None and mask.size != base.size:
            raise RequestRejected("Invalid input image - mask and image must be the same size.", "mask")
        if mask is not None and "A" not in mask.getbands() and "transparency" not in mask.info:
            raise RequestRejected("Invalid mask image - the mask has no alpha channel.", "mask")
        size = parse_size(request, f"{base.width}x{base.height}", from_input=True)
        output = parse_output(request, size, None)
        return self._paint_response(request, root, output, lambda brief: paint.edit_image(brief, base, mask))

    def _vary(self, request: ServerRequest, root: str) -> ServerResponse:
        base = open_image(request, ("image",), "image")
        size = parse_size(request, f"{base.width}x{base.height}", from_input=True)
        output = parse_output(request, size, image_files.read_stored_prompt(base))
        return self._paint_response(request, root, output, lambda brief: paint.vary_image(brief, base))

    def _paint_response(
        self, request: ServerRequest, root: str, output: OutputOptions, painter: Painter
    ) -> ServerResponse:
        """Paint the images of a request and return them as JSON or as a stream of events."""
        created = int(time.time())
        about = {
            "background": "transparent" if output.transparent else "opaque",
            "output_format": output.output_format,
            "size": f"{output.width}x{output.height}",
            "quality": str(request.values.get("quality") or "auto"),
        }
        images = _paint_images(request, output, painter)
        if output.stream:
            events = _build_events(request, output, images, {"created_at": created, **about})
            headers = {"content-type": "text/event-stream", "x-request-id": _build_request_id(request.seed)}
            return ServerResponse(200, headers, b"".join(events))
        reply: dict[str, object] = {
            "created": created,
            "data": [self._build_item(output, root, image) for image in images],
            **about,
            "usage": _build_usage(request, output, output.width * output.height * output.count),
        }
        if paint.font_warnings():
            reply["warnings"] = list(paint.font_warnings())
        return _json_response(200, reply, request.seed)

    def _build_item(self, output: OutputOptions, root: str, image: PIL.Image.Image) -> dict[str, str]:
        """Return an entry of `data`: a result URL or base64."""
        data = _encode(output, image)
        if output.by_url:
            return {"url": f"{root}/pictures/{self._store_image(data)}.{output.output_format}"}
        return {"b64_json": base64.b64encode(data).decode("ascii")}

    def _store_image(self, data: bytes) -> str:
        """Store an image for its result URL; return its name there."""
        name = hashlib.sha256(data).hexdigest()[:32]
        with self._lock:
            self._stored[name] = data
            while len(self._stored) > MAX_STORED_IMAGES:
                self._stored.popitem(last=False)
        return name

    def _serve_image(self, filename: str) -> ServerResponse:
        """Return the image behind a result URL, or 404 if it has expired."""
        with self._lock:
            data = self._stored.get(filename.partition(".")[0])
        if data is None:
            return _error_response(404, "This picture has expired.", "invalid_request_error", None, None)
        headers = {
            "content-type": f"image/{filename.rpartition('.')[2]}",
            "content-length": str(len(data)),
        }
        return ServerResponse(200, headers, data)


def blur_progressively(image: PIL.Image.Image, count: int) -> Iterator[PIL.Image.Image]:
    """Yield `count` blurred copies of an image, each twice as sharp as the copy before."""
    for index in range(count):
        factor = 4 << (count - 1 - index)
        small = image.resize(
            (max(1, image.width // factor), max(1, image.height // factor)), PIL.Image.Resampling.BOX
        )
        yield small.resize(image.size, PIL.Image.Resampling.BICUBIC)


def _paint_images(
    request: ServerRequest, output: OutputOptions, painter: Painter
) -> Iterator[PIL.Image.Image]:
    """Yield the images of a request while somebody waits for them."""
    for brief in output.build_briefs(request.seed, request.first_index):
        request.before_image()
        yield painter(brief)


def _build_events(
    request: ServerRequest,
    output: OutputOptions,
    images: Iterable[PIL.Image.Image],
    members: dict[str, object],
) -> Iterator[bytes]:
    """Yield the events of a stream: for each image its partial images, then the completed image."""
    prefix = _EVENT_PREFIXES[request.operation]
    usage = _build_usage(request, output, output.width * output.height, output.partial_images)
    for image in images:
        for index, partial in enumerate(blur_progressively(image, output.partial_images)):
            data = _encode(output, partial)
            yield _encode_event(f"{prefix}.partial_image", data, {**members, "partial_image_index": index})
        yield _encode_event(f"{prefix}.completed", _encode(output, image), {**members, "usage": usage})


def _encode_event(kind: str, data: bytes, members: Mapping[str, object]) -> bytes:
    """Return a server-sent event with an image.

    Args:
        kind: type of the event.
        data: the image file.
        members: further members of the JSON object.
    """
    text = json.dumps(
        {"type": kind, "b64_json": base64.b64encode(data).decode("ascii"), **members}, separators=(",", ":")
    )
    return f"event: {kind}\ndata: {text}\n\n".encode()


def _encode(output: OutputOptions, image: PIL.Image.Image) -> bytes:
    return image_files.encode_image(image, output.output_format, output.compression, prompt=output.prompt)


def _build_usage(
    request: ServerRequest, output: OutputOptions, pixels: int, partial_images: int = 0
) -> dict[str, object]:
    """Return plausible token counts for a number of painted pixels."""
    text_tokens = max(1, len(output.prompt.encode("utf-8", "replace")) // 4)
    image_tokens = 256 * sum(len(files) for files in request.files.values())
    output_tokens = max(1, pixels * TOKENS_PER_MEGAPIXEL // (1024 * 1024))
    output_tokens += partial_images * PARTIAL_IMAGE_TOKENS
    return {
        "input_tokens": text_tokens + image_tokens,
        "input_tokens_details": {"text_tokens": text_tokens, "image_tokens": image_tokens},
        "output_tokens": output_tokens,
        "total_tokens": text_tokens + image_tokens + output_tokens,
    }


def _json_response(status: int, value: object, seed: str = "") -> ServerResponse:
    body = json.dumps(value, separators=(",", ":")).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    return ServerResponse(status, {**headers, "x-request-id": _build_request_id(seed)}, body)


def _build_request_id(seed: str) -> str:
    return f"req_offline_{seed[:24] or 'none'}"


def _error_response(
    status: int, message: str, kind: str, param: str | None, code: str | None
) -> ServerResponse:
    return _json_response(status, {"error": {"message": message, "type": kind, "param": param, "code": code}})
