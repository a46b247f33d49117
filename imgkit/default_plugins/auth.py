"""The plugins that sign requests with credentials.

A plugin has a header and a source of keys. Keys from text, the environment or a callable are available at
once. The core fetches keys from a file, a keyring or a token service in a thread, outside the hook.
"""

from __future__ import annotations

import inspect
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, NoReturn

from imgkit.default_plugins.header_slots import HeaderSlot, read_keys, read_variable, wrap_keys
from imgkit.default_plugins.keys import CallableKey, FileKey, KeySource, normalize_key
from imgkit.default_plugins.token_cache import TokenCache
from imgkit.errors import ConfigurationError, MissingKeyError
from imgkit.plugins.events import Call
from imgkit.plugins.hookspecs import hookimpl
from imgkit.plugins.tokens import Token, TokenNeeded, TokenSource
from imgkit.providers.accounts import Account
from imgkit.providers.credentials import Credential, RequestSigner
from imgkit.redact import Secret, wrap_key
from imgkit.wire.headers import FRAMING, header_problem
from imgkit.wire.messages import HttpRequest
from imgkit.wire.plain_values import describe_failure, type_name

NOT_FOR_KEYS = FRAMING | {"accept", "accept-encoding", "cookie", "user-agent"}
"""Headers that cannot carry a key, because HTTP uses them otherwise."""


class ProviderAuth:
    """Signs each request to the API with a key, in a header of the provider. Every service has one.

    Args:
        api_key: the key; or a callable that returns it, called for each attempt in the event loop, so it
            must be quick; or a `KeySource` such as `FileKey` or `KeyringKey`; None to read the environment
            for each attempt.
        credentials: the headers that can carry a key, in the order in which their variables are read.
        variable: the variable of the credential to which `api_key` belongs.
        allow_insecure: also send the key over plain http to other machines.
        file: path of a file with the key, instead of `api_key`.
        make_account: returns the account at a provider of a name.

    Raises:
        ConfigurationError: The key has characters that a header cannot carry. The message does not show it.

    Example:
        >>> credential = Credential(variable="ACME_API_KEY", header="x-acme-key", scheme="")
        >>> ProviderAuth("acme-key", [credential], "ACME_API_KEY")
        ProviderAuth(ACME_API_KEY)
    """

    def __init__(
        self,
        api_key: str | Secret | Callable[[], str] | KeySource | None,
        credentials: Sequence[Credential],
        variable: str,
        *,
        allow_insecure: bool = False,
        file: str | os.PathLike[str] | None = None,
        make_account: Callable[[str], Account] = Account,
    ) -> None:
        source = wrap_key(api_key)
        del api_key  # tracebacks may show local variables
        self._make_account = make_account
        self._account: Account | None = None
        self._slots = {
            credential.variable: HeaderSlot(
                _check_header_name(credential.header), credential.scheme, allow_insecure
            )
            for credential in credentials
        }
        self._signers = {each.variable: each for each in credentials if each.sign is not None}
        self._variable = variable
        self._is_required = any(credential.required for credential in credentials)
        self._source = None if source is None and file is None else _to_source(source, file)

    @property
    def has_key(self) -> bool:
        """True if there is a key, or a source that returns one."""
        return self._source is not None or self._find_variable() is not None

    @hookimpl(trylast=True)
    def imgkit_authenticate(self, request: HttpRequest, call: Call) -> HttpRequest | TokenNeeded | None:
        """Return the signed request, or None to leave it unsigned.

        A compatible server, and one that requires none, gets unsigned requests if there is no key.

        Raises:
            MissingKeyError: The official host needs a key, and there is none.
            ConfigurationError: The official host got the key of another vendor.
        """
        if call.host_class == "offline" or any(slot.name in request.headers for slot in self._slots.values()):
            return None
        needs_key = call.host_class == "official" and self._is_required
        account = self._find_account(call) if needs_key else None
        if self._source is not None:
            return self._slots[self._variable].sign(self._source, request, call, account)
        if (variable := self._find_variable()) is not None:
            slot = self._slots[variable]
            if variable in self._signers:
                return slot.add_signature(self._signers[variable], request, call)
            return slot.sign(read_variable(variable, slot.scheme), request, call, account, variable)
        if account is None:
            return None
        console = f" {account.console} has your keys." if account.console else ""
        raise MissingKeyError(
            f"{call.base_url} needs an API key, and {' or '.join(self._slots)} is not set.{console}",
            hint='Set it, pass api_key=…, or stay offline with backend="offline".',
            field="api_key",
        )

    def _find_account(self, call: Call) -> Account:
        """Return the account of a call; all calls of a service have one provider."""
        if self._account is None:
            self._account = self._make_account(call.provider)
        return self._account

    def _find_variable(self) -> str | None:
        """Return the first variable that is set, None if none is."""
        return next((name for name in self._slots if os.environ.get(name, "").strip()), None)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._slots)})"


