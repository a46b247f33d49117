"""Bearer authentication, as a plugin."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

from imgkit.call import Call
from imgkit.errors import ConfigurationError, MissingKeyError
from imgkit.hookspecs import hookimpl
from imgkit.redact import Secret, safe_url
from imgkit.wire import HttpRequest

_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")
_SENDABLE = re.compile(r"[\x21-\x7e]+")


class BearerAuth:
    """Puts ``Authorization: Bearer …`` on each request to the API.

    Args:
        api_key: the key, or a callable that returns it and is asked on every sending; None to read
            the environment then.
        variable: name of the environment variable, such as "OPENAI_API_KEY".
        allow_insecure: send the key over plain http to hosts other than this machine too.

    Raises:
        ConfigurationError: the key holds what a header cannot carry. The message does not show it.
    """

    def __init__(
        self, api_key: str | Callable[[], str] | None, variable: str, *, allow_insecure: bool = False
    ) -> None:
        if inspect.iscoroutinefunction(api_key):
            raise ConfigurationError("api_key is a coroutine function: give one that returns the key itself")
        if api_key is not None and not isinstance(api_key, str) and not callable(api_key):
            raise ConfigurationError(
                f"api_key is a {type(api_key).__name__}: give text, or a callable that returns it"
            )
        self._variable = variable
        self._allow_insecure = allow_insecure
        self._source: Secret | Callable[[], str] | None = (
            Secret(_checked(api_key, "api_key")) if isinstance(api_key, str) else api_key
        )

    @hookimpl(trylast=True)
    def imgkit_authenticate(self, request: HttpRequest, call: Call) -> HttpRequest | None:
        """Return the request with the key; a compatible server is called without if there is none."""
        if call.host_class == "offline" or "authorization" in request.headers:
            return None
        key = self._key()
        if key is None:
            if call.host_class == "compatible":
                return None
            raise MissingKeyError(
                f"{call.base_url} needs an API key: set {self._variable}, or pass api_key=…; "
                'or stay offline with backend="offline"'
            )
        if not self._allow_insecure:
            check_encrypted(call.base_url)
        return replace(request, headers={**request.headers, "authorization": f"Bearer {key}"})

    def _key(self) -> str | None:
        if isinstance(self._source, Secret):
            return self._source.reveal()
        if self._source is None:
            found = os.environ.get(self._variable, "")
            return _checked(found, self._variable) if found.strip() else None
        return _checked(self._source(), "what api_key() returned")

    def __repr__(self) -> str:
        return f"BearerAuth({self._variable})"


def check_encrypted(base_url: str) -> None:
    """Refuse to send a key over plain http, unless it stays on this machine.

    Raises:
        ConfigurationError: saying what to do.
    """
    parts = urlsplit(base_url)
    if parts.scheme == "http" and not _LOOPBACK.fullmatch(parts.hostname or ""):
        raise ConfigurationError(
            f"base_url {safe_url(base_url)!r} would send the API key unencrypted: use https://, or say "
            "allow_insecure=True for a network that you trust"
        )


def _checked(key: object, source: str) -> str:
    """Return a key without surrounding blanks, if a header can carry it."""
    if not isinstance(key, str):
        raise ConfigurationError(f"{source} is a {type(key).__name__}: give the key as text")
    bare = f"{key.strip(' ')} ".removeprefix("Bearer ").strip(" ")
    if not bare.strip():
        raise ConfigurationError(f"{source} is empty: give the key, or leave it out")
    if not _SENDABLE.fullmatch(bare):
        raise ConfigurationError(
            f"{source} holds a character that no HTTP header can carry (a line break, a blank or a letter "
            "outside ASCII): copy the key again, without what surrounds it"
        )
    return bare
