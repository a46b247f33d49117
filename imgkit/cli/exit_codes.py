"""The exit code of each error class, and the meaning of each code."""

from __future__ import annotations

from imgkit import errors

OK = 0
BUG = 1
USAGE = 2
PARTIAL = 9
PENDING = 10
STOPPED = 130


class Stopped(Exception):
    """Ctrl-C stopped a call; the message says whether it may be billed.

    Args:
        message: the message.
        maybe_billed: whether a request was under way that may be billed.

    Example:
        >>> Stopped("Stopped.", maybe_billed=True).maybe_billed
        True
    """

    def __init__(self, message: str, *, maybe_billed: bool) -> None:
        super().__init__(message)
        self.maybe_billed = maybe_billed


MEANINGS = {
    OK: "success",
    BUG: "a bug in imgkit; `doctor`, `cassette check` and `mask --check` found a problem",
    USAGE: "wrong usage, configuration or request; nothing was sent",
    3: "authentication, missing key, permission or verification",
    4: "rate limit or quota",
    5: "refused by the content policy",
    6: "rejected by the API, a reply without images, or no matching cache entry or recording",
    7: "network, timeout, unknown outcome, server error, unreadable reply, cut stream or download",
    8: "over the budget; nothing was sent",
    PARTIAL: "partial success: all paid data is on disk, but not all of it where you asked for it",
    PENDING: "the provider still works on a job: `imgkit jobs wait` collects it, and nothing is paid again",
    STOPPED: "stopped by Ctrl-C",
}

CODES_BY_ERROR: dict[type[BaseException], int] = {
    errors.ConfigurationError: USAGE,
    errors.InvalidRequestError: USAGE,
    errors.MissingKeyError: 3,
    errors.AuthenticationError: 3,
    errors.PermissionDeniedError: 3,
    errors.RateLimitError: 4,
    errors.ModerationBlockedError: 5,
    errors.ApiError: 6,
    errors.EmptyResultError: 6,
    errors.CacheMissError: 6,
    errors.FixtureMissingError: 6,
    errors.TransportError: 7,
    errors.ServerError: 7,
    errors.UnreadableReplyError: 7,
    errors.StreamError: 7,
    errors.DownloadError: 7,
    errors.NotDownloadedError: 7,
    errors.BudgetExceededError: 8,
    errors.SaveError: PARTIAL,
    errors.JobPendingError: PENDING,
    Stopped: STOPPED,
}


def exit_code(error: BaseException) -> int:
    """Return the exit code of an error: the code of its nearest base class in the table, else 1.

    An `ApiError` with status 0 is a usage error: imgkit refused the call itself and sent nothing.
    """
    if isinstance(error, errors.ApiError) and getattr(error, "status", None) == 0:
        return USAGE
    return next((CODES_BY_ERROR[kind] for kind in type(error).__mro__ if kind in CODES_BY_ERROR), BUG)
