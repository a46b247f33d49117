"""An Images API inside the process: it reads requests and writes replies as bytes, like the real one.

Nothing above it knows that it is no server: JSON, forms, errors and result URLs are all real.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import PIL.Image

from imgkit.backends.offline import event_streams
from imgkit.backends.offline.forms import FormFile, named_pictures, read_form
from imgkit.painter import painter

KEPT_PICTURES = 64
"""How many pictures are kept for their URLs; the oldest expire, as a real server's do."""

DEFAULT_SIZE = "1024x1024"
FORMATS = ("png", "jpeg", "webp")
TOKENS_PER_MEGAPIXEL = 1056
"""Output tokens of a 1024x1024 picture of medium quality (gpt-image-1's table), to fill `usage`."""

_EVENTS = {"generations": "image_generation", "edits": "image_edit"}
_NOT_PAINTED = ("n", "user", "response_format", "stream", "partial_images")
_SIZE = re.compile(r"([1-9]\d{1,3})x([1-9]\d{1,3})")
_EDGE_PX = 3840
_AREA_PX = 3840 * 2160


@dataclass(frozen=True, slots=True)
class ServerReply:
    """A reply as bytes."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class _Refused(Exception):
    """A request that the API would answer with 400."""

    def __init__(self, message: str, param: str | None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.reply = _error(400, message, "image_generation_user_error", param, code)


@dataclass(slots=True)
class _Order:
    """What a request asks for, read and checked.

    Attributes:
        operation: the last part of its path.
        values: its members or fields.
        files: its pictures, by field name.
        seed: digest of all that makes a difference to the picture.
    """

    operation: str
    values: Mapping[str, Any]
    files: Mapping[str, list[FormFile]]
    seed: str

    def text(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.values.get(name)
        if value is None:
            return default
        if value not in choices:
            raise _Refused(f"Invalid value: {value!r}. Supported values are: {', '.join(choices)}.", name)
        return str(value)

    def flag(self, name: str) -> bool:
        value = self.values.get(name)
        if value not in (None, True, False, "true", "false"):
            raise _Refused(f"Invalid type for {name!r}: expected a boolean.", name, "invalid_type")
        return value in (True, "true")

    def number(self, name: str, default: int | None, low: int, high: int) -> int | None:
        value = self.values.get(name)
        if value is None:
            return default
        if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _Refused(f"Invalid value: {name} must be an integer from {low} to {high}.", name)
        return value


class OfflineServer:
    """Answers the three operations and serves result URLs.

    Args:
        seed: changes every picture.
    """

    def __init__(self, seed: str = "") -> None:
        self._seed = seed
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def answer(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> ServerReply:
        """Return the reply to one request."""
        path = urlsplit(url).path
        try:
            if method == "GET":
                return self._picture(path.rpartition("/")[2])
            handlers = {
                "/images/generations": self._generate,
                "/images/edits": self._edit,
                "/images/variations": self._vary,
            }
            for ending, handler in handlers.items():
                if path.endswith(ending):
                    order = _read(ending.rpartition("/")[2], headers, body, self._seed)
                    return handler(order, url[: -len(ending)])
        except _Refused as refused:
            return refused.reply
        return _error(404, f"Invalid URL ({method} {path})", "invalid_request_error", None, None)

    def forget(self) -> None:
        """Drop the pictures that were kept for their URLs."""
        with self._lock:
            self._kept.clear()

    def _generate(self, order: _Order, root: str) -> ServerReply:
        width, height = _size(order, DEFAULT_SIZE)
        return self._reply(order, root, width, height, lambda brief: painter.paint(brief))

    def _edit(self, order: _Order, root: str) -> ServerReply:
        base = _open(order, ("image", "image[]"), "image")
        mask = _open(order, ("mask",), "mask") if order.files.get("mask") else None
        if mask is not None and mask.size != base.size:
            raise _Refused("Invalid input image - mask and image must be the same size.", "mask")
        if mask is not None and "A" not in mask.getbands() and "transparency" not in mask.info:
            raise _Refused("Invalid mask image - the mask has no alpha channel.", "mask")
        width, height = _size(order, f"{base.width}x{base.height}", own=True)
        return self._reply(order, root, width, height, lambda brief: painter.edit(brief, base, mask))

    def _vary(self, order: _Order, root: str) -> ServerReply:
        base = _open(order, ("image",), "image")
        width, height = _size(order, f"{base.width}x{base.height}", own=True)
        prompt = painter.prompt_of(base)
        return self._reply(order, root, width, height, lambda brief: painter.vary(brief, base), prompt)

    def _reply(
        self, order: _Order, root: str, width: int, height: int, draw: Any, prompt: str | None = None
    ) -> ServerReply:
        wanted = order.values.get("prompt", "") if prompt is None else prompt
        if prompt is None and (not isinstance(wanted, str) or not wanted.strip()):
            raise _Refused("Missing required parameter: 'prompt'.", "prompt", "missing_required_parameter")
        count = order.number("n", 1, 1, 10) or 1
        output_format = order.text("output_format", "png", FORMATS)
        compression = order.number("output_compression", None, 0, 100)
        background = order.text("background", "auto", ("transparent", "opaque", "auto"))
        if background == "transparent" and output_format == "jpeg":
            raise _Refused("Transparent background is not supported for jpeg.", "background")
        response_format = order.text("response_format", "b64_json", ("url", "b64_json"))
        stream = order.flag("stream") and order.operation in _EVENTS
        partial = order.number("partial_images", 0, 0, event_streams.MOST_PARTIAL) or 0
        if partial and not stream:
            raise _Refused("'partial_images' is only for streams.", "partial_images")
        about: dict[str, Any] = {
            "background": "transparent" if background == "transparent" else "opaque",
            "output_format": output_format,
            "size": f"{width}x{height}",
            "quality": str(order.values.get("quality") or "auto"),
        }
        now = int(time.time())
        events = []
        data = []
        for index in range(count):
            brief = painter.Brief(
                prompt=wanted,
                width=width,
                height=height,
                seed=hashlib.sha256(f"{order.seed}:{index}".encode()).hexdigest(),
                transparent=background == "transparent",
            )
            picture = draw(brief)
            encoded = painter.encode(picture, output_format, compression, prompt=wanted)
            if stream:
                kind = _EVENTS[order.operation]
                for number, blurred in enumerate(event_streams.blurred(picture, partial)):
                    shown = painter.encode(blurred, output_format, compression, prompt=wanted)
                    more = {"created_at": now, **about, "partial_image_index": number}
                    events.append(event_streams.event(f"{kind}.partial_image", shown, more))
                usage = _usage(wanted, order, width * height, partial)
                more = {"created_at": now, **about, "usage": usage}
                events.append(event_streams.event(f"{kind}.completed", encoded, more))
            elif response_format == "url":
                data.append({"url": f"{root}/pictures/{self._keep(encoded)}.{output_format}"})
            else:
                data.append({"b64_json": base64.b64encode(encoded).decode("ascii")})
        if stream:
            headers = {"content-type": "text/event-stream", "x-request-id": _request_id(order.seed)}
            return ServerReply(200, headers, b"".join(events))
        reply: dict[str, Any] = {
            "created": now,
            "data": data,
            **about,
            "usage": _usage(wanted, order, width * height * count),
        }
        if painter.notices():
            reply["warnings"] = list(painter.notices())
        return _json(200, reply, order.seed)

    def _keep(self, picture: bytes) -> str:
        name = hashlib.sha256(picture).hexdigest()[:32]
        with self._lock:
            self._kept[name] = picture
            while len(self._kept) > KEPT_PICTURES:
                self._kept.popitem(last=False)
        return name

    def _picture(self, name: str) -> ServerReply:
        with self._lock:
            picture = self._kept.get(name.partition(".")[0])
        if picture is None:
            return _error(404, "This picture has expired.", "invalid_request_error", None, None)
        kind = name.rpartition(".")[2]
        return ServerReply(
            200, {"content-type": f"image/{kind}", "content-length": str(len(picture))}, picture
        )


def _read(operation: str, headers: Mapping[str, str], body: bytes, seed: str) -> _Order:
    content_type = headers.get("content-type", "")
    if content_type.startswith("multipart/form-data"):
        values, files = read_form(content_type, body)
    else:
        try:
            values, files = json.loads(body), {}
        except ValueError:
            raise _Refused(
                "We could not parse the JSON body of your request.", None, "invalid_json"
            ) from None
        if not isinstance(values, dict):
            raise _Refused("The body must be a JSON object.", None, "invalid_type")
        try:
            values, files = named_pictures(values)
        except ValueError as error:
            raise _Refused(
                f"Failed to get an image: {error}.", "images", "failed_to_download_image"
            ) from None
    # `n`, `user` and how the pictures come back make no difference to what is painted.
    plain = {name: value for name, value in values.items() if name not in _NOT_PAINTED}
    digest = hashlib.sha256(f"{seed}|{operation}|{json.dumps(plain, sort_keys=True)}".encode())
    for name in sorted(files):
        for one in files[name]:
            digest.update(hashlib.sha256(one.data).digest())
    return _Order(operation, values, files, digest.hexdigest())


def _size(order: _Order, default: str, *, own: bool = False) -> tuple[int, int]:
    """Return width and height; an input's `own` size need not fit the grid that the API asks of `size`."""
    given = order.values.get("size")
    named = given not in (None, "auto")
    found = _SIZE.fullmatch(str(given if named else default))
    if found is None:
        raise _Refused(f"Invalid value: {given!r}. Expected a size such as '1024x1024' or 'auto'.", "size")
    width, height = int(found[1]), int(found[2])
    ratio_fits = width <= 3 * height and height <= 3 * width
    if named or not own:
        if (
            width % 16
            or height % 16
            or not ratio_fits
            or max(width, height) > _EDGE_PX
            or width * height > _AREA_PX
        ):
            raise _Refused(
                f"Invalid size {width}x{height}: both edges must be multiples of 16 up to {_EDGE_PX}, the "
                f"ratio from 1:3 to 3:1, the area up to {_AREA_PX} pixels.",
                "size",
            )
    elif max(width, height) > _EDGE_PX or min(width, height) < 16:
        raise _Refused(f"Invalid image: edges must be 16 to {_EDGE_PX} pixels.", "image")
    return width, height


