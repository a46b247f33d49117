"""One table: from error classes to exit codes."""

from __future__ import annotations

from imgkit import errors

OK = 0
BUG = 1
USAGE = 2
PARTLY = 9
STOPPED = 130


class Stopped(Exception):
    """Ctrl-C while a call was under way, with what is known about money."""


MEANING = {
    OK: "done",
    BUG: "a bug in imgkit; for `doctor`, `cassette check` and `mask --check`: something is wrong",
    USAGE: "usage, configuration or an invalid request; nothing was sent",
    3: "authentication, missing key, permission or verification",
    4: "rate limit or quota",
    5: "refused by the content policy",
    6: "rejected by the API, an answer without pictures, or nothing in the cache or among the fixtures",
    7: "network, timeout, unknown outcome, server error, unreadable reply, cut stream, download",
    8: "over the budget; nothing was sent",
    PARTLY: "partly done: what was paid for is there, but not all of it where you asked",
    STOPPED: "stopped by Ctrl-C",
}

OF_ERROR: dict[type[BaseException], int] = {
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
    errors.SaveError: PARTLY,
    Stopped: STOPPED,
}


def exit_code(error: BaseException) -> int:
    """Return the exit code of an error: that of its nearest class in the table, else 1.

    What an API is known to refuse is refused without asking it: an `ApiError` with status 0.
    """
    if isinstance(error, errors.ApiError) and getattr(error, "status", None) == 0:
        return USAGE
    return next((OF_ERROR[kind] for kind in type(error).__mro__ if kind in OF_ERROR), BUG)


def described() -> str:
    """Return the table as text for ``--help``."""
    return "\n".join(f"  {code:>3}  {meaning}" for code, meaning in MEANING.items())
