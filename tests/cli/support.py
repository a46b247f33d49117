"""Helpers for the tests of the command line."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import pytest

from tests.support.processes import run_process, start_process

SMALL = ("--size", "64x64")
OFFLINE = "Painted offline, not by a model. Nothing was sent, nothing was spent."
CANARY = "sk-test-CANARY-1234567890abcdef"
_OURS = ("OPENAI_", "IMGKIT_", "_IMGKIT")
_OTHERS = ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", "PYTHONIOENCODING", "PYTHONUTF8", "LANG", "LC_ALL",
           "TTY_COMPATIBLE", "TTY_INTERACTIVE", "PYTHONWARNINGS", "TMPDIR")  # fmt: skip
# A child that was started in the background may have inherited that Ctrl-C is ignored.
PROGRAM = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from imgkit.__main__ import main; sys.exit(main())"
)


def clear_environment(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Remove every variable that the command reads, and change to an empty folder."""
    for name in list(os.environ):
        if name.startswith(_OURS) or name in _OTHERS:
            monkeypatch.delenv(name)
    monkeypatch.chdir(folder)


def build_environment(**more: str) -> dict[str, str]:
    """Return an environment without any variable of the command except `more`."""
    bare = {name: value for name, value in os.environ.items()
            if not name.startswith(_OURS) and name not in _OTHERS}  # fmt: skip
    return {**bare, "LANG": "C.UTF-8", **more}


def build_command(*args: str) -> list[str]:
    """Return the argument list of a real process that turns warnings into errors."""
    return [sys.executable, "-W", "error", "-c", PROGRAM, *args]


def run_imgkit(
    *args: str, cwd: Path, env: Mapping[str, str] | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own, with pipes."""
    return run_process(
        build_command(*args),
        cwd=cwd,
        env=build_environment(**(env or {})),
        input=stdin,
        capture_output=True,
        timeout=50,
    )


def read_until(descriptor: int, wanted: bytes, seconds: float = 30) -> bytes:
    """Read a terminal until a text has appeared on it."""
    seen, end = b"", time.monotonic() + seconds
    while wanted not in seen:
        ready, _, _ = select.select([descriptor], [], [], max(0, end - time.monotonic()))
        assert ready, f"{wanted!r} did not appear in {seen!r}"
        seen += os.read(descriptor, 65536)
    return seen


def start_on_terminal(
    cwd: Path, *args: str, columns: int = 0, asked: bool = False, **env: str
) -> tuple[subprocess.Popen[bytes], int]:
    """Start the command with standard error on a terminal; return it and the terminal's other end.

    Args:
        cwd: the current folder.
        args: the arguments.
        columns: width of the terminal, 0 for none.
        asked: whether standard input is the terminal, too.
        env: more variables.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    child = start_process(
        build_command(*args),
        cwd=cwd,
        env=build_environment(**env),
        stdin=theirs if asked else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    return child, ours


def read_rest(ours: int) -> bytes:
    """Return the output on a terminal until its last user has closed it."""
    seen = b""
    try:
        while block := os.read(ours, 65536):
            seen += block
    except OSError:
        pass  # Linux says EIO at the end
    os.close(ours)
    return seen


def wait_for_end(child: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """Return exit code and standard output."""
    out: IO[bytes] = child.stdout  # type: ignore[assignment]
    with out:
        text = out.read()
    return child.wait(50), text
