"""Guards around the calls of a provider: no I/O, and no state that two calls share."""

from __future__ import annotations

import _thread
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import isfunction
from types import FrameType
from typing import Any

FORBIDDEN_EVENTS = (
    *("_thread.", "ftplib.", "glob.", "http.client.", "open", "os.", "pathlib.", "shutil.", "smtplib."),
    *("socket.", "sqlite3.", "subprocess.", "tempfile.", "time.sleep", "urllib."),
)
"""Beginnings of the names of audit events that belong to I/O.

Source: the table of audit events in the reference of Python's library, read 2026-11-28.
"""

READING_EVENTS = ("open", "os.listdir", "os.scandir")
"""The audit events by which a module reads its own package data."""

UNAUDITED_FUNCTIONS = (time.sleep, select.select, _thread.start_new_thread)
"""Functions that raise no audit event in Python 3.11."""

LOCK_WAIT_S = 1.0
"""Seconds to wait for the other thread at a line at which the provider may hold a lock."""

_WRITING_MODES = frozenset("wax+")
_guards: dict[int, IoGuard] = {}
"""The active guard of each thread, by the thread's identifier."""


class _IoForbiddenError(Exception):
    """Raised in place of I/O."""


class IoGuard:
    """A guard that stops its thread before it does I/O.

    Args:
        allow_reading: allow the thread to open files for reading.

    Attributes:
        problems: the I/O that the thread has tried.
    """

    is_hooked = False

    def __init__(self, allow_reading: bool) -> None:
        self.allow_reading = allow_reading
        self.problems: list[str] = []

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Raise if an audit event is forbidden I/O. Imports may read files."""
        if not event.startswith(FORBIDDEN_EVENTS):
            return
        is_reading = event in READING_EVENTS and not (event == "open" and _is_writing(arguments))
        if (self.allow_reading and is_reading) or _is_importing(sys._getframe()):
            return
        self.fail(f"{event}({', '.join(repr(argument)[:100] for argument in arguments)})")

    def profile(self, frame: FrameType, event: str, argument: Any) -> None:
        """Raise if the thread calls a function that sleeps or starts a thread."""
        if event == "c_call" and any(argument is function for function in UNAUDITED_FUNCTIONS):
            self.fail(f"{argument.__module__}.{argument.__name__}()")

    def fail(self, problem: str) -> None:
        """Record forbidden I/O, and raise from the line that does it."""
        self.problems.append(problem)
        raise _IoForbiddenError(problem)


@contextmanager
def forbid_io(action: str, *, allow_reading: bool = False) -> Iterator[None]:
    """Fail if the body opens a file or a socket, starts a process or a thread, or sleeps.

    >>> with forbid_io("encode()"):
    ...     open("key.txt")
    Traceback (most recent call last):
    AssertionError: encode() does I/O: open('key.txt', 'r', ...

    Args:
        action: name of the guarded call, for the message.
        allow_reading: allow files to be read: package data loads on first use.

    Raises:
        AssertionError: the body did I/O, whether or not it has caught the exception.
    """
    if not IoGuard.is_hooked:
        # Python has no way to remove an audit hook. Without a guard, it returns at once.
        sys.addaudithook(_audit)
        IoGuard.is_hooked = True
    guard, thread, profile = IoGuard(allow_reading), threading.get_ident(), sys.getprofile()
    cause: Exception | None = None
    _guards[thread] = guard
    sys.setprofile(guard.profile)
    try:
        yield
    except Exception as error:
        if not guard.problems:
            raise
        cause = error
    finally:
        sys.setprofile(profile)
        del _guards[thread]
    if guard.problems:
        raise AssertionError(
            f"{action} does I/O: {guard.problems[0]}. The async service runs it on the event loop, where it "
            "would stop all other calls. Move the I/O into a plugin."
        ) from cause


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    guard = _guards.get(threading.get_ident()) if _guards else None
    if guard is not None:
        guard.audit(event, arguments)


def _is_writing(arguments: tuple[Any, ...]) -> bool:
    """Return whether the arguments of an ``open`` event ask for writing."""
    _, mode, flags = arguments
    return bool(_WRITING_MODES & set(mode)) if mode else bool(flags & 3)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def run_interleaved(
    action: Callable[[], object], other: Callable[[], object], files: frozenset[str]
) -> list[object]:
    """Run `action`, and run `other` in another thread before each of its lines.

    State that both share, such as an attribute of the provider, then holds the values of `other` at every
    line of `action`. A debugger or a coverage tool in this thread pauses meanwhile.

    Args:
        action: the traced call.
        other: the call between its lines.
        files: the source files whose lines count.

    Returns:
        The result of `action` or its exception, and the exceptions of `other`.
    """
    errors: list[object] = []
    threads: list[threading.Thread] = []

    def run_other() -> None:
        try:
            other()
        except Exception as error:
            errors.append(error)

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        # A provider may hold a lock at this line. The thread then waits, and goes on later.
        if event == "line" and not (threads and threads[-1].is_alive()):
            threads.append(threading.Thread(target=run_other, daemon=True))
            threads[-1].start()
            threads[-1].join(LOCK_WAIT_S)
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        result = action()
    except Exception as error:
        result = error
    finally:
        sys.settrace(previous)
        if threads:
            threads[-1].join()
    return [result, *errors]


def list_source_files(kind: type) -> frozenset[str]:
    """Return the source files of the methods of a class and of its base classes.

    >>> [file.endswith("provider_guards.py") for file in list_source_files(IoGuard)]
    [True]
    """
    return frozenset(
        member.__code__.co_filename
        for base in kind.__mro__
        for member in vars(base).values()
        if isfunction(member)
    )
