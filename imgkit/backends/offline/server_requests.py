"""Parsing of the requests that the offline server receives: JSON or forms, checked like the API does."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import PIL.Image

from imgkit.images.shapes import Grid, parse_ratio, parse_resolution, to_size
from imgkit.painter.paint import Brief
from imgkit.wire.headers import FIRST_IMAGE_HEADER
from imgkit.wire.json_values import decode_data_url, is_data_url
from imgkit.wire.multipart import read_form

FORMATS = ("png", "jpeg", "webp")
MAX_PARTIAL_IMAGES = 3
STREAMING_OPERATIONS = ("generations", "edits")

_IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif")
_SIZE_PATTERN = re.compile(r"([1-9]\d{1,3})x([1-9]\d{1,3})")
_MAX_EDGE_PX = 3840
_MAX_AREA_PX = 3840 * 2160
_SHAPES = Grid(multiple_of_px=16, most_ratio=3, longest_edge_px=_MAX_EDGE_PX, most_px=_MAX_AREA_PX)
_SEED_IGNORES = ("n", "user", "response_format", "stream", "partial_images")
"""Parameters without influence on the painting."""


class RequestRejected(Exception):
    """A request that the API would answer with status 400.

    Attributes:
        param: the invalid parameter, or None.
        code: the API's error code.
    """

    def __init__(self, message: str, param: str | None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True)
class FormFile:
    """A file of a form.

    Attributes:
        filename: as the client sent it.
        media_type: such as "image/png".
        data: the content.
    """

    filename: str
    media_type: str
    data: bytes


@dataclass(slots=True)
class ServerRequest:
    """A parsed request for images.

    Attributes:
        operation: last part of the path: "generations", "edits" or "variations".
        values: JSON members or form fields, by name.
        files: images, by field name.
        seed: digest of everything that influences the painting.
        first_index: number of images in earlier requests of the same call.
        before_image: called before each image; it raises an error if nobody waits any longer.
    """

    operation: str
    values: Mapping[str, object]
    files: Mapping[str, list[FormFile]]
    seed: str
    first_index: int = 0
    before_image: Callable[[], None] = lambda: None

    def read_choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        """Return a parameter with a fixed set of values.

        Raises:
            RequestRejected: the value is not among the choices.
        """
        value = self.values.get(name)
        if value is None:
            return default
        if value not in choices:
            raise RequestRejected(
                f"Invalid value: {value!r}. Supported values are: {', '.join(choices)}.", name
            )
        return str(value)

    def read_flag(self, name: str) -> bool:
        """Return a boolean parameter, False by default.

        Raises:
            RequestRejected: the value is not a boolean.
        """
        value = self.values.get(name)
        if value not in (None, True, False, "true", "false"):
            raise RequestRejected(f"Invalid type for {name!r}: expected a boolean.", name, "invalid_type")
        return value in (True, "true")

    def read_number(self, name: str, default: int | None, low: int, high: int) -> int | None:
        """Return an integer parameter.

        Raises:
            RequestRejected: the value is not an integer from `low` to `high`.
        """
        value = self.values.get(name)
        if value is None:
            return default
        if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise RequestRejected(f"Invalid value: {name} must be an integer from {low} to {high}.", name)
        return value


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Checked parameters of the images that a request asks for.

    Attributes:
        prompt: the prompt.
        width: pixels across.
        height: pixels down.
        count: number of images.
        output_format: "png", "jpeg" or "webp".
        compression: quality 0 to 100, or None.
        transparent: whether the background is transparent.
        by_url: whether the response contains URLs instead of base64.
        stream: whether the response is a stream of events.
        partial_images: number of partial images per image of a stream.
    """

    prompt: str
    width: int
    height: int
    count: int
    output_format: str
    compression: int | None
    transparent: bool
    by_url: bool
    stream: bool
    partial_images: int

    def build_briefs(self, seed: str, first_index: int = 0) -> Iterator[Brief]:
        """Yield the painter's brief of each image."""
        for index in range(first_index, first_index + self.count):
            yield Brief(
                prompt=self.prompt,
                width=self.width,
                height=self.height,
                seed=hashlib.sha256(f"{seed}:{index}".encode()).hexdigest(),
                transparent=self.transparent,
            )


