"""Every error that imgkit raises.

::

    ImgkitError
    ├── ConfigurationError            the service is set up wrongly; nothing was sent
    │   ├── UnknownBackendError       no backend has this name (the message lists the names)
    │   ├── UnknownProviderError      no provider has this name
    │   ├── UnknownPluginError        no plugin has this name
    │   ├── PluginError               a plugin misbehaved (plugin, distribution, hook)
    │   ├── MissingKeyError           the host needs an API key, and none was given
    │   ├── MissingModelError         the official host needs the name of a model
    │   └── ServiceClosedError        the service is closed, or belongs to another event loop
    ├── InvalidRequestError           the request is wrong (fields); nothing was sent
    ├── TransportError                the connection failed
    │   ├── NotSentError              nothing can have been billed
    │   └── OutcomeUnknownError       it may have been billed (maybe_billed, request_id, spool_path)
    ├── ApiError                      the API answered with an error (status, code, request_id, …)
    │   ├── BadRequestError           400, 413, 422 and similar
    │   │   ├── ModerationBlockedError   refused content (stage, categories)
    │   │   ├── UnknownParameterError    the model does not know a parameter (param)
    │   │   └── InvalidImageError        the API does not accept an input image
    │   │       └── UnsupportedMediaTypeError   because of its media type
    │   ├── AuthenticationError       401
    │   ├── PermissionDeniedError     403
    │   │   └── OrganizationNotVerifiedError
    │   ├── NotFoundError             404, 405: no such endpoint or model at this address
    │   │   ├── EndpointRetiredError  the provider has switched the endpoint off
    │   │   └── ModelNotFoundError    no such model, or not for this key
    │   │       └── ModelRetiredError    the provider says that it has switched the model off
    │   ├── ConflictError             409
    │   ├── RateLimitError            429 (retry_after_s)
    │   │   └── QuotaExceededError    no credit: waiting does not help
    │   │       └── BillingLimitError    the account's spending cap is reached
    │   ├── JobFailedError            an accepted job has failed (maybe_billed)
    │   ├── RedirectRefusedError      3xx: API calls follow no redirect
    │   └── ServerError               5xx that the API itself reported
    ├── BudgetExceededError           your own budget has no room (limit, spent, …); nothing was sent
    ├── FixtureMissingError           no recorded reply matches (nearest); nothing was sent
    ├── CacheMissError                cache="only", and the cache has no such reply; nothing was sent
    ├── UnreadableReplyError          a success reply without a readable image (body)
    ├── EmptyResultError              a success reply without images (body, job_id, job_url)
    ├── StreamError                   a stream ended early or was misused (images, maybe_billed)
    ├── JobPendingError               the provider still works on it (jobs): collect it, do not repeat it
    ├── DownloadError                 a result URL could not be fetched
    │   ├── DownloadBlockedError      refused before a byte was sent: scheme, address, origin
    │   └── LinkExpiredError          the server no longer serves the URL
    ├── NotDownloadedError            the image is still at its URL
    └── SaveError                     an image could not be written; it is still in memory

The classes differ in the caller's next step, and every message ends with that step.
No message contains a secret or more than a kilobyte of a server's text.
"""

from __future__ import annotations

from imgkit.errors.after_sending import DownloadBlockedError as DownloadBlockedError
from imgkit.errors.after_sending import DownloadError as DownloadError
from imgkit.errors.after_sending import EmptyResultError as EmptyResultError
from imgkit.errors.after_sending import JobPendingError as JobPendingError
from imgkit.errors.after_sending import LinkExpiredError as LinkExpiredError
from imgkit.errors.after_sending import NotDownloadedError as NotDownloadedError
from imgkit.errors.after_sending import NotSentError as NotSentError
from imgkit.errors.after_sending import OutcomeUnknownError as OutcomeUnknownError
from imgkit.errors.after_sending import SaveError as SaveError
from imgkit.errors.after_sending import StreamError as StreamError
from imgkit.errors.after_sending import TransportError as TransportError
from imgkit.errors.after_sending import UnreadableReplyError as UnreadableReplyError
from imgkit.errors.before_sending import BudgetExceededError as BudgetExceededError
from imgkit.errors.before_sending import CacheMissError as CacheMissError
from imgkit.errors.before_sending import ConfigurationError as ConfigurationError
from imgkit.errors.before_sending import FixtureMissingError as FixtureMissingError
from imgkit.errors.before_sending import InvalidRequestError as InvalidRequestError
from imgkit.errors.before_sending import MissingKeyError as MissingKeyError
from imgkit.errors.before_sending import MissingModelError as MissingModelError
from imgkit.errors.before_sending import PluginError as PluginError
from imgkit.errors.before_sending import ServiceClosedError as ServiceClosedError
from imgkit.errors.before_sending import UnknownBackendError as UnknownBackendError
from imgkit.errors.before_sending import UnknownPluginError as UnknownPluginError
from imgkit.errors.before_sending import UnknownProviderError as UnknownProviderError
from imgkit.errors.from_apis import ApiError as ApiError
from imgkit.errors.from_apis import AuthenticationError as AuthenticationError
from imgkit.errors.from_apis import BadRequestError as BadRequestError
from imgkit.errors.from_apis import BillingLimitError as BillingLimitError
from imgkit.errors.from_apis import ConflictError as ConflictError
from imgkit.errors.from_apis import EndpointRetiredError as EndpointRetiredError
from imgkit.errors.from_apis import InvalidImageError as InvalidImageError
from imgkit.errors.from_apis import JobFailedError as JobFailedError
from imgkit.errors.from_apis import ModelNotFoundError as ModelNotFoundError
from imgkit.errors.from_apis import ModelRetiredError as ModelRetiredError
from imgkit.errors.from_apis import ModerationBlockedError as ModerationBlockedError
from imgkit.errors.from_apis import NotFoundError as NotFoundError
from imgkit.errors.from_apis import OrganizationNotVerifiedError as OrganizationNotVerifiedError
from imgkit.errors.from_apis import PermissionDeniedError as PermissionDeniedError
from imgkit.errors.from_apis import QuotaExceededError as QuotaExceededError
from imgkit.errors.from_apis import RateLimitError as RateLimitError
from imgkit.errors.from_apis import RedirectRefusedError as RedirectRefusedError
from imgkit.errors.from_apis import ServerError as ServerError
from imgkit.errors.from_apis import UnknownParameterError as UnknownParameterError
from imgkit.errors.from_apis import UnsupportedMediaTypeError as UnsupportedMediaTypeError
from imgkit.errors.root import ImgkitError as ImgkitError
from imgkit.errors.root import PendingJob as PendingJob
from imgkit.errors.root import PluginWarning as PluginWarning
from imgkit.errors.root import ReceivedImage as ReceivedImage
from imgkit.errors.root import ReceivedReply as ReceivedReply
from imgkit.errors.root import ReceivedResponse as ReceivedResponse

# Callers, pickles and tracebacks know the errors by this module.
for _value in list(globals().values()):
    if isinstance(_value, type) and _value.__module__.startswith(f"{__name__}."):
        _value.__module__ = __name__
