"""The pace of a run: requests in flight, and their starts per minute."""

from __future__ import annotations

import time
from collections.abc import Callable

from imgkit.errors import ImgkitError, RateLimitError, ServerError

FIRST_IN_FLIGHT = 2
"""Requests in flight at the start of a run; successes add more."""

DEFAULT_PAUSE_S, LONGEST_PAUSE_S = 5.0, 120.0


class Pace:
    """Decides when the next request of a run may start. Not thread-safe: a single thread asks it.

    It starts gently, adds a request in flight after each success, halves them when the server refuses for
    now, and waits as long as the server asks.

    >>> pace = Pace(8, clock=lambda: 0.0)
    >>> pace.wait_s(in_flight=1), pace.wait_s(in_flight=2) is None
    (0.0, True)

    Args:
        most_in_flight: most requests at once.
        per_minute: most starts in a minute, None for no limit.
        clock: seconds that never jump.
    """

    def __init__(
        self,
        most_in_flight: int,
        per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most_in_flight = most_in_flight
        self._gap_s = 60.0 / per_minute if per_minute else 0.0
        self._clock = clock
        self._room = float(min(FIRST_IN_FLIGHT, most_in_flight))
        self._next_at = self._paused_until = 0.0

    @property
    def room(self) -> int:
        """Requests that may be in flight now."""
        return max(1, int(self._room))

    def wait_s(self, in_flight: int) -> float | None:
        """Return the seconds until a request may start; None until one of those in flight ends."""
        if in_flight >= self.room:
            return None
        return max(0.0, max(self._next_at, self._paused_until) - self._clock())

    def start(self) -> None:
        """Count the start of a request."""
        self._next_at = max(self._next_at, self._clock() - self._gap_s) + self._gap_s

    def note_success(self) -> None:
        """Let one more request be in flight."""
        self._room = min(float(self.most_in_flight), self._room + 1.0)

    def note_failure(self, error: ImgkitError) -> None:
        """Slow down if the server refuses for now, or fails."""
        if not isinstance(error, RateLimitError | ServerError):
            return
        now = self._clock()
        if now >= self._paused_until:  # requests that were in flight together fail together
            self._room = max(1.0, self._room / 2)
        wait_s = getattr(error, "retry_after_s", None)
        pause_s = DEFAULT_PAUSE_S if wait_s is None else min(max(0.0, wait_s), LONGEST_PAUSE_S)
        self._paused_until = max(self._paused_until, now + pause_s)
