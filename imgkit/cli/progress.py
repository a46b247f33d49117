"""Progress of a running call: a live status line, and whether a request was sent."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from imgkit.cli import console
from imgkit.cli.status_line import StatusLine
from imgkit.default_plugins.retry import find_attempt_limit
from imgkit.plugins.events import (
    Call,
    Cancelled,
    Event,
    FirstByte,
    JobProgress,
    Outcome,
    Progress,
    Retrying,
    Sent,
)
from imgkit.plugins.hookspecs import hookimpl
from imgkit.redact import safe_url


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

    @hookimpl
    def imgkit_on_event(self, event: Event, call: Call) -> None:
        """Update the attributes and the status line; without such a line, print a message for a retry."""
        match event:
            case Sent(attempt=attempt):
                self.sent = call.host_class != "offline"
                self.reply_started = False
                place = f"waiting for {_format_origin(call.base_url)}" if self.sent else "painting offline"
                self._set_status(f"{place} (attempt {attempt})" if attempt > 1 else place)
            case FirstByte(status):
                self.reply_started = self.sent and 200 <= status < 300
                self._set_status("receiving")
            case Progress(received, _) if received >= 50_000:
                self._set_status(f"receiving, {received / 1e6:.1f} MB")
            case Retrying(outcome, wait_s):
                self.reply_started = False
                text = describe_retry(outcome)
                if self._status_line is None:
                    console.print_message(f"imgkit: {text.replace('{wait}', str(max(1, math.ceil(wait_s))))}")
                self._set_status(text, wait_s)
            case JobProgress(_, progress, note, wait_s):
                share = "" if progress is None else f", {progress:.0%}"
                self._set_status(f"the provider is at work{f' ({note})' if note else ''}{share}", wait_s)
            case Cancelled(maybe_billed):
                self.maybe_billed = maybe_billed and self.sent

    def _set_status(self, text: str, wait_s: float | None = None) -> None:
        if self._status_line is not None:
            self._status_line.set_text(text, wait_s)

    @contextmanager
    def show_progress(self) -> Iterator[None]:
        """Show a status line with the elapsed seconds on a terminal; it disappears at the end."""
        with show_activity("preparing") as self._status_line:
            try:
                yield
            finally:
                self._status_line = None


@contextmanager
def show_activity(text: str) -> Iterator[StatusLine | None]:
    """Show a status line with a text and the elapsed seconds; yield None where none can be shown."""
    if not can_animate():
        yield None
        return
    status_line = StatusLine(sys.stderr)
    status_line.set_text(text)
    with console.show_status_line(status_line):
        yield status_line


def describe_retry(outcome: Outcome) -> str:
    """Return the reason of a retry and "{wait}" for its pause.

    Args:
        outcome: the outcome of the failed attempt.
    """
    status = getattr(outcome.error, "status", None)
    match outcome.kind:
        case "unsent":
            problem = "Could not connect."
        case "refused" if status == 429:
            problem = "Rate limited."
        case _ if status:
            problem = f"HTTP {status}."
        case _:
            problem = "No reply."
    number, limit = outcome.number + 1, find_attempt_limit(outcome.kind)
    count = f"{number} of {limit}" if limit is not None and number <= limit else f"attempt {number}"
    return f"{problem} Trying again in {{wait}} s ({count})."


def _format_origin(base_url: str) -> str:
    return "/".join(safe_url(base_url).split("/")[:3])


def can_animate() -> bool:
    """Return whether standard error is a terminal that can redraw a line."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") in ("dumb", ""):
        return False
    return console.is_terminal(sys.stderr)
