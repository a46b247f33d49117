"""Errors for error replies: the code decides first, then the status."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from imgkit import errors
from imgkit.providers.error_bodies import ErrorBody, read_error_body
from imgkit.providers.error_codes import find_meaning
from imgkit.providers.error_facts import find_categories, find_wait_s, trim_body
from imgkit.providers.nested_errors import NestedFinder
from imgkit.redact import Secret, safe_url, scrub
from imgkit.wire.headers import retry_after_s
from imgkit.wire.json_values import parse_json
from imgkit.wire.messages import Head

BY_STATUS: dict[int, type[errors.ApiError]] = {
    400: errors.BadRequestError,
    401: errors.AuthenticationError,
    402: errors.QuotaExceededError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    405: errors.NotFoundError,
    409: errors.ConflictError,
    410: errors.EndpointRetiredError,
    413: errors.BadRequestError,
    415: errors.BadRequestError,
    422: errors.BadRequestError,
    429: errors.RateLimitError,
}
NEXT_STEP: dict[type[errors.ImgkitError], str] = {
    errors.BadRequestError: "Change the request as the message says; repeating it unchanged does not help.",
    errors.ModerationBlockedError: "Rephrase the prompt or change the input; imgkit does not retry it.",
    errors.UnknownParameterError: "Leave the parameter out, or name a model that has it.",
    errors.InvalidImageError: "Change the input image as the message says.",
    errors.UnsupportedMediaTypeError: "Convert the input to PNG, JPEG or WebP.",
    errors.AuthenticationError: "Check the API key and its environment variable.",
    errors.PermissionDeniedError: "Ask the owner of the key for access to this model or endpoint.",
    errors.OrganizationNotVerifiedError: "Verify the organization in the provider's settings, then wait a "
    "few minutes.",
    errors.NotFoundError: "Check the model's name and base_url: this server has no such model or endpoint.",
    errors.ModelNotFoundError: "Name a model that this host serves and your project may use; this "
    "model may be retired.",
    errors.ModelRetiredError: "Name a newer model.",
    errors.EndpointRetiredError: "The provider has switched it off. Use another model or operation.",
    errors.ConflictError: "Try again after the other request has finished.",
    errors.RateLimitError: "Wait, then try again with fewer requests.",
    errors.QuotaExceededError: "Add credit or raise the spending cap; waiting does not help.",
    errors.BillingLimitError: "Raise the spending cap in the provider's settings; waiting does not help.",
    errors.RedirectRefusedError: "Set base_url to the address of the API.",
    errors.ServerError: "The API reports that it failed. Try again later.",
    errors.ApiError: "See the provider's documentation for this status.",
}

PAGE_ORIGIN = "This is a web page of a proxy, a firewall or another server, and not the API's own reply."
PAGE_STEPS: dict[type[errors.ImgkitError], str] = {
    errors.AuthenticationError: "Check base_url, and whether your proxy asks for a login.",
    errors.BadRequestError: "Check base_url and your proxy. If the page says that the request is too large, "
    "send smaller images.",
    errors.EndpointRetiredError: "Check base_url.",
    errors.NotFoundError: "Check base_url.",
    errors.PermissionDeniedError: "Check base_url, and whether your network lets you reach it.",
    errors.RateLimitError: NEXT_STEP[errors.RateLimitError],
}
"""Remedies by class for a web page, whose status is not the API's word."""

FREE_STATUSES = frozenset({500, 503})
"""Statuses under which OpenAI's own error object proves that nothing was billed."""

REPEATED = frozenset({errors.RateLimitError, errors.ServerError})
"""Classes whose requests the retry plugin repeats. Only the outer code or the status gives them."""

_OWN_NAME = re.compile(r"(?=.*[a-z])[A-Za-z][\w.]*")
_GATEWAY_NAME = re.compile(r"none|null|.*(gateway|proxy|upstream|time_?d?_?out)", re.IGNORECASE)


def error_from_reply(
    head: Head,
    body: bytes,
    secrets: tuple[Secret | str, ...] = (),
    *,
    next_steps: Mapping[str, str] | None = None,
    is_free: bool | None = None,
) -> errors.ImgkitError:
    """Return the error for an error reply, as `Provider.error` does.

    Args:
        head: of a reply outside 2xx, or of a 2xx reply with an error object.
        body: the reply's bytes.
        secrets: strings that must not appear in the message.
        next_steps: a provider's own remedies, by code.
        is_free: the result of `Provider.failure_is_free`; None applies the rule of OpenAI's dialect. A 5xx
            reply that is not free becomes an `OutcomeUnknownError`. What `imgkit serve` tells comes first.

    Example:
        >>> error = error_from_reply(Head(404, {}), b'{"error": {"message": "No such model"}}')
        >>> type(error).__name__, error.status
        ('NotFoundError', 404)
    """
    parsed = read_error_body(body)
    if is_free is None:
        is_free = is_free_failure(head, body)
    if parsed.maybe_billed is None:
        is_unknown = head.status < 200 or head.status == 408 or (head.status >= 500 and not is_free)
    else:
        # The class of a refusal says more, also of a paid image that the provider holds back.
        is_refusal = issubclass(_classify(head.status, parsed)[0], errors.ModerationBlockedError)
        is_unknown = parsed.maybe_billed and not is_refusal
    error: errors.ApiError | errors.OutcomeUnknownError
    if is_unknown:
        error = _build_unknown_outcome(head, parsed, secrets)
    else:
        error = _build_api_error(head, parsed, secrets, next_steps or {})
    error.body = trim_body(body, secrets)
    error.should_retry = _parse_should_retry(head)
    return error


