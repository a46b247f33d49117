"""The retry plugin: it repeats a request only if the failed attempt was not billed.

A request is repeated if it provably was not sent, or if the API itself rejected it or reported a failure.
Any other attempt may have been billed; imgkit repeats it only with ``on_unknown="retry-once"``.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from typing import Literal, TypeAlias

from imgkit.errors import (
    ConfigurationError,
    DownloadError,
    EmptyResultError,
    ImgkitError,
    NotSentError,
    OutcomeUnknownError,
    SaveError,
    ServerError,
    UnreadableReplyError,
)
from imgkit.plugins.events import Call, Cancelled, Failed, Outcome, Retrying, Sent, Started, Succeeded
from imgkit.plugins.hookspecs import hookimpl
from imgkit.redact import scrub
from imgkit.wire.headers import LONGEST_RETRY_AFTER_S
from imgkit.wire.messages import HttpRequest
from imgkit.wire.plain_values import show_value, to_integer, to_text
from imgkit.wire.urls import origin

GIVE_UP = -1.0
"""The result of `imgkit_retry_wait` that ends a call; no other plugin is consulted."""

UNSENT_ATTEMPTS, UNSENT_SPAN_S = 4, 30.0
REFUSED_ATTEMPTS, REFUSED_CAP_S = 5, 30.0
SERVER_ERROR_RETRIES = 2
BACKOFF_S, BACKOFF_CAP_S = 0.5, 8.0

BUDGET = 100
COST = {"unsent": 0, "refused": 5, "failed": 14, "unknown": 20}
"""Tokens that a retry takes from the budget, which keeps outages small; a success returns one token."""

BREAKER_FAILURES, BREAKER_SPAN_S, BREAKER_REST_S = 5, 60.0, 30.0

_CircuitKey: TypeAlias = tuple[str, str, int, str]
"""Scheme, host, port and operation."""


class _Circuit:
    """The latest failures in a row of an operation on a host."""

    def __init__(self) -> None:
        self.failures: list[float] = []
        self.open_until = -math.inf
        self.last_failure = ""


class RetryPlugin:
    """Decides after each failed attempt whether and when to retry.

    On by default; ``ImageService(retry=False)`` disables it, ``retry=RetryPlugin(…)`` configures it.

    - Not sent: up to 4 attempts within 30 seconds.
    - Rejected with 429: up to 5 attempts, after the server's Retry-After (up to 120 seconds) or after 1, 2,
      4 … up to 30 seconds; never for an exhausted quota.
    - Failure that the API reports with 500 or 503: `retry_server_errors` retries, after the server's
      Retry-After (up to 120 seconds) or after 0.5, 1 … up to 8 seconds, with jitter down to half.
    - Unknown outcome: never, or once with ``on_unknown="retry-once"``, at the risk of paying twice.

    A budget of 100 tokens limits retries during an outage. After 5 failures in a row within a minute, a
    circuit breaker sends nothing for 30 seconds; then one call tries. It counts failed connections and 5xx
    replies, separately for each host and operation; any reply below 500 resets it.

    Args:
        on_unknown: "raise" or "retry-once".
        retry_server_errors: retries after a failure that the API reports, 0 to 5.
        clock: returns monotonic seconds; a test can pass its own.
        chance: returns a number from 0 to 1 for the jitter; a test can pass its own.

    Raises:
        ConfigurationError: An argument is invalid.

    Example:
        >>> from imgkit import ImageService
        >>> service = ImageService(retry=RetryPlugin(retry_server_errors=0))
        >>> service.close()
    """

    def __init__(
        self,
        *,
        on_unknown: Literal["raise", "retry-once"] = "raise",
        retry_server_errors: int = SERVER_ERROR_RETRIES,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        choice, count = to_text(on_unknown), to_integer(retry_server_errors)
        if choice not in ("raise", "retry-once"):
            raise ConfigurationError(
                f"on_unknown must be 'raise' or 'retry-once', not {show_value(on_unknown)}."
            )
        if count is None or not 0 <= count <= 5:
            shown = show_value(retry_server_errors)
            raise ConfigurationError(f"retry_server_errors must be 0 to 5, not {shown}.")
        self._on_unknown = choice
        self._retry_server_errors = count
        self._clock = clock
        self._chance = chance
        self._lock = threading.Lock()
        self._tokens = BUDGET
        self._circuits: dict[_CircuitKey, _Circuit] = {}
        self._unsent: set[str] = set()

    @hookimpl(trylast=True)
    def imgkit_retry_wait(self, outcome: Outcome, call: Call) -> float | None:
        """Return the seconds to wait before the next attempt, None to end the call."""
        wait_s = self._choose_wait_s(outcome)
        if wait_s is None or wait_s >= outcome.remaining_s:
            return None
        with self._lock:
            if self._tokens < COST[outcome.kind]:
                return None
            self._tokens -= COST[outcome.kind]
        return wait_s

    @hookimpl
    def imgkit_before_send(self, request: HttpRequest, call: Call) -> None:
        """Reject the attempt while the circuit breaker of its host and operation is open.

        Raises:
            NotSentError: The breaker is open. Nothing was sent.
        """
        with self._lock:
            circuit, now = self._circuits.get(_circuit_key(call)), self._clock()
            if circuit is None:
                return
            if circuit.open_until > now:
                rest_s = math.ceil(circuit.open_until - now)
                raise NotSentError(
                    f"Nothing was sent, so nothing was billed. {BREAKER_FAILURES} calls of {call.operation} "
                    f"to {call.base_url} have failed in a row, so imgkit sends no further call for another "
                    f"{rest_s} s. The last failure: {circuit.last_failure}",
                    permanent=True,
                    hint="Wait, or build the service with retry=False to send at once.",
                    field="retry",
                )
            if len(circuit.failures) >= BREAKER_FAILURES:
                circuit.open_until = now + BREAKER_REST_S  # only this call may try

    @hookimpl
    def imgkit_on_event(self, event: object, call: Call) -> None:
        """Update budget and breaker with the results of calls."""
        if isinstance(event, Started | Sent):
            with self._lock:
                (self._unsent.add if isinstance(event, Started) else self._unsent.discard)(call.id)
        elif isinstance(event, Retrying):
            if _is_answer(event.outcome.error):
                with self._lock:
                    self._circuits.pop(_circuit_key(call), None)
        elif isinstance(event, Succeeded | Failed | Cancelled):
            with self._lock:
                if call.id in self._unsent:
                    self._unsent.discard(call.id)
                elif isinstance(event, Succeeded):
                    self._tokens = min(BUDGET, self._tokens + 1)
                    self._circuits.pop(_circuit_key(call), None)
                elif isinstance(event, Failed) and not event.shared:
                    # The call that sent a shared request has counted its failure.
                    self._count_failure(event.error, _circuit_key(call))

    def _count_failure(self, error: Exception, key: _CircuitKey) -> None:
        if _is_answer(error):
            self._circuits.pop(key, None)
        if not _is_host_failure(error):
            return
        now = self._clock()
        circuit = self._circuits.setdefault(key, _Circuit())
        if isinstance(error, NotSentError) and circuit.open_until > now:
            return  # the breaker's own error
        recent = [at for at in circuit.failures if now - at < BREAKER_SPAN_S]
        circuit.failures = [*recent, now][-BREAKER_FAILURES:]
        # The reason alone: the breaker's own error says that nothing was sent.
        problem = getattr(error, "reason", "") or (
            error.problem if isinstance(error, ImgkitError) else str(error)
        )
        circuit.last_failure = f"{type(error).__name__}: {scrub(problem, limit=300).rstrip('. ')}."
        if len(circuit.failures) >= BREAKER_FAILURES:
            circuit.open_until = now + BREAKER_REST_S

    def _choose_wait_s(self, outcome: Outcome) -> float | None:
        error = outcome.error
        if getattr(error, "should_retry", None) is False:
            return None
        if outcome.kind == "unsent":
            is_permanent = getattr(error, "permanent", False)
            may_retry = outcome.number < UNSENT_ATTEMPTS and outcome.elapsed_s < UNSENT_SPAN_S
            return self._backoff_s(outcome.number) if may_retry and not is_permanent else None
        if outcome.kind == "refused":
            may_retry = outcome.number < REFUSED_ATTEMPTS
        elif outcome.kind == "failed":
            may_retry = outcome.number <= self._retry_server_errors
        else:
            may_retry = self._on_unknown == "retry-once" and outcome.number == 1
        return self._reply_wait_s(outcome) if may_retry else None

    def _backoff_s(self, number: int) -> float:
        full_s = min(BACKOFF_CAP_S, BACKOFF_S * 2.0 ** (number - 1))
        return full_s * (0.5 + self._chance() / 2)

    def _reply_wait_s(self, outcome: Outcome) -> float | None:
        """Return the wait that the server asks for, else a growing wait; None if it asks for too long."""
        retry_after_s: float | None = getattr(outcome.error, "retry_after_s", None)
        if retry_after_s is None and outcome.kind == "refused":
            return min(REFUSED_CAP_S, 2.0 ** (outcome.number - 1)) * (0.5 + self._chance() / 2)
        if retry_after_s is None:
            return self._backoff_s(outcome.number)
        if retry_after_s > LONGEST_RETRY_AFTER_S:
            return None
        return retry_after_s * (1.0 + self._chance() / 10)


def find_attempt_limit(kind: str) -> int | None:
    """Return the number of attempts that the default retries make, None for an outcome not repeated.

    Args:
        kind: `Outcome.kind`.

    Example:
        >>> find_attempt_limit("refused")
        5
    """
    limits = {"unsent": UNSENT_ATTEMPTS, "refused": REFUSED_ATTEMPTS, "failed": SERVER_ERROR_RETRIES + 1}
    return limits.get(kind)


def _circuit_key(call: Call) -> _CircuitKey:
    return *origin(call.base_url), call.operation


def _is_answer(error: Exception) -> bool:
    """Return whether a failure proves that the host answered with a status below 500."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return 100 <= status < 500
    return isinstance(error, DownloadError | EmptyResultError | SaveError | UnreadableReplyError)


def _is_host_failure(error: Exception) -> bool:
    """Return whether a connection failed, or the host answered with a 5xx."""
    if isinstance(error, ServerError | OutcomeUnknownError):
        return error.status is None or error.status >= 500
    return isinstance(error, NotSentError)


class NoWaitRetry(RetryPlugin):
    """Retries without pauses, for replayed recordings: a recorded 429 has passed.

    Example:
        >>> plugin = NoWaitRetry(retry_server_errors=1)
    """

    @hookimpl(trylast=True)
    def imgkit_retry_wait(self, outcome: Outcome, call: Call) -> float | None:
        """Return 0 if `RetryPlugin` would retry, else None."""
        return None if super().imgkit_retry_wait(outcome, call) is None else 0.0
