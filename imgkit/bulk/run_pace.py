"""The pace of a run as its requests see it: each has a turn before it starts, and before each retry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from imgkit.bulk.bulk_values import MOST_REQUESTS_IN_FLIGHT, BulkOptions, BulkOutcome, Work
from imgkit.catalogue.facts import PaceFacts
from imgkit.core.core import Core
from imgkit.errors import ImgkitError, NotSentError, RateLimitError
from imgkit.pace.pace import MOST_IN_FLIGHT, Pace, PaceLimits, Turn
from imgkit.pace.pace_file import find_pace_file
from imgkit.runtime.flow import Flow, sleep
from imgkit.wire.messages import Head
from imgkit.wire.plain_values import to_integer
from imgkit.wire.urls import origin

MOST_REFUSALS = 10
"""Refusals of a request ("too many requests") after which it has failed; until then it waits again."""

MOST_WAVES = 10
"""Waves of refusals without a success between them after which a run ends."""


def choose_limits(
    facts: PaceFacts | None,
    requests_in_flight: int | None = None,
    requests_per_minute: float | None = None,
    images_per_minute: float | None = None,
) -> PaceLimits:
    """Return the limits of a run: its options, else the facts about the provider.

    >>> choose_limits(None, requests_per_minute=30)
    PaceLimits(requests_in_flight=16, images_in_flight=0, requests_per_minute=30, images_per_minute=0)

    Args:
        facts: facts about the provider, None for none known.
        requests_in_flight, requests_per_minute, images_per_minute: the options, None for none given.
    """
    return PaceLimits(
        requests_in_flight or (facts and facts.requests_in_flight) or MOST_IN_FLIGHT,
        (facts and facts.images_in_flight) or 0,
        requests_per_minute or (facts and facts.requests_per_minute) or 0,
        images_per_minute or (facts and facts.images_per_minute) or 0,
    )


class RunPace:
    """The turns of a run. One thread calls `meet`, `try_start` and `end`; the flows run in any.

    Each provider has a pace of its own, which all runs of its account share.

    Args:
        core: parts of the service.
        options: options of the run. Its rates hold for each provider.
        is_stopped: whether the run sends nothing more.
        find_core: returns the core that carries out a row; raises ConfigurationError if there is none.
    """

    def __init__(
        self,
        core: Core,
        options: BulkOptions,
        is_stopped: Callable[[], bool],
        find_core: Callable[[Work], Core],
    ) -> None:
        self._core = core
        self._options = options
        self._check_stopped = is_stopped
        self._find_core = find_core
        self._limits = {core.provider_name: self._choose_limits(core)}
        own = Pace(self._limits[core.provider_name], is_gentle=not _is_free(core))
        self._paces: dict[str | None, Pace] = {None: own, core.provider_name: own}
        self._turns: dict[str, Turn] = {}
        self._rows: dict[str, Pace] = {}
        self._calls: Counter[Pace] = Counter()
        self._refusals: dict[str, int] = {}

    @property
    def most_in_flight(self) -> int:
        """Most requests at once: the option, or the limits of all providers that rows have named."""
        most = self._options.get("most_in_flight")
        limits = sum(int(limits.requests_in_flight) for limits in self._limits.values())
        return most or min(limits, MOST_REQUESTS_IN_FLIGHT)

    @property
    def is_stopped(self) -> bool:
        """Whether the run sends nothing more."""
        return self._check_stopped()

    def share(self) -> None:
        """Share the pace with the other runs of the account. May block.

        Raises:
            ConfigurationError: the state folder cannot be used.
        """
        own = self._open_pace(self._core)
        self._paces = {None: own, self._core.provider_name: own}

    def meet(self, works: Iterable[Work]) -> None:
        """Get ready for the providers of requests. May block.

        Args:
            works: the requests.
        """
        for work in works:
            name = work.provider
            if name in self._paces:
                continue
            try:
                core = self._find_core(work)
            except ImgkitError:  # its outcome tells
                core = self._core
            if core is not self._core:
                self._limits[core.provider_name] = self._choose_limits(core)
            self._paces[name] = self._paces[None] if core is self._core else self._open_pace(core)

    def _choose_limits(self, core: Core) -> PaceLimits:
        options = self._options
        return choose_limits(
            core.catalogue.find_pace(core.target.host_class),
            options.get("most_in_flight"),
            options.get("per_minute"),
            options.get("images_per_minute"),
        )

    def _open_pace(self, core: Core) -> Pace:
        """Return the pace of an account, which its runs share. May block."""
        folder, limits = core.settings.state_folder, self._limits[core.provider_name]
        if folder is None or _is_free(core):
            return Pace(limits, is_gentle=not _is_free(core))
        target = core.target
        place = (core.provider_name, *map(str, origin(target.base_url)))
        account = (*place, target.organization or "", target.project or "")
        return Pace(limits, find_pace_file(folder, account, core.sent.known))

    def try_start(self, work: Work, lost: int) -> float:
        """Start a request and return 0; else return the seconds after which it should ask again. Quick.

        Args:
            work: the request.
            lost: calls of the service's own provider whose workers are gone.
        """
        pace = self._paces[work.provider]
        images = to_integer(work.row.request.get("n")) or 1
        calls = self._calls[pace] - (lost if pace is self._paces[None] else 0)
        turn = pace.try_start(images, is_new=not work.jobs, calls=calls)
        if not isinstance(turn, Turn):
            return turn
        self._turns[work.row.id] = turn
        self._rows[work.row.id] = pace
        self._calls[pace] += 1
        return 0.0

    def take_turn(self, row_id: str, images: int) -> Flow[Turn]:
        """Wait until a call of a request may send an attempt.

        The first attempt has its turn since `try_start`, and is sent even if the run was stopped since then.
        A retry, and another part, wait for a turn.

        Raises:
            NotSentError: the run was stopped.
        """
        first, pace = self._turns.pop(row_id, None), self._rows.get(row_id, self._paces[None])
        if first is not None:
            first.shrink(images)
            return first
        pace.add_caller()
        try:
            while not self.is_stopped:
                found = pace.try_start(images, is_call=True)
                if isinstance(found, Turn):
                    return found
                yield from sleep(found)
        finally:
            pace.remove_caller()
        raise NotSentError("The run was stopped. Nothing was sent.", permanent=True)

    def note_reply(self, row_id: str, head: Head) -> None:
        """Learn the limits that the reply to a request tells."""
        self._rows.get(row_id, self._paces[None]).note_reply(head.headers)

    def end(self, outcome: BulkOutcome) -> None:
        """End a request, and its turn if its call has not taken it: a job, or a call in another process."""
        pace = self._rows.pop(outcome.id, None)
        if pace is not None:
            self._calls[pace] -= 1
        turn = self._turns.pop(outcome.id, None)
        if turn is not None:
            if outcome.error is None:
                turn.note_success()
            else:
                turn.note_failure(outcome.error)
            turn.release()

    def may_go_again(self, row_id: str, error: ImgkitError, *, was_sent: bool) -> bool:
        """Whether a request that ended with an error waits for another turn in this run, or the next."""
        if isinstance(error, NotSentError):
            return self.is_stopped and not was_sent
        if not isinstance(error, RateLimitError):
            return False
        count = self._refusals[row_id] = self._refusals.get(row_id, 0) + 1
        return count < MOST_REFUSALS

    @property
    def is_refused(self) -> bool:
        """Whether the server has refused requests for so long that the run should end."""
        return any(pace.refusals >= MOST_WAVES for pace in self._paces.values())

    def close(self) -> None:
        """Take this run out of the shared state. Idempotent."""
        for pace in set(self._paces.values()):
            pace.close()


def _is_free(core: Core) -> bool:
    """Return whether requests cost nothing, and have no pace."""
    return core.target.host_class == "offline"
