"""The requests of APIs that take JSON: their bodies, images as text, and sizes as two numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Literal, TypeVar

import pybase64

from imgkit.errors import InvalidRequestError
from imgkit.images.inputs import ImageFile
from imgkit.images.references import ImageReference
from imgkit.models import CreateImageRequest, ImageRequest
from imgkit.wire.messages import BytesBody, HttpRequest

ValueT = TypeVar("ValueT")

ACCEPT_JSON: Mapping[str, str] = MappingProxyType({"accept": "application/json"})


def build_json_request(
    method: Literal["GET", "POST", "PUT", "DELETE"],
    url: str,
    value: object = None,
    headers: Mapping[str, str] = ACCEPT_JSON,
) -> HttpRequest:
    """Return a request for a JSON reply, without credentials: a poll, a search or a cancellation.

    Equal values give equal bytes, so that caches and cassettes find them again.

    Args:
        method: "GET", "POST", "PUT" or "DELETE".
        url: absolute URL.
        value: the JSON value of the body; None for no body.
        headers: all headers but the content type.

    Raises:
        ValueError: The value has NaN or Infinity, which JSON lacks.

    Example:
        >>> build_json_request("GET", "https://api.acme.example/tasks/9").headers["accept"]
        'application/json'
    """
    if value is None:
        return HttpRequest(method, url, headers)
    content = json.dumps(value, sort_keys=True, allow_nan=False).encode()
    return HttpRequest(method, url, headers, BytesBody(content, "application/json"))


def encode_json_request(
    url: str,
    members: Mapping[str, object],
    request: ImageRequest,
    headers: Mapping[str, str] = ACCEPT_JSON,
    *,
    merge_objects: bool = False,
) -> HttpRequest:
    """Return the POST of a request as JSON, with its ``model_options``, ``extra_body`` and ``extra_headers``.

    The caller's members win over the provider's. Members with the value None are left out. A ``model`` in
    ``extra_body`` is left out too: `imgkit.models.resolve_model` reads it.

    Args:
        url: absolute URL.
        members: the provider's members of the body.
        request: the request of the caller.
        headers: the provider's headers.
        merge_objects: merge objects that are in both, at any depth; else the caller's object replaces the
            provider's.

    Example:
        >>> request = CreateImageRequest(prompt="a fox", extra_body={"seed": 7})
        >>> sent = encode_json_request("https://api.acme.example/v1", {"text": "a fox", "n": None}, request)
        >>> b"".join(sent.body.blocks())
        b'{"seed": 7, "text": "a fox"}'
    """
    options = request.model_options or {}
    members = _merge(members, options) if merge_objects else {**members, **options}
    extra = {name: value for name, value in (request.extra_body or {}).items() if name != "model"}
    body = _merge(members, extra) if merge_objects else {**members, **extra}
    content = {name: value for name, value in body.items() if value is not None}
    return build_json_request("POST", url, content, add_extra_headers(headers, request))


def add_extra_headers(headers: Mapping[str, str], request: ImageRequest) -> dict[str, str]:
    """Return headers with those of ``extra_headers``, which win; empty ones are left out.

    Example:
        >>> add_extra_headers({}, CreateImageRequest(prompt="a fox", extra_headers={"x-team": "art"}))
        {'x-team': 'art'}
    """
    return {**headers, **{name: value for name, value in (request.extra_headers or {}).items() if value}}


def _merge(own: Mapping[str, object], other: Mapping[str, object]) -> dict[str, object]:
    merged = dict(own)
    for name, value in other.items():
        before = merged.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            value = _merge(before, value)
        merged[name] = value
    return merged


def to_base64(image: ImageFile | ImageReference) -> str:
    """Return an image as base64; the URL of a reference, which the API fetches. May block."""
    if isinstance(image, ImageReference):
        return image.url or ""
    return pybase64.b64encode(image.read()).decode("ascii")


def to_data_url(image: ImageFile | ImageReference) -> str:
    """Return an image as a ``data:`` URL; the URL of a reference, which the API fetches. May block."""
    text = to_base64(image)
    return text if isinstance(image, ImageReference) else f"data:{image.kind.media_type};base64,{text}"


def to_sides(size: str | None) -> dict[str, int]:
    """Return width and height of a size as two members; none for "auto" and None.

    Example:
        >>> to_sides("1024x768"), to_sides("auto")
        ({'width': 1024, 'height': 768}, {})
    """
    if not size or size == "auto":
        return {}
    width, _, height = size.partition("x")
    return {"width": int(width), "height": int(height)}


def name_images(name: str, images: Sequence[str]) -> dict[str, str]:
    """Return input images as members of their own, numbered from the second on.

    Example:
        >>> name_images("input_image", ["a", "b"])
        {'input_image': 'a', 'input_image_2': 'b'}
    """
    return {f"{name}_{number}" if number > 1 else name: image for number, image in enumerate(images, 1)}


def find_by_pattern(table: Mapping[str, ValueT], model: str) -> ValueT:
    """Return the value of the first pattern in a data file's table that fits a model; the last is "*".

    Example:
        >>> find_by_pattern({"flux-3*": "images", "*": "image"}, "flux-2-pro")
        'image'
    """
    return next(value for pattern, value in table.items() if fnmatchcase(model, pattern))


def list_images(request: ImageRequest) -> tuple[object, ...]:
    """Return the input images of a request as the caller gave them, without its mask.

    Example:
        >>> list_images(CreateImageRequest(prompt="a fox"))
        ()
    """
    if isinstance(request, CreateImageRequest):
        return ()
    return request.image if isinstance(request.image, tuple) else (request.image,)


def choose_by_inputs(models: Mapping[str, str], request: ImageRequest) -> str:
    """Return the default model of a data file for a request: of "mask", "edit" or "create".

    Example:
        >>> choose_by_inputs({"create": "flux", "edit": "kontext"}, CreateImageRequest(prompt="a fox"))
        'flux'
    """
    has_mask = getattr(request, "mask", None) is not None
    return models["mask" if has_mask else "edit" if list_images(request) else "create"]


def refuse_more_images(request: ImageRequest, most: int, taker: str) -> None:
    """Refuse more input images than an API or a model takes.

    Args:
        request: the request of the caller.
        most: the largest number of images, without the mask.
        taker: name of the API or the model, for the message.

    Raises:
        InvalidRequestError: The message names both numbers.

    Example:
        >>> refuse_more_images(CreateImageRequest(prompt="a fox"), 1, "Acme")
    """
    count = len(list_images(request))
    if count > most:
        takes = "one image" if most == 1 else f"at most {most} images"
        problem = f"{taker} takes {takes}, not {count}. Leave out the others."
        raise InvalidRequestError({"image": problem})


def refuse_several_results(request: ImageRequest) -> None:
    """Refuse to ask for several images where a request makes one: imgkit splits the calls of a service.

    Raises:
        InvalidRequestError: The message names ``n``.

    Example:
        >>> refuse_several_results(CreateImageRequest(prompt="a fox", n=1))
    """
    if (request.n or 1) > 1:
        raise InvalidRequestError({"n": "A request makes one image. Ask for one."})


def refuse_uploaded_files(request: ImageRequest) -> None:
    """Refuse references to files of another API: for APIs that only fetch URLs.

    Raises:
        InvalidRequestError: The message names the field.
    """
    images = [("image", image) for image in list_images(request)]
    for field, image in (*images, ("mask", getattr(request, "mask", None))):
        if isinstance(image, ImageReference) and image.url is None:
            raise InvalidRequestError({field: "This API has no uploaded files. Pass ImageReference(url=…)."})
