"""The telemetry plugin: spans, metrics and events of calls for OpenTelemetry.

Names follow the GenAI semantic conventions, release v0.1.0 (open-telemetry/semantic-conventions-genai,
status Development, read 2026-11-28). They have no operation for images yet and allow custom values:
``image_generation``, ``image_edit`` and ``image_variation``. Attributes outside the conventions begin with
``imgkit.``. The plugin uses only the API package, so it records nothing and costs little without an SDK.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imgkit._version import __version__
from imgkit.default_plugins.logging import request_members
from imgkit.default_plugins.telemetry_values import (
    DURATION_BUCKETS,
    TOKEN_BUCKETS,
    Attributes,
    CaptureMode,
    clean_prompt,
    clean_text,
    count_tokens,
    name_capture,
    parse_capture,
    parse_int,
    read_member,
    to_call_attributes,
    to_input_messages,
    to_output_messages,
    to_request_attributes,
    to_retry_attributes,
)
from imgkit.errors import ConfigurationError, PluginError
from imgkit.models import ImageRequest, ImagesResponse, Usage
from imgkit.plugins import events
from imgkit.plugins.hookspecs import hookimpl
from imgkit.wire.plain_values import describe_failure

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider, SeverityNumber
    from opentelemetry.context import Context
    from opentelemetry.metrics import Histogram, Meter, MeterProvider
    from opentelemetry.trace import Span, TracerProvider

SCHEMA_URL = "https://opentelemetry.io/schemas/gen-ai/0.1.0"
"""Schema of the names in spans, metrics and events."""

_DETAILS_EVENT = "gen_ai.client.inference.operation.details"
_EXCEPTION_EVENT = "gen_ai.client.inference.exception"
_FINAL_EVENTS = (events.Succeeded, events.Failed, events.Cancelled)


@dataclass(slots=True)
class _CallSpan:
    """The span of a running call, and what its metrics and its event need.

    Attributes:
        span: the open span.
        common: attributes of the span that all metrics have.
        facts: all attributes of the span.
        began_ns: start in monotonic nanoseconds.
        began_at_ns: start in Unix time.
        attempts: number of attempts so far.
        prompt: text of the prompt, None if it is not captured.
        has_stream: the latest reply is a stream of images.
        first_chunk_s: seconds until the first chunk of the stream.
    """

    span: Span
    common: Attributes
    facts: Attributes
    began_ns: int
    began_at_ns: int
    attempts: int = 0
    prompt: str | None = None
    has_stream: bool = False
    first_chunk_s: float | None = None

    def set(self, name: str, value: str | int | float | bool | None) -> None:
        """Set an attribute of the span, unless its value is unknown."""
        if value is not None:
            self.facts[name] = value
            self.span.set_attribute(name, value)

    def set_model(self, model: object) -> None:
        """Set the model, also in the span's name, if it is another than before."""
        name = clean_text(model)
        if name and self.common.get("gen_ai.request.model") != name:
            self.common["gen_ai.request.model"] = name
            self.set("gen_ai.request.model", name)
            self.span.update_name(f"{self.common['gen_ai.operation.name']} {name}")

    def elapsed_ns(self) -> int:
        """Return the nanoseconds since the start."""
        return time.monotonic_ns() - self.began_ns


class _Instruments:
    """The metrics of the conventions for calls of a model."""

    def __init__(self, meter: Meter) -> None:
        self.duration = _create_histogram(
            meter, "duration", "s", "GenAI client inference operation duration.", DURATION_BUCKETS
        )
        self.first_chunk = _create_histogram(
            meter,
            "time_to_first_chunk",
            "s",
            "Time to receive the first chunk of a stream.",
            DURATION_BUCKETS,
        )
        self.used = {
            side: meter.create_counter(
                f"gen_ai.client.inference.usage.{side}_tokens",
                unit="{token}",
                description=f"The number of {side} tokens used.",
            )
            for side in ("input", "output")
        }
        self.per_call = {
            side: _create_histogram(
                meter,
                f"operation.{side}_tokens",
                "{token}",
                f"The number of {side} tokens used per inference operation.",
                TOKEN_BUCKETS,
            )
            for side in ("input", "output")
        }


def _create_histogram(
    meter: Meter, name: str, unit: str, description: str, buckets: list[float]
) -> Histogram:
    return meter.create_histogram(
        f"gen_ai.client.inference.{name}",
        unit=unit,
        description=description,
        explicit_bucket_boundaries_advisory=buckets,
    )


