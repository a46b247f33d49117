"""The call of a row: it sends the request, and writes down what became of it.

The manifest says that a request is being sent before it leaves, and the images are in the output before the
manifest says that it is done. So the manifest is never ahead of the disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import partial
from typing import NamedTuple

from imgkit.bulk.bulk_values import MAY_RETRY, BulkOutcome, Work, choose_state, cost_in_usd
from imgkit.bulk.manifest import BulkRow, Manifest, State
from imgkit.bulk.output import DigestPlan, Output
from imgkit.bulk.rows import to_request
from imgkit.core.context import CallRecord
from imgkit.core.core import Core
from imgkit.core.lifecycle import run_call
from imgkit.core.resume import resume_jobs
from imgkit.errors import ImgkitError, JobPendingError, SaveError
from imgkit.jobs.job import Job
from imgkit.models import ImagesResponse
from imgkit.runtime.flow import Flow, run_blocking
from imgkit.wire.json_values import JsonMapping, JsonObject


class RunFiles(NamedTuple):
    """The files of a run, and the way to stop it. Any thread may use them.

    Attributes:
        manifest: the manifest.
        output: the output folder.
        may_cost: the requests may cost something.
        stop: lets the run send nothing more.
        guard: held while the list of images is written.
        is_stopping: returns whether calls should leave their jobs to the next run.
    """

    manifest: Manifest
    output: Output
    may_cost: bool
    stop: Callable[[ImgkitError], None]
    guard: threading.Lock
    is_stopping: Callable[[], bool]


def call_row(
    core: Core,
    request: JsonMapping,
    jobs: Iterable[Job],
    plan: DigestPlan,
    timeout_s: float | None,
    record: CallRecord,
) -> Flow[ImagesResponse]:
    """Send the request of a row, or collect its jobs.

    Args:
        core: parts of the service.
        request: the request as JSON values.
        jobs: its pending jobs; none to send it.
        plan: the place of its images.
        timeout_s: seconds of the call, None for the service's limit.
        record: writes down what becomes of it.

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
    }
    return (yield from run_call(core, type(asked), asked, arguments))


def carry_out_row(core: Core, files: RunFiles, work: Work, timeout_s: float | None) -> Flow[BulkOutcome]:
    """Carry out a row in this process, and return its outcome; no error of imgkit leaves it."""
    row = work.row
    record = RowRecord(files, row)
    try:
        call = call_row(core, row.request, work.jobs, files.output.plan, timeout_s, record)
        response = yield from call
    except ImgkitError as error:
        return (yield from run_blocking(partial(record.mark_failed, error)))
    paths = tuple(image.path for image in response.images if image.path is not None)
    return BulkOutcome(row.id, record.state, paths, cost_in_usd(response), record.error)


class RowRecord:
    """The record of a row's call in the manifest: an `imgkit.core.context.CallRecord`.

    Args:
        files: the files of the run.
        row: the row.

    Attributes:
        row: the row.
        info: facts about the latest attempt, as the manifest has them.
        state: what became of the row, once it was delivered.
        error: the error of a part of it, None for none.
    """

    def __init__(self, files: RunFiles, row: BulkRow) -> None:
        self._files = files
        self.row = row
        self.info: JsonObject = {**row.info} if row.state == "accepted" else {}
        self.state: State = "done"
        self.error: ImgkitError | None = None

    @property
    def is_stopping(self) -> bool:
        """Whether the call should leave its job to the next run."""
        return self._files.is_stopping()

    def mark_sending(self, call_id: str, attempt: int) -> None:
        """Write down that an attempt is about to leave."""
        self.info = {"call_id": call_id, "attempt": attempt, "paid": self._files.may_cost}
        self._files.manifest.mark(self.row.number, "sending", self.info)

    def mark_delivered(self, response: ImagesResponse) -> None:
        """Write down the images, then list them."""
        entries = self._files.output.describe(self.row, response)
        jobs = [job.id for each in response.errors for job in getattr(each, "jobs", ())]
        self.mark_saved(entries, cost_in_usd(response), next(iter(response.errors), None), jobs)

    def mark_saved(
        self,
        entries: list[JsonObject],
        cost: Decimal | None,
        error: ImgkitError | None,
        jobs: list[str],
        *,
        durable: bool = False,
    ) -> None:
        """Write down images that are at their places, then list them.

        Args:
            entries: facts about them, as the list has them.
            cost: the cost in dollars, None if it is unknown.
            error: the error of a part of the request, None for none.
            jobs: ids of its pending jobs.
            durable: flush it to the disk: nothing else knows of the images.
        """
        self.info |= {"images": entries}
        if cost is not None:
            self.info["cost"] = str(cost)
        if error is not None:
            self.error = error
            self.state = choose_state(error)
            self.info |= {"jobs": jobs, "error": str(error)[:2000]}
        self._files.manifest.mark(self.row.number, self.state, self.info, durable=durable)
        try:
            with self._files.guard:
                self._files.output.list_images(entries)
        except SaveError as error:  # the images are complete, and the next run lists them
            self._files.stop(error)
            return
        self._files.manifest.mark_listed(self.row.number)

    def mark_failed(self, error: ImgkitError) -> BulkOutcome:
        """Write down the error that ended the call, and return the outcome. May block."""
        state = choose_state(error)
        if isinstance(error, SaveError) or "images" in self.info:  # paid, and the reply is kept
            state = "sending"
            self._files.stop(error)
        info: JsonObject = {**self.info, "error": f"{type(error).__name__}: {error}"[:2000]}
        if isinstance(error, JobPendingError):
            info["jobs"] = [job.id for job in error.jobs]
        info["retry"] = state == "failed" and isinstance(error, MAY_RETRY)
        self._files.manifest.mark(self.row.number, state, info)
        return BulkOutcome(self.row.id, state, error=error)
