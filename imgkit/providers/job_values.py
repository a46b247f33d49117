"""The values of providers that work on jobs, and of those that want uploads first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from imgkit.models import Cost
from imgkit.wire.messages import HttpRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class JobUpdate:
    """The news of a job that is not finished: the provider accepted it, or is still at work.

    Attributes:
        state: JSON values that `JobProvider.poll` needs, such as the id of the task and its address. They
            outlive the process and must hold no secret.
        poll_after_s: seconds to wait before the next poll; 0 for another step at once, None for imgkit's
            own growing pauses.
        progress: fraction that is done, from 0 to 1, None if unknown.
        note: a word about the progress, such as "2 jobs ahead".
        preview: bytes of an unfinished image.
        cost: the cost, if the provider announces it.
        expires_at: Unix time in seconds from which the result is gone.

    Example:
        >>> JobUpdate(state={"task": "t-9"}).poll_after_s is None
        True
    """

    state: Mapping[str, Any]
    poll_after_s: float | None = None
    progress: float | None = None
    note: str = ""
    preview: bytes | None = None
    cost: Cost | None = None
    expires_at: float | None = None


class Upload(NamedTuple):
    """An input that the API wants before the request itself.

    Attributes:
        name: name of its handle in `OpenedInputs.uploads`, such as "image.0".
        request: the request that uploads it, without credentials, to the API's own origin.
        digest: digest of all that the handle depends on: a service uploads equal inputs once. "" uploads it
            each time.
    """

    name: str
    request: HttpRequest
    digest: str = ""
