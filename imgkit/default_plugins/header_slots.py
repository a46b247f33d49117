"""Headers that carry a key or a signature: where a credential may go, and how it joins a request."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from imgkit.default_plugins.keys import (
    CallableKey,
    KeySource,
    check_encryption,
    check_origin,
    normalize_key,
    to_secret,
)
from imgkit.errors import ConfigurationError, MissingKeyError
from imgkit.plugins.events import Call
from imgkit.plugins.tokens import TokenNeeded
from imgkit.providers.accounts import Account
from imgkit.providers.credentials import Credential, RequestSigner
from imgkit.redact import HiddenDict, Secret, wrap_key
from imgkit.wire.headers import format_credential
from imgkit.wire.messages import WHOLE_BODY_BYTES, BytesBody, HttpRequest, hash_body
from imgkit.wire.plain_values import type_name


class HeaderSlot(NamedTuple):
    """A header that carries a credential."""

    name: str
    scheme: str
    allow_insecure: bool

    def sign(
        self,
        source: Secret | KeySource,
        request: HttpRequest,
        call: Call,
        account: Account | None = None,
        name: str = "api_key",
    ) -> HttpRequest | TokenNeeded:
        """Return the signed request, or a `TokenNeeded` that fetches the key of `source` first.

        An account refuses a key of another vendor; the error names the source.
        """
        if self.name in request.headers:
            return request
        self._check(request, call)
        if isinstance(source, CallableKey):
            source = source.read()
        check = None if account is None else partial(account.check_key, source=name, base_url=call.base_url)
        if isinstance(source, Secret):
            if check is not None:
                check(source)
            return request.with_headers(self.with_key(request, source))
        pending = _PendingSignature(self, source, check)
        return TokenNeeded(pending.fetch, pending.sign)

    def add_signature(
        self, credential: Credential, request: HttpRequest, call: Call
    ) -> HttpRequest | TokenNeeded:
        """Return the request signed by `credential`; a `TokenNeeded` if the body must be read before."""
        self._check(request, call)
        add = partial(_sign_request, credential)
        if isinstance(request.body, BytesBody) and request.body.length <= WHOLE_BODY_BYTES:
            return add(request)
        return TokenNeeded(partial(hash_body, request.body), add)

    def fetch_and_sign(
        self,
        sign: RequestSigner,
        read_keys: Callable[[], Mapping[str, Secret]],
        request: HttpRequest,
        call: Call,
    ) -> TokenNeeded:
        """Return a `TokenNeeded` that reads keys and body, and signs the request then."""
        self._check(request, call)
        pending = _PendingKeys(sign, read_keys, request)
        return TokenNeeded(pending.fetch, pending.sign)

    def _check(self, request: HttpRequest, call: Call) -> None:
        check_origin(request.url, call.base_url)
        if not self.allow_insecure:
            check_encryption(call.base_url)

    def with_key(self, request: HttpRequest, key: Secret) -> dict[str, str]:
        """Return the headers of a request, with a key."""
        return HiddenDict({**request.headers, self.name: format_credential(self.scheme, key.reveal())})


def read_variable(variable: str, scheme: str = "Bearer") -> Secret:
    """Return the key in an environment variable.

    Args:
        variable: name of the variable, which is set.
        scheme: a word before the key to remove.

    Raises:
        ConfigurationError: A header cannot carry the key. The message does not show it.
    """
    return normalize_key(to_secret(os.environ[variable], variable), variable, scheme or "Bearer")


def read_keys(read: Callable[[], object]) -> dict[str, Secret]:
    """Return the keys that a function of the caller returns, as `wrap_keys`."""
    return wrap_keys(read())


def wrap_keys(given: object) -> dict[str, Secret]:
    """Return keys as secrets, without those that are None.

    Raises:
        ConfigurationError: They are no mapping of names to keys. The message shows none.
    """
    if not isinstance(given, Mapping):
        kind = type_name(given)
        del given
        raise ConfigurationError(f"keys is a {kind}. Give a mapping of names to texts, or a function.")
    keys = HiddenDict({name: wrap_key(value) for name, value in given.items() if value is not None})
    del given
    return HiddenDict(
        {
            name: normalize_key(
                value if isinstance(value, Secret) else to_secret(value, str(name)), str(name)
            )
            for name, value in keys.items()
        }
    )


def _sign_request(credential: Credential, request: HttpRequest) -> HttpRequest:
    """Return a request with the headers of a signature; its keys are read for each attempt.

    Raises:
        MissingKeyError: a further variable is not set.
    """
    is_set = {name: bool(os.environ.get(name, "").strip()) for name in credential.variables}
    missing = [name for name in credential.needs if not is_set[name]]
    if missing:
        raise MissingKeyError(
            f"{credential.variable} is set without {' and '.join(missing)}.",
            hint=f"Set {' and '.join(missing)} too.",
            field="api_key",
        )
    keys = HiddenDict({name: read_variable(name) for name, given in is_set.items() if given})
    added = {} if credential.sign is None else credential.sign(request, keys)
    return request.with_headers(HiddenDict({**request.headers, **added}))


class _PendingKeys:
    """The signature of a request whose keys are not read yet."""

    __slots__ = ("_keys", "_read_keys", "_request", "_sign")

    def __init__(
        self, sign: RequestSigner, read_keys: Callable[[], Mapping[str, Secret]], request: HttpRequest
    ) -> None:
        self._sign, self._read_keys, self._request = sign, read_keys, request
        self._keys: Mapping[str, Secret] = {}

    def fetch(self) -> None:
        hash_body(self._request.body)
        self._keys = self._read_keys()

    def sign(self, request: HttpRequest) -> HttpRequest:
        return request.with_headers(HiddenDict({**request.headers, **self._sign(request, self._keys)}))


class _PendingSignature:
    """The signature of a request whose key is not fetched yet."""

    __slots__ = ("_check", "_key", "_slot", "_source")

    def __init__(
        self, slot: HeaderSlot, source: KeySource, check: Callable[[Secret], None] | None = None
    ) -> None:
        self._check = check
        self._slot = slot
        self._source = source
        self._key: Secret | None = None

    def fetch(self) -> None:
        self._key = self._source.read()
        if self._check is not None:
            self._check(self._key)

    def sign(self, request: HttpRequest) -> HttpRequest:
        assert self._key is not None, "fetch() runs before sign()"
        return request.with_headers(self._slot.with_key(request, self._key))
