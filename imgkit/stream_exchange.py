"""The open reply to a request for a stream, read while it arrives."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeGuard, TypeVar

from imgkit.arrivals import Arrivals
from imgkit.call import Progress
from imgkit.errors import ApiError, ImgkitError, OutcomeUnknownError, StreamError, UnreadableReplyError
from imgkit.exchange import Course, read_answer
from imgkit.flow import Flow, Read, Run
from imgkit.providers.base import Answer, StreamingProvider
from imgkit.redact import Secret
from imgkit.streaming.event_reply import EventReply
from imgkit.streaming.json_reply import InMemory, JsonReply
from imgkit.wire import Head

EVENT_STREAM = "text/event-stream"

T = TypeVar("T")


def read_events(
    provider: StreamingProvider,
    arrivals: Arrivals,
    head: Head,
    course: Course,
    secrets: tuple[Secret, ...],
) -> Flow[Answer]:
    """Read the open reply to its end, and hand its events on.

    What has arrived is told to the ledgers before the caller gets it. A plain JSON reply is handed on as one
    event for each picture, since many servers do not stream. Whatever comes behind the last picture that was
    asked for costs nothing but a warning.

    Returns:
        All that was said of complete pictures, as one.

    Raises:
        OutcomeUnknownError: the connection broke before all pictures were complete.
        StreamError: the stream ended before that.
        UnreadableReplyError: an event that cannot be read, or is larger than ``course.max_reply_bytes``.
        ApiError: the API refused, or reports an error in the midst of the stream.
    """
    if not 200 <= head.status < 300:
        return (yield from read_answer(head, course, secrets))
    says_events = head.headers.get("content-type", "").lower().startswith(EVENT_STREAM)
    scratch = course.scratch() if course.scratch is not None else None
    hold = InMemory if scratch is None else scratch.new
    reply = EventReply(provider.base64_keys, hold, says_events=says_events)

    def decoded(decode: Callable[[], T]) -> Flow[T]:
        if scratch is None or not scratch.used:
            return decode()
        yield Run(scratch.write)
        found: T = yield Run(decode)  # which looks at pictures that are on disk
        return found

    def hand_on(data: JsonReply) -> Flow[None]:
        found = yield from decoded(partial(provider.decode_event, head, data, course.target, secrets))
        if found is not None:
            yield from arrivals.take(head, found)

    spools = course.account.spools
    if spools:
        yield Run(partial(course.account.begin, head))
    broken: ImgkitError | None = None
    try:
        while not reply.done and reply.held <= course.max_reply_bytes and (chunk := (yield Read())):
            complete = reply.feed(chunk)
            del chunk  # it is not needed while the next one is read
            yield from _kept_on_disk(reply, course, spools)
            if scratch is not None and scratch.due:
                yield Run(scratch.write)
            course.table.notify(Progress(reply.length, None), course.call)
            for data in complete:
                yield from hand_on(data)
    except ImgkitError as error:
        broken = error
    rest = reply.close()
    yield from _complete_on_disk(reply, course, spools)
    if broken is None and reply.held > course.max_reply_bytes:
        broken = _too_large(head, course, rest)
    if not reply.is_stream and rest is not None and broken is None:
        course.sent = False
        answer = yield from decoded(partial(course.provider.decode, head, rest, course.target, secrets))
        yield from arrivals.take(head, answer)
        return arrivals.answer
    if isinstance(broken, OutcomeUnknownError):
        broken.body = rest.raw() if rest is not None else b""
    if reply.is_stream and (broken is None or isinstance(broken, OutcomeUnknownError)) and _is_whole(rest):
        try:
            yield from hand_on(rest)
        except ImgkitError as error:
            broken = error
    if broken is None and not arrivals.answer.pictures:
        broken = _ended_early(head, reply)
    if broken is None:
        if not arrivals.enough:
            arrivals.warn("the stream ended with fewer pictures than were asked for")
        return arrivals.answer
    if arrivals.enough:
        arrivals.warn(f"the stream broke behind its last picture ({broken})"[:500])
        return arrivals.answer
    if isinstance(broken, ApiError | OutcomeUnknownError | StreamError | UnreadableReplyError):
        broken.images = arrivals.images
        broken.maybe_billed = broken.maybe_billed or bool(arrivals.images)
    try:
        raise broken
    finally:
        del broken  # or it would live as long as this frame, which is in its traceback


def _is_whole(data: JsonReply | None) -> TypeGuard[JsonReply]:
    """Whether an event lacks nothing but the blank line behind it."""
    if data is None:
        return False
    try:
        data.json()
    except ValueError:
        return False
    return True


def _too_large(head: Head, course: Course, rest: JsonReply | None) -> UnreadableReplyError:
    return UnreadableReplyError(
        f"HTTP {head.status} with an event of over {course.max_reply_bytes} bytes (request id "
        f"{head.request_id or 'not given'}): the stream was not read to its end and may have been "
        "billed. Ask for smaller pictures, or raise max_reply_bytes",
        request_id=head.request_id,
        body=rest.raw() if rest is not None else b"",
    )


def _ended_early(head: Head, reply: EventReply) -> StreamError:
    came = f"{reply.count} events" if reply.count else "not one event"
    return StreamError(
        f"HTTP {head.status}, but the stream ended before a picture was complete: {came} came (request id "
        f"{head.request_id or 'not given'}). It may have been billed; error.images has the pictures that did "
        "arrive. Try create_image, which needs no stream",
        maybe_billed=True,
        request_id=head.request_id,
    )


def _kept_on_disk(reply: EventReply, course: Course, spools: bool) -> Flow[None]:
    news = reply.news()
    if spools and news:
        yield Run(partial(course.account.write, news))


def _complete_on_disk(reply: EventReply, course: Course, spools: bool) -> Flow[None]:
    if spools:
        yield Run(partial(course.account.finish, reply.news()))