class BearerAuth(ProviderAuth):
    """Signs each request to the API with ``Authorization: Bearer …``.

    Args:
        api_key: as for `ProviderAuth`.
        variable: name of the environment variable, such as "OPENAI_API_KEY".
        allow_insecure: also send the key over plain http to other machines.
        file: path of a file with the key, instead of `api_key`.

    Raises:
        ConfigurationError: The key has characters that a header cannot carry. The message does not show it.

    Example:
        >>> BearerAuth(file="/run/secrets/openai-key")
        BearerAuth(OPENAI_API_KEY)
    """

    def __init__(
        self,
        api_key: str | Callable[[], str] | KeySource | None = None,
        variable: str = "OPENAI_API_KEY",
        *,
        allow_insecure: bool = False,
        file: str | os.PathLike[str] | None = None,
    ) -> None:
        source = wrap_key(api_key)
        del api_key  # tracebacks may show local variables
        super().__init__(
            source, (Credential(variable=variable),), variable, allow_insecure=allow_insecure, file=file
        )


class HeaderAuth:
    """Signs each request with a key in a custom header, such as ``api-key``.

    A request that already has the header, for example from ``extra_headers``, stays unchanged.

    Args:
        name: name of the header.
        key: as for `BearerAuth`.
        allow_insecure: also send the key over plain http to other machines.
        file: path of a file with the key, instead of `key`.

    Raises:
        ConfigurationError: The header cannot carry a key, or the key has invalid characters.

    Example:
        >>> HeaderAuth("api-key", "acme-key")
        HeaderAuth('api-key')
    """

    _name = ""  # for tracebacks of an incomplete plugin

    def __init__(
        self,
        name: str,
        key: str | Callable[[], str] | KeySource | None = None,
        *,
        allow_insecure: bool = False,
        file: str | os.PathLike[str] | None = None,
    ) -> None:
        source = wrap_key(key)
        del key  # tracebacks may show local variables
        self._name = _check_header_name(name)
        self._source = _to_source(source, file)
        self._slot = HeaderSlot(self._name, "", allow_insecure)

    @hookimpl
    def imgkit_authenticate(self, request: HttpRequest, call: Call) -> HttpRequest | TokenNeeded | None:
        """Return the signed request."""
        if call.host_class == "offline":
            return None
        return self._slot.sign(self._source, request, call)

    def __repr__(self) -> str:
        return f"HeaderAuth({self._name!r})"


class TokenAuth:
    """Signs requests with tokens that expire: it fetches, keeps and renews them.

    Concurrent calls, from any threads and tasks, share a fetch. The fetch runs in a thread, within the
    deadline of the call; the other calls wait. If the server rejects a token before it expires, imgkit does
    not fetch another: call `forget` and try again.

    Args:
        source: fetches tokens.
        header: the header that carries the token.
        scheme: the word before the token, "" for none.
        early_s: seconds before its expiry at which a token is renewed.
        allow_insecure: also send tokens over plain http to other machines.
        clock: returns Unix time in seconds.

    Raises:
        ConfigurationError: An argument is invalid.

    Example:
        >>> class Login:
        ...     def token(self) -> Token:
        ...         return Token(Secret("t0ken"), expires_at=time.time() + 3600)
        >>> auth = TokenAuth(Login())
    """

    _name = ""  # for tracebacks of an incomplete plugin

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
        kind = type(source).__name__
        if not isinstance(source, TokenSource) or inspect.iscoroutinefunction(source.token):
            del source  # tracebacks may show local variables
            raise ConfigurationError(
                f"source is a {kind}. Give an object with a plain method token() that "
                "returns an imgkit.plugins.tokens.Token. For a key in a file, use BearerAuth(file=…)."
            )
        if not isinstance(scheme, str) or not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]*", scheme):
            raise ConfigurationError("scheme must be one word, such as 'Bearer', or ''.")
        if isinstance(early_s, bool) or not isinstance(early_s, int | float) or not 0 <= early_s < 1e9:
            raise ConfigurationError("early_s must be a number of seconds, at least 0.")
        self._slot = HeaderSlot(_check_header_name(header), scheme, allow_insecure)
        self._fetch_token = source.token
        self._name = f"{type(source).__module__}.{type(source).__qualname__}"
        self._cache = TokenCache(self._renew, self._name, early_s=early_s, clock=clock)

    @hookimpl
    def imgkit_authenticate(self, request: HttpRequest, call: Call) -> HttpRequest | TokenNeeded | None:
        """Return the request signed with the kept token, or a `TokenNeeded`."""
        if call.host_class == "offline":
            return None
        token = self._cache.peek()
        source = token.value if token is not None else _TokenWait(self._cache, call.timeout_s)
        return self._slot.sign(source, request, call)

    def forget(self) -> None:
        """Drop the kept token; the next request fetches a new token."""
        self._cache.forget()

    def _renew(self) -> Token:
        token = self._fetch_token()
        if not isinstance(token, Token):
            kind = type(token).__name__
            del token  # tracebacks may show local variables
            raise ConfigurationError(f"token() of {self._name} returned a {kind} instead of a Token.")
        value = normalize_key(token.value, f"the token of {self._name}", self._slot.scheme)
        return Token(value, token.expires_at)

    def __reduce__(self) -> NoReturn:
        raise TypeError("TokenAuth cannot be pickled or copied. Create another instance.")

    def __repr__(self) -> str:
        return f"TokenAuth({self._name})"


