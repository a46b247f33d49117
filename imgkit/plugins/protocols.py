"""The protocols of blocking resources: cache stores, ledgers, recorders, sinks, guards.

A cache store keeps entries by key and grants a lease to one caller at a time (*single flight*). A ledger
reserves every attempt before it is sent: a budget or a spool. A recorder keeps requests and replies. A
sink receives every response. A guard may refuse a request before it is sent. imgkit calls all of them
where they may block.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from imgkit.models import ImageRequest, ImagesResponse
    from imgkit.plugins.events import Call
    from imgkit.wire.messages import Head, HttpRequest


@dataclass(frozen=True, slots=True)
class Entry:
    """A cache entry: one reply.

    Attributes:
        facts: JSON values of the reply without its images; no secret, no URL.
        pictures: the image files, as the server sent them.
        created_at: Unix time in seconds.
    """

    facts: Mapping[str, Any]
    pictures: tuple[bytes, ...] = field(repr=False)
    created_at: float


@dataclass(frozen=True, slots=True)
class Failure:
    """The error of a lease's holder, for the callers that waited for the lease.

    Attributes:
        error: name of the class in `imgkit.errors`.
        message: message of the error; it holds no secret.
        facts: those attributes of the error that are JSON values.
    """

    error: str
    message: str
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hit:
    """The store has the whole entry."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Lease:
    """The exclusive right to make an entry. It ends with `CacheStore.commit` or `CacheStore.abandon`.

    Attributes:
        key: key of the entry.
        holder: an id that no other lease ever has.
        store: the store that granted the lease.
        lost_attempt: the attempt that a dead process had marked as sent under this lease, "" for none. The
            holder is that of the dead process, so callers that wait for it learn of a failure.
    """

    key: str
    holder: str
    store: CacheStore = field(repr=False, compare=False)
    lost_attempt: str = ""

    def close(self) -> None:
        """Give the lease back without a failure. Idempotent; does nothing after a commit.

        The mark of a dead process stays for the next caller.
        """
        self.store.abandon(self)


@dataclass(frozen=True, slots=True)
class Busy:
    """Another caller has the lease. Ask again after a pause, with ``waited_for=holder``.

    Attributes:
        holder: id of that lease, "" if the store cannot tell it now.
        failure: the failure that ended the lease that the caller waited for.
    """

    holder: str
    failure: Failure | None = None


LeaseResult: TypeAlias = Hit | Lease | Busy


@runtime_checkable
class CacheStore(Protocol):
    """A store of cache entries. Methods may block for file access, never for the lease of another caller.

    imgkit calls them from any thread. A store for several processes keeps its promises across them.

    >>> from imgkit import MemoryStore
    >>> from imgkit.plugins import CacheStore
    >>> isinstance(MemoryStore(), CacheStore)
    True
    """

    def try_lease(self, key: str, *, newer_than: float | None = None, waited_for: str = "") -> LeaseResult:
        """Return the entry of a key, a lease to make it, or `Busy` while another caller has the lease.

        A truncated entry, or one without its digests, counts as missing. The lease of a dead process is
        free.

        Args:
            key: 64 hexadecimal digits.
            newer_than: ignore entries created at or before this Unix time in seconds.
            waited_for: the `Busy.holder` of the caller's previous call. If that lease was abandoned with a
                failure, and there is no entry, the result is ``Busy(waited_for, failure)`` for at least a
                minute, whatever has happened since.
        """

    def commit(self, lease: Lease, entry: Entry) -> None:
        """Store the entry in place of an older one, and end the lease.

        If it raises, `abandon` follows, with a failure for the callers that wait in other processes.
        """

    def abandon(self, lease: Lease, failure: Failure | None = None) -> None:
        """End the lease without an entry. Idempotent; does nothing after `commit`.

        Quick, since it may run while a call is being interrupted.

        Args:
            lease: the lease from `try_lease`.
            failure: the failure for waiting callers; None lets the next of them have the lease.
        """


@runtime_checkable
class SentMarks(Protocol):
    """A cache store whose leases outlive a killed process: they tell that its request was sent.

    Optional for a store that several processes share. Without it, an equal call pays again after the death
    of a process that had paid already.

    >>> from imgkit import MemoryStore
    >>> isinstance(MemoryStore(), SentMarks)
    False
    """

    def mark_sent(self, lease: Lease, attempt: str) -> None:
        """Mark a lease before its request is sent. `Lease.lost_attempt` shows the mark of a dead process.

        Args:
            lease: an open lease.
            attempt: name of the attempt, "" to remove the mark: nothing of it can be billed.
        """


@runtime_checkable
class ReplyKeeper(Protocol):
    """A ledger that keeps replies on disk, which other processes can find."""

    def find_kept(self, attempt: str) -> Sequence[Path]:
        """Return the folders of the replies to an attempt. Raises OSError.

        Args:
            attempt: the id of the call, a hyphen and the number of the attempt.
        """


@runtime_checkable
class JobLedger(Protocol):
    """A ledger whose reservations outlive the process with the job that they pay for. Optional.

    Without it, a reservation counts as spent once the process ends before the job.
    """

    def find_deferred(self, job_id: str) -> Reservation | None:
        """Return the reservation that a job carries, None for none.

        Args:
            job_id: the `Job.id` that `DeferrableReservation.defer` got.
        """


