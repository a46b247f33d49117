"""Free requests: polls, uploads and questions beside a paid request. Their failures cost nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple
from urllib.parse import urlsplit

from imgkit.core.context import CallContext
from imgkit.core.reply_body import read_body
from imgkit.core.send import authenticate
from imgkit.core.sent_secrets import collect_secrets
from imgkit.errors import TransportError, UnreadableReplyError
from imgkit.redact import scrub
from imgkit.runtime.flow import Flow, send_request
from imgkit.wire.json_body import JsonReply
from imgkit.wire.messages import Head, HttpRequest
from imgkit.wire.secret_filter import SecretFilter
from imgkit.wire.urls import origin


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
