"""Spans and metrics of calls for OpenTelemetry, as a plugin.

Names are those of the GenAI semantic conventions (open-telemetry/semantic-conventions-genai, status
Development, read 2026-11-23), which have no operation for pictures yet: ``image_generation``,
``image_edit`` and ``image_variation`` are custom values, as they allow. What they do not name is under
``imgkit.``. Only the API package is used, so without an SDK nothing is recorded and little is spent.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from imgkit._version import __version__
from imgkit.default_plugins.logging import request_members
from imgkit.errors import PluginError
from imgkit.models import ImagesResponse
from imgkit.plugins.events import Call, Cancelled, Event, Failed, Retrying, Sent, Started, Succeeded
from imgkit.plugins.hookspecs import hookimpl
from imgkit.redact import scrub

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

CAPTURE_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
PROMPT_LIMIT = 1024
"""Longest prompt in a span, in characters."""

OPERATIONS = {
    "create_image": "image_generation",
    "create_image_edit": "image_edit",
    "create_image_variation": "image_variation",
}
"""``gen_ai.operation.name`` by imgkit's name."""

_SYSTEMS = {"azure": "azure.ai.openai"}
"""``gen_ai.provider.name`` of providers where it is not imgkit's name."""

DURATION_BUCKETS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
TOKEN_BUCKETS = [float(4**power) for power in range(14)]
"""Bucket boundaries as the conventions ask for."""

_ENDS = (Succeeded, Failed, Cancelled)

Attributes = dict[str, str | int | float | bool]


@dataclass(slots=True)
class _Course:
    """A call that runs."""

    span: Span
    common: Attributes
    began: float = field(default_factory=time.monotonic)
    attempts: int = 0


