"""What calls do, told to the standard library's `logging`, as a plugin.

Records go to the logger "imgkit", which has a `logging.NullHandler`: nothing is configured behind the
application's back. One line a call at INFO, failures at WARNING, the wire at DEBUG.
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
from imgkit.wire.messages import WHOLE_BODY_BYTES, BytesBody, HttpRequest
from imgkit.wire.multipart import Field, MultipartBody

VARIABLE = "IMGKIT_LOG"
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}
"""What `VARIABLE` may say."""

MESSAGE_LIMIT = 300
"""Longest message of an error in a line, in characters."""

PROGRESS_EVERY_S = 1.0
"""Least seconds between two lines about one reply that arrives; its end is told in any case."""

_LOGGER = logging.getLogger("imgkit")
_LOGGER.addHandler(logging.NullHandler())
_INSTALLING = threading.Lock()
_HIDDEN = "…"
_ENDS = (Succeeded, Failed, Cancelled)


@dataclass(slots=True)
class _Course:
    """What has been seen of a call that runs."""

    began: float | None = None
    attempts: int = 0
    request: HttpRequest | None = None
    status: int | None = None
    request_id: str | None = None
    received_bytes: int = 0
    told: float = float("-inf")


class LoggingPlugin:
    """Logs calls to the logger "imgkit".

    INFO has one line a call and one a retry, WARNING those that failed, DEBUG what went over the wire.
    The lines' facts are also attributes of the records, with the prefix ``imgkit_`` and values that
    JSON can hold; docs/logging-and-telemetry.md lists them. No record holds a credential, the query of
    a URL, a picture or an exception; prompts are shown at DEBUG only, cut to 200 characters.
    """

    def __init__(self) -> None:
        self._running: dict[str, _Course] = {}

    @hookimpl
    def imgkit_on_event(self, event: Event, call: Call) -> None:
        """Log the event if the logger's level asks for it."""
        ended = isinstance(event, _ENDS)
        course = self._running.pop(call.id, None) if ended else self._running.get(call.id)
        if not _LOGGER.isEnabledFor(logging.WARNING):
            return
        if course is None:
            course = _Course()
            if not ended:
                self._running[call.id] = course
        if isinstance(event, Progress):
            _progress(event, call, course)
        elif isinstance(event, Started):
            course.began = time.monotonic()
        elif isinstance(event, Sent):
            course.attempts, course.request = event.attempt, event.request
            course.status = course.request_id = None
            course.received_bytes = 0
            _sent(event, call)
        elif isinstance(event, FirstByte):
            course.status = event.status
            course.request_id = event.headers.get("x-request-id")
            _first_byte(event, call)
        elif isinstance(event, Retrying):
            _retrying(event, call)
        elif isinstance(event, CacheHit):
            _cache_hit(event, call)
        else:
            _ended(event, call, course)

    def __repr__(self) -> str:
        return "LoggingPlugin()"


def from_environment(plugins: Sequence[object] = ()) -> LoggingPlugin | None:
    """Return the plugin that the variable IMGKIT_LOG asks for, None if it is unset or empty.

    The first time, the logger "imgkit" gets a handler that writes to stderr; later calls only set its
    level.

    Args:
        plugins: those that a service has anyway; with a `LoggingPlugin` among them none is returned,
            so that nothing is logged twice.

    Raises:
        ConfigurationError: the variable says something else than "debug", "info" or "warning".
    """
    wanted = os.environ.get(VARIABLE, "").strip().lower()
    if not wanted:
        return None
    if wanted not in LEVELS:
        raise ConfigurationError(
            f"{VARIABLE} is {_line(wanted, 40)!r}: set it to {', '.join(LEVELS)}, or unset it"
        )
    _install(LEVELS[wanted])
    return None if any(isinstance(plugin, LoggingPlugin) for plugin in plugins) else LoggingPlugin()


def request_members(request: HttpRequest) -> Mapping[str, Any]:
    """Return the members of a request's body by name, files left out.

    Args:
        request: with JSON or a form in it; anything else, or a JSON of over `WHOLE_BODY_BYTES`, has
            no members here.
    """
    body = request.body
    if isinstance(body, MultipartBody):
        return {part.name: part.value for part in body.parts if isinstance(part, Field)}
    if isinstance(body, BytesBody) and "json" in body.content_type and body.length <= WHOLE_BODY_BYTES:
        try:
            members = json.loads(body.data)
        except ValueError:
            return {}  # a dialect may call something JSON that is none: the API will tell
        return members if isinstance(members, dict) else {}
    return {}


