"""The logging plugin: calls as records of the standard library's `logging`.

Records go to the logger "imgkit", which has a `logging.NullHandler`, so imgkit configures no output of its
own. Each call has one line at INFO, failures are at WARNING, HTTP details at DEBUG.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imgkit.errors import ConfigurationError
from imgkit.plugins.events import (
    CacheHit,
    Call,
    Cancelled,
    Event,
    Failed,
    FirstByte,
    Progress,
    Retrying,
    Sent,
    Started,
    Succeeded,
)
from imgkit.plugins.hookspecs import hookimpl
from imgkit.redact import safe_headers, safe_url, scrub
from imgkit.wire.messages import WHOLE_BODY_BYTES, BytesBody, Head, HttpRequest
from imgkit.wire.multipart import Field, MultipartBody

VARIABLE = "IMGKIT_LOG"
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}
"""Logging levels by the values of `VARIABLE`."""

MESSAGE_LIMIT = 300
"""Maximum length of an error message in a line, in characters."""

PROGRESS_EVERY_S = 1.0
"""Minimum seconds between two progress lines of a reply; its end always has a line."""

_LOGGER = logging.getLogger("imgkit")
_LOGGER.addHandler(logging.NullHandler())
_INSTALL_LOCK = threading.Lock()
_HIDDEN = "…"
_FINAL_EVENTS = (Succeeded, Failed, Cancelled)


@dataclass(slots=True)
class _CallState:
    """The state of a running call."""

    began: float | None = None
    attempts: int = 0
    request: HttpRequest | None = None
    status: int | None = None
    request_id: str | None = None
    received_bytes: int = 0
    last_progress_s: float = float("-inf")


class LoggingPlugin:
    """Logs calls to the logger "imgkit".

    INFO has one line per call and per retry, WARNING failed calls, DEBUG requests, replies and progress.
    Records also have the values of their line as attributes, with the prefix ``imgkit_`` and JSON types;
    docs/logging-and-telemetry.md lists them. No record holds a credential, the query of a URL, an image or
    an exception. Prompts appear only at DEBUG, cut to 200 characters.

    Example:
        ::

            logging.basicConfig(level=logging.INFO)
            with ImageService(plugins=[LoggingPlugin()]) as service:
                service.create_image("a fox")
    """

    def __init__(self) -> None:
        self._running: dict[str, _CallState] = {}

    @hookimpl
    def imgkit_on_event(self, event: Event, call: Call) -> None:
        """Log the event if the logger's level includes it."""
        is_final = isinstance(event, _FINAL_EVENTS)
        state = self._running.pop(call.id, None) if is_final else self._running.get(call.id)
        if not _LOGGER.isEnabledFor(logging.WARNING):
            return
        if state is None:
            state = _CallState()
            if not is_final:
                self._running[call.id] = state
        if isinstance(event, Progress):
            _log_progress(event, call, state)
        elif isinstance(event, Started):
            state.began = time.monotonic()
        elif isinstance(event, Sent):
            state.attempts, state.request = event.attempt, event.request
            state.status = state.request_id = None
            state.received_bytes = 0
            _log_request(event, call)
        elif isinstance(event, FirstByte):
            state.status = event.status
            state.request_id = Head(event.status, event.headers).request_id
            _log_first_byte(event, call)
        elif isinstance(event, Retrying):
            _log_retry(event, call)
        elif isinstance(event, CacheHit):
            _log_cache_hit(event, call)
        else:
            _log_end(event, call, state)

    def __repr__(self) -> str:
        return "LoggingPlugin()"


