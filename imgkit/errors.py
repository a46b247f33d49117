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

from collections.abc import Mapping
from typing import TYPE_CHECKING

from imgkit.api_errors import ApiError as ApiError
from imgkit.api_errors import AuthenticationError as AuthenticationError
from imgkit.api_errors import BadRequestError as BadRequestError
from imgkit.api_errors import BillingLimitError as BillingLimitError
from imgkit.api_errors import ConflictError as ConflictError
from imgkit.api_errors import EndpointRetiredError as EndpointRetiredError
from imgkit.api_errors import InvalidImageError as InvalidImageError
from imgkit.api_errors import ModelNotFoundError as ModelNotFoundError
from imgkit.api_errors import ModelRetiredError as ModelRetiredError
from imgkit.api_errors import ModerationBlockedError as ModerationBlockedError
from imgkit.api_errors import NotFoundError as NotFoundError
from imgkit.api_errors import OrganizationNotVerifiedError as OrganizationNotVerifiedError
from imgkit.api_errors import PermissionDeniedError as PermissionDeniedError
from imgkit.api_errors import QuotaExceededError as QuotaExceededError
from imgkit.api_errors import RateLimitError as RateLimitError
from imgkit.api_errors import RedirectRefusedError as RedirectRefusedError
from imgkit.api_errors import ServerError as ServerError
from imgkit.api_errors import UnknownParameterError as UnknownParameterError
from imgkit.api_errors import UnsupportedMediaTypeError as UnsupportedMediaTypeError
from imgkit.error_root import ImgkitError as ImgkitError

if TYPE_CHECKING:
    from decimal import Decimal

    from imgkit.image import Image
    from imgkit.models import ImagesResponse


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
    images: tuple[Image, ...] = ()
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
    images: tuple[Image, ...] = ()
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
        images: tuple[Image, ...] = (),
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
        self, message: str, *, images: tuple[Image, ...] = (), response: ImagesResponse | None = None
    ) -> None:
        super().__init__(message)
        self.images = images
        self.response = response
