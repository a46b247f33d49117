"""Child processes of tests: they start with default signals, and none outlives its test."""

from __future__ import annotations

import os
import signal
import subprocess
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any, Literal, overload

import pytest

TIMEOUT_S = 50
"""Seconds that a child process may take, unless a test says otherwise."""
STOP_S = 10
"""Seconds that a killed child process may take to end."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ChildProcesses:
    """Child processes that `close` kills and waits for. Use it by `start_process` and its like."""

    def __init__(self) -> None:
        self._children: list[subprocess.Popen[Any]] = []
        self._forks: set[int] = set()

    def start(self, args: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program, and kill it in `close` if it still runs."""
        with _default_signals():
            child = subprocess.Popen(args, **options)
        self._children.append(child)
        return child

    def fork(self, work: Callable[[], bool]) -> int:
        """Start `work` in a forked child and return its id, for `join`."""
        with warnings.catch_warnings():
            # Python 3.12 warns of forks beside threads; the child runs only what its test gives it.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            code = 2
            try:
                for number in SIGNALS:
                    signal.signal(number, signal.SIG_DFL)
                code = 0 if work() else 1
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        self._forks.add(child)
        return child

    def join(self, child: int) -> int:
        """Return the exit code of a forked child: 0 for True, 1 for False, 2 if its work raised."""
        _, status = os.waitpid(child, 0)
        self._forks.discard(child)
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """Kill the children that still run, wait for all, and close their pipes."""
        for pid in self._forks:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        with ExitStack() as stack:
            for child in self._children:
                stack.callback(_reap, child)


def _reap(child: subprocess.Popen[Any]) -> None:
    child.kill()  # does nothing to a child that has been waited for
    try:
        child.wait(STOP_S)
    finally:
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Stand for an ignored signal: a program that starts resets handlers, but inherits "ignored"."""


@contextmanager
def _default_signals() -> Iterator[None]:
    """Let a program that starts here find the default dispositions, also under nohup or in a shell's `&`."""
    ignored = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, _do_nothing)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


_running: list[ChildProcesses] = []


@contextmanager
def child_processes() -> Iterator[ChildProcesses]:
    """Collect the child processes that are started in this block; kill and reap them behind it."""
    children = ChildProcesses()
    _running.append(children)
    try:
        yield children
    finally:
        _running.remove(children)
        children.close()


@pytest.fixture(autouse=True)
def _reap_processes() -> Iterator[None]:
    with child_processes():
        yield


@overload
def start_process(args: Sequence[str], *, text: Literal[True], **options: Any) -> subprocess.Popen[str]: ...
@overload
def start_process(
    args: Sequence[str], *, text: Literal[False] = False, **options: Any
) -> subprocess.Popen[bytes]: ...
def start_process(args: Sequence[str], *, text: bool = False, **options: Any) -> subprocess.Popen[Any]:
    """Start a program with default signals; the test kills and reaps it. Options are those of `Popen`."""
    return _running[-1].start(args, text=text, **options)


@overload
def run_process(
    args: Sequence[str], *, text: Literal[True], **options: Any
) -> subprocess.CompletedProcess[str]: ...
@overload
def run_process(
    args: Sequence[str], *, text: Literal[False] = False, **options: Any
) -> subprocess.CompletedProcess[bytes]: ...
def run_process(
    args: Sequence[str], *, text: bool = False, timeout: float = TIMEOUT_S, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """Run a program with default signals to its end. Options are those of `subprocess.run`."""
    input, check = options.pop("input", None), options.pop("check", False)
    if input is not None:
        options["stdin"] = subprocess.PIPE
    if options.pop("capture_output", False):
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    child = _running[-1].start(args, text=text, **options)
    out, problems = child.communicate(input, timeout)
    done = subprocess.CompletedProcess(args, child.returncode, out, problems)
    if check:
        done.check_returncode()
    return done


def run_in_fork(work: Callable[[], bool]) -> int:
    """Run `work` in a forked child; return its exit code: 0 for True, 1 for False, 2 if it raises."""
    return _running[-1].join(_running[-1].fork(work))


def start_fork(work: Callable[[], bool]) -> int:
    """Start `work` in a forked child and return its id; the test kills and reaps the child."""
    return _running[-1].fork(work)


def kill_fork(child: int) -> None:
    """Kill a forked child with SIGKILL, and reap it."""
    os.kill(child, signal.SIGKILL)
    _running[-1].join(child)


def join_fork(child: int) -> int:
    """Wait for a forked child; return its exit code as `run_in_fork` does."""
    return _running[-1].join(child)
