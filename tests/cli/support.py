"""Helpers for the tests of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.processes import run_process

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
