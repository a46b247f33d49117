"""The model that a call is sent with: every record of a call names the same one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import imgkit
from imgkit import CreateImageRequest
from imgkit.cli.run import run
from imgkit.default_plugins.budget import Budget
from imgkit.default_plugins.caching import CachePlugin
from imgkit.default_plugins.telemetry import TelemetryPlugin
from imgkit.models import resolve_model
from tests.support.official import official
from tests.support.pictures import answer
from tests.support.wire_server import WireServer, head, reply

KEY = "sk-test-0123456789"
USAGE = {"input_tokens": 10, "output_tokens": 100, "input_tokens_details": {"text_tokens": 10}}


@pytest.mark.parametrize(
    ("fields", "default", "model"),
    [
        ({}, None, None),
        ({}, "c", "c"),
        ({"model": "a"}, "c", "a"),
        ({"model": "a", "extra_body": {"user": "u"}}, "c", "a"),
        ({"model": "a", "extra_body": {"model": "b"}}, "c", "b"),
        ({"extra_body": {"model": "b"}}, None, "b"),
        ({"model": "a", "extra_body": {"model": None}}, "c", None),
        ({"model": "a", "extra_body": {"model": 5}}, "c", None),
    ],
)
def test_extra_body_wins(fields: dict[str, Any], default: str | None, model: str | None) -> None:
    """Prefers extra_body, then the request's own model, then the service's."""
    assert resolve_model(CreateImageRequest(prompt="a fox", **fields), default) == model


def test_meta_sidecar_cache_and_span(
    flavor: Any, http_backend: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Names the sent model in meta, sidecar, cache listing and telemetry span."""
    spans = InMemorySpanExporter()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    plugins = [CachePlugin(folder=tmp_path / "cache"), TelemetryPlugin(tracer_provider=tracers)]
    with WireServer(reply(200, answer(1))) as server:
        response = flavor.run(
            lambda service: service.create_image(
                "a fox", model="a", extra_body={"model": "b"}, save_to=tmp_path / "fox.png"
            ),
            http_backend, base_url=server.base_url, api_key=KEY, plugins=plugins,
        )  # fmt: skip
        assert json.loads(server.lines[0].body)["model"] == "b"
    assert response.meta.model == "b"
    assert json.loads((tmp_path / "fox.png.json").read_text())["model"] == "b"
    assert run(["cache", "ls", "--json", "--folder", str(tmp_path / "cache")]) == 0
    assert [row["model"] for row in json.loads(capfd.readouterr().out)["entries"]] == ["b"]
    (span,) = spans.get_finished_spans()
    assert span.name == "image_generation b"
    assert (span.attributes or {})["gen_ai.request.model"] == "b"


def test_spool_record(tmp_path: Path) -> None:
    """Names the sent model in the record of a reply that broke off."""
    body = json.dumps(answer(1)).encode()
    cut = head(200, {"content-length": str(len(body))}) + body[:-20]
    with WireServer(lambda line: line.send(cut)) as server:
        service = imgkit.ImageService(
            "requests", base_url=server.base_url, api_key=KEY, state_folder=tmp_path
        )
        with service, pytest.raises(imgkit.OutcomeUnknownError):
            service.create_image("a fox", model="a", extra_body={"model": "b"})
    (record,) = tmp_path.rglob("call.json")
    assert json.loads(record.read_text())["model"] == "b"


def test_cost_and_estimate() -> None:
    """Prices a call, and reserves its budget, by the sent model."""
    budget = Budget(usd=5)
    with WireServer(reply(200, {**answer(1), "usage": USAGE})) as server:
        service = imgkit.ImageService(
            "requests", provider=official(server.base_url), api_key=KEY, plugins=[budget]
        )
        with service:
            response = service.create_image(
                "a fox", model="of-no-file", extra_body={"model": "gpt-image-1.5"}, quality="low"
            )
    assert response.cost.amount
    assert budget.spent == response.cost.amount


@pytest.mark.parametrize("provider", ["bfl", "fal", "replicate", "comfy_router", "huggingface"])
@pytest.mark.parametrize("model", ["../../v1/account", "a/../../b", "a/./b"])
def test_a_model_leads_to_no_other_address(provider: str, model: str) -> None:
    """Refuses a name that would leave the path in which the provider puts it; nothing is sent."""
    with WireServer() as server:
        settings: dict[str, Any] = {"base_url": server.base_url, "api_key": "key-0123456789abcdef"}
        with imgkit.ImageService("requests", provider=provider, **settings) as service:
            with pytest.raises(imgkit.InvalidRequestError) as caught:
                service.create_image("a fox", model=model)
            assert "model" in caught.value.fields
        assert server.posts == 0
