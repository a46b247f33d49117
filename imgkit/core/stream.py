"""What has arrived of a stream: partial pictures, complete ones, and the reply that they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeGuard, TypeVar

from imgkit.core import responses as results
from imgkit.core.config import Core
from imgkit.core.context import Fetched
from imgkit.core.send import CallContext, read_response
from imgkit.errors import ApiError, ImgkitError, OutcomeUnknownError, StreamError, UnreadableReplyError
from imgkit.images.image import Image
from imgkit.images.inputs import OpenedInputs
from imgkit.images.part_files import PartFile
from imgkit.images.saving import SavePlan
from imgkit.models import Completed, ImageRequest, ImagesResponse, PartialImage
from imgkit.plugins.events import Progress
from imgkit.providers.base import DecodedImage, DecodedImages, DecodedPartialImage, StreamingProvider
from imgkit.redact import Secret
from imgkit.runtime.flow import EmitEvent, Flow, ReadChunk, RunBlocking
from imgkit.wire.event_body import EventReply
from imgkit.wire.json_body import InMemory, JsonReply
from imgkit.wire.messages import Head

EVENT_STREAM = "text/event-stream"

T = TypeVar("T")


def read_events(
    provider: StreamingProvider,
    arrivals: StreamCollector,
    head: Head,
    course: CallContext,
    secrets: tuple[Secret, ...],
) -> Flow[DecodedImages]:
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
        return (yield from read_response(head, course, secrets))
    says_events = head.headers.get("content-type", "").lower().startswith(EVENT_STREAM)
    scratch = course.scratch() if course.scratch is not None else None
    hold = InMemory if scratch is None else scratch.new
    reply = EventReply(provider.base64_keys, hold, says_events=says_events)

    def decoded(decode: Callable[[], T]) -> Flow[T]:
        if scratch is None or not scratch.used:
            return decode()
        yield RunBlocking(scratch.write)
        found: T = yield RunBlocking(decode)  # which looks at pictures that are on disk
        return found

    def hand_on(data: JsonReply) -> Flow[None]:
        found = yield from decoded(partial(provider.decode_event, head, data, course.target, secrets))
        if found is not None:
            yield from arrivals.take(head, found)

    spools = course.account.spools
    if spools:
        yield RunBlocking(partial(course.account.begin, head))
    broken: ImgkitError | None = None
    try:
        while not reply.done and reply.held <= course.max_reply_bytes and (chunk := (yield ReadChunk())):
            complete = reply.feed(chunk)
            del chunk  # it is not needed while the next one is read
            yield from _kept_on_disk(reply, course, spools)
            if scratch is not None and scratch.due:
                yield RunBlocking(scratch.write)
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


def _too_large(head: Head, course: CallContext, rest: JsonReply | None) -> UnreadableReplyError:
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


def _kept_on_disk(reply: EventReply, course: CallContext, spools: bool) -> Flow[None]:
    news = reply.news()
    if spools and news:
        yield RunBlocking(partial(course.account.write, news))


def _complete_on_disk(reply: EventReply, course: CallContext, spools: bool) -> Flow[None]:
    if spools:
        yield RunBlocking(partial(course.account.finish, reply.news()))


class StreamCollector:
    """Hands the events of one call on, and keeps its pictures.

    Args:
        core, course: the service and the call.
        request, inputs: as they were prepared.
        plan: where complete pictures are saved, before their events are handed on.
        began: when the call began, by the course's clock.
        warnings: what is to be said of the request.

    Attributes:
        images: the complete pictures, and the last partial one of the picture that is being made.
    """

    def __init__(
        self,
        core: Core,
        course: CallContext,
        request: ImageRequest,
        inputs: OpenedInputs,
        plan: SavePlan | None,
        began: float,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self._core = core
        self._course = course
        self._request = request
        self._inputs = inputs
        self._plan = plan
        self._began = began
        self._wanted = request.n or (request.extra_body or {}).get("n") or 1
        self._answer = DecodedImages(pictures=(), warnings=warnings)
        self._complete: list[Image] = []
        self._partial: Image | None = None
        self._partials = 0

    @property
    def images(self) -> tuple[Image, ...]:
        """See the class."""
        return (*self._complete, *([self._partial] if self._partial else []))

    @property
    def answer(self) -> DecodedImages:
        """All answers, as one."""
        return self._answer

    @property
    def enough(self) -> bool:
        """Whether as many pictures are complete as were asked for."""
        return len(self._complete) >= self._wanted

    def take(self, head: Head, found: DecodedPartialImage | DecodedImages) -> Flow[None]:
        """Hand on what an event, or a whole reply, says."""
        if isinstance(found, DecodedPartialImage):
            yield from self._take_partial(head, found)
            return
        self._add(found)
        for number in range(len(found.pictures)):
            yield from self._take_complete(head, found, last=number == len(found.pictures) - 1)

    def response(self, head: Head) -> ImagesResponse:
        """Return the reply as far as it has come."""
        whole = self._response(head, self._answer)
        return replace(whole, images=tuple(self._complete))

    def warn(self, text: str) -> None:
        """Add a warning to the reply."""
        self._answer = replace(self._answer, warnings=(*self._answer.warnings, text))

    def _take_partial(self, head: Head, found: DecodedPartialImage) -> Flow[None]:
        index = self._partials if found.index is None else found.index
        if isinstance(found.source, PartFile):
            found.source.lend()
        picture = DecodedImage(data=found.data, source=found.source)
        (image,) = self._response(head, DecodedImages(pictures=(picture,))).images
        self._partial = replace(
            image, index=len(self._complete), about={**image.about, "partial_image_index": index}
        )
        self._partials += 1
        yield from self._emit(PartialImage(index, self._partial))

    def _take_complete(self, head: Head, found: DecodedImages, *, last: bool) -> Flow[None]:
        so_far = self._response(head, self._answer)
        image = so_far.images[len(self._complete)]
        if self._plan is not None and image.url is None:  # those at a URL are fetched when the stream is over
            try:
                count = max(self._wanted, len(so_far.images))
                image = yield RunBlocking(partial(results.save_image, image, self._plan, count))
            except ImgkitError as error:  # it is tried once more when the stream is over
                image = yield RunBlocking(partial(results.load_into_memory, image))
                self.warn(f"a picture could not be saved as soon as it was complete: {error}")
        self._complete.append(image)
        self._partial, self._partials = None, 0
        if self.enough and last and (self._plan is None or all(one.path for one in self._complete)):
            self._course.delivered = self.response(head)
        yield from self._emit(
            Completed(
                image,
                usage=found.usage,
                created=found.created,
                background=found.background,
                output_format=found.output_format,
                size=found.size,
                quality=found.quality,
                extra=found.extra,
                meta=so_far.meta,
            )
        )

    def _emit(self, event: PartialImage | Completed) -> Flow[None]:
        self._course.emitted = True
        yield EmitEvent(event)

    def _add(self, found: DecodedImages) -> None:
        """Merge an answer with those before it; where both say something, the later one counts."""
        before = self._answer
        self._answer = replace(
            before,
            **{
                name: value if (value := getattr(found, name)) is not None else getattr(before, name)
                for name in ("created", "usage", "background", "output_format", "size", "quality")
            },
            pictures=(*before.pictures, *found.pictures),
            warnings=(*before.warnings, *found.warnings),
            damaged=before.damaged or found.damaged,
            extra={**before.extra, **found.extra},
        )

    def _response(self, head: Head, answer: DecodedImages) -> ImagesResponse:
        return results.build_response(
            self._core, self._course, self._request, self._inputs, Fetched(head, answer), self._began
        )
