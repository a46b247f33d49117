"""What keeps account of what is paid for: the protocols of a ledger and its reservations.

A reservation is made before each sending. It ends with `Reservation.settle` once it is known what was
delivered, or that nothing can have been billed, and with `Reservation.keep` if something was, or may have
been, paid for and did not reach the caller. All of it may block, and runs outside the event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from imgkit.call import Call
    from imgkit.models import ImageRequest, ImagesResponse
    from imgkit.wire import Head


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