class TelemetryPlugin:
    """Creates a CLIENT span per call, including its retries, and records duration and tokens.

    The span is a child of the caller's current span, and ends with the call, even a cancelled call. It
    holds no credential, no image, no URL except the API's host, and no text of an error, which may repeat
    the prompt. A failed call also emits an event with the class of its error.

    Args:
        capture_content: places for prompts, cut to 1024 characters: "no_content", "span_only",
            "event_only" or "span_and_event"; True is "span_only", False is "no_content". None takes the
            value of the variable OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT.
        tracer_provider, meter_provider, logger_provider: receivers of spans, metrics and events; None uses
            the global providers.

    Raises:
        PluginError: The package opentelemetry-api is not installed.
        ConfigurationError: `capture_content` has another value.

    Example:
        >>> TelemetryPlugin(capture_content="span_and_event")
        TelemetryPlugin(capture_content='span_and_event')
    """

    def __init__(
        self,
        *,
        capture_content: bool | CaptureMode | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
    ) -> None:
        try:
            from opentelemetry import _logs, baggage, metrics, trace
        except ImportError as error:
            raise PluginError(
                f"The telemetry plugin needs opentelemetry-api ({error}): "
                "pip install 'imgkit-service[otel]'.",
                plugin="telemetry",
            ) from error
        self._capture = parse_capture(capture_content)
        self._trace = trace
        self._baggage = baggage
        self._logs = _logs
        try:
            self._tracer = trace.get_tracer("imgkit", __version__, tracer_provider, SCHEMA_URL)
            self._logger = _logs.get_logger("imgkit", __version__, logger_provider, SCHEMA_URL)
            meter = metrics.get_meter("imgkit", __version__, meter_provider, SCHEMA_URL)
            self._instruments = _Instruments(meter)
        except Exception as error:
            # The providers are the caller's: they may raise anything.
            raise ConfigurationError(
                f"A provider of telemetry failed ({describe_failure(error)}). Pass providers of "
                "OpenTelemetry, or None for the global ones."
            ) from error
        self._running: dict[str, _CallSpan] = {}

    @hookimpl
    def imgkit_on_event(self, event: events.Event, call: events.Call) -> None:
        """Start the call's span, add events to it, and end it."""
        if isinstance(event, events.Started):
            self._running[call.id] = self._start_span(call, event.request)
        elif isinstance(event, _FINAL_EVENTS):
            # A call that was rejected before it was sent has no `Started`.
            state = self._running.pop(call.id) if call.id in self._running else self._start_span(call, None)
            self._end_span(event, state)
        elif isinstance(event, events.Sent):
            self._describe_request(event, self._running[call.id])
        elif isinstance(event, events.FirstByte | events.Progress) and call.partial_images is not None:
            _note_chunk(event, self._running[call.id])
        elif isinstance(event, events.Retrying):
            state = self._running[call.id]
            state.has_stream, state.first_chunk_s = False, None
            state.span.add_event("imgkit.retry", to_retry_attributes(event))

    def _start_span(self, call: events.Call, request: ImageRequest | None) -> _CallSpan:
        common = to_call_attributes(call, request)
        operation, model = common["gen_ai.operation.name"], common.get("gen_ai.request.model")
        facts: Attributes = {
            **common,
            "gen_ai.output.type": "image",
            **({} if request is None else to_request_attributes(request)),
            **({} if call.partial_images is None else {"gen_ai.request.stream": True}),
            "imgkit.call.id": call.id,
            "imgkit.backend": call.backend,
        }
        conversation = clean_text(self._baggage.get_baggage("gen_ai.conversation.id"))
        if conversation:
            facts["gen_ai.conversation.id"] = conversation
        began_at_ns, began_ns = time.time_ns(), time.monotonic_ns()
        span = self._tracer.start_span(
            f"{operation} {model}" if model else str(operation),
            kind=self._trace.SpanKind.CLIENT,
            attributes=facts,
            start_time=began_at_ns,
        )
        state = _CallSpan(span, common, facts, began_ns, began_at_ns)
        if request is not None and any(self._capture):
            state.prompt = clean_prompt(read_member(request, "prompt"))
        return state

    def _describe_request(self, event: events.Sent, state: _CallSpan) -> None:
        """Take over facts that hooks and providers have put into the request on the wire."""
        state.attempts = max(state.attempts, event.attempt)
        if event.attempt > 1 or not (state.span.is_recording() or self._capture.in_events):
            return  # without an SDK nobody reads the body
        members = request_members(event.request)
        state.set_model(members.get("model"))
        state.set("gen_ai.request.seed", parse_int(members.get("seed")))
        if any(self._capture):
            state.prompt = clean_prompt(members.get("prompt")) or state.prompt

    def _end_span(self, event: events.Succeeded | events.Failed | events.Cancelled, state: _CallSpan) -> None:
        elapsed_ns = state.elapsed_ns()
        try:
            if isinstance(event, events.Succeeded):
                _describe_response(event.response, state)
            else:
                self._describe_failure(event, state)
            state.set("imgkit.attempts", state.attempts)
            state.set("gen_ai.response.time_to_first_chunk", state.first_chunk_s)
            messages = _list_messages(event, state) if any(self._capture) else {}
            if self._capture.in_spans:
                for name, value in messages.items():
                    state.span.set_attribute(name, json.dumps(value, ensure_ascii=False))
            self._record_metrics(event, state, elapsed_ns / 1e9)
            self._emit_events(event, state, messages)
        finally:
            state.span.end(state.began_at_ns + elapsed_ns)

    def _describe_failure(self, event: events.Failed | events.Cancelled, state: _CallSpan) -> None:
        """Set the status without the message of the error: servers repeat prompts in it."""
        if isinstance(event, events.Cancelled):
            kind, why = "cancelled", "cancelled by the caller"
            maybe_billed = event.maybe_billed
        else:
            status = getattr(event.error, "status", None) or None
            kind = type(event.error).__name__
            why = f"{kind}: HTTP {status}" if status else kind
            maybe_billed = getattr(event.error, "maybe_billed", False)
            state.set("http.response.status_code", status)
            state.set("imgkit.request_id", clean_text(getattr(event.error, "request_id", None)))
        state.set("error.type", kind)
        state.set("imgkit.maybe_billed", maybe_billed)
        state.span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, why))

    def _record_metrics(self, event: events.Event, state: _CallSpan, elapsed_s: float) -> None:
        instruments, context = self._instruments, self._trace.set_span_in_context(state.span)
        names = ("gen_ai.response.model", "error.type")
        ended = {**state.common, **{name: state.facts[name] for name in names if name in state.facts}}
        common = {name: value for name, value in ended.items() if name != "error.type"}
        instruments.duration.record(elapsed_s, ended, context)
        if state.first_chunk_s is not None:
            instruments.first_chunk.record(state.first_chunk_s, common, context)
        response = event.response if isinstance(event, events.Succeeded) else None
        # The original call counted the tokens of a cached reply.
        if response is not None and response.meta.cached:
            return
        usage = (response and response.usage) or Usage()
        for side, (total, parts) in count_tokens(usage).items():
            instruments.per_call[side].record(total or 0, ended, context)
            for modality, count in parts.items():
                instruments.used[side].add(count, {**common, "gen_ai.token.modality": modality}, context)

    def _emit_events(self, event: events.Event, state: _CallSpan, messages: dict[str, Any]) -> None:
        context = self._trace.set_span_in_context(state.span)
        if self._capture.in_events:
            severity = self._logs.SeverityNumber.DEBUG
            self._emit(_DETAILS_EVENT, severity, {**state.facts, **messages}, context)
        if isinstance(event, events.Failed):
            error = type(event.error)
            attributes = {"exception.type": f"{error.__module__}.{error.__qualname__}"}
            self._emit(_EXCEPTION_EVENT, self._logs.SeverityNumber.WARN, attributes, context)

    def _emit(
        self, name: str, severity: SeverityNumber, attributes: dict[str, Any], context: Context
    ) -> None:
        self._logger.emit(
            self._logs.LogRecord(
                timestamp=time.time_ns(),
                context=context,
                severity_number=severity,
                severity_text=severity.name,
                attributes=attributes,
                event_name=name,
            )
        )

    def __repr__(self) -> str:
        return f"TelemetryPlugin(capture_content={name_capture(self._capture)!r})"


