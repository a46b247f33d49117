"""The plans of the operations: what happens between the user's call and the pictures.

Each plan is a generator of needs (see `imgkit.flow`). `imgkit.service` binds them to the synchronous
and the asynchronous service, so signatures, descriptions and behaviour of the two cannot drift apart.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import Any

from imgkit import download as downloading
from imgkit import results
from imgkit.call import Call, Cancelled, Failed, Started, Succeeded
from imgkit.core import Core, seconds
from imgkit.errors import ImgkitError, InvalidRequestError
from imgkit.exchange import Course, kept, settled
from imgkit.flow import Flow, Run
from imgkit.image import Image
from imgkit.inputs import open_input
from imgkit.models import (
    CreateImageEditRequest,
    CreateImageRequest,
    CreateImageVariationRequest,
    ImageInput,
    ImageRequest,
    ImagesResponse,
    field_names,
)
from imgkit.providers.base import OpenedInputs
from imgkit.saving import SavePlan
from imgkit.schemas.base import SchemaError
from imgkit.schemas.requests import REQUEST_SCHEMAS
from imgkit.single_flight import CacheUse, fetch

SaveTo = str | PathLike[str] | SavePlan | None


def create_image(
    core: Core,
    prompt: str | CreateImageRequest,
    *,
    model: str | None = None,
    n: int | None = None,
    size: str | None = None,
    quality: str | None = None,
    background: str | None = None,
    output_format: str | None = None,
    output_compression: int | None = None,
    moderation: str | None = None,
    response_format: str | None = None,
    style: str | None = None,
    complexity: str | None = None,
    frame_count: int | None = None,
    frame_duration_ms: int | None = None,
    svg: Mapping[str, Any] | None = None,
    safety_identifier: str | None = None,
    user: str | None = None,
    extra_body: Mapping[str, Any] | None = None,
    extra_headers: Mapping[str, str | None] | None = None,
    save_to: SaveTo = None,
    cache: str | None = None,
    replica: int = 0,
    timeout_s: float | None = None,
) -> Flow[ImagesResponse]:
    """Create pictures from a prompt.

    Args:
        prompt: what to draw; or a whole `CreateImageRequest`, which goes alone.
        model, n, size, quality, background, output_format, output_compression, moderation,
        response_format, style, complexity, frame_count, frame_duration_ms, svg, safety_identifier,
        user, extra_body, extra_headers: see `CreateImageRequest`; what is None is not sent.
        save_to: file, folder, or pattern such as ``"out/{index}-{slug}.{ext}"`` to save the pictures
            to; checked before anything is sent, never overwrites.
        cache: with a cache among the plugins: "use" it (the default), "refresh" what it has, "only" (send
            nothing), or "off".
        replica: number of a further picture for an equal request; 0 is the first.
        timeout_s: seconds that this call may take in all; the service's if None.

    Returns:
        The pictures and how they came about.

    Raises:
        InvalidRequestError, ConfigurationError: nothing was sent.
        NotSentError: nothing can have been billed.
        OutcomeUnknownError, UnreadableReplyError, EmptyResultError: it may have been billed.
        ApiError: the API refused or failed.
        CacheMissError: ``cache="only"``, and the cache has no reply; nothing was sent.
        SaveError: the pictures came and could not be written; they are in ``error.response``.
    """
    request = _request(CreateImageRequest, "prompt", prompt, locals())
    return (yield from _course(core, request, save_to, CacheUse.of(cache, replica), timeout_s))


def create_image_edit(
    core: Core,
    image: ImageInput | Sequence[ImageInput] | CreateImageEditRequest,
    prompt: str | None = None,
    *,
    mask: ImageInput | None = None,
    markup: ImageInput | None = None,
    model: str | None = None,
    n: int | None = None,
    size: str | None = None,
    quality: str | None = None,
    background: str | None = None,
    output_format: str | None = None,
    output_compression: int | None = None,
    input_fidelity: str | None = None,
    response_format: str | None = None,
    complexity: str | None = None,
    frame_count: int | None = None,
    frame_duration_ms: int | None = None,
    svg: Mapping[str, Any] | None = None,
    safety_identifier: str | None = None,
    user: str | None = None,
    extra_body: Mapping[str, Any] | None = None,
    extra_headers: Mapping[str, str | None] | None = None,
    save_to: SaveTo = None,
    cache: str | None = None,
    replica: int = 0,
    timeout_s: float | None = None,
) -> Flow[ImagesResponse]:
    """Change pictures as a prompt says.

    Args:
        image: the picture to change, or up to 16: paths, bytes, open binary files, PIL images,
            images of earlier replies, ``data:`` URLs; or a whole `CreateImageEditRequest`.
        prompt: what to change; required unless a request object is given.
        mask: PNG of the first picture's size; it is changed where the mask is transparent.
        markup: transparent PNG that shows what is meant; not with `mask`.
        input_fidelity: "high" or "low".
        model, n, size, quality, background, output_format, output_compression, response_format,
        complexity, frame_count, frame_duration_ms, svg, safety_identifier, user, extra_body,
        extra_headers: see `CreateImageRequest`.
        save_to, cache, replica, timeout_s: as for `create_image`.

    Returns:
        The pictures and how they came about.

    Raises:
        InvalidRequestError: also for a picture that is missing, empty, cut off or no picture.
        ImgkitError: otherwise as `create_image`.
    """
    request = _request(CreateImageEditRequest, "image", image, locals())
    return (yield from _course(core, request, save_to, CacheUse.of(cache, replica), timeout_s))


def create_image_variation(
    core: Core,
    image: ImageInput | CreateImageVariationRequest,
    *,
    model: str | None = None,
    n: int | None = None,
    size: str | None = None,
    response_format: str | None = None,
    user: str | None = None,
    extra_body: Mapping[str, Any] | None = None,
    extra_headers: Mapping[str, str | None] | None = None,
    save_to: SaveTo = None,
    cache: str | None = None,
    replica: int = 0,
    timeout_s: float | None = None,
) -> Flow[ImagesResponse]:
    """Make variations of a picture.

    Args:
        image: the picture to vary, as for `create_image_edit`; or a `CreateImageVariationRequest`.
        model, n, size, response_format, user, extra_body, extra_headers: see `CreateImageRequest`.
        save_to, cache, replica, timeout_s: as for `create_image`.

    Returns:
        The pictures and how they came about.

    Raises:
        InvalidRequestError: also for a picture that is missing, empty, cut off or no picture.
        NotFoundError: the server has no such endpoint (OpenAI retired its own in 2026).
        ImgkitError: otherwise as `create_image`.
    """
    request = _request(CreateImageVariationRequest, "image", image, locals())
    return (yield from _course(core, request, save_to, CacheUse.of(cache, replica), timeout_s))


def download(core: Core, image: Image, *, timeout_s: float | None = None) -> Flow[Image]:
    """Return the image with its bytes here, fetched from its URL if they are not yet.

    Args:
        image: of a reply of this service.
        timeout_s: seconds that fetching may take; the service's if None.

    Raises:
        DownloadError: blocked, expired, or failed; the URL is in ``image.url``.
    """
    if not isinstance(image, Image):
        raise InvalidRequestError({"image": f"is a {type(image).__name__}: give an image of a reply"})
    if timeout_s is not None:
        seconds("timeout_s", timeout_s)
    return (yield from results.here(core, image))


def fetch_url(core: Core, url: str, *, timeout_s: float | None = None) -> Flow[bytes]:
    """Return the bytes behind a result URL; what ``image.data`` runs under the synchronous service."""
    return (yield from downloading.fetch(core, url))


def _request(kind: type[Any], first: str, value: Any, given: Mapping[str, Any]) -> ImageRequest:
    """Return the checked request that a call's arguments make, or the one that was handed over."""
    names = [name for name in field_names(kind) if name in given]
    if isinstance(value, kind):
        beside = [name for name in names if name != first and given[name] is not None]
        if beside:
            raise InvalidRequestError(
                dict.fromkeys(beside, "goes into the request object: give the object or keywords, not both")
            )
        fields = {name: getattr(value, name) for name in field_names(kind)}
    else:
        fields = {name: given[name] for name in names}
    return _checked(kind, fields)


