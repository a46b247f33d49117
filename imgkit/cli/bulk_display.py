"""The display of a run: a line on a terminal, lines now and then elsewhere, or JSON events; its stop."""

from __future__ import annotations

import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from types import FrameType

from imgkit.bulk.bulk_run import BulkRun
from imgkit.bulk.bulk_values import BulkOutcome, BulkProgress
from imgkit.bulk.manifest import STATES
from imgkit.bulk.outcomes import BulkOutcomes
from imgkit.cli import console, exit_codes, report
from imgkit.cli.messages import format_error
from imgkit.cli.status_line import StatusLine, count_columns
from imgkit.errors import ImgkitError, JobPendingError
from imgkit.service import ImageService

REPORT_S = 5.0
"""Seconds between two reports where the output is no terminal."""

MOST_FAILURES = 20
"""Failures with a line of their own. A list of 100,000 rows has a file for the rest."""

_FRAME_COLUMNS = 13
"""Columns of spinner and clock around the text of a status line, and the last one, which stays free."""


class BulkDisplay:
    """Shows a run.

    Args:
        run: the run.
        line: the status line, None where the terminal has none.
        as_json: print events to standard output.
    """

    def __init__(self, run: BulkRun, line: StatusLine | None, *, as_json: bool) -> None:
        self._run = run
        self._line = line
        self._as_json = as_json
        self._has_paths = not as_json and not console.is_terminal(sys.stdout)
        self._failures = 0
        self._report_at = time.monotonic() + REPORT_S

    def show_start(self, requests: int, high: Decimal, unknown: int) -> None:
        """Show the beginning of a run."""
        if self._as_json:
            self.print_event(
                "start",
                counts=dict(self._run.counts),
                requests=requests,
                estimate_usd=high,
                requests_of_unknown_price=unknown,
            )

    def show_outcome(self, outcome: BulkOutcome) -> None:
        """Show an outcome."""
        places = [*map(str, outcome.paths), *outcome.urls]
        if self._as_json:
            self.print_event(
                "outcome",
                id=outcome.id,
                state=outcome.state,
                paths=places,
                cost_usd=outcome.cost,
                error=None if outcome.error is None else _describe_error(outcome.error),
            )
        elif places and self._has_paths:
            console.write_paths(places)
        is_told = outcome.state == "waiting" and type(outcome.error) is type(self._run.stopped)
        if outcome.error is not None and not self._as_json and not is_told:  # the end tells why it stopped
            self._failures += 1
            if self._failures <= MOST_FAILURES:
                text = _format_error(outcome.error)
                console.print_message(f"imgkit: {outcome.id[:80]}: {outcome.state}: {text}")
            if self._failures == MOST_FAILURES:
                console.print_message("imgkit: Further failures are counted, but not listed.")

    def show_progress(self, progress: BulkProgress) -> None:
        """Show the progress. The thread that iterates calls it about twice a second."""
        if self._line is not None:
            columns = (count_columns(sys.stderr) or 80) - _FRAME_COLUMNS
            parts = describe_progress(progress)
            self._line.set_text(f"{fit_parts(parts, columns)} ({{clock}})")
            return
        if time.monotonic() < self._report_at:
            return
        self._report_at = time.monotonic() + REPORT_S
        if self._as_json:
            facts: dict[str, object] = progress._asdict()
            facts |= {f"{name}_usd": facts.pop(name) for name in ("spent", "reserved", "left")}
            self.print_event("progress", **facts)
        else:
            parts = describe_progress(progress)
            console.print_message(f"imgkit: {fit_parts(parts, sys.maxsize)}")

    def print_event(self, name: str, **facts: object) -> None:
        """Print an event: a JSON object on a line."""
        console.write_bytes(report.encode_json({"event": name, **facts}))


def _describe_error(error: ImgkitError) -> dict[str, object]:
    facts = report.build_error(error, _format_error(error), exit_codes.exit_code(error))
    return {**facts, "hint": _COLLECTED} if isinstance(error, JobPendingError) else facts


def _format_error(error: ImgkitError) -> str:
    """Return the message of an error of a request. Its run collects a job by itself."""
    return f"{error.problem} {_COLLECTED}" if isinstance(error, JobPendingError) else format_error(error)


