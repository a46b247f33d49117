"""The account of a task: what its claim reserves, and what its report makes of its row."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

from imgkit.billing.reservations import ReservationGroup
from imgkit.bulk.bulk_values import BulkOutcome
from imgkit.bulk.row_calls import RowRecord, RunFiles
from imgkit.bulk.rows import to_request
from imgkit.core.context import SentPart
from imgkit.core.core import Core
from imgkit.core.job_keeper import open_job_store
from imgkit.errors import JobPendingError, OutcomeUnknownError
from imgkit.jobs.job import Job
from imgkit.models import Cost, ImagesResponse, Meta, resolve_model
from imgkit.plugins.engines import Claim, Part, Report
from imgkit.plugins.events import Call
from imgkit.wire.json_values import JsonMapping


def reserve_claim(core: Core, values: JsonMapping, claim: Claim, timeout_s: float) -> ReservationGroup:
    """Reserve the request of a claim in the ledgers of the run. May block.

    Args:
        core: parts of the service.
        values: the request as JSON values.
        claim: the claim.
        timeout_s: seconds of the call.

    Raises:
        ImgkitError: a ledger refuses; nothing is sent.
    """
    request = to_request(values)
    call = Call(
        id=claim["part"][0],
        operation=request.operation,
        backend=core.backend_name,
        provider=core.provider_name,
        base_url=core.target.base_url,
        host_class=core.target.host_class,
        timeout_s=timeout_s,
        model=resolve_model(request, core.target.model),
    )
    reservations = ReservationGroup()
    reservations.reserve(core.resources.ledgers, request, call, claim["part"][1])
    return reservations


class TaskAccount:
    """What the claims of a task have reserved in the ledgers of the run. One thread at a time uses it.

    The first claim reserves all images of the task. A further attempt for the same images reserves them once
    more, unless an earlier one has ended for free: it may be billed, too.

    Args:
        core: parts of the service.
        values: the request as JSON values.
        timeout_s: seconds of the call.
    """

    def __init__(self, core: Core, values: JsonMapping, timeout_s: float) -> None:
        self._core, self._values, self._timeout_s = core, values, timeout_s
        self._first: ReservationGroup | None = None
        self._more: dict[int, list[ReservationGroup]] = {}
        self._claimed: list[SentPart] = []
        self._ended: set[SentPart] = set()

    def reserve(self, claim: Claim) -> None:
        """Reserve the request of a claim. May block.

        Raises:
            ImgkitError: a ledger refuses; nothing is sent.
        """
        part = SentPart(*claim["part"])
        self._end_parts(claim.get("ended", ()))
        more = self._more.setdefault(part.first, [])
        if self._first is None:
            self._first = reserve_claim(self._core, self._values, claim, self._timeout_s)
        elif self._count_open(part.first) > len(more):
            values = {**self._values, "n": part.images}
            more.append(reserve_claim(self._core, values, claim, self._timeout_s))
        self._claimed.append(part)

    def mark_sent(self) -> None:
        """Note that the claimed requests leave."""
        for group in self._list_groups():
            group.sent = True

    def cancel(self, claim: Claim) -> None:
        """Take a claim back: its request does not leave."""
        self._claimed.remove(SentPart(*claim["part"]))
        self._end_parts(())

    def end(self, report: Report) -> None:
        """End all reservations, as the report of the task tells. May block."""
        self._end_parts(report.get("ended", ()))
        for groups in self._more.values():
            for group in groups:
                group.keep(OutcomeUnknownError("A later attempt was sent for the same images."))
        if self._first is not None:
            end_reservations(self._core, self._first, self._values, report)

    def give_back(self) -> None:
        """Release all reservations: nothing was sent, or it cost nothing. May block."""
        for group in self._list_groups():
            group.settle(None)

    def _list_groups(self) -> list[ReservationGroup]:
        more = [group for groups in self._more.values() for group in groups]
        return more if self._first is None else [self._first, *more]

    def _count_open(self, first: int) -> int:
        return sum(part.first == first and part not in self._ended for part in self._claimed)

    def _end_parts(self, parts: Iterable[Part]) -> None:
        """Release what attempts have reserved that ended for free."""
        self._ended.update(SentPart(*part) for part in parts)
        for first, groups in self._more.items():
            while len(groups) > max(0, self._count_open(first) - 1):
                groups.pop().settle(None)


def end_reservations(core: Core, reserved: ReservationGroup, values: JsonMapping, report: Report) -> None:
    """End what a claim has reserved, as its report tells. May block.

    Args:
        core: parts of the service.
        reserved: the reservations.
        values: the request as JSON values.
        report: the report.
    """
    error, jobs = report.get("error"), report.get("jobs")
    has_open_parts = error is not None and error.maybe_billed
    if report.get("images") and not has_open_parts:
        meta = Meta(
            operation=to_request(values).operation,
            call_id="",
            backend=core.backend_name,
            provider=core.provider_name,
            model=None,
        )
        cost = Cost(amount=_parse_cost(report.get("cost")), note="reported by a worker")
        reserved.settle(ImagesResponse(images=(), meta=meta, cost=cost))
    elif isinstance(error, JobPendingError) and jobs and not report.get("images"):
        reserved.defer(Job.from_json(jobs[0]).id)
        reserved.leave()
    elif error is None or has_open_parts:  # all of it counts as spent, since the parts share a reservation
        reserved.keep(error or OutcomeUnknownError("A worker reported nothing."))
    else:
        reserved.settle(None)


def write_down(core: Core, files: RunFiles, record: RowRecord, report: Report) -> BulkOutcome:
    """Write a report down in the manifest, and return the outcome. May block.

    Args:
        core: parts of the service.
        files: the files of the run.
        record: the record of the row.
        report: the report.
    """
    error, row = report.get("error"), record.row
    _keep_jobs(core, report)
    for part in report.get("ended", ()):
        record.mark_ended(SentPart(*part))
    entries = [files.output.complete(entry, row) for entry in report.get("images", ())]
    cost = _parse_cost(report.get("cost"))
    if entries:
        covered = [SentPart(*part) for part in report.get("covered", ())]
        record.mark_saved(entries, covered, cost, [] if error is None else [error], durable=True)
        paths, urls = files.output.find_places(record.images)
        return BulkOutcome(row.id, record.state, paths, cost, error, urls)
    if error is None:
        error = OutcomeUnknownError("The report of a worker names neither images nor an error.")
    return record.mark_failed(error)


def _keep_jobs(core: Core, report: Report) -> None:
    """Keep the jobs that a worker left, for the next run."""
    jobs = [Job.from_json(text) for text in report.get("jobs", ())]
    store = open_job_store(core)
    if store is not None:
        for job in jobs:
            store.save(job)


def _parse_cost(text: str | None) -> Decimal | None:
    try:
        return None if text is None else Decimal(text)
    except InvalidOperation:
        return None
