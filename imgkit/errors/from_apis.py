"""Errors that an API reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from imgkit.errors.root import ImgkitError, ReceivedReply

if TYPE_CHECKING:
    from datetime import date


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


class JobFailedError(ApiError):
    """The provider reports that a job has failed; ``maybe_billed`` tells whether it may cost."""
