"""The pace of a run: requests in flight, and their starts in a minute, shared with all runs of an account."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from imgkit.errors import (
    ConflictError,
    ImgkitError,
    OutcomeUnknownError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
)
from imgkit.pace.pace_file import SharedPace
from imgkit.pace.pace_state import PaceState, RunShare
from imgkit.wire.rate_limits import read_rate_limits

MOST_IN_FLIGHT = 16
"""Requests in flight at a provider whose limit is not known."""

FIRST_IN_FLIGHT = 2
"""Requests in flight at the start of a run; successes add more."""

LONGEST_PAUSE_S = 600.0
"""Longest pause that a server may ask for; then a request tries again."""

LONGEST_BACKOFF_S, LONGEST_FAILURE_PAUSE_S = 60.0, 2.0
"""Longest pause after refusals, and after failures of the server, that name none."""

LONGEST_SPREAD_S = 120.0
"""Longest time until a reset over which the units that are left are spread."""

SHARED_LOOK_S, LOOK_S, BUSY_S = 0.025, 0.1, 0.002
"""Seconds until another look for room: in a file that other processes change, in memory, in a busy file."""

CLOSE_TRIES = 25
"""Looks at a busy file before a run that ends leaves its entry there; other runs then remove it."""

MARGIN = 1.02
"""Factor of the time between two starts: a request may take longer to the server than the next."""

LONGEST_LOOK_S = 0.5
"""Longest time until another look: a run may be stopped meanwhile."""

LATE_S = 0.02
"""Seconds by which a run may be late for its turn before another takes it."""

UNITS = ("requests", "images")


class PaceLimits(NamedTuple):
    """Limits on the pace; 0 for none. Of runs that share an account, the lowest limits count.

    Attributes:
        requests_in_flight, images_in_flight: most at once.
        requests_per_minute, images_per_minute: most starts in a minute.
    """

    requests_in_flight: float = MOST_IN_FLIGHT
    images_in_flight: float = 0
    requests_per_minute: float = 0
    images_per_minute: float = 0


class Turn:
    """A request in flight, as the pace sees it. Its methods are quick, thread-safe and idempotent."""

    def __init__(self, pace: Pace, images: int) -> None:
        self._pace = pace
        self._is_noted = False
        self.images = images
        self.is_open = True

    def note_success(self) -> None:
        """Let one more request be in flight."""
        if not self._is_noted:
            self._is_noted = True
            self._pace.note_success()

    def note_failure(self, error: ImgkitError) -> None:
        """Slow down if the server refuses for now, or fails; the request is no longer in flight."""
        if not self._is_noted:
            self._is_noted = True
            self._pace.note_failure(error)
        self.release()

    def shrink(self, images: int) -> None:
        """Make fewer images: the other parts of a split request take turns of their own."""
        self._pace.shrink(self, images)

    def release(self) -> None:
        """Let another request be in flight."""
        self._pace.release(self)


class Pace:
    """Decides when a request of a run may start. Its methods are quick and thread-safe.

    It starts gently, adds a request in flight after each success, halves them when the server refuses for
    now, and waits as long as the server asks.

    >>> pace = Pace(PaceLimits(8), clock=lambda: 1000.0)
    >>> turns = [pace.try_start() for _ in range(3)]
    >>> turns[2]
    0.1

    Args:
        limits: the limits of this run.
        path: the file that the runs of an account share, None for none.
        is_gentle: begin with few requests in flight.
        clock: seconds that never jump.
        chance: returns a number from 0 to 1 for the jitter.

    Attributes:
        refusals: waves of refusals that this run has met without a success between them.
    """

    def __init__(
        self,
        limits: PaceLimits = PaceLimits(),  # noqa: B008  # immutable
        path: Path | None = None,
        *,
        is_gentle: bool = True,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._shared = SharedPace(path)
        self._share = RunShare(limits)
        self._first_room = FIRST_IN_FLIGHT if is_gentle else limits.requests_in_flight
        self._clock = clock
        self._chance = chance
        self._guard = threading.Lock()
        self._notes: list[Callable[[PaceState], None]] = []
        self._callers = 0
        self.refusals = 0

    def try_start(
        self, images: int = 1, *, is_new: bool = True, is_call: bool = False, calls: int = 0
    ) -> Turn | float:
        """Start a request if it may; else return the seconds after which it should ask again.

        Args:
            images: number of images that it makes.
            is_new: it is sent now; not so for the job of a request that was sent before.
            is_call: a call that has begun asks; see `add_caller`.
            calls: calls of this run that have begun, and that may wait before a retry.
        """
        with self._guard:
            if self._callers and not is_call:
                return self._look_s  # calls that have begun come first: their time runs
            now = self._clock()
            with self._shared.open(now) as state:
                if state is None:
                    return BUSY_S
                self._apply_notes(state)
                idle = max(0.0, calls - self._share.requests)
                wait_s = self._find_wait_s(state, now, images, idle, is_new=is_new)
                wait_s = min(wait_s, LONGEST_LOOK_S)
                if wait_s > 0:
                    self._share.since = self._share.since or now
                    self._share.due = now + wait_s
                    return wait_s
                self._share.since = 0.0
                self._share.requests += 1
                self._share.images += images
                if is_new:
                    state.started = {"requests": [now, 1.0], "images": [now, float(images)]}
                    for unit, size in zip(UNITS, (1, images), strict=True):
                        if unit in state.told:
                            state.told[unit][1] = max(0.0, state.told[unit][1] - size)
                return Turn(self, images)

    def add_caller(self) -> None:
        """Let calls that have begun go before new ones, until `remove_caller`."""
        with self._guard:
            self._callers += 1

    def remove_caller(self) -> None:
        """A call that has begun waits no longer."""
        with self._guard:
            self._callers -= 1

    def note_reply(self, headers: Mapping[str, str]) -> None:
        """Learn the limits that a reply tells in its headers.

        Args:
            headers: by lower-case name.
        """
        if not any("ratelimit" in name or "rate-limit" in name for name in headers):
            return
        now, told = self._clock(), {}
        for unit, limit in read_rate_limits(headers).items():
            if limit.remaining is not None and limit.reset_s:
                told[unit] = [now, limit.remaining, min(limit.reset_s, LONGEST_PAUSE_S)]
        self._note(lambda state: state.told.update(told))

    def note_success(self) -> None:
        """Let one more request be in flight."""
        self.refusals = 0
        self._note(_grow)

    def note_failure(self, error: ImgkitError) -> None:
        """Slow down if the server refuses for now, or fails."""
        is_refusal = isinstance(error, RateLimitError) and not isinstance(error, QuotaExceededError)
        is_refusal = is_refusal or (isinstance(error, ConflictError) and bool(error.should_retry))
        status = getattr(error, "status", None) or 0
        if isinstance(error, ServerError) or is_refusal:
            longest_s = LONGEST_BACKOFF_S if is_refusal else LONGEST_FAILURE_PAUSE_S
        elif isinstance(error, OutcomeUnknownError) and status >= 500:
            longest_s = 0.0  # a gateway gave up: it says nothing about a pause
        else:
            return
        now, asked_s, chance = self._clock(), getattr(error, "retry_after_s", None), self._chance()

        def slow_down(state: PaceState) -> None:
            until = state.refused_at + state.pause_s
            if now >= until:  # requests that were in flight together fail together
                state.refusals += 1
                self.refusals += is_refusal
                busy = 1 + sum(share.requests for share in state.runs.values())
                state.room = state.threshold = max(1.0, min(state.room, busy) / 2)
                backoff_s = min(longest_s, 2.0 ** min(state.refusals - 1, 30)) * (0.5 + chance / 2)
            else:
                backoff_s = 0.0
            pause_s = backoff_s if asked_s is None else min(max(asked_s, 0.0), LONGEST_PAUSE_S)
            state.refused_at, state.pause_s = now, max(until - now, pause_s)

        self._note(slow_down)

    def release(self, turn: Turn) -> None:
        """Let another request be in flight in place of this one. Idempotent."""
        with self._guard:
            if turn.is_open:
                turn.is_open = False
                self._share.requests -= 1
                self._share.images -= turn.images
                self._write()

    def shrink(self, turn: Turn, images: int) -> None:
        """Let a request in flight make fewer images."""
        with self._guard:
            if turn.is_open and images < turn.images:
                self._share.images -= turn.images - images
                turn.images = images

    def close(self) -> None:
        """Take this run out of the state. Idempotent."""
        with self._guard, suppress(OSError):
            for _ in range(CLOSE_TRIES):
                with self._shared.open(self._clock()) as state:
                    if state is not None:
                        self._apply_notes(state)
                        state.runs.pop(self._shared.name, None)
                        break
                time.sleep(BUSY_S)
            self._shared.close()

    @property
    def _look_s(self) -> float:
        return SHARED_LOOK_S if self._shared.is_shared else LOOK_S

    def _note(self, change: Callable[[PaceState], None]) -> None:
        """Keep a change for the next time that the state is open."""
        with self._guard:
            self._notes.append(change)

    def _write(self) -> None:
        """Bring the changes into the state now, unless another process has it."""
        with self._shared.open(self._clock()) as state:
            if state is not None:
                self._apply_notes(state)

    def _apply_notes(self, state: PaceState) -> None:
        state.room = state.room or float(self._first_room)
        notes, self._notes = self._notes, []
        state.runs[self._shared.name] = self._share
        for change in notes:
            change(state)
        state.room = min(state.room, self._find_limits(state).requests_in_flight)

    def _find_limits(self, state: PaceState) -> PaceLimits:
        """Return the lowest limits of all runs."""
        if len(state.runs) == 1:
            return PaceLimits(*self._share.limits)
        columns = zip(*(share.limits for share in state.runs.values()), strict=True)
        return PaceLimits(*(min(filter(None, column), default=0) for column in columns))

    def _find_wait_s(self, state: PaceState, now: float, images: int, idle: float, *, is_new: bool) -> float:
        """Return the seconds after which a request should ask again, 0 if it may start."""
        limits, shares = self._find_limits(state), state.runs.values()
        busy = sum(share.requests for share in shares)
        busy_images = sum(share.images for share in shares)
        has_no_room = busy + idle >= max(1, int(state.room)) or (
            limits.images_in_flight and busy_images and busy_images + images > limits.images_in_flight
        )
        least_s = self._look_s if has_no_room or self._is_turn_of_other(state, now) else 0.0
        return max(least_s, self._find_start(state, limits, images) - now if is_new else 0.0)

    def _find_start(self, state: PaceState, limits: PaceLimits, images: int) -> float:
        """Return the time at which the rates allow a start."""
        until = state.refused_at + state.pause_s
        for unit, per_minute in zip(UNITS, limits[2:], strict=True):
            at, size = state.started.get(unit, (0.0, 0.0))
            if per_minute and size:
                until = max(until, at + size * MARGIN * 60.0 / per_minute)
            if unit in state.told:
                told_at, left, reset_s = state.told[unit]
                needed = 1 if unit == "requests" else images
                if left < needed:
                    until = max(until, told_at + reset_s)
                elif reset_s <= LONGEST_SPREAD_S:
                    until = max(until, min(at + size * reset_s / left, told_at + reset_s))
        for unit, (told_at, left, reset_s) in state.told.items():
            if unit not in UNITS and left <= 0:
                until = max(until, told_at + reset_s)
        return until

    def _is_turn_of_other(self, state: PaceState, now: float) -> bool:
        """Whether another run has waited longer, and looks again soon."""
        since = self._share.since or now
        return any(
            share is not self._share and 0 < share.since < since and now < share.due + LATE_S
            for share in state.runs.values()
        )


def _grow(state: PaceState) -> None:
    state.refusals = 0
    if state.threshold and state.room >= state.threshold:
        state.room += 1 / max(1.0, state.room)
    else:
        state.room += 1
