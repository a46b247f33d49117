"""What the tests of the command line share; no tests are here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.processes import run_process

SMALL = ("--size", "64x64")
OFFLINE = "painted offline, not by a model; nothing was sent, nothing was spent"
CANARY = "sk-test-CANARY-1234567890abcdef"
_OURS = ("OPENAI_", "IMGKIT_", "_IMGKIT")
_OTHERS = ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", "PYTHONIOENCODING", "PYTHONUTF8", "LANG", "LC_ALL",
           "TTY_COMPATIBLE", "TTY_INTERACTIVE", "PYTHONWARNINGS", "TMPDIR")  # fmt: skip
# A child that was started in the background may have inherited that Ctrl-C is ignored.
PROGRAM = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from imgkit.__main__ import main; sys.exit(main())"
)


def clear(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Take everything out of the environment that the command reads, and go to an empty folder."""
    for name in list(os.environ):
        if name.startswith(_OURS) or name in _OTHERS:
            monkeypatch.delenv(name)
    monkeypatch.chdir(folder)


def environment(**more: str) -> dict[str, str]:
    """Return an environment that says nothing to the command but `more`."""
    bare = {name: value for name, value in os.environ.items()
            if not name.startswith(_OURS) and name not in _OTHERS}  # fmt: skip
    return {**bare, "LANG": "C.UTF-8", **more}


def command(*args: str) -> list[str]:
    """Return the argument list of a real process, in which warnings are errors."""
    return [sys.executable, "-W", "error", "-c", PROGRAM, *args]


def imgkit(
    *args: str, cwd: Path, env: Mapping[str, str] | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own, with pipes."""
    return run_process(
        command(*args), cwd=cwd, env=environment(**(env or {})), input=stdin, capture_output=True, timeout=50
    )
