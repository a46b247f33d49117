"""Tokens that expire: what one is, who fetches it, and how a hook says that it needs one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from imgkit.errors import ConfigurationError
from imgkit.redact import Secret

if TYPE_CHECKING:
    from imgkit.wire.messages import HttpRequest

_LATEST = 1e11
"""Later than any real expiry in Unix seconds; milliseconds of today are above it."""


@dataclass(frozen=True, slots=True, init=False)
class Token:
    """A credential and when it ends.

    Attributes:
        value: the token itself; text is wrapped.
        expires_at: when it ends, in Unix seconds; None for never.

    Raises:
        ConfigurationError: `expires_at` is not such a number.
    """

    value: Secret
    expires_at: float | None

    def __init__(self, value: Secret | str, expires_at: float | None = None) -> None:
        kind = type(value).__name__
        secret = Secret(value) if isinstance(value, str) else value
        del value  # a traceback may show the variables of this frame
        if not isinstance(secret, Secret):
            del secret
            raise ConfigurationError(f"Token: value is a {kind}: give text, or a Secret")
        if expires_at is not None and not _is_time(expires_at):
            raise ConfigurationError("Token: expires_at must be Unix time in seconds, or None for never")
        object.__setattr__(self, "value", secret)
        object.__setattr__(self, "expires_at", expires_at)


@runtime_checkable
class TokenSource(Protocol):
    """Fetches tokens: from an identity provider, a metadata server, a vault."""

    def token(self) -> Token:
        """Return a token that is good now.

        Called in a thread where it may block, by one caller at a time. Give whatever it waits for a
        timeout. An error of imgkit's own tree reaches the callers as it is, another one as the cause of
        a `ConfigurationError`; neither is remembered.
        """


@dataclass(frozen=True, slots=True)
class TokenNeeded:
    """What `imgkit_authenticate` returns if it cannot sign before something that may block has run.

    Attributes:
        fetch: gets what is missing; called where it may block. Its result is not used.
        sign: returns the request with credentials; called after `fetch`, and does not block.
    """

    fetch: Callable[[], object]
    sign: Callable[[HttpRequest], HttpRequest]


def _is_time(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value < _LATEST
