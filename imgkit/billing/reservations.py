"""The ledger reservations of one attempt, as a group.

A ledger may refuse an attempt. After sending, a ledger that fails costs a warning and no image.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Self, TypeVar, TypeVarTuple

from imgkit.errors import ImgkitError, JobPendingError
from imgkit.plugins.table import PluginSource, call_plugin
from imgkit.wire.secret_filter import NO_SECRETS, SecretFilter

if TYPE_CHECKING:
    from imgkit.billing.shared_parts import SharedParts
    from imgkit.images.part_files import PartFile, PartFiles
    from imgkit.models import ImageRequest, ImagesResponse
    from imgkit.plugins.events import Call
    from imgkit.plugins.protocols import Ledger, Reservation
    from imgkit.plugins.resources import Resource
    from imgkit.wire.messages import Head
    from imgkit.wire.spool_filter import SpoolFilter

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")
HOOK = "imgkit_ledger"
_MEMBERS = ("spools", "settle", "keep", "close")


class ReservationGroup:
    """The reservations of one attempt in all ledgers of a service. Its methods may block.

    Attributes:
        sent: the backend has, or had, the request.
        problems: failures of ledgers after sending, for warnings; equal failures count once.
    """

    def __init__(self) -> None:
        self.sent = False
        self.problems: list[str] = []
        self._open: list[tuple[PluginSource, Reservation]] = []
        self._is_deferred = False
        self._has_images = False
        self._filter: SpoolFilter | None = None
        self._shared: SharedParts | None = None
        self._process: int | None = None  # a forked child ends nothing for its parent

    @property
    def is_open(self) -> bool:
        """Whether a reservation has not ended."""
        return bool(self._open)

    @property
    def write_may_block(self) -> bool:
        """Whether `begin`, `write` and `finish` may block now."""
        return True

    @property
    def settle_may_block(self) -> bool:
        """Whether `settle` may block now: a reservation may, or does not tell."""
        for source, reservation in self._open:
            if self._call_ledger(source, getattr, reservation, "settle_may_block", True) is not False:
                return True
        return False

    @property
    def wants_chunks(self) -> bool:
        """Whether a reservation keeps the chunks of a reply."""
        return any(True for _ in self._spools())

    def reserve(
        self, ledgers: Iterable[Resource[Ledger]], request: ImageRequest, call: Call, attempt: int
    ) -> None:
        """Reserve an attempt in all ledgers.

        Args:
            ledgers: the ledgers of the service.
            request: the request after the `prepare` hooks.
            call: the call.
            attempt: number of the attempt within the call, from 1 on; parallel attempts share the count.

        Raises:
            ImgkitError: a ledger refused or failed; the reservations made so far are closed.
        """
        self._process = os.getpid()
        try:
            for ledger in ledgers:
                reservation = call_plugin(ledger.origin, HOOK, ledger.thing.reserve, request, call, attempt)
                _check_reservation(ledger.origin, reservation)
                self._open.append((ledger.origin, reservation))
        except BaseException:
            self.close()
            raise

    @classmethod
    def adopt(cls, ledgers: Iterable[Resource[Ledger]], job_id: str) -> Self:
        """Return the reservations that a job of this or another process carries.

        Args:
            ledgers: the ledgers of the service.
            job_id: id of the job.
        """
        from imgkit.plugins.protocols import JobLedger  # only jobs need it

        group = cls()
        group._process = os.getpid()
        group.sent = group._is_deferred = True
        for ledger in ledgers:
            if isinstance(ledger.thing, JobLedger):
                found = group._call_ledger(ledger.origin, ledger.thing.find_deferred, job_id)
                if found is not None:
                    group._open.append((ledger.origin, found))
        return group

    def defer(self, job_id: str, *, keep_reply: bool = False) -> None:
        """Let the reservations outlive the process with an accepted job, where a ledger can do so.

        The others end: the job's record has all that they kept.

        Args:
            job_id: id of the job.
            keep_reply: the job has no record, so the reply is all that another process finds of it.
        """
        from imgkit.plugins.protocols import DeferrableReservation  # only jobs need it

        self._is_deferred = True
        still_open: list[tuple[PluginSource, Reservation]] = []
        for source, reservation in self._open:
            if isinstance(reservation, DeferrableReservation):
                self._call_ledger(source, reservation.defer, job_id)
                still_open.append((source, reservation))
            elif reservation.spools and not keep_reply:
                self._call_ledger(source, reservation.settle, None)
            else:
                still_open.append((source, reservation))
        self._open = still_open

    def leave(self) -> None:
        """Leave deferred reservations to their job; another process settles them."""
        from imgkit.plugins.protocols import DeferrableReservation  # only jobs need it

        error = JobPendingError("The job of this call is pending.")
        for source, reservation in self._take():
            if not isinstance(reservation, DeferrableReservation):
                self._call_ledger(source, _keep_reply, reservation, error, None)

    def begin(
        self, head: Head, secrets: SecretFilter = NO_SECRETS, part_files: PartFiles | None = None
    ) -> None:
        """Record that a 2xx reply begins to arrive.

        Args:
            head: its status and headers.
            secrets: removes from its text what nobody may keep.
            part_files: the files that its images arrive in. Spools may share them.
        """
        from imgkit.wire.spool_filter import SpoolFilter  # only spools load it

        self._filter = SpoolFilter(secrets)
        if part_files is not None:
            from imgkit.billing.shared_parts import SharedParts

            self._shared = SharedParts(part_files)
        for source, spool in self._spools():
            self._call_ledger(source, spool.begin, head)

    def write(self, chunks: Sequence[tuple[str, bytes]]) -> None:
        """Keep chunks of a reply: each is the name of its part, and its bytes."""
        self._write(chunks if self._filter is None else self._filter.clean(chunks))

    def _write(self, chunks: Sequence[tuple[str, bytes]]) -> None:
        shared = self._shared
        if shared is not None:
            shared.write(chunks, self._share)
        for part, data in chunks:
            self._has_images = self._has_images or part != "reply" or b'"url"' in data
            for source, spool in self._spools():
                if shared is None or not shared.is_shared(part, spool):
                    self._call_ledger(source, spool.write, part, data)

    def _share(self, part: str, file: PartFile) -> list[object]:
        """Let the spools that can do so share a part file; return them."""
        from imgkit.plugins.protocols import SharingReservation

        return [
            spool
            for source, spool in self._spools()
            if isinstance(spool, SharingReservation)
            and self._call_ledger(source, spool.share, part, str(file.path))
        ]

    def _write_rest(self) -> None:
        """Keep the text that the filter has held back."""
        if self._filter is not None:
            self._write(self._filter.close())

    def finish(self, chunks: Sequence[tuple[str, bytes]]) -> None:
        """Keep the last chunks of a reply and record its end."""
        self.write(chunks)
        self._write_rest()
        for source, spool in self._spools():
            self._call_ledger(source, spool.complete)

    def settle(self, response: ImagesResponse | None) -> None:
        """End the reservations: the caller has the images, or (None) the attempt cannot be billed."""
        for source, reservation in self._take():
            self._call_ledger(source, reservation.settle, response)

    def keep(self, error: BaseException, response: ImagesResponse | None = None) -> None:
        """End the reservations of an attempt that may be billed but was not delivered.

        ``error.spool_path`` and a note name the place where the reply is kept.
        """
        if self._process == os.getpid():
            self._write_rest()
        kept = [
            self._call_ledger(source, _keep_reply, reservation, error, response)
            for source, reservation in self._take()
        ]
        paths = [path for path in kept if path]
        if paths and hasattr(error, "spool_path"):
            error.spool_path = paths[0]
            command = "`imgkit recover` restores its images"
            if response is None and not self._has_images:
                command = "`imgkit recover --list` shows it"
            error.add_note(f"The received part is kept in {paths[0]}. {command}.")

    def abort(self, error: BaseException) -> None:
        """End the reservations of an interrupted call. Quick; does nothing after another end."""
        if self._is_deferred:
            self.leave()
        elif self.sent:
            self.keep(error)
        else:
            self.close()

    def close(self) -> None:
        """Give up reservations for which nothing was sent."""
        for source, reservation in self._take():
            self._call_ledger(source, reservation.close)

    def _spools(self) -> Iterator[tuple[PluginSource, Reservation]]:
        """Yield the reservations that keep the reply, each with its plugin."""
        for source, reservation in self._open:
            if self._call_ledger(source, getattr, reservation, "spools"):
                yield source, reservation

    def _take(self) -> list[tuple[PluginSource, Reservation]]:
        """Return the open reservations and forget them. A forked child gets none: it ends nothing."""
        ending, self._open = self._open, []
        return ending if self._process == os.getpid() else []

    def _call_ledger(
        self, source: PluginSource, method: Callable[[*Arguments], T], *arguments: *Arguments
    ) -> T | None:
        """Call a ledger after sending: its failure becomes a problem, since the images may be paid for."""
        try:
            return call_plugin(source, HOOK, method, *arguments)
        except ImgkitError as error:
            if str(error) not in self.problems:
                self.problems.append(str(error))
            return None


def reserve_may_block(ledgers: Iterable[Resource[Ledger]]) -> bool:
    """Return whether `ReservationGroup.reserve` may block now: a ledger may, or does not tell.

    Raises:
        PluginError: a ledger failed.
    """
    for source, ledger in ledgers:
        if call_plugin(source, HOOK, getattr, ledger, "reserve_may_block", True) is not False:
            return True
    return False


def _check_reservation(source: PluginSource, reservation: object) -> None:
    """Refuse an object that lacks members of a reservation before anything is sent.

    Raises:
        PluginError: the message names the members.
    """
    missing = [name for name in _MEMBERS if not call_plugin(source, HOOK, hasattr, reservation, name)]
    if missing:
        raise source.error(
            f" returned a {type(reservation).__name__} from reserve. It lacks {', '.join(missing)}. "
            f"Fix it, or {source.removal_hint}.",
            hook=HOOK,
        )


def _keep_reply(
    reservation: Reservation, error: BaseException, response: ImagesResponse | None
) -> str | None:
    """Keep a reply and return its path as text."""
    path = reservation.keep(error, response)
    return path if path is None else os.fsdecode(path)
