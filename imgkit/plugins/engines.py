"""The protocols of an engine, which decides where the requests of a run are carried out.

The run stays in the process that began it: it has the manifest, the pace and the budget. An engine takes the
run's tasks to other processes, and must not be trusted to start a task once. So each task claims its request
before it sends it, and a task whose claim is refused sends nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, NotRequired, Protocol, TypeAlias, TypedDict

from imgkit.errors import ImgkitError
from imgkit.wire.json_values import JsonMapping, JsonObject

ReportFuture: TypeAlias = "Future[Any]"
"""The future of a `Report`, or of whatever an engine hands back: the run checks it."""


Part: TypeAlias = "tuple[str, int, int, int]"
"""A request for some images of a row: call, attempt, number of images before these, number of images."""


class TaskPayload(TypedDict):
    """What a task needs.

    Attributes:
        name: name of the task.
        version: version of imgkit that the run has.
        number, epoch: number of the row; number of the process among those that carried out the run.
        row_id, request: id and request of the row.
        missing: the images to send for, pairs of the number of images before them and their count; None for
            all.
        settings: arguments of the service, without keys.
        key_file: file with the key on the worker's machine, None for the worker's environment.
        folder: the output folder.
        timeout_s: seconds of the call, None for the service's limit.
    """

    name: str
    version: str
    number: int
    epoch: int
    row_id: str
    request: JsonMapping
    missing: tuple[tuple[int, int], ...] | None
    settings: JsonObject
    key_file: str | None
    folder: str
    timeout_s: float | None


class Claim(TypedDict):
    """The claim of a task, which is about to send its request.

    Attributes:
        task, epoch: the task, and its epoch.
        worker: the process that carries it out.
        part: what it is about to send for.
        ended: its requests so far that ended without images, and cost nothing.
    """

    task: str
    epoch: int
    worker: str
    part: Part
    ended: NotRequired[list[Part]]


class Report(TypedDict, total=False):
    """What became of a task: a few hundred bytes.

    Attributes:
        name, worker: the task; the process that carried it out.
        refused: why nothing was sent, or is being sent, by this task.
        images: facts about the saved images.
        covered: the requests that brought them.
        ended: the requests that ended without images, and cost nothing.
        cost: the cost in dollars as text, None if it is unknown.
        error: the error that ended it, without images.
        jobs: its pending jobs as JSON.
    """

    name: str
    worker: str
    refused: str
    images: list[JsonObject]
    covered: list[Part]
    ended: list[Part]
    cost: str | None
    error: ImgkitError
    jobs: list[str]


class AskedTask(TypedDict):
    """A task that a run has lost, or that should leave its job to the next run.

    Attributes:
        payload: what the task needs.
        worker: the process that has claimed it.
        parts: what it has claimed, and not reported.
        leaves_job: the task shall end without waiting for its job. No answer names such a task.
    """

    payload: TaskPayload
    worker: str
    parts: list[Part]
    leaves_job: NotRequired[bool]


class Answer(TypedDict):
    """What a worker knows of the tasks that a run has lost.

    Attributes:
        worker: the process.
        tasks: the report of each task that ended there, or None for a task that runs. This machine knows
            nothing of a task that is missing.
    """

    worker: str
    tasks: dict[str, Report | None]


class EngineTask(NamedTuple):
    """A request that an engine shall have carried out.

    Attributes:
        name: its name, which no other task ever has: a request that is tried again gets a task of a new name.
        payload: the argument of `imgkit.engines.carry_out_task`, a JSON object. It holds the request
            with its prompt, and no key.
    """

    name: str
    payload: TaskPayload


class EngineHost(Protocol):
    """The run, as an engine sees it. Its methods are safe to call from any thread."""

    def claim(self, claim: Claim) -> bool:
        """Return whether a task may send its request now. May block.

        True is durable: the manifest says that the request is being sent. An engine hands the claims of its
        tasks to this method, and its answer back.

        Args:
            claim: the claim, as `imgkit.engines.carry_out_task` makes it.
        """

    def carry_out_here(self, task: EngineTask) -> ReportFuture:
        """Carry out a task in this process, under the service that began the run.

        Raises:
            NotSentError: the task has begun before, here or at a worker, or the run has taken it back.
        """


class Engine(Protocol):
    """Where the requests of a run are carried out.

    Example: `imgkit.engines.dask.DaskEngine`, and the engine in ``docs/write-an-engine.md``. Test an engine
    with `imgkit.testing.EngineContract`.

    Attributes:
        is_remote: whether other processes carry out tasks. They build the service of the run anew, so its
            arguments must be plain values.
    """

    is_remote: bool

    def open(self, host: EngineHost) -> None:
        """Get ready for tasks. May block.

        Args:
            host: the run.

        Raises:
            ConfigurationError: the engine cannot be used, such as a cluster that is not there.
        """

    def submit(self, task: EngineTask) -> ReportFuture:
        """Hand out a task, and return the future of its report. Quick.

        A worker calls `imgkit.engines.carry_out_task`, whose result is the report: a few hundred
        bytes. A future that is cancelled, or that raises, says that nobody knows what became of the task.
        """

    def ask(self, tasks: Sequence[AskedTask]) -> Sequence[Answer] | None:
        """Ask all living workers what became of tasks; None if they cannot be asked now. May block.

        A worker calls `imgkit.engines.find_tasks`, whose result is its answer. The same question tells it
        which tasks shall leave their jobs.
        """

    def close(self) -> None:
        """Leave the workers. Tasks that run may end. Idempotent. May block."""