class TelemetryPlugin:
    """Makes one CLIENT span a call, over all its retries, and records its duration and tokens.

    The span is a child of the span that is current where the call is made, and ends with the call,
    cancelled or not. It holds no credential, no picture, no URL but the API's host, and no exception.

    Args:
        capture_content: put prompts into spans, cut to `PROMPT_LIMIT` characters; None to do so if
            the variable OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT is "true".
        tracer_provider, meter_provider: where spans and metrics go; the global ones if None.

    Raises:
        PluginError: the package opentelemetry-api is not installed.
    """

    def __init__(
        self,
        *,
        capture_content: bool | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        try:
            from opentelemetry import metrics, trace
        except ImportError as error:
            raise PluginError(
                f"the telemetry plugin needs opentelemetry-api ({error}): pip install 'imgkit-service[otel]'",
                plugin="telemetry",
            ) from error
        if capture_content is None:
            capture_content = os.environ.get(CAPTURE_VARIABLE, "").strip().lower() == "true"
        self._capture_content = capture_content
        self._api = trace
        self._tracer = trace.get_tracer("imgkit", __version__, tracer_provider)
        meter = metrics.get_meter("imgkit", __version__, meter_provider)
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=TOKEN_BUCKETS,
        )
        self._running: dict[str, _Course] = {}

    @hookimpl
    def imgkit_on_event(self, event: Event, call: Call) -> None:
        """Begin, mark and end the call's span."""
        if isinstance(event, Started):
            self._running[call.id] = self._begin(call)
        elif isinstance(event, _ENDS):
            # Without `Started`: refused before it was sent, or answered by a cache.
            course = self._running.pop(call.id) if call.id in self._running else self._begin(call)
            self._end(event, course)
        elif isinstance(event, Sent):
            self._sent(event, self._running[call.id])
        elif isinstance(event, Retrying):
            self._running[call.id].span.add_event("imgkit.retry", _retry(event))

    def _begin(self, call: Call) -> _Course:
        common: Attributes = {
            "gen_ai.operation.name": OPERATIONS[call.operation],
            # The painter speaks a provider's dialect and is none of it: its calls cost nothing.
            "gen_ai.provider.name": "imgkit.offline"
            if call.host_class == "offline"
            else _SYSTEMS.get(call.provider, call.provider),
        }
        if call.host_class != "offline":
            common |= _server(call.base_url)
        span = self._tracer.start_span(
            OPERATIONS[call.operation],
            kind=self._api.SpanKind.CLIENT,
            attributes={
                **common,
                "gen_ai.output.type": "image",
                **({} if call.partial_images is None else {"gen_ai.request.stream": True}),
                "imgkit.call.id": call.id,
                "imgkit.backend": call.backend,
            },
        )
        return _Course(span, common)

    def _sent(self, event: Sent, course: _Course) -> None:
        course.attempts = event.attempt
        if event.attempt > 1:
            return
        members = request_members(event.request)
        _name(course, members.get("model"))
        count = members.get("n")
        if isinstance(count, int) or (isinstance(count, str) and count.isascii() and count.isdigit()):
            course.span.set_attribute("gen_ai.request.choice.count", int(count))
        prompt = members.get("prompt")
        if self._capture_content and isinstance(prompt, str) and course.span.is_recording():
            part = {"type": "text", "content": scrub(prompt, limit=PROMPT_LIMIT)}
            told = json.dumps([{"role": "user", "parts": [part]}], ensure_ascii=False)
            course.span.set_attribute("gen_ai.input.messages", told)

    def _end(self, event: Succeeded | Failed | Cancelled, course: _Course) -> None:
        span = course.span
        try:
            if isinstance(event, Succeeded):
                self._succeeded(event.response, course)
            elif isinstance(event, Failed):
                self._failed(course, type(event.error).__name__, str(event.error))
                _set(span, "http.response.status_code", getattr(event.error, "status", None))
                _set(span, "imgkit.request_id", _text(getattr(event.error, "request_id", None)))
                span.set_attribute("imgkit.maybe_billed", getattr(event.error, "maybe_billed", False))
            else:
                self._failed(course, "cancelled", "broken off by the caller")
                span.set_attribute("imgkit.maybe_billed", event.maybe_billed)
            span.set_attribute("imgkit.attempts", course.attempts)
            context = self._api.set_span_in_context(span)
            self._duration.record(time.monotonic() - course.began, course.common, context)
        finally:
            span.end()

    def _failed(self, course: _Course, kind: str, why: str) -> None:
        course.common["error.type"] = kind
        course.span.set_attribute("error.type", kind)
        why = " ".join(scrub(why, limit=300).split())
        course.span.set_status(self._api.Status(self._api.StatusCode.ERROR, why))

    def _succeeded(self, response: ImagesResponse, course: _Course) -> None:
        meta, usage, span = response.meta, response.usage, course.span
        _name(course, meta.model)
        _set(span, "gen_ai.response.model", _text(response.extra.get("model")))
        _set(span, "http.response.status_code", meta.status)
        _set(span, "imgkit.request_id", _text(meta.request_id))
        span.set_attributes({"imgkit.pictures": len(response), "imgkit.cached": meta.cached})
        if usage is None or meta.cached:  # a cached reply's tokens were counted when they were spent
            return
        _set(span, "gen_ai.usage.image.input_tokens", usage.input_image_tokens)
        _set(span, "gen_ai.usage.image.output_tokens", usage.output_image_tokens)
        context = self._api.set_span_in_context(span)
        for kind, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if count is not None:
                span.set_attribute(f"gen_ai.usage.{kind}_tokens", count)
                self._tokens.record(count, {**course.common, "gen_ai.token.type": kind}, context)

    def __repr__(self) -> str:
        return f"TelemetryPlugin(capture_content={self._capture_content})"


def _name(course: _Course, model: object) -> None:
    """Name the span after the model, once it is known."""
    named = _text(model)
    if named and course.common.get("gen_ai.request.model") != named:
        course.common["gen_ai.request.model"] = named
        course.span.set_attribute("gen_ai.request.model", named)
        course.span.update_name(f"{course.common['gen_ai.operation.name']} {named}")


def _retry(event: Retrying) -> Attributes:
    return {
        "error.type": type(event.outcome.error).__name__,
        "imgkit.outcome": event.outcome.kind,
        "imgkit.attempts": event.outcome.attempts,
        "imgkit.wait_s": event.wait_s,
    }


def _server(base_url: str) -> Attributes:
    parts = urlsplit(base_url)
    return {
        "server.address": parts.hostname or "",
        "server.port": parts.port or (443 if parts.scheme == "https" else 80),
    }


def _text(value: Any) -> str | None:
    """Return what a server or caller said, without secrets, on one line; None if it is no text."""
    return " ".join(scrub(value, limit=200).split()) if isinstance(value, str) else None


def _set(span: Span, name: str, value: str | int | None) -> None:
    if value is not None:
        span.set_attribute(name, value)
