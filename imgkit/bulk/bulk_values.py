"""The values of a run: its options, the steps that it takes, and what an error makes of a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from os import PathLike
from pathlib import Path
from typing import NamedTuple, TypedDict

from imgkit.billing.spool_record import SpooledReply
from imgkit.bulk.manifest import BulkRow, State
from imgkit.core.context import SentPart
from imgkit.core.recovery import drop_record
from imgkit.errors import (
    AuthenticationError,
    BudgetExceededError,
    ConfigurationError,
    ImgkitError,
    JobPendingError,
    ModerationBlockedError,
    NotSentError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
)
from imgkit.images.image import Image
from imgkit.jobs.job import Job
from imgkit.models import Cost, ImagesResponse, Meta
from imgkit.plugins.engines import Engine
from imgkit.redact import format_suggestion
from imgkit.wire.json_values import JsonMapping
from imgkit.wire.plain_values import show_value, to_integer, to_number


class BulkOptions(TypedDict, total=False):
    """The options of a run.

    Attributes:
        run_folder: the folder of the manifest; the output folder by default. An output at a URL needs it.
        defaults: values of columns that a row leaves out.
        most_in_flight: most requests at once; by default the limits of the providers, 16 for each that has
            none.
        per_minute: most starts in a minute, for each provider; by default its limit, if it is known.
        images_per_minute: most images in a minute, for each provider; by default its limit, if it is known.
        amend: let requests that changed under their id wait again.
        dedupe: send equal requests once; the others copy the outcome under their own ids. By default, equal
            requests are different images.
        extend: add requests to a run that has none of them. By default its folder is refused.
        retry_unknown: send requests of unknown outcome again. They may be paid twice.
        stop_after_blocked: refusals by the content policy among the latest 100 requests that end the run, 20
            by default.
        has_prompts: list the prompts beside the images, True by default.
        skip: receives the problem of an invalid row, which is left out. By default it is raised.
        timeout_s: seconds of each call; the service's limit by default.
        progress: receives a `BulkProgress` at the start, about twice a second and at the end, in the thread
            or task that iterates. Its exception ends the run once the requests in flight have ended.
        engine: where requests are carried out: "local" (the default), "dask", the name of a plugin's engine,
            or an instance.
        engine_options: arguments of an engine that is given by its name.
        key_file: file with the key on the machines of an engine's workers; else their environment has it.
        drain_s: seconds that a worker which is gone has for the request that it was sending, 30 by default.
    """

    run_folder: str | PathLike[str]
    defaults: JsonMapping
    most_in_flight: int
    per_minute: float
    images_per_minute: float
    amend: bool
    dedupe: bool
    extend: bool
    retry_unknown: bool
    stop_after_blocked: int
    has_prompts: bool
    skip: Callable[[str], object]
    timeout_s: float
    progress: Callable[[BulkProgress], object]
    engine: str | Engine
    engine_options: Mapping[str, object]
    key_file: str
    drain_s: float


MOST_REQUESTS_IN_FLIGHT, MOST_BLOCKED = 1000, 100
"""Most requests in flight; latest requests among which refusals by the content policy are counted."""

_NOUNS = {
    "progress": "a function",
    "skip": "a function",
    "defaults": "a mapping",
    "engine_options": "a mapping",
}


def check_options(options: BulkOptions) -> None:
    """Refuse unknown options, limits that are no positive numbers, and options of another type.

    Raises:
        ConfigurationError: an option is wrong; the message names it.
    """
    for name in options:
        if name not in BulkOptions.__annotations__:
            known = ", ".join(BulkOptions.__annotations__)
            hint = format_suggestion(name, BulkOptions.__annotations__)
            raise ConfigurationError(
                f"A run has no option {name[:80]!r}{hint}. Its options are {known}. Parameters of the "
                "requests belong in defaults={…}.",
                field=name,
            )
    most = options.get("most_in_flight")
    count = to_integer(most)
    if most is not None and (count is None or not 1 <= count <= MOST_REQUESTS_IN_FLIGHT):
        bounds = f"a whole number from 1 to {MOST_REQUESTS_IN_FLIGHT}"
        raise ConfigurationError(
            f"most_in_flight must be {bounds}, not {show_value(most)}.", field="most_in_flight"
        )
    for name, noun in _NOUNS.items():
        value: object = options.get(name)
        fits = callable(value) if noun == "a function" else isinstance(value, Mapping)
        if value is not None and not fits:
            raise ConfigurationError(f"{name} must be {noun}, not {show_value(value)}.", field=name)
    count = to_integer(options.get("stop_after_blocked", 1))
    if count is None or not 1 <= count <= MOST_BLOCKED:
        raise ConfigurationError(
            f"stop_after_blocked must be a whole number from 1 to {MOST_BLOCKED}, not "
            f"{show_value(options.get('stop_after_blocked'))}.",
            field="stop_after_blocked",
        )
    drain_s = to_number(options.get("drain_s", 0))
    if drain_s is None or drain_s < 0:
        given_s = show_value(options.get("drain_s"))
        raise ConfigurationError(f"drain_s must be 0 or more seconds, not {given_s}.", field="drain_s")
    for name in ("per_minute", "images_per_minute", "timeout_s"):
        given = options.get(name)
        number = to_number(given)
        if given is not None and (number is None or number <= 0):
            raise ConfigurationError(
                f"{name} must be a positive number, not {show_value(given)}.", field=name
            )


class BulkOutcome(NamedTuple):
    """The outcome of a request of a run.

    Attributes:
        id: its name in the run.
        state: what became of it, such as "done".
        paths: the files of its images.
        cost: the cost in dollars, None if it is unknown.
        error: the error that ended it, None for none.
        urls: the URLs of its images, if the output is a URL.
    """

    id: str
    state: State
    paths: tuple[Path, ...] = ()
    cost: Decimal | None = None
    error: ImgkitError | None = None
    urls: tuple[str, ...] = ()


class BulkProgress(NamedTuple):
    """The progress of a run, as the option `progress` of `bulk` receives it.

    >>> import tempfile
    >>> from imgkit import ImageService
    >>> seen: list[BulkProgress] = []
    >>> with ImageService() as images:
    ...     outcomes = list(images.bulk(["a fox"], folder=tempfile.mkdtemp(), progress=seen.append))
    >>> seen[-1].counts["done"], seen[-1].in_flight
    (1, 0)

    Attributes:
        counts: number of requests in each state. Requests in flight count as waiting, or as accepted.
        in_flight: number of requests in flight.
        per_minute: images a minute, over the last minute.
        left_s: seconds until no request waits, None if that is unknown.
        spent: the known cost of this process's requests, in dollars; all that its budget has spent, if the
            service has one.
        reserved: the amount that the budget reserves for requests in flight, None without a budget.
        left: the amount that the budget has left, None without a budget.
        last_error: the latest error in short, None for none.
        elapsed_s: seconds since the start of this process's part of the run.
        stopped: why nothing more is sent, None while the run goes on.
    """

    counts: Mapping[State, int]
    in_flight: int
    per_minute: float
    left_s: float | None
    spent: Decimal
    reserved: Decimal | None
    left: Decimal | None
    last_error: str | None
    elapsed_s: float
    stopped: str | None


class KeptReply(NamedTuple):
    """A reply that the spool has kept.

    Attributes:
        record: the record in the spool.
        part: the request that it answers.
        images: its images.
    """

    record: SpooledReply
    part: SentPart
    images: tuple[Image, ...]

    def to_response(self, images: tuple[Image, ...]) -> ImagesResponse:
        """Return the response that the call would have returned, as far as the record tells."""
        facts: JsonMapping = self.record.facts
        meta = Meta(
            operation=facts.get("operation", "create_image"),
            call_id=self.part.call_id,
            backend=str(facts.get("backend", "")),
            provider=str(facts.get("provider", "")),
            model=facts.get("model"),
        )
        return ImagesResponse(images=images, meta=meta, cost=Cost(note="the call was interrupted"))

    def forget(self) -> None:
        """Remove the record: its images are elsewhere. May block."""
        drop_record(self.record)


class Work(NamedTuple):
    """A request that may start now, or the end of an earlier one.

    Attributes:
        row: the request.
        jobs: its pending jobs at one provider.
        kept: replies to some of its requests, whose images are at URLs.
        may_repeat: send for images again whose URLs have expired; they may be paid twice.
        later: its pending jobs at other providers, which are collected afterwards.
    """

    row: BulkRow
    jobs: tuple[Job, ...] = ()
    kept: tuple[KeptReply, ...] = ()
    may_repeat: bool = False
    later: tuple[Job, ...] = ()

    @property
    def is_earlier(self) -> bool:
        """Whether it collects what earlier requests have left. Missing images are sent for afterwards."""
        return bool(self.jobs or self.kept)

    @property
    def provider(self) -> str | None:
        """The provider that has its jobs, or that the row names; None for that of the service."""
        if self.jobs:
            return self.jobs[0].provider
        name: str | None = self.row.request.get("provider")
        return name


class Pause(NamedTuple):
    """Nothing may start for some seconds; None until a request in flight ends."""

    wait_s: float | None


FATAL = (
    AuthenticationError,
    PermissionDeniedError,
    QuotaExceededError,
    BudgetExceededError,
    ConfigurationError,
)
"""Errors that any other request of the run would meet."""

MAY_RETRY = (NotSentError, RateLimitError, ServerError)
"""Errors after which another run sends the request once more."""


def choose_state(error: ImgkitError) -> State:
    """Return what became of a request that ended with an error."""
    if isinstance(error, JobPendingError):
        return "accepted"
    if isinstance(error, ModerationBlockedError):
        return "blocked"
    if error.maybe_billed:
        return "unknown"
    return "waiting" if isinstance(error, FATAL) else "failed"


def cost_in_usd(response: ImagesResponse) -> Decimal | None:
    """Return the cost of a response in dollars, None if it is unknown or in another currency."""
    return response.cost.amount if response.cost.currency == "USD" else None
