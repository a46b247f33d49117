"""One sending in all the ledgers of a service, as one.

A ledger may refuse a sending. Once something is paid for, a ledger that fails costs a warning and no picture.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

from imgkit.errors import ImgkitError
from imgkit.plugins.table import PluginSource, call_plugin

if TYPE_CHECKING:
    from imgkit.models import ImageRequest, ImagesResponse
    from imgkit.plugins.events import Call
    from imgkit.plugins.protocols import Reservation
    from imgkit.plugins.resources import Resource
    from imgkit.wire.messages import Head

HOOK = "imgkit_ledger"


class ReservationGroup:
    """The reservations of one sending. Its methods may block.

    Attributes:
        sent: the request is, or has been, with the backend.
        problems: what ledgers failed at since then, for the caller to know.
    """

    def __init__(self) -> None:
        self.sent = False
        self.problems: list[str] = []
        self._open: list[tuple[PluginSource, Reservation]] = []
        self._process: int | None = None  # that reserved; a forked child ends nothing for its parent

    @property
    def running(self) -> bool:
        """Whether there are reservations that have not ended."""
        return bool(self._open)

    @property
    def spools(self) -> bool:
        """Whether any of them wants to be told what arrives."""
        return any(one.spools for _, one in self._open)

    @classmethod
    def reserve(cls, ledgers: Iterable[Resource], request: ImageRequest, call: Call, attempt: int) -> Self:
        """Return the account of one sending.

        Args:
            ledgers: of the service.
            request: what is asked for.
            call: the call.
            attempt: number of the sending within the call, from 1 on, also where requests run together.

        Raises:
            ImgkitError: a ledger refuses, or fails; what the others had reserved is given up.
        """
        account = cls()
        account._process = os.getpid()
        try:
            for ledger in ledgers:
                reservation = call_plugin(ledger.origin, HOOK, ledger.thing.reserve, request, call, attempt)
                account._open.append((ledger.origin, reservation))
        except BaseException:
            account.close()
            raise
        return account

    def begin(self, head: Head) -> None:
        """A success reply begins to arrive."""
        self._tell_spools("begin", head)

    def write(self, news: Sequence[tuple[str, bytes]]) -> None:
        """Keep what has arrived, as `imgkit.wire.json_body` tells it."""
        for part, data in news:
            self._tell_spools("write", part, data)

    def finish(self, news: Sequence[tuple[str, bytes]]) -> None:
        """The last of the reply has arrived."""
        self.write(news)
        self._tell_spools("complete")

    def settle(self, response: ImagesResponse | None) -> None:
        """The pictures have reached the caller, or (None) nothing can have been billed."""
        self._end("settle", response)

    def keep(self, error: BaseException, response: ImagesResponse | None = None) -> None:
        """Something was, or may have been, paid for and has not reached the caller.

        Where it is kept is said in ``error.spool_path`` and in a note.
        """
        paths = [path for path in self._end("keep", error, response) if path]
        if paths and hasattr(error, "spool_path"):
            error.spool_path = paths[0]
            error.add_note(f"what arrived is kept in {paths[0]}: `imgkit recover` makes pictures of it")

    def break_off(self, error: BaseException) -> None:
        """The call ends in its midst; quick, and silent if it has ended before."""
        if self.sent:
            self.keep(error)
        else:
            self.close()

    def close(self) -> None:
        """Nothing was sent, and nothing will be."""
        self._end("close")

    def _tell_spools(self, what: str, *arguments: Any) -> None:
        for origin, reservation in self._open:
            if reservation.spools:
                self._attempt(origin, getattr(reservation, what), *arguments)

    def _end(self, what: str, *arguments: Any) -> list[Any]:
        ending, self._open = self._open, []
        if ending and self._process != os.getpid():
            return []
        return [self._attempt(origin, getattr(one, what), *arguments) for origin, one in ending]

    def _attempt(self, origin: PluginSource, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method where something may be paid for already: a failure is only told."""
        try:
            return call_plugin(origin, HOOK, method, *arguments)
        except ImgkitError as error:
            self.problems.append(str(error))
            return None
