"""The plans of the operations: what happens between the user's call and the pictures.

Each plan is a generator of needs (see `imgkit.runtime.flow`). `imgkit.service` binds them to the synchronous
and the asynchronous service, so signatures, descriptions and behaviour of the two cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal

from imgkit.core import download as downloading
from imgkit.core import responses as results
from imgkit.core.config import Core, check_seconds
from imgkit.core.context import CacheUse
from imgkit.core.lifecycle import (
    CallOptions,
    SaveTo,
    apply_prepare_hooks,
    conducted,
    deliver,
    open_save_plan,
    run_call,
    start_call,
)
from imgkit.core.pipeline import (
    DispatchResult,
    attach_warnings_to_errors,
    most_at_once,
    open_inputs,
    validate_for_model,
)
from imgkit.core.send import CallContext, send_with_retries
from imgkit.core.variations import parse_strategy
from imgkit.errors import ConfigurationError, InvalidRequestError
from imgkit.images.image import Image
from imgkit.images.inputs import Prepare, parse_prepare
from imgkit.models import (
    CreateImageEditRequest,
    CreateImageRequest,
    CreateImageVariationRequest,
    ImageInput,
    ImageRequest,
    ImagesResponse,
    field_names,
)
from imgkit.plugins.events import Started
from imgkit.providers.base import StreamingProvider
from imgkit.runtime.flow import Flow
from imgkit.schemas.requests import validate_request


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
    request = build_request(CreateImageRequest, "prompt", prompt, locals())
    wish = CallOptions(save_to=save_to, use=CacheUse.of(cache, replica), timeout_s=timeout_s)
    return (yield from run_call(core, request, wish))


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
    prepare: Literal["check", "fit"] | None = None,
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
        prepare: "fit" makes pictures fit what the model takes: converts, turns, shrinks and pads them, the
            mask along with the first; "check" refuses what would need it. What was done is in
            ``reply.warnings``.
        save_to, cache, replica, timeout_s: as for `create_image`.

    Returns:
        The pictures and how they came about.

    Raises:
        InvalidRequestError: also for a picture that is missing, empty, cut off or no picture.
        ImgkitError: otherwise as `create_image`.
    """
    request = build_request(CreateImageEditRequest, "image", image, locals())
    wish = CallOptions(
        save_to=save_to,
        use=CacheUse.of(cache, replica),
        timeout_s=timeout_s,
        prepare=parse_prepare(prepare),
    )
    return (yield from run_call(core, request, wish))


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
    strategy: Literal["auto", "native", "emulate"] = "auto",
    variation_prompt: str | None = None,
    prepare: Literal["check", "fit"] | None = None,
    save_to: SaveTo = None,
    cache: str | None = None,
    replica: int = 0,
    timeout_s: float | None = None,
) -> Flow[ImagesResponse]:
    """Make variations of a picture.

    Args:
        image: the picture to vary, as for `create_image_edit`; or a `CreateImageVariationRequest`.
        model, n, size, response_format, user, extra_body, extra_headers: see `CreateImageRequest`.
        strategy: "native": by the server's own operation; "emulate": by an edit with a prompt that asks for
            variations; "auto": natively, and by an edit where the host is known not to have the operation, or
            answers 404 or 405. ``reply.meta.emulated`` tells which it was.
        variation_prompt: of that edit, instead of imgkit's own; it is in ``reply.meta.emulation_prompt``.
        prepare: as for `create_image_edit`.
        save_to, cache, replica, timeout_s: as for `create_image`.

    Returns:
        The pictures and how they came about.

    Raises:
        InvalidRequestError: also for a picture that is missing, empty, cut off or no picture.
        EndpointRetiredError: "native", and the host is known not to have the operation; nothing was sent.
        NotFoundError: "native", and the server does not have it.
        ImgkitError: otherwise as `create_image`.
    """
    request = build_request(CreateImageVariationRequest, "image", image, locals())
    wish = CallOptions(
        save_to=save_to,
        use=CacheUse.of(cache, replica),
        timeout_s=timeout_s,
        strategy=parse_strategy(strategy),
        variation_prompt=variation_prompt,
        prepare=parse_prepare(prepare),
    )
    return (yield from run_call(core, request, wish))


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
        check_seconds("timeout_s", timeout_s)
    return (yield from results.ensure_downloaded(core, image))


