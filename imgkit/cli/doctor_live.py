"""The options `--live` and `--provider` of `imgkit doctor`: a free request, and the meaning of its result."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any, Literal

from imgkit.cli import values
from imgkit.cli.doctor_checks import Finding
from imgkit.cli.messages import format_error
from imgkit.cli.models import load_catalogue
from imgkit.core.core import DEFAULT_BACKEND
from imgkit.core.probe import ListedModel, Probe
from imgkit.errors import (
    AuthenticationError,
    ImgkitError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
)
from imgkit.redact import safe_url
from imgkit.service import ImageService

BACKEND = "requests"
"""The backend of the request unless the settings name another that reaches the network."""

TIMEOUTS = {"timeout_s": 20.0, "connect_timeout_s": 5.0, "read_timeout_s": 15.0}
MAX_CLOCK_SKEW_S = 300.0
"""With a larger skew, tokens and links seem expired or not valid yet."""

MAX_LISTED_MODELS = 12


def check_api(given: Mapping[str, Any], api_key_file: str | None) -> Iterator[Finding]:
    """Make a free request; yield its findings, or the reason why it was not sent.

    Args:
        given: arguments of `ImageService`.
        api_key_file: the file of the key; None for the provider's variables.
    """
    settings = {**TIMEOUTS, **given}
    if (settings.get("backend") or os.environ.get("IMGKIT_BACKEND") or DEFAULT_BACKEND) == DEFAULT_BACKEND:
        settings["backend"] = BACKEND
    try:
        if api_key_file is not None:
            settings["api_key"] = values.read_key(api_key_file)
        with ImageService(**{**settings, "retry": False}) as service:
            result = service.probe()
        catalogue = load_catalogue(given.get("provider"), given.get("models"))
    except ImgkitError as error:
        yield Finding("wrong", f"live: Nothing was sent. {format_error(error)}")
        return
    request = f"GET {safe_url(result.url)}"
    if result.problem is not None:
        yield _explain_failure(request, result.problem, catalogue.account.get("console"))
    elif result.kind == "host":
        yield _explain_host(request, result, given.get("provider") or "this provider")
    else:
        model = given.get("model") or os.environ.get("IMGKIT_MODEL") or None
        yield from _explain_success(request, result, {entry.id for entry in catalogue.list_models()}, model)
    if result.clock_ahead_s is not None:
        yield _check_skew(result.clock_ahead_s)


def _name_console(console: str | None) -> str:
    """Return the sentence that names the page with the keys, "" if none is known."""
    return f" {console} has your keys." if console else ""


def _explain_host(request: str, result: Probe, provider: str) -> Finding:
    """Return the meaning of any reply to a request without the key."""
    verdict: Literal["ok", "note"] = "ok" if (result.status or 0) < 500 else "note"
    text = f"the host answers (HTTP {result.status}, {result.elapsed_s:.2f} s). The key was not sent"
    return Finding(verdict, f"live: {request}: {text}: {provider} has no free request that tries it.")


def _explain_failure(request: str, error: ImgkitError, console: str | None) -> Finding:
    """Return the meaning of a failure."""
    if isinstance(error, AuthenticationError | PermissionDeniedError):
        return Finding("wrong", f"live: {request}: {format_error(error)}{_name_console(console)}")
    if isinstance(error, RateLimitError) and not isinstance(error, QuotaExceededError):
        return Finding("note", f"live: {request}: {format_error(error)}")
    if isinstance(error, NotFoundError):
        return Finding(
            "note",
            f"live: {request}: {format_error(error)} A server that lists no models may still serve them.",
        )
    return Finding("wrong", f"live: {request}: {format_error(error)}")


def _explain_success(request: str, result: Probe, known: set[str], model: str | None) -> Iterator[Finding]:
    """Yield the findings about the key, the organization and the models.

    Args:
        request: the request as text.
        result: its result.
        known: ids of the models in the catalogue.
        model: the model of calls that name none.
    """
    key = "the key works" if result.signed else "the server needs no key"
    request_id = f", request id {result.request_id}" if result.request_id else ""
    yield Finding("ok", f"live: {request}: {key} ({result.elapsed_s:.2f} s{request_id})")
    if result.kind != "models":
        return
    if result.organization is not None:
        yield Finding("ok", f"live: organization {result.organization.hint()}")
    image_models = [
        entry for entry in result.models if entry.id in known or "image" in entry.id or "dall-e" in entry.id
    ]
    listed = ", ".join(map(_format_model, image_models[:MAX_LISTED_MODELS]))
    more = ", …" if len(image_models) > MAX_LISTED_MODELS else ""
    yield Finding("ok", f"live: {len(result.models)} models; for images: {listed or 'none known'}{more}")
    used = next((entry for entry in result.models if entry.id == model), None)
    if model is not None and used is None:
        yield Finding("note", f"live: {model} is not listed. The server may still serve a new model.")
    elif used is not None and used.shutdown is not None:
        yield _check_shutdown(used.id, used.shutdown, datetime.now(UTC).date())


def _check_shutdown(model: str, shutdown: date, today: date) -> Finding:
    if shutdown <= today:
        return Finding("wrong", f"live: {model} was shut down on {shutdown}. Use another model.")
    return Finding("note", f"live: {model} will be shut down on {shutdown}.")


def _format_model(model: ListedModel) -> str:
    return f"{model.id} (until {model.shutdown})" if model.shutdown else model.id


def _check_skew(ahead_s: float) -> Finding:
    skew_s = abs(ahead_s)
    if skew_s <= MAX_CLOCK_SKEW_S:
        return Finding("ok", f"live: the clock is within {max(1, round(skew_s))} s of the server's")
    side = "ahead of" if ahead_s > 0 else "behind"
    return Finding("wrong", f"live: The clock is {skew_s:.0f} s {side} the server's. Set it.")
