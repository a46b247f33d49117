"""A run: it decides what is sent next, and writes down what became of each request.

It does no I/O of its own kind: it hands requests to an engine. The engine of this process starts the flow
of a call, which either service drives.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from decimal import Decimal
from functools import partial
from os import PathLike
from pathlib import Path
from types import MappingProxyType

from imgkit.bulk.bulk_values import BulkOptions, BulkOutcome, Pause, Work, check_options
from imgkit.bulk.dispatch import Dispatcher, Start
from imgkit.bulk.earlier_work import EarlierWork
from imgkit.bulk.engine_setup import open_dispatcher
from imgkit.bulk.followers import Followers, copy_outcome
from imgkit.bulk.manifest import END, STATES, Added, BulkRow, Manifest, State
from imgkit.bulk.manifest_errors import missing_state_folder_error
from imgkit.bulk.missing_images import drop_old_lines, note_missing_images
from imgkit.bulk.progress_reporter import ProgressReporter
from imgkit.bulk.ready_rows import ReadyRows
from imgkit.bulk.reconcile import reconcile
from imgkit.bulk.row_calls import RunFiles
from imgkit.bulk.row_checks import RowChecks, find_provider
from imgkit.bulk.row_files import RowFile
from imgkit.bulk.row_reader import RowReader, check_list, read_chunk
from imgkit.bulk.rows import check_defaults, to_request
from imgkit.bulk.run_pace import RunPace
from imgkit.bulk.shared_inputs import SharedInputs
from imgkit.bulk.stop_rules import STOP_AFTER_BLOCKED, StopRules
from imgkit.bulk.url_output import open_output
from imgkit.core.core import Core
from imgkit.default_plugins.budget import find_budget
from imgkit.errors import ImgkitError, NotSentError, RateLimitError
from imgkit.models import Estimate
from imgkit.redact import scrub
from imgkit.runtime.flow import run_blocking

CHUNK = 1000
"""Rows that are read, and held, at once."""


class BulkRun:
    """A run in its folder.

    `prepare` comes first, `close` last. One thread calls `take` and `note`; the flows run in any.

    Args:
        core: parts of the service.
        folder: the output folder.
        options: the options.
        given: arguments of the service, for the workers of an engine.
        find_core: returns the core that carries out a row; raises ConfigurationError if there is none.

    Attributes:
        counts: number of requests in each state.
        stopped: why nothing more is sent, None while the run goes on.
        spent: cost of the requests that ended, in dollars, with the highest of those that are sent again.
        timeout_s: seconds of each call, None for the service's limit.
        leaves_jobs: whether calls leave their jobs to the next run, in place of waiting for them.
        reporter: calls the callback of the run.
        run_folder: the folder of the manifest.
        left_out: number of requests that wait in the manifest, but are not among those of a list or a file.
            They are not sent.
        missing: ids of requests whose images were deleted from the output, with the states that they had. A
            run that comes to its end looks for them.
        failure: the exception that ended the reading of an iterable, None for none.
    """

    def __init__(
        self,
        core: Core,
        folder: str | PathLike[str],
        options: BulkOptions,
        given: Mapping[str, object] = MappingProxyType({}),
        find_core: Callable[[Work], Core] | None = None,
    ) -> None:
        check_options(options)
        check_defaults(options.get("defaults", {}))
        self._core = core
        self._given = given
        self._dispatcher: Dispatcher | None = None
        self._start_here: Start | None = None
        self._find_core = find_core or (lambda work: core)
        self._checks = RowChecks(core, self._find_core)
        self._options = options
        self._pace = RunPace(core, options, lambda: self.stopped is not None, self._find_core)
        self.timeout_s = options.get("timeout_s")
        run_folder = options.get("run_folder")
        self._output = open_output(folder, run_folder, has_prompts=options.get("has_prompts", True))
        self._folder = self._output.folder
        self.run_folder = Path(run_folder or self._folder)
        self._manifest: Manifest | None = None
        self._values: Iterator[object] = iter(())
        self._ready = ReadyRows()
        self._last_number = 0
        self._is_whole = False
        self._values_read = 0
        self._earlier = EarlierWork()
        self._followers = Followers()
        self._inputs = SharedInputs()
        self._rules = StopRules(options.get("stop_after_blocked", STOP_AFTER_BLOCKED))
        self._guard = threading.Lock()
        self._is_prepared = False
        self.counts: dict[State, int] = dict.fromkeys(STATES, 0)
        self.stopped: ImgkitError | str | None = None
        self.spent = Decimal(0)
        self.leaves_jobs = False
        self.reporter = ProgressReporter(options.get("progress"), find_budget(core.resources.ledgers))
        self.left_out = 0
        self.missing: Mapping[str, State] = MappingProxyType({})
        self._has_earlier = self._is_remote = False
        self.failure: Exception | None = None

    @property
    def manifest(self) -> Manifest:
        """The manifest, once `prepare` has opened it."""
        if self._manifest is None:
            raise LookupError("a run is prepared first")
        return self._manifest

    @property
    def files(self) -> RunFiles:
        """The files of the run, once `prepare` has opened them."""
        return RunFiles(
            self.manifest,
            self._output,
            self.may_cost,
            self.stop,
            self._guard,
            lambda: self.leaves_jobs,
            self._pace,
            self._inputs,
        )

    def prepare(self, requests: Iterable[object] | PathLike[str], start_here: Start) -> None:
        """Open the manifest, add the requests, and find out what became of earlier ones. May block.

        Args:
            requests: the requests.
            start_here: starts a flow in this process.

        Raises:
            InvalidRequestError: a request is wrong, or asks for something else than before.
            ConfigurationError: the folder cannot be used, or has another run.
        """
        if isinstance(requests, PathLike):
            with RowFile(requests) as rows:
                self.prepare(rows, start_here)
            return
        check_list(requests)
        if self._core.settings.state_folder is None and self.may_cost:
            raise missing_state_folder_error()
        self._start_here = start_here
        self._manifest = Manifest(self.run_folder)
        try:
            self._output.claim(self.manifest)
            self._output.open_parts(self.manifest.read_token())
            self._pace.share()
            if isinstance(requests, Sequence | RowFile):
                self._is_whole = True
                self._add(requests)
            else:
                self._values = iter(requests)
            self._dispatcher = open_dispatcher(
                self._core,
                self.files,
                self._given,
                self._options,
                start_here,
                lambda: self.stopped is not None,
                self._find_core,
            )
            self._is_remote = self._dispatcher.is_remote
            find_estimate = self.estimate if self._options.get("retry_unknown") else None
            found = reconcile(self._core, self.files, self._dispatcher.find_reports, find_estimate)
            self.spent = found.lost_usd
            self._earlier.add(found.work)
            self._make_ready(found.work)
            if self._is_whole:
                self.manifest.replace_absent_leaders()
                self._checks.require_keys(self.manifest.find_waiting, is_remote=self._is_remote)
            self.counts = self.manifest.count()
            self._has_earlier = self.counts["done"] > 0
            self._followers.release(self.manifest.list_leaders())
            if self._is_whole:
                self.left_out = self.manifest.count_left_out()
                self.counts["waiting"] -= self.left_out
            self.manifest.write_fact(END, None)
            self._is_prepared = True
        except BaseException:
            self.close()
            raise

    def take(self, in_flight: int) -> Work | Pause | None:
        """Return the next request that may start; None if there is none, and none will come. Quick.

        Args:
            in_flight: number of requests that were handed out and have not ended.
        """
        if self._ready and self.stopped is None:
            folders = (self._folder, self.run_folder, self._core.settings.state_folder)
            problem = self._rules.check_space([*filter(None, folders)])
            if problem is not None:
                self.stop(problem)
        if self.stopped is not None or not self._ready:
            return Pause(None) if in_flight else None
        lost = 0 if self._dispatcher is None else self._dispatcher.in_limbo
        if in_flight - lost >= self._pace.most_in_flight:
            return Pause(None)
        copy = self._ready.take_copy()
        if copy is not None:
            self._followers.note_start(copy.row)
            return copy
        step = self._ready.take(partial(self._pace.try_start, lost=lost))
        return step if isinstance(step, Work) else Pause(step)

    def _make_ready(self, works: Collection[Work]) -> None:
        self._pace.meet(works)
        self._ready.extend(works)

    @property
    def needs_rows(self) -> bool:
        """Whether `read_more` should be called before `take`."""
        has_more = self._last_number >= 0 or bool(self._followers)
        return self.stopped is None and not self._ready and has_more

    def read_more(self) -> None:
        """Read the next requests. May block. An iterable that fails, or has a wrong request, ends the run."""
        if self._followers:
            rows = self._followers.list_next(self.manifest, CHUNK)
        elif self._is_whole:
            rows = self.manifest.list_given(self._last_number, CHUNK)
            self._last_number = rows[-1].number if rows else -1
        else:
            rows = self._read_chunk()
        self._make_ready([Work(row) for row in rows if not self._earlier.has_row(row.number)])

    def hand_out(self, work: Work) -> Future[BulkOutcome]:
        """Let the engine carry out a request, and return the future of its outcome."""
        if self._dispatcher is None or self._start_here is None:
            raise LookupError("a run is prepared first")
        if work.row.leader is not None:
            return self._start_here(work, run_blocking(partial(copy_outcome, self.files, work.row)))
        return self._dispatcher.hand_out(work)

    def _read_chunk(self) -> list[BulkRow]:
        """Return the requests that wait among the next values of the iterable."""
        chunk = read_chunk(self._values, CHUNK)
        self.failure = chunk.error
        rows: list[BulkRow] = []
        if chunk.values:
            # The numbers are those of the iterable, so that the next run finds the same rows.
            try:
                added = self._add(chunk.values, self._values_read + 1)
                self._values_read += len(chunk.values)
                self.counts["waiting"] += added.new
                for state, number in added.amended.items():
                    self.counts[state] -= number
                    self.counts["waiting"] += number
                if self._options.get("dedupe"):
                    self.manifest.replace_absent_leaders()
                found = self.manifest.list_numbers(added.numbers)
                self._checks.require_keys(partial(find_provider, found), is_remote=self._is_remote)
            except ImgkitError as error:
                self.failure = error
            else:
                rows = found
                if self._options.get("dedupe"):
                    self._followers.release(self.manifest.list_leaders())
        elif self.failure is None:
            self._last_number = -1
        if self.failure is not None:
            self.stop("The requests could not be read further.")
        return rows

    def note(self, outcome: BulkOutcome, work: Work) -> BulkOutcome | None:
        """Count an outcome, and adapt the pace; return it, None for a request that waits again."""
        error = outcome.error
        if self._followers.note_end(outcome):
            self.counts["waiting"] -= 1
            self.counts[outcome.state] += 1
            return outcome
        self._pace.end(outcome)
        is_unsent = error is None or isinstance(error, NotSentError)
        if is_unsent and outcome.state == work.row.state == "waiting" and self.stopped is not None:
            return None
        self.counts[work.row.state] -= 1
        self.counts[outcome.state] += 1
        self.spent += outcome.cost or 0
        self.reporter.note(outcome)
        if self._options.get("dedupe"):
            leader = self.manifest.find_leader(outcome.id)
            if leader is not None:
                self._followers.release([leader])
        reason = self._rules.judge(outcome, is_refused=self._pace.is_refused)
        if reason is not None:
            self.stop(reason)
        if outcome.state == "waiting" and isinstance(error, RateLimitError) and self.stopped is None:
            self._ready.append(work)
            return None
        next_work = self._earlier.end(self.manifest, work)
        if next_work is not None:
            self.counts[outcome.state] -= 1
            self.counts[next_work.row.state] += 1
            self._make_ready([next_work])
            return None
        if outcome.state != "waiting" or not work.is_earlier:
            return outcome
        if self._is_whole:  # the row is not in the file
            self.left_out += 1
            self.counts["waiting"] -= 1
        return None

    def stop(self, reason: ImgkitError | str) -> None:
        """Send nothing more. Requests in flight end. Safe to call from any thread."""
        if self.stopped is None:
            self.stopped = reason
            if self._dispatcher is not None:
                self._dispatcher.withdraw()

    @property
    def is_inherited(self) -> bool:
        """Whether this process is a fork of the one that carries out the run."""
        return self._manifest is not None and self._manifest.is_inherited

    def refuse_fork(self) -> None:
        """Refuse to go on in a forked child. Raises ConfigurationError."""
        if self._manifest is not None:
            self._manifest.refuse_fork()

    def close(self) -> None:
        """Close engine, list of images and manifest, but not those of a parent. May block. Idempotent."""
        dispatcher, self._dispatcher = self._dispatcher, None
        try:
            if dispatcher is not None and not self.is_inherited:
                dispatcher.close()
        finally:  # an engine may fail to leave its workers
            self._close_manifest()

    def _close_manifest(self) -> None:
        if self._manifest is None:
            return
        files, manifest, self._manifest = self.files, self._manifest, None
        try:
            if self._is_prepared and not manifest.is_inherited:
                if self._has_earlier and self.stopped is None:
                    self.missing = note_missing_images(files, self.counts)
                drop_old_lines(manifest, self._output)
                self._output.finish()
                reason = None if self.stopped is None else scrub(str(self.stopped), limit=1000)
                manifest.write_fact(END, reason)
        except ImgkitError as error:
            if not isinstance(self.stopped, ImgkitError):
                self.stopped = error
        finally:
            if not manifest.is_inherited:
                self._output.close_parts()
                self._inputs.close()
            manifest.close()
        self._pace.close()

    @property
    def may_cost(self) -> bool:
        """Whether the requests of this service may cost anything."""
        return self._core.target.host_class != "offline"

    def _add(self, values: Iterable[object], start: int = 1) -> Added:
        options = self._options
        rows = RowReader(
            values,
            options.get("defaults", {}),
            self._inputs,
            noun=values.noun if isinstance(values, RowFile) else "row",
            skip=options.get("skip"),
            start=start,
            check_provider=self._checks.check_provider,
            check_model=self._checks.check_model if self._is_whole else bool,
            is_whole=self._is_whole,
        )
        return self.manifest.add(
            rows,
            amend=options.get("amend", False),
            extend=options.get("extend", False),
            dedupe=options.get("dedupe", False),
            refuse_repeated=rows.refuse_repeated,
            hold_amendment=self._earlier.hold_amendment,
            accept=rows.accept,
        )

    def estimate(self, row: BulkRow) -> Estimate:
        """Return the bounds of a row's cost at its provider."""
        return self._find_core(Work(row)).settings.estimate(to_request(row.request), 0)
