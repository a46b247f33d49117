"""What an earlier process has left of requests: kept replies, jobs, and images that are not listed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

from imgkit.billing.spool_record import SpooledReply
from imgkit.bulk.bulk_values import Work
from imgkit.bulk.manifest import BulkRow
from imgkit.bulk.row_calls import RowRecord, RunFiles
from imgkit.core.core import Core
from imgkit.core.job_keeper import open_job_store
from imgkit.core.recovery import drop_record, find_lost_reply, recover
from imgkit.images.image import Image
from imgkit.jobs.job import Job
from imgkit.models import Cost, ImagesResponse, Meta
from imgkit.wire.json_values import JsonMapping


class Kept(NamedTuple):
    """A reply that the spool has kept.

    Attributes:
        record: the record in the spool; None for jobs with records of their own.
        images: its images.
        jobs: the jobs that it accepts in place of images.
    """

    record: SpooledReply | None
    images: tuple[Image, ...] = ()
    jobs: tuple[Job, ...] = ()

    def to_response(self, images: tuple[Image, ...]) -> ImagesResponse:
        """Return the response that the call would have returned, as far as the record tells."""
        facts: JsonMapping = {} if self.record is None else self.record.facts
        meta = Meta(
            operation=facts.get("operation", "create_image"),
            call_id=str(facts.get("call_id", "")),
            backend=str(facts.get("backend", "")),
            provider=str(facts.get("provider", "")),
            model=facts.get("model"),
        )
        return ImagesResponse(images=images, meta=meta, cost=Cost(note="the call was interrupted"))

    def forget(self) -> None:
        """Remove the record: its images are elsewhere."""
        if self.record is not None:
            drop_record(self.record)


FindReports = Callable[[Iterable[BulkRow]], tuple[list[BulkRow], list[BulkRow]]]


def reconcile(core: Core, files: RunFiles, find_reports: FindReports, *, retry_unknown: bool) -> deque[Work]:
    """Find out what became of the requests that an earlier process has left. May block.

    Args:
        core: parts of the service.
        files: the files of the run.
        find_reports: asks for the reports of tasks, and returns the requests that still run, and the rest.
        retry_unknown: let requests of unknown outcome wait again.

    Returns:
        The requests with pending jobs.

    Raises:
        SaveError: a kept reply, or the list of images, cannot be written; nothing was sent.
    """
    manifest = files.manifest
    for number in files.output.repair_list(manifest.list_unlisted()):
        manifest.mark_listed(number)
    claimed: list[BulkRow] = []
    for row in [*manifest.list_rows("sending"), *manifest.list_rows("unknown")]:
        if not row.info.get("paid", True):
            manifest.mark(row.number, "waiting", {})
            continue
        kept = find_kept(core, row.info)
        if kept is None and row.info.get("task"):
            claimed.append(row)
        elif kept is None:
            manifest.mark(row.number, "unknown", row.info)
        elif kept.jobs:
            manifest.mark(row.number, "accepted", {**row.info, "jobs": [job.id for job in kept.jobs]})
        else:
            _deliver_kept(files, row, kept)
    for row in find_reports(claimed)[1]:
        manifest.mark(row.number, "unknown", row.info)
    for row in list(manifest.list_rows("failed")):
        if row.info.get("retry"):
            manifest.mark(row.number, "waiting", {})
    if retry_unknown:
        manifest.reset(["unknown"])
    pending: deque[Work] = deque()
    for row in list(manifest.list_rows("accepted")):
        jobs = find_pending_jobs(core, row.info)
        if jobs:
            pending.append(Work(row, tuple(jobs)))
        else:
            manifest.mark(row.number, "unknown", row.info)
    return pending


def _deliver_kept(files: RunFiles, row: BulkRow, kept: Kept) -> None:
    """Save the images of a reply that the spool has kept, and forget the reply."""
    images = []
    for image in kept.images:
        path = files.output.plan.write(image, len(kept.images))
        images.append(replace(image, path=path))
    record = RowRecord(files, row)
    record.info = dict(row.info)
    record.mark_delivered(kept.to_response(tuple(images)))
    kept.forget()


def find_kept(core: Core, info: JsonMapping) -> Kept | None:
    """Return what is kept of the attempt that a row names, None for nothing that is whole. May block."""
    call_id = str(info.get("call_id", ""))
    jobs = find_pending_jobs(core, info)
    if jobs:
        return Kept(None, jobs=tuple(jobs))
    lost = find_lost_reply(core.resources.ledgers, f"{call_id}-{info.get('attempt', 1)}")
    if lost.record is None or lost.record.state == "running":
        return None
    found = recover(lost.record)
    if found.job is not None:
        store = open_job_store(core)
        if store is not None:
            store.save(found.job)
            drop_record(lost.record)
            return Kept(None, jobs=(found.job,))
    return Kept(lost.record, found.images) if found.whole else None


def find_pending_jobs(core: Core, info: JsonMapping) -> list[Job]:
    """Return the jobs in the state folder that the call of a row has left. May block."""
    store = open_job_store(core)
    call_id = info.get("call_id")
    if store is None or not call_id:
        return []
    return [each.job for each in store.list_jobs() if each.job is not None and each.job.call_id == call_id]
