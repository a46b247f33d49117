"""The job: the envelope that survives the process, with the state that its provider needs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self, TypeAlias

from imgkit.errors import ConfigurationError
from imgkit.wire.urls import origin

VERSION = 1
"""Version of the envelope. A job of a later version is refused."""

MAX_STATE_BYTES = 256 * 1024
"""Largest state of a provider as JSON: it holds ids and addresses, no images."""

LATEST_S = 1e11
"""Largest Unix time of a job: a later time is damage, as NaN is."""

Phase: TypeAlias = Literal["sending", "accepted", "ready", "cancelled"]
"""``sending``: the reply to the submit is not known. ``ready``: the provider has the images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Work that a provider has accepted, with all that another process needs to collect its images.

    It holds no secret. `to_json` and `from_json` carry it through any store.

    Example:
        >>> job = Job(id="c1-0", provider="acme", base_url="https://api.acme.example/v1",
        ...     operation="create_image", state={"task": "t-9"})
        >>> Job.from_json(job.to_json()) == job
        True

    Attributes:
        id: imgkit's own id of the job.
        provider: name of the provider that accepted it.
        base_url: root of the API.
        operation: "create_image", "create_image_edit" or "create_image_variation".
        phase: how far the job is.
        call_id: imgkit's id of the call.
        part: number of the job among those of its call, from 0.
        first_index: number of images that the jobs before it make.
        images: number of images that the job makes.
        images_of_call: number of images that the whole call asked for.
        submitted_at: Unix time in seconds of the submit.
        expires_at: Unix time in seconds from which the provider may have forgotten the result, None if it
            does not tell.
        cost, currency: the cost as the provider announced it, None if it did not.
        request_id: the API's id of the submit.
        idempotency_key: key under which the provider runs the job once, None for none.
        request_sha256: digest of the submitted body.
        submit: JSON values that repeat the submit while its reply is not known, None for none. They hold the
            body, unless it is large or has a secret.
        cache_key: key of the cache entry that the images fill, None without a cache.
        save_to: where the call was to save its images, None for nowhere.
        facts: facts of the request for sidecars.
        state: JSON values that belong to the provider.
        state_version: version of the provider's state.
    """

    id: str
    provider: str
    base_url: str
    operation: str
    phase: Phase = "accepted"
    call_id: str = ""
    part: int = 0
    first_index: int = 0
    images: int = 1
    images_of_call: int = 1
    submitted_at: float = field(default_factory=time.time)
    expires_at: float | None = None
    cost: str | None = None
    currency: str = "USD"
    request_id: str | None = None
    idempotency_key: str | None = None
    request_sha256: str = ""
    submit: Mapping[str, object] | None = None
    cache_key: str | None = None
    save_to: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    state_version: int = 1

    def to_json(self) -> str:
        """Return the job as a JSON object.

        Raises:
            ConfigurationError: the provider's state is no JSON, or too large.
        """
        values = {**{each.name: getattr(self, each.name) for each in fields(self)}}
        try:
            state = json.dumps(dict(self.state), allow_nan=False)
            text = json.dumps({"imgkit_job": VERSION, **values}, allow_nan=False, default=_to_plain)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(
                f"The state of a job of provider {self.provider} is no JSON: {error}. Fix the provider: its "
                "state may hold texts, numbers, lists and mappings only."
            ) from None
        if len(state) > MAX_STATE_BYTES:
            raise ConfigurationError(
                f"The state of a job of provider {self.provider} has {len(state)} bytes. It may have "
                f"{MAX_STATE_BYTES}: keep ids in it, and no images."
            )
        return text

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the job of a JSON object that `to_json` has written.

        Raises:
            ConfigurationError: the text is damaged, or a later version of imgkit has written it.
        """
        try:
            values = json.loads(text)
            version = values.pop("imgkit_job")
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            raise ConfigurationError("This is no job of imgkit, or it is damaged.") from None
        if type(version) is not int or version > VERSION:
            raise ConfigurationError(
                f"A later version of imgkit has written this job (format {str(version)[:20]}; this version "
                f"reads up to {VERSION}). Upgrade imgkit to collect it."
            )
        known = {each.name: each for each in fields(cls)}
        values = {name: value for name, value in values.items() if name in known}
        wrong = [name for name, value in values.items() if not _fits(name, value)]
        missing = {"id", "provider", "base_url", "operation", "state"} - values.keys()
        if wrong or missing:
            names = ", ".join(sorted({*wrong, *missing}))
            raise ConfigurationError(f"This job is damaged: {names} cannot be read.")
        return cls(**values)

    @property
    def age_s(self) -> float:
        """Seconds since the submit, never below 0."""
        return max(0.0, time.time() - self.submitted_at)

    def advance(self, **changes: Any) -> Job:
        """Return a copy with some values changed."""
        return replace(self, **changes)

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"Job({self.id!r}, provider={self.provider!r}, phase={self.phase!r}, age_s={self.age_s:.0f})"


_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}")
"""The id names the file of a record."""

_AMOUNT = re.compile(r"[0-9.Ee+-]{1,60}")
_NUMBERS = frozenset({"submitted_at", "expires_at"})
_COUNTS = frozenset({"part", "first_index", "images", "images_of_call", "state_version"})
_MAPPINGS = frozenset({"facts", "state", "save_to", "submit"})
_OPTIONAL = frozenset(
    {"expires_at", "cost", "request_id", "idempotency_key", "cache_key", "save_to", "submit"},
)
_PHASES = ("sending", "accepted", "ready", "cancelled")
_OPERATIONS = ("create_image", "create_image_edit", "create_image_variation")


def _fits(name: str, value: object) -> bool:
    """Return whether a member of a job has the type of its field."""
    if value is None:
        return name in _OPTIONAL
    if name in _NUMBERS:
        return isinstance(value, int | float) and type(value) is not bool and abs(value) < LATEST_S
    if name in _COUNTS:
        return type(value) is int and 0 <= value < 1_000_000
    if name in _MAPPINGS:
        return isinstance(value, dict)
    if name == "phase":
        return value in _PHASES
    if name == "operation":
        return value in _OPERATIONS
    if name == "id":
        return isinstance(value, str) and _ID.fullmatch(value) is not None
    if name == "base_url":
        return isinstance(value, str) and _is_address(value)
    if name == "cost":
        return isinstance(value, str) and _AMOUNT.fullmatch(value) is not None
    return isinstance(value, str)


def _is_address(text: str) -> bool:
    """Return whether a text is the root of an API, whose origin can be compared."""
    try:
        scheme, host, _ = origin(text)
    except ValueError:
        return False
    return scheme in ("http", "https") and bool(host)


def _to_plain(value: object) -> object:
    """Return a mapping that json does not know as a dict."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} is no JSON value")
