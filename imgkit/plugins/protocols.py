"""What a cache of replies is: the words, and the protocol that a store implements.

A store keeps entries by key and lets one caller at a time make the entry of a key (*single flight*). How a
call uses it is in `imgkit.core.cached_send`; stores that imgkit brings along are in `imgkit.cache`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from imgkit.models import ImageRequest, ImagesResponse
    from imgkit.plugins.events import Call
    from imgkit.wire.messages import Head, HttpRequest


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept of one reply.

    Attributes:
        facts: JSON values: everything but the pictures; no secret, no URL.
        pictures: the files, as the server sent them.
        created_at: Unix time in seconds.
    """

    facts: Mapping[str, Any]
    pictures: tuple[bytes, ...] = field(repr=False)
    created_at: float


@dataclass(frozen=True, slots=True)
class Failure:
    """How the holder of a lease ended without an entry, for those who waited for it.

    Attributes:
        error: name of the class in `imgkit.errors`.
        message: of the error; no secret in it.
        facts: its attributes, as far as they are JSON values.
    """

    error: str
    message: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hit:
    """The entry is there, whole."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Lease:
    """The caller, and nobody else, is to make the entry: then `CacheStore.commit`, or `CacheStore.abandon`.

    Attributes:
        key: of the entry.
        holder: an id that no other lease ever has.
        store: which gave it.
    """

    key: str
    holder: str
    store: CacheStore = field(repr=False, compare=False)

    def close(self) -> None:
        """Give the lease back without a word. Idempotent, and nothing after a commit."""
        self.store.abandon(self)


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody else is making the entry: ask again after a while, with ``waited_for=holder``.

    Attributes:
        holder: id of that lease, "" where it cannot be told just now.
        failure: the lease that the caller waited for has ended so, without an entry.
    """

    holder: str
    failure: Failure | None = None


LeaseResult: TypeAlias = Hit | Lease | Busy


@runtime_checkable
class CacheStore(Protocol):
    """Where entries are kept. Methods may block for as long as a file takes, never for a lease of another.

    They are called from any thread. A store that is used by several processes keeps its promises between
    them too.
    """

    def try_lease(self, key: str, *, newer_than: float | None = None, waited_for: str = "") -> LeaseResult:
        """Return the entry of `key`, or the right to make it, or that somebody else is at it.

        An entry that is not whole, or does not have its digests, is none. The lease of a holder that has
        died is free.

        Args:
            key: 64 hexadecimal digits.
            newer_than: entries created at or before this Unix time in seconds do not count.
            waited_for: the `Busy.holder` of this caller's previous question. If that lease was abandoned
                with a failure, the answer is ``Busy(waited_for, failure)`` for at least a minute, whatever
                has happened since, unless there is an entry now.
        """

    def commit(self, lease: Lease, entry: Entry) -> None:
        """Keep the entry in place of any older one, and end the lease."""

    def abandon(self, lease: Lease, failure: Failure | None = None) -> None:
        """End the lease without an entry. Idempotent; nothing after `commit`. Quick, since it may run while
        a call is being broken off.

        Args:
            lease: as `try_lease` gave it.
            failure: what those who wait are told; None if they may go on as if nothing had been.
        """


@runtime_checkable
class Ledger(Protocol):
    """Keeps account of the calls of a service: a spool of replies, a budget."""

    def reserve(self, request: ImageRequest, call: Call, attempt: int) -> Reservation:
        """Return a reservation for one sending.

        Args:
            request: what is asked for.
            call: the call.
            attempt: number of the sending within the call, from 1 on, also where requests run together.

        Raises:
            ImgkitError: nothing may be sent.
        """


class Reservation(Protocol):
    """One sending, in one ledger. Methods are called in this order, from one thread at a time.

    Attributes:
        spools: whether it wants to be told what arrives (`begin`, `write`, `complete`).
    """

    spools: bool

    def begin(self, head: Head) -> None:
        """A success reply begins to arrive.

        Args:
            head: its status and headers.
        """

    def write(self, part: str, data: bytes) -> None:
        """Keep what has arrived, behind what this part has already.

        Args:
            part: "reply" for the text around the pictures, "0", "1" … for the decoded bytes of a picture,
                "raw" for the text from a point on that cannot be decoded.
            data: the bytes.
        """

    def complete(self) -> None:
        """No more of the reply will come. From here on it must survive whatever happens to the process."""

    def settle(self, response: ImagesResponse | None) -> None:
        """The pictures have reached the caller, or (None) nothing can have been billed. Idempotent."""

    def keep(self, error: BaseException, response: ImagesResponse | None) -> str | None:
        """Something was, or may have been, paid for and has not reached the caller. Idempotent.

        Quick, since it may run while a call is being broken off.

        Args:
            error: how the call ends.
            response: the reply where it could be read.

        Returns:
            The path where it is kept, None if there is nothing.
        """

    def close(self) -> None:
        """Give up a reservation that was neither settled nor kept: nothing was sent. Idempotent."""


@dataclass(frozen=True, slots=True)
class Exchanged:
    """A request and its answer.

    Attributes:
        request: as it was sent, but for its credentials.
        head: status and headers of the answer.
        reply: the body of the answer, without a content encoding; keys that the server repeats are taken out.
    """

    request: HttpRequest
    head: Head
    reply: bytes


@runtime_checkable
class Recorder(Protocol):
    """Keeps what goes over the wire. It may block; it is called from several threads."""

    def record(self, exchanged: Exchanged) -> None:
        """Keep a request and its answer; a failure costs a warning and no reply.

        Args:
            exchanged: both, complete.
        """