def parse_request(operation: str, headers: Mapping[str, str], body: bytes, seed: str) -> ServerRequest:
    """Parse a request for images.

    Args:
        operation: last part of the path.
        headers: by lower-case name.
        body: JSON, or a form.
        seed: seed of the server.

    Raises:
        RequestRejected: the body is unreadable, or an image is not included in it.
    """
    content_type = headers.get("content-type", "")
    values: object
    if content_type.startswith("multipart/form-data"):
        values, files = parse_form(content_type, body)
    else:
        values, files = _parse_json(body)
    plain = {name: value for name, value in values.items() if name not in _SEED_IGNORES}
    digest = hashlib.sha256(f"{seed}|{operation}|{json.dumps(plain, sort_keys=True)}".encode())
    for name in sorted(files):
        for file in files[name]:
            digest.update(hashlib.sha256(file.data).digest())
    first = headers.get(FIRST_IMAGE_HEADER, "")
    first_index = int(first) if first.isdecimal() and len(first) < 10 else 0
    return ServerRequest(operation, values, files, digest.hexdigest(), first_index)


def parse_form(content_type: str, body: bytes) -> tuple[dict[str, str], dict[str, list[FormFile]]]:
    r"""Return the scalar fields and the files of a form, by name.

    Args:
        content_type: the header's value, with the boundary.
        body: the complete form.

    Example:
        >>> body = b'--b\r\nContent-Disposition: form-data; name="n"\r\n\r\n2\r\n--b--\r\n'
        >>> parse_form("multipart/form-data; boundary=b", body)
        ({'n': '2'}, {})
    """
    values: dict[str, str] = {}
    files: dict[str, list[FormFile]] = {}
    for part in read_form(content_type, body):
        if part.filename is None:
            values[part.name] = part.data.decode("utf-8", "replace")
        else:
            files.setdefault(part.name, []).append(FormFile(part.filename, part.media_type, part.data))
    return values, files


def parse_size(request: ServerRequest, default: str, *, from_input: bool = False) -> tuple[int, int]:
    """Return the requested width and height in pixels.

    Args:
        request: the request.
        default: the size if the request names none, such as "1024x1024".
        from_input: whether `default` is the size of an input image, which need not fit the grid.

    Raises:
        RequestRejected: the API does not support the size.
    """
    size = request.values.get("size")
    if size in (None, "auto") and (shape := _read_shape(request)) is not None:
        size = shape
    is_explicit = size not in (None, "auto")
    match = _SIZE_PATTERN.fullmatch(str(size if is_explicit else default))
    if match is None:
        raise RequestRejected(
            f"Invalid value: {size!r}. Expected a size such as '1024x1024' or 'auto'.", "size"
        )
    width, height = int(match[1]), int(match[2])
    longer, shorter = max(width, height), min(width, height)
    if is_explicit or not from_input:
        fits_grid = width % 16 == 0 and height % 16 == 0
        fits_limits = longer <= 3 * shorter and longer <= _MAX_EDGE_PX and width * height <= _MAX_AREA_PX
        if not fits_grid or not fits_limits:
            raise RequestRejected(
                f"Invalid size {width}x{height}: both edges must be multiples of 16 up to {_MAX_EDGE_PX}, "
                f"the ratio from 1:3 to 3:1, the area up to {_MAX_AREA_PX} pixels.",
                "size",
            )
    elif longer > _MAX_EDGE_PX or shorter < 16:
        raise RequestRejected(f"Invalid image: edges must be 16 to {_MAX_EDGE_PX} pixels.", "image")
    return width, height


def _read_shape(request: ServerRequest) -> str | None:
    """Return the size for an aspect ratio and a resolution, None if the request has neither."""
    ratio = parse_ratio(request.values.get("aspect_ratio"))
    side_px = parse_resolution(request.values.get("resolution"))
    if ratio is None and side_px is None:
        return None
    return to_size(ratio or 1.0, side_px or 1024, grid=_SHAPES)


