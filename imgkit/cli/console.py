"""Standard output carries results only; standard error carries every message."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from imgkit.redact import escape_control, mask_control

if TYPE_CHECKING:
    from imgkit.cli.status_line import StatusLine

_status_lines: list[StatusLine] = []
"""The status line at the end of the terminal, if there is one."""

_message_count = 0


class OutputError(Exception):
    """Standard output cannot be written to."""


def print_message(text: str) -> None:
    """Write a line to standard error, with control characters replaced by blanks; never raises.

    On a terminal, a long line breaks between words.
    """
    global _message_count
    _message_count += 1
    lines = mask_control(text)
    if is_terminal(sys.stderr):
        from imgkit.cli.status_line import count_columns, wrap_lines

        lines = wrap_lines(lines, count_columns(sys.stderr))
    write_to_stderr(f"{lines}\n")


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is an open terminal."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def has_status_line() -> bool:
    """Return whether other writers to standard error would glue their text to a status line."""
    return bool(_status_lines)


def count_messages() -> int:
    """Return the number of messages so far: an image in the terminal moves up when it grows."""
    return _message_count


def write_to_stderr(text: str) -> None:
    """Write text with its line break to standard error, above the status line; never raises."""
    if _status_lines:
        _status_lines[-1].write(text)
        return
    if sys.stderr is None:  # print(file=None) would write to standard output
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # no other stream is left for a complaint


@contextmanager
def show_status_line(status_line: StatusLine) -> Iterator[None]:
    """Show a status line below all messages; it disappears at the end."""
    status_line.start()
    _status_lines.append(status_line)
    try:
        yield
    finally:
        _status_lines.remove(status_line)
        status_line.stop()


def write_bytes(data: bytes) -> int:
    """Write bytes to standard output.

    Returns:
        0, even if the reader has closed its end (``imgkit … | head -1``).

    Raises:
        OutputError: the bytes were not written, for example because a disk is full.
    """
    if sys.stdout is None:
        return 0
    for status_line in _status_lines if is_terminal(sys.stdout) else ():
        status_line.stop()  # both streams may be the same terminal
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        silence_stdout()
    except (OSError, ValueError) as error:
        silence_stdout()
        raise OutputError(f"Cannot write to standard output: {getattr(error, 'strerror', error)}.") from None
    return 0


def write_text(text: str) -> int:
    """Write text to standard output.

    Control and direction-changing characters, and those outside its encoding, become escapes.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return write_bytes(escape_control(text).encode(encoding, "backslashreplace"))


def write_paths(paths: list[str]) -> int:
    """Write a path per line, in the bytes of the file system."""
    return write_bytes(b"".join(os.fsencode(path) + b"\n" for path in paths))


def silence_stdout() -> None:
    """Redirect a broken standard output to the null device: Python flushes it again at exit."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError, AttributeError):
        return  # not a real file, so Python flushes nothing at exit
