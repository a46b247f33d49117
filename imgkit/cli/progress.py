"""Progress of a running call: a live status line, and whether a request was sent."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from imgkit.plugins.events import Call, Cancelled, Event, FirstByte, Progress, Sent
from imgkit.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from rich.progress import Progress as StatusLine
    from rich.progress import TaskID


class CallWatcher:
    """A plugin that follows the events of one call.

    Example:
        >>> from imgkit import ImageService
        >>> watcher = CallWatcher()
        >>> with ImageService(plugins=[watcher]) as service:
        ...     response = service.create_image("a fox", size="64x64")
        >>> watcher.sent  # the offline backend sends nothing
        False

    Attributes:
        sent: whether a request that can be billed was sent.
        maybe_billed: whether the call was cancelled while such a request was under way.
        reply_started: whether a success reply to it has begun, so that the spool holds a part of it.
    """

    def __init__(self) -> None:
        self.sent = False
        self.maybe_billed = False
        self.reply_started = False
        self._status_line: StatusLine | None = None
        self._task: TaskID | None = None

    @hookimpl
    def imgkit_on_event(self, event: Event, call: Call) -> None:
        """Update the attributes and the status line."""
        match event:
            case Sent():
                self.sent = call.host_class != "offline"
                self.reply_started = False
                self._set_status(f"waiting for {call.backend}")
            case FirstByte(status):
                self.reply_started = self.sent and 200 <= status < 300
                self._set_status("receiving")
            case Progress(received, _):
                self._set_status(f"receiving, {received / 1e6:.1f} MB")
            case Cancelled(maybe_billed):
                self.maybe_billed = maybe_billed and self.sent

    def _set_status(self, text: str) -> None:
        if self._status_line is not None and self._task is not None:
            self._status_line.update(self._task, description=text)

    @contextmanager
    def show_progress(self) -> Iterator[None]:
        """Show a status line with the elapsed seconds on a terminal; it disappears at the end."""
        if not can_animate():
            yield
            return
        try:
            from rich.console import Console
            from rich.progress import Progress as StatusLine
            from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
        except ImportError:
            yield
            return
        columns = (SpinnerColumn("line"), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        status_line = StatusLine(
            *columns,
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with status_line:
            self._status_line, self._task = status_line, status_line.add_task("preparing", total=None)
            try:
                yield
            finally:
                self._status_line = None


def can_animate() -> bool:
    """Return whether standard error is a terminal that can redraw a line."""
    if sys.stderr is None or os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") in ("dumb", ""):
        return False
    try:
        return sys.stderr.isatty()
    except ValueError:
        return False
