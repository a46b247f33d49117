"""The plans of the streams: as those of the operations, but events are handed on while pictures are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal

from imgkit.answering import Answered, considered, most_at_once, noted, opened
from imgkit.call import Started
from imgkit.calls import SaveTo, begun, conducted, handed_over, planned, prepared
from imgkit.core import Core
from imgkit.errors import ConfigurationError, InvalidRequestError
from imgkit.exchange import Course, exchange
from imgkit.flow import Flow
from imgkit.inputs import Prepare, prepare_of
from imgkit.models import (
    CreateImageEditRequest,
    CreateImageRequest,
    ImageInput,
    ImageRequest,
    ImagesResponse,
)
from imgkit.operations import request_of
from imgkit.providers.base import StreamingProvider

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
    request = request_of(CreateImageRequest, "prompt", prompt, locals())
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
    request = request_of(CreateImageEditRequest, "image", image, locals())
    how = prepare_of(prepare)
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

    from imgkit.arrivals import Arrivals  # with all that reads events: only for calls that stream
    from imgkit.stream_exchange import read_events

    def work(course: Course, cleanup: ExitStack) -> Flow[ImagesResponse]:
        began = course.clock()
        plan = yield from planned(course, save_to, cleanup)
        more = {"stream": True, "partial_images": partial_images or 0}
        ready, model, warnings = considered(core, prepared(course, request), more)
        _check_count(ready, most_at_once(ready, core))
        with noted(warnings):
            inputs, told = yield from opened(core, ready, model, prepare, cleanup)
            warnings += told
            wire_request = provider.encode_stream(ready, inputs, core.target, partial_images)
            course.request = ready
            course.table.notify(Started(), course.call)
            arrivals = Arrivals(core, course, ready, inputs, plan, began, tuple(warnings))
            head, _ = yield from exchange(wire_request, course, partial(read_events, provider, arrivals))
        response = arrivals.response(head)
        return (yield from handed_over(core, Answered(response, ((course, response),)), plan))

    return (yield from conducted(begun(core, request, timeout_s, partial_images or 0), work))


def _check_count(request: ImageRequest, most: int | None) -> None:
    """Refuse more pictures than one request may ask for: a stream is one request."""
    if most is not None and (request.n or 1) > most:
        raise InvalidRequestError(
            {"n": f"one stream has at most {most}: ask for fewer, or use {request.operation}."}
        )
