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

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from datetime import date
    from decimal import Decimal


class ReceivedImage(Protocol):
    """An image that arrived before an error; `imgkit.Image` implements it."""

    @property
    def index(self) -> int:
        """The position among the images of the response, from 0."""

    @property
    def data(self) -> bytes:
        """The bytes of the image file."""

    def save(
        self, target: str | PathLike[str] = "", *, overwrite: bool = False, sidecar: bool = True
    ) -> Path:
        """Write the file, as `imgkit.Image.save` does."""


class ReceivedResponse(Protocol):
    """A response that an error carries; `imgkit.ImagesResponse` implements it."""

    @property
    def images(self) -> Sequence[ReceivedImage]:
        """All images of the response."""


class PendingJob(Protocol):
    """A job that an error names; `imgkit.Job` implements it."""

    @property
    def id(self) -> str:
        """Imgkit's own id of the job."""

    def to_json(self) -> str:
        """Return the job as JSON, from which any process can collect it."""


class ReceivedReply:
    """The parts of a reply that an error carries. A mixin of the errors that follow a reply.

    Attributes:
        request_id: the API's id of the call, None if it sent none. The provider's support asks for it.
        spool_path: folder in which the spool keeps the reply, None without a state folder.
        images: images that arrived before the error. The last image of a stream may be partial.
        body: the received bytes of the reply.
    """

    request_id: str | None = None
    spool_path: str | None = None
    images: tuple[ReceivedImage, ...] = ()
    body: bytes = b""


class PluginWarning(UserWarning):
    """A plugin failed to load, or an observer raised; it was skipped. A warning, not an error."""


class ImgkitError(Exception):
    """The root: ``except ImgkitError`` catches every error that imgkit raises on purpose.

    Example::

        >>> import imgkit
        >>> try:
        ...     imgkit.ImageService(backend="offlin")
        ... except imgkit.ImgkitError as error:
        ...     print(type(error).__name__)
        UnknownBackendError
        >>> error = ImgkitError("The budget is spent.", hint="Pass a larger Budget(…).")
        >>> str(error)
        'The budget is spent. Pass a larger Budget(…).'
        >>> error.problem
        'The budget is spent.'

    Attributes:
        maybe_billed: the provider may charge for the call although it failed.
        hint: the remedy in terms of the Python API, None if the message needs none; ``str(error)`` ends
            with it. The command line shows its own remedy in place of it.
        field: the argument that the error is about, such as ``timeout_s``; None if there is none.
    """

    maybe_billed: bool = False
    hint: str | None = None
    field: str | None = None

    def __init__(self, *args: object, hint: str | None = None, field: str | None = None) -> None:
        if hint is not None:
            self.hint = hint
            args = (" ".join([*map(str, args), hint]),)
        if field is not None:
            self.field = field
        super().__init__(*args)

    @property
    def problem(self) -> str:
        """The message without its hint."""
        return str(self).removesuffix(self.hint or "").rstrip()

    def __reduce__(self) -> Any:
        # Exceptions are pickled by their positional arguments; ours have keywords too.
        return _unpickle, (type(self), self.args, self.__dict__)


def _unpickle(kind: type[ImgkitError], args: tuple[Any, ...], attributes: dict[str, Any]) -> ImgkitError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class ConfigurationError(ImgkitError):
    """The service is set up wrongly. Nothing was sent."""


class UnknownBackendError(ConfigurationError):
    """No backend is registered under this name."""


class UnknownProviderError(ConfigurationError):
    """No provider is registered under this name."""


class UnknownPluginError(ConfigurationError):
    """No plugin is registered under this name."""


class PluginError(ConfigurationError):
    """A plugin raised, returned a wrong type, or does not match the hook specifications.

    Attributes:
        plugin: the name under which the plugin is registered.
        distribution: the installed distribution that contains the plugin, or "" where unknown.
        hook: the hook that imgkit was calling, or "" while loading.
    """

    def __init__(self, message: str, *, plugin: str, distribution: str = "", hook: str = "") -> None:
        super().__init__(message)
        self.plugin = plugin
        self.distribution = distribution
        self.hook = hook


class MissingKeyError(ConfigurationError):
    """The host needs an API key, and none was given."""


class MissingModelError(ConfigurationError):
    """The official host has no default model any more: the request must name a model."""


class ServiceClosedError(ConfigurationError):
    """The service is closed, or belongs to another event loop."""


