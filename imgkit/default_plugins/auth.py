"""The plugins that put credentials on requests.

Which header, which key: each plugin has one of both. A key that lies in text, the environment or a callable
is at hand; one that lies in a file, a keyring or at a token service is fetched first, outside the hook.
"""

from __future__ import annotations

import inspect
import os
import re
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, NoReturn
from urllib.parse import urlsplit

from imgkit.default_plugins.keys import CallableKey, FileKey, KeySource, as_secret, normalize_key
from imgkit.default_plugins.token_cache import TokenCache
from imgkit.errors import ConfigurationError, MissingKeyError
from imgkit.plugins.events import Call
from imgkit.plugins.hookspecs import hookimpl
from imgkit.plugins.tokens import Token, TokenNeeded, TokenSource
from imgkit.providers.base import Credential
from imgkit.redact import Secret, safe_url
from imgkit.wire.headers import FRAMING, header_problem
from imgkit.wire.messages import HttpRequest

NOT_FOR_KEYS = FRAMING | {"accept", "accept-encoding", "cookie", "user-agent"}
"""Headers that carry something else than a key."""

_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")


class ProviderAuth:
    """Puts the key on each request to the API, in the header that the provider wants: what comes along.

    Args:
        api_key: the key; or a callable that returns it, asked on every sending, quick, since it runs in
            the event loop; or a `KeySource` such as `FileKey` or `KeyringKey`; None to read the
            environment on every sending.
        credentials: the headers that can carry a key, in the order in which their variables are asked.
        variable: of which of them `api_key` is the key.
        allow_insecure: send the key over plain http to hosts other than this machine too.
        file: path of a file with the key, instead of `api_key`.

    Raises:
        ConfigurationError: the key holds what a header cannot carry. The message does not show it.
    """

    def __init__(
        self,
        api_key: str | Secret | Callable[[], str] | KeySource | None,
        credentials: Sequence[Credential],
        variable: str,
        *,
        allow_insecure: bool = False,
        file: str | os.PathLike[str] | None = None,
    ) -> None:
        held = Secret(api_key) if isinstance(api_key, str) else api_key
        del api_key  # a traceback may show the variables of this frame
        self._slots = {
            one.variable: _Slot(_header_name(one.header), one.scheme, allow_insecure) for one in credentials
        }
        self._variable = variable
        self._source = None if held is None and file is None else _source(held, file)

    @property
    def has_key(self) -> bool:
        """Whether there is a key, or somebody to ask for one."""
        return self._source is not None or self._found() is not None

    @hookimpl(trylast=True)
    def imgkit_authenticate(self, request: HttpRequest, call: Call) -> HttpRequest | TokenNeeded | None:
        """Return the request with the key; a compatible server is called without if there is none."""
        if call.host_class == "offline" or any(slot.name in request.headers for slot in self._slots.values()):
            return None
        if self._source is not None:
            return self._slots[self._variable].signed_by(self._source, request, call)
        if (variable := self._found()) is not None:
            slot = self._slots[variable]
            key = normalize_key(as_secret(os.environ[variable], variable), variable, slot.scheme or "Bearer")
            return slot.signed_by(key, request, call)
        if call.host_class == "compatible":
            return None
        raise MissingKeyError(
            f"{call.base_url} needs an API key: set {' or '.join(self._slots)}, or pass api_key=…; "
            'or stay offline with backend="offline"'
        )

    def _found(self) -> str | None:
        """Return the first variable that is set."""
        return next((name for name in self._slots if os.environ.get(name, "").strip()), None)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._slots)})"


class BearerAuth(ProviderAuth):
    """Puts ``Authorization: Bearer …`` on each request to the API.

    Args:
        api_key: as `ProviderAuth` takes it.
        variable: name of the environment variable, such as "OPENAI_API_KEY".
        allow_insecure: send the key over plain http to hosts other than this machine too.
        file: path of a file with the key, instead of `api_key`.

    Raises:
        ConfigurationError: the key holds what a header cannot carry. The message does not show it.
    """

    def __init__(
        self,
        api_key: str | Callable[[], str] | KeySource | None = None,
        variable: str = "OPENAI_API_KEY",
        *,
        allow_insecure: bool = False,
        file: str | os.PathLike[str] | None = None,
    ) -> None:
        held = Secret(api_key) if isinstance(api_key, str) else api_key
        del api_key  # a traceback may show the variables of this frame
        super().__init__(
            held, (Credential(variable=variable),), variable, allow_insecure=allow_insecure, file=file
        )


