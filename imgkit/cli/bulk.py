"""The command `imgkit bulk`: many requests from a file, and what became of them."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

import click

from imgkit.bulk.bulk_run import BulkRun
from imgkit.bulk.bulk_values import BulkOptions, BulkOutcome
from imgkit.bulk.manifest import FILE, STATES, Manifest, State
from imgkit.bulk.rows import read_file, to_request
from imgkit.cli import console, exit_codes, options, report, values
from imgkit.cli.messages import format_error
from imgkit.cli.progress import show_activity
from imgkit.cli.status_line import StatusLine
from imgkit.default_plugins.budget import Budget
from imgkit.errors import ConfigurationError, ImgkitError, InvalidRequestError
from imgkit.service import ImageService
from imgkit.wire.json_values import JsonObject

KINDS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
CONFIRM_ABOVE_USD = Decimal(5)
_SAMPLE = 1000
"""Requests from which the cost of a run is estimated."""

_REPORT_S = 5.0
"""Seconds between two lines of progress where the output is no terminal."""


def run_file(
    file: str,
    *,
    output: str,
    run_folder: str | None,
    in_flight: int,
    per_minute: float | None,
    amend: bool,
    retry_unknown: bool,
    skip_invalid: bool,
    stop_after_blocked: int,
    no_prompts: bool,
    max_cost_usd: str | None,
    allow_unknown_price: bool,
    confirm_above: float,
    yes: bool,
    as_json: bool,
    api_key_file: str | None,
    state: values.RunState,
    **given: Any,
) -> int:
    """Carry out the requests of a file; the same command again goes on.

    Returns:
        0 if all are done, 8 if the budget is reached, 9 if some are not done, 130 after Ctrl-C.

    Raises:
        ImgkitError: nothing was sent.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = {name: chosen.pop(name) for name in options.service_arguments() if name in chosen}
    settings["state_folder"] = values.find_state_folder(settings.get("state_folder"))
    if chosen.get("model") is not None and "backend" in settings:
        settings["model"] = chosen.pop("model")
    if api_key_file is not None:
        settings["api_key"] = values.read_key(api_key_file)
        state.secrets.append(settings["api_key"])
    folder = Path(output)
    budget = None if max_cost_usd is None else Budget(max_cost_usd, allow_unknown=allow_unknown_price)
    bulk_options: BulkOptions = {
        "defaults": chosen,
        "most_in_flight": in_flight,
        "amend": amend,
        "retry_unknown": retry_unknown,
        "stop_after_blocked": stop_after_blocked,
        "has_prompts": not no_prompts,
        "run_folder": run_folder or folder,
    }
    if per_minute is not None:
        bulk_options["per_minute"] = per_minute
    if skip_invalid:
        bulk_options["skip"] = lambda problem: console.print_message(f"imgkit: left out: {problem}")
    with ExitStack() as stack:
        rows = _load_rows(file, stack)
        service = stack.enter_context(ImageService(**settings, plugins=[budget] if budget else []))
        outcomes = stack.enter_context(service.bulk(rows, folder=folder, **bulk_options))
        run = outcomes.run
        _confirm(service, run, Decimal(str(confirm_above)), yes=yes)
        line = stack.enter_context(show_activity("starting"))
        watcher = _Watcher(run, budget, line, as_json=as_json)
        try:
            for outcome in outcomes:
                watcher.show(outcome)
        except KeyboardInterrupt:
            console.print_message("imgkit: Stopping. Requests in flight end first; Ctrl-C again stops them.")
            outcomes.close()
            raise exit_codes.Stopped("Stopped. The same command goes on.", maybe_billed=False) from None
    return _print_summary(run, as_json=as_json)


def print_status(folder: str, *, as_json: bool) -> int:
    """Print how many requests of a run are in each state."""
    with _open_manifest(folder) as manifest:
        counts = manifest.count()
    if as_json:
        return console.write_bytes(report.encode_json({"counts": counts}))
    return console.write_text("".join(f"{counts[state]:>8}  {state}\n" for state in STATES if counts[state]))


def print_failures(folder: str) -> int:
    """Print the requests that failed, were refused, or are unknown, as lines that `imgkit bulk` reads."""
    lines = []
    with _open_manifest(folder) as manifest:
        found: tuple[State, ...] = ("failed", "blocked", "unknown")
        for row in (row for each in found for row in manifest.list_rows(each)):
            console.print_message(
                f"imgkit: {row.id}: {row.state}: {row.info.get('error', 'the process died')}"
            )
            lines.append(json.dumps({"id": row.id, **row.request}, ensure_ascii=False) + "\n")
    return console.write_text("".join(lines))


@contextmanager
def _open_manifest(folder: str) -> Iterator[Manifest]:
    """Open the manifest of a run that exists.

    Raises:
        ConfigurationError: there is none, or another process has it.
    """
    if not (Path(folder) / FILE).exists():
        raise ConfigurationError(f"{folder[:200]!r} is no folder of a run: it has no {FILE}.")
    manifest = Manifest(Path(folder))
    try:
        yield manifest
    finally:
        manifest.close()


