"""The log of the requests of a run that leave, which tells after a kill those that never did.

The manifest says that a request is being sent before it leaves, and flushes that to the disk, which takes
milliseconds. A process that is killed meanwhile has sent nothing. So each request is logged right before it
leaves, without a flush: what a process has written outlives it, as long as the machine runs. After a restart
of the machine the log proves nothing, and the request is unknown.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from imgkit.bulk.row_values import BulkRow
from imgkit.core.context import SentPart
from imgkit.errors import NotSentError
from imgkit.files import CREATE_FLAGS

FILE = "departures.log"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""The name of the time since the machine started. Other systems have none, and no log."""


class Departures:
    """The log in a run folder. Any thread may use it.

    Args:
        folder: the run folder.

    Attributes:
        token: the name of the log that this process writes, None if it writes none. A row that is being sent
            names its log, so that no other log tells about it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._descriptor: int | None = None
        self.token: str | None = None

    def begin(self) -> None:
        """Begin a new log, if the system has what it takes. Nothing is in flight. May block."""
        boot = _read_boot_id()
        if boot is None:
            return
        self.close()
        token = secrets.token_hex(4)
        try:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | CREATE_FLAGS, 0o600)
            os.write(self._descriptor, f"{token} {boot}\n".encode())
        except OSError:  # requests in flight at a kill are then unknown
            self.close()
            return
        self.token = token

    def note(self, part: SentPart) -> None:
        """Write down that an attempt leaves now. Quick.

        Raises:
            NotSentError: the log is wrong, and cannot be removed.
        """
        if self._descriptor is None or self._write(_format_line(part)):
            return
        self.token = None
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise NotSentError(
                f"Nothing was sent. Cannot write {FILE} ({error.strerror or error})."
            ) from None

    def _write(self, line: str) -> bool:
        """Append a line; return False if the disk takes no more."""
        try:
            return os.write(self._descriptor or 0, f"{line}\n".encode()) == len(line) + 1
        except OSError:
            return False

    def close(self) -> None:
        """Remove the log: nothing is in flight any more. Idempotent."""
        descriptor, self._descriptor, self.token = self._descriptor, None, None
        if descriptor is not None:
            os.close(descriptor)
        with suppress(OSError):  # a log that stays names no row that a later process sends
            self._path.unlink(missing_ok=True)

    def find_unsent(self, rows: Iterable[BulkRow]) -> dict[int, list[SentPart]]:
        """Return the attempts that never left, of rows that a dead process was sending. May block.

        Args:
            rows: the rows. Those whose log is not there any more, or proves nothing, count as sent.

        Returns:
            The attempts by the number of their row.
        """
        try:
            with self._path.open() as lines:
                token, _, boot = next(lines, "").strip().partition(" ")
                if not token or boot != _read_boot_id():
                    return {}
                own = [row for row in rows if row.info.get("log") == token and not row.info.get("task")]
                parts = {row.number: [SentPart(*each) for each in row.info.get("sent", ())] for row in own}
                left = {_format_line(part) for each in parts.values() for part in each}
                left.difference_update(map(str.strip, lines))
        except (OSError, ValueError):
            return {}
        return {
            number: [part for part in each if _format_line(part) in left] for number, each in parts.items()
        }


def _format_line(part: SentPart) -> str:
    return f"{part.call_id} {part.attempt}"


def _read_boot_id() -> str | None:
    try:
        return BOOT_ID.read_text().strip() or None
    except OSError:
        return None
