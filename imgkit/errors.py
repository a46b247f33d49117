"""Every error that imgkit raises.

::

    ImgkitError
    ├── ConfigurationError            the service is set up wrongly; nothing was sent
    │   ├── UnknownBackendError       no backend of that name (says which exist)
    │   ├── UnknownProviderError      no provider of that name
    │   ├── UnknownPluginError        no plugin of that name
    │   ├── PluginError               a plugin misbehaved (plugin, distribution, hook)
    │   ├── MissingKeyError           no API key where one is needed
    │   ├── MissingModelError         the official host needs a model to be named
    │   └── ServiceClosedError        used after close, or from a loop that is not its own
    ├── InvalidRequestError           the request is wrong (fields); nothing was sent
    ├── TransportError                the wire failed
    │   ├── NotSentError              nothing can have been billed
    │   └── OutcomeUnknownError       it may have been billed (maybe_billed, request_id, spool_path)
    ├── ApiError                      the API answered with an error (status, code, request_id, …)
    │   ├── BadRequestError           400, 413, 422 and their like
    │   │   ├── ModerationBlockedError   refused content (stage, categories)
    │   │   ├── UnknownParameterError    the model does not know it (param)
    │   │   └── InvalidImageError        an input picture is not taken
    │   │       └── UnsupportedMediaTypeError   for its media type
    │   ├── AuthenticationError       401
    │   ├── PermissionDeniedError     403
    │   │   └── OrganizationNotVerifiedError
    │   ├── NotFoundError             404, 405: no such endpoint or model here
    │   │   ├── EndpointRetiredError  the provider has switched it off
    │   │   └── ModelNotFoundError    no such model, or not for this key
    │   │       └── ModelRetiredError    the provider says that it has switched it off
    │   ├── ConflictError             409
    │   ├── RateLimitError            429 (retry_after_s)
    │   │   └── QuotaExceededError    no credit: waiting does not help
    │   │       └── BillingLimitError    the account's spending cap is reached
    │   ├── RedirectRefusedError      3xx: API calls follow no redirect
    │   └── ServerError               5xx that the API itself reported
    ├── BudgetExceededError           your own budget has no room (limit, spent, …); nothing was sent
    ├── FixtureMissingError           no recorded answer (nearest); nothing was sent
    ├── CacheMissError                cache="only", and the cache has no such reply; nothing was sent
    ├── UnreadableReplyError          a reply that no picture can be read from (body is kept)
    ├── EmptyResultError              200 without pictures
    ├── StreamError                   a stream ended early, or is used wrongly (images, maybe_billed)
    ├── DownloadError                 a result URL could not be fetched
    │   ├── DownloadBlockedError      refused before a byte was sent: scheme, address, origin
    │   └── LinkExpiredError          the URL is no longer served
    ├── NotDownloadedError            the picture is still at its URL
    └── SaveError                     a picture could not be written (it is still in memory)

Errors are split by what the caller can do next, and every message ends with that.
No message holds a secret or more than a kilobyte of what a server said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from datetime import date
    from decimal import Decimal


class ReceivedImage(Protocol):
    """An image that arrived before an error; `imgkit.Image` implements it."""

    @property
    def index(self) -> int:
        """Its position among the images of the response, from 0."""

    @property
    def data(self) -> bytes:
        """The bytes of the file."""

    def save(
        self, target: str | PathLike[str] = "", *, overwrite: bool = False, sidecar: bool = True
    ) -> Path:
        """Write the file, as `imgkit.Image.save` does."""


class ReceivedResponse(Protocol):
    """A response that an error carries; `imgkit.ImagesResponse` implements it."""

    @property
    def images(self) -> Sequence[ReceivedImage]:
        """All images of the response."""


class ImgkitError(Exception):
    """The root: `except ImgkitError` catches whatever imgkit raises on purpose."""

    def __reduce__(self) -> Any:
        # Exceptions are pickled by their positional arguments; ours have keywords too.
        return _revive, (type(self), self.args, self.__dict__)


def _revive(kind: type[ImgkitError], args: tuple[Any, ...], attributes: dict[str, Any]) -> ImgkitError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class ConfigurationError(ImgkitError):
    """The service is set up wrongly. Nothing was sent."""


class UnknownBackendError(ConfigurationError):
    """No backend of the wanted name is registered."""


class UnknownProviderError(ConfigurationError):
    """No provider of the wanted name is registered."""


class UnknownPluginError(ConfigurationError):
    """No plugin of the wanted name is registered."""


class PluginError(ConfigurationError):
    """A plugin raised, returned a wrong type, or does not fit its hooks.

    Attributes:
        plugin: the name under which the plugin is registered.
        distribution: the installed distribution it came from, or "" where unknown.
        hook: the hook that was being called, or "" while loading.
    """

    def __init__(self, message: str, *, plugin: str, distribution: str = "", hook: str = "") -> None:
        super().__init__(message)
        self.plugin = plugin
        self.distribution = distribution
        self.hook = hook


class MissingKeyError(ConfigurationError):
    """No API key was given, and the host needs one."""


class MissingModelError(ConfigurationError):
    """The official host has no default model any more: one must be named."""


class ServiceClosedError(ConfigurationError):
    """The service is closed, or belongs to another event loop."""


class InvalidRequestError(ImgkitError):
    """The request is wrong. Nothing was sent.

    Attributes:
        fields: what is wrong, by flat path: ``{"n": "…", "image.1": "…"}``.
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields = dict(fields)
        super().__init__("; ".join(f"{path}: {text}" for path, text in self.fields.items()))