class SignatureAuth:
    """Signs requests with keys that are not sent themselves, such as those of AWS.

    A service reads such keys from the environment by itself; this plugin takes them from anywhere else. A
    request that already has an ``authorization`` header stays unchanged.

    Args:
        sign: signs a request, such as ``imgkit.providers.AwsSigner("bedrock", "us-west-2")``.
        keys: the keys by the names that `sign` knows, None for none; or a callable that returns them. It is
            called for each attempt in a thread, where it may block, so it may return temporary keys.
        allow_insecure: also send signatures over plain http to other machines.

    Raises:
        ConfigurationError: An argument is invalid. The message shows no key.

    Example:
        >>> from imgkit.providers import AwsSigner
        >>> keys = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "a-secret-key"}
        >>> SignatureAuth(AwsSigner("bedrock", "us-west-2"), keys)
        SignatureAuth(AwsSigner('bedrock', 'us-west-2'))
    """

    _sign: RequestSigner | None = None  # for tracebacks of an incomplete plugin

    def __init__(
        self,
        sign: RequestSigner,
        keys: Mapping[str, str | Secret | None] | Callable[[], Mapping[str, str | Secret | None]],
        *,
        allow_insecure: bool = False,
    ) -> None:
        if not callable(sign):
            kind = type_name(sign)
            del keys  # tracebacks may show local variables
            raise ConfigurationError(f"sign is a {kind}. Give a function, such as AwsSigner('bedrock').")
        if inspect.iscoroutinefunction(keys):
            raise ConfigurationError("keys is a coroutine function. Give a function that returns the keys.")
        if callable(keys):
            self._read_keys = partial(read_keys, keys)
        else:
            fixed = wrap_keys(keys)
            del keys  # tracebacks may show local variables
            self._read_keys = partial(dict, fixed)
        self._sign = sign
        self._slot = HeaderSlot("authorization", "", allow_insecure)

    @hookimpl
    def imgkit_authenticate(self, request: HttpRequest, call: Call) -> TokenNeeded | None:
        """Return a `TokenNeeded` that reads the keys and signs the request."""
        if call.host_class == "offline" or self._sign is None or self._slot.name in request.headers:
            return None
        return self._slot.fetch_and_sign(self._sign, self._read_keys, request, call)

    def __reduce__(self) -> NoReturn:
        raise TypeError("SignatureAuth cannot be pickled or copied. Create another instance.")

    def __repr__(self) -> str:
        return f"SignatureAuth({self._sign!r})"


class _TokenWait(NamedTuple):
    """A source that waits for a token, at most for the call's timeout."""

    cache: TokenCache
    wait_s: float

    def read(self) -> Secret:
        return self.cache.get(self.wait_s).value


def _to_source(key: object, file: str | os.PathLike[str] | None) -> Secret | KeySource:
    """Return the source of a key; the caller has wrapped text in a `Secret`."""
    if file is not None:
        if key is not None:
            raise ConfigurationError("Give a key or file=, not both.")
        return FileKey(file)
    if isinstance(key, Secret):
        return normalize_key(key, "api_key")
    try:
        is_coroutine, is_source = inspect.iscoroutinefunction(key), isinstance(key, KeySource)
    except Exception as error:
        # The object is the caller's: it may raise anything.
        raise ConfigurationError(f"api_key cannot be read ({describe_failure(error)}). Give text.") from None
    if is_coroutine:
        raise ConfigurationError("api_key is a coroutine function. Give a function that returns the key.")
    if is_source:
        return key  # type: ignore[return-value]  # checked above
    if callable(key):
        return CallableKey(key)
    remedy = "Give text, a callable that returns text, or a source such as FileKey."
    raise ConfigurationError(f"api_key is a {type_name(key)}. {remedy}")


def _check_header_name(name: object) -> str:
    if not isinstance(name, str) or header_problem({name: "x"}, NOT_FOR_KEYS) is not None:
        raise ConfigurationError(
            f"Header {str(name)[:60]!r} cannot carry a key. Give a name such as 'api-key' that HTTP itself "
            "does not use."
        )
    return name.lower()
