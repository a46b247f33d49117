"""The contract of a provider that streams: `imgkit.providers.base.StreamingProvider`."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from imgkit.errors import ImgkitError
from imgkit.images.inputs import OpenedInputs, open_input
from imgkit.models import ImageRequest
from imgkit.providers.base import DecodedImages, DecodedPartialImage, StreamingProvider
from imgkit.redact import Secret
from imgkit.testing import canary
from imgkit.testing.provider import GARBAGE, ProviderContract
from imgkit.testing.samples import png
from imgkit.wire.event_body import EventReply
from imgkit.wire.messages import Head, HttpRequest


class StreamingProviderContract(ProviderContract):
    """What every provider that streams does, beside what every provider does."""

    def partial_event(self, picture: bytes, index: int) -> bytes:
        """Return the data of an event with a partial picture, in the dialect."""
        raise NotImplementedError("a contract is told what a partial picture looks like")

    def complete_event(self, picture: bytes) -> bytes:
        """Return the data of an event with a complete picture, in the dialect."""
        raise NotImplementedError("a contract is told what a complete picture looks like")

    def streamed(self) -> list[ImageRequest]:
        """Return requests that the provider can stream."""
        return [one for one in self.requests() if one.operation != "create_image_variation"]

    def streaming(self) -> StreamingProvider:
        """Return a new provider, which must be one that streams."""
        provider = self.provider()
        assert isinstance(provider, StreamingProvider)
        return provider

    def encode_stream(self, request: ImageRequest, wanted: int | None, cleanup: ExitStack) -> HttpRequest:
        """Return a request for a stream as it goes out."""
        listed = getattr(request, "image", ())
        images = listed if isinstance(listed, list | tuple) else (listed,)
        inputs = OpenedInputs(tuple(open_input(one, "image", cleanup) for one in images))
        return self.streaming().encode_stream(request, inputs, self.target(self.provider()), wanted)

    def read(self, data: bytes) -> DecodedPartialImage | DecodedImages | None:
        """Return what an event with this data says."""
        provider = self.streaming()
        reply = EventReply(provider.base64_keys, expect_events=True)
        lines = b"\n".join(b"data: " + line for line in data.split(b"\n"))
        (event,) = reply.feed(lines + b"\n\n")
        return provider.decode_event(
            Head(200, {"x-request-id": "req_1"}), event, self.target(self.provider())
        )

    def test_requests_for_streams(self) -> None:
        """They are deterministic, hold no credentials, and are not those of plain calls."""
        for request in self.streamed():
            for wanted in (None, 0, 2):
                with ExitStack() as cleanup:
                    first = self.encode_stream(request, wanted, cleanup)
                    second = self.encode_stream(request, wanted, cleanup)
                    assert b"".join(first.body.blocks()) == b"".join(second.body.blocks())
                    assert (first.url, dict(first.headers)) == (second.url, dict(second.headers))
                    assert first.headers.get("accept") == "text/event-stream"
                    assert not {"authorization", "content-length", "content-type"} & set(first.headers)
                    plain = self.encode(request, cleanup)
                    assert (plain.url, b"".join(plain.body.blocks())) != (
                        first.url,
                        b"".join(first.body.blocks()),
                    )

    def test_events(self) -> None:
        """Pictures come out byte for byte, whatever their size."""
        for picture in (png(1), png(2, 64)):
            found = self.read(self.partial_event(picture, 1))
            assert isinstance(found, DecodedPartialImage)
            assert found.data == picture
            assert found.index in (1, None)
            whole = self.read(self.complete_event(picture))
            assert isinstance(whole, DecodedImages)
            assert [one.data for one in whole.pictures] == [picture]

    def test_events_that_hold_no_picture(self) -> None:
        """They are passed over, or errors of imgkit's tree; nothing else leaves the provider."""
        for data in GARBAGE:
            if data.strip():
                try:
                    found = self.read(data)
                except ImgkitError as error:
                    self.fit(error)
                else:
                    assert found is None or (isinstance(found, DecodedImages) and not found.pictures)

    def test_events_that_are_cut(self) -> None:
        """A part of an event is an error: never a picture with wrong bytes."""
        for whole in (self.partial_event(png(1), 0), self.complete_event(png(1))):
            for end in range(1, len(whole), max(1, len(whole) // 50)):
                with pytest.raises(ImgkitError):
                    self.read(whole[:end])

    def test_keys_in_events(self) -> None:
        """An error event repeats no key."""
        provider = self.streaming()
        body = f'{{"error": {{"message": "the key {canary.KEY} is wrong"}}}}'.encode()
        reply = EventReply(provider.base64_keys, expect_events=True)
        (event,) = reply.feed(b"data: " + body + b"\n\n")
        secrets = (Secret(canary.KEY),)
        try:
            provider.decode_event(Head(200, {}), event, self.target(self.provider()), secrets)
        except ImgkitError as error:
            self.fit(error)
