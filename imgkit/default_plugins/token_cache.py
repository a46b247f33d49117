"""A token cache: a single caller fetches the token, and all callers share it until it expires."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from imgkit.errors import ConfigurationError, ImgkitError, NotSentError
from imgkit.plugins.tokens import Token
from imgkit.redact import scrub

PATIENCE_S = 30.0
"""Seconds after which a fetch counts as hung, and the next caller starts another."""


class TokenCache:
    """A token that is fetched when needed, kept, and renewed before it expires.

    Concurrent callers share a fetch: the first caller runs it in its own thread, and the others wait. An
    error goes to all of them and is not kept. A hung fetch blocks only its own thread: the other callers
    time out, or start another fetch after `patience_s`.

    Args:
        fetch: returns a new token; may block.
        name: name of the source, for errors.
        early_s: seconds before its expiry at which a token is renewed.
        patience_s: seconds after which a fetch counts as hung.
        clock: returns Unix time in seconds.

    Example:
        >>> from imgkit.redact import Secret
        >>> cache = TokenCache(lambda: Token(Secret("t0ken")), "login")
        >>> cache.get(wait_s=5).value.reveal()
        't0ken'
    """

    __slots__ = ("_clock", "_early_s", "_fetch", "_lock", "_name", "_patience_s", "_running", "_token")

    def __init__(
        self,
        fetch: Callable[[], Token],
        name: str,
        *,
        early_s: float = 0.0,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._fetch = fetch
        self._name = name
        self._early_s = early_s
        self._patience_s = patience_s
        self._clock = clock
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._running: _TokenFetch | None = None

    def peek(self) -> Token | None:
        """Return the kept token if it does not expire soon, else None. Never blocks."""
        token = self._token
        if token is None or token.expires_at is None:
            return token
        return token if self._clock() < token.expires_at - self._early_s else None

    def get(self, wait_s: float) -> Token:
        """Return the kept token, or fetch one.

        Args:
            wait_s: maximum wait in seconds for a fetch that another caller runs.

        Raises:
            NotSentError: The fetch took longer.
            ConfigurationError: The source failed. The message names it.
        """
        deadline = time.monotonic() + wait_s
        while (token := self.peek()) is None:
            fetch, runs_it = self._join_fetch()
            if runs_it:
                self._run_fetch(fetch)
            else:
                now = time.monotonic()
                fetch.done.wait(max(0.0, min(deadline, fetch.began + self._patience_s) - now))
            if fetch.token is not None:
                return fetch.token  # even if it expires soon: there is no better token
            if fetch.error is not None:
                self._raise_error(fetch.error)
            if time.monotonic() >= deadline:
                raise NotSentError(
                    f"No token from {self._name} within {wait_s:g} s. Nothing was sent. Try again, and give "
                    "the source a timeout of its own."
                )
        return token

    def forget(self) -> None:
        """Drop the token; the next caller fetches another."""
        with self._lock:
            self._token = None
            # A running fetch was started before forget(): its token is not kept either.
            self._running = None

    def _join_fetch(self) -> tuple[_TokenFetch, bool]:
        """Return the current fetch, and whether the caller has to run it."""
        with self._lock:
            fetch = self._running
            if fetch is not None and time.monotonic() < fetch.began + self._patience_s:
                return fetch, False
            self._running = fetch = _TokenFetch()
            # Another fetch may have ended before this caller took the lock.
            if (token := self.peek()) is not None:
                fetch.deliver(token)
                self._running = None
                return fetch, False
            return fetch, True

    def _run_fetch(self, fetch: _TokenFetch) -> None:
        try:
            token = self._fetch()
            with self._lock:
                if self._running is fetch:
                    self._token = token
            fetch.token = token
        except Exception as error:
            fetch.error = error
        finally:
            with self._lock:
                if self._running is fetch:
                    self._running = None
            # This also wakes the waiting callers after Ctrl-C.
            fetch.done.set()

    def _raise_error(self, error: Exception) -> NoReturn:
        """Raise a copy of an error: each thread needs its own, because a traceback grows when raised."""
        if isinstance(error, ImgkitError):
            raise copy.copy(error) from error
        secrets = () if self._token is None else (self._token.value,)
        raise ConfigurationError(
            f"No token from {self._name} ({type(error).__name__}: "
            f"{scrub(str(error), secrets, limit=200)}). Nothing was sent."
        ) from error

    def __reduce__(self) -> NoReturn:
        raise TypeError("Tokens cannot be pickled or copied. Create another source.")

    def __repr__(self) -> str:
        return f"TokenCache({self._name})"


class _TokenFetch:
    """A fetch that one caller runs and others wait for."""

    __slots__ = ("began", "done", "error", "token")

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.done = threading.Event()
        self.token: Token | None = None
        self.error: Exception | None = None

    def deliver(self, token: Token) -> None:
        self.token = token
        self.done.set()