def _checked(kind: type[Any], fields: Mapping[str, Any]) -> ImageRequest:
    try:
        checked: ImageRequest = REQUEST_SCHEMAS[kind].read(
            {
                name: content
                for name, content in fields.items()
                if content is not None or name in ("image", "prompt")
            }
        )
    except SchemaError as error:
        raise InvalidRequestError(error.fields) from None
    return checked


def _course(
    core: Core, request: ImageRequest, save_to: SaveTo, use: CacheUse, timeout_s: float | None
) -> Flow[ImagesResponse]:
    """Run one operation with its events around it."""
    limit_s = core.limits.timeout_s if timeout_s is None else seconds("timeout_s", timeout_s)
    call = Call(
        id=uuid.uuid4().hex,
        operation=request.operation,
        backend=core.backend_name,
        provider=core.provider_name,
        base_url=core.target.base_url,
        host_class=core.target.host_class,
        timeout_s=limit_s,
    )
    course = Course(
        call=call,
        table=core.table,
        equipment=core.equipment,
        provider=core.provider,
        target=core.target,
        max_reply_bytes=core.limits.max_reply_bytes,
        deadline=time.monotonic() + limit_s,
        clock=time.monotonic,
    )
    with ExitStack() as cleanup:
        try:
            response = yield from _operation(core, course, request, save_to, use, cleanup)
        except ImgkitError as error:
            course.table.notify(Failed(error, shared=course.shared), call)
            raise
        except BaseException as error:  # closed from outside, or a bug: all must hear of it
            course.account.break_off(error)
            course.table.notify(Cancelled(maybe_billed=course.sent), call)
            raise
        course.table.notify(Succeeded(response), call)
        return response


