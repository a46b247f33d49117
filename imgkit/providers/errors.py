"""From an error reply to the error tree: by code first, then by status."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from imgkit import errors as tree
from imgkit.providers.error_codes import meaning_of
from imgkit.redact import Secret, safe_url, scrub
from imgkit.wire.headers import retry_after_s
from imgkit.wire.json_values import parse_json
from imgkit.wire.messages import Head

BY_STATUS: dict[int, type[tree.ApiError]] = {
    400: tree.BadRequestError,
    401: tree.AuthenticationError,
    402: tree.QuotaExceededError,
    403: tree.PermissionDeniedError,
    404: tree.NotFoundError,
    405: tree.NotFoundError,
    409: tree.ConflictError,
    410: tree.EndpointRetiredError,
    413: tree.BadRequestError,
    415: tree.BadRequestError,
    422: tree.BadRequestError,
    429: tree.RateLimitError,
}
NEXT_STEP: dict[type[tree.ImgkitError], str] = {
    tree.BadRequestError: "Change the request as the message says; repeating it as it is will not help.",
    tree.ModerationBlockedError: "Rephrase the prompt or change the input; it is not retried as it is.",
    tree.UnknownParameterError: "Leave the parameter out, or name a model that knows it.",
    tree.InvalidImageError: "Change the input picture as the message says.",
    tree.UnsupportedMediaTypeError: "Convert the input to PNG, JPEG or WebP.",
    tree.AuthenticationError: "Check the API key and its environment variable.",
    tree.PermissionDeniedError: "Ask whoever owns the key for access to this model or endpoint.",
    tree.OrganizationNotVerifiedError: "Verify the organisation in the provider's settings, then wait a "
    "few minutes.",
    tree.NotFoundError: "Check the model's name and base_url: this server has no such model or endpoint.",
    tree.ModelNotFoundError: "Name a model that this host serves and your project may use: this one may be "
    "retired.",
    tree.ModelRetiredError: "Name a newer model.",
    tree.EndpointRetiredError: "The provider has switched it off: use another model or operation.",
    tree.ConflictError: "Try again when the other request is done.",
    tree.RateLimitError: "Wait, then try again more slowly.",
    tree.QuotaExceededError: "Add credit or raise the spending cap; waiting does not help.",
    tree.BillingLimitError: "Raise the spending cap in the provider's settings; waiting does not help.",
    tree.RedirectRefusedError: "Set base_url to where the API really is.",
    tree.ServerError: "The API reports that it failed; try again later.",
    tree.ApiError: "See the provider's documentation for this status.",
}

GAVE_UP = frozenset({408, 502, 504, *range(520, 525)})
"""Statuses of gateways that stopped waiting: behind them the picture may still be made and billed."""


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What an error reply says, whatever its shape.

    Attributes:
        message: "" where it says nothing.
        code, type, param: None where they are not given.
        details: the error object, or {}.
        inner: the error within the error, or {}; its code tells more than the outer one.
        structured: it was JSON of the API's own, not a gateway's page.
    """

    message: str = ""
    code: str | None = None
    type: str | None = None
    param: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    inner: Mapping[str, Any] = field(default_factory=dict)
    structured: bool = False

    @property
    def codes(self) -> tuple[str, ...]:
        """All codes that it holds, the outer one first."""
        return tuple(code for code in (self.code, _word(self.inner.get("code"))) if code)


def read_error_body(body: bytes) -> ErrorBody:
    """Read any shape in use: OpenAI's, Azure's, Google's, FastAPI's, RFC 9457's, text, HTML, nothing."""
    try:
        value = parse_json(body)
    except ValueError:
        return ErrorBody(_page_text(body))
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict) and "error" in value[0]:
        value = value[0]  # Google's servers put the object into a list
    if not isinstance(value, dict):
        return ErrorBody("" if value is None else _plain(value), structured=value is not None)
    error = value.get("error") or value
    if not isinstance(error, dict):
        error = {**value, "message": error}
    text = error.get("message") or error.get("detail") or error.get("title") or ""
    # RFC 9457 "type" is a URI and "code" may repeat the HTTP status: neither tells anything.
    return ErrorBody(
        message=_readable(text),
        code=_word(error.get("code")),
        type=_word(error.get("type")),
        param=_word(error.get("param")),
        details=error,
        inner=_inner(error),
        structured=True,
    )


