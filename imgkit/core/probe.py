"""The probe: one free request that tells whether a host answers, a key works, and which models it lists."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from email.utils import parsedate_to_datetime
from typing import Literal, TypeAlias

from imgkit.core.core import Core
from imgkit.core.free_requests import to_free_error
from imgkit.core.key_checks import build_check_call
from imgkit.core.provider_calls import to_reply_error
from imgkit.core.send import authenticate
from imgkit.core.sent_secrets import collect_secrets
from imgkit.errors import (
    ConfigurationError,
    ImgkitError,
    UnreadableReplyError,
)
from imgkit.providers.reply_images import quote_start
from imgkit.redact import Secret, scrub
from imgkit.runtime.flow import Flow, read_chunk, send_request
from imgkit.wire.json_values import parse_json
from imgkit.wire.messages import Head, HttpRequest
from imgkit.wire.secret_filter import SecretFilter

MAX_BYTES = 4 * 1024 * 1024
"""Largest list of models that is read."""

ProbeKind: TypeAlias = Literal["models", "key", "host"]
"""``models``: the list of models. ``key``: another free request that needs the key. ``host``: the address,
without the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedModel:
    """A model in the list of a host.

    Attributes:
        id: its name.
        shutdown: date of its shutdown, None if the host does not tell.
    """

    id: str
    shutdown: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The result of a probe.

    Attributes:
        url: URL of the request.
        kind: the kind of the request.
        status: HTTP status of the reply, None without a reply.
        signed: the request carried a key.
        elapsed_s: seconds until the end of the reply.
        request_id: the API's id of the request.
        organization: organization of the key, as the API tells it; repr hides it.
        clock_ahead_s: seconds by which the local clock is ahead of the server's, None without a date.
        models: the models in the host's order.
        problem: the error of the wire or of the API, None after success.
    """

    url: str
    kind: ProbeKind = "models"
    status: int | None = None
    signed: bool = False
    elapsed_s: float = 0.0
    request_id: str | None = None
    organization: Secret | None = None
    clock_ahead_s: float | None = None
    models: tuple[ListedModel, ...] = ()
    problem: ImgkitError | None = None


def list_models(core: Core) -> Flow[tuple[ListedModel, ...]]:
    """Return the models that the host lists, in its order.

    Raises:
        ConfigurationError: as `probe_host`.
        ImgkitError: the problem of the probe.
    """
    if core.provider.models_request(core.target) is None:
        raise ConfigurationError(f"Provider {core.provider_name} has no free request for a list of models.")
    probe = yield from probe_host(core)
    if probe.problem is not None:
        raise probe.problem
    return probe.models


def choose_request(core: Core) -> tuple[HttpRequest, ProbeKind]:
    """Return the free request that tells the most about a host, without credentials."""
    request = core.provider.models_request(core.target)
    if request is not None:
        return request, "models"
    path = core.catalogue.account.get("check_path")
    url = f"{core.target.base_url}{path or '/'}"
    return HttpRequest("GET", url, {"accept": "application/json"}), "key" if path else "host"


def probe_host(core: Core) -> Flow[Probe]:
    """Ask the host for its models, or for another free reply. The request is sent once.

    Returns:
        The facts of the reply; an error of the wire or of the API is in ``problem``.

    Raises:
        ConfigurationError: there is no key where one is needed; nothing was sent.
    """
    request, kind = choose_request(core)
    call = build_check_call(core)
    signed = request if kind == "host" else (yield from authenticate(request, core.table, call))
    credentials = collect_secrets(signed)
    secrets = core.sent.remember(credentials)
    probe = Probe(url=request.url, kind=kind, signed=bool(credentials))
    started, now = time.monotonic(), time.time()
    try:
        head = yield from send_request(signed)
        organization = Secret(head.headers.get("openai-organization", ""))
        head = Head(head.status, secrets.clean_headers(head.headers))
        probe = replace(
            probe,
            status=head.status,
            request_id=head.request_id,
            clock_ahead_s=_clock_ahead_s(head.headers, (now + time.time()) / 2),
        )
        body = yield from _read_body(head, secrets)
        probe = replace(probe, elapsed_s=time.monotonic() - started)
        if kind == "host":
            return probe
        if not 200 <= head.status < 300:
            raise to_reply_error(core, head, body, secrets.secrets)
        probe = replace(probe, organization=organization if organization.reveal() else None)
        models = _parse_models(head, body, secrets.secrets, kind)
        return replace(probe, models=models)
    except ImgkitError as error:
        missing = "list of models" if kind == "models" else "reply of the API"
        problem = to_free_error(error, missing)
        secrets.clean_error(problem)
        return replace(probe, problem=problem)


def _read_body(head: Head, secrets: SecretFilter) -> Flow[bytes]:
    """Return the body of the open reply without secrets."""
    data = bytearray()
    while chunk := (yield from read_chunk()):
        data += chunk
        if len(data) > MAX_BYTES:
            del chunk, data  # tracebacks may show local variables
            raise _no_list_error(head, "it is too long")
    return secrets.clean_bytes(bytes(data))


def _parse_models(
    head: Head, data: bytes, secrets: tuple[Secret, ...], kind: ProbeKind
) -> tuple[ListedModel, ...]:
    try:
        reply = parse_json(data)
    except ValueError as error:
        reason = scrub(str(error), limit=200)
        raise _no_list_error(head, reason, quote_start(data, secrets), kind) from None
    if kind != "models":
        return ()
    entries = reply.get("data", reply.get("models")) if isinstance(reply, dict) else reply
    if not isinstance(entries, list) or (entries and not any(isinstance(each, dict) for each in entries)):
        raise _no_list_error(head, "it has no data", quote_start(data, secrets))
    return tuple(
        ListedModel(id=scrub(name, limit=100), shutdown=_parse_date(entry.get("shutdown_date")))
        for entry in entries
        if isinstance(entry, dict) and (name := _read_model_name(entry)) is not None
    )


def _read_model_name(entry: Mapping[str, object]) -> str | None:
    """Return the id of a listed model, or Google's name of it."""
    if isinstance(name := entry.get("id"), str):
        return name
    return name.removeprefix("models/") if isinstance(name := entry.get("name"), str) else None


def _no_list_error(
    head: Head, reason: str, quote: str = "", kind: ProbeKind = "models"
) -> UnreadableReplyError:
    wanted = "list of models" if kind == "models" else "reply of the API"
    media_type = scrub(head.headers.get("content-type", "").partition(";")[0], limit=60) or "unnamed"
    return UnreadableReplyError(
        f"HTTP {head.status}, but the reply is no {wanted}: {reason} ({media_type} content)."
        f"{f' {quote}' if quote else ''} Check base_url."
    )


def _parse_date(text: object) -> date | None:
    try:
        return date.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _clock_ahead_s(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds by which the local clock is ahead of a reply's Date, which has whole seconds."""
    try:
        return now - (parsedate_to_datetime(headers["date"]).timestamp() + 0.5)
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
