"""The operations that stream: signatures and documentation, written once for both services."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, Literal, TypeVar

from imgkit.core.context import SaveTo
from imgkit.core.core import Core
from imgkit.core.signatures import operation
from imgkit.models import CreateImageEditRequest, CreateImageRequest, ImageInput, ImagesResponse
from imgkit.runtime.flow import Flow

ResponseT = TypeVar("ResponseT")
StreamT = TypeVar("StreamT")
ImageT = TypeVar("ImageT")


class StreamOperations(ABC, Generic[ResponseT, StreamT, ImageT]):
    """The operations of a service that yield events.

    It has the type variables of `ImageOperations`: editors follow no others.
    """

    _core: Core

    @abstractmethod
    def _open_stream(self, flow: Flow[ImagesResponse], timeout_s: object) -> StreamT:
        """Return the events of a flow as a context manager."""

    @operation
    def stream_image(
        self,
        prompt: str | CreateImageRequest,
        *,
        partial_images: int | None = None,
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
        complexity: str | None = None,
        safety_identifier: str | None = None,
        user: str | None = None,
        model_options: Mapping[str, object] | None = None,
        extra_body: Mapping[str, object] | None = None,
        extra_headers: Mapping[str, str | None] | None = None,
        save_to: SaveTo = None,
        timeout_s: float | None = None,
    ) -> StreamT:
        """Create images from a prompt and receive partial images while the server draws.

        >>> from imgkit import Completed, ImageService, PartialImage
        >>> with ImageService() as images:
        ...     with images.stream_image("a fox", size="256x256", partial_images=2) as events:
        ...         kinds = [type(event).__name__ for event in events]
        >>> kinds
        ['PartialImage', 'PartialImage', 'Completed']

        The result is a context manager over events (``async with`` and ``async for`` under
        `AsyncImageService`). The first request for an event sends the call; leaving the context closes
        the connection.

        Args:
            prompt: description of the images, or a `CreateImageRequest`, which excludes other fields.
            partial_images: number of partial images, 0 to 3. The server may send fewer.
            model, n, size, aspect_ratio, resolution, seed, negative_prompt, quality, background,
                output_format, output_compression, moderation, complexity, safety_identifier, user,
                model_options, extra_body, extra_headers: fields of `CreateImageRequest`.
            save_to: as for `create_image`. A complete image is saved before its event.
            timeout_s: seconds that the whole stream may take, pauses of its caller included; None for
                the service's limit.

        Returns:
            `PartialImage` and `Completed` events. The stream's ``response`` is what `create_image`
            would return.

        Raises:
            InvalidRequestError, ConfigurationError: nothing was sent.
            NotSentError: nothing can have been billed.
            OutcomeUnknownError: the connection broke and the call may have been billed;
                ``error.images`` has the images that arrived.
            StreamError: the stream ended before an image was complete, or was used without ``with``.
            ApiError: the API refused the request, or failed during the stream.
            UnreadableReplyError, EmptyResultError: the call may have been billed.
            SaveError: the images arrived but could not be saved; they are in ``error.response``.
        """
        from imgkit.core.stream import run_stream  # only streams load the code that reads events

        return self._open_stream(run_stream(self._core, CreateImageRequest, prompt, locals()), timeout_s)

    @operation
    def stream_image_edit(
        self,
        image: ImageInput | Sequence[ImageInput] | CreateImageEditRequest,
        prompt: str | None = None,
        *,
        mask: ImageInput | None = None,
        markup: ImageInput | None = None,
        partial_images: int | None = None,
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
        complexity: str | None = None,
        safety_identifier: str | None = None,
        user: str | None = None,
        model_options: Mapping[str, object] | None = None,
        extra_body: Mapping[str, object] | None = None,
        extra_headers: Mapping[str, str | None] | None = None,
        prepare: Literal["check", "fit"] | None = None,
        save_to: SaveTo = None,
        timeout_s: float | None = None,
    ) -> StreamT:
        """Edit images and receive partial images while the server draws.

        >>> from imgkit import ImageService
        >>> with ImageService() as images:
        ...     otter = images.create_image("A cute baby sea otter", size="256x256")
        ...     with images.stream_image_edit(otter[0], "wearing a beret") as events:
        ...         last = list(events)[-1]
        >>> last.image.format
        'png'

        Args:
            image, prompt, mask, markup, input_fidelity: as for `create_image_edit`.
            partial_images: number of partial images, 0 to 3. The server may send fewer.
            model, n, size, aspect_ratio, resolution, seed, negative_prompt, quality, background,
                output_format, output_compression, complexity, safety_identifier, user, model_options,
                extra_body, extra_headers: fields of `CreateImageRequest`.
            prepare: as for `create_image_edit`.
            save_to, timeout_s: as for `stream_image`.

        Returns:
            `PartialImage` and `Completed` events. The stream's ``response`` is what
            `create_image_edit` would return.

        Raises:
            InvalidRequestError: also for an input that is missing, empty, truncated or no image.
            ImgkitError: otherwise as `stream_image`.
        """
        from imgkit.core.stream import run_stream  # only streams load the code that reads events

        return self._open_stream(run_stream(self._core, CreateImageEditRequest, image, locals()), timeout_s)
