"""One token for all who need it: kept until it is about to expire, fetched by one caller at a time."""

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
"""After so many seconds a fetch counts as hung, and the next caller fetches for itself."""


class TokenCache:
    """Keeps a token and renews it.

    Callers that need a token at once share one fetch: the first one runs it in its own thread, the
    others wait in theirs. An error goes to all of them and is not kept. A fetch that hangs holds its
    own thread only: the others leave at the end of their time, or fetch anew after `patience_s`.

    Args:
        fetch: returns a new token; may block.
        name: of the source, for errors.
        early_s: so many seconds before it expires, a token is renewed.
        patience_s: after so many seconds, a fetch counts as hung.
        clock: Unix time in seconds.
    """

    __slots__ = ("_clock", "_early_s", "_fetch", "_flight", "_lock", "_name", "_patience_s", "_token")

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
        self._flight: _Flight | None = None

    def fresh(self) -> Token | None:
        """Return the token if it is there and stays good for a while. Never blocks."""
        token = self._token
        if token is None or token.expires_at is None:
            return token
        return token if self._clock() < token.expires_at - self._early_s else None

    def get(self, wait_s: float) -> Token:
        """Return a token, fetched if need be.

        Args:
            wait_s: longest wait in seconds for a fetch that another caller runs.

        Raises:
            NotSentError: that fetch took longer.
            ConfigurationError: the source failed; the message names it.
        """
        give_up = time.monotonic() + wait_s
        while (token := self.fresh()) is None:
            flight, leads = self._board()
            if leads:
                self._lead(flight)
            else:
                now = time.monotonic()
                flight.done.wait(max(0.0, min(give_up, flight.began + self._patience_s) - now))
            if flight.token is not None:
                return flight.token  # even one that ends soon: there is no better one
            if flight.error is not None:
                self._fail(flight.error)
            if time.monotonic() >= give_up:
                raise NotSentError(
                    f"no token came from {self._name} within {wait_s:g} s; nothing was sent: try again, "
                    "and give the source a timeout of its own"
                )
        return token

    def forget(self) -> None:
        """Drop the token, so that the next caller fetches one."""
        with self._lock:
            self._token = None
            self._flight = None  # what is on its way was asked for before

    def _board(self) -> tuple[_Flight, bool]:
        """Return the fetch to wait for, and whether it is the caller who has to run it."""
        with self._lock:
            flight = self._flight
            if flight is not None and time.monotonic() < flight.began + self._patience_s:
                return flight, False
            self._flight = flight = _Flight()
            if (token := self.fresh()) is not None:  # it came between the look and the lock
                flight.land(token)
                self._flight = None
                return flight, False
            return flight, True

    def _lead(self, flight: _Flight) -> None:
        try:
            token = self._fetch()
            with self._lock:
                if self._flight is flight:
                    self._token = token
            flight.token = token
        except Exception as error:
            flight.error = error
        finally:
            with self._lock:
                if self._flight is flight:
                    self._flight = None
            flight.done.set()  # after Ctrl-C too: one of those who wait goes on

    def _fail(self, error: Exception) -> NoReturn:
        """Raise an error of the caller's own: many threads raise it, and a traceback grows with each."""
        if isinstance(error, ImgkitError):
            raise copy.copy(error) from error
        known = () if self._token is None else (self._token.value,)
        raise ConfigurationError(
            f"no token came from {self._name} ({type(error).__name__}: "
            f"{scrub(str(error), known, limit=200)}); nothing was sent"
        ) from error

    def __reduce__(self) -> NoReturn:
        raise TypeError("tokens are not pickled or copied: make the source anew where it is needed")

    def __repr__(self) -> str:
        return f"TokenCache({self._name})"


class _Flight:
    """A fetch that somebody runs and others wait for."""

    __slots__ = ("began", "done", "error", "token")

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.done = threading.Event()
        self.token: Token | None = None
        self.error: Exception | None = None

    def land(self, token: Token) -> None:
        self.token = token
        self.done.set()