def fetch_url(core: Core, url: str, *, timeout_s: float | None = None) -> Flow[bytes]:
    """Return the bytes behind a result URL; what ``image.data`` runs under the synchronous service."""
    return (yield from downloading.fetch(core, url))


def build_request(kind: type[Any], first: str, value: Any, given: Mapping[str, Any]) -> ImageRequest:
    """Return the checked request that a call's arguments make, or the one that was handed over."""
    names = field_names(kind)
    if isinstance(value, kind):
        beside = [name for name in names if name != first and given.get(name) is not None]
        if beside:
            raise InvalidRequestError(
                dict.fromkeys(beside, "goes into the request object: give the object or keywords, not both")
            )
        fields = {name: getattr(value, name) for name in names}
    else:
        fields = {name: given.get(name) for name in names}
    made: ImageRequest = validate_request(kind, fields)
    return made


MOST_PARTIAL_IMAGES = 3
"""Partial pictures of one request (API reference of images/generations, 2026-11-23)."""


def stream_image(
    core: Core,
    prompt: str | CreateImageRequest,
    *,
    partial_images: int | None = None,
    model: str | None = None,
    n: int | None = None,
    size: str | None = None,
    quality: str | None = None,
    background: str | None = None,
    output_format: str | None = None,
    output_compression: int | None = None,
    moderation: str | None = None,
    complexity: str | None = None,
    safety_identifier: str | None = None,
    user: str | None = None,
    extra_body: Mapping[str, Any] | None = None,
    extra_headers: Mapping[str, str | None] | None = None,
    save_to: SaveTo = None,
    timeout_s: float | None = None,
) -> Flow[ImagesResponse]:
    """Create pictures from a prompt, and get partial ones while they are made.

    The result is a context manager over events: ``with images.stream_image(…) as events:`` and then ``for
    event in events:`` (``async with`` and ``async for`` under `AsyncImageService`). Nothing is sent before
    the first event is asked for; leaving the context closes the connection.

    Args:
        prompt: what to draw; or a whole `CreateImageRequest`, which goes alone.
        partial_images: how many partial pictures are wanted, 0 to 3. Fewer may come; they cost tokens.
        model, n, size, quality, background, output_format, output_compression, moderation, complexity,
        safety_identifier, user, extra_body, extra_headers: see `CreateImageRequest`.
        save_to: as for `create_image`: where complete pictures are saved, before their events come.
        timeout_s: seconds that the stream may take in all, what its caller does included; the service's if
            None.

    Returns:
        `PartialImage` and `Completed` events; what `create_image` would return is their stream's `response`.

    Raises:
        InvalidRequestError, ConfigurationError: nothing was sent.
        NotSentError: nothing can have been billed.
        OutcomeUnknownError: the stream was cut and may have been billed; pictures so far are in its `images`.
        StreamError: the stream ended before a picture was complete; or it is not used as a context manager.
        ApiError: the API refused, or failed in the midst of the stream.
        UnreadableReplyError, EmptyResultError: it may have been billed.
        SaveError: the pictures came and could not be written; they are in ``error.response``.
    """
    request = build_request(CreateImageRequest, "prompt", prompt, locals())
    return (yield from _stream(core, request, partial_images, save_to, timeout_s))


