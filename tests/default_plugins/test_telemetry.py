"""The telemetry plugin: one span per call, metrics, conventional names, and no secrets."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import threading
from typing import Any

import pytest
from opentelemetry import baggage, context
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, Sampler, SamplingResult
from opentelemetry.trace import SpanKind, StatusCode

import imgkit
from imgkit.default_plugins import telemetry
from imgkit.default_plugins.logging import request_members
from imgkit.default_plugins.retry import NoWaitRetry
from imgkit.default_plugins.telemetry import SCHEMA_URL, TelemetryPlugin
from imgkit.default_plugins.telemetry_values import CAPTURE_VARIABLE, PROMPT_LIMIT, count_tokens
from imgkit.errors import NotSentError, RateLimitError
from imgkit.models import ImagesResponse, Meta, Usage
from imgkit.plugins.events import Call, Failed, Outcome, Retrying, Started, Succeeded
from imgkit.wire.messages import BytesBody, HttpRequest
from tests.support.event_streams import completed, partial, streamed, watch
from tests.support.pictures import answer, encoded, picture
from tests.support.wire_server import WireServer, hang, reply

KEY = "sk-CANARY-key-0123456789"
OTHER_KEY = "sk-CANARY-other-0123456789"
ORGANIZATION = "org-CANARY-0123456789"
SIGNED = "https://cdn.example/a.png?sig=CANARY-signature"
BASE64 = encoded(picture() + bytes(range(256)) * 4)
USAGE = {
    "input_tokens": 7,
    "output_tokens": 90,
    "total_tokens": 97,
    "input_tokens_details": {"image_tokens": 3},
}
CALL = Call(
    id="1" * 32, operation="create_image", backend="requests", provider="openai",
    base_url="https://api.example/v1", host_class="compatible", timeout_s=60.0,
)  # fmt: skip


class Collected:
    """Telemetry providers that keep spans, metrics and events in memory."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        untyped: Any = InMemoryLogRecordExporter
        self._logs = untyped()
        self.tracers = TracerProvider(sampler, shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.loggers = LoggerProvider(shutdown_on_exit=False)
        self.loggers.add_log_record_processor(SimpleLogRecordProcessor(self._logs))

    def plugin(self, **options: Any) -> TelemetryPlugin:
        return TelemetryPlugin(
            tracer_provider=self.tracers,
            meter_provider=self.meters,
            logger_provider=self.loggers,
            **options,
        )

    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def span(self) -> ReadableSpan:
        (span,) = self.spans()
        return span

    def attributes(self) -> dict[str, Any]:
        return dict(self.span().attributes or {})

    def events(self) -> list[Any]:
        """Return the log records of all events."""
        return [one.log_record for one in self._logs.get_finished_logs()]

    def everything(self) -> str:
        data = self._reader.get_metrics_data()
        records: list[Any] = [*self.spans(), *self._logs.get_finished_logs()]
        texts = [one.to_json() for one in records]
        return "".join(texts) + (data.to_json() if data else "")

    def scopes(self) -> set[Any]:
        """Return the instrumentation scopes of all signals."""
        data = self._reader.get_metrics_data()
        assert data is not None
        metrics = [scope.scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        records = [one.instrumentation_scope for one in self._logs.get_finished_logs()]
        return {*metrics, *records, *(span.instrumentation_scope for span in self.spans())}

    def points(self) -> dict[str, list[Any]]:
        data = self._reader.get_metrics_data()
        assert data is not None
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        metrics = [metric for scope in scopes for metric in scope.metrics]
        return {f"{one.name} {one.unit}": list(one.data.data_points) for one in metrics}


class RecordingSampler(Sampler):
    """A sampler that keeps the name and attributes that each decision sees."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def should_sample(
        self, parent_context: Any, trace_id: int, name: str, kind: Any = None, attributes: Any = None,
        links: Any = None, trace_state: Any = None,
    ) -> SamplingResult:  # fmt: skip
        self.seen.append((name, dict(attributes or {})))
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)

    def get_description(self) -> str:
        return "recording"


@pytest.fixture
def collected() -> Collected:
    return Collected()


def test_span_attributes(flavor: Any, http_backend: str, collected: Collected) -> None:
    """Creates one CLIENT span with exactly these attributes, for each service and backend."""
    body = {**answer(2), "usage": USAGE, "model": "gpt-x-2026"}
    with WireServer(reply(200, body)) as server:
        options = {"base_url": server.base_url, "model": "gpt-x", "plugins": [collected.plugin()]}
        made = flavor.run(lambda service: service.create_image("a fox", n=2), http_backend, **options)
    span = collected.span()
    assert (span.name, span.kind) == ("image_generation gpt-x", SpanKind.CLIENT)
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "image_generation",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.request.choice.count": 2,
        "gen_ai.response.model": "gpt-x-2026",
        "gen_ai.output.type": "image",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 90,
        "gen_ai.usage.image.input_tokens": 3,
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "http.response.status_code": 200,
        "imgkit.backend": http_backend,
        "imgkit.call.id": made.meta.call_id,
        "imgkit.request_id": "req_test",
        "imgkit.attempts": 1,
        "imgkit.pictures": 2,
        "imgkit.cached": False,
    }


INFERENCE = "gen_ai.client.inference"
ALL_METRICS = {
    f"{INFERENCE}.duration s",
    f"{INFERENCE}.usage.input_tokens {{token}}",
    f"{INFERENCE}.usage.output_tokens {{token}}",
    f"{INFERENCE}.operation.input_tokens {{token}}",
    f"{INFERENCE}.operation.output_tokens {{token}}",
}


def test_metrics(flavor: Any, collected: Collected) -> None:
    """Records duration and tokens with conventional names, units and attributes."""
    with WireServer(reply(200, {**answer(), "usage": USAGE, "model": "gpt-x-2026"})) as server:
        options = {"base_url": server.base_url, "model": "gpt-x", "plugins": [collected.plugin()]}
        flavor.run(lambda service: service.create_image("a fox"), "requests", **options)
    points = collected.points()
    assert set(points) == ALL_METRICS
    common = {
        "gen_ai.operation.name": "image_generation", "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-x", "gen_ai.response.model": "gpt-x-2026",
        "server.address": "127.0.0.1", "server.port": server.port,
    }  # fmt: skip
    (duration,) = points[f"{INFERENCE}.duration s"]
    assert dict(duration.attributes) == common
    span = collected.span()
    assert duration.sum == pytest.approx(((span.end_time or 0) - (span.start_time or 0)) / 1e9)
    assert duration.explicit_bounds[-1] == 81.92
    (per_call,) = points[f"{INFERENCE}.operation.input_tokens {{token}}"]
    assert (dict(per_call.attributes), per_call.sum, per_call.explicit_bounds[-1]) == (common, 7, 67108864)
    modality = "gen_ai.token.modality"
    used = {
        side: {
            one.attributes[modality]: one.value
            for one in points[f"{INFERENCE}.usage.{side}_tokens {{token}}"]
        }
        for side in ("input", "output")
    }
    assert used == {"input": {"image": 3, "unknown": 4}, "output": {"unknown": 90}}
    (output,) = points[f"{INFERENCE}.usage.output_tokens {{token}}"]
    assert dict(output.attributes) == {**common, modality: "unknown"}


@pytest.mark.parametrize(
    ("usage", "total", "parts"),
    [
        (Usage(), None, {"unknown": 0}),
        (Usage(input_tokens=0), 0, {"unknown": 0}),
        (Usage(input_tokens=9), 9, {"unknown": 9}),
        (Usage(input_tokens=9, input_text_tokens=4, input_image_tokens=5), 9, {"text": 4, "image": 5}),
        (Usage(input_tokens=9, input_text_tokens=4), 9, {"text": 4, "unknown": 5}),
        (Usage(input_text_tokens=4, input_image_tokens=0), 4, {"text": 4, "image": 0}),
        (Usage(input_tokens=3, input_text_tokens=4), 3, {"unknown": 3}),
    ],
)
def test_token_parts(usage: Usage, total: int | None, parts: dict[str, int]) -> None:
    """The parts by modality add up to the total, whatever the server breaks down."""
    assert count_tokens(usage)["input"] == (total, parts)


def test_split_calls(flavor: Any, http_backend: str, collected: Collected) -> None:
    """A call that imgkit splits has one span, with its whole number of images and the sum of its tokens."""

    def script(line: Any) -> None:
        reply(200, {**answer(json.loads(line.body)["n"]), "usage": USAGE})(line)

    with WireServer(script) as server:
        options = {"base_url": server.base_url, "plugins": [collected.plugin()]}
        made = flavor.run(
            lambda service: service.create_image("a fox", n=25, model="gpt-x"), http_backend, **options
        )
        assert (len(made), server.posts) == (25, 3)
    attributes = collected.attributes()
    assert attributes["gen_ai.request.choice.count"] == attributes["imgkit.pictures"] == 25
    assert attributes["gen_ai.usage.input_tokens"] == 21
    assert attributes["imgkit.attempts"] == 3


def test_offline_calls(flavor: Any, collected: Collected) -> None:
    """Names no provider and no server for offline calls."""
    image = picture(size=(64, 64))

    async def both(one: Any) -> None:
        await one.create_image_edit(image, "a hat", size="256x256", n=2)
        await one.create_image_variation(image, size="256x256")

    def work(one: Any) -> Any:
        if flavor.flavor == "async":
            return both(one)
        one.create_image_edit(image, "a hat", size="256x256", n=2)
        return one.create_image_variation(image, size="256x256")

    flavor.run(work, plugins=[collected.plugin()])
    edit, variation = [dict(span.attributes or {}) for span in collected.spans()]
    assert [span.name for span in collected.spans()] == ["image_edit", "image_variation"]
    assert edit["gen_ai.provider.name"] == variation["gen_ai.provider.name"] == "imgkit.offline"
    assert not {"server.address", "server.port", "gen_ai.request.model"} & (edit.keys() | variation.keys())
    assert edit["gen_ai.request.choice.count"] == 2
    assert set(collected.points()) == ALL_METRICS
    assert "gen_ai.request.choice.count" not in variation


def test_failures(flavor: Any, http_backend: str, collected: Collected) -> None:
    """Adds the error class to span and duration, and the message to the span."""
    with WireServer(reply(400, {"error": {"message": f"bad\nsize {KEY}"}})) as server:
        options = {"base_url": server.base_url, "model": "gpt-x", "plugins": [collected.plugin()]}
        with pytest.raises(imgkit.BadRequestError):
            flavor.run(lambda service: service.create_image("a fox"), http_backend, **options)
    span = collected.span()
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "BadRequestError: HTTP 400"
    attributes = dict(span.attributes or {})
    assert (attributes["error.type"], attributes["http.response.status_code"]) == ("BadRequestError", 400)
    assert attributes["imgkit.maybe_billed"] is False
    assert span.events == ()
    points = collected.points()
    assert set(points) == ALL_METRICS
    for name in ("duration s", "operation.input_tokens {token}", "operation.output_tokens {token}"):
        (point,) = points[f"{INFERENCE}.{name}"]
        assert point.attributes["error.type"] == "BadRequestError"
    for side in ("input", "output"):
        (used,) = points[f"{INFERENCE}.usage.{side}_tokens {{token}}"]
        assert (used.value, used.attributes["gen_ai.token.modality"]) == (0, "unknown")
        assert "error.type" not in used.attributes
    (event,) = collected.events()
    assert (event.event_name, event.severity_text) == (f"{INFERENCE}.exception", "WARN")
    assert dict(event.attributes) == {"exception.type": "imgkit.errors.BadRequestError"}
    assert event.span_id == span.context.span_id


@pytest.mark.parametrize("capture", ["no_content", "span_and_event"])
@pytest.mark.parametrize("operation", ["create_image", "create_image_edit", "stream_image"])
def test_no_error_text_reaches_telemetry(
    flavor: Any, operation: str, capture: str, collected: Collected
) -> None:
    """A server that repeats the prompt in its refusal puts it nowhere, unless prompts are captured."""
    prompt = "a purple walrus"
    error = {"message": f"Refused: {prompt}", "code": prompt, "type": prompt, "param": prompt}
    inputs = (picture(),) if operation == "create_image_edit" else ()
    with WireServer(reply(400, {"error": error})) as server:
        plugin = collected.plugin(capture_content=capture)
        options: dict[str, Any] = {"base_url": server.base_url, "plugins": [plugin]}
        with pytest.raises(imgkit.BadRequestError, match=prompt):
            if operation == "stream_image":
                watch(flavor, lambda one: one.stream_image(prompt), "requests", retry=False, **options)
            else:
                flavor.run(lambda one: getattr(one, operation)(*inputs, prompt), "requests", **options)
    captured_in = collected.attributes().pop("gen_ai.input.messages", "")
    assert ("walrus" in captured_in) is (capture == "span_and_event")
    assert "walrus" not in str(collected.span().status.description)
    assert ("walrus" in collected.everything()) is (capture == "span_and_event")
    names = [event.event_name for event in collected.events()]
    assert names[-1] == f"{INFERENCE}.exception"
    assert "walrus" not in str(collected.events()[-1].attributes)


@pytest.mark.parametrize(
    ("options", "arguments", "model", "count", "seed"),
    [
        ({"model": "gpt-x"}, {}, "gpt-x", None, None),
        ({"model": "gpt-x"}, {"model": "gpt-y", "n": 1}, "gpt-y", None, None),
        ({}, {"extra_body": {"model": "gpt-z", "n": 3, "seed": 5}}, "gpt-z", 3, 5),
        ({"model": "gpt-x"}, {"extra_body": {"seed": "no number"}}, "gpt-x", None, None),
        ({}, {"n": 2}, None, 2, None),
    ],
)
def test_samplers_see_the_request(
    options: dict[str, Any], arguments: dict[str, Any], model: str | None, count: int | None, seed: int | None
) -> None:
    """Gives model, server, number of images and seed to the sampler, when the span is created."""
    sampler = RecordingSampler()
    collected = Collected(sampler)
    with WireServer(reply(200, answer(count or 1))) as server:
        with imgkit.ImageService(
            "requests", base_url=server.base_url, plugins=[collected.plugin()], **options
        ) as service:
            service.create_image("a fox", **arguments)
    ((name, seen),) = sampler.seen
    assert (
        name
        == collected.span().name
        == ("image_generation" if model is None else f"image_generation {model}")
    )
    assert (seen["server.address"], seen["server.port"]) == ("127.0.0.1", server.port)
    assert seen.get("gen_ai.request.model") == model
    assert seen.get("gen_ai.request.choice.count") == count
    assert seen.get("gen_ai.request.seed") == seed


def test_rejected_calls_name_their_model() -> None:
    """The span of a call that was rejected before it was sent has its model from the start."""
    sampler = RecordingSampler()
    rejected = Collected(sampler)
    options: dict[str, Any] = {"base_url": "http://127.0.0.1:1/v1", "plugins": [rejected.plugin()]}
    with imgkit.ImageService("requests", **options) as one, pytest.raises(imgkit.InvalidRequestError):
        one.create_image_edit(b"no image", "a hat", model="gpt-x")
    assert sampler.seen[0][1]["gen_ai.request.model"] == "gpt-x"
    assert rejected.attributes()["imgkit.attempts"] == 0


def test_hooks_change_the_model_of_the_span() -> None:
    """A `prepare` hook changes the model before the span is created."""

    class Cheaper:
        @imgkit.hookimpl
        def imgkit_prepare(self, request: Any, call: Call) -> Any:
            assert call.model == "gpt-x"
            return dataclasses.replace(request, model="gpt-mini")

    sampler = RecordingSampler()
    changed = Collected(sampler)
    with imgkit.ImageService(plugins=[Cheaper(), changed.plugin()]) as service:
        service.create_image("a fox", model="gpt-x", size="64x64")
    assert sampler.seen[0][1]["gen_ai.request.model"] == "gpt-mini"


def test_observers_get_the_request_without_credentials(flavor: Any) -> None:
    """`Started` has the whole request, without headers and secret members."""
    seen: list[Any] = []

    class Observer:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            seen.append(event)

    arguments = {"n": 2, "extra_headers": {"x-key": KEY}, "extra_body": {"api_key": KEY, "seed": 5}}
    with WireServer(reply(200, answer(2))) as server:
        options = {"base_url": server.base_url, "model": "gpt-x", "plugins": [Observer()]}
        flavor.run(lambda service: service.create_image("a fox", **arguments), "requests", **options)
        assert KEY in server.lines[0].head.decode()
        assert KEY in server.lines[0].body.decode()
    request: Any = next(event.request for event in seen if isinstance(event, Started))
    assert (request.prompt, request.n, request.model, request.extra_headers) == ("a fox", 2, "gpt-x", None)
    assert dict(request.extra_body) == {"api_key": "…", "seed": 5}


def test_streams(flavor: Any, http_backend: str, collected: Collected) -> None:
    """Records the time to the first chunk of a stream, in the span and as a metric."""
    with WireServer(streamed(partial(), completed())) as server:
        seen = watch(
            flavor, lambda service: service.stream_image("a fox", partial_images=1), http_backend,
            base_url=server.base_url, plugins=[collected.plugin()],
        )  # fmt: skip
    assert seen.kinds == ["PartialImage", "Completed"]
    attributes, points = collected.attributes(), collected.points()
    assert attributes["gen_ai.request.stream"] is True
    assert (attributes["gen_ai.usage.input_tokens"], attributes["gen_ai.usage.output_tokens"]) == (2, 7)
    (first,) = points[f"{INFERENCE}.time_to_first_chunk s"]
    (duration,) = points[f"{INFERENCE}.duration s"]
    assert attributes["gen_ai.response.time_to_first_chunk"] == first.sum
    assert 0 < first.sum <= duration.sum
    assert first.explicit_bounds == duration.explicit_bounds


def test_a_refused_stream_has_no_first_chunk(flavor: Any, collected: Collected) -> None:
    """The body of an error reply is no chunk of a stream."""
    script = [reply(429, {"error": {"message": "slow"}}), reply(400, b"{}")]
    with WireServer(*script) as server:
        with pytest.raises(imgkit.BadRequestError):
            watch(
                flavor, lambda service: service.stream_image("a fox"), "requests",
                base_url=server.base_url, plugins=[collected.plugin()], retry=NoWaitRetry(),
            )  # fmt: skip
    assert collected.attributes()["imgkit.attempts"] == 2
    assert "gen_ai.response.time_to_first_chunk" not in collected.attributes()
    assert f"{INFERENCE}.time_to_first_chunk s" not in collected.points()


def test_schema_and_scope(collected: Collected) -> None:
    """All signals name the schema of the conventions, the library and its version."""
    with imgkit.ImageService(plugins=[collected.plugin(capture_content="event_only")]) as service:
        service.create_image("a fox", size="64x64")
    (scope,) = collected.scopes()
    assert (scope.name, scope.version, scope.schema_url) == ("imgkit", imgkit.__version__, SCHEMA_URL)


def test_conversations(flavor: Any, collected: Collected) -> None:
    """Takes the id of a conversation from the baggage of the caller."""
    token = context.attach(baggage.set_baggage("gen_ai.conversation.id", "conv_7"))
    try:
        flavor.run(lambda one: one.create_image("a fox", size="64x64"), plugins=[collected.plugin()])
    finally:
        context.detach(token)
    assert collected.attributes()["gen_ai.conversation.id"] == "conv_7"


def test_unsampled_calls_count(flavor: Any) -> None:
    """A call without a recorded span still has its metrics and its event."""
    unsampled = Collected(ALWAYS_OFF)
    with WireServer(reply(200, {**answer(), "usage": USAGE})) as server:
        options = {"base_url": server.base_url, "plugins": [unsampled.plugin(capture_content="event_only")]}
        flavor.run(lambda one: one.create_image("a fox", model="gpt-x"), "requests", **options)
    assert unsampled.spans() == ()
    (duration,) = unsampled.points()[f"{INFERENCE}.duration s"]
    assert duration.attributes["gen_ai.request.model"] == "gpt-x"
    (event,) = unsampled.events()
    assert event.attributes["gen_ai.usage.output_tokens"] == 90
    assert "a fox" in str(event.attributes["gen_ai.input.messages"])


def test_cancelled_calls_leave_no_span_open(http_backend: str, collected: Collected) -> None:
    """Ends the span of a cancelled call with maybe_billed."""
    plugin = collected.plugin()

    async def main(server: WireServer) -> None:
        async with imgkit.AsyncImageService(http_backend, base_url=server.base_url, plugins=[plugin]) as one:
            task = asyncio.create_task(one.create_image("a fox"))
            while not server.lines:
                await asyncio.sleep(0.005)
            assert len(plugin._running) == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with WireServer(hang) as server:
        asyncio.run(main(server))
    attributes = dict(collected.span().attributes or {})
    assert (attributes["error.type"], attributes["imgkit.maybe_billed"]) == ("cancelled", True)
    assert collected.span().status.status_code is StatusCode.ERROR
    assert plugin._running == {}


def test_spans_nest_under_the_callers(flavor: Any, collected: Collected) -> None:
    """Nests each span of concurrent calls under its caller's span."""
    plugin, tracer = collected.plugin(), collected.tracers.get_tracer("test")

    def one_call(service: Any, number: int) -> None:
        with tracer.start_as_current_span(f"parent {number}"):
            service.create_image(f"fox {number}", size="256x256", n=number)

    async def one_task(service: Any, number: int) -> None:
        with tracer.start_as_current_span(f"parent {number}"):
            await service.create_image(f"fox {number}", size="256x256", n=number)

    def work(service: Any) -> Any:
        if flavor.flavor == "async":
            return asyncio.gather(*[one_task(service, number) for number in range(2, 7)])
        threads = [threading.Thread(target=one_call, args=(service, number)) for number in range(2, 7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return None

    flavor.run(work, plugins=[plugin])
    parents = {one.context.span_id: one.name for one in collected.spans() if one.name.startswith("parent")}
    children = [one for one in collected.spans() if not one.name.startswith("parent")]
    assert len(parents) == len(children) == 5
    for child in children:
        assert child.parent is not None
        count = dict(child.attributes or {})["gen_ai.request.choice.count"]
        assert parents[child.parent.span_id] == f"parent {count}"
    assert plugin._running == {}


@pytest.mark.parametrize("status", [200, 400])
def test_no_secret_in_spans_or_metrics(
    flavor: Any, http_backend: str, status: int, collected: Collected
) -> None:
    """Exports no key, organisation, cookie, signature or image, even with captured content."""

    class Biscuit:
        @imgkit.hookimpl
        def imgkit_before_send(self, request: Any) -> Any:
            return dataclasses.replace(request, headers={**request.headers, "cookie": "s=CANARY-cookie"})

    message = f"key {KEY} of {ORGANIZATION} for {SIGNED} with {BASE64}"
    replies: Any = {
        200: {"created": 1, "data": [{"url": SIGNED}], "model": f"m {KEY}"},
        400: {"error": {"message": message}},
    }
    script = reply(status, replies[status], set_cookie="CANARY", x_request_id=f"req {SIGNED}")
    with WireServer(script) as server:
        options: dict[str, Any] = {"api_key": KEY, "organization": ORGANIZATION, "base_url": server.base_url}
        options["plugins"] = [collected.plugin(capture_content="span_and_event"), Biscuit()]
        try:
            flavor.run(
                lambda service: service.create_image(f"{SIGNED} {BASE64} {OTHER_KEY}"),
                http_backend,
                **options,
            )
        except imgkit.BadRequestError:
            assert status == 400
        assert KEY in server.lines[0].head.decode()
        assert "CANARY-cookie" in server.lines[0].head.decode()
    assert "characters of base64" in str((collected.span().attributes or {})["gen_ai.input.messages"])
    assert "CANARY" not in collected.everything()
    assert BASE64[:80] not in collected.everything()


def capture(collected: Collected, **options: Any) -> tuple[str | None, Any]:
    """Make a call and return the prompt in its span and in its event."""
    with imgkit.ImageService(plugins=[collected.plugin(**options)]) as service:
        service.create_image("otter " * 500, size="64x64")
    events = [dict(event.attributes) for event in collected.events()]
    in_event = events[0].get("gen_ai.input.messages") if events else None
    return collected.attributes().get("gen_ai.input.messages"), in_event


def test_prompts_are_not_captured(collected: Collected) -> None:
    """Exports no prompt and no event by default."""
    assert capture(collected) == (None, None)
    assert collected.events() == []
    assert "otter" not in collected.everything()


@pytest.mark.parametrize("by_variable", [True, False])
@pytest.mark.parametrize(
    ("value", "in_span", "in_event"),
    [
        ("NO_CONTENT", False, False), ("SPAN_ONLY", True, False), ("EVENT_ONLY", False, True),
        ("SPAN_AND_EVENT", True, True), ("true", True, False), ("false", False, False),
        (" span_only ", True, False), ("True", True, False), ("", False, False),
    ],
)  # fmt: skip
def test_prompts_are_captured_on_request(
    value: str, in_span: bool, in_event: bool, by_variable: bool, collected: Collected,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Exports the shortened prompt to the places that the argument or the variable names."""
    options: dict[str, Any] = {}
    if by_variable:
        monkeypatch.setenv(CAPTURE_VARIABLE, value)
    elif value:
        options["capture_content"] = value
    span, event = capture(collected, **options)
    assert (span is not None, event is not None) == (in_span, in_event)
    for message in [*json.loads(span or "[]"), *(event or ())]:
        (part,) = message["parts"]
        assert (message["role"], part["type"], part["content"][:12]) == ("user", "text", "otter otter ")
        assert len(part["content"]) == PROMPT_LIMIT
    if in_event:
        (record,) = collected.events()
        assert (record.event_name, record.severity_text) == (f"{INFERENCE}.operation.details", "DEBUG")
        assert record.span_id == collected.span().context.span_id
        spans = {**collected.attributes(), "gen_ai.input.messages": None}
        assert {**dict(record.attributes), "gen_ai.input.messages": None} == spans


def test_refused_prompts_are_not_captured(flavor: Any, collected: Collected) -> None:
    """A prompt that is refused for the credential in it reaches neither span nor event."""
    key = "Zx81/qpLm+CANARY~77_yy="
    options: dict[str, Any] = {"base_url": "http://127.0.0.1:1/v1", "api_key": key}
    options["plugins"] = [collected.plugin(capture_content="span_and_event")]
    with pytest.raises(imgkit.InvalidRequestError, match="prompt"):
        flavor.run(lambda one: one.create_image(f"a fox named {key}"), "requests", **options)
    assert "CANARY" not in collected.everything()
    assert "a fox" not in collected.everything()


def test_unknown_places(collected: Collected, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown value of the variable captures nothing and warns; one of the argument is an error."""
    monkeypatch.setenv(CAPTURE_VARIABLE, "everywhere")
    with pytest.warns(imgkit.PluginWarning, match="NO_CONTENT, SPAN_ONLY, EVENT_ONLY, SPAN_AND_EVENT"):
        assert capture(collected) == (None, None)
    for value in ("everywhere", "", 1):
        with pytest.raises(imgkit.ConfigurationError, match="Choose one of 'no_content', 'span_only'"):
            collected.plugin(capture_content=value)


def test_the_argument_wins_over_the_variable(collected: Collected, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignores the variable with capture_content=False."""
    monkeypatch.setenv(CAPTURE_VARIABLE, "true")
    assert capture(collected, capture_content=False) == (None, None)


def test_revised_prompts(flavor: Any, collected: Collected) -> None:
    """Captures the prompts that the model rewrote, as one message for each image."""
    body = {"created": 1, "id": "img_5", "data": [{"b64_json": encoded(), "revised_prompt": "a red fox"}]}
    with WireServer(reply(200, body)) as server:
        plugin = collected.plugin(capture_content="span_and_event")
        options = {"base_url": server.base_url, "plugins": [plugin]}
        flavor.run(lambda one: one.create_image("a fox"), "requests", **options)
    message = {"role": "assistant", "parts": [{"type": "text", "content": "a red fox"}]}
    assert json.loads(collected.attributes()["gen_ai.output.messages"]) == [message]
    assert "a red fox" in str(collected.events()[0].attributes["gen_ai.output.messages"])
    assert collected.attributes()["gen_ai.response.id"] == "img_5"


def test_retries_are_events_of_one_span(collected: Collected) -> None:
    """Adds a retry as an event of the span, without the message of the failure."""
    error = RateLimitError(f"slow down {KEY}", status=429)
    outcome = Outcome(kind="refused", error=error, number=1, attempts=1, elapsed_s=0.1, remaining_s=59.0)
    plugin = collected.plugin()
    for event in (Started(), Retrying(outcome, 2.5), Failed(NotSentError("no way"))):
        plugin.imgkit_on_event(event, CALL)
    (span_event,) = collected.span().events
    assert span_event.name == "imgkit.retry"
    assert dict(span_event.attributes or {}) == {
        "error.type": "RateLimitError",
        "imgkit.outcome": "refused",
        "imgkit.attempts": 1,
        "imgkit.wait_s": 2.5,
    }
    assert dict(collected.span().attributes or {})["error.type"] == "NotSentError"


def test_cached_replies_count_no_tokens(collected: Collected) -> None:
    """Records span and duration of a cache hit, but no tokens."""
    meta = Meta(operation="create_image", call_id=CALL.id, backend="requests", provider="openai", cached=True)
    response = ImagesResponse(images=(), meta=meta, usage=Usage(input_tokens=7, output_tokens=90))
    collected.plugin().imgkit_on_event(Succeeded(response), CALL)
    attributes = dict(collected.span().attributes or {})
    assert attributes["imgkit.cached"] is True
    assert "gen_ai.usage.input_tokens" not in attributes
    assert list(collected.points()) == [f"{INFERENCE}.duration s"]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Says how to install opentelemetry-api."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(imgkit.PluginError, match=r"pip install 'imgkit-service\[otel\]'"):
        TelemetryPlugin()


def test_without_an_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Works with the API package alone, reads no request body, and keeps nothing."""
    read: list[object] = []
    monkeypatch.setattr(telemetry, "request_members", read.append)
    plugin = TelemetryPlugin(capture_content="span_only")
    with imgkit.ImageService(plugins=[plugin]) as service:
        assert len(service.create_image("a fox", size="256x256")) == 1
    assert (plugin._running, read) == ({}, [])


@pytest.mark.parametrize("data", [b"[1]", b"{", b"\xff", b'"text"'])
def test_bodies_without_members(data: bytes) -> None:
    """Returns no members for bodies other than JSON objects and forms."""
    url = "https://api.example/v1"
    assert request_members(HttpRequest("POST", url, body=BytesBody(data, "application/json"))) == {}
    assert request_members(HttpRequest("POST", url, body=BytesBody(b'{"n": 1}', "text/plain"))) == {}
    assert request_members(HttpRequest("POST", url, body=BytesBody(b'{"n": 1}', "application/json"))) == {
        "n": 1
    }
