"""What has arrived of a stream: partial pictures, complete ones, and the reply that they make."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from imgkit import results
from imgkit.cache_use import Fetched
from imgkit.core import Core
from imgkit.errors import ImgkitError
from imgkit.exchange import Course
from imgkit.flow import Emit, Flow, Run
from imgkit.image import Image
from imgkit.models import ImageRequest, ImagesResponse
from imgkit.providers.base import Answer, OpenedInputs, PartialPicture, Picture
from imgkit.saving import SavePlan
from imgkit.scratch import ScratchFile
from imgkit.stream_events import Completed, PartialImage
from imgkit.wire import Head


class Arrivals:
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
        course: Course,
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
        self._answer = Answer(pictures=(), warnings=warnings)
        self._complete: list[Image] = []
        self._partial: Image | None = None
        self._partials = 0

    @property
    def images(self) -> tuple[Image, ...]:
        """See the class."""
        return (*self._complete, *([self._partial] if self._partial else []))

    @property
    def answer(self) -> Answer:
        """All answers, as one."""
        return self._answer

    @property
    def enough(self) -> bool:
        """Whether as many pictures are complete as were asked for."""
        return len(self._complete) >= self._wanted

    def take(self, head: Head, found: PartialPicture | Answer) -> Flow[None]:
        """Hand on what an event, or a whole reply, says."""
        if isinstance(found, PartialPicture):
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

    def _take_partial(self, head: Head, found: PartialPicture) -> Flow[None]:
        index = self._partials if found.index is None else found.index
        if isinstance(found.source, ScratchFile):
            found.source.lend()
        picture = Picture(data=found.data, source=found.source)
        (image,) = self._response(head, Answer(pictures=(picture,))).images
        self._partial = replace(
            image, index=len(self._complete), about={**image.about, "partial_image_index": index}
        )
        self._partials += 1
        yield from self._emit(PartialImage(index, self._partial))

    def _take_complete(self, head: Head, found: Answer, *, last: bool) -> Flow[None]:
        so_far = self._response(head, self._answer)
        image = so_far.images[len(self._complete)]
        if self._plan is not None and image.url is None:  # those at a URL are fetched when the stream is over
            try:
                count = max(self._wanted, len(so_far.images))
                image = yield Run(partial(results.saved, image, self._plan, count))
            except ImgkitError as error:  # it is tried once more when the stream is over
                image = yield Run(partial(results.kept_in_memory, image))
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
        yield Emit(event)

    def _add(self, found: Answer) -> None:
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

    def _response(self, head: Head, answer: Answer) -> ImagesResponse:
        return results.response_of(
            self._core, self._course, self._request, self._inputs, Fetched(head, answer), self._began
        )