class TransportError(ImgkitError):
    """The wire failed before an answer was complete."""


class NotSentError(TransportError):
    """The request provably did not reach the API: nothing can have been billed.

    Attributes:
        permanent: trying again will not help: an untrusted certificate, a name that does not exist.
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class OutcomeUnknownError(TransportError):
    """The request may have been received, and a picture made and billed; no answer came.

    Attributes:
        maybe_billed: always True; here so that callers can ask any error.
        request_id: the API's id of the call where the head of a reply gave one.
        spool_path: where the part that did arrive is kept, if a state folder is set.
        status: the HTTP status where a gateway answered in the API's place.
        body: the part of a reply that did arrive, b"" if none did.
        images: of a stream: the pictures that did arrive, the last of them perhaps a partial one.
        should_retry: what the server's ``x-should-retry`` says, None if it says nothing.
    """

    maybe_billed = True
    body = b""
    images: tuple[ReceivedImage, ...] = ()
    should_retry: bool | None = None

    def __init__(
        self,
        message: str,
        *,
        request_id: str | None = None,
        spool_path: str | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.spool_path = spool_path
        self.status = status


class BudgetExceededError(ImgkitError):
    """A budget has no room for the call (see `imgkit.Budget`). Nothing was sent.

    Attributes:
        limit: of the budget, in USD, as are the others.
        spent: so far, with what may have been spent by calls whose outcome is not known.
        reserved: for calls that run.
        wanted: what the call may cost at most.
    """

    def __init__(
        self, message: str, *, limit: Decimal, spent: Decimal, reserved: Decimal, wanted: Decimal
    ) -> None:
        super().__init__(message)
        self.limit = limit
        self.spent = spent
        self.reserved = reserved
        self.wanted = wanted


class FixtureMissingError(ImgkitError):
    """No fixture answers the request. Nothing was sent.

    Attributes:
        nearest: the recorded request that is nearest to it, None if there is none of its kind.
    """

    def __init__(self, message: str, *, nearest: str | None = None) -> None:
        super().__init__(message)
        self.nearest = nearest


class CacheMissError(ImgkitError):
    """The call was to be answered from the cache only, and the cache has no such reply. Nothing was sent."""


class UnreadableReplyError(ImgkitError):
    """A success reply from which no picture can be read; it may have been billed.

    Attributes:
        maybe_billed: always True.
        request_id: the API's id of the call, None where it gave none.
        body: what arrived, so that nothing that was paid for is lost.
        images: of a stream: the pictures that came before, the last of them perhaps a partial one.
        spool_path: where it is kept, if a state folder is set.
    """

    maybe_billed = True
    images: tuple[ReceivedImage, ...] = ()
    spool_path: str | None = None

    def __init__(self, message: str, *, request_id: str | None = None, body: bytes = b"") -> None:
        super().__init__(message)
        self.request_id = request_id
        self.body = body


class EmptyResultError(ImgkitError):
    """The API answered 200 without pictures; it may have been billed.

    Attributes:
        maybe_billed: always True.
        request_id: the API's id of the call, None where it gave none.
        spool_path: where the reply is kept, if a state folder is set.
    """

    maybe_billed = True
    spool_path: str | None = None

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message)
        self.request_id = request_id


class StreamError(ImgkitError):
    """A stream ended before its picture was complete, or it was used in a way that it cannot be.

    Attributes:
        maybe_billed: whether something was sent that may have been billed.
        images: the pictures that did arrive, the last of them perhaps a partial one.
        request_id: the API's id of the call, None where it gave none.
        spool_path: where what arrived is kept, if a state folder is set.
    """

    spool_path: str | None = None

    def __init__(
        self,
        message: str,
        *,
        maybe_billed: bool = False,
        images: tuple[ReceivedImage, ...] = (),
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.maybe_billed = maybe_billed
        self.images = images
        self.request_id = request_id


class DownloadError(ImgkitError):
    """A result URL could not be fetched. The picture was made; its URL is in ``image.url``."""


class DownloadBlockedError(DownloadError):
    """The result URL is not one that imgkit fetches; no byte was sent to it."""


class LinkExpiredError(DownloadError):
    """The result URL is no longer served (403, 404, 410). It is never generated again by itself."""


class NotDownloadedError(ImgkitError):
    """The picture's bytes are still at its URL and cannot be fetched from here."""