class InvalidRequestError(ImgkitError):
    """The request is wrong. Nothing was sent.

    Example::

        >>> error = InvalidRequestError({"n": "must be at least 1."})
        >>> error.fields["n"]
        'must be at least 1.'

    Attributes:
        fields: the problems by flat path: ``{"n": "…", "image.1": "…"}``.
        hints: remedies in terms of the Python API, by the argument that each one changes:
            ``{"prepare": 'Or pass prepare="fit".'}``. Together they are the ``hint``.
    """

    hints: Mapping[str, str] = MappingProxyType({})

    def __init__(self, fields: Mapping[str, str], hints: Mapping[str, str] | None = None) -> None:
        self.fields = dict(fields)
        if hints:
            self.hints = dict(hints)
        super().__init__(
            "; ".join(f"{path}: {text}" for path, text in self.fields.items()),
            hint=" ".join(self.hints.values()) or None,
        )


class TransportError(ImgkitError):
    """The connection failed before the reply was complete; ``reason`` is the cause alone, in a sentence."""

    reason: str = ""


class NotSentError(TransportError):
    """The request provably did not reach the API: nothing can have been billed.

    Attributes:
        permanent: a retry will fail too: an untrusted certificate, or a host name that does not exist.
    """

    def __init__(
        self, message: str, *, permanent: bool = False, hint: str | None = None, field: str | None = None
    ) -> None:
        super().__init__(message, hint=hint, field=field)
        self.permanent = permanent


class OutcomeUnknownError(TransportError, ReceivedReply):
    """The API may have received the request, and made and billed an image; no complete reply arrived.

    Example::

        try:
            response = service.create_image("a fox")
        except OutcomeUnknownError as error:
            print("Ask the provider about request", error.request_id)

    Attributes:
        maybe_billed: always True.
        request_id, spool_path, images, body: see `ReceivedReply`. ``request_id`` needs a reply's head.
        status: the HTTP status of a reply that does not prove that nothing was billed.
        retry_after_s: seconds to wait as the server asked, None where it did not ask.
        should_retry: the server's ``x-should-retry`` header, None without that header.
    """

    maybe_billed = True
    retry_after_s: float | None = None
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


class ApiError(ImgkitError, ReceivedReply):
    """The API answered with an error.

    Example::

        try:
            response = service.create_image("a fox")
        except ApiError as error:
            print(error.status, error.code, error.request_id)

    Attributes:
        status: HTTP status.
        code, type, param: the fields of the API's error, None where it did not set them.
        body: the first 16 KiB of the reply, without secrets and images.
        request_id, spool_path, images: see `ReceivedReply`. Only a stream has a spool_path.
        retry_after_s: seconds to wait as the server asked, None where it did not ask.
        should_retry: the server's ``x-should-retry`` header, None without that header.
        maybe_billed: True where ``images`` arrived before the error.
    """

    should_retry: bool | None = None

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
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.type = type
        self.param = param
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class BadRequestError(ApiError):
    """The API does not accept the request (400, 413, 422 …)."""


class ModerationBlockedError(BadRequestError):
    """The provider's safety system refused the prompt, an input or the result.

    Attributes:
        stage: "input", "output", "unknown", or None where the API did not say.
        categories: the provider's names of the content that it refused.
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
    """The API or the model does not know a parameter; ``param`` names it where the API does."""


class InvalidImageError(BadRequestError):
    """The API does not accept an input image: its format, its size, or its URL, which it cannot fetch."""


class UnsupportedMediaTypeError(InvalidImageError):
    """The API does not accept the media type of an input image."""


class AuthenticationError(ApiError):
    """The API key is wrong, revoked or missing (401)."""


class PermissionDeniedError(ApiError):
    """The API key is valid but lacks the permission for this request (403)."""


class OrganizationNotVerifiedError(PermissionDeniedError):
    """The provider must verify the organization before it may use this model."""


class NotFoundError(ApiError):
    """No such endpoint or model at this address (404, 405)."""


class EndpointRetiredError(NotFoundError):
    """The provider has switched the endpoint off.

    Attributes:
        status: 0 where imgkit knew this already and sent nothing.
        date: the day of the switch-off, None where it is not known.
    """

    def __init__(self, message: str, *, date: date | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.date = date


class ModelNotFoundError(NotFoundError):
    """No such model here, or not for this key. Providers often report a retired model like this too."""


class ModelRetiredError(ModelNotFoundError):
    """The provider says that it has switched the model off."""


class ConflictError(ApiError):
    """The API reports a conflict (409)."""


class RateLimitError(ApiError):
    """The caller sent too many requests (429); see ``retry_after_s``."""


class QuotaExceededError(RateLimitError):
    """The account has no credit, or a cap is reached. Waiting does not help."""


class BillingLimitError(QuotaExceededError):
    """The account's spending cap is reached: every further call will fail with this error."""


