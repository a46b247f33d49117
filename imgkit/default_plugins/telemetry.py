"""The telemetry plugin: spans and metrics of calls for OpenTelemetry.

Names follow the GenAI semantic conventions (open-telemetry/semantic-conventions-genai, status Development,
read 2026-11-23). They have no operation for images yet and allow custom values: ``image_generation``,
``image_edit`` and ``image_variation``. Attributes outside the conventions begin with ``imgkit.``. The
plugin uses only the API package, so it records nothing and costs little without an SDK.
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
"""Maximum length of a prompt in a span, in characters."""

OPERATIONS = {
    "create_image": "image_generation",
    "create_image_edit": "image_edit",
    "create_image_variation": "image_variation",
}
"""Values of ``gen_ai.operation.name`` by imgkit's names."""

_SYSTEMS = {"azure": "azure.ai.openai"}
"""Values of ``gen_ai.provider.name`` that differ from imgkit's names."""

DURATION_BUCKETS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
TOKEN_BUCKETS = [float(4**power) for power in range(14)]
"""Bucket boundaries from the conventions."""

_FINAL_EVENTS = (Succeeded, Failed, Cancelled)

Attributes = dict[str, str | int | float | bool]


@dataclass(slots=True)
class _CallSpan:
    """The span of a running call."""

    span: Span
    common: Attributes
    began: float = field(default_factory=time.monotonic)
    attempts: int = 0


