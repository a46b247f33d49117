"""The spool as a plugin: a ledger that keeps what was paid for until it is delivered."""

from __future__ import annotations

from pathlib import Path

from imgkit.billing.spool import MAX_AGE_S, MAX_BYTES, Spool, SpoolRecord
from imgkit.errors import (
    ApiError,
    EmptyResultError,
    OutcomeUnknownError,
    SaveError,
    StreamError,
    UnreadableReplyError,
)
from imgkit.models import ImageRequest, ImagesResponse, sent_parameters
from imgkit.plugins.events import Call
from imgkit.plugins.hookspecs import ServiceSettings, hookimpl
from imgkit.wire.messages import Head

FOLDER = "spool"
"""The folder of the spool in the state folder."""

_WHY = {
    OutcomeUnknownError: "the connection broke in the middle of the reply",
    UnreadableReplyError: "no picture could be read from the reply",
    EmptyResultError: "the reply had no pictures",
    StreamError: "the stream ended before its picture was complete",
    SaveError: "the pictures could not be saved",
    ApiError: "the API reported an error in the midst of the stream",
}


class SpoolPlugin:
    """Writes success replies to the state folder while they arrive, and removes them once delivered.

    It is among the plugins of every service that has a state folder. Replies of the offline backend cost
    nothing and are not kept.

    Args:
        max_bytes: the oldest replies are dropped when all that are kept hold more.
        max_age_s: older ones are dropped.
    """

    def __init__(self, *, max_bytes: int = MAX_BYTES, max_age_s: float = MAX_AGE_S) -> None:
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s

    @hookimpl
    def imgkit_ledger(self, settings: ServiceSettings) -> SpoolLedger | None:
        """Return the ledger, None for a service without a state folder or without costs."""
        if settings.state_folder is None or settings.host_class == "offline":
            return None
        spool = spool_in(settings.state_folder, max_bytes=self._max_bytes, max_age_s=self._max_age_s)
        return SpoolLedger(spool, settings.model)


def spool_in(state_folder: Path, *, max_bytes: int = MAX_BYTES, max_age_s: float = MAX_AGE_S) -> Spool:
    """Return the spool of a state folder."""
    return Spool(state_folder / FOLDER, max_bytes=max_bytes, max_age_s=max_age_s)


class SpoolLedger:
    """A `imgkit.plugins.protocols.Ledger` that writes records.

    Args:
        spool: where to.
        model: used where a request names none.
    """

    def __init__(self, spool: Spool, model: str | None) -> None:
        self._spool = spool
        self._model = model

    def reserve(self, request: ImageRequest, call: Call, attempt: int) -> SpoolReservation:
        """Return what writes the reply of one sending; nothing is written before it comes."""
        facts = {
            "call_id": call.id,
            "attempt": attempt,
            "operation": call.operation,
            "backend": call.backend,
            "provider": call.provider,
            "base_url": call.base_url,
            "host_class": call.host_class,
            "prompt": getattr(request, "prompt", None),
            "model": request.model or self._model,
            "parameters": sent_parameters(request),
        }
        return SpoolReservation(self._spool, f"{call.id[:12]}-{attempt}", facts)


class SpoolReservation:
    """A `imgkit.plugins.protocols.Reservation` that writes one record."""

    spools = True

    def __init__(self, spool: Spool, name: str, facts: dict[str, object]) -> None:
        self._spool = spool
        self._name = name
        self._facts = facts
        self._record: SpoolRecord | None = None

    def begin(self, head: Head) -> None:
        """Begin the record."""
        try:
            facts = {**self._facts, "status": head.status, "request_id": head.request_id}
            self._record = self._spool.new(self._name, facts)
        except OSError as error:
            raise self._failed("the reply is not kept on disk while it arrives", error) from None

    def write(self, part: str, data: bytes) -> None:
        """Write what has arrived."""
        if self._record is not None:
            try:
                self._record.write(part, data)
            except OSError as error:
                raise self._failed("not all of the reply is kept on disk", error) from None

    def complete(self) -> None:
        """Have the disk take it."""
        if self._record is not None:
            try:
                self._record.sync()
            except OSError as error:
                raise self._failed("the reply may not be safe on disk", error) from None

    def settle(self, response: ImagesResponse | None) -> None:
        """Remove the record: it was delivered, or nothing was paid for."""
        record, self._record = self._record, None
        if record is not None:
            try:
                record.remove()
            except OSError as error:
                raise self._failed(f"{str(record.folder)!r} cannot be removed", error) from None

    def keep(self, error: BaseException, response: ImagesResponse | None) -> str | None:
        """Leave the record for ``imgkit recover``, and say where it is."""
        record, self._record = self._record, None
        if record is None:
            return None
        why = next(
            (text for kind, text in _WHY.items() if isinstance(error, kind)), "the call was broken off"
        )
        try:
            record.keep(why)
        except OSError:
            return str(record.folder)  # it is there even so; only the reason is missing
        return str(record.folder)

    def close(self) -> None:
        """Give it up."""
        self.settle(None)

    def _failed(self, what: str, error: OSError) -> SaveError:
        self.spools = False
        return SaveError(
            f"{what} ({error.strerror or error}): make room or give another state_folder (IMGKIT_HOME); "
            "the call itself goes on"
        )
