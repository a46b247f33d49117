"""The telemetry plugin: one span per call, metrics, conventional names, and no secrets."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import threading
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import imgkit
from imgkit.default_plugins.logging import request_members
from imgkit.default_plugins.telemetry import PROMPT_LIMIT, TelemetryPlugin
from imgkit.errors import NotSentError, RateLimitError
from imgkit.models import ImagesResponse, Meta, Usage
from imgkit.plugins.events import Call, Failed, Outcome, Retrying, Started, Succeeded
from imgkit.wire.messages import BytesBody, HttpRequest
from tests.support.pictures import answer, encoded, picture
from tests.support.wire_server import WireServer, hang, reply

KEY = "sk-CANARY-key-0123456789"
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
    """Telemetry providers that keep spans and metrics in memory."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)

    def plugin(self, **options: Any) -> TelemetryPlugin:
        return TelemetryPlugin(tracer_provider=self.tracers, meter_provider=self.meters, **options)

    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def span(self) -> ReadableSpan:
        (span,) = self.spans()
        return span

    def everything(self) -> str:
        data = self._reader.get_metrics_data()
        return "".join(span.to_json() for span in self.spans()) + (data.to_json() if data else "")

    def points(self) -> dict[str, list[Any]]:
        data = self._reader.get_metrics_data()
        assert data is not None
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        metrics = [metric for scope in scopes for metric in scope.metrics]
        return {f"{one.name} {one.unit}": list(one.data.data_points) for one in metrics}


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


def test_metrics(flavor: Any, collected: Collected) -> None:
    """Records duration and tokens as histograms with conventional names and units."""
    with WireServer(reply(200, {**answer(), "usage": USAGE})) as server:
        options = {"base_url": server.base_url, "model": "gpt-x", "plugins": [collected.plugin()]}
        flavor.run(lambda service: service.create_image("a fox"), "requests", **options)
    points = collected.points()
    assert set(points) == {"gen_ai.client.operation.duration s", "gen_ai.client.token.usage {token}"}
    common = {
        "gen_ai.operation.name": "image_generation", "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-x", "server.address": "127.0.0.1", "server.port": server.port,
    }  # fmt: skip
    (duration,) = points["gen_ai.client.operation.duration s"]
    assert dict(duration.attributes) == common
    assert 0 < duration.sum < 10
    assert duration.explicit_bounds[-1] == 81.92
    tokens = {
        point.attributes["gen_ai.token.type"]: point for point in points["gen_ai.client.token.usage {token}"]
    }
    assert {kind: point.sum for kind, point in tokens.items()} == {"input": 7, "output": 90}
    assert dict(tokens["input"].attributes) == {**common, "gen_ai.token.type": "input"}
    assert tokens["input"].explicit_bounds[-1] == 67108864


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
    assert "gen_ai.request.choice.count" not in variation


def test_failures(flavor: Any, http_backend: str, collected: Collected) -> None:
    """Adds the error class to span and duration, and the message to the span."""
    with WireServer(reply(400, {"error": {"message": f"bad\nsize {KEY}"}})) as server:
        options = {"base_url": server.base_url, "model": "gpt-x", "plugins": [collected.plugin()]}
        with pytest.raises(imgkit.BadRequestError):
            flavor.run(lambda service: service.create_image("a fox"), http_backend, **options)
    span = collected.span()
    assert span.status.status_code is StatusCode.ERROR
    assert "bad size …" in (span.status.description or "")
    attributes = dict(span.attributes or {})
    assert (attributes["error.type"], attributes["http.response.status_code"]) == ("BadRequestError", 400)
    assert attributes["imgkit.maybe_billed"] is False
    assert span.events == ()
    points = collected.points()
    assert list(points) == ["gen_ai.client.operation.duration s"]
    assert points["gen_ai.client.operation.duration s"][0].attributes["error.type"] == "BadRequestError"


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
            return asyncio.gather(*[one_task(service, number) for number in range(1, 6)])
        threads = [threading.Thread(target=one_call, args=(service, number)) for number in range(1, 6)]
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
        options["plugins"] = [collected.plugin(capture_content=True), Biscuit()]
        try:
            flavor.run(
                lambda service: service.create_image(f"{SIGNED} {BASE64} {KEY}"), http_backend, **options
            )
        except imgkit.BadRequestError:
            assert status == 400
        assert KEY in server.lines[0].head.decode()
        assert "CANARY-cookie" in server.lines[0].head.decode()
    assert "characters of base64" in str((collected.span().attributes or {})["gen_ai.input.messages"])
    assert "CANARY" not in collected.everything()
    assert BASE64[:80] not in collected.everything()


def captured(collected: Collected, **options: Any) -> Any:
    with imgkit.ImageService(plugins=[collected.plugin(**options)]) as service:
        service.create_image("otter " * 500, size="256x256")
    return dict(collected.span().attributes or {}).get("gen_ai.input.messages")


def test_prompts_are_not_captured(collected: Collected) -> None:
    """Exports no prompt by default."""
    assert captured(collected) is None
    assert "otter" not in collected.everything()


@pytest.mark.parametrize("by_variable", [True, False])
def test_prompts_are_captured_on_request(
    by_variable: bool, collected: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exports the shortened prompt if the argument or the variable enables it."""
    if by_variable:
        monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    (message,) = json.loads(captured(collected, **({} if by_variable else {"capture_content": True})))
    (part,) = message["parts"]
    assert (message["role"], part["type"], part["content"][:12]) == ("user", "text", "otter otter ")
    assert len(part["content"]) == PROMPT_LIMIT


def test_the_argument_wins_over_the_variable(collected: Collected, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignores the variable with capture_content=False."""
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    assert captured(collected, capture_content=False) is None


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
    assert list(collected.points()) == ["gen_ai.client.operation.duration s"]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Says how to install opentelemetry-api."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(imgkit.PluginError, match=r"pip install 'imgkit-service\[otel\]'"):
        TelemetryPlugin()


def test_without_an_sdk() -> None:
    """Works with the API package alone, and keeps nothing."""
    plugin = TelemetryPlugin()
    with imgkit.ImageService(plugins=[plugin]) as service:
        assert len(service.create_image("a fox", size="256x256")) == 1
    assert plugin._running == {}


@pytest.mark.parametrize("data", [b"[1]", b"{", b"\xff", b'"text"'])
def test_bodies_without_members(data: bytes) -> None:
    """Returns no members for bodies other than JSON objects and forms."""
    url = "https://api.example/v1"
    assert request_members(HttpRequest("POST", url, body=BytesBody(data, "application/json"))) == {}
    assert request_members(HttpRequest("POST", url, body=BytesBody(b'{"n": 1}', "text/plain"))) == {}
    assert request_members(HttpRequest("POST", url, body=BytesBody(b'{"n": 1}', "application/json"))) == {
        "n": 1
    }
