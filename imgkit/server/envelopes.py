"""Errors as OpenAI's envelope, with a status that lets no client send a paid request twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from imgkit import errors
from imgkit.errors import ImgkitError
from imgkit.models import (
    CreateImageEditRequest,
    CreateImageRequest,
    CreateImageVariationRequest,
    field_names,
)
from imgkit.redact import scrub

MAYBE_BILLED = 424
"""Status of an outcome that may be billed. The official SDKs for Python and JavaScript, LiteLLM, LangChain
and the Vercel SDK send a request with this status once; they repeat 408, 409, 429 and every 5xx (counted at
a server, 2026-11-28)."""

MAX_MESSAGE_CHARACTERS = 2000

_NOTHING_SENT = "Nothing was sent."
_MAYBE_BILLED = "It may have been billed"

_CODES: dict[type[ImgkitError], tuple[int, str, str]] = {
    errors.InvalidRequestError: (400, "invalid_request", "Correct the request."),
    errors.MissingModelError: (400, "missing_model", "Name a model, or start the server with --model."),
    errors.MissingKeyError: (401, "missing_key", "Start the server with the key of its provider."),
    errors.ServiceClosedError: (503, "server_stopping", "Send the request again once the server runs."),
    errors.ConfigurationError: (400, "configuration_error", "Start the server with other options."),
    errors.NotSentError: (503, "not_sent", "Nothing was sent and nothing was paid. Send the request again."),
    errors.BudgetExceededError: (
        402,
        "budget_exceeded",
        "The server's --max-cost sets the budget.",
    ),
    errors.FixtureMissingError: (
        404,
        "fixture_missing",
        "Nothing was sent. Record the request with --record, or correct it.",
    ),
    errors.CacheMissError: (404, "cache_miss", "Nothing was sent. Start the server with --cache to fill it."),
    errors.JobPendingError: (
        MAYBE_BILLED,
        "job_pending",
        "The provider still works on it, and it may be billed: do not send it again. `imgkit jobs wait` "
        "on the server collects the images.",
    ),
    errors.OutcomeUnknownError: (
        MAYBE_BILLED,
        "outcome_unknown",
        f"{_MAYBE_BILLED}: do not send it again before you have asked the provider.",
    ),
    errors.RateLimitError: (429, "rate_limit_exceeded", "Wait, then send the request again."),
    errors.QuotaExceededError: (402, "insufficient_quota", "Add credit to the account at the provider."),
    errors.ModerationBlockedError: (400, "moderation_blocked", "Change the prompt or the image."),
    errors.ApiError: (502, "api_error", ""),
    ImgkitError: (MAYBE_BILLED, "image_unavailable", f"{_MAYBE_BILLED}: do not send it again."),
}
"""Status, code and advice by class; the nearest base class counts. An API's own status comes first."""

PRICE_ADVICE = (
    "Start the server with --price-per-image USD or --allow-unknown-price, or give the prices of the model "
    "with --models FILE."
)

_FIELD_ADVICE = {
    "allow_unknown": PRICE_ADVICE,
}
"""Advice by the field of an error; it comes before that of the class."""

_PARAMETERS = frozenset(
    name
    for kind in (CreateImageRequest, CreateImageEditRequest, CreateImageVariationRequest)
    for name in field_names(kind)
)
"""Parameters of callers. Other fields of errors are arguments of Python, which no caller can set."""

_FREE_TO_REPEAT = (errors.NotSentError, errors.RateLimitError, errors.ServiceClosedError)


