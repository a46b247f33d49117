"""Reservations that keep a reply in memory for a moment: most clients have it before a spool needs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from imgkit.billing.reservations import ReservationGroup
from imgkit.server.reply_memory import MAX_REPLY_BYTES, ReplyMemory, ReplyPartFiles
from imgkit.wire.secret_filter import NO_SECRETS, SecretFilter

if TYPE_CHECKING:
    from imgkit.images.part_files import PartFiles
    from imgkit.models import ImagesResponse
    from imgkit.wire.messages import Head

LATE_S = 0.25
"""Seconds after the head of a reply from which on the spools have its bytes."""


class LateReservations(ReservationGroup):
    """Reservations whose spools get a reply only if it takes longer than a moment, or fails.

    A killed process loses the last moment of a reply, and a reply that is delivered costs no disk. A spool
    also gets the bytes once the memory of the replies is full.

    Args:
        late_replies: finds the reservations once they are overdue.
    """

    def __init__(self, late_replies: LateReplies) -> None:
        super().__init__()
        self._late_replies = late_replies
        self._guard = threading.RLock()
        self._begin: Callable[[], None] | None = None
        self._held: list[tuple[str, bytes]] = []
        self._held_bytes = 0
        self._is_complete = False
        self._due_at = 0.0
        self._memory: ReplyMemory | None = None

    @property
    def write_may_block(self) -> bool:
        """Whether `begin`, `write` and `finish` may block now: the spools get the bytes."""
        return self._due_at != 0.0 and (self._begin is None or self._is_due)

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
        self._late_replies.add(self)

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
            self._late_replies.remove(self)
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
            self._late_replies.remove(self)
            super().settle(response)

    def leave(self) -> None:
        """Leave the reservations to another process."""
        self._late_replies.remove(self)
        super().leave()

    def close(self) -> None:
        """End the reservations of an attempt that was not sent."""
        self._late_replies.remove(self)
        super().close()

    @property
    def _is_due(self) -> bool:
        is_full = self._held_bytes > MAX_REPLY_BYTES or (self._memory is not None and self._memory.is_full)
        return is_full or time.monotonic() >= self._due_at

    def _hold(self, chunks: Sequence[tuple[str, bytes]]) -> None:
        self._held += chunks
        self._held_bytes += sum(len(data) for _, data in chunks)


class LateReplies:
    """The replies of a server that its spools do not have yet. Its methods are quick and thread-safe.

    >>> LateReplies().list_overdue()
    []
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._late: set[LateReservations] = set()

    def new_reservations(self) -> LateReservations:
        """Return the reservations of an attempt."""
        return LateReservations(self)

    def add(self, reservations: LateReservations) -> None:
        """Add reservations that hold a reply."""
        with self._guard:
            self._late.add(reservations)

    def remove(self, reservations: LateReservations) -> None:
        """Forget reservations, if they are known: they have ended, or their spools have the reply."""
        with self._guard:
            self._late.discard(reservations)

    def list_overdue(self) -> list[LateReservations]:
        """Return the reservations whose spools should have the bytes by now."""
        with self._guard:
            return [reservations for reservations in self._late if reservations.is_overdue]
