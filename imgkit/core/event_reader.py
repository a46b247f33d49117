"""Event streams: read the open reply of a stream, hand its events on and classify its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TypeGuard, TypeVar

from imgkit.core.context import CallContext
from imgkit.core.cut_replies import decode_mended
from imgkit.core.provider_calls import call_decode
from imgkit.core.sent_secrets import clean_images
from imgkit.core.stream_collector import Collector, ResultCollector
from imgkit.errors import (
    ApiError,
    ImgkitError,
    OutcomeUnknownError,
    StreamError,
    UnreadableReplyError,
)
from imgkit.images.part_files import PartFiles
from imgkit.plugins.events import Progress
from imgkit.providers.base import DecodedImages, DecodedPartialImage, StreamingProvider
from imgkit.providers.job_values import JobUpdate
from imgkit.providers.reply_images import unreadable_reply_error
from imgkit.redact import scrub
from imgkit.runtime.flow import Flow, ReadChunk, RunBlocking, run_blocking
from imgkit.wire.arriving_images import MemorySink
from imgkit.wire.event_body import EventReply, is_event_reply, split_events
from imgkit.wire.json_body import JsonReply
from imgkit.wire.messages import Head, announces_events
from imgkit.wire.secret_filter import SecretFilter

GRACE_S = 1.0
"""Seconds in which a server may end a stream after its last image; many never end it."""

T = TypeVar("T")


def read_events(
    provider: StreamingProvider,
    collector: Collector,
    context: CallContext,
    head: Head,
    secrets: SecretFilter,
) -> Flow[DecodedImages]:
    """Read the open success reply to its end and hand its events on.

    Ledgers get each event before the caller. A plain JSON reply becomes one event per image, since many
    servers do not stream. A failure after the last image costs a warning.

    Args:
        provider: the dialect.
        collector: receives the events.
        context: the call.
        head: status and headers of the reply.
        secrets: removes credentials that the server repeats.

    Returns:
        All complete images, merged.

    Raises:
        OutcomeUnknownError: the connection broke before all images were complete.
        StreamError: the stream ended before an image was complete.
        UnreadableReplyError: an event is not readable, or exceeds ``max_reply_bytes``.
        ApiError: the API reported an error inside the stream.
    """
    reader = _EventReader(provider, collector, context, head, secrets)
    error = yield from reader.read_to_end()
    if error is None and reader.plain_reply is not None:
        if not is_event_reply(reader.plain_reply):
            yield from reader.handle_plain_reply(reader.plain_reply)
            return collector.decoded
        error = yield from reader.handle_event_text(reader.plain_reply)
        return _end_stream(reader, collector, error)
    error = yield from reader.handle_last_event(error)
    return _end_stream(reader, collector, error)


def read_unrequested_events(
    provider: StreamingProvider, context: CallContext, head: Head, secrets: SecretFilter
) -> Flow[DecodedImages]:
    """Read the open reply to a call without a stream, which announces events, as a result.

    Raises:
        ImgkitError: as `read_events` does.
    """
    return (yield from read_events(provider, ResultCollector(context), context, head, secrets))


def decode_event_text(
    provider: StreamingProvider,
    context: CallContext,
    head: Head,
    reply: JsonReply,
    secrets: SecretFilter,
) -> Flow[DecodedImages]:
    """Decode a whole reply that holds events under another Content-Type as a result.

    Raises:
        ImgkitError: as `read_events` does.
    """
    collector = ResultCollector(context)
    reader = _EventReader(provider, collector, context, head, secrets)
    error = yield from reader.handle_event_text(reply)
    return _end_stream(reader, collector, error)


def _end_stream(reader: _EventReader, collector: Collector, error: ImgkitError | None) -> DecodedImages:
    """Return the images of a stream that has ended, or raise the error that ended it."""
    if collector.is_complete:
        if error is not None:
            collector.warn(f"The stream broke off after its last image ({error})"[:500])
        return collector.decoded
    if error is None and not collector.decoded.pictures:
        error = reader.unreadable_event or reader.ended_early_error()
    if error is None:
        return collector.decoded
    _attach_images(error, collector)
    try:
        raise error
    finally:
        del error  # its traceback holds this frame, which would hold it


def _attach_images(error: ImgkitError, collector: Collector) -> None:
    """Attach the images that arrived to the error that ends their stream: they may be billed."""
    if isinstance(error, ApiError | OutcomeUnknownError | StreamError | UnreadableReplyError):
        error.images = collector.images or error.images
        error.maybe_billed = error.maybe_billed or bool(collector.images)


class _EventReader:
    """Reads one open reply of a stream, and classifies its end."""

    def __init__(
        self,
        provider: StreamingProvider,
        collector: Collector,
        context: CallContext,
        head: Head,
        secrets: SecretFilter,
    ) -> None:
        self._provider = provider
        self._collector = collector
        self._context = context
        self._head = head
        self._secrets = secrets
        self._spools = context.reservations.wants_chunks
        self._rest: JsonReply | None = None
        self._count = 0
        self.unreadable_event: UnreadableReplyError | None = None
        self._unknown_event = b""
        self._grace_end: float | None = None
        self._part_files: PartFiles | None = context.new_part_files() if context.new_part_files else None
        self._reply = EventReply(
            provider.base64_keys,
            MemorySink if self._part_files is None else self._part_files.new_file,
            expect_events=announces_events(head),
            secrets=secrets,
        )

    @property
    def plain_reply(self) -> JsonReply | None:
        """The reply of a server that sent one JSON value in place of events, None after events."""
        return None if self._reply.is_stream else self._rest

    def read_to_end(self) -> Flow[ImgkitError | None]:
        """Read the reply, hand on its complete events, and return the error that ended it, if any."""
        context, reply = self._context, self._reply
        if self._spools:
            begin = partial(context.reservations.begin, self._head, self._secrets, self._part_files)
            yield RunBlocking(begin)
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
        while reply.pending_length <= limit:
            read = self._next_read()
            if read is None or not (chunk := (yield read)):
                return
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

    def _next_read(self) -> ReadChunk | None:
        """Return the next read, None if no more will come.

        After the last image, or after the end mark of a stream that lacks images, the server has a moment.
        """
        is_complete, is_done = self._collector.is_complete, self._reply.done
        if is_complete and is_done:
            return None
        if not is_complete and not is_done:
            return ReadChunk()
        now = time.monotonic()
        if self._grace_end is None:
            # A silence of this length must not count as a failure.
            self._grace_end = now + min(GRACE_S, self._context.core.limits.read_timeout_s / 2)
        return ReadChunk(self._grace_end - now) if now < self._grace_end else None

    def handle_plain_reply(self, reply: JsonReply) -> Flow[None]:
        """Hand on the images of a plain JSON reply."""
        core = self._context.core
        self._context.in_flight = False
        secrets = self._secrets.secrets

        def decode(reply: JsonReply) -> DecodedImages | JobUpdate:
            method = partial(core.provider.decode, self._head, reply, core.target, secrets)
            return call_decode(core, "decode", method, self._head, reply, secrets)

        decoded = yield from self._decode(decode, reply)
        if isinstance(decoded, JobUpdate):
            raise unreadable_reply_error(self._head, reply, "it names a job in place of images")
        yield from self._collector.handle(self._head, clean_images(decoded, self._secrets))

    def handle_event_text(self, reply: JsonReply) -> Flow[ImgkitError | None]:
        """Hand on the events in a whole text, and return the error that ends it, if any."""
        self._context.in_flight = False
        events = split_events(reply.raw(), self._provider.base64_keys)
        self._count = len(events)
        try:
            for event in events:
                yield from self._hand_on(event)
        except ImgkitError as error:
            return error
        return None

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
        count = self._count or self._reply.count
        came = f"{count} events" if count else "no event"
        quote = self._quote_event()
        is_asked_for = self._context.call.partial_images is not None
        return StreamError(
            f"HTTP {self._head.status}, but the stream ended before an image was complete: {came} arrived "
            f"(request id {self._head.request_id or 'not given'}). It may have been billed.{quote}",
            hint="error.images has the images that did arrive."
            + (" Try create_image, which needs no stream." if is_asked_for else ""),
            maybe_billed=True,
            request_id=self._head.request_id,
        )

    def _hand_on(self, event: JsonReply) -> Flow[None]:
        core, head, secrets = self._context.core, self._head, self._secrets.secrets

        def decode(event: JsonReply) -> DecodedImages | DecodedPartialImage | None:
            method = partial(self._provider.decode_event, head, event, core.target, secrets)
            return call_decode(core, "decode_event", method, head, event, secrets)

        try:
            decoded = yield from self._decode(decode, event)
        except UnreadableReplyError as error:
            if event.has_images or _is_json(event):
                raise
            # Some servers send "data: ping" between the events of an image.
            self.unreadable_event = self.unreadable_event or error.with_traceback(None)
            self._collector.warn("An event without an image could not be read, and was skipped.")
            return
        if isinstance(decoded, DecodedImages):
            decoded = clean_images(decoded, self._secrets)
        if decoded is not None:
            yield from self._collector.handle(self._head, decoded)
        else:
            self._unknown_event = event.raw()

    def _quote_event(self) -> str:
        """Return a sentence with the last event of an unknown type, "" without such an event."""
        text = scrub(self._unknown_event.decode("utf-8", "replace"), self._secrets.secrets, limit=300)
        return f" The last event without an image: {text}" if text else ""

    def _decode(self, decode: Callable[[JsonReply], T], reply: JsonReply) -> Flow[T]:
        """Decode where it may block if part files hold the images: decoding looks at them."""

        def run() -> T:
            try:
                return decode(reply)
            except UnreadableReplyError as error:
                return decode_mended(error, decode, reply, self._provider.base64_keys)

        if self._part_files is None or not self._part_files.on_disk:
            return run()
        yield RunBlocking(self._part_files.write)
        return (yield from run_blocking(run))

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


def _is_json(event: JsonReply) -> bool:
    try:
        event.json()
    except ValueError:
        return False
    return True


def _is_whole_event(event: JsonReply | None) -> TypeGuard[JsonReply]:
    """Return whether an event lacks nothing but the blank line behind it."""
    if event is None:
        return False
    try:
        event.json()
    except ValueError:
        return False
    return True