_COLLECTED = "The next run collects it."


def describe_progress(progress: BulkProgress) -> list[tuple[int, str]]:
    """Return the parts of a line about a run, each with its importance; 0 is the most important."""
    counts = progress.counts
    parts = [
        (0, f"{counts['done']:,} of {sum(counts.values()):,} done"),
        (1, f"{progress.in_flight} in flight"),
    ]
    if counts["accepted"]:
        parts.append((3, f"{counts['accepted']:,} pending jobs"))
    parts += [(2, f"{counts[state]:,} {state}") for state in STATES if state in _BAD_STATES and counts[state]]
    if progress.stopped is not None:
        parts.append((1, "stopping"))
    elif progress.per_minute:
        parts.append((4, f"{progress.per_minute:.0f} a minute"))
        if progress.left_s and counts["waiting"]:
            parts.append((3, f"{format_seconds(progress.left_s)} to go"))
    if progress.spent or progress.left is not None:
        parts.append((3, f"{progress.spent:.2f} USD spent"))
    if progress.left is not None:
        parts += [(6, f"{progress.reserved:.2f} reserved"), (5, f"{progress.left:.2f} left")]
    if progress.last_error is not None:
        parts.append((7, f"last error: {_shorten(progress.last_error, 60)}"))
    return parts


_BAD_STATES = ("blocked", "failed", "unknown")


def fit_parts(parts: list[tuple[int, str]], columns: int) -> str:
    """Return the most important parts that fit a line, in their order.

    >>> fit_parts([(0, "1 of 9 done"), (2, "4 a minute"), (1, "1 failed")], 24)
    '1 of 9 done, 1 failed'
    """
    kept = sorted(range(len(parts)), key=lambda place: parts[place][0])
    while True:
        text = ", ".join(parts[place][1] for place in sorted(kept))
        if len(kept) < 2 or count_cells(text) <= columns:
            return text
        kept.pop()


def format_seconds(seconds: float) -> str:
    """Return a time in short.

    >>> format_seconds(45), format_seconds(130), format_seconds(7300)
    ('45 s', '3 min', '2.0 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{-(-seconds // 60):.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def count_cells(text: str) -> int:
    """Return the columns that a text takes on a terminal.

    >>> count_cells("fox"), count_cells("\u72d0")
    (3, 2)
    """
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def _shorten(text: str, columns: int) -> str:
    text = " ".join(text.split())
    if count_cells(text) <= columns:
        return text
    while count_cells(text) > columns - 3:
        text = text[:-1]
    return f"{text}..."


class StopHandler:
    """Ends a run on signals: the first finishes the requests in flight, the second aborts them.

    Args:
        outcomes: the outcomes of the run.
        service: its service.

    Attributes:
        signals: number of signals so far.
    """

    def __init__(self, outcomes: BulkOutcomes, service: ImageService) -> None:
        self._outcomes = outcomes
        self._service = service
        self.signals = self._handled = 0

    @contextmanager
    def watch_signals(self) -> Iterator[None]:
        """Handle SIGINT, SIGTERM and SIGHUP, unless they are ignored."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        known = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
        numbers = [
            number
            for number in known
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN
        ]
        earlier = {number: signal.signal(number, self._note_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def act(self) -> None:
        """Carry out the signals so far. The thread that iterates calls it, so that it may print."""
        while self._handled < self.signals:
            self._handled += 1
            if self._handled == 1:
                console.print_message(
                    "imgkit: Stopping. Requests in flight end first, and jobs stay pending. Ctrl-C again "
                    "stops at once."
                )
            else:
                self._service.close()  # calls in flight end as unknown, or keep their jobs

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        """Take a signal. It comes between any two steps of the main thread, so it only leaves a mark."""
        self.signals += 1
        self._outcomes.stop()
        if self.signals > 1:  # the third one kills the process
            signal.signal(number, signal.SIG_DFL)

    @property
    def exit_code(self) -> int | None:
        """130 after a signal, else None."""
        return exit_codes.STOPPED if self.signals else None
