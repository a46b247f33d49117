"""Tokens that expire, their sources, and the way for a hook to ask for one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from imgkit.errors import ConfigurationError
from imgkit.redact import Secret

if TYPE_CHECKING:
    from imgkit.wire.messages import HttpRequest

_MAX_EXPIRY_S = 1e11
"""Later than any real expiry in Unix seconds. Times in milliseconds exceed it."""


@dataclass(frozen=True, slots=True, init=False)
class Token:
    """A credential and its expiry.

    >>> from imgkit.plugins import Token
    >>> Token("eyJ0eXAi...", expires_at=1_800_000_000.0).expires_at
    1800000000.0

    Attributes:
        value: the token; plain text is wrapped in a `Secret`.
        expires_at: the expiry in Unix seconds, None for never.

    Raises:
        ConfigurationError: `value` is no text, or `expires_at` is no Unix time in seconds.
    """

    value: Secret
    expires_at: float | None

    def __init__(self, value: Secret | str, expires_at: float | None = None) -> None:
        kind = type(value).__name__
        secret = Secret(value) if isinstance(value, str) else value
        del value  # a traceback may show the variables of this frame
        if not isinstance(secret, Secret):
            del secret
            raise ConfigurationError(f"Token: value is a {kind}. Give text, or a Secret.")
        if expires_at is not None and not _is_time(expires_at):
            raise ConfigurationError("Token: expires_at must be Unix time in seconds, or None for never.")
        object.__setattr__(self, "value", secret)
        object.__setattr__(self, "expires_at", expires_at)


@runtime_checkable
class TokenSource(Protocol):
    """A source of tokens: an identity provider, a metadata server, a vault.

    >>> from imgkit.plugins import Token
    >>> class Vault:
    ...     def token(self):
    ...         return Token("secret", expires_at=None)
    """

    def token(self) -> Token:
        """Return a valid token.

        imgkit calls it where it may block, one caller at a time. Use timeouts for network requests. An
        `ImgkitError` reaches the callers unchanged; any other exception becomes the cause of a
        `ConfigurationError`. imgkit caches neither.
        """


@dataclass(frozen=True, slots=True)
class TokenNeeded:
    """The result of `imgkit_authenticate` if signing needs a token that may take time to fetch.

    Attributes:
        fetch: fetches the token; called where it may block. Its result is not used.
        sign: returns the request with credentials; called after `fetch`. It does not block.
    """

    fetch: Callable[[], object]
    sign: Callable[[HttpRequest], HttpRequest]


def _is_time(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value < _MAX_EXPIRY_S