def plugin_from_environment(plugins: Sequence[object] = ()) -> LoggingPlugin | None:
    """Return a plugin if the variable IMGKIT_LOG is set, else None.

    The first call adds a handler for stderr to the logger "imgkit"; later calls only set its level.

    Args:
        plugins: the service's other plugins. With a `LoggingPlugin` among them the result is None, because
            a second plugin would log every line twice.

    Raises:
        ConfigurationError: The variable is not "debug", "info" or "warning".

    Example:
        >>> os.environ.pop("IMGKIT_LOG", None) and None
        >>> plugin_from_environment() is None
        True
    """
    level = os.environ.get(VARIABLE, "").strip().lower()
    if not level:
        return None
    if level not in LEVELS:
        raise ConfigurationError(
            f"{VARIABLE} is {_clean_line(level, 40)!r}. Set it to {', '.join(LEVELS)}, or unset it."
        )
    _install_handler(LEVELS[level])
    return None if any(isinstance(plugin, LoggingPlugin) for plugin in plugins) else LoggingPlugin()


def request_members(request: HttpRequest) -> Mapping[str, Any]:
    """Return the members of a request's body by name, without files.

    Args:
        request: a request with JSON or a form. Other bodies, and JSON larger than `WHOLE_BODY_BYTES`, have
            no members.

    Example:
        >>> body = BytesBody(b'{"model": "gpt-image-1"}', "application/json")
        >>> request_members(HttpRequest("POST", "https://api.example.com/v1/images/generations", {}, body))
        {'model': 'gpt-image-1'}
    """
    body = request.body
    if isinstance(body, MultipartBody):
        return {part.name: part.value for part in body.parts if isinstance(part, Field)}
    if isinstance(body, BytesBody) and "json" in body.content_type and body.length <= WHOLE_BODY_BYTES:
        try:
            members = json.loads(body.data)
        except ValueError:
            return {}  # the API will reject the invalid JSON of a provider
        return members if isinstance(members, dict) else {}
    return {}


