"""The spool plugin: a ledger that keeps billed replies on disk until the caller has the images."""

from __future__ import annotations

import time
from pathlib import Path

from imgkit.billing.spool import MAX_AGE_S, MAX_BYTES, Spool
from imgkit.billing.spool_record import SpoolRecord
from imgkit.errors import (
    ApiError,
    ConfigurationError,
    EmptyResultError,
    JobPendingError,
    OutcomeUnknownError,
    SaveError,
    StreamError,
    UnreadableReplyError,
)
from imgkit.files import is_private
from imgkit.models import ImageRequest, ImagesResponse, resolve_model, sent_parameters
from imgkit.plugins.events import Call
from imgkit.plugins.hookspecs import ServiceSettings, hookimpl
from imgkit.wire.messages import Head

FOLDER = "spool"
"""Name of the spool's folder in the state folder."""

CHECK_S = 0.2
"""Seconds for which a check of the folder holds."""

_REASONS = {
    OutcomeUnknownError: "the connection broke in the middle of the reply",
    UnreadableReplyError: "no image could be read from the reply",
    EmptyResultError: "the reply had no images",
    StreamError: "the stream ended before its image was complete",
    SaveError: "the images could not be saved",
    JobPendingError: "its job is pending",
    ApiError: "the API reported an error during the stream",
}


class SpoolPlugin:
    """Writes success replies to the state folder while they arrive, and removes them after delivery.

    Every service with a state folder has this plugin. It does not keep replies of the offline backend,
    which cost nothing.

    Args:
        max_bytes: maximum size of all kept replies. When they have reached it, calls fail before anything is
            sent, until ``imgkit recover`` has made room.
        max_age_s: age in seconds above which a recovered reply is deleted. Other replies stay.

    Example:
        ::

            plugin = SpoolPlugin(max_age_s=7 * 24 * 3600)
            with ImageService("requests", state_folder="~/.imgkit", plugins=[plugin]) as service:
                service.create_image("a fox")
    """

    def __init__(self, *, max_bytes: int = MAX_BYTES, max_age_s: float = MAX_AGE_S) -> None:
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s

    @hookimpl
    def imgkit_ledger(self, settings: ServiceSettings) -> SpoolLedger | None:
        """Return the ledger, None for a service that has no state folder or costs nothing."""
        if settings.state_folder is None or settings.host_class == "offline":
            return None
        spool = open_spool(settings.state_folder, max_bytes=self._max_bytes, max_age_s=self._max_age_s)
        return SpoolLedger(spool, settings.model)


def open_spool(state_folder: Path, *, max_bytes: int = MAX_BYTES, max_age_s: float = MAX_AGE_S) -> Spool:
    """Return the spool in a state folder, whose limits are `max_bytes` and `max_age_s`.

    Raises:
        ConfigurationError: other users may write to the spool.
    """
    _check_private(state_folder / FOLDER)
    return Spool(state_folder / FOLDER, max_bytes=max_bytes, max_age_s=max_age_s)


def _check_private(folder: Path) -> None:
    """Raise an error if other users may write to a spool."""
    if not is_private(folder):
        raise ConfigurationError(
            f"Other users can write to {str(folder)!r}, or own it or its parent, so it is unsafe as a spool. "
            f"Run `chmod 700 {str(folder)!r}` as its owner, or set another state folder (IMGKIT_HOME).",
            field="state_folder",
        )


