"""The operations: signatures and documentation, written once for both services.

A method makes the flow of its call. `imgkit.service` runs it: blocking, or in the caller's task.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal

from imgkit.core.config import check_seconds
from imgkit.core.context import SaveTo
from imgkit.core.core import Core
from imgkit.core.lifecycle import run_call
from imgkit.core.responses import ensure_downloaded
from imgkit.core.signatures import operation
from imgkit.core.stream_operations import ImageT as ImageT
from imgkit.core.stream_operations import ResponseT as ResponseT
from imgkit.core.stream_operations import StreamOperations
from imgkit.core.stream_operations import StreamT as StreamT
from imgkit.errors import InvalidRequestError
from imgkit.images.image import Image
from imgkit.models import (
    CreateImageEditRequest,
    CreateImageRequest,
    CreateImageVariationRequest,
    ImageInput,
    ImagesResponse,
)
from imgkit.runtime.flow import Flow
from imgkit.wire.plain_values import has_type, type_name


class ImageOperations(StreamOperations[ResponseT, StreamT, ImageT]):
    """The operations of a service.

    The type variables are what callers get: an `ImagesResponse` or an awaitable of it, and so on.
    """

    @abstractmethod
    def _run_flow(self, flow: Flow[ImagesResponse], timeout_s: object) -> ResponseT:
        """Run the flow of a call."""

    @abstractmethod
    def _run_download(self, flow: Flow[Image], timeout_s: object) -> ImageT:
        """Run the flow of a download."""

    @operation
    def create_image(
        self,
        prompt: str | CreateImageRequest,
        *,
        model: str | None = None,
        n: int | None = None,
        size: str | None = None,
        aspect_ratio: str | None = None,
        resolution: str | None = None,
        seed: int | None = None,
        negative_prompt: str | None = None,
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
        svg: Mapping[str, object] | None = None,
        safety_identifier: str | None = None,
        user: str | None = None,
        model_options: Mapping[str, object] | None = None,
        extra_body: Mapping[str, object] | None = None,
        extra_headers: Mapping[str, str | None] | None = None,
        save_to: SaveTo = None,
        cache: str | None = None,
        replica: int = 0,
        timeout_s: float | None = None,
    ) -> ResponseT:
        """Create images from a prompt.

        >>> from imgkit import ImageService
        >>> with ImageService() as images:
        ...     response = images.create_image("A cute baby sea otter", size="256x256", n=2)
        >>> len(response), response[0].width
        (2, 256)

        Args:
            prompt: description of the images, or a `CreateImageRequest`, which excludes other fields.
            model, n, size, aspect_ratio, resolution, seed, negative_prompt, quality, background,
                output_format, output_compression, moderation, response_format, style, complexity,
                frame_count, frame_duration_ms, svg, safety_identifier, user, model_options, extra_body,
                extra_headers: fields of `CreateImageRequest`. A field that is None is not sent.
            save_to: file, folder, or pattern such as ``"out/{index}-{slug}.{ext}"`` for the images.
                It is checked before anything is sent; existing files are never overwritten.
            cache: with a cache plugin, "use" (the default) reads and writes entries, "refresh"
                replaces them, "only" sends nothing, "off" bypasses the cache.
            replica: number of an additional image for an equal request, 0 for the first.
            timeout_s: seconds that the whole call may take, None for the service's limit.

        Returns:
            An `ImagesResponse`: the images, their cost, and how they came about.

        Raises:
            InvalidRequestError, ConfigurationError: nothing was sent.
            NotSentError: nothing can have been billed.
            OutcomeUnknownError, UnreadableReplyError, EmptyResultError: the call may have been billed.
            ApiError: the API refused the request or failed.
            CacheMissError: ``cache="only"``, and the cache has no entry; nothing was sent.
            SaveError: the images arrived but could not be saved; they are in ``error.response``.
        """
        return self._run_flow(run_call(self._core, CreateImageRequest, prompt, locals()), timeout_s)

    @operation
    def create_image_edit(
        self,
        image: ImageInput | Sequence[ImageInput] | CreateImageEditRequest,
        prompt: str | None = None,
        *,
        mask: ImageInput | None = None,
        markup: ImageInput | None = None,
        model: str | None = None,
        n: int | None = None,
        size: str | None = None,
        aspect_ratio: str | None = None,
        resolution: str | None = None,
        seed: int | None = None,
        negative_prompt: str | None = None,
        quality: str | None = None,
        background: str | None = None,
        output_format: str | None = None,
        output_compression: int | None = None,
        input_fidelity: str | None = None,
        response_format: str | None = None,
        complexity: str | None = None,
        frame_count: int | None = None,
        frame_duration_ms: int | None = None,
        svg: Mapping[str, object] | None = None,
        safety_identifier: str | None = None,
        user: str | None = None,
        model_options: Mapping[str, object] | None = None,
        extra_body: Mapping[str, object] | None = None,
        extra_headers: Mapping[str, str | None] | None = None,
        prepare: Literal["check", "fit"] | None = None,
        save_to: SaveTo = None,
        cache: str | None = None,
        replica: int = 0,
        timeout_s: float | None = None,
    ) -> ResponseT:
        """Edit images as a prompt says.

        >>> from imgkit import ImageService
        >>> with ImageService() as images:
        ...     otter = images.create_image("A cute baby sea otter", size="256x256")
        ...     beret = images.create_image_edit(otter[0], "wearing a beret")
        >>> beret.meta.operation
        'create_image_edit'

        Args:
            image: the image to edit, or up to 16: paths, bytes, open binary files, Pillow images,
                images of earlier responses, ``data:`` URLs; or a `CreateImageEditRequest`.
            prompt: the change; required unless a request object is given.
            mask: PNG with the size of the first image; the transparent area is edited.
            markup: transparent PNG drawn over the first image to show the change; excludes `mask`.
            input_fidelity: "high" or "low".
            model, n, size, aspect_ratio, resolution, seed, negative_prompt, quality, background,
                output_format, output_compression, response_format, complexity, frame_count,
                frame_duration_ms, svg, safety_identifier, user, model_options, extra_body,
                extra_headers: fields of `CreateImageRequest`.
            prepare: "fit" makes inputs fit the model: it converts, rotates, shrinks and pads them, and
                the mask along with the first. "check" refuses inputs that do not fit.
                ``response.warnings`` lists the changes.
            save_to, cache, replica, timeout_s: as for `create_image`.

        Returns:
            An `ImagesResponse`: the images, their cost, and how they came about.

        Raises:
            InvalidRequestError: also for an input that is missing, empty, truncated or no image.
            ImgkitError: otherwise as `create_image`.
        """
        return self._run_flow(run_call(self._core, CreateImageEditRequest, image, locals()), timeout_s)

    @operation
    def create_image_variation(
        self,
        image: ImageInput | CreateImageVariationRequest,
        *,
        model: str | None = None,
        n: int | None = None,
        size: str | None = None,
        aspect_ratio: str | None = None,
        resolution: str | None = None,
        seed: int | None = None,
        negative_prompt: str | None = None,
        response_format: str | None = None,
        user: str | None = None,
        model_options: Mapping[str, object] | None = None,
        extra_body: Mapping[str, object] | None = None,
        extra_headers: Mapping[str, str | None] | None = None,
        strategy: Literal["auto", "native", "emulate"] = "auto",
        variation_prompt: str | None = None,
        prepare: Literal["check", "fit"] | None = None,
        save_to: SaveTo = None,
        cache: str | None = None,
        replica: int = 0,
        timeout_s: float | None = None,
    ) -> ResponseT:
        """Create variations of an image.

        >>> from imgkit import ImageService
        >>> with ImageService() as images:
        ...     otter = images.create_image("A cute baby sea otter", size="256x256")
        ...     three = images.create_image_variation(otter[0], n=3)
        >>> len(three), three.meta.emulated
        (3, False)

        Args:
            image: the image to vary, as for `create_image_edit`; or a `CreateImageVariationRequest`.
            model, n, size, aspect_ratio, resolution, seed, negative_prompt, response_format, user,
                model_options, extra_body, extra_headers: fields of `CreateImageRequest`.
            strategy: "native" uses the server's own operation. "emulate" asks for an edit with a prompt
                for variations. "auto" is native, and emulates where the host lacks the operation or
                answers 404 or 405. ``response.meta.emulated`` tells which one it was.
            variation_prompt: prompt of the emulating edit, None for imgkit's own.
            prepare: as for `create_image_edit`.
            save_to, cache, replica, timeout_s: as for `create_image`.

        Returns:
            An `ImagesResponse`: the images, their cost, and how they came about.

        Raises:
            InvalidRequestError: also for an input that is missing, empty, truncated or no image.
            EndpointRetiredError: "native", and the host is known to lack the operation; nothing was
                sent.
            NotFoundError: "native", and the server lacks the operation.
            ImgkitError: otherwise as `create_image`.
        """
        return self._run_flow(run_call(self._core, CreateImageVariationRequest, image, locals()), timeout_s)

    @operation
    def download(self, image: Image, *, timeout_s: float | None = None) -> ImageT:
        """Return an image with its bytes, fetched from its URL if necessary.

        >>> from imgkit import ImageService
        >>> with ImageService() as images:
        ...     otter = images.create_image("A cute baby sea otter", response_format="url")
        ...     image = images.download(otter[0])
        >>> len(image.data) > 1000
        True

        Args:
            image: an image of a response of this service.
            timeout_s: seconds that the download may take, None for the service's limit.

        Raises:
            DownloadError: the URL was refused, has expired, or could not be fetched; it is in
                ``image.url``.
        """
        return self._run_download(_download(self._core, image, timeout_s), timeout_s)


def _download(core: Core, image: Image, timeout_s: float | None) -> Flow[Image]:
    if not has_type(image, Image):
        raise InvalidRequestError({"image": f"A {type_name(image)} is no image. Give one of a response."})
    limit_s = core.limits.timeout_s if timeout_s is None else check_seconds("timeout_s", timeout_s)
    return (yield from ensure_downloaded(core, image, time.monotonic() + limit_s))


class OperationFlows(ImageOperations[Flow[ImagesResponse], Flow[ImagesResponse], Flow[Image]]):
    """The operations as bare flows, for dry runs and for tests that step a call by hand.

    Args:
        core: parts of a service.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    def _run_flow(self, flow: Flow[ImagesResponse], timeout_s: object) -> Flow[ImagesResponse]:
        return flow

    def _open_stream(self, flow: Flow[ImagesResponse], timeout_s: object) -> Flow[ImagesResponse]:
        return flow

    def _run_download(self, flow: Flow[Image], timeout_s: object) -> Flow[Image]:
        return flow