class _StderrHandler(logging.Handler):
    """A handler that writes to the current `sys.stderr` of each record."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
        except Exception:  # like logging's own handlers: report it, and let the call go on
            self.handleError(record)


def _install_handler(level: int) -> None:
    with _INSTALL_LOCK:
        handler = next((h for h in _LOGGER.handlers if isinstance(h, _StderrHandler)), None)
        if handler is None:
            handler = _StderrHandler()
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
            _LOGGER.addHandler(handler)
        handler.setLevel(level)
        if _LOGGER.level == logging.NOTSET or _LOGGER.level > level:
            _LOGGER.setLevel(level)


def _log_request(event: Sent, call: Call) -> None:
    if not _LOGGER.isEnabledFor(logging.DEBUG):
        return
    request = event.request
    facts = {
        "attempt": event.attempt,
        "method": request.method,
        "url": safe_url(request.url),
        "headers": safe_headers(request.wire_headers()),
        "body": _scrub_value(dict(request_members(request))),
        "body_bytes": request.body.length,
    }
    text = "> {method} {url} (attempt {attempt}) {headers} {body} {body_bytes} bytes"
    _log(logging.DEBUG, call, "sent", text.format_map(facts), facts)


def _log_first_byte(event: FirstByte, call: Call) -> None:
    if not _LOGGER.isEnabledFor(logging.DEBUG):
        return
    facts = {
        "status": event.status,
        "headers": safe_headers(event.headers),
        "seconds": round(event.elapsed_s, 6),
    }
    text = "< {status} after {seconds:.3f} s {headers}".format_map(facts)
    _log(logging.DEBUG, call, "first_byte", text, facts)


def _log_progress(event: Progress, call: Call, state: _CallState) -> None:
    state.received_bytes = event.received_bytes
    if not _LOGGER.isEnabledFor(logging.DEBUG):
        return
    now = time.monotonic()
    if now - state.last_progress_s < PROGRESS_EVERY_S and event.received_bytes != event.expected_bytes:
        return
    state.last_progress_s = now
    facts = {"bytes": event.received_bytes, "expected_bytes": event.expected_bytes}
    of = "" if event.expected_bytes is None else f" of {event.expected_bytes}"
    _log(logging.DEBUG, call, "progress", f"< {event.received_bytes}{of} bytes", facts)


def _log_retry(event: Retrying, call: Call) -> None:
    if not _LOGGER.isEnabledFor(logging.INFO):
        return
    outcome = event.outcome
    facts = {
        "outcome": outcome.kind,
        "attempts": outcome.attempts,
        "wait_s": event.wait_s,
        "error": type(outcome.error).__name__,
        "message": _clean_line(str(outcome.error)),
    }
    text = "next attempt in {wait_s:.3f} s, after {attempts} attempts, {outcome}: {error}: {message}"
    _log(logging.INFO, call, "retrying", text.format_map(facts), facts)


def _log_cache_hit(event: CacheHit, call: Call) -> None:
    if not _LOGGER.isEnabledFor(logging.DEBUG):
        return
    facts = {"key": event.key, "age_s": round(event.age_s, 3)}
    _log(
        logging.DEBUG, call, "cache_hit", "from the cache: {key}, {age_s:.0f} s old".format_map(facts), facts
    )


def _log_end(event: Event, call: Call, state: _CallState) -> None:
    """Log the result of a call."""
    error = event.error if isinstance(event, Failed) else None
    is_cancelled = isinstance(event, Cancelled)
    maybe_billed = (
        event.maybe_billed if isinstance(event, Cancelled) else getattr(error, "maybe_billed", False)
    )
    level = logging.WARNING if error is not None or maybe_billed else logging.INFO
    if not _LOGGER.isEnabledFor(level):
        return
    facts: dict[str, Any] = {
        "backend": call.backend,
        "provider": call.provider,
        "model": None,
        "status": getattr(error, "status", None) or state.status,
        "pictures": 0,
        "bytes": state.received_bytes,
        "seconds": None if state.began is None else round(time.monotonic() - state.began, 6),
        "attempts": state.attempts,
        "request_id": getattr(error, "request_id", None) or state.request_id,
        "cached": False,
        "maybe_billed": maybe_billed,
        "input_tokens": None,
        "output_tokens": None,
        "error": type(error).__name__ if error is not None else None,
        "message": _clean_line(str(error)) if error is not None else None,
    }
    if isinstance(event, Succeeded):
        meta, usage = event.response.meta, event.response.usage
        facts |= {
            "model": meta.model,
            "status": meta.status,
            "pictures": len(event.response),
            "seconds": round(meta.elapsed_s, 6),
            "request_id": meta.request_id,
            "cached": meta.cached,
            "input_tokens": usage.input_tokens if usage else None,
            "output_tokens": usage.output_tokens if usage else None,
        }
    elif state.request is not None:
        facts["model"] = request_members(state.request).get("model")
    # The server and the caller chose these texts.
    for name in ("model", "request_id"):
        facts[name] = None if facts[name] is None else _clean_line(str(facts[name]), 200)
    _log(
        level,
        call,
        "cancelled" if is_cancelled else "failed" if error else "succeeded",
        _format_facts(facts),
        facts,
    )


_IN_LINE = ("backend", "model", "status", "pictures", "bytes", "seconds", "attempts", "request_id")


def _format_facts(facts: Mapping[str, Any]) -> str:
    parts = [f"{name}={'-' if facts[name] is None else facts[name]}" for name in _IN_LINE]
    parts += [name for name in ("cached", "maybe_billed") if facts[name]]
    if facts["error"] is not None:
        parts.append(f"{facts['error']}: {facts['message']}")
    return " ".join(parts)


def _log(level: int, call: Call, event: str, text: str, facts: Mapping[str, Any]) -> None:
    extra = {f"imgkit_{name}": value for name, value in facts.items()}
    extra |= {"imgkit_event": event, "imgkit_call_id": call.id, "imgkit_operation": call.operation}
    _LOGGER.log(level, "%s %s %s", call.operation, event, text, extra=extra)


def _clean_line(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Return `text` without secrets, on one line."""
    return " ".join(scrub(text, limit=limit).split())


def _scrub_value(value: Any, name: str = "") -> Any:
    """Return a JSON value without secrets, with shortened texts."""
    if name and safe_headers({name: ""})[name] == _HIDDEN:
        return _HIDDEN
    if isinstance(value, dict):
        return {scrub(str(key), limit=80): _scrub_value(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_scrub_value(inner) for inner in value[:20]]
    return scrub(value, limit=200) if isinstance(value, str) else value