class SpoolLedger:
    """An `imgkit.plugins.Ledger` that writes records to a spool.

    Args:
        spool: the spool for the records.
        model: the model of requests that name none.
    """

    def __init__(self, spool: Spool, model: str | None) -> None:
        self._spool = spool
        self._model = model
        self._check_at = 0.0

    @property
    def reserve_may_block(self) -> bool:
        """Whether `reserve` asks the disk: it has not done so within `CHECK_S` seconds."""
        return time.monotonic() >= self._check_at

    def reserve(self, request: ImageRequest, call: Call, attempt: int) -> SpoolReservation:
        """Return the reservation of an attempt; it writes nothing before the reply arrives.

        Raises:
            ConfigurationError: other users may write to the spool by now; or it is full, so a reply that
                is paid for might be lost.
        """
        if self.reserve_may_block:
            self._check()
        facts = {
            "call_id": call.id,
            "attempt": attempt,
            "operation": call.operation,
            "backend": call.backend,
            "provider": call.provider,
            "base_url": call.base_url,
            "host_class": call.host_class,
            "prompt": getattr(request, "prompt", None),
            "model": resolve_model(request, self._model),
            "parameters": sent_parameters(request),
        }
        return SpoolReservation(self._spool, f"{call.id[:12]}-{attempt}", facts)

    def _check(self) -> None:
        _check_private(self._spool.folder)
        try:
            is_full = self._spool.is_full()
        except OSError:
            is_full = False  # `begin` warns of a folder that cannot be used
        if is_full:
            raise ConfigurationError(
                f"The folder {str(self._spool.folder)!r} is full of replies that were paid for and not "
                "delivered. Nothing was sent, because another such reply might be lost. "
                "Run `imgkit recover`, then `imgkit recover --drop ID` for each reply that stays."
            )
        self._check_at = time.monotonic() + CHECK_S

    def find_kept(self, attempt: str) -> list[Path]:
        """Return the folders of the replies to an attempt, as `imgkit.plugins.ReplyKeeper` says."""
        call_id, _, number = attempt.rpartition("-")
        records = self._spool.find_replies(f"{call_id[:12]}-{number}")
        return [record.folder for record in records if record.facts.get("call_id", call_id) == call_id]


class SpoolReservation:
    """An `imgkit.plugins.Reservation` that writes a record."""

    spools = True

    def __init__(self, spool: Spool, name: str, facts: dict[str, object]) -> None:
        self._spool = spool
        self._name = name
        self._facts = facts
        self._record: SpoolRecord | None = None

    @property
    def settle_may_block(self) -> bool:
        """Whether `settle` asks the disk: there is a record."""
        return self._record is not None

    def begin(self, head: Head) -> None:
        """Create the record.

        Raises:
            SaveError: The disk rejects it; the call continues without a record.
        """
        try:
            facts = {**self._facts, "status": head.status, "request_id": head.request_id}
            self._record = self._spool.new(self._name, facts)
        except OSError as error:
            raise self._to_save_error("The reply is not kept on disk", error) from None

    def write(self, part: str, data: bytes) -> None:
        """Write a chunk of the reply."""
        if self._record is not None:
            try:
                self._record.write(part, data)
            except OSError as error:
                raise self._to_save_error("Only a part of the reply is kept on disk", error) from None

    def share(self, part: str, path: str) -> bool:
        """Link to the file of an image, as `imgkit.plugins.SharingReservation` says."""
        return self._record is not None and self._record.share(part, path)

    def complete(self) -> None:
        """Record the end of the reply, and flush it where the call will take time to deliver it."""
        if self._record is not None:
            try:
                self._record.complete()
            except OSError as error:
                raise self._to_save_error("The reply may not be safe on disk", error) from None

    def settle(self, response: ImagesResponse | None) -> None:
        """Remove the record: the caller has the images, or the attempt cost nothing."""
        record, self._record = self._record, None
        if record is not None:
            try:
                record.remove()
            except OSError as error:
                raise self._to_save_error(f"Cannot remove {str(record.folder)!r}", error) from None

    def keep(self, error: BaseException, response: ImagesResponse | None) -> str | None:
        """Keep the record for ``imgkit recover``, and return the path of its folder."""
        record, self._record = self._record, None
        if record is None:
            return None
        reason = next(
            (text for kind, text in _REASONS.items() if isinstance(error, kind)), "the call was cancelled"
        )
        try:
            record.keep(reason)
        except OSError:
            pass  # the record is on disk; only the reason is missing
        return str(record.folder)

    def close(self) -> None:
        """Remove the record of an attempt without a reply."""
        self.settle(None)

    def _to_save_error(self, problem: str, error: OSError) -> SaveError:
        self.spools = False
        return SaveError(
            f"{problem} ({error.strerror or error}). Free disk space, or set another state folder "
            "(IMGKIT_HOME). The call itself continues."
        )
