"""The run's side of an engine: it hands out tasks, grants their claims, and settles their reports.

No engine is trusted to start a task once, and no silence proves anything. A request leaves a worker only
after its claim is committed to the manifest. A task whose worker is gone is in limbo: its report is looked
for in the output and among the living workers. What nobody knows in time is unknown, and is not sent again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TypeGuard

from imgkit.bulk.bulk_values import BulkOutcome, Work
from imgkit.bulk.manifest import BulkRow
from imgkit.bulk.reports import TaskAccount, write_down
from imgkit.bulk.row_calls import RowRecord, RunFiles, carry_out_row
from imgkit.bulk.row_progress import RowProgress
from imgkit.bulk.task_search import LostTask, OpenTask, TaskSearch
from imgkit.bulk.tasks import WorkerLostError, fill_payload
from imgkit.core.context import SentPart
from imgkit.core.core import Core
from imgkit.errors import ImgkitError, NotSentError
from imgkit.plugins.engines import Claim, Engine, EngineTask, Report, ReportFuture, TaskPayload
from imgkit.runtime.flow import Flow

POLL_S, LEAVE_S = 0.25, 2.0
"""Seconds between two looks at the tasks in limbo, and between two calls to leave jobs."""

MOST_TASKS = 6
"""Tasks of a request, one after the other, while none of them sent anything."""

Start = Callable[[Work, Flow[BulkOutcome]], "Future[BulkOutcome]"]
"""Starts the flow of a row in this process."""


class Dispatcher:
    """Hands the requests of a run to its engine: an `imgkit.plugins.EngineHost`.

    Args:
        core: parts of the service.
        files: the files of the run.
        engine: the engine; the dispatcher opens and closes it.
        start_here: starts a flow in this process.
        is_stopped: tells whether the run sends nothing more.
        template: what the payloads of all tasks have in common.
        drain_s: seconds that a worker which is gone has for its request.
        find_core: returns the core that carries out a row in this process.

    Attributes:
        is_remote: workers carry out the rows of the service's own provider.
    """

    def __init__(
        self,
        core: Core,
        files: RunFiles,
        engine: Engine,
        start_here: Start,
        is_stopped: Callable[[], bool],
        template: TaskPayload,
        drain_s: float,
        find_core: Callable[[Work], Core],
    ) -> None:
        self._core = core
        self._files = files
        self._engine = engine
        self.is_remote = engine.is_remote
        self._start_here = start_here
        self._find_core = find_core
        self._is_stopped = is_stopped
        self._template = template
        self._timeout_s = template["timeout_s"] or core.limits.timeout_s
        self._drain_s = drain_s
        self._search = TaskSearch(engine, files.output, template)
        self._guard = threading.RLock()
        self._tasks: dict[str, OpenTask] = {}
        self._limbo: dict[str, OpenTask] = {}
        self._count = 0
        self._watcher: threading.Thread | None = None
        self._wake = threading.Event()
        self._leave_at = 0.0
        self._is_closed = False

    @property
    def in_limbo(self) -> int:
        """Number of tasks whose worker is gone. They keep their turns, but no place of `most_in_flight`."""
        return len(self._limbo)

    def open(self) -> None:
        """Open the engine. May block. An engine has errors of its own."""
        self._engine.open(self)
        if self.is_remote:
            self._start_watcher()

    def _start_watcher(self) -> None:
        with self._guard:
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="imgkit-limbo", daemon=True)
                self._watcher.start()

    def close(self) -> None:
        """Close the engine. Every task has ended. May block."""
        self._is_closed = True
        self._wake.set()
        watcher = self._watcher
        if watcher and watcher is not threading.current_thread():  # the last outcome may close the run
            watcher.join()
        self._engine.close()

    def hand_out(self, work: Work) -> Future[BulkOutcome]:
        """Hand a request to the engine, and return the future of its outcome.

        What is pending or kept of earlier requests is collected here. Workers have only the service's own
        provider, so rows of others start here, too.
        """
        is_foreign = work.provider not in (None, self._core.provider_name)
        if work.jobs or work.kept or (is_foreign and self.is_remote):
            return self._carry_out(work)
        outcome: Future[BulkOutcome] = Future()
        outcome.set_running_or_notify_cancel()
        self._submit(work, outcome, 1)
        return outcome

    def carry_out_here(self, task: EngineTask) -> Future[BulkOutcome]:
        """Carry out a task in this process.

        Raises:
            NotSentError: the task has begun before, here or at a worker, or was taken back.
        """
        with self._guard:
            known = self._tasks.get(task.name)
            if known is None or known.is_void or known.is_here or known.worker is not None:
                raise NotSentError(f"Task {task.name} has begun before, or was taken back.")
            known.is_here = True
        return self._carry_out(known.work)

    def _carry_out(self, work: Work) -> Future[BulkOutcome]:
        try:
            core = self._find_core(work)
        except ImgkitError as error:  # such as a provider whose key is gone: the row stays as it is
            done: Future[BulkOutcome] = Future()
            done.set_result(BulkOutcome(work.row.id, work.row.state, error=error))
            return done
        return self._start_here(work, carry_out_row(core, self._files, work, self._template["timeout_s"]))

    def claim(self, claim: Claim) -> bool:
        """Return whether a task may send its request now; True is durable. May block."""
        attempt = (claim["part"][0], claim["part"][1])
        with self._guard:
            task = self._tasks.get(claim["task"])
            is_known = task is not None and claim["epoch"] == self._template["epoch"]
            if task is None or not is_known or task.is_void or task.is_here or self._is_stopped():
                return False
            if task.worker not in (None, claim["worker"]) or attempt in task.granted:
                return False
            task.worker = claim["worker"]
            task.granted.add(attempt)
        try:
            with task.commits:
                if claim["task"] not in self._tasks:
                    return False  # it was given back, or settled, meanwhile
                self._commit(task, claim)
        except ImgkitError as error:
            with self._guard:
                task.error = error
                task.granted.discard(attempt)
                if not task.granted:
                    task.worker = None
            return False
        return True

    def withdraw(self) -> None:
        """Take back the tasks that have not claimed their requests: nothing more is sent. Any thread."""
        with self._guard:
            idle = [task for task in self._tasks.values() if task.worker is None and not task.is_here]
            for task in idle:
                self._forget(task)
        for task in idle:
            self._give_back(task, "The run has stopped.")

    def find_reports(self, rows: Iterable[BulkRow]) -> list[BulkRow]:
        """Settle what became of requests that an earlier process has handed out. May block.

        Args:
            rows: requests that tasks have claimed.

        Returns:
            Those that workers still carry out.
        """
        lost = {row.info["task"]: LostTask(row, row.info["worker"], RowProgress(row).sent) for row in rows}
        deadline = time.monotonic() + self._drain_s
        while True:
            found = self._search.search(lost)
            for name, report in found.items():
                if report != "running":
                    self._settle_late(lost.pop(name).row, report)
            running = [task.row for name, task in lost.items() if name in found]
            if not running or time.monotonic() > deadline:
                return running
            time.sleep(POLL_S)

    def _settle_late(self, row: BulkRow, report: Report) -> None:
        """Write down the report of a task that an earlier process has handed out."""
        record = RowRecord(self._files, row)
        if "refused" in report:
            self._files.manifest.mark(row.number, "waiting", record.progress.keep_lasting())
            return
        write_down(self._core, self._files, record, report)
        self._files.output.remove_report(report["name"])

    def _commit(self, task: OpenTask, claim: Claim) -> None:
        """Reserve the attempt in the ledgers, and commit that it is being sent.

        Raises:
            ImgkitError: a ledger, or the disk, refuses.
        """
        task.account.reserve(claim)
        task.record.progress.info |= {"task": claim["task"], "worker": claim["worker"]}
        try:
            task.record.mark_sending(SentPart(*claim["part"]))
        except ImgkitError:
            task.account.cancel(claim)
            raise
        task.account.mark_sent()

    def _submit(self, work: Work, outcome: Future[BulkOutcome], tries: int) -> None:
        with self._guard:
            self._count += 1
            name = f"{self._template['name']}-{work.row.number}-{self._template['epoch']}.{self._count}"
            account = TaskAccount(self._core, work.row.request, self._timeout_s)
            record = RowRecord(self._files, work.row)
            task = self._tasks[name] = OpenTask(work, name, outcome, tries, record, account)
        payload = fill_payload(self._template, name, work.row)
        try:
            future = self._engine.submit(EngineTask(name, payload))
        except Exception as error:  # an engine has errors of its own; the task may have left, though
            future = Future()
            future.set_exception(error)
        future.add_done_callback(lambda done: self._take_result(task, done))

    def _take_result(self, task: OpenTask, future: ReportFuture) -> None:
        """Settle the result of a task, whatever it is. Never raises."""
        try:
            is_lost = not task.is_here and (future.cancelled() or future.exception() is not None)
            result: object = None if is_lost else future.result()
            if isinstance(result, BulkOutcome):  # the request was carried out here
                self._forget(task)
                task.outcome.set_result(result)
            elif _is_report(result, task.name):
                self._take_report(task, result)
            else:
                self._lose(task)
        except BaseException as error:  # the run must not wait for ever
            if not task.outcome.done():
                task.outcome.set_exception(error)

    def _take_report(self, task: OpenTask, report: Report) -> None:
        with self._guard:
            if "refused" in report and task.worker not in (None, report.get("worker")):
                self._lose(task)
                return
            if not self._forget(task):
                return  # settled before: an engine that starts a task twice may report twice
        try:
            if "refused" in report:
                self._give_back(task, report["refused"])
            else:
                self._settle(task, report)
        except BaseException as error:  # the run must not wait for ever
            task.outcome.set_exception(error)

    def _settle(self, task: OpenTask, report: Report) -> None:
        """Write a report down, and end what its claims have reserved."""
        with task.commits:
            outcome = write_down(self._core, self._files, task.record, report)
            task.account.end(report)
        if not isinstance(report.get("error"), WorkerLostError):  # its own report may come just now
            self._files.output.remove_report(task.name)
        task.outcome.set_result(outcome)

    def _forget(self, task: OpenTask) -> bool:
        """End a task; return False if it has ended before."""
        with self._guard:
            self._limbo.pop(task.name, None)
            return self._tasks.pop(task.name, None) is not None

    def _give_back(self, task: OpenTask, reason: str) -> None:
        """Let the row of a task wait again: it sent nothing, or its attempts were refused for free."""
        with task.commits:
            if task.worker is not None:
                lasting = task.record.progress.keep_lasting()
                self._files.manifest.mark(task.work.row.number, "waiting", lasting)
            task.account.give_back()
        error = task.error
        if error is None and not self._is_stopped():
            error = NotSentError(f"A worker did not send the request. {reason}")
        if error is not None and not isinstance(error, NotSentError):
            self._files.stop(error)
        task.outcome.set_result(BulkOutcome(task.work.row.id, "waiting", error=error))

    def _lose(self, task: OpenTask) -> None:
        """Begin to look for a task that the engine has lost."""
        with self._guard:
            if task.name not in self._tasks or task.name in self._limbo:
                return
            task.is_void = task.worker is None
            task.lost_at = time.monotonic()
            self._limbo[task.name] = task
        self._start_watcher()
        self._wake.set()

    def _watch(self) -> None:
        """Look for the tasks in limbo until the run ends, and let others leave their jobs if it stops."""
        while not self._is_closed:
            self._wake.wait(POLL_S if self._limbo or self.is_remote else None)
            self._wake.clear()
            try:
                self._look()
                self._leave_jobs()
            except BaseException as error:  # the run must not wait for ever
                for task in list(self._limbo.values()):
                    if self._forget(task):
                        task.outcome.set_exception(error)
            time.sleep(POLL_S if self._limbo and not self._is_closed else 0)

    def _leave_jobs(self) -> None:
        """Let workers leave the jobs of their tasks to the next run, if the run stops."""
        if not self._files.is_stopping() or time.monotonic() < self._leave_at:
            return
        with self._guard:
            tasks = [task for task in self._tasks.values() if task.worker and task.name not in self._limbo]
        self._search.leave_jobs({task.name: task.to_lost() for task in tasks})
        self._leave_at = time.monotonic() + LEAVE_S

    def _look(self) -> None:
        with self._guard:
            lost = list(self._limbo.values())
        for task in [each for each in lost if each.worker is None]:
            self._try_again(task)
        claimed = [each for each in lost if each.worker is not None]
        if not claimed:
            return
        found = self._search.search({each.name: each.to_lost() for each in claimed})
        for task in claimed:
            report = found.get(task.name)
            if report == "running":
                task.lost_at = time.monotonic()
            elif report is not None:
                self._take_report(task, report)
            elif time.monotonic() - (task.lost_at or 0) > self._drain_s:
                error = WorkerLostError("The worker that was sending the request is gone.")
                self._take_report(task, {"name": task.name, "error": error})

    def _try_again(self, task: OpenTask) -> None:
        """Hand out the request of a task that never claimed it, as a task of another name."""
        if time.monotonic() - (task.lost_at or 0) < POLL_S * 2 ** (task.tries - 1) and not self._is_stopped():
            return
        with self._guard:
            if task.worker is not None or not self._forget(task):
                return
        if self._is_stopped() or task.tries >= MOST_TASKS:
            self._give_back(task, "The engine has lost all of its tasks.")
        else:
            self._submit(task.work, task.outcome, task.tries + 1)


def _is_report(result: object, name: str) -> TypeGuard[Report]:
    """Return whether the result of a future is the report of a task: an engine may lose it."""
    return isinstance(result, dict) and result.get("name") == name