def _open(order: _Order, names: tuple[str, ...], param: str) -> PIL.Image.Image:
    files = [one for name in names for one in order.files.get(name, [])]
    if not files:
        raise _Refused(f"Missing required parameter: {param!r}.", param, "missing_required_parameter")
    for one in files:
        if one.media_type not in ("image/png", "image/jpeg", "image/webp", "image/gif"):
            raise _Refused(
                f"Invalid file {one.filename!r}: unsupported mimetype ({one.media_type!r}).", param,
                "unsupported_file_mimetype",
            )  # fmt: skip
    try:
        picture = PIL.Image.open(io.BytesIO(files[0].data), formats=["PNG", "JPEG", "WEBP", "GIF"])
        picture.load()
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError):
        raise _Refused("Invalid image file.", param, "invalid_image_file") from None
    return picture


def _usage(prompt: str, order: _Order, pixels: int, partial: int = 0) -> dict[str, Any]:
    text = max(1, len(prompt.encode("utf-8", "replace")) // 4)
    pictures = 256 * sum(len(files) for files in order.files.values())
    output = max(1, pixels * TOKENS_PER_MEGAPIXEL // (1024 * 1024))
    output += partial * event_streams.PARTIAL_TOKENS
    return {
        "input_tokens": text + pictures,
        "input_tokens_details": {"text_tokens": text, "image_tokens": pictures},
        "output_tokens": output,
        "total_tokens": text + pictures + output,
    }


def _json(status: int, value: Any, seed: str = "") -> ServerReply:
    body = json.dumps(value, separators=(",", ":")).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    return ServerReply(status, {**headers, "x-request-id": _request_id(seed)}, body)


def _request_id(seed: str) -> str:
    return f"req_offline_{seed[:24] or 'none'}"


def _error(status: int, message: str, kind: str, param: str | None, code: str | None) -> ServerReply:
    return _json(status, {"error": {"message": message, "type": kind, "param": param, "code": code}})