class Rejection(Exception):
    """A request that the server answers without a call. Nothing was sent to a provider.

    Args:
        status: HTTP status of the answer.
        code: short name of the problem, such as "invalid_host".
        message: problem, cause and remedy.
        param: the parameter that is wrong, None for none.
        headers: further headers of the answer.
        closes: the connection ends after the answer, because the rest of the request is not read.

    Example:
        >>> Rejection(404, "unknown_url", "There is no such address here.").status
        404
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        closes: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.headers = dict(headers or {})
        self.closes = closes


def reject_body(message: str, code: str = "invalid_body", *, param: str | None = None) -> Rejection:
    """Return the refusal of a body that cannot be read. The connection ends: its rest is unreadable, too."""
    return Rejection(400, code, f"{message} {_NOTHING_SENT}", param=param, closes=True)


def reject_value(param: str, message: str, code: str = "invalid_value") -> Rejection:
    """Return the refusal of a parameter."""
    return Rejection(400, code, f"{param}: {message} {_NOTHING_SENT}", param=param)


class ErrorReply(NamedTuple):
    """An error as the server sends it.

    Attributes:
        status: HTTP status.
        headers: by lower-case name.
        envelope: the JSON body, in OpenAI's form.
        maybe_billed: the call may be billed.
    """

    status: int
    headers: Mapping[str, str]
    envelope: Mapping[str, object]
    maybe_billed: bool = False


def build_error_reply(error: ImgkitError, call_id: str | None, *, was_repeated: bool = False) -> ErrorReply:
    """Return the reply for an error of a call.

    Args:
        error: the error.
        call_id: id of the call at the server, None if the request began no call.
        was_repeated: the server has waited and sent the request again already.
    """
    status, code, advice = next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)
    advice = _FIELD_ADVICE.get(error.field or "", advice)
    is_api = isinstance(error, errors.ApiError)
    if isinstance(error, errors.ApiError):
        status, code = _api_status(error, status), error.code or code
    # An image that came and cannot be saved or fetched was paid for, though its error may not say so.
    maybe_billed = error.maybe_billed or code == _CODES[ImgkitError][1]
    if maybe_billed:
        status = MAYBE_BILLED
        advice = advice if code in ("job_pending", "outcome_unknown") else _CODES[ImgkitError][2]
    facts: dict[str, object] = {
        "class": type(error).__name__,
        "maybe_billed": maybe_billed,
        "advice": advice or (error.hint if is_api else None),
        "call_id": call_id,
    }
    jobs = [job.id for job in getattr(error, "jobs", ())]
    if jobs:
        facts["jobs"] = jobs
    if request_id := getattr(error, "request_id", None):
        facts["request_id"] = request_id
    message = " ".join(filter(None, [error.problem, _shorten_advice(advice, error.problem)]))
    param = getattr(error, "param", None) or (error.field if error.field in _PARAMETERS else None)
    if isinstance(error, errors.InvalidRequestError):
        param = next(iter(error.fields), None)
        message = "; ".join(f"{path}: {text}" for path, text in error.fields.items())
        message += "" if _NOTHING_SENT in message else f" {_NOTHING_SENT}"
    # A client that repeats what the server has repeated multiplies the requests of a rate limit.
    is_exhausted = isinstance(error, errors.RateLimitError) and (was_repeated or error.should_retry is False)
    headers = {"x-should-retry": "true" if may_repeat(error) and not is_exhausted else "false"}
    if may_repeat(error):
        headers["retry-after"] = str(max(1, round(getattr(error, "retry_after_s", None) or 1)))
    kind = getattr(error, "type", None) if is_api else None
    envelope = _build_envelope(message, kind or _choose_type(status), param, code, facts)
    return ErrorReply(status, headers, envelope, maybe_billed)


def build_bug_reply(error: BaseException, call_id: str | None, *, was_begun: bool) -> ErrorReply:
    """Return the reply for an error that is no error of imgkit: a bug. It may have been billed."""
    facts: dict[str, object] = {
        "class": type(error).__name__,
        "maybe_billed": was_begun,
        "advice": f"{_MAYBE_BILLED}: do not send it again." if was_begun else None,
        "call_id": call_id,
    }
    message = f"This is a bug in imgkit ({type(error).__name__}). Please report it with the server's log."
    status = MAYBE_BILLED if was_begun else 500
    envelope = _build_envelope(message, "server_error", None, "internal_error", facts)
    return ErrorReply(status, {"x-should-retry": "false"}, envelope, was_begun)


def build_rejection(rejected: Rejection) -> ErrorReply:
    """Return the reply for a request that the server refuses."""
    facts = {"class": "Rejection", "maybe_billed": False, "call_id": None}
    envelope = _build_envelope(
        rejected.message, _choose_type(rejected.status), rejected.param, rejected.code, facts
    )
    return ErrorReply(rejected.status, rejected.headers, envelope)


def may_repeat(error: ImgkitError) -> bool:
    """Return whether the request may be sent again later: nothing was paid, and it may succeed then."""
    if error.maybe_billed or isinstance(error, errors.QuotaExceededError):
        return False
    return isinstance(error, _FREE_TO_REPEAT) and not getattr(error, "permanent", False)


def _api_status(error: errors.ApiError, default: int) -> int:
    """Return the status of an API's error; credit that is missing is no reason to wait and send again."""
    if isinstance(error, errors.QuotaExceededError):
        return default
    return error.status if 400 <= error.status <= 599 else 400 if not error.status else default


def _shorten_advice(advice: str, problem: str) -> str:
    """Return the advice without the sentences of the problem: that the request may be billed, and the rest.

    A server behind this one may have given the same advice.

    >>> _shorten_advice("It may have been billed: do not send it again.", "The API may have billed it.")
    'Do not send it again.'
    """
    start, _, rest = advice.partition(": ")
    if start != _MAYBE_BILLED or "billed" not in problem:
        return advice
    rest = rest[:1].upper() + rest[1:]
    return "" if rest in problem else rest


def _choose_type(status: int) -> str:
    names = {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        429: "rate_limit_error",
    }
    return names.get(
        status, "server_error" if status >= 500 or status == MAYBE_BILLED else "invalid_request_error"
    )


def _build_envelope(
    message: str, kind: str, param: str | None, code: str | None, facts: Mapping[str, object]
) -> dict[str, object]:
    text = scrub(message, limit=MAX_MESSAGE_CHARACTERS)
    return {"error": {"message": text, "type": kind, "param": param, "code": code, "imgkit": facts}}
