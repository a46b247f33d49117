"""One use of an operation, as plugins see it, and what happens in its course."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from imgkit.errors import ImgkitError
from imgkit.models import ImagesResponse, Operation

if TYPE_CHECKING:
    from imgkit.models import HostClass
    from imgkit.wire.messages import HttpRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call, without any secret in it.

    Attributes:
        id: imgkit's own id of the call, the same in all its events.
        operation: "create_image", "create_image_edit" or "create_image_variation".
        backend, provider: names of what the service was built with.
        base_url: where the API is; credentials belong to this origin only.
        host_class: "official", "compatible" or "offline".
        timeout_s: total seconds that the call may take.
        partial_images: how many partial pictures a stream asks for; None for a call that is no stream.
    """

    id: str
    operation: Operation
    backend: str
    provider: str
    base_url: str
    host_class: HostClass
    timeout_s: float
    partial_images: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is known of a sending that failed.

    Attributes:
        kind: "unsent" (nothing left), "refused" (the API answered before doing anything), "failed" (the
            API itself reports that it failed), or "unknown" (a picture may have been made and billed).
        error: what the call would end with.
        number: how many times a failure of this kind has been met in this call, this one included.
        attempts: how many times the request has been sent, or tried to be.
        elapsed_s: seconds since the first of them.
        remaining_s: seconds left until the call's deadline.
    """

    kind: Literal["unsent", "refused", "failed", "unknown"]
    error: ImgkitError
    number: int
    attempts: int
    elapsed_s: float
    remaining_s: float


@dataclass(frozen=True, slots=True)
class Started:
    """The request is valid and about to be sent."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request is handed to the backend.

    Attributes:
        request: without credentials.
        attempt: number of the sending within the call, from 1 on.
    """

    request: HttpRequest
    attempt: int


@dataclass(frozen=True, slots=True)
class FirstByte:
    """The head of a reply is there.

    Attributes:
        status: HTTP status.
        headers: by lower-case name.
        elapsed_s: seconds since the request was handed over.
    """

    status: int
    headers: Mapping[str, str]
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Progress:
    """A part of the reply has arrived.

    Attributes:
        received_bytes: so far.
        expected_bytes: by Content-Length, None if the server does not say.
    """

    received_bytes: int
    expected_bytes: int | None


@dataclass(frozen=True, slots=True)
class Retrying:
    """The request will be sent again.

    Attributes:
        outcome: of the sending before.
        wait_s: seconds until then.
    """

    outcome: Outcome
    wait_s: float


@dataclass(frozen=True, slots=True)
class CacheHit:
    """The pictures are in the cache: nothing will be sent.

    Attributes:
        key: of the entry, 64 hexadecimal digits.
        age_s: seconds since it was made.
    """

    key: str
    age_s: float


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The call has its pictures."""

    response: ImagesResponse


@dataclass(frozen=True, slots=True)
class Failed:
    """The call ends with this error.

    Attributes:
        error: what the caller gets.
        shared: it is that of another call with an equal request, which this one waited for; this one has
            sent nothing.
    """

    error: Exception
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The call was broken off: a cancelled task, Ctrl-C, or a bug.

    Attributes:
        maybe_billed: a request had been handed to the backend, and its outcome is unknown.
    """

    maybe_billed: bool


Event = Started | Sent | FirstByte | Progress | Retrying | CacheHit | Succeeded | Failed | Cancelled
