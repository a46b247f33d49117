"""The progress of a run: counts, rate and cost, for callbacks and displays."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from decimal import Decimal

from imgkit.bulk.bulk_values import BulkOutcome, BulkProgress
from imgkit.bulk.manifest import State
from imgkit.default_plugins.budget import Budget
from imgkit.redact import scrub

REPORT_S = 0.5
"""Seconds between two reports."""

WINDOW_S = 60
"""Seconds over which a rate is counted."""

MAX_ERROR_CHARACTERS = 200


class ProgressReporter:
    """Counts outcomes over the last minute, and calls the callback of a run. One thread uses it.

    >>> now = [0.0]
    >>> reporter = ProgressReporter(None, clock=lambda: now[0])
    >>> now[0] = 30.0
    >>> reporter.wait_s is None
    True

    Args:
        callback: receives a `BulkProgress` about twice a second, None for none.
        budget: the budget of the service, None for none.
        clock: seconds that never jump.
    """

    def __init__(
        self,
        callback: Callable[[BulkProgress], object] | None,
        budget: Budget | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._callback = callback
        self._budget = budget
        self._clock = clock
        self._started = clock()
        self._report_at = self._started
        self._ended: deque[list[int]] = deque()  # seconds since the start, requests, images
        self._last_error: str | None = None

    @property
    def wait_s(self) -> float | None:
        """Seconds until the next report is due, None without a callback."""
        return None if self._callback is None else max(0.0, self._report_at - self._clock())

    def note(self, outcome: BulkOutcome) -> None:
        """Count an outcome. A request that was refused for now waits again, and has not ended."""
        second = int(self._clock() - self._started)
        if not self._ended or self._ended[-1][0] != second:
            self._ended.append([second, 0, 0])
        if outcome.state != "waiting":
            self._ended[-1][1] += 1
            self._ended[-1][2] += len(outcome.paths) + len(outcome.urls)
        self._forget_old()
        if outcome.error is not None:
            self._last_error = f"{outcome.id}: {scrub(str(outcome.error), limit=MAX_ERROR_CHARACTERS)}"

    def report(
        self,
        counts: Mapping[State, int],
        in_flight: int,
        spent: Decimal,
        stopped: object,
        *,
        is_last: bool = False,
    ) -> None:
        """Call the callback if a report is due. An exception of the callback is raised, and ends the reports.

        Args:
            counts, in_flight, spent, stopped: as for `BulkProgress`.
            is_last: call it in any case.
        """
        if self._callback is None or not (is_last or self._clock() >= self._report_at):
            return
        callback, self._callback = self._callback, None
        callback(self._describe(counts, in_flight, spent, stopped))
        self._callback = None if is_last else callback
        self._report_at = self._clock() + REPORT_S

    def hurry(self) -> None:
        """Let the next report be due at once."""
        self._report_at = 0.0

    def _describe(
        self, counts: Mapping[State, int], in_flight: int, spent: Decimal, stopped: object
    ) -> BulkProgress:
        self._forget_old()
        elapsed_s = self._clock() - self._started
        window_s = max(1.0, min(elapsed_s, WINDOW_S))
        requests = sum(entry[1] for entry in self._ended) / window_s
        images = sum(entry[2] for entry in self._ended) / window_s
        waiting = counts.get("waiting", 0)
        left_s = waiting / requests if requests and stopped is None else None
        budget = self._budget
        return BulkProgress(
            dict(counts),
            in_flight,
            per_minute=60 * images,
            left_s=left_s,
            spent=spent if budget is None else budget.spent,
            reserved=None if budget is None else budget.reserved,
            left=None if budget is None else budget.left,
            last_error=self._last_error,
            elapsed_s=elapsed_s,
            stopped=None if stopped is None else str(stopped),
        )

    def _forget_old(self) -> None:
        oldest = self._clock() - self._started - WINDOW_S
        while self._ended and self._ended[0][0] < oldest:
            self._ended.popleft()