def _operation(
    core: Core,
    course: Course,
    request: ImageRequest,
    save_to: SaveTo,
    use: CacheUse,
    cleanup: ExitStack,
) -> Flow[ImagesResponse]:
    began = course.clock()
    plan = save_to if save_to is None or isinstance(save_to, SavePlan) else SavePlan.of(save_to)
    if plan is not None:
        yield Run(plan.check, before_sending=True)
    prepared = course.table.prepare(request, course.call)
    if prepared is not request:  # plugins may do what users may, and no more
        request = _checked(
            type(request), {name: getattr(prepared, name) for name in field_names(type(request))}
        )
    core.provider.check(request, core.target)
    inputs = yield from _open(core, request, cleanup)
    wire_request = core.provider.encode(request, inputs, core.target)
    course.request = request
    course.table.notify(Started(), course.call)
    fetched = yield from fetch(core, course, wire_request, use, cleanup)
    response = results.response_of(core, course, request, inputs, fetched, began)
    try:
        if plan is not None:
            response = yield from results.save_all(core, response, plan)
    except ImgkitError as error:
        yield from kept(course, error, response)
        raise
    yield from settled(course, response)
    if course.account.problems:
        response = replace(response, warnings=(*response.warnings, *course.account.problems))
    return response


def _open(core: Core, request: ImageRequest, cleanup: ExitStack) -> Flow[OpenedInputs]:
    """Open the pictures of a request; those that are still at a URL are fetched first."""
    if isinstance(request, CreateImageRequest):
        return OpenedInputs()
    listed = request.image if isinstance(request.image, tuple) else (request.image,)
    wanted = [("image" if len(listed) == 1 else f"image.{index}", one) for index, one in enumerate(listed)]
    if isinstance(request, CreateImageEditRequest):
        wanted += [(name, one) for name in ("mask", "markup") if (one := getattr(request, name)) is not None]
    opened = {}
    for field, one in wanted:
        here = (yield from results.here(core, one)) if isinstance(one, Image) else one
        opened[field] = yield Run(partial(open_input, here, field, cleanup), before_sending=True)
    mask, markup = opened.pop("mask", None), opened.pop("markup", None)
    return OpenedInputs(tuple(opened.values()), mask, markup)
