"""The contract of a streaming provider (`imgkit.providers.StreamingProvider`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, ClassVar

import pytest

from imgkit.errors import ImgkitError, InvalidRequestError
from imgkit.images.inputs import OpenedInputs
from imgkit.models import ImageRequest, Usage, field_names
from imgkit.providers.base import (
    DecodedImages,
    DecodedPartialImage,
    Provider,
    StreamingProvider,
)
from imgkit.redact import Secret
from imgkit.testing.provider_contract import ProviderContract
from imgkit.testing.provider_replies import ECHOES, GARBAGE, SECRETS, USAGE, assert_usage, fail_for_builtin
from imgkit.testing.provider_samples import FIELD_VALUES, list_contents, open_inputs
from imgkit.testing.request_checks import assert_well_formed, join_wire
from imgkit.testing.samples import png
from imgkit.wire.event_body import EventReply
from imgkit.wire.messages import Head, HttpRequest

OTHER_EVENTS = ({"type": "contract.keep_alive"}, {"type": "contract.status", "status": "drawing"})
"""Events that no dialect has: a later version of an API may send them."""


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

    Override `usage_event` too if streams report token counts, and `error_event` if an error in a stream
    has another shape than an error reply. `sends_partial_images` is an attribute.
    """

    sends_partial_images: ClassVar[bool] = True
    """The API takes the number of partial images; False where its models choose the number."""

    def partial_event(self, image: bytes, index: int) -> bytes:
        """Return the data of an event with a partial image, in the provider's dialect."""
        raise NotImplementedError("Override partial_event() to return an event with a partial image.")

    def complete_event(self, image: bytes) -> bytes:
        """Return the data of an event with a complete image, in the provider's dialect."""
        raise NotImplementedError("Override complete_event() to return an event with a complete image.")

    def usage_event(self, image: bytes, usage: Usage) -> bytes | None:
        """Return a `complete_event` that reports input, output and total tokens; None if there is none."""
        return None

    def error_event(self, message: str) -> bytes:
        """Return the data of an event with an error."""
        return self.error_reply(message)

    def streaming_requests(self) -> list[ImageRequest]:
        """Return requests that the provider can stream."""
        return [request for request in self.list_requests() if request.operation != "create_image_variation"]

    def streaming_provider(self, provider: Provider | None = None) -> StreamingProvider:
        """Return a new provider, or the given provider; fail if it does not stream."""
        provider = provider or self.provider()
        assert isinstance(provider, StreamingProvider), (
            "The provider lacks encode_stream() or decode_event()."
        )
        return provider

    def encode_stream(
        self,
        request: ImageRequest,
        partial_images: int | None,
        cleanup: ExitStack,
        provider: Provider | None = None,
    ) -> HttpRequest:
        """Check and encode a streaming request with a number of partial images."""
        provider = provider or self.provider()
        return self.encode_opened_stream(request, partial_images, open_inputs(request, cleanup), provider)

    def encode_opened_stream(
        self, request: ImageRequest, partial_images: int | None, inputs: OpenedInputs, provider: Provider
    ) -> HttpRequest:
        """Check and encode a streaming request whose images are open."""
        target = self.target(provider)
        provider.check(request, target)
        return self.streaming_provider(provider).encode_stream(request, inputs, target, partial_images)

    def decode_event(
        self, data: bytes, provider: Provider | None = None, secrets: tuple[Secret, ...] = ()
    ) -> DecodedPartialImage | DecodedImages | None:
        """Decode an event with this data."""
        provider = provider or self.provider()
        streaming = self.streaming_provider(provider)
        reply = EventReply(streaming.base64_keys, expect_events=True)
        lines = b"\n".join(b"data: " + line for line in data.split(b"\n"))
        (event,) = reply.feed(lines + b"\n\n")
        head = Head(200, {"content-type": "text/event-stream", "x-request-id": "req_1"})
        return streaming.decode_event(head, event, self.target(provider), secrets)

    def test_encodes_streaming_requests(self) -> None:
        """Encodes equal requests to equal bytes without credentials, unlike plain requests."""
        for request in self.streaming_requests():
            for partial_images in (None, 0, 2):
                with ExitStack() as cleanup:
                    first = self.encode_stream(request, partial_images, cleanup)
                    second = self.encode_stream(request, partial_images, cleanup)
                    assert_well_formed(first, self.secret_headers)
                    assert join_wire(first) == join_wire(second), "Two equal streaming requests differ."
                    accept = first.headers.get("accept", "")
                    assert "text/event-stream" in accept, f"The accept header of a stream is {accept!r}."
                    plain = self.encode(request, cleanup)
                    assert (plain.url, b"".join(plain.body.blocks())) != (
                        first.url,
                        b"".join(first.body.blocks()),
                    ), "URL and body ask for no stream: encode_stream() and encode() give the same."

    @pytest.mark.parametrize("field", [*FIELD_VALUES, "image", "mask", "markup"])
    def test_streams_send_every_field(self, field: str) -> None:
        """Sends a field with a streaming request too, or refuses it."""

        def encode(request: ImageRequest, cleanup: ExitStack) -> HttpRequest:
            return self.encode_stream(request, 1, cleanup)

        for request in self.streaming_requests():
            if field not in field_names(type(request)):
                continue
            if field in FIELD_VALUES:
                self.assert_field_is_sent(request, field, encode)
            elif field != "image":
                self.assert_overlay_is_sent(request, field, encode)
            else:
                self.assert_images_are_sent(request, encode)

    def test_streams_send_partial_images(self) -> None:
        """Sends the number of partial images that the caller wants, or refuses it, if the API takes one."""
        if not self.sends_partial_images:
            return
        for request in self.streaming_requests():
            counts: dict[bytes, int] = {}
            for count in (1, 2, 3):
                with ExitStack() as cleanup:
                    try:
                        wire = join_wire(self.encode_stream(request, count, cleanup))
                    except InvalidRequestError:
                        continue
                assert wire not in counts, (
                    f"partial_images={counts[wire]} and partial_images={count} give the same request. Send "
                    "the number, or raise an InvalidRequestError for numbers that the API does not have."
                )
                counts[wire] = count

    def test_decodes_events(self) -> None:
        """Decodes partial and complete images of any size byte for byte."""
        for image in (png(1), png(2, 64)):
            decoded: Any = self.decode_event(self.partial_event(image, 1))
            assert isinstance(decoded, DecodedPartialImage), (
                f"An event with a partial image becomes {describe(decoded)}. Return a DecodedPartialImage: "
                "a partial image that counts as complete ends the stream before the image that was paid for."
            )
            assert read_partial(decoded) == image, "A partial image has other bytes than the event."
            assert decoded.index in (1, None), f"The index of a partial image is {decoded.index}, not 1."
            complete: Any = self.decode_event(self.complete_event(image))
            assert isinstance(complete, DecodedImages), (
                f"An event with a complete image becomes {describe(complete)}. Return DecodedImages at once: "
                "no further event may come, and [DONE] never reaches decode_event()."
            )
            assert list_contents(complete) == [image], "A complete image has other bytes than the event."

    def test_reads_usage_of_events(self) -> None:
        """Keeps the token counts of a stream if `usage_event` returns an event."""
        data = self.usage_event(png(1), USAGE)
        if data is not None:
            decoded = self.decode_event(data)
            assert_usage(decoded.usage if isinstance(decoded, DecodedImages) else None)

    def test_error_events(self) -> None:
        """Raises the error of an error event, with the message of the API."""
        message = "The colour mauve is not in stock"
        try:
            decoded = self.decode_event(self.error_event(message))
        except ImgkitError as error:
            text = str(error)
        else:
            raise AssertionError(
                f"An event with an error becomes {describe(decoded)}. Raise the error: "
                "error_from_reply(head, data.raw(), secrets)."
            )
        assert message in text, f"The API says {message!r}, and the error says {text!r}."

    def test_skips_other_events(self) -> None:
        """Returns None for an event of an unknown type."""
        for event in OTHER_EVENTS:
            data = json.dumps(event).encode()
            try:
                decoded = self.decode_event(data)
            except Exception as error:
                raise AssertionError(
                    f"The event {data!r} raises {type(error).__name__}: {error} Return None for events "
                    "that the provider does not know; an image may follow."
                ) from error
            assert decoded is None, f"The event {data!r} becomes {describe(decoded)}, not None."

    def test_events_without_images(self) -> None:
        """Skips an event without an image, or raises an imgkit error."""
        for data in GARBAGE:
            if data.strip():
                try:
                    decoded = self.decode_event(data)
                except ImgkitError as error:
                    self.assert_presentable(error)
                except Exception as error:
                    fail_for_builtin(error, "decode_event", data)
                else:
                    assert decoded is None or (isinstance(decoded, DecodedImages) and not decoded.pictures)

    def test_truncated_events(self) -> None:
        """Raises an error for a truncated event."""
        for complete in (self.partial_event(png(1), 0), self.complete_event(png(1))):
            for end in range(1, len(complete), max(1, len(complete) // 50)):
                try:
                    decoded = self.decode_event(complete[:end])
                except ImgkitError:
                    continue
                except Exception as error:
                    fail_for_builtin(error, "decode_event", complete[:end])
                raise AssertionError(
                    f"An event that is cut off after {end} of {len(complete)} bytes becomes "
                    f"{describe(decoded)}. Raise an UnreadableReplyError."
                )

    def test_error_events_hide_keys(self) -> None:
        """Hides the key that an error event repeats."""
        for data in ECHOES:
            try:
                self.decode_event(data, secrets=SECRETS)
            except ImgkitError as error:
                self.assert_presentable(error)

    def list_image_bodies(self) -> list[bytes]:
        """Return bodies with images, of replies and of events."""
        image = png(1, 64)
        return [*super().list_image_bodies(), self.partial_event(image, 0), self.complete_event(image)]

    def list_calls(self, provider: Provider, cleanup: ExitStack) -> list[tuple[str, Callable[[], object]]]:
        """Return calls of all methods of the provider, the methods for streams included."""
        calls = super().list_calls(provider, cleanup)
        for request in self.streaming_requests():
            inputs = open_inputs(request, cleanup)
            calls.append(("encode_stream", partial(self.encode_whole_stream, request, inputs, provider)))
        for data in (self.partial_event(png(1), 0), self.complete_event(png(1))):
            calls.append(("decode_event", partial(self.decode_event, data, provider)))
        return calls

    def run_call(self, provider: Provider, request: ImageRequest, seed: int) -> list[object]:
        """Run a plain call and a stream, and return the results."""
        results = super().run_call(provider, request, seed)
        if request.operation != "create_image_variation":
            with ExitStack() as cleanup:
                results.append(self.encode_whole_stream(request, open_inputs(request, cleanup), provider))
        for data in (self.partial_event(png(seed), 1), self.complete_event(png(seed))):
            results.append(self.decode_event(data, provider))
        return results

    def encode_whole_stream(
        self, request: ImageRequest, inputs: OpenedInputs, provider: Provider
    ) -> bytes | str:
        """Check and encode a streaming request; return its wire form, or the refusal."""
        try:
            return join_wire(self.encode_opened_stream(request, 1, inputs, provider))
        except InvalidRequestError as error:
            return str(error)


def read_partial(decoded: DecodedPartialImage) -> bytes | None:
    """Return the bytes of a partial image."""
    return decoded.data if decoded.source is None else decoded.source.read()


def describe(decoded: DecodedPartialImage | DecodedImages | None) -> str:
    """Return a decoded event in words.

    >>> describe(None), describe(DecodedImages(pictures=()))
    ('nothing', '0 complete images')
    """
    if decoded is None:
        return "nothing"
    if isinstance(decoded, DecodedPartialImage):
        return "a partial image"
    return f"{len(decoded.pictures)} complete image{'' if len(decoded.pictures) == 1 else 's'}"
