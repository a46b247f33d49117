"""Standard output holds what was asked for, and nothing else; standard error holds everything else."""

from __future__ import annotations

import os
import re
import sys

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class OutputError(Exception):
    """Standard output cannot be written to."""


def tell(text: str) -> None:
    """Write a line to standard error, without characters that steer a terminal; give up silently."""
    if sys.stderr is None:  # closed by whoever started us; print(file=None) would write to stdout
        return
    try:
        sys.stderr.write(_CONTROL.sub(" ", text) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # there is no third place to complain to


def send(data: bytes) -> int:
    """Write bytes to standard output.

    Returns:
        0, also where the reader has gone (``imgkit … | head -1``): it has what it wanted.

    Raises:
        OutputError: the bytes did not arrive, for example because a disk is full.
    """
    if sys.stdout is None:
        return 0
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        hush()
    except (OSError, ValueError) as error:
        hush()
        raise OutputError(f"cannot write to standard output: {getattr(error, 'strerror', error)}") from None
    return 0


def send_text(text: str) -> int:
    """Write text to standard output, with escapes for what its encoding does not have."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return send(text.encode(encoding, "backslashreplace"))


def send_paths(paths: list[str]) -> int:
    """Write one path per line, as the bytes that the file system knows."""
    return send(b"".join(os.fsencode(path) + b"\n" for path in paths))


def hush() -> None:
    """Point a broken standard output at nothing, so that Python's exit does not stumble over it too."""
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
    except (OSError, ValueError, AttributeError):
        return  # not a real file: nothing will be flushed at exit
