"""The worker's side of an engine: it carries out tasks, and answers what became of them.

A worker claims a request before it sends it, keeps its reply in a state folder of its own machine, and puts
the images and a report of the task to the output before it returns. It never raises: the arguments of a task
that raises may land in logs. It reads keys from its own environment, or from a file on its machine.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

from imgkit.bulk.bulk_values import cost_in_usd
from imgkit.bulk.delivery import publish_images
from imgkit.bulk.manifest import BulkRow
from imgkit.bulk.output import Output
from imgkit.bulk.reconcile import find_kept
from imgkit.bulk.row_calls import call_row, deliver_kept
from imgkit.bulk.tasks import ClaimRefusedError, encode_report, get_version, strip_error, to_part
from imgkit.core.context import CallTurn, SentPart
from imgkit.errors import ConfigurationError, ImgkitError, JobPendingError, OutcomeUnknownError
from imgkit.fork import run_in_forked_children
from imgkit.jobs.job import Job
from imgkit.models import ImagesResponse
from imgkit.plugins.engines import Answer, AskedTask, Claim, Report, TaskPayload
from imgkit.plugins.table import describe_error
from imgkit.runtime.flow import Flow
from imgkit.service import ImageService
from imgkit.wire.messages import Head

MOST_REPORTS = 10_000
"""Reports that a worker remembers for a run that did not get them."""

AskRun = Callable[[Claim], bool]


def carry_out_task(payload: TaskPayload, ask_run: AskRun) -> Report:
    """Carry out a task in this process, and return its report. May block; never raises.

    Args:
        payload: `imgkit.plugins.EngineTask.payload`.
        ask_run: hands a claim to `imgkit.plugins.EngineHost.claim`, and returns its answer. An error of it
            counts as a refusal.
    """
    return _WORKER.carry_out(payload, ask_run)


def find_tasks(asked: Sequence[AskedTask]) -> Answer:
    """Return what this worker knows of tasks, and deliver the replies that its machine keeps. May block.

    It never raises.

    Args:
        asked: the argument of `imgkit.plugins.Engine.ask`.
    """
    return _WORKER.find(asked)


class _Worker:
    """What this process knows of its tasks."""

    def __init__(self) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(6)}"
        self._guard = threading.Lock()
        self._running: dict[str, _TaskRecord] = {}
        self._ended: OrderedDict[str, Report] = OrderedDict()
        self._services: dict[str, ImageService] = {}

    def carry_out(self, payload: TaskPayload, ask_run: AskRun) -> Report:
        name = payload["name"]
        with self._guard:
            if name in self._running or name in self._ended:  # the engine has started it twice
                return {"name": name, "worker": "", "refused": "It has begun before."}
            record = self._running[name] = _TaskRecord(self.name, payload, ask_run)
        try:
            report = self._call(payload, record)
        except BaseException as error:  # a task that raises shows its arguments in logs
            report = {**record.report, "error": _describe_failure(error, record)}
        with self._guard:
            del self._running[name]
            self._remember(report)
        return report

    def find(self, asked: Sequence[AskedTask]) -> Answer:
        tasks: dict[str, Report | None] = {}
        for task in asked:
            name = task["payload"]["name"]
            with self._guard:
                record = self._running.get(name)
                if task.get("leaves_job"):
                    if record is not None:
                        record.is_stopping = True
                    continue
                if record is not None:
                    tasks[name] = None
                    continue
                report = self._ended.get(name)
            if report is None or _may_have_reply(report):
                report = self._deliver_kept(task) or report
            if report is not None:
                tasks[name] = report
        return {"worker": self.name, "tasks": tasks}

    def _call(self, payload: TaskPayload, record: _TaskRecord) -> Report:
        try:
            if payload["version"] != get_version():
                raise ClaimRefusedError(f"It has imgkit {get_version()}, the run {payload['version']}.")
            service = self._find_service(payload)
            timeout_s = payload["timeout_s"]
            flow = call_row(
                service._core,
                payload["request"],
                (),
                record.output.plan,
                timeout_s,
                record,
                payload["missing"],
            )
            service._run_flow(flow, timeout_s)
        except ClaimRefusedError as error:
            if not record.is_open:
                return {"name": payload["name"], "worker": self.name, "refused": str(error)}
            return {**record.report, "error": strip_error(OutcomeUnknownError(str(error)))}
        except ImgkitError as error:
            jobs = [job.to_json() for job in getattr(error, "jobs", ())]
            return {**record.report, "error": strip_error(error), "jobs": jobs}
        return record.report

    def _find_service(self, payload: TaskPayload) -> ImageService:
        """Return the service of these settings, one for all tasks of this process."""
        file = payload["key_file"]
        key = json.dumps([payload["settings"], file], sort_keys=True)
        with self._guard:
            service = self._services.get(key)
            if service is None:
                given = {**payload["settings"]}
                if file is not None:
                    given["api_key"] = lambda: _read_key(file)
                service = self._services[key] = ImageService(**given)
        if service._core.settings.state_folder is None and service._core.target.host_class != "offline":
            raise ClaimRefusedError("It has no folder for replies. Set IMGKIT_HOME for the workers.")
        return service

    def _deliver_kept(self, task: AskedTask) -> Report | None:
        """Deliver the replies that this machine keeps of a task of a dead worker, and return its report."""
        payload = task["payload"]
        record = _TaskRecord(self.name, payload, lambda claim: False)
        # After an error, the reply stays where it is, or another worker has delivered it.
        with suppress(ImgkitError, OSError):
            service = self._find_service(payload)
            for part in map(SentPart._make, task["parts"]):
                kept = find_kept(service._core, part)
                if isinstance(kept, Job):
                    record.report["error"] = JobPendingError("The job of this request is pending.")
                    record.report["jobs"] = [*record.report.get("jobs", ()), kept.to_json()]
                elif kept is not None:
                    flow = deliver_kept(service._core, record.output.plan, record, kept, payload["timeout_s"])
                    service._run_flow(flow, payload["timeout_s"])
        if "images" not in record.report and "jobs" not in record.report:
            return None
        with self._guard:
            self._remember(record.report)
        return record.report

    def _remember(self, report: Report) -> None:
        self._ended[report["name"]] = report
        while len(self._ended) > MOST_REPORTS:
            self._ended.popitem(last=False)


class _UnpacedTurn:
    """The turn of a task, which the run keeps: see `imgkit.core.context.CallTurn`."""

    def note_success(self) -> None:
        """Leave it to the run."""

    def note_failure(self, error: ImgkitError) -> None:
        """Leave it to the run."""

    def release(self) -> None:
        """Leave it to the run."""


class _TaskRecord:
    """The record of a call at a worker: an `imgkit.core.context.CallRecord`.

    Attributes:
        is_stopping: the call should leave its job to the next run.
    """

    may_block = True

    def __init__(self, worker: str, payload: TaskPayload, ask_run: AskRun) -> None:
        self.output = Output(Path(payload["folder"]), has_prompts=False)
        self.report: Report = {"name": payload["name"], "worker": worker}
        self._payload = payload
        self._ask_run = ask_run
        self._guard = threading.Lock()  # parts of a call end at the same time
        self._open: list[SentPart] = []
        self.is_stopping = False

    @property
    def is_stopped(self) -> bool:
        """False: the run refuses the claims of further attempts once it was stopped."""
        return False

    def take_turn(self, images: int) -> Flow[CallTurn]:
        """Return a turn at once: the run has given the task its turn."""
        return _UnpacedTurn()
        yield  # makes this function a generator

    def note_reply(self, head: Head) -> None:
        """Leave the limits that a reply tells to the outcome of the task."""

    @property
    def is_open(self) -> bool:
        """Whether a request of the task may bring images."""
        return bool(self._open)

    def mark_sending(self, part: SentPart) -> None:
        """Claim a request.

        Raises:
            ClaimRefusedError: the run refuses, or cannot be reached.
        """
        claim: Claim = {
            "task": self._payload["name"],
            "epoch": self._payload["epoch"],
            "worker": self.report["worker"],
            "part": to_part(part),
            "ended": self.report.get("ended", []),
        }
        try:
            is_granted = self._ask_run(claim)
        except Exception as error:  # an engine has errors of its own; without an answer nothing is sent
            raise ClaimRefusedError(f"It cannot ask the run ({describe_error(error)}).") from None
        if is_granted is not True:
            raise ClaimRefusedError("The run has given the request to another task, or has stopped.")
        with self._guard:
            self._open.append(part)

    def mark_leaving(self, part: SentPart) -> None:
        """Leave it to the claim: a worker that is gone proves nothing."""

    def mark_ended(self, part: SentPart) -> None:
        """Remember that nothing will come of a request."""
        with self._guard:
            ended = [each for each in self._open if _is_of(each, part)]
            self._open = [each for each in self._open if not _is_of(each, part)]
            self.report["ended"] = [*self.report.get("ended", ()), *map(to_part, ended)]

    def mark_delivered(self, response: ImagesResponse, parts: Sequence[tuple[SentPart, int]]) -> None:
        """Put the report beside the images, for a run that does not get it."""
        payload, cost = self._payload, cost_in_usd(response)
        row = BulkRow(payload["number"], payload["row_id"], "sending", payload["request"], {})
        entries, covered, _, errors = publish_images(self.output, row, response, parts)
        with self._guard:
            report = self.report
            earlier = report.get("cost", "0")
            is_known = cost is not None and earlier is not None
            report["cost"] = str(Decimal(earlier or 0) + (cost or 0)) if is_known else None
            report["images"] = [*report.get("images", ()), *entries]
            report["covered"] = [*report.get("covered", ()), *map(to_part, covered)]
            for part in covered:
                self._open = [each for each in self._open if not _is_of(each, part._replace(attempt=0))]
            if errors:
                report["error"] = strip_error(errors[0])
                report["jobs"] = [job.to_json() for each in errors for job in getattr(each, "jobs", ())]
            self.output.write_report(payload["name"], encode_report(report))


def _is_of(sent: SentPart, part: SentPart) -> bool:
    """Return whether an attempt is that of a part, or one of its attempts if the part names none."""
    is_same = sent.attempt == part.attempt and sent.call_id == part.call_id
    return sent.first == part.first and (not part.attempt or is_same)


def _may_have_reply(report: Report) -> bool:
    """Return whether this machine may keep a reply that a task could not save, such as on a full disk."""
    error = report.get("error")
    return "images" not in report and error is not None and error.maybe_billed


def _describe_failure(error: BaseException, record: _TaskRecord) -> ImgkitError:
    """Return the error that a run gets for an error that no call should raise."""
    if isinstance(error, ImgkitError):
        return strip_error(error)
    problem = f"A worker failed: {describe_error(error)}"
    return OutcomeUnknownError(problem) if record.is_open else ConfigurationError(problem)


def _read_key(file: str) -> str:
    try:
        return Path(file).read_text().strip()
    except OSError as error:
        raise ConfigurationError(
            f"A worker cannot read its key file ({error.strerror}). Put it on each worker's machine."
        ) from None


_WORKER = _Worker()


def _after_fork() -> None:
    """Give a forked child a name and memory of its own."""
    global _WORKER
    _WORKER = _Worker()


run_in_forked_children(_after_fork)
