"""Copies of the file objects that callers pass, within the time of the call."""

from __future__ import annotations

import contextlib
import io
import tempfile
import threading
import time
from typing import IO, Any

from imgkit.errors import NotSentError
from imgkit.wire.messages import BLOCK_BYTES
from imgkit.wire.plain_values import type_name

_IN_MEMORY_BYTES = 8 * 1024 * 1024


def copy_file_object(stream: IO[Any], max_bytes: int, deadline: float | None) -> tuple[IO[bytes], int]:
    """Return a copy of a file object from its position on, and the copy's length. Restores the position.

    A thread reads the object, so one that blocks cannot hold the call for longer than its time.

    Args:
        stream: the caller's object.
        max_bytes: the copy ends once it is longer.
        deadline: end of the call in monotonic seconds, None without one.

    Raises:
        NotSentError: the deadline has passed.
        Exception: whatever the object raises.
    """
    copying = _Copying(stream, max_bytes)
    if deadline is None or type(stream) is io.BytesIO:
        copying.run()
    else:
        threading.Thread(target=copying.run, name="imgkit-input", daemon=True).start()
    return copying.wait(deadline)


class _Copying:
    """The copying of a file object, perhaps in a thread that outlives the call.

    Args:
        stream, max_bytes: as for `copy_file_object`.
    """

    def __init__(self, stream: IO[Any], max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._copy = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - see wait
        self._length = 0
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._is_done = threading.Event()
        self._is_abandoned = False

    def run(self) -> None:
        """Copy the object to its end."""
        try:
            self._copy_blocks()
        except BaseException as error:
            self._error = error
        with self._lock:
            if self._is_abandoned:
                self._copy.close()
            self._is_done.set()

    def _copy_blocks(self) -> None:
        stream = self._stream
        is_seekable = bool(getattr(stream, "seekable", lambda: False)())
        start = stream.tell() if is_seekable else 0
        try:
            while not self._is_abandoned and (block := stream.read(BLOCK_BYTES)):
                if not isinstance(block, bytes | bytearray | memoryview):
                    raise TypeError(f"read() returns {type_name(block)}, not bytes")
                self._length += len(block)
                if self._length > self._max_bytes:
                    break
                self._copy.write(block)
        finally:
            if is_seekable:
                stream.seek(start)

    def wait(self, deadline: float | None) -> tuple[IO[bytes], int]:
        """Return the copy and its length once it is complete; raises as `copy_file_object`."""
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(self._abandon)
            if not self._is_done.wait(None if deadline is None else max(0.0, deadline - time.monotonic())):
                raise NotSentError(
                    f"The {type_name(self._stream)} has not ended within timeout_s. Nothing was sent. Pass "
                    "bytes, or raise timeout_s."
                )
            if self._error is not None:
                raise self._error
            cleanup.pop_all()
        return self._copy, self._length

    def _abandon(self) -> None:
        """Stop the thread after its current read; whoever is last closes the copy."""
        with self._lock:
            self._is_abandoned = True
            if self._is_done.is_set():
                self._copy.close()