def _build_unknown_outcome(
    head: Head, parsed: ErrorBody, secrets: tuple[Secret | str, ...]
) -> errors.OutcomeUnknownError:
    page = f" {PAGE_ORIGIN}" if parsed.is_page else ""
    problem = f"{_format_status(head.status)}{_format_request_id(head)}{_quote(parsed.message, secrets)}"
    hint = "Check your usage before you repeat the request."
    reason = " The reply does not prove that the API stopped: it may have created and billed an image."
    if parsed.maybe_billed:
        reason = ""  # the server has said so itself
    error = errors.OutcomeUnknownError(
        f"{problem}.{page}{reason} {hint}",
        request_id=head.request_id,
        status=head.status,
    )
    error.hint = hint
    error.retry_after_s = retry_after_s(head.headers)
    return error


def _build_api_error(
    head: Head, parsed: ErrorBody, secrets: tuple[Secret | str, ...], next_steps: Mapping[str, str]
) -> errors.ApiError:
    kind, remedy, known_code = _classify(head.status, parsed)
    code = known_code or parsed.code
    facts = _collect_facts(kind, head, parsed, code, secrets)
    is_billed = _is_billed(head.status, parsed, known_code)
    is_told = "billed" in parsed.message
    error = kind(
        _format_problem(kind, head, parsed, facts, secrets)
        + (" The call may have been billed." if is_billed and not is_told else ""),
        hint=next_steps.get(code or "") or remedy or NEXT_STEP[kind],
        **facts,
    )
    error.maybe_billed = is_billed
    return error


def _is_billed(status: int, parsed: ErrorBody, known_code: str | None) -> bool:
    """Return whether an error may cost money, as `imgkit serve` tells.

    Without its word, one under a success status may: a gateway gave up, or quotes another error. Only the
    API's own error object is free.
    """
    if parsed.maybe_billed is not None:
        return parsed.maybe_billed
    is_foreign = parsed.is_text_error or parsed.is_quoted or known_code is not None
    return status < 300 and is_foreign and known_code not in parsed.outer_codes


def _collect_facts(
    kind: type[errors.ApiError],
    head: Head,
    parsed: ErrorBody,
    code: str | None,
    secrets: tuple[Secret | str, ...],
) -> dict[str, Any]:
    """Return the arguments of an error: code, parameter and other facts of the reply."""
    wait_s = retry_after_s(head.headers)
    if wait_s is None and issubclass(kind, errors.RateLimitError | errors.ServerError):
        wait_s = find_wait_s(parsed)
    facts: dict[str, Any] = {
        "status": head.status,
        "code": _scrub_code(code, secrets),
        "type": _scrub_code(parsed.type, secrets),
        "param": _scrub_code(parsed.param, secrets),
        "request_id": _scrub_code(head.request_id, secrets),
        "retry_after_s": wait_s,
    }
    if issubclass(kind, errors.ModerationBlockedError):
        facts["stage"], facts["categories"] = find_categories(parsed)
    return facts


def _format_problem(
    kind: type[errors.ApiError],
    head: Head,
    parsed: ErrorBody,
    facts: Mapping[str, Any],
    secrets: tuple[Secret | str, ...],
) -> str:
    """Return the sentences of an error in front of its remedy."""
    redirect = issubclass(kind, errors.RedirectRefusedError) and "location" in head.headers
    target = f" to {_origin(head.headers['location'])}" if redirect else ""
    code = f", code {scrub(facts['code'], limit=60)}" if facts["code"] else ""
    where = f", param {scrub(facts['param'], limit=60)}" if facts["param"] else ""
    page = f" {PAGE_ORIGIN}" if parsed.is_page and head.status >= 400 else ""
    wait_s = facts["retry_after_s"]
    wait = f" The server asks to wait {wait_s:g} s." if wait_s else ""
    marks = f"{_format_status(head.status)}{target}{code}{where}{_format_request_id(head)}"
    return f"{marks}{_quote(parsed.message, secrets)}.{page}{wait}"


