"""SIGTERM and SIGHUP end the command as Ctrl-C does: the call is broken off, and what is paid for is kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Never


@contextmanager
def as_interrupts() -> Iterator[None]:
    """Let both raise KeyboardInterrupt; at the end the process dies of the one that came, as it would have.

    A second one ends it at once. What somebody else has chosen for them (``nohup``, say) stays.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    known = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]  # no SIGHUP on Windows
    taken = [one for one in known if one is not None and signal.getsignal(one) is signal.SIG_DFL]
    came: list[int] = []

    def give_back() -> None:
        for one in taken:
            signal.signal(one, signal.SIG_DFL)

    def interrupt(number: int, frame: FrameType | None) -> Never:
        came.append(number)
        give_back()
        raise KeyboardInterrupt

    for one in taken:
        signal.signal(one, interrupt)
    try:
        yield
    finally:
        give_back()
        if came:
            signal.raise_signal(came[0])
