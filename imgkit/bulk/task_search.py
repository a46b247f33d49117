"""The tasks of a run, and the search for those whose worker is gone: in the output, and among the workers."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Literal, NamedTuple, TypeAlias

from imgkit.bulk.bulk_values import BulkOutcome, Work
from imgkit.bulk.manifest import BulkRow
from imgkit.bulk.output import Output
from imgkit.bulk.reports import TaskAccount
from imgkit.bulk.row_calls import RowRecord
from imgkit.bulk.tasks import decode_report, fill_payload, to_part
from imgkit.core.context import SentPart
from imgkit.errors import ImgkitError
from imgkit.plugins.engines import Answer, AskedTask, Engine, Report, TaskPayload

SearchResult: TypeAlias = "Report | Literal['running']"


class LostTask(NamedTuple):
    """A task to search for.

    Attributes:
        row: its request.
        worker: the process that has claimed it.
        parts: what it has claimed, and not reported.
    """

    row: BulkRow
    worker: str
    parts: list[SentPart]


class OpenTask:
    """A task that was handed out.

    Attributes:
        work: its request.
        name: its name.
        outcome: the future that the run waits for.
        worker: the process whose claims are granted, None before the first.
        record: the record of its row.
        account: what the ledgers reserved for it.
        is_void: claims are refused: the engine has lost it.
        is_here: this process carries it out.
        lost_at: when the engine has lost it, None while it has it.
        granted: call and attempt of each claim that was granted, or is being committed.
        commits: held while a claim is committed, or the task is given back. The guard is not: it is quick.
        tries: tasks of the request, this one included.
        error: why a claim was refused.
    """

    def __init__(
        self,
        work: Work,
        name: str,
        outcome: Future[BulkOutcome],
        tries: int,
        record: RowRecord,
        account: TaskAccount,
    ) -> None:
        self.work = work
        self.record = record
        self.name = name
        self.outcome = outcome
        self.worker: str | None = None
        self.granted: set[tuple[str, int]] = set()
        self.commits = threading.Lock()
        self.account = account
        self.is_void = self.is_here = False
        self.lost_at: float | None = None
        self.tries = tries
        self.error: ImgkitError | None = None

    def to_lost(self) -> LostTask:
        """Return the task as a search knows it."""
        return LostTask(self.work.row, self.worker or "", self.record.progress.sent)


class TaskSearch:
    """Searches for tasks. It trusts reports alone: no silence proves anything.

    Args:
        engine: an open engine.
        output: the output of the run.
        template: what the payloads of all tasks have in common.
    """

    def __init__(self, engine: Engine, output: Output, template: TaskPayload) -> None:
        self._engine = engine
        self._output = output
        self._template = template

    def search(self, lost: Mapping[str, LostTask]) -> dict[str, SearchResult]:
        """Return the reports of tasks, and "running" for tasks that a worker still carries out. May block.

        Args:
            lost: the tasks by name.
        """
        found: dict[str, SearchResult] = {}
        for name in lost:
            report = self._read_report(name)
            if report is not None:
                found[name] = report
        asked = {name: task for name, task in lost.items() if name not in found}
        return {**self._ask(asked), **found}

    def leave_jobs(self, tasks: Mapping[str, LostTask]) -> None:
        """Tell the living workers that tasks shall leave their jobs to the next run. May block.

        Args:
            tasks: tasks that run, by name.
        """
        self._ask_workers(tasks, leaves_job=True)

    def _ask_workers(self, tasks: Mapping[str, LostTask], *, leaves_job: bool = False) -> Sequence[Answer]:
        asked: list[AskedTask] = [
            {
                "payload": fill_payload(self._template, name, task.row),
                "worker": task.worker,
                "parts": [to_part(part) for part in task.parts],
                "leaves_job": leaves_job,
            }
            for name, task in tasks.items()
        ]
        try:
            return (self._engine.ask(asked) if asked else None) or ()
        except Exception:  # an engine has errors of its own, and no answer proves nothing
            return ()

    def _ask(self, lost: Mapping[str, LostTask]) -> dict[str, SearchResult]:
        """Return what the living workers know."""
        found: dict[str, SearchResult] = {}
        for answer in self._ask_workers(lost):
            for name, report in answer["tasks"].items():
                known = found.get(name)
                if name not in lost or (isinstance(known, dict) and "images" in known):
                    continue  # another worker of that machine has delivered the kept reply
                if report is None:
                    found.setdefault(name, "running")
                elif "refused" not in report or report.get("worker") == lost[name].worker:
                    found[name] = report
        return found

    def _read_report(self, name: str) -> Report | None:
        try:
            text = self._output.read_report(name)
        except ImgkitError:
            return None  # the output is looked at again
        return None if text is None else decode_report(text)