def refused(
    head: Head,
    message: str = "",
    *,
    stage: str | None = None,
    categories: Sequence[str] = (),
    code: str | None = None,
    secrets: tuple[Secret | str, ...] = (),
    maybe_billed: bool = False,
) -> errors.ModerationBlockedError:
    """Return the error for a reply by which the provider refuses the content, under any status.

    Some APIs report a refusal under status 200, in a member of the reply.

    Args:
        head: status and headers of the reply.
        message: the API's own words, "" if it gives none.
        stage: "input" for the prompt or an input image, "output" for the result, None if unknown.
        categories: the API's names of the refused content.
        code: the API's code of the refusal.
        secrets: strings that must not appear in the error.
        maybe_billed: the API may charge for the image that it has made and held back.

    Example:
        >>> error = refused(Head(200, {}), "Unsafe content", stage="output")
        >>> error.stage, error.problem
        ('output', 'HTTP 200 OK: the provider refused the content: Unsafe content.')
    """
    safe_code = _scrub_code(code, secrets)
    marks = f"{f', code {safe_code}' if safe_code else ''}{_format_request_id(head)}"
    billed = " The call may have been billed." if maybe_billed else ""
    error = errors.ModerationBlockedError(
        f"{_format_status(head.status)}{marks}: the provider refused the content{_quote(message, secrets)}."
        f"{billed}",
        hint=NEXT_STEP[errors.ModerationBlockedError],
        status=head.status,
        code=safe_code,
        request_id=_scrub_code(head.request_id, secrets),
        stage=stage,
        categories=tuple(scrub(name, secrets, 60) for name in categories[:20]),
    )
    error.maybe_billed = maybe_billed
    return error


def is_free_failure(head: Head, body: bytes) -> bool:
    """Return whether a 5xx reply is OpenAI's own error object, under a status that bills nothing.

    The object has a message, and a type or a code. Gateways answer in other shapes, name themselves or a
    timeout, or quote another server's error: the API may go on behind them.

    Example:
        >>> is_free_failure(Head(503, {}), b'{"error": {"message": "Overloaded", "type": "server_error"}}')
        True
        >>> is_free_failure(Head(503, {}), b'{"message": "Service Unavailable"}')
        False
    """
    if head.status not in FREE_STATUSES:
        return False
    try:
        value = parse_json(body)
    except ValueError:
        return False
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict):
        return False
    message = error.get("message")
    names = [name for name in (error.get("type"), error.get("code")) if name is not None]
    return (
        isinstance(message, str)
        and bool(message.strip())
        and NestedFinder().find(message) is None
        and any(isinstance(name, str) and _OWN_NAME.fullmatch(name) for name in names)
        and not any(isinstance(name, str) and _GATEWAY_NAME.match(name) for name in names)
    )


def _parse_should_retry(head: Head) -> bool | None:
    return {"true": True, "false": False}.get(head.headers.get("x-should-retry", "").strip().lower())


def _scrub_code(code: str | None, secrets: tuple[Secret | str, ...]) -> str | None:
    return None if code is None else scrub(code, secrets, 120)


def _classify(status: int, parsed: ErrorBody) -> tuple[type[errors.ApiError], str, str | None]:
    """Return the class of error, the remedy for its code or page, "" if it has none, and the known code."""
    kind: type[errors.ApiError] = errors.ApiError
    if 300 <= status < 400:
        kind = errors.RedirectRefusedError
    elif status >= 500:
        kind = errors.ServerError
    elif status >= 400:
        kind = BY_STATUS.get(status, errors.BadRequestError)
    meaning = find_meaning(
        status, parsed.codes, parsed.param, parsed.message, parsed.type, parsed.outer_codes
    )
    known_code: str | None = None
    if meaning is not None:
        known_code = next((code for code in parsed.codes if code in meaning.codes), None)
        is_own = known_code is None or known_code in parsed.outer_codes
        # An error within the error does not prove that a repetition is free.
        if is_own or meaning.error is kind or meaning.error not in REPEATED:
            return meaning.error, meaning.next, known_code
    remedy = PAGE_STEPS.get(kind, "Check base_url.") if parsed.is_page and status >= 400 else ""
    return kind, remedy, known_code


def _quote(message: str, secrets: tuple[Secret | str, ...]) -> str:
    text = scrub(message, secrets).rstrip(". ")
    return f": {text}" if text else ""


def _format_status(status: int) -> str:
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def _format_request_id(head: Head) -> str:
    return f", request id {scrub(head.request_id, limit=80)}" if head.request_id else ""


def _origin(url: str) -> str:
    """Return scheme, host and port of a redirect's target; path and query may grant access."""
    match = re.match(r"([a-z]+:)?//[^/?]+", safe_url(url))
    return match[0] if match else "another path"
