"""One use of an operation, as plugins see it, and what happens in its course."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imgkit.models import ImagesResponse, Operation

if TYPE_CHECKING:
    from imgkit.providers.base import HostClass
    from imgkit.wire import HttpRequest


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
    """

    id: str
    operation: Operation
    backend: str
    provider: str
    base_url: str
    host_class: HostClass
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Started:
    """The request is valid and about to be sent."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request is handed to the backend.

    Attributes:
        request: without credentials.
        attempt: 1 for the first.
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
class Succeeded:
    """The call has its pictures."""

    response: ImagesResponse


@dataclass(frozen=True, slots=True)
class Failed:
    """The call ends with this error."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The call was broken off: a cancelled task, Ctrl-C, or a bug.

    Attributes:
        maybe_billed: a request had been handed to the backend, and its outcome is unknown.
    """

    maybe_billed: bool


Event = Started | Sent | FirstByte | Progress | Succeeded | Failed | Cancelled
