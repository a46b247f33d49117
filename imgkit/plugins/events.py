"""Calls and their events, as plugins see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from imgkit.errors import ImgkitError
from imgkit.models import ImageRequest, ImagesResponse, Operation

if TYPE_CHECKING:
    from imgkit.jobs.job import Job
    from imgkit.models import HostClass
    from imgkit.wire.messages import HttpRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One use of an operation. It holds no secret.

    Attributes:
        id: imgkit's own id of the call, equal in all its events.
        operation: "create_image", "create_image_edit" or "create_image_variation".
        backend, provider: their names.
        base_url: root of the API. Credentials belong to its origin only.
        host_class: "official", "compatible" or "offline".
        timeout_s: seconds that the whole call may take.
        partial_images: number of partial images of a stream, None for a call without a stream.
        model: name of the model as the call began, None if the server chooses. A `prepare` hook may change
            it; `Started` has the request that is sent.
    """

    id: str
    operation: Operation
    backend: str
    provider: str
    base_url: str
    host_class: HostClass
    timeout_s: float
    partial_images: int | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of a failed attempt.

    Attributes:
        kind: "unsent" (no byte left), "refused" (the API declined to start), "failed" (the API reports its
            own failure), or "unknown" (an image may have been made and billed).
        error: the error that would end the call.
        number: number of failures of this kind in this call, this one included.
        attempts: number of attempts so far.
        elapsed_s: seconds since the first attempt.
        remaining_s: seconds until the call's deadline.
    """

    kind: Literal["unsent", "refused", "failed", "unknown"]
    error: ImgkitError
    number: int
    attempts: int
    elapsed_s: float
    remaining_s: float


@dataclass(frozen=True, slots=True)
class Started:
    """The request is valid, and imgkit is about to send it.

    Attributes:
        request: the request after the `prepare` hooks and the model's rules, before imgkit splits it. It
            names the model that is sent, and has no ``extra_headers`` and no secret members; its texts are
            those of the user. None only in events that a test makes.
    """

    request: ImageRequest | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Sent:
    """The backend gets a request.

    Attributes:
        request: the request without credentials.
        attempt: number of the attempt within the call, from 1 on.
    """

    request: HttpRequest
    attempt: int


@dataclass(frozen=True, slots=True)
class FirstByte:
    """The head of a reply has arrived.

    Attributes:
        status: HTTP status.
        headers: by lower-case name.
        elapsed_s: seconds since `Sent`.
    """

    status: int
    headers: Mapping[str, str]
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Progress:
    """A part of the reply has arrived.

    Attributes:
        received_bytes: bytes received so far.
        expected_bytes: the Content-Length, None without that header.
    """

    received_bytes: int
    expected_bytes: int | None


@dataclass(frozen=True, slots=True)
class Retrying:
    """imgkit will send the request again.

    Attributes:
        outcome: outcome of the failed attempt.
        wait_s: seconds until the next attempt.
    """

    outcome: Outcome
    wait_s: float


@dataclass(frozen=True, slots=True)
class JobProgress:
    """The provider has accepted the request as a job, or tells how far it is.

    Attributes:
        job: the job; None for the progress of a request whose reply is open.
        progress: fraction that is done, from 0 to 1, None if unknown.
        note: a word about the progress, such as "2 jobs ahead".
        wait_s: seconds until the next poll.
    """

    job: Job | None
    progress: float | None
    note: str
    wait_s: float


@dataclass(frozen=True, slots=True)
class CacheHit:
    """The cache has the images; nothing is sent.

    Attributes:
        key: key of the entry, 64 hexadecimal digits.
        age_s: age of the entry in seconds.
    """

    key: str
    age_s: float


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The call has its images."""

    response: ImagesResponse


@dataclass(frozen=True, slots=True)
class Failed:
    """The call ends with an error.

    Attributes:
        error: the error that the caller gets.
        shared: the error was produced by a concurrent identical call; this call sent nothing.
    """

    error: Exception
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The call was interrupted: by a cancelled task, Ctrl-C, or a bug.

    Attributes:
        maybe_billed: the backend has a request whose outcome is unknown.
    """

    maybe_billed: bool


Event = (
    Started | Sent | FirstByte | Progress | Retrying | JobProgress | CacheHit | Succeeded | Failed | Cancelled
)
