"""The context of a call: its options, its state, and how it uses the cache."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

from imgkit.billing.reservations import ReservationGroup
from imgkit.core.config import check_seconds
from imgkit.core.core import Core
from imgkit.core.part_gate import PartGate
from imgkit.errors import ImgkitError, InvalidRequestError
from imgkit.images.inputs import OpenedInputs, OpenFile, Prepare, open_file, parse_prepare
from imgkit.images.part_files import PartFiles
from imgkit.images.saving import SavePlan
from imgkit.models import Attempt, ImageRequest, ImagesResponse, resolve_model
from imgkit.plugins.events import Call
from imgkit.providers.base import DecodedImages
from imgkit.providers.job_values import JobUpdate
from imgkit.wire.messages import Head
from imgkit.wire.plain_values import show_value, to_integer, to_text

if TYPE_CHECKING:
    from imgkit.core.job_keeper import JobKeeper
    from imgkit.jobs.job import Job
    from imgkit.runtime.flow import Flow

SaveTo = str | PathLike[str] | SavePlan | None
Strategy = Literal["auto", "native", "emulate"]
CacheMode = Literal["use", "refresh", "only", "off"]

ChoiceT = TypeVar("ChoiceT", bound=str)

_STRATEGIES: tuple[Strategy, ...] = ("auto", "native", "emulate")
_OPTION_DEFAULTS: Mapping[str, object] = {"cache": None, "replica": 0, "strategy": "auto"}
_CACHE_MODES: tuple[CacheMode, ...] = ("use", "refresh", "only", "off")


MAX_PARTIAL_IMAGES = 3
"""Partial images of one image (API reference of images/generations, 2026-11-23)."""


class CacheUse(NamedTuple):
    """How a call uses the cache.

    Attributes:
        mode: "use" reads and writes; "refresh" ignores entries from before the call; "only" sends
            nothing; "off" bypasses the cache.
        replica: number of an additional image for an equal request, 0 for the first.
        part: number of this request among the equal requests of one call, 0 for the first.
    """

    mode: CacheMode = "use"
    replica: int = 0
    part: int = 0

    @property
    def salt(self) -> str:
        """Text that tells equal requests apart in the cache key."""
        return f"{self.replica}.{self.part}" if self.part else str(self.replica)


class SentPart(NamedTuple):
    """The request for some of the images of a call.

    Attributes:
        call_id: id of the call.
        attempt: number of the attempt; 0 for all attempts to get these images.
        first: number of images before these.
        images: number of images that it asks for.
    """

    call_id: str
    attempt: int
    first: int
    images: int


class CallTurn(Protocol):
    """A request in flight, as the pace of a run sees it. Its methods are quick and idempotent."""

    def note_success(self) -> None:
        """The API has accepted the request."""

    def note_failure(self, error: ImgkitError) -> None:
        """The attempt has failed; it is no longer in flight."""

    def release(self) -> None:
        """The request is no longer in flight."""


class CallRecord(Protocol):
    """A record of a call outside of it, such as the row of a bulk run.

    The parts of a split call may use it at the same time.

    Attributes:
        may_block: whether `mark_sending`, `mark_ended` and `mark_delivered` may block.
    """

    may_block: bool

    @property
    def is_stopped(self) -> bool:
        """Whether nothing more shall be sent."""

    def take_turn(self, images: int) -> Flow[CallTurn]:
        """Wait until an attempt may be sent.

        Raises:
            NotSentError: nothing more shall be sent.
        """

    def note_reply(self, head: Head) -> None:
        """Learn from the head of a reply."""

    @property
    def is_stopping(self) -> bool:
        """Whether the call should send nothing again, and leave its job pending. Quick."""

    def mark_sending(self, part: SentPart) -> None:
        """Record that an attempt is about to be sent.

        Raises:
            ImgkitError: the record cannot be written; nothing is sent.
        """

    def mark_leaving(self, part: SentPart) -> None:
        """Record that the request of an attempt leaves now. Quick. A `NotSentError` prevents that."""

    def mark_ended(self, part: SentPart) -> None:
        """Record that an attempt ended without images, and cannot bring any later."""

    def mark_delivered(self, response: ImagesResponse, parts: Sequence[tuple[SentPart, int]]) -> None:
        """Record the saved images, before anything else that keeps their reply forgets it.

        Args:
            response: the images.
            parts: the requests that brought them, and the number of images of each, in their order.
        """


class CallOptions(NamedTuple):
    """Arguments of an operation that say how to carry it out.

    Attributes:
        save_to: file, folder or pattern for the images, None to keep them in memory.
        cache: use of the cache.
        timeout_s: seconds that the call may take, None for the service's limit.
        strategy: way to create variations.
        variation_prompt: prompt of the edit that emulates a variation, None for the default.
        prepare: treatment of input images, None to send them unchanged.
        record: a record of the call outside of it, None for none.
        missing: the images that are sent for, as pairs of the number of images before them and their count;
            None for all.
        open_input: opens the input images.
        new_reservations: makes the reservations of an attempt.
    """

    save_to: SaveTo = None
    cache: CacheUse = CacheUse()
    timeout_s: float | None = None
    strategy: Strategy = "auto"
    variation_prompt: str | None = None
    prepare: Prepare | None = None
    record: CallRecord | None = None
    missing: tuple[tuple[int, int], ...] | None = None
    open_input: OpenFile = open_file
    new_reservations: Callable[[], ReservationGroup] = ReservationGroup


def parse_options(arguments: Mapping[str, Any]) -> CallOptions:
    """Return the options among the arguments of an operation.

    Args:
        arguments: all arguments by name. Missing ones keep their default.

    Raises:
        InvalidRequestError: an option has an unknown value; names every such option.
    """
    given = {name: arguments.get(name, default) for name, default in _OPTION_DEFAULTS.items()}
    cache, strategy = _find_choice(given["cache"], _CACHE_MODES), _find_choice(given["strategy"], _STRATEGIES)
    replica = to_integer(given["replica"])
    problems = {}
    if given["cache"] is not None and cache is None:
        problems["cache"] = _describe_choice(given["cache"], _CACHE_MODES)
    if replica is None or replica < 0:
        problems["replica"] = "Must be a whole number from 0 on."
    if problems or replica is None:
        raise InvalidRequestError(problems)
    if strategy is None:
        raise InvalidRequestError({"strategy": _describe_choice(given["strategy"], _STRATEGIES)})
    return CallOptions(
        save_to=arguments.get("save_to"),
        cache=CacheUse(cache or "use", replica),
        timeout_s=arguments.get("timeout_s"),
        strategy=strategy,
        variation_prompt=arguments.get("variation_prompt"),
        prepare=parse_prepare(arguments.get("prepare")),
        record=arguments.get("record"),
        missing=arguments.get("missing"),
        open_input=arguments.get("open_input", open_file),
        new_reservations=arguments.get("new_reservations", ReservationGroup),
    )


def _find_choice(given: object, choices: tuple[ChoiceT, ...]) -> ChoiceT | None:
    text = to_text(given)
    return next((choice for choice in choices if choice == text), None)


def _describe_choice(given: object, choices: tuple[str, ...]) -> str:
    return f"Unknown value {show_value(given)}. Choose one of {', '.join(map(repr, choices))}."


def check_partial_images(partial_images: object) -> int | None:
    """Return the number of partial images, None for none given."""
    if partial_images is None:
        return None
    number = to_integer(partial_images)
    if number is None or not 0 <= number <= MAX_PARTIAL_IMAGES:
        problem = f"Must be a whole number from 0 to {MAX_PARTIAL_IMAGES}."
        raise InvalidRequestError({"partial_images": problem})
    return number


class FetchedImages(NamedTuple):
    """A decoded reply and its source.

    Attributes:
        head: status and headers of the reply.
        decoded: its images and values.
        cached: whether it came from the cache or from a concurrent call.
        update: the job that the provider accepted in place of images, None for images.
    """

    head: Head
    decoded: DecodedImages
    cached: bool = False
    update: JobUpdate | None = None


@dataclass(slots=True)
class CallContext:
    """The state of a call, or of one of its parts.

    Attributes:
        core: the service's parts when the call started; plugins added later do not join it.
        call: the call as plugins see it.
        options: how to carry it out.
        deadline: end of the call in monotonic seconds.
        cleanup: callbacks that undo what the call holds; they run when it ends. Synchronous and quick.
        cache_use: use of the cache; parts of a split call have one each.
        attempts: finished attempts.
        attempt_numbers: counts attempts from 1 on; the parts of a call share it.
        started: observers know that the call sends its first request.
        attempt: number of the latest attempt, 0 before the first.
        in_flight: a request is with the backend and its outcome is not known yet.
        request: the request of the user; once started, after the `prepare` hooks and the model's rules.
        shared: the result was produced by a concurrent identical call.
        reservations: ledger reservations of the latest attempt; closed when the caller has the images.
        new_part_files: makes the part files of a reply for ``save_to=``; None keeps images in memory.
        parts: contexts of a split call, empty for a single request.
        gate: shared by the parts of a split call, None for any other request.
        mark_sent: marks the lease of the cache entry before an attempt of this number is sent; None takes
            the mark back. May block. None without a lease.
        emitted: a stream event has reached the caller, so nothing is sent again.
        response: the response that the caller has, or will have when the call ends.
        plan: the plan of ``save_to=``, None without it.
        inputs: the opened input images.
        job_keeper: keeps the job that the provider has accepted, None without a job.
        first_index: number of images that the parts before this one make.
        images_of_call: number of images that the whole call asked for, 0 for the count of the request.
        facts: facts of a job's request for sidecars, None to derive them from the request.
    """

    core: Core
    call: Call
    options: CallOptions
    deadline: float
    cleanup: ExitStack
    cache_use: CacheUse
    request: ImageRequest
    attempts: list[Attempt] = field(default_factory=list)
    attempt_numbers: Iterator[int] = field(default_factory=lambda: count(1))
    attempt: int = 0
    in_flight: bool = False
    started: bool = False
    shared: bool = False
    reservations: ReservationGroup = field(default_factory=ReservationGroup)
    new_part_files: Callable[[], PartFiles] | None = None
    parts: list[CallContext] = field(default_factory=list)
    gate: PartGate | None = None
    mark_sent: Callable[[int | None], object] | None = None
    emitted: bool = False
    response: ImagesResponse | None = None
    plan: SavePlan | None = None
    inputs: OpenedInputs = field(default_factory=OpenedInputs)
    job_keeper: JobKeeper | None = None
    first_index: int = 0
    images_of_call: int = 0
    facts: Mapping[str, object] | None = None

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The jobs of this call that the provider has accepted and that are not delivered."""
        keepers = (context.job_keeper for context in (self, *self.parts))
        return tuple(keeper.job for keeper in keepers if keeper is not None and keeper.job is not None)

    def name_part(self, attempt: int = 0) -> SentPart:
        """Return the name of an attempt of this request; 0 stands for all its attempts."""
        return SentPart(self.call.id, attempt, self.first_index, self.request.n or 1)

    @property
    def maybe_billed(self) -> bool:
        """Whether the outcome of a request of this call, or of a part, is unknown."""
        return self.in_flight or any(part.in_flight for part in self.parts)

    def add_part(self, number: int, gate: PartGate, first_index: int = 0) -> CallContext:
        """Add and return the context of one request of a split call.

        Args:
            number: position among the parts, from 0.
            first_index: number of images that the parts before it make.
            gate: the gate of the call.
        """
        part = replace(
            self,
            attempts=[],
            in_flight=False,
            reservations=ReservationGroup(),
            parts=[],
            job_keeper=None,
            first_index=first_index,
            gate=gate,
            cleanup=ExitStack(),
            cache_use=self.cache_use._replace(part=number),
        )
        self.parts.append(part)
        return part

    def part_files_in(self, plan: SavePlan) -> None:
        """Send the image bytes of replies to part files in the folder of `plan` while they arrive."""
        # Partial images need no digest, and most of a stream is partial images.
        digests = plan.needs_digest and not self.call.partial_images
        self.new_part_files = partial(plan.make_part_files, digests, self.cleanup)

    def abort_reservations(self, error: BaseException) -> None:
        """End the reservations of an interrupted call and of its parts. Quick."""
        for context in (self, *self.parts):
            context.reservations.abort(error)


def start_call(
    core: Core, request: ImageRequest, options: CallOptions, partial_images: int | None = None
) -> CallContext:
    """Return the context of a call that starts now.

    Args:
        core: parts of the service.
        request: the validated request.
        options: how to carry it out.
        partial_images: partial images per image of a stream, None for a call that is no stream.

    Raises:
        ConfigurationError: the timeout is not a valid number of seconds.
    """
    timeout_s = options.timeout_s
    limit_s = core.limits.timeout_s if timeout_s is None else check_seconds("timeout_s", timeout_s)
    call = Call(
        id=secrets.token_hex(16),
        operation=request.operation,
        backend=core.backend_name,
        provider=core.provider_name,
        base_url=core.target.base_url,
        host_class=core.target.host_class,
        timeout_s=limit_s,
        partial_images=partial_images,
        model=resolve_model(request, core.target.model),
    )
    return CallContext(
        core=core,
        call=call,
        options=options,
        deadline=time.monotonic() + limit_s,
        cleanup=ExitStack(),
        cache_use=options.cache,
        request=request,
    )
