"""The status line: the last line of a terminal, which shows a running call and is redrawn in place."""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from typing import TextIO

from imgkit.redact import mask_control

_REDRAW_S = 0.2
_SPINNER = "|/-\\"
_CLEAR = "\r\x1b[2K"


class StatusLine:
    """A line on a terminal with a text and the elapsed seconds. It never wraps and never scrolls.

    Other output goes through `write`, which puts it above the line.

    Example:
        >>> import sys
        >>> status_line = StatusLine(sys.stdout)
        >>> status_line.set_text("waiting")  # nothing is drawn before start()

    Args:
        stream: the terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._frames = itertools.cycle(_SPINNER)
        self._text = ""
        self._until: float | None = None
        self._started = 0.0

    def start(self) -> None:
        """Draw the line, and redraw it five times a second."""
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._redraw_until_stopped, daemon=True)
        self._draw()
        self._thread.start()

    def stop(self) -> None:
        """Clear the line and stop drawing it. Idempotent."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is None:
                return
            self._stopping.set()
            self._write(_CLEAR)
        thread.join()

    def set_text(self, text: str, wait_s: float | None = None) -> None:
        """Change the text.

        Args:
            text: the new text. The elapsed seconds stand in place of "{clock}", else at the end.
            wait_s: seconds that count down in place of "{wait}" in the text.
        """
        with self._lock:
            self._text = mask_control(text)
            self._until = None if wait_s is None else time.monotonic() + wait_s
            self._draw()

    def write(self, text: str) -> None:
        """Write text that ends with a line break above the line."""
        with self._lock:
            self._write(_CLEAR + text)
            self._draw()

    def _redraw_until_stopped(self) -> None:
        while not self._stopping.wait(_REDRAW_S):
            self._draw()

    def _draw(self) -> None:
        with self._lock:
            if self._thread is not None:
                self._write(_CLEAR + self._format())

    def _format(self) -> str:
        seconds = int(time.monotonic() - self._started)
        clock = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        text = self._text
        if self._until is not None:
            text = text.replace("{wait}", str(max(1, math.ceil(self._until - time.monotonic()))))
        end = "" if "{clock}" in text else f" {clock}"
        columns = (count_columns(self._stream) or 80) - 1
        return fit_line(f"{next(self._frames)} ", text.replace("{clock}", clock), end, columns)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            return  # the terminal is closed, and no other place shows a progress


def count_columns(stream: TextIO) -> int:
    """Return the width of a terminal, 0 if it is unknown."""
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 0


def wrap_lines(text: str, columns: int) -> str:
    r"""Return text with its long lines broken between words and indented from the second line on.

    Text for a terminal of unknown width (0) stays as it is.

    >>> wrap_lines("imgkit: a long message", 16)
    'imgkit: a long\n  message'
    """
    import textwrap

    if columns < 1:
        return text
    wrapper = textwrap.TextWrapper(
        columns,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )
    return "\n".join(wrapper.fill(line) if len(line) > columns else line for line in text.split("\n"))


def fit_line(start: str, text: str, end: str, columns: int) -> str:
    """Return a line of at most this many columns. The text matters more than its start and end.

    >>> fit_line("| ", "waiting", " 0:01", 40)
    '| waiting 0:01'
    >>> fit_line("| ", "waiting for a host", " 0:01", 20)
    '| waiting for a host'
    >>> fit_line("| ", "waiting (attempt 2)", " 0:01", 10)
    'waiting'
    >>> fit_line("| ", "waiting for a host", " 0:01", 10)
    'waiting...'
    """
    for line in (start + text + end, start + text, text, text.rpartition(" (")[0] or text):
        if len(line) <= columns:
            return line
    return f"{text[: max(0, columns - 3)]}..."[: max(0, columns)]
