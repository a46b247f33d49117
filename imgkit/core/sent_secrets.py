"""The secrets that requests carry: found before a request is sent, and removed from what comes back."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from urllib.parse import unquote, urlsplit

from imgkit.core.config import ServiceConfig
from imgkit.errors import InvalidRequestError
from imgkit.models import ImageRequest, field_names
from imgkit.providers.base import DecodedImages, Provider
from imgkit.redact import Secret, is_sensitive_header, list_credentials, list_secret_members
from imgkit.wire.messages import HttpRequest
from imgkit.wire.secret_filter import SecretFilter

_MIN_UNMISTAKABLE = 16

MAX_REMEMBERED = 16
"""Groups of secrets that a service remembers; a key that changes often has many."""


class SentSecrets:
    """The secrets of a service, and those that it has sent lately: a server may repeat them later.

    Args:
        known: secrets among the arguments of the service, and in the variables that its provider reads.

    Attributes:
        known: as given.
    """

    def __init__(self, known: Iterable[Secret] = ()) -> None:
        self.known = tuple(known)
        self._filters: dict[tuple[Secret, ...], SecretFilter] = {}
        self._all: tuple[list[tuple[Secret, ...]], SecretFilter] = ([], SecretFilter(self.known))

    @property
    def all(self) -> SecretFilter:
        """A filter for all of them."""
        # Threads share this object. Each step is atomic, so none loses the secrets of another.
        groups = list(self._filters)
        known_groups, found = self._all
        if groups != known_groups:
            found = SecretFilter((*self.known, *(secret for group in groups for secret in group)))
            self._all = (groups, found)
        return found

    def remember(self, secrets: tuple[Secret, ...]) -> SecretFilter:
        """Return a filter for secrets that are about to be sent, and for those of the service."""
        found = self._filters.get(secrets)
        if found is None:
            found = self._filters[secrets] = SecretFilter((*self.known, *secrets))
            for old in list(self._filters)[:-MAX_REMEMBERED]:
                self._filters.pop(old, None)
        return found


def list_service_secrets(config: ServiceConfig, proxy: str | None, provider: Provider) -> list[Secret]:
    """Return the secrets among the arguments of a service, and in the variables that its provider reads.

    Args:
        config: the arguments.
        proxy: URL of the proxy, which may have a password.
        provider: the provider; its credentials name the variables.
    """
    variables = [name for credential in provider.credentials for name in credential.variables]
    texts = [text for name in variables if (text := os.environ.get(name, "").strip())]
    if isinstance(config.api_key, Secret):
        texts += list_credentials(config.api_key.reveal())
    user, _, password = urlsplit(proxy or "").netloc.rpartition("@")[0].partition(":")
    if password:
        pair = f"{unquote(user)}:{unquote(password)}"
        texts += [password, *list_credentials(f"Basic {b64encode(pair.encode()).decode()}")]
    return [*map(Secret, texts), *list_secret_members(config.client_options or {})]


def list_request_secrets(request: ImageRequest) -> tuple[Secret, ...]:
    """Return the secrets in ``extra_headers``, ``extra_body`` and ``model_options`` of a request."""
    headers = {name: value for name, value in (request.extra_headers or {}).items() if value is not None}
    return (*_list_in_headers(headers), *_list_in_body(request))


def collect_secrets(signed: HttpRequest, request: ImageRequest | None = None) -> tuple[Secret, ...]:
    """Return the credentials in a request, wrapped because tracebacks show frame variables.

    Args:
        signed: the request as it is sent.
        request: the request of the user, whose ``extra_body`` and ``model_options`` may hold more.
    """
    in_body = () if request is None else _list_in_body(request)
    return (*_list_in_headers(signed.headers, signed.secret_headers), *in_body)


def _list_in_body(request: ImageRequest) -> list[Secret]:
    members = (request.extra_body, request.model_options)
    return [secret for each in members if each for secret in list_secret_members(each)]


def refuse_secrets_in_texts(request: ImageRequest, secrets: Iterable[Secret]) -> None:
    """Refuse a request whose texts repeat a credential: sidecars, caches and file names would keep it.

    Short credentials, such as "test" for a server on this machine, may be ordinary words.

    Raises:
        InvalidRequestError: a text contains a credential of at least `_MIN_UNMISTAKABLE` characters.
    """
    name = _find_text_with_secret(request, secrets)
    if name is not None:
        raise InvalidRequestError(
            {name: "It contains the credential that the request is sent with. Remove it from the text."}
        )


def _find_text_with_secret(request: ImageRequest, secrets: Iterable[Secret]) -> str | None:
    # A function of its own: a traceback of the error must not show the credentials in its frame.
    for secret in secrets:
        text = secret.reveal()
        for name in field_names(type(request)) if len(text) >= _MIN_UNMISTAKABLE else ():
            value = getattr(request, name)
            if isinstance(value, str) and text in value:
                return name
    return None


def _list_in_headers(headers: Mapping[str, str], secret: frozenset[str] = frozenset()) -> Iterator[Secret]:
    """Yield the credentials in headers; `secret` has further names of headers that hold some."""
    for name, value in headers.items():
        if name in secret or is_sensitive_header(name):
            yield from map(Secret, list_credentials(value))


def clean_images(decoded: DecodedImages, secrets: SecretFilter) -> DecodedImages:
    """Return a decoded reply whose texts hold no secret. Links stay: `build_response` hides them."""
    names = ("background", "output_format", "size", "quality", "warnings", "extra")
    texts = {
        **{name: getattr(decoded, name) for name in names},
        "usage": decoded.usage and decoded.usage.extra,
        "prompts": [image.revised_prompt for image in decoded.pictures],
        "extras": [image.extra for image in decoded.pictures],
    }
    cleaned = secrets.clean_json(texts)
    if cleaned is texts:
        return decoded
    images = zip(decoded.pictures, cleaned["prompts"], cleaned["extras"], strict=True)
    return replace(
        decoded,
        **{name: cleaned[name] for name in names if name != "warnings"},
        warnings=tuple(cleaned["warnings"]),
        usage=decoded.usage and replace(decoded.usage, extra=cleaned["usage"]),
        pictures=tuple(replace(image, revised_prompt=prompt, extra=extra) for image, prompt, extra in images),
    )