class RedirectRefusedError(ApiError):
    """The API answered with a redirect. imgkit never forwards a paid request and its key."""


class ServerError(ApiError):
    """The API itself reports that it failed and billed nothing (see `Provider.failure_is_free`)."""


class BudgetExceededError(ImgkitError):
    """A budget has no room for the call (see `imgkit.Budget`). Nothing was sent.

    Attributes:
        limit: limit of the budget in USD. The other amounts are in USD too.
        spent: amount spent so far. Calls with an unknown outcome count as spent.
        reserved: amount reserved for running calls.
        wanted: the highest possible cost of the call.
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
    """No fixture matches the request. Nothing was sent.

    Attributes:
        nearest: the most similar recorded request, None if none of this kind was recorded.
    """

    def __init__(self, message: str, *, nearest: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.nearest = nearest


class CacheMissError(ImgkitError):
    """The call used ``cache="only"``, and the cache has no such reply. Nothing was sent."""


class UnreadableReplyError(ImgkitError, ReceivedReply):
    """A success reply without a readable image; it may have been billed.

    Attributes:
        maybe_billed: True, except after a request that is free, such as one for the list of models.
        request_id, spool_path, images: see `ReceivedReply`.
        body: the received bytes, which may contain a paid image.
    """

    maybe_billed = True

    def __init__(
        self,
        message: str,
        *,
        request_id: str | None = None,
        body: bytes = b"",
        hint: str | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, field=field)
        self.request_id = request_id
        self.body = body


class EmptyResultError(ImgkitError, ReceivedReply):
    """The API answered with success but without images; it may have been billed.

    Attributes:
        maybe_billed: always True.
        request_id, spool_path: see `ReceivedReply`.
        body: the received bytes. The message quotes their start.
        job_id: the server's id of a job that it accepted in place of images, None if it named none.
        job_url: the address of that job as the server gave it. It may grant access.
    """

    maybe_billed = True
    job_id: str | None = None
    job_url: str | None = None

    def __init__(
        self,
        message: str,
        *,
        request_id: str | None = None,
        body: bytes = b"",
        job_id: str | None = None,
        job_url: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.request_id = request_id
        self.body = body
        self.job_id = job_id
        self.job_url = job_url


class StreamError(ImgkitError, ReceivedReply):
    """A stream ended before its image was complete, or the caller misused it.

    Example::

        try:
            for event in service.stream_image("a fox"):
                show(event)
        except StreamError as error:
            for image in error.images:
                image.save()

    Attributes:
        maybe_billed: the call sent a request that may have been billed.
        request_id, spool_path, images: see `ReceivedReply`.
    """

    def __init__(
        self,
        message: str,
        *,
        maybe_billed: bool = False,
        images: tuple[ReceivedImage, ...] = (),
        request_id: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.maybe_billed = maybe_billed
        self.images = images
        self.request_id = request_id


class JobPendingError(ImgkitError):
    """The call ended before the work that the provider has accepted. Nothing is lost: collect it later.

    Attributes:
        maybe_billed: always True.
        jobs: the `imgkit.Job` of each pending request; `imgkit.ImageService.resume` takes the error itself.
    """

    maybe_billed = True

    def __init__(self, message: str, *, jobs: tuple[PendingJob, ...] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.jobs = jobs


class JobFailedError(ApiError):
    """The provider reports that a job has failed; ``maybe_billed`` tells whether it may cost."""


class DownloadError(ImgkitError):
    """A result URL could not be fetched. The image exists; its URL is in ``image.url``.

    Attributes:
        body: the received bytes of an image that was cut off, else b"".
    """

    body: bytes = b""


class DownloadBlockedError(DownloadError):
    """imgkit does not fetch this result URL; it sent no byte to the server."""


class LinkExpiredError(DownloadError):
    """The server no longer serves the result URL: it says so, or answers 404, 410, or 403 without a reason.

    imgkit never generates the image again.
    """


class NotDownloadedError(ImgkitError):
    """The bytes of the image are still at its URL, and this process cannot fetch them."""


class SaveError(ImgkitError, ReceivedReply):
    """An image could not be written. Its bytes are still in memory.

    Attributes:
        images: the images that the call was saving.
        response: the whole response where ``save_to=`` failed, else None.
        spool_path: folder of the spooled reply, if a state folder is set and ``save_to=`` failed.
    """

    def __init__(
        self,
        message: str,
        *,
        images: tuple[ReceivedImage, ...] = (),
        response: ReceivedResponse | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.images = images
        self.response = response
