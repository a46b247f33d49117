"""The images of a stream: hand its events on, collect its images, build its response."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Protocol

from imgkit.core.context import CallContext, FetchedImages
from imgkit.core.responses import build_response, load_into_memory, save_image
from imgkit.errors import ImgkitError
from imgkit.images.image import Image
from imgkit.images.inputs import OpenedInputs
from imgkit.images.part_files import PartFile
from imgkit.images.saving import SavePlan
from imgkit.models import Completed, ImageRequest, ImagesResponse, PartialImage, count_requested_images
from imgkit.providers.base import DecodedImage, DecodedImages, DecodedPartialImage
from imgkit.runtime.flow import EmitEvent, Flow, run_blocking
from imgkit.wire.messages import Head


class Collector(Protocol):
    """A receiver for the decoded events of a stream."""

    @property
    def images(self) -> tuple[Image, ...]:
        """The complete images, and the latest partial image of the unfinished one."""

    @property
    def decoded(self) -> DecodedImages:
        """All decoded events, merged."""

    @property
    def is_complete(self) -> bool:
        """Whether as many images are complete as the request asked for."""

    def handle(self, head: Head, decoded: DecodedPartialImage | DecodedImages) -> Flow[None]:
        """Receive the images of an event, or of a whole reply."""

    def warn(self, text: str) -> None:
        """Add a warning to the response."""


class StreamCollector:
    """Hands the events of one call on, and collects its images.

    Args:
        context: the call.
        request, inputs: the request as it was sent, and its opened inputs.
        plan: where complete images are saved before their events reach the caller.
        started: start of the call in monotonic seconds.
        warnings: warnings about the request.
    """

    def __init__(
        self,
        context: CallContext,
        request: ImageRequest,
        inputs: OpenedInputs,
        plan: SavePlan | None,
        started: float,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self._context = context
        self._request = request
        self._inputs = inputs
        self._plan = plan
        self._started = started
        self._expected = count_requested_images(request)
        self._decoded = DecodedImages(pictures=(), warnings=warnings)
        self._complete: list[Image] = []
        self._partial: Image | None = None
        self._partial_count = 0

    @property
    def images(self) -> tuple[Image, ...]:
        """The complete images, and the latest partial image of the unfinished one."""
        return (*self._complete, *([self._partial] if self._partial else []))

    @property
    def decoded(self) -> DecodedImages:
        """All decoded events, merged."""
        return self._decoded

    @property
    def is_complete(self) -> bool:
        """Whether as many images are complete as the request asked for."""
        return len(self._complete) >= self._expected

    def handle(self, head: Head, decoded: DecodedPartialImage | DecodedImages) -> Flow[None]:
        """Hand on the images of an event, or of a whole reply."""
        if isinstance(decoded, DecodedPartialImage):
            yield from self._handle_partial(head, decoded)
            return
        self._decoded = _merge_decoded(self._decoded, decoded)
        for number in range(len(decoded.pictures)):
            yield from self._handle_complete(head, decoded, last=number == len(decoded.pictures) - 1)

    def build_response(self, head: Head) -> ImagesResponse:
        """Return the response with the images that are complete so far."""
        return replace(self._build(head, self._decoded), images=tuple(self._complete))

    def warn(self, text: str) -> None:
        """Add a warning to the response."""
        self._decoded = replace(self._decoded, warnings=(*self._decoded.warnings, text))

    def _handle_partial(self, head: Head, decoded: DecodedPartialImage) -> Flow[None]:
        index = self._partial_count if decoded.index is None else decoded.index
        if isinstance(decoded.source, PartFile):
            decoded.source.share()
        decoded_image = DecodedImage(data=decoded.data, source=decoded.source)
        (image,) = self._build(head, DecodedImages(pictures=(decoded_image,))).images
        self._partial = replace(
            image, index=len(self._complete), about={**image.about, "partial_image_index": index}
        )
        self._partial_count += 1
        yield from self._emit(PartialImage(index, self._partial))

    def _handle_complete(self, head: Head, decoded: DecodedImages, *, last: bool) -> Flow[None]:
        so_far = self._build(head, self._decoded)
        image = so_far.images[len(self._complete)]
        if self._plan is not None and image.url is None:  # images at URLs are fetched after the stream
            count = max(self._expected, len(so_far.images))
            try:
                image = yield from run_blocking(partial(save_image, image, self._plan, count))
            except ImgkitError as error:  # saved again after the stream
                image = yield from run_blocking(partial(load_into_memory, image))
                self.warn(f"An image could not be saved before its event: {error}")
        self._complete.append(image)
        self._partial, self._partial_count = None, 0
        if self.is_complete and last and (self._plan is None or all(image.path for image in self._complete)):
            self._context.response = self.build_response(head)
        yield from self._emit(
            Completed(
                image,
                usage=decoded.usage,
                created=decoded.created,
                background=decoded.background,
                output_format=decoded.output_format,
                size=decoded.size,
                quality=decoded.quality,
                extra=decoded.extra,
                meta=so_far.meta,
            )
        )

    def _emit(self, event: PartialImage | Completed) -> Flow[None]:
        self._context.emitted = True
        yield EmitEvent(event)

    def _build(self, head: Head, decoded: DecodedImages) -> ImagesResponse:
        fetched = FetchedImages(head, decoded)
        return build_response(self._context, self._request, self._inputs, fetched, self._started)


class ResultCollector:
    """Collects the images of a stream that answers a call without a stream. It emits no event.

    Args:
        context: the call.
    """

    def __init__(self, context: CallContext) -> None:
        self._context = context
        self._head = Head(200, {})
        self._started = time.monotonic()
        self._decoded = DecodedImages(pictures=())
        self._partial: DecodedImage | None = None

    @property
    def images(self) -> tuple[Image, ...]:
        """The complete images, and the latest partial image of the unfinished one."""
        images = (*self._decoded.pictures, *([self._partial] if self._partial else []))
        for image in images:
            if isinstance(image.source, PartFile):
                image.source.share()
        fetched = FetchedImages(self._head, replace(self._decoded, pictures=images))
        context = self._context
        return build_response(context, context.request, OpenedInputs(), fetched, self._started).images

    @property
    def decoded(self) -> DecodedImages:
        """All decoded events, merged."""
        return self._decoded

    @property
    def is_complete(self) -> bool:
        """Whether as many images are complete as the request asked for."""
        return len(self._decoded.pictures) >= count_requested_images(self._context.request)

    def handle(self, head: Head, decoded: DecodedPartialImage | DecodedImages) -> Flow[None]:
        """Keep the images of an event, or of a whole reply."""
        self._head = head
        if isinstance(decoded, DecodedPartialImage):
            self._partial = DecodedImage(data=decoded.data, source=decoded.source)
        else:
            self._decoded = _merge_decoded(self._decoded, decoded)
            self._partial = None if decoded.pictures else self._partial
        return
        yield  # makes this method a flow

    def warn(self, text: str) -> None:
        """Add a warning to the response."""
        self._decoded = replace(self._decoded, warnings=(*self._decoded.warnings, text))


def _merge_decoded(before: DecodedImages, decoded: DecodedImages) -> DecodedImages:
    """Merge a decoded event with those before it. The later value wins."""
    return replace(
        before,
        **{
            name: value if (value := getattr(decoded, name)) is not None else getattr(before, name)
            for name in ("created", "usage", "background", "output_format", "size", "quality", "cost")
        },
        pictures=(*before.pictures, *decoded.pictures),
        warnings=(*before.warnings, *decoded.warnings),
        damaged=before.damaged or decoded.damaged,
        extra={**before.extra, **decoded.extra},
    )
