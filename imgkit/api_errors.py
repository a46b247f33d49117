"""What an API answers with: the part of the error tree that is found by code and status (`imgkit.errors`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from imgkit.error_root import ImgkitError

if TYPE_CHECKING:
    from datetime import date

    from imgkit.image import Image


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
    images: tuple[Image, ...] = ()
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
