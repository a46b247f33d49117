"""The pace of a run as its requests see it: each has a turn before it starts, and before each retry."""

from __future__ import annotations

from collections.abc import Callable

from imgkit.bulk.bulk_values import BulkOptions, BulkOutcome, Work
from imgkit.bulk.pace import Pace, Turn, choose_limits
from imgkit.bulk.pace_file import find_pace_file
from imgkit.core.core import Core
from imgkit.errors import ImgkitError, NotSentError, RateLimitError
from imgkit.runtime.flow import Flow, sleep
from imgkit.wire.messages import Head
from imgkit.wire.plain_values import to_integer
from imgkit.wire.urls import origin

MOST_REFUSALS = 10
"""Refusals of a request ("too many requests") after which it has failed; until then it waits again."""

MOST_WAVES = 10
"""Waves of refusals without a success between them after which a run ends."""


class RunPace:
    """The turns of a run. One thread calls `try_start` and `end`; the flows run in any.

    Args:
        core: parts of the service.
        options: options of the run.
        is_stopped: whether the run sends nothing more.

    Attributes:
        most_in_flight: most requests at once.
    """

    def __init__(self, core: Core, options: BulkOptions, is_stopped: Callable[[], bool]) -> None:
        target = core.target
        self._core = core
        self._check_stopped = is_stopped
        self._limits = choose_limits(
            core.catalogue.find_pace(target.host_class),
            options.get("most_in_flight"),
            options.get("per_minute"),
            options.get("images_per_minute"),
        )
        self.most_in_flight = int(self._limits.requests_in_flight)
        self._is_free = target.host_class == "offline"
        self._pace = Pace(self._limits, is_gentle=not self._is_free)
        self._turns: dict[str, Turn] = {}
        self._refusals: dict[str, int] = {}

    @property
    def is_stopped(self) -> bool:
        """Whether the run sends nothing more."""
        return self._check_stopped()

    def share(self) -> None:
        """Share the pace with the other runs of the account. May block.

        Raises:
            ConfigurationError: the state folder cannot be used.
        """
        core, target = self._core, self._core.target
        folder = core.settings.state_folder
        if folder is None or self._is_free:
            return
        place = (core.provider_name, *map(str, origin(target.base_url)))
        account = (*place, target.organization or "", target.project or "")
        self._pace = Pace(self._limits, find_pace_file(folder, account, core.sent.known))

    def try_start(self, work: Work, calls: int) -> float:
        """Start a request and return 0; else return the seconds after which it should ask again. Quick.

        Args:
            work: the request.
            calls: calls of the run that have begun.
        """
        images = to_integer(work.row.request.get("n")) or 1
        turn = self._pace.try_start(images, is_new=not work.jobs, calls=calls)
        if not isinstance(turn, Turn):
            return turn
        self._turns[work.row.id] = turn
        return 0.0

    def take_turn(self, row_id: str, images: int) -> Flow[Turn]:
        """Wait until a call of a request may send an attempt.

        The first attempt has its turn since `try_start`, and is sent even if the run was stopped since then.
        A retry, and another part, wait for a turn.

        Raises:
            NotSentError: the run was stopped.
        """
        first, pace = self._turns.pop(row_id, None), self._pace
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

    def note_reply(self, head: Head) -> None:
        """Learn the limits that a reply tells."""
        self._pace.note_reply(head.headers)

    def end(self, outcome: BulkOutcome) -> None:
        """End the turn of a request whose call has not taken it: a job, or a call in another process."""
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
        return self._pace.refusals >= MOST_WAVES

    def close(self) -> None:
        """Take this run out of the shared state. Idempotent."""
        self._pace.close()
