"""One at a time on a cassette, over all processes: who writes it reads it first."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imgkit.errors import SaveError
from imgkit.locks import FileLock

_NAP_S = 0.01


@contextmanager
def alone(path: Path, longest_wait_s: float) -> Iterator[None]:
    """Keep other processes from a cassette; where no lock can be had, the write says what is wrong.

    Args:
        path: of the cassette.
        longest_wait_s: seconds to wait for another one.

    Raises:
        SaveError: another process holds it for longer.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquired(path.with_name(f".{path.name}.lock"), longest_wait_s)
    except OSError:
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _acquired(path: Path, longest_wait_s: float) -> FileLock:
    until = time.monotonic() + longest_wait_s
    while (lock := FileLock.try_acquire(path)) is None:
        if time.monotonic() > until:
            raise SaveError(f"{str(path)!r} is held by another process: let it end, and record again")
        time.sleep(_NAP_S)
    return lock