class HeaderAuth:
    """Puts a key into a header of the server's own choice, such as ``api-key``.

    A request that has this header already, from ``extra_headers`` say, is left as it is.

    Args:
        name: of the header.
        key: as `BearerAuth` takes it.
        allow_insecure: send the key over plain http to hosts other than this machine too.
        file: path of a file with the key, instead of `key`.

    Raises:
        ConfigurationError: no such header can be sent, or the key holds what a header cannot carry.
    """

    _name = ""  # a traceback may show a plugin that is not complete

    def __init__(
        self,
        name: str,
        key: str | Callable[[], str] | KeySource | None = None,
        *,
        allow_insecure: bool = False,
        file: str | os.PathLike[str] | None = None,
    ) -> None:
        held = Secret(key) if isinstance(key, str) else key
        del key  # a traceback may show the variables of this frame
        self._name = _header_name(name)
        self._source = _source(held, file)
        self._slot = _Slot(self._name, "", allow_insecure)

    @hookimpl
    def imgkit_authenticate(self, request: HttpRequest, call: Call) -> HttpRequest | TokenNeeded | None:
        """Return the request with the key."""
        if call.host_class == "offline":
            return None
        return self._slot.signed_by(self._source, request, call)

    def __repr__(self) -> str:
        return f"HeaderAuth({self._name!r})"


class TokenAuth:
    """Puts tokens that expire on requests: fetched when needed, kept, and renewed in time.

    Calls that need a token at once, from any threads and tasks, share one fetch. It takes place in a
    thread, within the deadline of the call; each of the others waits in its own. A server that refuses a
    token before its time is no reason to fetch another by itself: call `forget` and try again.

    Args:
        source: fetches tokens.
        header: that carries them.
        scheme: what stands before them, "" for nothing.
        early_s: so many seconds before it expires, a token is renewed.
        allow_insecure: send tokens over plain http to hosts other than this machine too.
        clock: Unix time in seconds.

    Raises:
        ConfigurationError: one of these cannot be used.
    """

    _name = ""  # a traceback may show a plugin that is not complete

    def __init__(
        self,
        source: TokenSource,
        header: str = "authorization",
        scheme: str = "Bearer",
        early_s: float = 60.0,
        *,
        allow_insecure: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(source, TokenSource) or inspect.iscoroutinefunction(source.token):
            raise ConfigurationError(
                f"source is a {type(source).__name__}: give an object with a plain method token() that "
                "returns an imgkit.plugins.tokens.Token; for a key in a file, BearerAuth(file=…)"
            )
        if not isinstance(scheme, str) or not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]*", scheme):
            raise ConfigurationError("scheme must be one word, such as 'Bearer', or ''")
        if isinstance(early_s, bool) or not isinstance(early_s, int | float) or not 0 <= early_s < 1e9:
            raise ConfigurationError("early_s must be a number of seconds from 0 on")
        self._slot = _Slot(_header_name(header), scheme, allow_insecure)
        self._token = source.token
        self._name = f"{type(source).__module__}.{type(source).__qualname__}"
        self._cache = TokenCache(self._renew, self._name, early_s=early_s, clock=clock)

    @hookimpl
    def imgkit_authenticate(self, request: HttpRequest, call: Call) -> HttpRequest | TokenNeeded | None:
        """Return the request with the token that is there, or say that one is needed."""
        if call.host_class == "offline":
            return None
        token = self._cache.fresh()
        source = token.value if token is not None else _Waiting(self._cache, call.timeout_s)
        return self._slot.signed_by(source, request, call)

    def forget(self) -> None:
        """Drop the token that is kept; the next request fetches a new one."""
        self._cache.forget()

    def _renew(self) -> Token:
        token = self._token()
        if not isinstance(token, Token):
            kind = type(token).__name__
            del token  # a traceback may show the variables of this frame
            raise ConfigurationError(f"token() of {self._name} returned a {kind} instead of a Token")
        value = normalize_key(token.value, f"the token of {self._name}", self._slot.scheme)
        return Token(value, token.expires_at)

    def __reduce__(self) -> NoReturn:
        raise TypeError("TokenAuth is not pickled or copied: make it anew where it is needed")

    def __repr__(self) -> str:
        return f"TokenAuth({self._name})"


