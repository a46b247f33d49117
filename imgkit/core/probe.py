"""One free request that tells whether a key works, and which models the host lists."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from email.utils import parsedate_to_datetime
from typing import Any

from imgkit.core.core import Core
from imgkit.core.send import authenticate, collect_secrets
from imgkit.errors import ConfigurationError, ImgkitError, UnreadableReplyError
from imgkit.plugins.events import Call
from imgkit.redact import Secret, scrub
from imgkit.runtime.flow import Flow, read_chunk, send_request
from imgkit.wire.json_values import parse_json
from imgkit.wire.messages import HttpRequest

LARGEST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedModel:
    """A model as the host lists it.

    Attributes:
        id: its name.
        shutdown: when it is switched off, None where the host does not say.
    """

    id: str
    shutdown: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What one free request has told.

    Attributes:
        url: that was asked.
        signed: the request carried a key.
        elapsed_s: seconds until the whole reply was there.
        request_id: the API's id of the request.
        organization: that the key belongs to, as the API says; not shown by repr.
        clock_ahead_s: seconds by which the clock here is ahead of the server's, None if that told no time.
        models: in the host's order.
        problem: the error that it ended with, None if it succeeded.
    """

    url: str
    signed: bool = False
    elapsed_s: float = 0.0
    request_id: str | None = None
    organization: Secret | None = None
    clock_ahead_s: float | None = None
    models: tuple[ListedModel, ...] = ()
    problem: ImgkitError | None = None


def probe_host(core: Core) -> Flow[Probe]:
    """Ask the host for its models. The request is free and sent once.

    Returns:
        The facts of the reply; an error of the wire or of the API is in ``problem``.

    Raises:
        ConfigurationError: the provider has no such request, or no key where one is needed; nothing was
            sent.
    """
    models_request = getattr(core.provider, "models_request", None)
    if models_request is None:
        raise ConfigurationError(f"provider {core.provider_name} has no free request to ask")
    request: HttpRequest = models_request(core.target)
    call = Call(
        id=uuid.uuid4().hex,
        operation="create_image",  # what the key is for; no observer is told of this
        backend=core.backend_name,
        provider=core.provider_name,
        base_url=core.target.base_url,
        host_class=core.target.host_class,
        timeout_s=core.limits.timeout_s,
    )
    signed = yield from authenticate(request, core.table, call)
    secrets = collect_secrets(signed)
    facts: dict[str, Any] = {"url": request.url, "signed": bool(secrets)}
    began, now = time.monotonic(), time.time()
    try:
        head = yield from send_request(signed)
        facts["request_id"] = head.request_id and scrub(head.request_id, secrets, 80)
        facts["clock_ahead_s"] = _ahead_s(head.headers, (now + time.time()) / 2)
        data = bytearray()
        while chunk := (yield from read_chunk()):
            data += chunk
            if len(data) > LARGEST_BYTES:
                raise _no_list(head.status, "it is too long")
        facts["elapsed_s"] = time.monotonic() - began
        if not 200 <= head.status < 300:
            raise core.provider.error(head, bytes(data), secrets)
        named = head.headers.get("openai-organization")
        facts["organization"] = Secret(named) if named else None
        facts["models"] = _models(head.status, bytes(data))
    except ImgkitError as error:
        facts["problem"] = error
    return Probe(**facts)


def _models(status: int, data: bytes) -> tuple[ListedModel, ...]:
    try:
        reply = parse_json(data)
    except ValueError as error:
        raise _no_list(status, scrub(str(error), limit=200)) from None
    entries = reply.get("data") if isinstance(reply, dict) else None
    if not isinstance(entries, list):
        raise _no_list(status, "it has no data")
    return tuple(
        ListedModel(id=scrub(one["id"], limit=100), shutdown=_date(one.get("shutdown_date")))
        for one in entries
        if isinstance(one, dict) and isinstance(one.get("id"), str)
    )


def _no_list(status: int, why: str) -> UnreadableReplyError:
    return UnreadableReplyError(
        f"HTTP {status}, but the reply is no list of models: {why}. Is base_url right?"
    )


def _date(text: object) -> date | None:
    try:
        return date.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _ahead_s(headers: Mapping[str, str], now: float) -> float | None:
    """Return by how much this machine's clock is ahead of a reply's Date, which has whole seconds."""
    try:
        return now - (parsedate_to_datetime(headers["date"]).timestamp() + 0.5)
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