def stream_image_edit(
    core: Core,
    image: ImageInput | Sequence[ImageInput] | CreateImageEditRequest,
    prompt: str | None = None,
    *,
    mask: ImageInput | None = None,
    markup: ImageInput | None = None,
    partial_images: int | None = None,
    model: str | None = None,
    n: int | None = None,
    size: str | None = None,
    quality: str | None = None,
    background: str | None = None,
    output_format: str | None = None,
    output_compression: int | None = None,
    input_fidelity: str | None = None,
    complexity: str | None = None,
    safety_identifier: str | None = None,
    user: str | None = None,
    extra_body: Mapping[str, Any] | None = None,
    extra_headers: Mapping[str, str | None] | None = None,
    prepare: Literal["check", "fit"] | None = None,
    save_to: SaveTo = None,
    timeout_s: float | None = None,
) -> Flow[ImagesResponse]:
    """Change pictures as a prompt says, and get partial ones while they are made.

    Args:
        image, prompt, mask, markup, input_fidelity: as for `create_image_edit`.
        partial_images: how many partial pictures are wanted, 0 to 3. Fewer may come; they cost tokens.
        model, n, size, quality, background, output_format, output_compression, complexity, safety_identifier,
        user, extra_body, extra_headers: see `CreateImageRequest`; what is None is not sent.
        prepare: as for `create_image_edit`.
        save_to, timeout_s: as for `stream_image`.

    Returns:
        `PartialImage` and `Completed` events; what `create_image_edit` would return is their stream's
        `response`.

    Raises:
        InvalidRequestError: also for a picture that is missing, empty, cut off or no picture.
        ImgkitError: otherwise as `stream_image`.
    """
    request = build_request(CreateImageEditRequest, "image", image, locals())
    how = parse_prepare(prepare)
    return (yield from _stream(core, request, partial_images, save_to, timeout_s, how))


def _stream(
    core: Core,
    request: ImageRequest,
    partial_images: int | None,
    save_to: SaveTo,
    timeout_s: float | None,
    prepare: Prepare | None = None,
) -> Flow[ImagesResponse]:
    """Run one operation as a stream."""
    provider = core.provider
    if not isinstance(provider, StreamingProvider):
        raise ConfigurationError(
            f"provider {core.provider_name} does not stream: use {request.operation}, or another provider"
        )
    if partial_images is not None and (
        type(partial_images) is not int or not 0 <= partial_images <= MOST_PARTIAL_IMAGES
    ):
        problem = f"must be a whole number from 0 to {MOST_PARTIAL_IMAGES}."
        raise InvalidRequestError({"partial_images": problem})

    from imgkit.core.stream import (
        StreamCollector,  # with all that reads events: only for calls that stream
        read_events,
    )

    def work(course: CallContext, cleanup: ExitStack) -> Flow[ImagesResponse]:
        began = course.clock()
        plan = yield from open_save_plan(course, save_to, cleanup)
        more = {"stream": True, "partial_images": partial_images or 0}
        ready, model, warnings = validate_for_model(core, apply_prepare_hooks(course, request), more)
        _check_count(ready, most_at_once(ready, core))
        with attach_warnings_to_errors(warnings):
            inputs, told = yield from open_inputs(core, ready, model, prepare, cleanup)
            warnings += told
            wire_request = provider.encode_stream(ready, inputs, core.target, partial_images)
            course.request = ready
            course.table.notify(Started(), course.call)
            arrivals = StreamCollector(core, course, ready, inputs, plan, began, tuple(warnings))
            head, _ = yield from send_with_retries(
                wire_request, course, partial(read_events, provider, arrivals)
            )
        response = arrivals.response(head)
        return (yield from deliver(core, DispatchResult(response, ((course, response),)), plan))

    return (yield from conducted(start_call(core, request, timeout_s, partial_images or 0), work))


def _check_count(request: ImageRequest, most: int | None) -> None:
    """Refuse more pictures than one request may ask for: a stream is one request."""
    if most is not None and (request.n or 1) > most:
        raise InvalidRequestError(
            {"n": f"one stream has at most {most}: ask for fewer, or use {request.operation}."}
        )