def _note_chunk(event: events.FirstByte | events.Progress, state: _CallSpan) -> None:
    """Take the time of the first chunk of a stream; the body of an error reply is none."""
    if isinstance(event, events.FirstByte):
        state.has_stream = 200 <= event.status < 300
    elif state.has_stream and state.first_chunk_s is None:
        state.first_chunk_s = state.elapsed_ns() / 1e9


def _list_messages(event: events.Event, state: _CallSpan) -> dict[str, Any]:
    """Return the messages that were sent and received, by the names of their attributes."""
    messages: dict[str, Any] = {}
    # A prompt that was never sent may have been refused for the credential in it.
    if state.prompt is not None and state.attempts:
        messages["gen_ai.input.messages"] = to_input_messages(state.prompt)
    if isinstance(event, events.Succeeded) and any(image.revised_prompt for image in event.response.images):
        messages["gen_ai.output.messages"] = to_output_messages(event.response)
    return messages


def _describe_response(response: ImagesResponse, state: _CallSpan) -> None:
    meta = response.meta
    state.set_model(meta.model)
    state.set("gen_ai.response.model", clean_text(response.extra.get("model")))
    state.set("gen_ai.response.id", clean_text(response.extra.get("id")))
    state.set("http.response.status_code", meta.status)
    state.set("imgkit.request_id", clean_text(meta.request_id))
    state.set("imgkit.pictures", len(response))
    state.set("imgkit.cached", meta.cached)
    if response.usage is None or meta.cached:
        return
    for side, (total, parts) in count_tokens(response.usage).items():
        state.set(f"gen_ai.usage.{side}_tokens", total)
        for modality in ("text", "image"):
            state.set(f"gen_ai.usage.{modality}.{side}_tokens", parts.get(modality))
