"""Planted bugs of providers: each is OpenAI's provider with a single mistake in streams."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import imgkit
from imgkit.providers import (
    DecodedImage,
    DecodedImages,
    DecodedPartialImage,
    Head,
    HttpRequest,
    OpenAIProvider,
    OpenedInputs,
    Target,
)
from tests.testing.planted_bugs import plant, without


@plant("test_decodes_events", "An event with a partial image becomes 1 complete image")
class CountsPartialImagesAsComplete(OpenAIProvider):
    """The stream ends with a sketch, and the image that was paid for is lost."""

    def decode_event(self, *arguments: Any, **options: Any) -> Any:
        decoded = super().decode_event(*arguments, **options)
        if isinstance(decoded, DecodedPartialImage):
            return DecodedImages(pictures=(DecodedImage(data=decoded.data),))
        return decoded


@plant("test_decodes_events", "An event with a complete image becomes nothing")
class LosesCompleteImages(OpenAIProvider):
    """The call fails although its image has come."""

    def decode_event(self, *arguments: Any, **options: Any) -> Any:
        decoded = super().decode_event(*arguments, **options)
        return None if isinstance(decoded, DecodedImages) else decoded


@plant("test_decodes_events", r"\[DONE\] never reaches decode_event")
class WaitsForDone(OpenAIProvider):
    """Many servers send no [DONE]."""

    complete: Any = None

    def decode_event(self, head: Head, data: Any, target: Target, secrets: Any = ()) -> Any:
        if data.raw().startswith(b"[DONE]"):
            return self.complete
        decoded = super().decode_event(head, data, target, secrets)
        if isinstance(decoded, DecodedImages):
            self.complete = decoded
            return None
        return decoded


@plant("test_decodes_events", "The index of a partial image is 0, not 1")
class LosesIndex(OpenAIProvider):
    """A later sketch is saved over an earlier one."""

    def decode_event(self, *arguments: Any, **options: Any) -> Any:
        decoded = super().decode_event(*arguments, **options)
        return replace(decoded, index=0) if isinstance(decoded, DecodedPartialImage) else decoded


@plant("test_error_events", "An event with an error becomes nothing")
class IgnoresErrorEvents(OpenAIProvider):
    """The call waits for its deadline, and hides the reason."""

    def decode_event(self, head: Head, data: Any, target: Target, secrets: Any = ()) -> Any:
        try:
            return super().decode_event(head, data, target, secrets)
        except imgkit.ApiError:
            return None


@plant("test_skips_other_events", "raises UnreadableReplyError.*an image may follow")
class RejectsUnknownEvents(OpenAIProvider):
    """The next version of the API ends every stream with an error."""

    def decode_event(self, head: Head, data: Any, target: Target, secrets: Any = ()) -> Any:
        decoded = super().decode_event(head, data, target, secrets)
        if decoded is None:
            raise imgkit.UnreadableReplyError("The type of the event is unknown.")
        return decoded


@plant("test_events_without_images", "decode_event.. raises .*No builtin exception")
class ExpectsObjectsInEvents(OpenAIProvider):
    """An odd event ends the stream with a traceback."""

    def decode_event(self, head: Head, data: Any, target: Target, secrets: Any = ()) -> Any:
        data.json().get("type")
        return super().decode_event(head, data, target, secrets)


@plant("test_truncated_events", "becomes nothing.*Raise an UnreadableReplyError")
class SkipsTruncatedEvents(OpenAIProvider):
    """A stream that is cut off in its last event ends without a reason."""

    def decode_event(self, head: Head, data: Any, target: Target, secrets: Any = ()) -> Any:
        try:
            return super().decode_event(head, data, target, secrets)
        except imgkit.UnreadableReplyError:
            return None


@plant("test_error_events_hide_keys", "repeats the key")
class DropsSecretsInEvents(OpenAIProvider):
    """The key stands in the log of the app."""

    def decode_event(self, head: Head, data: Any, target: Target, secrets: Any = ()) -> Any:
        return super().decode_event(head, data, target)


@plant("test_reads_usage_of_events", "The server reports")
class LosesUsageOfEvents(OpenAIProvider):
    """The cost of a stream is unknown."""

    def decode_event(self, *arguments: Any, **options: Any) -> Any:
        decoded = super().decode_event(*arguments, **options)
        return replace(decoded, usage=None) if isinstance(decoded, DecodedImages) else decoded


@plant("test_encodes_streaming_requests", "URL and body ask for no stream")
class AsksForNoStream(OpenAIProvider):
    """The caller waits for the whole image, and sees no sketch."""

    def encode_stream(
        self, request: Any, inputs: OpenedInputs, target: Target, partial_images: Any
    ) -> HttpRequest:
        encoded = self.encode(request, inputs, target)
        return replace(encoded, headers={**encoded.headers, "accept": "text/event-stream, application/json"})


@plant("test_encodes_streaming_requests", "The accept header of a stream is 'application/json'")
class AcceptsNoEvents(OpenAIProvider):
    """Some servers answer with plain JSON."""

    def encode_stream(
        self, request: Any, inputs: OpenedInputs, target: Target, partial_images: Any
    ) -> HttpRequest:
        encoded = super().encode_stream(request, inputs, target, partial_images)
        return replace(encoded, headers={**encoded.headers, "accept": "application/json"})


@plant("test_streams_send_every_field", "ignores background", "background")
class IgnoresFieldsInStreams(OpenAIProvider):
    """A stream draws another image than the plain call."""

    def encode_stream(
        self, request: Any, inputs: OpenedInputs, target: Target, partial_images: Any
    ) -> HttpRequest:
        return super().encode_stream(without(request, "background"), inputs, target, partial_images)


@plant("test_streams_send_every_field", "ignores mask", "mask")
class IgnoresMaskInStreams(OpenAIProvider):
    """The model repaints the whole image."""

    def encode_stream(
        self, request: Any, inputs: OpenedInputs, target: Target, partial_images: Any
    ) -> HttpRequest:
        return super().encode_stream(request, replace(inputs, mask=None), target, partial_images)


@plant("test_streams_send_partial_images", "partial_images=1 and partial_images=2 give the same request")
class IgnoresPartialImages(OpenAIProvider):
    """The caller pays for sketches that nobody wants."""

    def encode_stream(
        self, request: Any, inputs: OpenedInputs, target: Target, partial_images: Any
    ) -> HttpRequest:
        return super().encode_stream(request, inputs, target, partial_images and 1)
