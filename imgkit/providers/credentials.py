"""Credentials: the headers that carry a key or a signature, and the variables that hold the keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from imgkit.redact import Secret
from imgkit.wire.messages import HttpRequest


class RequestSigner(Protocol):
    """A function that signs a request with the keys of a `Credential`.

    Example:
        ::

            def sign_acme(request, keys):
                text = f"{request.method} {request.path_and_query} {request.body.sha256()}"
                secret = keys["ACME_SECRET"].reveal().encode()
                return {"x-acme-mark": hmac.new(secret, text.encode(), "sha256").hexdigest()}
    """

    def __call__(self, request: HttpRequest, keys: Mapping[str, Secret]) -> Mapping[str, str]:
        """Return the headers of the signature, by lower-case name.

        imgkit calls it for each attempt, and keeps the headers from logs, caches and cassettes. It does no
        I/O: the digest of the body is known before.

        Args:
            request: the complete request. A backend sends its URL and its `HttpRequest.wire_headers`
                unchanged, and adds ``host`` and perhaps further headers.
            keys: the values of the credential's variables that are set, by name.

        Raises:
            ConfigurationError: The keys do not suffice. The message shows nothing of them.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A header that carries a key or a signature, and the environment variables that hold its keys.

    Attributes:
        variable: name of the environment variable.
        header: name of the header, in lower case.
        scheme: the word before the key, "" for none. With "Basic", the key may be ``name:password``, or
            the base64 of it.
        required: the official host refuses requests without a key; False for a server that people run on
            their own machine.
        sign: signs each request, so that the key itself is not sent; None sends the key in `header`.
        needs: names of further variables that `sign` needs.
        may_need: names of further variables that `sign` takes if they are set.

    Example:
        >>> Credential(variable="ACME_API_KEY", header="x-acme-key", scheme="").scheme
        ''
    """

    variable: str
    header: str = "authorization"
    scheme: str = "Bearer"
    required: bool = field(default=True, repr=False)
    sign: RequestSigner | None = field(default=None, repr=False)
    needs: tuple[str, ...] = field(default=(), repr=False)
    may_need: tuple[str, ...] = field(default=(), repr=False)

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of all its variables. Their values are secrets."""
        return (self.variable, *self.needs, *self.may_need)
