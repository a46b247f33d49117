"""Free requests: polls, uploads and questions beside a paid request. Their failures cost nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple
from urllib.parse import urlsplit

from imgkit.core.context import CallContext
from imgkit.core.reply_body import read_body
from imgkit.core.send import authenticate
from imgkit.core.sent_secrets import collect_secrets
from imgkit.errors import (
    ApiError,
    ImgkitError,
    OutcomeUnknownError,
    ServerError,
    TransportError,
    UnreadableReplyError,
)
from imgkit.providers.error_bodies import read_error_body
from imgkit.redact import scrub
from imgkit.runtime.flow import Flow, send_request
from imgkit.wire.json_body import JsonReply
from imgkit.wire.messages import Head, HttpRequest
from imgkit.wire.secret_filter import SecretFilter
from imgkit.wire.urls import origin


def to_free_error(error: ImgkitError, missing: str) -> ImgkitError:
    """Return the error for a failed free request: it costs nothing, so no outcome is in doubt.

    Args:
        error: as a paid request would raise it.
        missing: the content that did not arrive, such as "list of models".
    """
    if not isinstance(error, OutcomeUnknownError):
        error.maybe_billed = False
        return error
    facts = "The request was free. Check base_url, proxy and network, then try again."
    if error.status is None:
        failure = TransportError(f"No complete {missing} arrived. {error.reason or error} {facts}")
        failure.reason = error.reason
        return failure
    words = scrub(read_error_body(error.body).message).rstrip(". ")
    request_id = f", request id {scrub(error.request_id, limit=80)}" if error.request_id else ""
    error_type = ServerError if error.status >= 500 else ApiError
    reply_error = error_type(
        f"HTTP {error.status}{request_id}{f': {words}' if words else ''}. No {missing} arrived. {facts}",
        status=error.status,
        request_id=error.request_id,
        retry_after_s=error.retry_after_s,
    )
    reply_error.body, reply_error.should_retry = error.body, error.should_retry
    return reply_error


class FailedRequest(NamedTuple):
    """A free request that told nothing; another attempt may.

    Attributes:
        problem: the failure, a sentence.
        wait_s: the pause that the server asks for, None if it asks for none.
    """

    problem: str
    wait_s: float | None = None


class FreeReply(NamedTuple):
    """The whole reply to a free request.

    Attributes:
        head: status and headers without secrets.
        body: the body.
        secrets: removes the secrets that were sent.
    """

    head: Head
    body: JsonReply
    secrets: SecretFilter


def send_free_request(context: CallContext, request: HttpRequest) -> Flow[FreeReply | FailedRequest]:
    """Send a free request once, and read its reply to the end, of any status.

    Args:
        context: the call.
        request: without credentials, to a host that may have the key.

    Returns:
        The reply, or the failure of the wire.

    Raises:
        ImgkitError: there are no credentials.
    """
    core, call = context.core, context.call
    if origin(request.url) != origin(call.base_url):
        call = replace(call, base_url="{}://{}".format(*urlsplit(request.url)[:2]))
    signed = yield from authenticate(request, core.table, call)
    secrets = core.sent.remember(collect_secrets(signed, context.request))
    try:
        head = yield from send_request(signed)
        head = Head(head.status, secrets.clean_headers(head.headers))
        body = yield from read_body(context, head, secrets, spool=False)
    except (TransportError, UnreadableReplyError) as error:
        secrets.clean_error(error)
        # The reason alone: the rest of the message is about requests that may be billed.
        return FailedRequest(scrub(getattr(error, "reason", "") or error.problem, limit=300))
    return FreeReply(head, body, secrets)
