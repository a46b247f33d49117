"""The lease of a cache entry: the right of one call to pay for it while equal calls wait.

A store grants the lease to one process, and a flight makes one call of this process its leader. Both end
together, with an entry or with a failure for the callers that wait.
"""

from __future__ import annotations

from imgkit.cache.flights import Flight
from imgkit.core.cache_entries import to_failure
from imgkit.core.context import CallContext
from imgkit.errors import OutcomeUnknownError
from imgkit.plugins.protocols import CacheStore, Entry, Failure, Lease, SentMarks
from imgkit.plugins.resources import Resource
from imgkit.plugins.table import describe_error

_INTERRUPTED = (
    "A concurrent identical call was interrupted after it was sent. An image may have been made and billed. "
    "Calling again pays for another image."
)
_NOT_STORED = (
    "A concurrent identical call was billed and has its images, but the cache could not store them. "
    "Calling again pays for another image."
)


class CacheLease:
    """The right of a call to pay for a cache entry: the lead of its flight and the lease of the store.

    Its methods may block.

    Args:
        context: the call that holds the lease.
        cache: the store.
        lease: as the store granted it, None if the store failed.
        flight: the equal calls of this process; this call leads it.
        problem: the failure of the store, for a warning; "" for none.
        wants_lost: take the reply of a dead process that had the lease before.

    Attributes:
        lost_attempt: the attempt whose reply to take, "" to send a request.
        is_stored: the store has the entry.
    """

    def __init__(
        self,
        context: CallContext,
        cache: Resource[CacheStore],
        lease: Lease | None,
        flight: Flight,
        problem: str = "",
        *,
        wants_lost: bool = False,
    ) -> None:
        self._context = context
        self._cache = cache
        self._store = cache.thing
        self._lease = lease
        self._flight = flight
        self._problems = [problem] if problem else []
        self._ended = False
        self.is_stored = False
        self.lost_attempt = lease.lost_attempt if lease is not None and wants_lost else ""

    @property
    def warnings(self) -> list[str]:
        """Failures of the store."""
        return list(dict.fromkeys(self._problems))

    def mark_sent(self, number: int | None) -> None:
        """Mark the lease before an attempt is sent.

        Args:
            number: number of the attempt; None removes the mark.
        """
        if self._lease is not None and isinstance(self._store, SentMarks):
            attempt = "" if number is None else f"{self._context.call.id}-{number}"
            try:
                self._store.mark_sent(self._lease, attempt)
            except Exception as error:
                self._problems.append(describe_store_failure(self._cache, error))

    def commit(self, entry: Entry) -> None:
        """Hand the entry to waiting calls, store it and end the lease. A store that fails adds a warning."""
        self._ended = True
        self._flight.end(entry)
        if self._lease is None:
            return
        failure: Failure | None = to_failure(OutcomeUnknownError(_NOT_STORED))
        try:
            try:
                self._store.commit(self._lease, entry)
                self.is_stored, failure = True, None
            finally:
                self._store.abandon(self._lease, failure)  # does nothing after a successful commit
        except Exception as error:
            self._problems.append(describe_store_failure(self._cache, error))

    def abandon(self, failure: Failure | None) -> None:
        """End the lease without an entry. A store that fails leaves it to end with the process.

        Args:
            failure: the error that waiting callers get; None lets the next of them send the request.
        """
        if self._ended:
            return
        self._ended = True
        self._flight.end(failure)
        if self._lease is None:
            return
        try:
            self._store.abandon(self._lease, failure)
        except Exception:  # the call has an error of its own to tell
            return

    def abort(self) -> None:
        """End the lease of an interrupted call. Waiting callers may go on unless it may have been billed."""
        context, keeper = self._context, self._context.job_keeper
        if keeper is not None and keeper.has_record:
            self.abandon(None)  # the next caller follows the job
            return
        billed = context.in_flight or any(attempt.error is None for attempt in context.attempts)
        self.abandon(to_failure(OutcomeUnknownError(_INTERRUPTED)) if billed else None)


def describe_store_failure(cache: Resource[CacheStore], error: Exception) -> str:
    """Return the warning about a cache store that raised an error."""
    return f"The cache of {cache.origin} failed; the call went on without it ({describe_error(error)})"
