"""What an earlier process has left of requests: kept replies, jobs, and images that are not listed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import NamedTuple

from imgkit.bulk.bulk_values import KeptReply, Work
from imgkit.bulk.earlier_work import choose_work
from imgkit.bulk.manifest import BulkRow, Manifest, State
from imgkit.bulk.missing_images import drop_old_lines, restore_images
from imgkit.bulk.row_calls import RowRecord, RunFiles
from imgkit.bulk.row_progress import RowProgress
from imgkit.core.context import SentPart
from imgkit.core.core import Core
from imgkit.core.job_keeper import open_job_store
from imgkit.core.recovery import drop_record, find_lost_reply, recover
from imgkit.core.responses import save_image
from imgkit.errors import ImgkitError
from imgkit.files import link_file
from imgkit.images.image import Image
from imgkit.images.sources import UrlSource
from imgkit.jobs.job import Job
from imgkit.models import Estimate
from imgkit.wire.json_values import JsonObject


class _Left(NamedTuple):
    """What is left of the open requests of a row.

    Attributes:
        jobs: their pending jobs.
        kept: their kept replies.
    """

    jobs: tuple[Job, ...]
    kept: tuple[KeptReply, ...]


FindReports = Callable[[Iterable[BulkRow]], list[BulkRow]]
FindEstimate = Callable[[BulkRow], Estimate]


class Reconciled(NamedTuple):
    """What an earlier process has left.

    Attributes:
        work: the requests with pending jobs, or with images at URLs.
        lost_usd: the highest cost in dollars, as far as it is known, of requests that are sent again.
    """

    work: deque[Work]
    lost_usd: Decimal


def reconcile(
    core: Core, files: RunFiles, find_reports: FindReports, find_estimate: FindEstimate | None
) -> Reconciled:
    """Find out what became of the requests that an earlier process has left. May block.

    Args:
        core: parts of the service.
        files: the files of the run.
        find_reports: settles the reports of tasks, and returns the requests that workers still carry out.
        find_estimate: estimates the requests of unknown outcome, which wait again; None to leave them alone.

    Raises:
        SaveError: a kept reply, or the list of images, cannot be written; nothing was sent.
    """
    manifest, output = files.manifest, files.output
    listed = output.repair_list(
        manifest.read_fact("list"), manifest.list_unlisted(), manifest.list_with_images
    )
    manifest.mark_listed(listed, output.list_mark)
    drop_old_lines(manifest, output)
    pending: deque[Work] = deque()
    lost: list[Decimal] = []

    def count_lost(row: BulkRow) -> JsonObject:
        progress = RowProgress(row)
        lost.append(progress.count_lost(partial(_estimate_images, find_estimate, row)))
        return progress.keep_lasting()

    _forget_unsent(manifest)
    stored = _list_jobs(core)
    claimed = [row for row in _list_open(manifest) if row.info.get("task")]
    running = {row.number for row in find_reports(claimed)}
    for row in [row for row in _list_open(manifest) if row.number not in running]:
        work = _reconcile_row(core, files, row, stored, None if find_estimate is None else count_lost)
        if work is not None:
            pending.append(work)
    for row in manifest.list_rows("unknown"):
        leader = None if row.leader is None else manifest.find_number(row.leader)
        if leader is not None and leader.state != "unknown":
            manifest.mark(row.number, "waiting", {}, durable=False)
    for row in manifest.list_rows("failed"):
        if row.info.get("retry"):
            manifest.mark(row.number, "waiting", RowProgress(row).keep_lasting(), durable=False)
    manifest.departures.begin()
    return Reconciled(pending, sum(lost, Decimal(0)))


def _forget_unsent(manifest: Manifest) -> None:
    """Forget the attempts that were about to leave when their process was killed, and never did."""
    rows = {row.number: row for row in manifest.list_rows("sending")}
    for number, parts in manifest.departures.find_unsent(rows.values()).items():
        progress = RowProgress(rows[number])
        for part in parts:
            progress.drop_sent(part)
        if parts:
            manifest.mark(number, "sending", progress.info, durable=False)


def _estimate_images(find_estimate: FindEstimate | None, row: BulkRow, images: int) -> Decimal | None:
    """Return the highest cost of some images of a row in dollars, None if it is not known."""
    try:
        request = {**row.request, **({"n": images} if images > 1 or "n" in row.request else {})}
        estimate = None if find_estimate is None else find_estimate(row._replace(request=request))
    except ImgkitError:  # such as a provider that is unknown here
        return None
    return None if estimate is None or estimate.currency != "USD" else estimate.high


def _list_open(manifest: Manifest) -> list[BulkRow]:
    """Return the rows of which a request may be open."""
    states: tuple[State, ...] = ("sending", "accepted", "unknown")
    return [row for state in states for row in manifest.list_rows(state) if row.leader is None]


def _reconcile_row(
    core: Core,
    files: RunFiles,
    row: BulkRow,
    stored: list[Job],
    count_lost: Callable[[BulkRow], JsonObject] | None,
) -> Work | None:
    """Write down what became of a row that was being sent; return it if there is anything to collect.

    Args:
        core: parts of the service.
        files: the files of the run.
        row: the row.
        stored: all pending jobs.
        count_lost: returns the facts of a row of unknown outcome that waits again; None to leave it alone.
    """
    row = restore_images(files, row)
    if row.state == "done":
        return None
    manifest, progress = files.manifest, RowProgress(row)
    if not row.info.get("paid", True):
        manifest.mark(row.number, "waiting", progress.keep_lasting(), durable=False)
        return None
    left = _find_left(core, progress, stored)
    at_urls = []
    for kept in left.kept:
        if any(isinstance(image.source, UrlSource) for image in kept.images):
            at_urls.append(kept)
        else:
            row = _deliver_now(files, row, kept)
    if left.jobs or at_urls:
        if row.state != "accepted":
            row = row._replace(state="accepted")
            manifest.mark(row.number, row.state, row.info)
        return choose_work(row, left.jobs, at_urls, may_repeat=count_lost is not None)
    progress = RowProgress(row)
    is_unknown = row.state in ("unknown", "accepted") and not progress.info["sent"] and not left.kept
    state = "unknown" if is_unknown else progress.choose_state()
    if state == "waiting":
        manifest.mark(row.number, "waiting", progress.keep_lasting(), durable=False)
    elif state == "unknown" and count_lost is not None:
        manifest.mark(row.number, "waiting", count_lost(row), durable=False)
    elif state != row.state:
        manifest.mark(row.number, state, row.info)
    return None


def _deliver_now(files: RunFiles, row: BulkRow, kept: KeptReply) -> BulkRow:
    """Save the images of a kept reply, and forget the reply; return the row as it is then."""
    images = tuple(_save_kept(files, kept, image) for image in kept.images)
    record = RowRecord(files, row)
    record.mark_delivered(kept.to_response(images), [(kept.part, len(images))])
    kept.forget()
    return row._replace(state=record.state, info=record.progress.info)


def _save_kept(files: RunFiles, kept: KeptReply, image: Image) -> Image:
    """Save an image of a kept reply. A link takes no room on a disk that may be full.

    Raises:
        SaveError: the disk rejects it.
    """
    plan, count = files.output.plan, len(kept.images)
    part, path = _find_part(kept, image), plan.build_path(image, image.sha256, count)
    if part is not None and link_file(part, path):
        return replace(image, path=path)
    return save_image(image, plan, count)


def _find_part(kept: KeptReply, image: Image) -> Path | None:
    """Return the file in the record that has just the bytes of an image, None for none. May block."""
    for part in sorted(kept.record.folder.glob("[0-9]*.part")):
        with suppress(OSError):
            if part.stat().st_size == image.source.length and part.read_bytes() == image.data:
                return part
    return None


def _find_left(core: Core, progress: RowProgress, stored: list[Job]) -> _Left:
    """Return what is left of the open requests of a row. May block."""
    jobs: dict[str, Job] = {}
    kept: list[KeptReply] = []
    for part in progress.sent:
        own = [job for job in stored if job.call_id == part.call_id and job.first_index == part.first]
        jobs.update((job.id, job) for job in own)
        if own:
            continue
        found = find_kept(core, part)
        if isinstance(found, Job):
            jobs[found.id] = found
        elif found is not None and all(each.part.first != part.first for each in kept):
            kept.append(found)
    return _Left(tuple(jobs.values()), tuple(kept))


def find_kept(core: Core, part: SentPart) -> KeptReply | Job | None:
    """Return the kept reply to an attempt, or the job that it accepts; None for nothing that is whole."""
    lost = find_lost_reply(core.resources.ledgers, f"{part.call_id}-{part.attempt}")
    if lost.record is None or lost.record.state == "running":
        return None
    found = recover(lost.record)
    store = open_job_store(core)
    if found.job is not None and store is not None:
        job = found.job.advance(first_index=part.first)
        store.save(job)
        drop_record(lost.record)
        return job
    return KeptReply(lost.record, part, found.images) if found.whole else None


def _list_jobs(core: Core) -> list[Job]:
    """Return the jobs in the state folder."""
    store = open_job_store(core)
    return [] if store is None else [each.job for each in store.list_jobs() if each.job is not None]
