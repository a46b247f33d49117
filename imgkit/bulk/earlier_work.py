"""The work that earlier processes have left to a run: pending jobs and kept replies.

A job is collected at its own provider. Images that its row lacks then are sent for in a flow of their own, at
the provider that the row names now. So a row has one flow at a time, and each flow one provider.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from imgkit.bulk.bulk_values import KeptReply, Work
from imgkit.bulk.manifest import BulkRow, Manifest, NewRow
from imgkit.jobs.job import Job


def choose_work(
    row: BulkRow, jobs: Sequence[Job], kept: Sequence[KeptReply] = (), *, may_repeat: bool = False
) -> Work:
    """Return the work that comes first for a row: its jobs at one provider, and its kept replies.

    Args:
        row: the row.
        jobs: its pending jobs.
        kept: its kept replies.
        may_repeat: send for images again whose URLs have expired.
    """
    first = tuple(job for job in jobs if job.provider == jobs[0].provider)
    later = tuple(job for job in jobs if job.provider != jobs[0].provider)
    return Work(row, first, tuple(kept), may_repeat, later)


class EarlierWork:
    """The rows with such work, which no other flow may take. One thread uses it."""

    def __init__(self) -> None:
        self._numbers: set[int] = set()
        self._amended: dict[int, NewRow] = {}

    def add(self, work: Iterable[Work]) -> None:
        """Let the rows of some work have no other flow."""
        self._numbers.update(each.row.number for each in work)

    def has_row(self, number: int) -> bool:
        """Return whether a row belongs to a flow of its own, so that nothing else may start one."""
        return number in self._numbers

    def hold_amendment(self, number: int, row: NewRow) -> bool:
        """Return whether a changed row has to wait for the end of its flow; `end` then amends it."""
        if number in self._numbers:
            self._amended[number] = row
        return number in self._numbers

    def end(self, manifest: Manifest, work: Work) -> Work | None:
        """Return the work that follows on an ended flow of a row, None for none. May block.

        Args:
            manifest: the manifest of the run.
            work: the work of the flow. It is not in flight any more.

        Raises:
            ConfigurationError: the manifest cannot be written.
        """
        number = work.row.number
        if not work.is_earlier:
            return None
        row = manifest.find_number(number)
        if row is not None and work.later:
            if row.state == "unknown":  # a request is open, and it has a job
                row = row._replace(state="accepted")
                manifest.mark(number, row.state, row.info)
            return choose_work(row, work.later, may_repeat=work.may_repeat)
        if number in self._amended:
            manifest.amend(number, self._amended.pop(number))
            row = manifest.find_number(number)
        is_given = manifest.is_given(number)
        if not is_given:  # the iterable may still bring it
            self._numbers.discard(number)
        return Work(row) if row is not None and row.state == "waiting" and is_given else None