class TelemetryPlugin:
    """Creates a CLIENT span per call, including its retries, and records duration and tokens.

    The span is a child of the caller's current span, and ends with the call, even a cancelled call. It
    holds no credential, no image, no URL except the API's host, and no exception.

    Args:
        capture_content: put prompts into spans, cut to `PROMPT_LIMIT` characters. None does so if the
            variable OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT is "true".
        tracer_provider, meter_provider: receivers of spans and metrics; None uses the global providers.

    Raises:
        PluginError: The package opentelemetry-api is not installed.

    Example:
        >>> TelemetryPlugin(capture_content=False)
        TelemetryPlugin(capture_content=False)
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
                f"The telemetry plugin needs opentelemetry-api ({error}): "
                "pip install 'imgkit-service[otel]'.",
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
        self._running: dict[str, _CallSpan] = {}

    @hookimpl
    def imgkit_on_event(self, event: Event, call: Call) -> None:
        """Start the call's span, add events to it, and end it."""
        if isinstance(event, Started):
            self._running[call.id] = self._start_span(call)
        elif isinstance(event, _FINAL_EVENTS):
            # A call that was rejected before it was sent, or answered by a cache, has no `Started`.
            state = self._running.pop(call.id) if call.id in self._running else self._start_span(call)
            self._end_span(event, state)
        elif isinstance(event, Sent):
            self._describe_request(event, self._running[call.id])
        elif isinstance(event, Retrying):
            self._running[call.id].span.add_event("imgkit.retry", _retry_attributes(event))

    def _start_span(self, call: Call) -> _CallSpan:
        common: Attributes = {
            "gen_ai.operation.name": OPERATIONS[call.operation],
            # The offline artist uses a provider's dialect, but is not that provider: its calls are free.
            "gen_ai.provider.name": "imgkit.offline"
            if call.host_class == "offline"
            else _SYSTEMS.get(call.provider, call.provider),
        }
        if call.host_class != "offline":
            common |= _server_attributes(call.base_url)
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
        return _CallSpan(span, common)

    def _describe_request(self, event: Sent, state: _CallSpan) -> None:
        state.attempts = event.attempt
        if event.attempt > 1:
            return
        members = request_members(event.request)
        _set_model(state, members.get("model"))
        count = members.get("n")
        if isinstance(count, int) or (isinstance(count, str) and count.isascii() and count.isdigit()):
            state.span.set_attribute("gen_ai.request.choice.count", int(count))
        prompt = members.get("prompt")
        if self._capture_content and isinstance(prompt, str) and state.span.is_recording():
            part = {"type": "text", "content": scrub(prompt, limit=PROMPT_LIMIT)}
            messages = json.dumps([{"role": "user", "parts": [part]}], ensure_ascii=False)
            state.span.set_attribute("gen_ai.input.messages", messages)

    def _end_span(self, event: Succeeded | Failed | Cancelled, state: _CallSpan) -> None:
        span = state.span
        try:
            if isinstance(event, Succeeded):
                self._describe_response(event.response, state)
            elif isinstance(event, Failed):
                self._describe_failure(state, type(event.error).__name__, str(event.error))
                _set_attribute(span, "http.response.status_code", getattr(event.error, "status", None))
                _set_attribute(
                    span, "imgkit.request_id", _clean_text(getattr(event.error, "request_id", None))
                )
                span.set_attribute("imgkit.maybe_billed", getattr(event.error, "maybe_billed", False))
            else:
                self._describe_failure(state, "cancelled", "cancelled by the caller")
                span.set_attribute("imgkit.maybe_billed", event.maybe_billed)
            span.set_attribute("imgkit.attempts", state.attempts)
            context = self._api.set_span_in_context(span)
            self._duration.record(time.monotonic() - state.began, state.common, context)
        finally:
            span.end()

    def _describe_failure(self, state: _CallSpan, kind: str, why: str) -> None:
        state.common["error.type"] = kind
        state.span.set_attribute("error.type", kind)
        why = " ".join(scrub(why, limit=300).split())
        state.span.set_status(self._api.Status(self._api.StatusCode.ERROR, why))

    def _describe_response(self, response: ImagesResponse, state: _CallSpan) -> None:
        meta, usage, span = response.meta, response.usage, state.span
        _set_model(state, meta.model)
        _set_attribute(span, "gen_ai.response.model", _clean_text(response.extra.get("model")))
        _set_attribute(span, "http.response.status_code", meta.status)
        _set_attribute(span, "imgkit.request_id", _clean_text(meta.request_id))
        span.set_attributes({"imgkit.pictures": len(response), "imgkit.cached": meta.cached})
        if usage is None or meta.cached:  # the original call counted a cached reply's tokens
            return
        _set_attribute(span, "gen_ai.usage.image.input_tokens", usage.input_image_tokens)
        _set_attribute(span, "gen_ai.usage.image.output_tokens", usage.output_image_tokens)
        context = self._api.set_span_in_context(span)
        for kind, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if count is not None:
                span.set_attribute(f"gen_ai.usage.{kind}_tokens", count)
                self._tokens.record(count, {**state.common, "gen_ai.token.type": kind}, context)

    def __repr__(self) -> str:
        return f"TelemetryPlugin(capture_content={self._capture_content})"


def _set_model(state: _CallSpan, model: object) -> None:
    """Add the model to the span and its name, once it is known."""
    name = _clean_text(model)
    if name and state.common.get("gen_ai.request.model") != name:
        state.common["gen_ai.request.model"] = name
        state.span.set_attribute("gen_ai.request.model", name)
        state.span.update_name(f"{state.common['gen_ai.operation.name']} {name}")


def _retry_attributes(event: Retrying) -> Attributes:
    return {
        "error.type": type(event.outcome.error).__name__,
        "imgkit.outcome": event.outcome.kind,
        "imgkit.attempts": event.outcome.attempts,
        "imgkit.wait_s": event.wait_s,
    }


def _server_attributes(base_url: str) -> Attributes:
    parts = urlsplit(base_url)
    return {
        "server.address": parts.hostname or "",
        "server.port": parts.port or (443 if parts.scheme == "https" else 80),
    }


def _clean_text(value: Any) -> str | None:
    """Return a text of the server or caller without secrets, on one line; None if it is not text."""
    return " ".join(scrub(value, limit=200).split()) if isinstance(value, str) else None


def _set_attribute(span: Span, name: str, value: str | int | None) -> None:
    if value is not None:
        span.set_attribute(name, value)