class SaveError(ImgkitError):
    """A picture could not be written. Its bytes are still in memory.

    Attributes:
        images: the pictures that were being saved.
        response: the whole reply where ``save_to=`` failed, else None.
        spool_path: where the reply is kept, if a state folder is set and ``save_to=`` failed.
    """

    spool_path: str | None = None

    def __init__(
        self,
        message: str,
        *,
        images: tuple[ReceivedImage, ...] = (),
        response: ReceivedResponse | None = None,
    ) -> None:
        super().__init__(message)
        self.images = images
        self.response = response


class ApiError(ImgkitError):
    """The API answered with an error.

    Attributes:
        status: HTTP status.
        code, type, param: as the API gave them, None where it did not.
        request_id: value of ``x-request-id``, for the provider's support.
        retry_after_s: seconds to wait as the server asked, None where it did not.
        should_retry: what the server's ``x-should-retry`` says, None if it says nothing.
        images: of a stream: the pictures that came before the error, the last of them perhaps a partial one.
        maybe_billed: whether there are any of these.
        spool_path: of a stream: where what arrived is kept, None if nothing is.
    """

    should_retry: bool | None = None
    images: tuple[ReceivedImage, ...] = ()
    maybe_billed = False
    spool_path: str | None = None

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        type: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.type = type
        self.param = param
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class BadRequestError(ApiError):
    """The API does not accept the request as it is (400, 413, 422 …)."""


class ModerationBlockedError(BadRequestError):
    """The prompt, an input or the result was refused by the provider's safety system.

    Attributes:
        stage: "input", "output", "unknown", or None where the API did not say.
        categories: the provider's names of what it found.
    """

    def __init__(
        self,
        message: str,
        *,
        stage: str | None = None,
        categories: tuple[str, ...] = (),
        **facts: Any,
    ) -> None:
        super().__init__(message, **facts)
        self.stage = stage
        self.categories = categories


class UnknownParameterError(BadRequestError):
    """The API, or the model, does not know a parameter; ``param`` names it where the API does."""


class InvalidImageError(BadRequestError):
    """An input picture is not taken: its format, its size, or that it could not be fetched."""


class UnsupportedMediaTypeError(InvalidImageError):
    """An input picture is not taken for its media type."""


class AuthenticationError(ApiError):
    """The API key is wrong, revoked or missing (401)."""


class PermissionDeniedError(ApiError):
    """The key is right but not allowed to do this (403)."""


class OrganizationNotVerifiedError(PermissionDeniedError):
    """The organisation must be verified before it may use this model."""


class NotFoundError(ApiError):
    """No such endpoint or model at this address (404, 405)."""


class EndpointRetiredError(NotFoundError):
    """The provider has switched the endpoint off.

    Attributes:
        status: 0 where nothing was sent, since it is known.
        date: since when, None where it is not known.
    """

    def __init__(self, message: str, *, date: date | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.date = date


class ModelNotFoundError(NotFoundError):
    """No such model here, or not for this key. A retired model is often reported like this too."""


class ModelRetiredError(ModelNotFoundError):
    """The provider says that it has switched the model off."""


class ConflictError(ApiError):
    """The API reports a conflict (409)."""


class RateLimitError(ApiError):
    """Too many requests (429); see ``retry_after_s``."""


class QuotaExceededError(RateLimitError):
    """No credit, or a cap is reached. Waiting does not help."""


class BillingLimitError(QuotaExceededError):
    """The account's spending cap is reached: every further call will fail like this one."""


class RedirectRefusedError(ApiError):
    """The API answered with a redirect. A paid request and its key follow none."""


class ServerError(ApiError):
    """The API itself reports that it failed (5xx with the API's JSON error)."""