class _Waiting(NamedTuple):
    """A token that is waited for as long as a call may take."""

    cache: TokenCache
    wait_s: float

    def read(self) -> Secret:
        return self.cache.get(self.wait_s).value


class _Slot(NamedTuple):
    """Where on a request a credential goes."""

    name: str
    scheme: str
    allow_insecure: bool

    def signed_by(
        self, source: Secret | KeySource, request: HttpRequest, call: Call
    ) -> HttpRequest | TokenNeeded:
        """Return the request with the key of `source`, or what to do to get there."""
        if self.name in request.headers:
            return request
        check_origin(request.url, call.base_url)
        if not self.allow_insecure:
            check_encrypted(call.base_url)
        if isinstance(source, CallableKey):
            source = source.read()
        if isinstance(source, Secret):
            return self.put(source, request)
        pending = _Pending(self, source)
        return TokenNeeded(pending.fetch, pending.sign)

    def put(self, key: Secret, request: HttpRequest) -> HttpRequest:
        prefix = f"{self.scheme} " if self.scheme else ""
        return request.with_headers({**request.headers, self.name: f"{prefix}{key.reveal()}"})


class _Pending:
    """A request that waits for its key."""

    __slots__ = ("_key", "_slot", "_source")

    def __init__(self, slot: _Slot, source: KeySource) -> None:
        self._slot = slot
        self._source = source
        self._key: Secret | None = None

    def fetch(self) -> None:
        self._key = self._source.read()

    def sign(self, request: HttpRequest) -> HttpRequest:
        assert self._key is not None, "a request is signed after its key was fetched"
        return self._slot.put(self._key, request)


def check_encrypted(base_url: str) -> None:
    """Refuse to send a key over plain http, unless it stays on this machine.

    Raises:
        ConfigurationError: saying what to do.
    """
    if not _is_private(base_url):
        raise ConfigurationError(
            f"base_url {safe_url(base_url)!r} would send the API key unencrypted: use https://, or say "
            "allow_insecure=True for a network that you trust"
        )


def check_origin(url: str, base_url: str) -> None:
    """Refuse to send a key anywhere but to the server that it is for.

    Raises:
        ConfigurationError: scheme, host or port differ.
    """
    if _origin(url) != _origin(base_url):
        raise ConfigurationError(
            f"a request to {safe_url(url)} gets no credentials: they are for {safe_url(base_url)} only"
        )


@lru_cache(maxsize=64)  # a service sends to a few URLs, and asks on every sending
def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


@lru_cache(maxsize=64)
def _is_private(base_url: str) -> bool:
    """Whether nobody else can read what is sent there."""
    parts = urlsplit(base_url)
    return parts.scheme != "http" or _LOOPBACK.fullmatch(parts.hostname or "") is not None


def _source(key: object, file: str | os.PathLike[str] | None) -> Secret | KeySource:
    """Return where a key comes from; text is a `Secret` already."""
    if file is not None:
        if key is not None:
            raise ConfigurationError("give a key or a file=, not both")
        return FileKey(file)
    if isinstance(key, Secret):
        return normalize_key(key, "api_key")
    if inspect.iscoroutinefunction(key):
        raise ConfigurationError("api_key is a coroutine function: give one that returns the key itself")
    if isinstance(key, KeySource):
        return key
    if callable(key):
        return CallableKey(key)
    raise ConfigurationError(
        f"api_key is a {type(key).__name__}: give text, a callable that returns it, or a source such as "
        "FileKey"
    )


def _header_name(name: object) -> str:
    if not isinstance(name, str) or header_problem({name: "x"}, NOT_FOR_KEYS) is not None:
        raise ConfigurationError(
            f"header {str(name)[:60]!r} cannot carry a key: give a name such as 'api-key' that HTTP itself "
            "makes no use of"
        )
    return name.lower()