def parse_output(request: ServerRequest, size: tuple[int, int], prompt: str | None) -> OutputOptions:
    """Return the checked parameters of the images.

    Args:
        request: the request.
        size: width and height in pixels.
        prompt: the prompt of an operation without a prompt parameter; None reads the parameter.

    Raises:
        RequestRejected: a parameter is invalid.
    """
    if prompt is None:
        value = request.values.get("prompt", "")
        if not isinstance(value, str) or not value.strip():
            raise RequestRejected(
                "Missing required parameter: 'prompt'.", "prompt", "missing_required_parameter"
            )
        prompt = value
    count = request.read_number("n", 1, 1, 10) or 1
    output_format = request.read_choice("output_format", "png", FORMATS)
    compression = request.read_number("output_compression", None, 0, 100)
    background = request.read_choice("background", "auto", ("transparent", "opaque", "auto"))
    if background == "transparent" and output_format == "jpeg":
        raise RequestRejected("Transparent background is not supported for jpeg.", "background")
    response_format = request.read_choice("response_format", "b64_json", ("url", "b64_json"))
    stream = request.read_flag("stream") and request.operation in STREAMING_OPERATIONS
    partial_images = request.read_number("partial_images", 0, 0, MAX_PARTIAL_IMAGES) or 0
    if partial_images and not stream:
        raise RequestRejected("'partial_images' is only for streams.", "partial_images")
    return OutputOptions(
        prompt=prompt,
        width=size[0],
        height=size[1],
        count=count,
        output_format=output_format,
        compression=compression,
        transparent=background == "transparent",
        by_url=response_format == "url",
        stream=stream,
        partial_images=partial_images,
    )


def open_image(request: ServerRequest, fields: tuple[str, ...], param: str) -> PIL.Image.Image:
    """Open the first image of a request.

    Args:
        request: the request.
        fields: form fields that may contain the image.
        param: the parameter to name in an error.

    Raises:
        RequestRejected: the image is missing, unreadable, or of an unsupported type.
    """
    files = [file for name in fields for file in request.files.get(name, [])]
    if not files:
        raise RequestRejected(f"Missing required parameter: {param!r}.", param, "missing_required_parameter")
    for file in files:
        if file.media_type not in _IMAGE_TYPES:
            raise RequestRejected(
                f"Invalid file {file.filename!r}: unsupported mimetype ({file.media_type!r}).",
                param,
                "unsupported_file_mimetype",
            )
    try:
        image = PIL.Image.open(io.BytesIO(files[0].data), formats=["PNG", "JPEG", "WEBP", "GIF"])
        image.load()
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError):
        raise RequestRejected("Invalid image file.", param, "invalid_image_file") from None
    return image


def _parse_json(body: bytes) -> tuple[dict[str, object], dict[str, list[FormFile]]]:
    """Return the members of a JSON body without its images, and the images like files of a form."""
    try:
        members = json.loads(body)
    except ValueError:
        raise RequestRejected(
            "We could not parse the JSON body of your request.", None, "invalid_json"
        ) from None
    if not isinstance(members, dict):
        raise RequestRejected("The body must be a JSON object.", None, "invalid_type")
    mask = members.get("mask")
    references = {"image": members.get("images"), "mask": [mask] if mask else None}
    try:
        files = {
            role: [_decode_image_url(reference) for reference in listed]
            for role, listed in references.items()
            if isinstance(listed, list)
        }
    except ValueError as error:
        raise RequestRejected(
            f"Failed to get an image: {error}.", "images", "failed_to_download_image"
        ) from None
    return {name: value for name, value in members.items() if name not in ("images", "mask")}, files


def _decode_image_url(reference: object) -> FormFile:
    """Return the image of a ``data:`` URL.

    Raises:
        ValueError: the reference is a URL or a file id, which only a server with a network can fetch.
    """
    url = reference.get("image_url") if isinstance(reference, dict) else None
    if not isinstance(url, str) or not is_data_url(url):
        raise ValueError("nothing is fetched and no file is kept here: give a data: URL")
    media_type = url[5:].partition(",")[0].partition(";")[0]
    return FormFile("image", media_type, decode_data_url(url))
