"""Retries that know what a failure means for money.

A paid request is repeated only if it provably was not sent, or the API itself refused it or reported
its failure. Everything else may have been billed and is repeated only on request.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Literal

from imgkit.errors import (
    ApiError,
    ConfigurationError,
    NotSentError,
    OutcomeUnknownError,
    ServerError,
)
from imgkit.plugins.events import Call, Failed, Outcome, Succeeded
from imgkit.plugins.hookspecs import hookimpl
from imgkit.wire.messages import HttpRequest

GIVE_UP = -1.0
"""The answer of `imgkit_retry_wait` that ends a call, whatever other plugins think."""

UNSENT_TRIES, UNSENT_SPAN_S = 4, 30.0
REFUSED_TRIES, REFUSED_CAP_S = 5, 30.0
BACKOFF_S, BACKOFF_CAP_S = 0.5, 8.0
LONGEST_RETRY_AFTER_S = 120.0

BUDGET = 100
COST = {"unsent": 0, "refused": 5, "failed": 14, "unknown": 20}
"""What a retry takes from the budget; a success gives one back. An outage is so hardly amplified."""

BREAKER_FAILURES, BREAKER_SPAN_S, BREAKER_REST_S = 5, 60.0, 30.0


class RetryPlugin:
    """Decides after each failure whether to send again, and when.

    On by default; ``ImageService(retry=False)`` leaves it out, ``retry=RetryPlugin(…)`` sets it up.

    - not sent: up to 4 tries within 30 seconds;
    - refused with 429: up to 5 tries, after what the server asks (up to 120 seconds) or 1, 2, 4 … up
      to 30 seconds; never for a used-up quota;
    - failure that the API reports with 500 or 503: `retry_server_errors` more tries, after 0.5, 1 …
      up to 8 seconds, halved at most by chance;
    - outcome unknown: never, or once more with ``on_unknown="retry-once"``, at the risk of paying twice.

    A budget of 100 tokens bounds what an outage can multiply. After 5 failures in a row within a minute
    nothing is sent for 30 seconds; then one call tries.

    Args:
        on_unknown: "raise" or "retry-once".
        retry_server_errors: further tries after a failure that the API reports, 0 to 5.
        clock: monotonic seconds; tests give their own.
        chance: a number from 0 to 1; tests give their own.

    Raises:
        ConfigurationError: another value.
    """

    def __init__(
        self,
        *,
        on_unknown: Literal["raise", "retry-once"] = "raise",
        retry_server_errors: int = 2,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        if on_unknown not in ("raise", "retry-once"):
            raise ConfigurationError(f"on_unknown is 'raise' or 'retry-once', not {on_unknown!r}")
        if type(retry_server_errors) is not int or not 0 <= retry_server_errors <= 5:
            raise ConfigurationError(f"retry_server_errors is 0 to 5, not {retry_server_errors!r}")
        self._on_unknown = on_unknown
        self._retry_server_errors = retry_server_errors
        self._clock = clock
        self._chance = chance
        self._lock = threading.Lock()
        self._tokens = BUDGET
        self._failures: list[float] = []
        self._closed_until = 0.0

    @hookimpl(trylast=True)
    def imgkit_retry_wait(self, outcome: Outcome, call: Call) -> float | None:
        """Return the seconds to wait before another try, None to end the call."""
        wait_s = self._wait(outcome)
        if wait_s is None or wait_s >= outcome.remaining_s:
            return None
        with self._lock:
            if self._tokens < COST[outcome.kind]:
                return None
            self._tokens -= COST[outcome.kind]
        return wait_s

    @hookimpl
    def imgkit_before_send(self, request: HttpRequest, call: Call) -> None:
        """Send nothing while the breaker is open."""
        with self._lock:
            rest_s = self._closed_until - self._clock()
            if rest_s > 0:
                raise NotSentError(
                    f"{BREAKER_FAILURES} calls in a row have failed: nothing is sent to {call.base_url} for "
                    f"another {rest_s:.0f} s. Nothing was sent, so nothing was billed.",
                    permanent=True,
                )
            if self._failures and len(self._failures) >= BREAKER_FAILURES:
                self._closed_until = self._clock() + BREAKER_REST_S  # this one call may try

    @hookimpl
    def imgkit_on_event(self, event: object, call: Call) -> None:
        """Learn from how calls end."""
        if isinstance(event, Succeeded):
            with self._lock:
                self._tokens = min(BUDGET, self._tokens + 1)
                self._failures.clear()
                self._closed_until = 0.0
        elif (
            isinstance(event, Failed)
            and not event.shared  # it has been counted with the call that sent something
            and isinstance(event.error, ServerError | OutcomeUnknownError)
        ):
            with self._lock:
                now = self._clock()
                self._failures = [*(at for at in self._failures if now - at < BREAKER_SPAN_S), now]
                if len(self._failures) >= BREAKER_FAILURES:
                    self._closed_until = now + BREAKER_REST_S

    def _wait(self, outcome: Outcome) -> float | None:
        error = outcome.error
        if getattr(error, "should_retry", None) is False:
            return None
        if outcome.kind == "unsent":
            fits = outcome.number < UNSENT_TRIES and outcome.elapsed_s < UNSENT_SPAN_S
            return self._backoff(outcome.number) if fits and not getattr(error, "permanent", False) else None
        if outcome.kind == "refused":
            return self._after_refusal(outcome) if outcome.number < REFUSED_TRIES else None
        if outcome.kind == "failed":
            return self._backoff(outcome.number) if outcome.number <= self._retry_server_errors else None
        if self._on_unknown == "retry-once" and outcome.number == 1:
            return self._backoff(1)
        return None

    def _backoff(self, number: int) -> float:
        full_s = min(BACKOFF_CAP_S, BACKOFF_S * 2.0 ** (number - 1))
        return full_s * (0.5 + self._chance() / 2)

    def _after_refusal(self, outcome: Outcome) -> float | None:
        asked_s = outcome.error.retry_after_s if isinstance(outcome.error, ApiError) else None
        if asked_s is None:
            return min(REFUSED_CAP_S, 2.0 ** (outcome.number - 1)) * (0.5 + self._chance() / 2)
        if asked_s > LONGEST_RETRY_AFTER_S:
            return None
        return asked_s * (1.0 + self._chance() / 10)


class NoWaitRetry(RetryPlugin):
    """Retries as ever, without the pauses: a recorded 429 is over when it is replayed."""

    @hookimpl(trylast=True)
    def imgkit_retry_wait(self, outcome: Outcome, call: Call) -> float | None:
        """Return 0 where another try would be made, None where not."""
        return None if super().imgkit_retry_wait(outcome, call) is None else 0.0
