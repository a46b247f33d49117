"""The rules by which a run stops by itself: errors that all requests meet, refusals, and a full disk."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from imgkit.bulk.bulk_values import FATAL, MOST_BLOCKED, BulkOutcome
from imgkit.bulk.tasks import WorkerLostError
from imgkit.errors import (
    ImgkitError,
    ModerationBlockedError,
    NotSentError,
    OutcomeUnknownError,
    RateLimitError,
    SaveError,
    ServerError,
    UnreadableReplyError,
)

STOP_AFTER_BLOCKED = 20
"""Refusals by the content policy that end a run, by default."""

EQUAL_FAILURES = 10
"""Equal failures of the server or the connection in a row that end a run."""

LEAST_FREE_BYTES = 500_000_000
"""Free space below which nothing is sent; checked every `SPACE_CHECK_S` seconds."""

SPACE_CHECK_S = 1.0

_FAILURES = (NotSentError, OutcomeUnknownError, ServerError, UnreadableReplyError)


class StopRules:
    """Tells why a run should send nothing more. Not thread-safe: a single thread asks it.

    Args:
        stop_after_blocked: refusals among the latest requests that end the run.
    """

    def __init__(self, stop_after_blocked: int = STOP_AFTER_BLOCKED) -> None:
        self._stop_after_blocked = stop_after_blocked
        self._blocked: deque[bool] = deque(maxlen=MOST_BLOCKED)
        self._failures: deque[str] = deque(maxlen=EQUAL_FAILURES)
        self._check_space_at = 0.0

    def judge(self, outcome: BulkOutcome, *, is_refused: bool) -> ImgkitError | str | None:
        """Return why the run should stop after an outcome, None for no reason.

        Args:
            outcome: the outcome.
            is_refused: the API has refused requests for so long that waiting does not help.
        """
        error = outcome.error
        self._blocked.append(outcome.state == "blocked")
        if isinstance(error, _FAILURES) and not isinstance(error, WorkerLostError):
            self._failures.append(f"{type(error).__name__} {getattr(error, 'status', None)}")
        else:
            self._failures.clear()
        if isinstance(error, FATAL) and not isinstance(error, ModerationBlockedError):
            return error
        if len(self._failures) == EQUAL_FAILURES and len(set(self._failures)) == 1:
            return error
        if is_refused and isinstance(error, RateLimitError):
            return error
        count = sum(self._blocked)
        if count < self._stop_after_blocked:
            return None
        return (
            f"{count} of the last {len(self._blocked)} requests were refused by the content policy. "
            "Accounts are closed for less. Look at the prompts."
        )

    def check_space(self, folders: Iterable[Path]) -> SaveError | None:
        """Return why the run should stop before a disk is full: replies in flight need room, twice."""
        now = time.monotonic()
        if now < self._check_space_at:
            return None
        self._check_space_at = now + SPACE_CHECK_S
        for folder in folders:
            place = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
            free = shutil.disk_usage(place).free
            if free < LEAST_FREE_BYTES:
                return SaveError(
                    f"Only {free / 1e6:.0f} MB are free in {str(folder)[:200]!r}. Nothing more is sent: a "
                    "reply needs room. Free disk space, and run the same command again."
                )
        return None
