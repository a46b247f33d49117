"""The contract of a streaming provider (`imgkit.providers.StreamingProvider`)."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from imgkit.errors import ImgkitError
from imgkit.images.inputs import OpenedInputs, open_input
from imgkit.models import ImageRequest
from imgkit.providers.base import DecodedImages, DecodedPartialImage, StreamingProvider
from imgkit.redact import Secret
from imgkit.testing import canary
from imgkit.testing.provider_contract import GARBAGE, ProviderContract
from imgkit.testing.samples import png
from imgkit.wire.event_body import EventReply
from imgkit.wire.messages import Head, HttpRequest


class StreamingProviderContract(ProviderContract):
    """The tests that every streaming provider must pass, in addition to the tests of `ProviderContract`.

    Override the event methods too::

        class TestStreamingAcme(StreamingProviderContract):
            def provider(self):
                return StreamingAcme()

            def reply(self, pictures):
                encoded = [base64.b64encode(image).decode() for image in pictures]
                return json.dumps({"pictures": encoded}).encode()

            def partial_event(self, image, index):
                return json.dumps({"sketch": base64.b64encode(image).decode()}).encode()

            def complete_event(self, image):
                return self.reply([image])
    """

    def partial_event(self, image: bytes, index: int) -> bytes:
        """Return the data of an event with a partial image, in the provider's dialect."""
        raise NotImplementedError("Override partial_event() to return an event with a partial image.")

    def complete_event(self, image: bytes) -> bytes:
        """Return the data of an event with a complete image, in the provider's dialect."""
        raise NotImplementedError("Override complete_event() to return an event with a complete image.")

    def streaming_requests(self) -> list[ImageRequest]:
        """Return requests that the provider can stream."""
        return [request for request in self.requests() if request.operation != "create_image_variation"]

    def streaming_provider(self) -> StreamingProvider:
        """Return a new provider; fail if it does not stream."""
        provider = self.provider()
        assert isinstance(provider, StreamingProvider)
        return provider

    def encode_stream(
        self, request: ImageRequest, partial_images: int | None, cleanup: ExitStack
    ) -> HttpRequest:
        """Encode a streaming request with a number of partial images."""
        value = getattr(request, "image", ())
        sources = value if isinstance(value, list | tuple) else (value,)
        inputs = OpenedInputs(tuple(open_input(source, "image", cleanup) for source in sources))
        return self.streaming_provider().encode_stream(
            request, inputs, self.target(self.provider()), partial_images
        )

    def decode_event(self, data: bytes) -> DecodedPartialImage | DecodedImages | None:
        """Decode an event with this data."""
        provider = self.streaming_provider()
        reply = EventReply(provider.base64_keys, expect_events=True)
        lines = b"\n".join(b"data: " + line for line in data.split(b"\n"))
        (event,) = reply.feed(lines + b"\n\n")
        return provider.decode_event(
            Head(200, {"x-request-id": "req_1"}), event, self.target(self.provider())
        )

    def test_encodes_streaming_requests(self) -> None:
        """Encodes equal requests to equal bytes without credentials, unlike plain requests."""
        for request in self.streaming_requests():
            for partial_images in (None, 0, 2):
                with ExitStack() as cleanup:
                    first = self.encode_stream(request, partial_images, cleanup)
                    second = self.encode_stream(request, partial_images, cleanup)
                    assert b"".join(first.body.blocks()) == b"".join(second.body.blocks())
                    assert (first.url, dict(first.headers)) == (second.url, dict(second.headers))
                    assert "text/event-stream" in first.headers.get("accept", "")
                    assert not {"authorization", "content-length", "content-type"} & set(first.headers)
                    plain = self.encode(request, cleanup)
                    assert (plain.url, b"".join(plain.body.blocks())) != (
                        first.url,
                        b"".join(first.body.blocks()),
                    )

    def test_decodes_events(self) -> None:
        """Decodes images of any size byte for byte."""
        for image in (png(1), png(2, 64)):
            decoded = self.decode_event(self.partial_event(image, 1))
            assert isinstance(decoded, DecodedPartialImage)
            assert decoded.data == image
            assert decoded.index in (1, None)
            complete = self.decode_event(self.complete_event(image))
            assert isinstance(complete, DecodedImages)
            assert [item.data for item in complete.pictures] == [image]

    def test_events_without_images(self) -> None:
        """Skips an event without an image, or raises an imgkit error."""
        for data in GARBAGE:
            if data.strip():
                try:
                    decoded = self.decode_event(data)
                except ImgkitError as error:
                    self.assert_presentable(error)
                else:
                    assert decoded is None or (isinstance(decoded, DecodedImages) and not decoded.pictures)

    def test_truncated_events(self) -> None:
        """Raises an error for a truncated event."""
        for complete in (self.partial_event(png(1), 0), self.complete_event(png(1))):
            for end in range(1, len(complete), max(1, len(complete) // 50)):
                with pytest.raises(ImgkitError):
                    self.decode_event(complete[:end])

    def test_error_events_hide_keys(self) -> None:
        """Hides the key that an error event repeats."""
        provider = self.streaming_provider()
        body = f'{{"error": {{"message": "the key {canary.KEY} is wrong"}}}}'.encode()
        reply = EventReply(provider.base64_keys, expect_events=True)
        (event,) = reply.feed(b"data: " + body + b"\n\n")
        secrets = (Secret(canary.KEY),)
        try:
            provider.decode_event(Head(200, {}), event, self.target(self.provider()), secrets)
        except ImgkitError as error:
            self.assert_presentable(error)
