"""Reservations that keep a reply in memory for a moment: most clients have it before a spool needs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from imgkit.billing.reservations import ReservationGroup
from imgkit.server.reply_memory import MAX_REPLY_BYTES, ReplyMemory, ReplyPartFiles
from imgkit.wire.secret_filter import NO_SECRETS, SecretFilter

if TYPE_CHECKING:
    from imgkit.images.part_files import PartFiles
    from imgkit.models import ImagesResponse
    from imgkit.plugins.protocols import Ledger
    from imgkit.plugins.resources import Resource
    from imgkit.wire.messages import Head

LATE_S = 0.25
"""Seconds after the head of a reply from which on the spools have its bytes."""

_late: set[LateReservations] = set()
_late_lock = threading.Lock()


class LateReservations(ReservationGroup):
    """Reservations whose spools get a reply only if it takes longer than a moment, or fails.

    A killed process loses the last moment of a reply, and a reply that is delivered costs no disk. A spool
    also gets the bytes once the memory of the replies is full.
    """

    def __init__(self) -> None:
        super().__init__()
        self._guard = threading.RLock()
        self._begin: Callable[[], None] | None = None
        self._held: list[tuple[str, bytes]] = []
        self._held_bytes = 0
        self._is_complete = False
        self._due_at = 0.0
        self._memory: ReplyMemory | None = None

    @property
    def is_quick(self) -> bool:
        """Whether `begin`, `write` and `finish` cannot block now."""
        return not self._due_at or (self._begin is not None and not self._is_due)

    @property
    def ends_quickly(self) -> bool:
        """Whether no reservation has anything on the disk."""
        return all(getattr(reservation, "is_quick", False) for _, reservation in self._open)

    @classmethod
    def can_reserve_quickly(cls, ledgers: Iterable[Resource[Ledger]]) -> bool:
        """Return whether no ledger asks the disk."""
        return all(getattr(ledger.thing, "is_quick", False) for ledger in ledgers)

    @property
    def is_overdue(self) -> bool:
        """Whether the spools should have the bytes by now: of a reply that arrives, or whose images do."""
        return self._begin is not None and self._is_due

    def begin(
        self, head: Head, secrets: SecretFilter = NO_SECRETS, part_files: PartFiles | None = None
    ) -> None:
        """Hold the head of a reply."""
        if isinstance(part_files, ReplyPartFiles):
            self._memory = part_files.memory
        self._begin = partial(super().begin, head, secrets, part_files)
        self._due_at = time.monotonic() + LATE_S
        with _late_lock:
            _late.add(self)

    def write(self, chunks: Sequence[tuple[str, bytes]]) -> None:
        """Hold chunks of a reply, or let the spools keep them."""
        with self._guard:
            if self._begin is None:
                super().write(chunks)
                return
            self._hold(chunks)
            if self._is_due:
                self.spool()

    def finish(self, chunks: Sequence[tuple[str, bytes]]) -> None:
        """Hold the last chunks of a reply, or let the spools keep them."""
        with self._guard:
            self._is_complete = True
            if self._begin is None:
                super().finish(chunks)
                return
            self._hold(chunks)
            if self._is_due:
                self.spool()

    def spool(self) -> None:
        """Let the spools keep what is held. May block."""
        with self._guard:
            begin, self._begin = self._begin, None
            held, self._held = self._held, []
            if begin is None:
                return
            self._leave()
            begin()
            if self._is_complete:
                super().finish(held)
            else:
                super().write(held)

    def keep(self, error: BaseException, response: ImagesResponse | None = None) -> None:
        """End the reservations of an attempt that may be billed but was not delivered."""
        self.spool()
        super().keep(error, response)

    def defer(self, job_id: str, *, keep_reply: bool = False) -> None:
        """Let the reservations outlive the process with an accepted job, where a ledger can do so."""
        if keep_reply:
            self.spool()
        super().defer(job_id, keep_reply=keep_reply)

    def settle(self, response: ImagesResponse | None) -> None:
        """End the reservations: the caller has the images, or the attempt cannot be billed."""
        with self._guard:
            self._begin, self._held = None, []
            self._leave()
            super().settle(response)

    def leave(self) -> None:
        """Leave the reservations to another process."""
        self._leave()
        super().leave()

    def close(self) -> None:
        """End the reservations of an attempt that was not sent."""
        self._leave()
        super().close()

    @property
    def _is_due(self) -> bool:
        is_full = self._held_bytes > MAX_REPLY_BYTES or (self._memory is not None and self._memory.is_full)
        return is_full or time.monotonic() >= self._due_at

    def _hold(self, chunks: Sequence[tuple[str, bytes]]) -> None:
        self._held += chunks
        self._held_bytes += sum(len(data) for _, data in chunks)

    def _leave(self) -> None:
        with _late_lock:
            _late.discard(self)


def list_overdue() -> list[LateReservations]:
    """Return the reservations whose spools should have the bytes by now."""
    with _late_lock:
        return [group for group in _late if group.is_overdue]
