"""The gate of a split call: it stops unsent parts once another part shows that they must fail."""

from __future__ import annotations

import threading

from imgkit.errors import (
    ApiError,
    BudgetExceededError,
    ConfigurationError,
    ImgkitError,
    InvalidRequestError,
    ModerationBlockedError,
    NotSentError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
)

REPEATED_FAILURES = 2
"""Failures of the server in a row that show an outage, once a part has used up its attempts."""


class PartGate:
    """Decides whether the parts of a split call may send. Its methods are quick and thread-safe.

    While the server fails, one part at a time repeats its request, and the others wait for its result.
    So an outage costs the attempts of one request, and not those of all parts.

    Example:
        >>> gate = PartGate()
        >>> gate.close(NotSentError("No route.", permanent=True))
        >>> gate.is_closed
        True

    Attributes:
        round: changes whenever waiting parts may try again.
    """

    def __init__(self) -> None:
        self.round = 0
        self._lock = threading.Lock()
        self._reason = ""
        self._failures = 0
        self._prober: object = None

    @property
    def is_closed(self) -> bool:
        """Whether a part has shown that any further part must fail."""
        return bool(self._reason)

    def claim_retry(self, part: object) -> bool:
        """Count a failure of the server. Return whether `part` may repeat its request now."""
        with self._lock:
            self._failures += 1
            if self._prober is None:
                self._prober = part
            return self._prober is part

    def note_success(self) -> None:
        """Let the waiting parts try again: the server works."""
        with self._lock:
            self._failures = 0
            self._prober = None
            self.round += 1

    def end_part(self, part: object) -> None:
        """Let another part repeat its request, if the others were waiting for this part."""
        with self._lock:
            if self._prober is part:
                self._prober = None
                self.round += 1

    def close(self, error: ImgkitError) -> None:
        """Stop the other parts if the error that ended a part shows that they must fail."""
        with self._lock:
            if isinstance(error, ServerError):
                self._failures += 1
            is_outage = isinstance(error, ServerError) and self._failures >= REPEATED_FAILURES
            if is_outage or is_fatal(error):
                self._reason = self._reason or type(error).__name__

    def to_error(self) -> NotSentError:
        """Return the error of a part that was not sent."""
        return NotSentError(
            f"Nothing was sent for this part of the call: another part ended with {self._reason}.",
            permanent=True,
        )


def is_fatal(error: ImgkitError) -> bool:
    """Return whether an equal request would meet the same error, so that no part needs to be sent."""
    if isinstance(error, ModerationBlockedError):
        return error.stage == "input"
    if isinstance(error, QuotaExceededError):
        return True
    if isinstance(error, NotSentError):
        return error.permanent
    if isinstance(error, ServerError | RateLimitError):
        return False
    return isinstance(error, ApiError | BudgetExceededError | ConfigurationError | InvalidRequestError)