class _StderrHandler(logging.Handler):
    """Writes to whatever `sys.stderr` is when a record comes."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
        except Exception:  # as logging's own handlers: it reports, and a call goes on
            self.handleError(record)


def _install(level: int) -> None:
    with _INSTALLING:
        handler = next((one for one in _LOGGER.handlers if isinstance(one, _StderrHandler)), None)
        if handler is None:
            handler = _StderrHandler()
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
            _LOGGER.addHandler(handler)
        handler.setLevel(level)
        if _LOGGER.level == logging.NOTSET or _LOGGER.level > level:
            _LOGGER.setLevel(level)


def _sent(event: Sent, call: Call) -> None:
    if not _LOGGER.isEnabledFor(logging.DEBUG):
        return
    request = event.request
    facts = {
        "attempt": event.attempt,
        "method": request.method,
        "url": safe_url(request.url),
        "headers": safe_headers(request.wire_headers()),
        "body": _shown(dict(request_members(request))),
        "body_bytes": request.body.length,
    }
    text = "> {method} {url} (attempt {attempt}) {headers} {body} {body_bytes} bytes"
    _log(logging.DEBUG, call, "sent", text.format_map(facts), facts)


def _first_byte(event: FirstByte, call: Call) -> None:
    if not _LOGGER.isEnabledFor(logging.DEBUG):
        return
    facts = {
        "status": event.status,
        "headers": safe_headers(event.headers),
        "seconds": round(event.elapsed_s, 6),
    }
    text = "< {status} after {seconds:.3f} s {headers}".format_map(facts)
    _log(logging.DEBUG, call, "first_byte", text, facts)


def _progress(event: Progress, call: Call, course: _Course) -> None:
    course.received_bytes = event.received_bytes
    if not _LOGGER.isEnabledFor(logging.DEBUG):
        return
    now = time.monotonic()
    if now - course.told < PROGRESS_EVERY_S and event.received_bytes != event.expected_bytes:
        return
    course.told = now
    facts = {"bytes": event.received_bytes, "expected_bytes": event.expected_bytes}
    of = "" if event.expected_bytes is None else f" of {event.expected_bytes}"
    _log(logging.DEBUG, call, "progress", f"< {event.received_bytes}{of} bytes", facts)


def _retrying(event: Retrying, call: Call) -> None:
    if not _LOGGER.isEnabledFor(logging.INFO):
        return
    outcome = event.outcome
    facts = {
        "outcome": outcome.kind,
        "attempts": outcome.attempts,
        "wait_s": event.wait_s,
        "error": type(outcome.error).__name__,
        "message": _line(str(outcome.error)),
    }
    text = "again in {wait_s:.3f} s, after {attempts} attempts, {outcome}: {error}: {message}"
    _log(logging.INFO, call, "retrying", text.format_map(facts), facts)


def _cache_hit(event: CacheHit, call: Call) -> None:
    if not _LOGGER.isEnabledFor(logging.DEBUG):
        return
    facts = {"key": event.key, "age_s": round(event.age_s, 3)}
    _log(
        logging.DEBUG, call, "cache_hit", "from the cache: {key}, {age_s:.0f} s old".format_map(facts), facts
    )


def _ended(event: Event, call: Call, course: _Course) -> None:
    """Log the one line of a call."""
    error = event.error if isinstance(event, Failed) else None
    broken_off = isinstance(event, Cancelled)
    billed = event.maybe_billed if isinstance(event, Cancelled) else getattr(error, "maybe_billed", False)
    level = logging.WARNING if error is not None or billed else logging.INFO
    if not _LOGGER.isEnabledFor(level):
        return
    facts: dict[str, Any] = {
        "backend": call.backend,
        "provider": call.provider,
        "model": None,
        "status": getattr(error, "status", None) or course.status,
        "pictures": 0,
        "bytes": course.received_bytes,
        "seconds": None if course.began is None else round(time.monotonic() - course.began, 6),
        "attempts": course.attempts,
        "request_id": getattr(error, "request_id", None) or course.request_id,
        "cached": False,
        "maybe_billed": billed,
        "input_tokens": None,
        "output_tokens": None,
        "error": type(error).__name__ if error is not None else None,
        "message": _line(str(error)) if error is not None else None,
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
    elif course.request is not None:
        facts["model"] = request_members(course.request).get("model")
    for name in ("model", "request_id"):  # others' words
        facts[name] = None if facts[name] is None else _line(str(facts[name]), 200)
    _log(level, call, "cancelled" if broken_off else "failed" if error else "succeeded", _told(facts), facts)


_IN_LINE = ("backend", "model", "status", "pictures", "bytes", "seconds", "attempts", "request_id")


def _told(facts: Mapping[str, Any]) -> str:
    parts = [f"{name}={'-' if facts[name] is None else facts[name]}" for name in _IN_LINE]
    parts += [name for name in ("cached", "maybe_billed") if facts[name]]
    if facts["error"] is not None:
        parts.append(f"{facts['error']}: {facts['message']}")
    return " ".join(parts)


def _log(level: int, call: Call, event: str, text: str, facts: Mapping[str, Any]) -> None:
    extra = {f"imgkit_{name}": value for name, value in facts.items()}
    extra |= {"imgkit_event": event, "imgkit_call_id": call.id, "imgkit_operation": call.operation}
    _LOGGER.log(level, "%s %s %s", call.operation, event, text, extra=extra)


def _line(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Return `text` without secrets, on one line."""
    return " ".join(scrub(text, limit=limit).split())


def _shown(value: Any, name: str = "") -> Any:
    """Return a JSON value without secrets, its texts shortened."""
    if name and safe_headers({name: ""})[name] == _HIDDEN:
        return _HIDDEN
    if isinstance(value, dict):
        return {scrub(str(key), limit=80): _shown(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shown(inner) for inner in value[:20]]
    return scrub(value, limit=200) if isinstance(value, str) else value
