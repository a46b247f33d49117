"""`imgkit doctor --live`: one free request, and what it means."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any

from imgkit.cli import messages as wording
from imgkit.cli import values
from imgkit.cli.doctor_checks import Finding
from imgkit.core.core import DEFAULT_BACKEND
from imgkit.core.probe import ListedModel, Probe
from imgkit.errors import (
    ImgkitError,
    NotFoundError,
    NotSentError,
    OutcomeUnknownError,
    QuotaExceededError,
    RateLimitError,
)
from imgkit.redact import safe_url
from imgkit.service import ImageService

BACKEND = "requests"
"""Used where none is named that reaches a network."""

TIMEOUTS = {"timeout_s": 20.0, "connect_timeout_s": 5.0, "read_timeout_s": 15.0}
SKEW_S = 300.0
"""A clock that is wrong by more makes tokens and links seem expired, or not valid yet."""

MOST_SHOWN = 12


def examined(given: Mapping[str, Any], api_key_file: str | None) -> Iterator[Finding]:
    """Yield what one free request tells, or why it was not sent.

    Args:
        given: arguments of `ImageService`.
        api_key_file: where the key is; None for the provider's variables.
    """
    settings = {**TIMEOUTS, **given}
    if (settings.get("backend") or os.environ.get("IMGKIT_BACKEND") or DEFAULT_BACKEND) == DEFAULT_BACKEND:
        settings["backend"] = BACKEND
    try:
        if api_key_file is not None:
            settings["api_key"] = values.read_key(api_key_file)
        with ImageService(**{**settings, "retry": False}) as service:
            target = service._core.target
            known = {model.id for model in service._core.catalogue.list_models()}
            found = service.probe()
    except ImgkitError as error:
        yield Finding("wrong", f"live: nothing was sent: {wording.message(error)}")
        return
    where = f"GET {safe_url(found.url)}"
    if found.problem is not None:
        yield _failed(where, found.problem)
    else:
        yield from _answered(where, found, known, target.model)
    if found.clock_ahead_s is not None:
        yield _skew(found.clock_ahead_s)


def _failed(where: str, error: ImgkitError) -> Finding:
    """Return what a failure means. The request was free, so nothing here is about money."""
    if isinstance(error, NotSentError):
        return Finding("wrong", f"live: {where}: {error}")
    if isinstance(error, OutcomeUnknownError):
        how = f"HTTP {error.status} from a gateway" if error.status else "no whole answer in time"
        return Finding(
            "wrong", f"live: {where}: {how}. Check base_url, proxy and network; the request was free"
        )
    if isinstance(error, RateLimitError) and not isinstance(error, QuotaExceededError):
        return Finding("note", f"live: {where}: {error}")
    if isinstance(error, NotFoundError):
        return Finding(
            "note", f"live: {where}: {error} Servers that list no models may serve them all the same"
        )
    return Finding("wrong", f"live: {where}: {error}")


def _answered(where: str, found: Probe, known: set[str], model: str | None) -> Iterator[Finding]:
    key = "the key works" if found.signed else "it answers without a key"
    told = f", request id {found.request_id}" if found.request_id else ""
    yield Finding("ok", f"live: {where}: {key} ({found.elapsed_s:.2f} s{told})")
    if found.organization is not None:
        yield Finding("ok", f"live: organisation {found.organization.hint()}")
    ours = [one for one in found.models if one.id in known or "image" in one.id or "dall-e" in one.id]
    shown = ", ".join(map(_described, ours[:MOST_SHOWN])) + (", …" if len(ours) > MOST_SHOWN else "")
    yield Finding(
        "ok", f"live: {len(found.models)} models, for pictures: {shown or 'none that imgkit knows of'}"
    )
    today = datetime.now(UTC).date()
    used = next((one for one in found.models if one.id == model), None)
    if model is not None and used is None:
        yield Finding(
            "note", f"live: {model} is not among them; new models may be served before they are listed"
        )
    elif used is not None and used.shutdown is not None:
        yield _ending(used.id, used.shutdown, today)


def _ending(model: str, shutdown: date, today: date) -> Finding:
    if shutdown <= today:
        return Finding("wrong", f"live: {model} was shut down on {shutdown}: name another")
    return Finding("note", f"live: {model} will be shut down on {shutdown}")


def _described(model: ListedModel) -> str:
    return f"{model.id} (until {model.shutdown})" if model.shutdown else model.id


def _skew(ahead_s: float) -> Finding:
    side = "ahead of" if ahead_s > 0 else "behind"
    if abs(ahead_s) <= SKEW_S:
        return Finding("ok", f"live: the clock is within {max(1, round(abs(ahead_s)))} s of the server's")
    return Finding("wrong", f"live: the clock is {abs(ahead_s):.0f} s {side} the server's: set it")