def _load_rows(file: str, stack: ExitStack) -> list[JsonObject]:
    """Return the rows of a file, or of standard input for "-".

    Raises:
        InvalidRequestError: the file cannot be read.
    """
    if file == "-":
        text = sys.stdin.buffer.read()
        kind = "jsonl" if text.lstrip()[:1] == b"{" else "csv"
    else:
        path = Path(file)
        kind = KINDS.get(path.suffix.lower(), "")
        if not kind:
            raise InvalidRequestError(
                {"file": f"{file[:200]!r} has no known extension. Give one of {', '.join(KINDS)}."}
            )
        try:
            text = path.read_bytes()
        except OSError as error:
            raise InvalidRequestError({"file": f"Cannot read {file[:200]!r} ({error.strerror})."}) from None
    stream: TextIO = stack.enter_context(io.TextIOWrapper(io.BytesIO(text), "utf-8-sig", newline=""))
    csv.field_size_limit(16 * 1024 * 1024)
    rows = list(read_file(stream, kind))
    if not rows:
        raise InvalidRequestError({"file": "It has no requests."})
    return rows


def _confirm(service: ImageService, run: BulkRun, limit: Decimal, *, yes: bool) -> None:
    """Show the estimated cost of a run; ask on a terminal if it is high.

    Raises:
        ConfigurationError: the answer is no; nothing was sent.
    """
    waiting = run.counts["waiting"]
    rows = run.manifest.list_waiting(limit=_SAMPLE)
    estimates = [service.estimate(to_request(row.request)) for row in rows]
    highs = [each.high for each in estimates if each.high is not None]
    if not rows:
        return
    if len(highs) < len(rows):
        console.print_message(f"imgkit: {waiting} requests wait. Their price is not known.")
        return
    high = sum(highs, Decimal(0)) * waiting / len(rows)
    console.print_message(f"imgkit: {waiting} requests wait, for up to {high:.2f} USD.")
    must_ask = high > limit and not yes and sys.stdin.isatty()
    if must_ask and not click.confirm("Send them?", err=True):
        raise ConfigurationError("Nothing was sent.")


class _Watcher:
    """Shows a run: a moving line on a terminal, a line now and then elsewhere, or JSON events."""

    def __init__(
        self, run: BulkRun, budget: Budget | None, line: StatusLine | None, *, as_json: bool
    ) -> None:
        self._run = run
        self._budget = budget
        self._as_json = as_json
        self._started = time.monotonic()
        self._next_at = self._started + _REPORT_S
        self._ended = 0
        self._line = line

    def show(self, outcome: BulkOutcome) -> None:
        """Show an outcome."""
        self._ended += 1
        if self._as_json:
            facts = {"id": outcome.id, "state": outcome.state, "paths": [str(path) for path in outcome.paths]}
            error = None if outcome.error is None else str(outcome.error)
            console.write_text(json.dumps({**facts, "error": error}) + "\n")
        elif outcome.paths:
            console.write_paths([str(path) for path in outcome.paths])
        if outcome.error is not None and not self._as_json:
            console.print_message(f"imgkit: {outcome.id}: {outcome.state}: {format_error(outcome.error)}")
        text = self._describe()
        if self._line is not None:
            self._line.set_text(text)
        elif time.monotonic() >= self._next_at:
            self._next_at = time.monotonic() + _REPORT_S
            console.print_message(f"imgkit: {text}")

    def _describe(self) -> str:
        counts: Mapping[State, int] = self._run.counts
        total = sum(counts.values())
        minutes = max(time.monotonic() - self._started, 0.001) / 60
        pace = self._ended / minutes
        parts = [f"{counts['done']} of {total} done", f"{pace:.0f} a minute"]
        parts += [f"{counts[state]} {state}" for state in STATES[2:] if state != "done" and counts[state]]
        if counts["waiting"] and pace:
            parts.append(f"{counts['waiting'] / pace:.0f} min left")
        if self._run.spent:
            parts.append(f"{self._run.spent:.2f} USD")
        if self._budget is not None:
            parts.append(f"{self._budget.left:.2f} USD left")
        return ", ".join(parts)


def _print_summary(run: BulkRun, *, as_json: bool) -> int:
    """Print what became of the requests, and what to do next; return the exit code."""
    counts = run.counts
    reason = run.stopped
    rest = {state: counts[state] for state in STATES if state != "done" and counts[state]}
    if isinstance(reason, ImgkitError):
        console.print_message(f"imgkit: Stopped: {format_error(reason)}")
    if not as_json:
        listed = "".join(f", {number} {state}" for state, number in rest.items())
        console.print_message(f"imgkit: {counts['done']} done{listed}.")
    if counts["unknown"]:
        console.print_message(
            "imgkit: Unknown requests may have been paid, and are not sent again. `imgkit bulk failures` "
            "lists them; --retry-unknown sends them again."
        )
    if counts["accepted"]:
        console.print_message("imgkit: The provider still works on jobs. The same command collects them.")
    if counts["waiting"]:
        console.print_message("imgkit: The same command goes on.")
    if reason is not None and isinstance(reason, ImgkitError):
        code = exit_codes.exit_code(reason)
        return code if code == exit_codes.CODES_BY_ERROR.get(type(reason)) else exit_codes.PARTIAL
    return exit_codes.PARTIAL if rest else exit_codes.OK