@runtime_checkable
class NonblockingLedger(Protocol):
    """A ledger that tells when it does not block. Optional: any other ledger may block at any time.

    imgkit then reserves without a turn of a thread.
    """

    @property
    def reserve_may_block(self) -> bool:
        """Whether `Ledger.reserve` may block now: for a file, a lock or a network. Quick."""


@runtime_checkable
class NonblockingReservation(Protocol):
    """A reservation that tells when it does not block. Optional: any other reservation may block."""

    @property
    def settle_may_block(self) -> bool:
        """Whether `Reservation.settle` may block now. Quick."""


@runtime_checkable
class DeferrableReservation(Protocol):
    """A reservation that a job can carry on to another process. Optional."""

    def defer(self, job_id: str) -> None:
        """Bind the reservation to an accepted job: only `Reservation.settle` or `keep` ends it now.

        Args:
            job_id: id of the job.
        """


@runtime_checkable
class SharingReservation(Protocol):
    """A reservation that keeps images of a reply without a copy of their bytes. Optional."""

    def share(self, part: str, path: str) -> bool:
        """Keep the file of an image that is arriving, for example by a hard link.

        imgkit appends the next bytes to the file, and calls `Reservation.write` for this part only if it
        cannot: the bytes follow those in the file.

        Args:
            part: "0", "1" … as for `Reservation.write`.
            path: the file, which imgkit renames when it saves the image, and removes otherwise.

        Returns:
            False if the reservation wants the bytes.
        """


@runtime_checkable
class Ledger(Protocol):
    """Keeps account of the attempts of a service: a budget, or a spool of replies.

    A reservation precedes every attempt. `Reservation.settle` ends it after delivery, or if nothing can have
    been billed. `Reservation.keep` ends it if an image may be paid for but was not delivered.
    """

    def reserve(self, request: ImageRequest, call: Call, attempt: int) -> Reservation:
        """Reserve one attempt.

        Args:
            request: the request after the `prepare` hooks.
            call: the call.
            attempt: number of the attempt within the call, from 1 on; parallel requests share the count.

        Raises:
            ImgkitError: the ledger refuses the attempt; nothing is sent.
        """


class Reservation(Protocol):
    """One attempt in one ledger. imgkit calls the methods in this order, one thread at a time.

    Attributes:
        spools: whether it keeps the reply (`begin`, `write`, `complete`).
    """

    spools: bool

    def begin(self, head: Head) -> None:
        """Record that a 2xx reply begins to arrive.

        Args:
            head: its status and headers.
        """

    def write(self, part: str, data: bytes) -> None:
        """Append bytes to a part of the reply.

        Args:
            part: "reply" for the text around the images; "0", "1" … for the decoded bytes of an image;
                "raw" for text behind a point that cannot be decoded.
            data: the bytes.
        """

    def complete(self) -> None:
        """Record the end of the reply. From now on it must survive the death of the process."""

    def settle(self, response: ImagesResponse | None) -> None:
        """End the reservation after delivery, or (None) if nothing can have been billed. Idempotent."""

    def keep(self, error: BaseException, response: ImagesResponse | None) -> str | None:
        """End the reservation of an attempt that may be billed but was not delivered. Idempotent.

        Quick, since it may run while a call is being interrupted.

        Args:
            error: the error or interruption that ends the call.
            response: the response, if it could be read.

        Returns:
            The path of the kept reply, None for none.
        """

    def close(self) -> None:
        """Give up a reservation for which nothing was sent. Idempotent."""


@dataclass(frozen=True, slots=True)
class Exchanged:
    """A request and its reply.

    Attributes:
        request: the request without the credentials in its headers.
        head: status and headers of the reply.
        reply: body of the reply, without a content encoding and without keys that the server repeated.
    """

    request: HttpRequest
    head: Head
    reply: bytes = field(repr=False)


@runtime_checkable
class Recorder(Protocol):
    """Keeps requests and replies. It may block; imgkit calls it from several threads."""

    def record(self, exchanged: Exchanged) -> None:
        """Keep a request and its reply. A failure costs a warning, never the reply.

        Args:
            exchanged: both, complete.
        """


@runtime_checkable
class Sink(Protocol):
    """Receives the response of every call: uploads it, indexes it, shows it. It may block.

    >>> from imgkit.plugins import Sink
    >>> class Printer:
    ...     def receive(self, response):
    ...         print(len(response.images), "image")
    >>> isinstance(Printer(), Sink)
    True
    """

    def receive(self, response: ImagesResponse) -> Iterable[str] | None:
        """Receive a response, after imgkit has saved its images. A failure costs a warning, never an image.

        Args:
            response: the response that the caller gets; images from the cache and merged parts included.

        Returns:
            Warnings for ``response.warnings``, or None.
        """


@runtime_checkable
class Guard(Protocol):
    """Decides before anything is sent whether a request may be sent, such as by moderation. It may block.

    >>> from imgkit.plugins import Guard
    >>> class NoFoxes:
    ...     def check(self, request, call):
    ...         if "fox" in request.prompt:
    ...             raise ValueError("no foxes here")
    >>> isinstance(NoFoxes(), Guard)
    True
    """

    def check(self, request: ImageRequest, call: Call) -> None:
        """Return if the request may be sent.

        Args:
            request: the request after the `prepare` hooks and the model's rules.
            call: the call.

        Raises:
            ImgkitError: the guard refuses the request; nothing is sent. Any other exception becomes a
                `PluginError`, and nothing is sent either.
        """
