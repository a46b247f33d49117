"""Streams: a call whose images and partial images reach the caller while the server makes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeGuard, TypeVar

from imgkit.core.context import CallContext, parse_options, start_call
from imgkit.core.core import Core
from imgkit.core.lifecycle import apply_prepare_hooks, build_request, call_events, deliver, open_save_plan
from imgkit.core.pipeline import (
    DispatchResult,
    attach_warnings_to_errors,
    max_images_per_request,
    open_inputs,
    start_request,
    validate_for_model,
)
from imgkit.core.send import read_response, send_with_retries
from imgkit.core.stream_collector import StreamCollector
from imgkit.errors import (
    ApiError,
    ConfigurationError,
    ImgkitError,
    InvalidRequestError,
    OutcomeUnknownError,
    StreamError,
    UnreadableReplyError,
)
from imgkit.images.part_files import PartFiles
from imgkit.models import ImageRequest, ImagesResponse
from imgkit.plugins.events import Progress
from imgkit.providers.base import DecodedImages, StreamingProvider
from imgkit.redact import Secret
from imgkit.runtime.flow import Flow, ReadChunk, RunBlocking, run_blocking
from imgkit.wire.event_body import EventReply
from imgkit.wire.json_body import JsonReply, MemorySink
from imgkit.wire.messages import Head

EVENT_STREAM = "text/event-stream"

MAX_PARTIAL_IMAGES = 3
"""Partial images of one image (API reference of images/generations, 2026-11-23)."""

T = TypeVar("T")


def run_stream(
    core: Core, kind: type[ImageRequest], value: object, arguments: Mapping[str, object]
) -> Flow[ImagesResponse]:
    """Carry out one operation as a stream: emit `PartialImage` and `Completed` events.

    Args:
        core, kind, value, arguments: as for `imgkit.core.lifecycle.run_call`.

    Returns:
        The response that the call without a stream would return.

    Raises:
        ImgkitError: as `imgkit.ImageService.stream_image` documents it.
    """
    request = build_request(kind, value, arguments)
    options = parse_options(arguments)
    provider = core.provider
    if not isinstance(provider, StreamingProvider):
        raise ConfigurationError(
            f"Provider {core.provider_name} does not stream. Use {request.operation}, or another provider."
        )
    partial_images = _check_partial_images(arguments.get("partial_images"))
    context = start_call(core, request, options, partial_images or 0)
    with call_events(context):
        started = time.monotonic()
        plan = yield from open_save_plan(context)
        stream_values = {"stream": True, "partial_images": partial_images or 0}
        request = apply_prepare_hooks(context, request)
        request, model, warnings = validate_for_model(core, request, stream_values)
        _check_count(request, max_images_per_request(core, request))
        with attach_warnings_to_errors(warnings):
            inputs, input_warnings = yield from open_inputs(context, request, model)
            warnings += input_warnings
            wire_request = provider.encode_stream(request, inputs, core.target, partial_images)
            start_request(context, request)
            collector = StreamCollector(context, request, inputs, plan, started, tuple(warnings))
            read = partial(read_events, provider, collector)
            head = (yield from send_with_retries(context, wire_request, read)).head
        response = collector.build_response(head)
        result = DispatchResult(response, ((context, response),))
        response = context.response = yield from deliver(context, result, plan)
    return response


def _check_partial_images(partial_images: object) -> int | None:
    """Return the number of partial images, None for none given."""
    if partial_images is None:
        return None
    if type(partial_images) is not int or not 0 <= partial_images <= MAX_PARTIAL_IMAGES:
        problem = f"Must be a whole number from 0 to {MAX_PARTIAL_IMAGES}."
        raise InvalidRequestError({"partial_images": problem})
    return partial_images


def _check_count(request: ImageRequest, limit: int | None) -> None:
    """Refuse more images than one request may ask for: a stream is one request."""
    if limit is not None and (request.n or 1) > limit:
        raise InvalidRequestError(
            {"n": f"A stream has at most {limit} images. Ask for fewer, or use {request.operation}."}
        )


def read_events(
    provider: StreamingProvider,
    collector: StreamCollector,
    context: CallContext,
    head: Head,
    secrets: tuple[Secret, ...],
) -> Flow[DecodedImages]:
    """Read the open reply to its end and hand its events on.

    Ledgers get each event before the caller. A plain JSON reply becomes one event per image, since many
    servers do not stream. A failure after the last image costs a warning.

    Args:
        provider: the dialect.
        collector: receives the events.
        context: the call.
        head: status and headers of the reply.
        secrets: credentials that must not appear in messages.

    Returns:
        All complete images, merged.

    Raises:
        OutcomeUnknownError: the connection broke before all images were complete.
        StreamError: the stream ended before an image was complete.
        UnreadableReplyError: an event is not readable, or exceeds ``max_reply_bytes``.
        ApiError: the API refused, or reported an error inside the stream.
    """
    if not 200 <= head.status < 300:
        return (yield from read_response(context, head, secrets))
    reader = _EventReader(provider, collector, context, head, secrets)
    error = yield from reader.read_to_end()
    if error is None and reader.plain_reply is not None:
        yield from reader.handle_plain_reply(reader.plain_reply)
        return collector.decoded
    error = yield from reader.handle_last_event(error)
    if collector.is_complete:
        if error is not None:
            collector.warn(f"The stream broke off after its last image ({error})"[:500])
        return collector.decoded
    if error is None and not collector.decoded.pictures:
        error = reader.ended_early_error()
    if error is None:
        collector.warn("The stream ended with fewer images than requested.")
        return collector.decoded
    _attach_images(error, collector)
    try:
        raise error
    finally:
        del error  # its traceback holds this frame, which would hold it


def _attach_images(error: ImgkitError, collector: StreamCollector) -> None:
    """Attach the images that arrived to the error that ends their stream: they may be billed."""
    if isinstance(error, ApiError | OutcomeUnknownError | StreamError | UnreadableReplyError):
        error.images = collector.images
        error.maybe_billed = error.maybe_billed or bool(collector.images)


class _EventReader:
    """Reads one open reply of a stream, and classifies its end."""

    def __init__(
        self,
        provider: StreamingProvider,
        collector: StreamCollector,
        context: CallContext,
        head: Head,
        secrets: tuple[Secret, ...],
    ) -> None:
        self._provider = provider
        self._collector = collector
        self._context = context
        self._head = head
        self._secrets = secrets
        self._spools = context.reservations.wants_chunks
        self._rest: JsonReply | None = None
        self._part_files: PartFiles | None = context.new_part_files() if context.new_part_files else None
        self._reply = EventReply(
            provider.base64_keys,
            MemorySink if self._part_files is None else self._part_files.new_file,
            expect_events=head.headers.get("content-type", "").lower().startswith(EVENT_STREAM),
        )

    @property
    def plain_reply(self) -> JsonReply | None:
        """The reply of a server that sent one JSON value in place of events, None after events."""
        return None if self._reply.is_stream else self._rest

    def read_to_end(self) -> Flow[ImgkitError | None]:
        """Read the reply, hand on its complete events, and return the error that ended it, if any."""
        context, reply = self._context, self._reply
        if self._spools:
            yield RunBlocking(partial(context.reservations.begin, self._head))
        error: ImgkitError | None = None
        try:
            yield from self._read_chunks()
        except ImgkitError as caught:
            error = caught
        self._rest = reply.close()
        if self._spools:
            yield RunBlocking(partial(context.reservations.finish, reply.take_spool_chunks()))
        if error is None and reply.pending_length > context.core.limits.max_reply_bytes:
            return self._too_large_error()
        return error

    def _read_chunks(self) -> Flow[None]:
        context, reply, part_files = self._context, self._reply, self._part_files
        limit = context.core.limits.max_reply_bytes
        while not reply.done and reply.pending_length <= limit and (chunk := (yield ReadChunk())):
            events = reply.feed(chunk)
            del chunk  # it is not needed while the next chunk is read
            spooled = reply.take_spool_chunks()
            if self._spools and spooled:
                yield RunBlocking(partial(context.reservations.write, spooled))
            del spooled
            if part_files is not None and part_files.should_flush:
                yield RunBlocking(part_files.write)
            context.core.table.notify(Progress(reply.length, None), context.call)
            for event in events:
                yield from self._hand_on(event)

    def handle_plain_reply(self, reply: JsonReply) -> Flow[None]:
        """Hand on the images of a plain JSON reply."""
        core = self._context.core
        self._context.in_flight = False
        decode = partial(core.provider.decode, self._head, reply, core.target, self._secrets)
        yield from self._collector.handle(self._head, (yield from self._decode(decode)))

    def handle_last_event(self, error: ImgkitError | None) -> Flow[ImgkitError | None]:
        """Hand on an event that lacks only its end.

        Args:
            error: the error that ended the stream, None if the server ended it.

        Returns:
            The error that ends the stream now.
        """
        rest = self._rest
        is_cut = isinstance(error, OutcomeUnknownError)
        if isinstance(error, OutcomeUnknownError):
            error.body = rest.raw() if rest is not None else b""
        if self._reply.is_stream and (error is None or is_cut) and _is_whole_event(rest):
            try:
                yield from self._hand_on(rest)
            except ImgkitError as event_error:
                return event_error
        return error

    def ended_early_error(self) -> StreamError:
        """Return the error for a stream that the server ended before an image was complete."""
        count = self._reply.count
        came = f"{count} events" if count else "no event"
        return StreamError(
            f"HTTP {self._head.status}, but the stream ended before an image was complete: {came} arrived "
            f"(request id {self._head.request_id or 'not given'}). It may have been billed.",
            hint="error.images has the images that did arrive. Try create_image, which needs no stream.",
            maybe_billed=True,
            request_id=self._head.request_id,
        )

    def _hand_on(self, event: JsonReply) -> Flow[None]:
        decode = partial(
            self._provider.decode_event, self._head, event, self._context.core.target, self._secrets
        )
        decoded = yield from self._decode(decode)
        if decoded is not None:
            yield from self._collector.handle(self._head, decoded)

    def _decode(self, decode: Callable[[], T]) -> Flow[T]:
        """Decode where it may block if part files hold the images: decoding looks at them."""
        if self._part_files is None or not self._part_files.on_disk:
            return decode()
        yield RunBlocking(self._part_files.write)
        return (yield from run_blocking(decode))

    def _too_large_error(self) -> UnreadableReplyError:
        limit = self._context.core.limits.max_reply_bytes
        return UnreadableReplyError(
            f"HTTP {self._head.status} with an event of over {limit} bytes (request id "
            f"{self._head.request_id or 'not given'}). The stream was not read to its end and may have been "
            "billed.",
            hint="Ask for smaller images, or raise max_reply_bytes.",
            field="max_reply_bytes",
            request_id=self._head.request_id,
            body=self._rest.raw() if self._rest is not None else b"",
        )


def _is_whole_event(event: JsonReply | None) -> TypeGuard[JsonReply]:
    """Return whether an event lacks nothing but the blank line behind it."""
    if event is None:
        return False
    try:
        event.json()
    except ValueError:
        return False
    return True