def error_from_reply(
    head: Head,
    body: bytes,
    secrets: tuple[Secret | str, ...] = (),
    *,
    next_steps: Mapping[str, str] | None = None,
) -> tree.ImgkitError:
    """Return the error that a reply means.

    Args:
        head: of a reply that is not a success, or of a success that holds an error object.
        body: of the same.
        secrets: strings that must not appear in the message.
        next_steps: a provider's own advice, by code.
    """
    said = read_error_body(body)
    kind, advice = _judged(head.status, said)
    should_retry = _should_retry(head)
    if kind is None:
        unknown = tree.OutcomeUnknownError(
            f"{_status(head.status)} from a gateway instead of the API"
            f"{_quoted(said.message, secrets)}: a picture may have been made and billed; it is not "
            f"repeated by itself{_id(head)}.",
            request_id=head.request_id,
            status=head.status,
        )
        unknown.should_retry = should_retry
        return unknown
    facts: dict[str, Any] = {
        "status": head.status,
        "code": _clean(said.code, secrets),
        "type": _clean(said.type, secrets),
        "param": _clean(said.param, secrets),
        "request_id": _clean(head.request_id, secrets),
        "retry_after_s": retry_after_s(head.headers),
    }
    if issubclass(kind, tree.ModerationBlockedError):
        facts |= _moderation(said)
    advice = (next_steps or {}).get(said.code or "") or advice or NEXT_STEP[kind]
    where = f", param {scrub(facts['param'], limit=60)}" if said.param else ""
    code = f", code {scrub(facts['code'], limit=60)}" if said.code else ""
    redirect = issubclass(kind, tree.RedirectRefusedError) and "location" in head.headers
    target = f" to {_origin(head.headers['location'])}" if redirect else ""
    wait = f" The server asks to wait {facts['retry_after_s']:g} s." if facts["retry_after_s"] else ""
    error = kind(
        f"{_status(head.status)}{target}{code}{where}{_id(head)}{_quoted(said.message, secrets)}."
        f"{wait} {advice}",
        **facts,
    )
    error.should_retry = should_retry
    return error


def _should_retry(head: Head) -> bool | None:
    return {"true": True, "false": False}.get(head.headers.get("x-should-retry", "").strip().lower())


def _clean(word: str | None, secrets: tuple[Secret | str, ...]) -> str | None:
    return None if word is None else scrub(word, secrets, 120)


def _judged(status: int, said: ErrorBody) -> tuple[type[tree.ApiError] | None, str]:
    """Return the class of error, None for an unknown outcome, and what to do where the code tells that."""
    if status in GAVE_UP or status < 200 or (status >= 500 and not said.structured):
        return None, ""
    if meaning := meaning_of(status, said.codes, said.param, said.message):
        return meaning.error, meaning.next
    if 300 <= status < 400:
        return tree.RedirectRefusedError, ""
    if status in BY_STATUS:
        return BY_STATUS[status], ""
    if 500 <= status < 600:
        return tree.ServerError, ""
    return (tree.BadRequestError if 400 <= status < 500 else tree.ApiError), ""


def _inner(error: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the error within an error as Azure has it, and as LiteLLM passes it on; {} if there is none."""
    passed_on = error.get("provider_specific_fields")
    for place in (error, passed_on if isinstance(passed_on, dict) else {}):
        for name in ("innererror", "inner_error"):
            if isinstance(found := place.get(name), dict):
                return found
    return {}


def _moderation(said: ErrorBody) -> dict[str, Any]:
    """Return what was found and where: as OpenAI tells it, or those of Azure's filters that took effect."""
    found = said.details.get("moderation_details")
    found = found if isinstance(found, dict) else {}
    categories = found.get("categories")
    if not isinstance(categories, list):
        filters = said.inner.get("content_filter_result", said.inner.get("content_filter_results"))
        categories = [
            name
            for name, result in (filters.items() if isinstance(filters, dict) else ())
            if isinstance(result, dict) and result.get("filtered") is True
        ]
    return {
        "stage": _word(found.get("moderation_stage")),
        "categories": tuple(str(name)[:60] for name in categories[:20]),
    }


def _readable(text: Any) -> str:
    """Return an error text; FastAPI's list of {loc, msg} becomes one line."""
    if isinstance(text, str):
        return text
    if isinstance(text, list):
        lines = []
        for item in text[:5]:
            if isinstance(item, dict):
                loc = item.get("loc")
                path = ".".join(_plain(step) for step in loc) if isinstance(loc, list) else ""
                lines.append(f"{path}: {_plain(item.get('msg', ''))}".strip(": "))
            else:
                lines.append(_plain(item))
        return "; ".join(lines)
    return _plain(text)


def _plain(value: Any) -> str:
    try:
        return str(value)[:2000]
    except RecursionError:  # JSON can be read a little deeper than it can be shown
        return ""


def _word(value: Any) -> str | None:
    """Return a code-like value as text; None for nothing, objects, and a mere HTTP status."""
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return None
    text = str(value)[:120]
    return None if re.fullmatch(r"[1-5]\d\d", text) else text


def _page_text(body: bytes) -> str:
    """Return what a text or HTML page says, without its markup."""
    text = body[:4096].decode("utf-8", "replace")
    if "<" in text:
        text = re.sub(r"(?is)<(script|style)\b.*?(?:</\1\s*>|\Z)|</?[a-z!?][^>]*(?:>|\Z)", " ", text)
    return " ".join(html.unescape(text).split())


def _quoted(message: str, secrets: tuple[Secret | str, ...]) -> str:
    text = scrub(message, secrets).rstrip(". ")
    return f": {text}" if text else ""


def _status(status: int) -> str:
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def _id(head: Head) -> str:
    return f", request id {scrub(head.request_id, limit=80)}" if head.request_id else ""


def _origin(url: str) -> str:
    """Return scheme, host and port of a redirect's target; its path and query may be permissions."""
    found = re.match(r"([a-z]+:)?//[^/?]+", safe_url(url))
    return found[0] if found else "another path"
