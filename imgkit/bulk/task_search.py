"""The search for tasks whose worker is gone: in the output, and among the living workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

from imgkit.bulk.manifest import BulkRow
from imgkit.bulk.output import Output
from imgkit.bulk.tasks import decode_report, fill_payload, to_part
from imgkit.core.context import SentPart
from imgkit.errors import ImgkitError
from imgkit.plugins.engines import AskedTask, Engine, Report, TaskPayload

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

    def _ask(self, lost: Mapping[str, LostTask]) -> dict[str, SearchResult]:
        """Return what the living workers know."""
        asked: list[AskedTask] = [
            {
                "payload": fill_payload(self._template, name, task.row),
                "worker": task.worker,
                "parts": [to_part(part) for part in task.parts],
            }
            for name, task in lost.items()
        ]
        try:
            answers = self._engine.ask(asked) if asked else None
        except Exception:  # an engine has errors of its own, and no answer proves nothing
            answers = None
        found: dict[str, SearchResult] = {}
        for answer in answers or ():
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
