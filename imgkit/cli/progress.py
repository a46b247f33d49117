"""What is seen and known of a call while it runs: a line that moves, and whether anything was sent."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from imgkit.plugins.events import Call, Cancelled, Event, FirstByte, Progress, Sent
from imgkit.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID


class Watcher:
    """A plugin that looks at the events of a call.

    Attributes:
        sent: a request that can cost money was handed over.
        maybe_billed: the call was broken off while such a request was under way.
        arrived: a success reply to it has begun to arrive, so there is something in the spool.
    """

    def __init__(self) -> None:
        self.sent = False
        self.maybe_billed = False
        self.arrived = False
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    @hookimpl
    def imgkit_on_event(self, event: Event, call: Call) -> None:
        """Note what matters for messages, and let the line say what is going on."""
        match event:
            case Sent():
                self.sent = call.host_class != "offline"
                self.arrived = False
                self._say(f"waiting for {call.backend}")
            case FirstByte(status):
                self.arrived = self.sent and 200 <= status < 300
                self._say("receiving")
            case Progress(received, _):
                self._say(f"receiving, {received / 1e6:.1f} MB")
            case Cancelled(maybe_billed):
                self.maybe_billed = maybe_billed and self.sent

    def _say(self, text: str) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=text)

    @contextmanager
    def line(self) -> Iterator[None]:
        """Show a line with the seconds gone by, if somebody is looking; it is wiped at the end."""
        if not moves():
            yield
            return
        try:
            from rich.console import Console
            from rich.progress import Progress as Bar
            from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
        except ImportError:
            yield  # nothing but decoration is lost
            return
        columns = (SpinnerColumn("line"), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        bar = Bar(
            *columns,
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with bar:
            self._bar, self._task = bar, bar.add_task("preparing", total=None)
            try:
                yield
            finally:
                self._bar = None


def moves() -> bool:
    """Return whether standard error is a terminal that may be drawn on."""
    if sys.stderr is None or os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") in ("dumb", ""):
        return False
    try:
        return sys.stderr.isatty()
    except ValueError:
        return False
