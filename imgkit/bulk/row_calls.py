"""The call of a row: it sends the request, and writes down what became of it.

The manifest says that a request is being sent before it leaves, and the images are in the output before the
manifest says that it is done. So the manifest is never ahead of the disk.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from functools import partial
from typing import NamedTuple

from imgkit.bulk.bulk_values import (
    FATAL,
    MAY_RETRY,
    BulkOutcome,
    KeptReply,
    Work,
    choose_state,
    cost_in_usd,
)
from imgkit.bulk.delivery import publish_images
from imgkit.bulk.manifest import BulkRow, Manifest, State
from imgkit.bulk.output import DigestPlan, Output
from imgkit.bulk.row_progress import RowProgress
from imgkit.bulk.rows import to_request
from imgkit.bulk.run_pace import RunPace
from imgkit.bulk.shared_inputs import SharedInputs
from imgkit.core.context import CallRecord, CallTurn, SentPart
from imgkit.core.core import Core
from imgkit.core.lifecycle import run_call
from imgkit.core.responses import ensure_downloaded, save_image
from imgkit.core.resume import resume_jobs
from imgkit.errors import ImgkitError, InvalidRequestError, LinkExpiredError, NotSentError, SaveError
from imgkit.images.inputs import OpenFile, open_file
from imgkit.jobs.job import Job
from imgkit.models import ImagesResponse
from imgkit.runtime.flow import Flow, run_blocking
from imgkit.wire.json_values import JsonMapping, JsonObject
from imgkit.wire.messages import Head

_NOT_OF_JOBS = (InvalidRequestError, NotSentError, *FATAL)
"""Errors that say nothing about a job, such as that the service has another provider."""


class RunFiles(NamedTuple):
    """The files of a run, and the way to stop it. Any thread may use them.

    Attributes:
        manifest: the manifest.
        output: the output, which is a folder or a URL.
        may_cost: the requests may cost something.
        stop: lets the run send nothing more.
        guard: held while the list of images is written.
        is_stopping: returns whether calls should leave their jobs to the next run.
        pace: the turns of its requests.
        inputs: the input images that its rows share.
    """

    manifest: Manifest
    output: Output
    may_cost: bool
    stop: Callable[[ImgkitError], None]
    guard: threading.Lock
    is_stopping: Callable[[], bool]
    pace: RunPace
    inputs: SharedInputs

    def list_images(self, number: int, entries: list[JsonObject]) -> None:
        """List the images of a request. May block.

        Args:
            number: the number of the request.
            entries: facts about the images.

        Raises:
            ImgkitError: the list cannot be written; the next run writes it.
        """
        with self.guard:
            self.output.list_images(entries)
            self.manifest.mark_listed([number], self.output.list_mark)
        self.output.checkpoint()


def call_row(
    core: Core,
    request: JsonMapping,
    jobs: Iterable[Job],
    plan: DigestPlan,
    timeout_s: float | None,
    record: CallRecord,
    missing: tuple[tuple[int, int], ...] | None = None,
    open_input: OpenFile = open_file,
) -> Flow[ImagesResponse]:
    """Send the request of a row, or collect its jobs.

    Args:
        core: parts of the service.
        request: the request as JSON values.
        jobs: its pending jobs; none to send it.
        plan: the place of its images.
        timeout_s: seconds of the call, None for the service's limit.
        record: writes down what becomes of it.
        missing: the images to send for, as `imgkit.core.context.CallOptions` has them; None for all.
        open_input: opens the input images.

    Raises:
        ImgkitError: as `imgkit.ImageService.create_image` documents it.
    """
    pending = list(jobs)
    if pending:
        return (yield from resume_jobs(core, pending, plan, timeout_s, record))
    asked = to_request(request)
    arguments = {
        "save_to": plan,
        "record": record,
        "timeout_s": timeout_s,
        "cache": None,
        "replica": 0,
        "strategy": "auto",
        "missing": missing,
        "open_input": open_input,
    }
    return (yield from run_call(core, type(asked), asked, arguments))


def carry_out_row(core: Core, files: RunFiles, work: Work, timeout_s: float | None) -> Flow[BulkOutcome]:
    """Carry out a row in this process, and return its outcome; no error of imgkit leaves it.

    What is kept or pending of earlier requests is collected, and nothing is sent: see
    `imgkit.bulk.earlier_work`. Any other row is sent for the images that are missing.
    """
    row, plan = work.row, files.output.plan
    record = RowRecord(files, row)
    responses: list[ImagesResponse] = []
    try:
        for kept in work.kept:
            try:
                responses.append((yield from deliver_kept(core, plan, record, kept, timeout_s)))
            except LinkExpiredError:
                if not work.may_repeat:
                    raise
                yield from run_blocking(partial(record.give_up, kept.part))
        if work.jobs:
            responses.append((yield from call_row(core, {}, work.jobs, plan, timeout_s, record)))
        if not work.is_earlier:
            missing = None if record.progress.is_untouched else record.progress.missing
            open_input = files.inputs.open_file
            call = call_row(core, row.request, (), plan, timeout_s, record, missing, open_input)
            responses.append((yield from call))
    except ImgkitError as error:
        return (yield from run_blocking(partial(record.mark_failed, error)))
    paths, urls = files.output.find_places(record.images)
    costs = [cost_in_usd(response) for response in responses]
    known = [cost for cost in costs if cost is not None]
    cost = sum(known, Decimal(0)) if len(known) == len(costs) else None
    return BulkOutcome(row.id, record.state, paths, cost, record.error, urls)


def deliver_kept(
    core: Core, plan: DigestPlan, record: CallRecord, kept: KeptReply, timeout_s: float | None
) -> Flow[ImagesResponse]:
    """Save the images of a reply that the spool has kept, fetch those at URLs, and forget the reply.

    Raises:
        DownloadError: an image cannot be fetched; the reply stays.
        SaveError: an image cannot be saved; the reply stays.
    """
    deadline = time.monotonic() + (timeout_s or core.limits.timeout_s)
    images = []
    for image in kept.images:
        image = yield from ensure_downloaded(core, image, deadline)
        images.append((yield from run_blocking(partial(save_image, image, plan, len(kept.images)))))
    response = kept.to_response(tuple(images))
    mark = partial(record.mark_delivered, response, [(kept.part, len(images))])
    yield from run_blocking(mark, threads="records")
    yield from run_blocking(kept.forget)
    return response


class RowRecord:
    """The record of a row's call in the manifest: an `imgkit.core.context.CallRecord`.

    Args:
        files: the files of the run.
        row: the row.

    Attributes:
        row: the row.
        progress: the facts of the row, as the manifest has them.
        state: what became of the row; "waiting" while images are missing that may be sent for.
        error: the error of a part of it, None for none.
    """

    may_block = True

    def __init__(self, files: RunFiles, row: BulkRow) -> None:
        self._files = files
        self.row = row
        self._guard = threading.Lock()  # parts of a call end at the same time
        self._is_saved = False
        self.progress = RowProgress(row)
        self.state: State = "waiting" if row.state == "waiting" else self.progress.choose_state()
        self.error: ImgkitError | None = None

    @property
    def images(self) -> list[JsonMapping]:
        """Facts about all images of the row, as the list has them."""
        return [*self.progress.info.get("images", ())]

    @property
    def is_stopping(self) -> bool:
        """Whether the call should leave its job to the next run."""
        return self._files.is_stopping()

    @property
    def is_stopped(self) -> bool:
        """Whether the run sends nothing more."""
        return self._files.pace.is_stopped

    def take_turn(self, images: int) -> Flow[CallTurn]:
        """Return the flow that waits until an attempt may be sent."""
        return self._files.pace.take_turn(self.row.id, images)

    def note_reply(self, head: Head) -> None:
        """Let the pace learn the limits that a reply tells."""
        self._files.pace.note_reply(self.row.id, head)

    def mark_sending(self, part: SentPart) -> None:
        """Write down that an attempt is about to leave."""
        with self._guard:
            self.progress.add_sent(part)
            self.progress.info["paid"] = self._files.may_cost
            self.progress.info["log"] = self._files.manifest.departures.token
            self._files.manifest.mark(self.row.number, "sending", self.progress.info)

    def mark_leaving(self, part: SentPart) -> None:
        """Log that an attempt leaves, for a process that finds this one dead."""
        if self._files.may_cost:
            self._files.manifest.departures.note(part)

    def mark_ended(self, part: SentPart) -> None:
        """Write down that nothing will come of an attempt."""
        with self._guard:
            if self.progress.drop_sent(part):
                self._files.manifest.mark(self.row.number, "sending", self.progress.info, durable=False)

    def give_up(self, part: SentPart) -> None:
        """Write down that nothing will come of an attempt, and let its images be sent for again."""
        with self._guard:
            self.progress.drop_sent(part)
            self.progress.info |= {"again": True, "unpriced": True}
            self.state = self.progress.choose_state()
            self._files.manifest.mark(self.row.number, self.state, self.progress.info)

    def mark_delivered(self, response: ImagesResponse, parts: Sequence[tuple[SentPart, int]]) -> None:
        """Write down the images, then list them."""
        entries, covered, damaged, errors = publish_images(self._files.output, self.row, response, parts)
        with self._guard:
            for part in damaged:  # its reply was delivered, and its cost is that of the response
                self.progress.end_part(part)
        self.mark_saved(entries, covered, cost_in_usd(response), errors)

    def mark_saved(
        self,
        entries: list[JsonObject],
        parts: Sequence[SentPart],
        cost: Decimal | None,
        errors: Sequence[ImgkitError],
        *,
        durable: bool = False,
    ) -> None:
        """Write down images that are at their places, then list them.

        Args:
            entries: facts about them, as the list has them.
            parts: the requests that brought them.
            cost: their cost in dollars, None if it is unknown.
            errors: the errors of other parts of the row.
            durable: flush it to the disk: nothing else knows of the images.
        """
        with self._guard:
            progress = self.progress
            progress.add_images(entries, parts)
            progress.info.pop("log", None)
            self._is_saved = True
            _add_cost(progress.info, cost, len(entries))
            is_whole = not progress.missing and not progress.sent
            if errors and not is_whole:
                self._note_errors(errors)
            else:
                self.state = progress.choose_state()
            self._files.manifest.mark(
                self.row.number, self.state, progress.info, durable=durable, is_listed=False
            )
            self._is_saved = False
        if not entries:
            return
        try:
            self._files.list_images(self.row.number, entries)
            progress.mark_listed()
        except ImgkitError as error:  # the images are complete, and the next run lists them
            self._files.stop(error)

    def mark_failed(self, error: ImgkitError) -> BulkOutcome:
        """Write down the error that ended the call, and return the outcome. May block."""
        was_sent = "sent" in self.progress.info
        self._note_errors([error])
        if self.state == "failed" and self.row.state == "waiting":
            may_go = self._files.pace.may_go_again(self.row.id, error, was_sent=was_sent)
            self.state = "waiting" if may_go else "failed"
        if self.row.state == "accepted" and self.progress.sent and isinstance(error, _NOT_OF_JOBS):
            self.state = "accepted"  # nobody has asked for its job
        if isinstance(error, SaveError) or self._is_saved:  # paid, and the reply is kept
            self.state = "sending"
            self._files.stop(error)
        self._files.manifest.mark(self.row.number, self.state, self.progress.info)
        return BulkOutcome(self.row.id, self.state, error=error)

    def _note_errors(self, errors: Sequence[ImgkitError]) -> None:
        """Choose the state after errors of some requests; the error that decides is that of the row."""
        state = self.state = self.progress.choose_state(errors)
        self.error = next((error for error in errors if choose_state(error) == state), errors[0])
        info = self.progress.info
        info["error"] = f"{type(self.error).__name__}: {self.error}"[:2000]
        info["jobs"] = [job.id for error in errors for job in getattr(error, "jobs", ())]
        info["retry"] = state == "failed" and any(isinstance(error, MAY_RETRY) for error in errors)


def _add_cost(info: JsonObject, cost: Decimal | None, images: int) -> None:
    """Add the cost of some images to that of earlier ones; a sum with an unknown cost is unknown."""
    earlier = info.pop("cost", None if len(info["images"]) > images else "0")
    if cost is not None and earlier is not None:
        info["cost"] = str(Decimal(earlier) + cost)
