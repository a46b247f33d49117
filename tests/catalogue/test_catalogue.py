"""Dated facts about models, the rules for requests, and the policies for violations."""

from __future__ import annotations

import dataclasses
import importlib
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import imgkit
from imgkit.catalogue.catalogue import NEAR_DAYS, Catalogue, load_own_facts, load_provider_data
from imgkit.catalogue.facts import STALE_DAYS, Model, Rule
from imgkit.catalogue.rules import (
    check_request,
    describe_rule,
    explain_violation,
    is_applicable,
    shutdown_notice,
)
from imgkit.default_plugins.builtin import imgkit_providers
from imgkit.images.shapes import Grid, is_on_grid, nearest_size
from imgkit.models import CreateImageEditRequest, CreateImageRequest, CreateImageVariationRequest, field_names
from imgkit.plugins.hookspecs import ProviderSpec
from imgkit.providers.openai import OpenAIProvider
from imgkit.schemas.model_facts import MODEL_FACTS_SCHEMA
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import WireServer, reply
from tests.support.official import official

READ = date(2026, 11, 23)
TODAY = date(2026, 11, 25)
CATALOGUE = Catalogue("openai", OpenAIProvider.model_facts)
MODELS = CATALOGUE.list_models()
FIELDS: dict[str, list[Any]] = {
    "size": ["auto", "256x256", "1024x1024", "1536x1024", "1792x1024", "2048x1152", "1500x1000", "3840x2160",
             "4096x2048", "3072x1008"],
    "quality": ["low", "medium", "high", "xhigh", "max", "auto", "standard", "hd"],
    "background": ["transparent", "opaque", "auto"],
    "output_format": ["png", "jpeg", "webp", "gif", "svg"],
    "output_compression": [0, 100],
    "moderation": ["low"],
    "response_format": ["url", "b64_json"],
    "style": ["vivid"],
    "complexity": ["low"],
    "frame_count": [4],
    "frame_duration_ms": [100],
    "svg": [{"model": "m"}],
    "safety_identifier": ["someone"],
    "user": ["someone"],
    "prompt": ["x" * 1000, "x" * 1001, "x" * 4001, "x" * 32001],
}  # fmt: skip
CASES = [(model, name, value) for model in MODELS for name, values in FIELDS.items() for value in values]


def request_with(name: str, value: Any, model: Model) -> Any:
    given = {"prompt": "x", "model": model.id, name: value}
    if "create_image" in model.operations:
        return CreateImageRequest(**given)
    return (
        CreateImageEditRequest(**{"image": (b"",), **given})
        if name in field_names(CreateImageEditRequest)
        else None
    )


def judge(request: Any, model: Model | None, policy: Any = "raise", today: date = TODAY) -> Any:
    return check_request(request, model, CATALOGUE, policy, today)


@pytest.mark.parametrize(
    ("model", "name", "value"), CASES, ids=lambda one: getattr(one, "id", None) or str(one)[:20]
)
def test_every_model_and_parameter(model: Model, name: str, value: Any) -> None:
    """Rejects, drops or reports each value that the data forbids, and accepts all other values."""
    request = request_with(name, value, model)
    if request is None:
        return
    given = {
        field: got for field in field_names(type(request)) if (got := getattr(request, field)) is not None
    }
    broken = [
        rule
        for rule in model.rules
        if rule.field == name and is_applicable(rule, given, CATALOGUE.defaults) and breaks(rule, value)
    ]
    others = [one for one in (shutdown_notice(model, CATALOGUE, TODAY),) if one]
    if any(rule.sure for rule in broken):
        with pytest.raises(imgkit.InvalidRequestError) as caught:
            judge(request, model)
        assert set(caught.value.fields) == {name}
        assert "read 2026-11-23" in str(caught.value)
        assert len(str(caught.value)) < 900
        if name != "prompt":
            dropped, warnings = judge(request, model, "drop")
            assert getattr(dropped, name) is None
            assert len(warnings) >= 1
    else:
        kept, warnings = judge(request, model)
        assert kept == request
        assert len(warnings) == len(broken) + len(others)
    kept, warnings = judge(request, model, "warn")
    assert kept == request
    assert len(warnings) == len(broken) + len(others)
    stale, _ = judge(request, model, "raise", READ + timedelta(days=STALE_DAYS + 1))
    assert stale == request


def breaks(rule: Rule, value: Any) -> bool:
    """Say it again, in the plainest way."""
    if rule.grid is not None and value != "auto":
        width, height = map(int, value.split("x"))
        return not is_on_grid((width, height), rule.grid)
    return bool(
        rule.refused
        or (rule.allowed and value not in rule.allowed)
        or (rule.longest is not None and len(value) > rule.longest)
    )


@pytest.mark.parametrize(
    ("model", "fields", "words"),
    [
        ("gpt-image-2", {"response_format": "url"}, ["response_format: gpt-image-2 does not", "leave it"]),
        ("gpt-image-2", {"quality": "xhigh"}, ["takes 'low', 'medium', 'high' or 'auto', not 'xhigh'"]),
        ("gpt-image-2.5-flare", {"background": "transparent", "output_format": "jpeg"}, ["'png' or 'webp'"]),
        ("gpt-image-2", {"size": "1500x1000"}, ["the nearest is 1504x1008"]),
        ("gpt-image-1", {"size": "1500x1000"}, ["the nearest is 1536x1024"]),
        ("gpt-image-2", {"size": "4096x4096"}, ["the nearest is 2880x2880"]),
        ("gpt-image-2", {"size": "3840x1024"}, ["the nearest is 3840x1280"]),
        ("gpt-image-2", {"output_compression": 5}, ['it is for output_format="jpeg"']),
    ],
)  # fmt: skip
def test_messages(model: str, fields: dict[str, Any], words: list[str]) -> None:
    """Names field, reason, date and remedy."""
    with pytest.raises(imgkit.InvalidRequestError) as caught:
        judge(CreateImageRequest(prompt="x", **fields), CATALOGUE.find_model(model, "official"))
    assert all(word in str(caught.value) for word in [*words, "2026-11-23", 'on_unsupported="drop"']), (
        caught.value
    )


def test_unknown_models_and_hosts() -> None:
    """Accepts every request to unknown models, compatible hosts and the offline backend."""
    request = CreateImageRequest(prompt="x", response_format="url", size="7x9")
    for name, host in (("mine", "official"), ("gpt-image-2", "compatible"), ("gpt-image-2", "offline")):
        model = CATALOGUE.find_model(name, host)
        assert model is None
        assert judge(request, model) == (request, [])


def test_an_operation_that_a_model_does_not_have() -> None:
    """Rejects an operation that the model does not have."""
    model = CATALOGUE.find_model("chatgpt-image-latest", "official")
    with pytest.raises(
        imgkit.InvalidRequestError, match="does not have create_image; it has create_image_edit"
    ):
        judge(CreateImageRequest(prompt="x"), model)


@pytest.mark.parametrize(
    ("today", "said"),
    [
        (date(2026, 12, 1) - timedelta(days=NEAR_DAYS + 1), None),
        (date(2026, 11, 25), "will be shut down on 2026-12-01"),
        (date(2026, 12, 1), "was shut down on 2026-12-01"),
    ],
)
def test_shutdown_of_a_model(today: date, said: str | None) -> None:
    """Warns of a near or past shutdown, and lists the live models."""
    model = CATALOGUE.find_model("gpt-image-1.5-2025-12-16", "official")
    assert model is not None
    _, warnings = judge(CreateImageRequest(prompt="x"), model, today=today)
    assert len(warnings) == (said is not None)
    assert said is None or (said in warnings[0] and "gpt-image-2" in warnings[0])


@given(
    st.tuples(st.integers(1, 20000), st.integers(1, 20000)),
    st.builds(
        Grid,
        multiple_of_px=st.sampled_from([1, 8, 16]),
        most_ratio=st.sampled_from([None, 1.5, 3]),
        longest_edge_px=st.sampled_from([None, 2048, 3840]),
        least_px=st.sampled_from([None, 100_000, 655_360]),
        most_px=st.sampled_from([1_000_000, 8_294_400]),
    ),
)
def test_the_nearest_size_is_possible(size: tuple[int, int], grid: Grid) -> None:
    """Suggests a size of the grid; a valid size is its own nearest size."""
    found = nearest_size(size, grid)
    assert is_on_grid(found, grid)
    if is_on_grid(size, grid):
        assert found == size


def test_the_data_file_is_complete() -> None:
    """Fits the schema; each rule is used, has a source and a condition."""
    data = load_provider_data(OpenAIProvider.model_facts)
    MODEL_FACTS_SCHEMA.read(data)
    used = {rule.name for model in MODELS for rule in model.rules}
    assert used == set(data["rules"])
    for table in ("rules", "inputs", "prices", "tokens", "models", "retired"):
        entries = data[table] if isinstance(data[table], list) else data[table].values()
        assert all(one["source"] in data["sources"] for one in entries), table
    for model in MODELS:
        assert model.origin.as_of == READ
        for rule in model.rules:
            assert describe_rule(rule)
            fields = {*field_names(CreateImageRequest), *field_names(CreateImageEditRequest)}
            assert rule.field in fields | {"stream", "partial_images"}


MINE = """
hosts = ["compatible"]

[rules.small]
field = "size"
allowed = ["64x64", "128x128"]
sure = true

[[models]]
id = "mine"
rules = ["small"]

[[models]]
id = "mine-too"
like = "gpt-image-2"
"""


@pytest.mark.parametrize("spec", imgkit_providers(), ids=lambda spec: spec.name)
def test_every_provider_has_readable_facts(spec: ProviderSpec) -> None:
    """Builds the models and the options of every provider in the package; options name their source."""
    module, _, name = spec.target.partition(":")
    provider = getattr(importlib.import_module(module), name)
    catalogue = Catalogue(spec.name, provider.model_facts)
    assert catalogue.find_model("no-such-model", "official") is None
    assert all(option.origin.source for option in catalogue.options.values())


def test_a_user_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds models and hosts from a file in the environment or in models=…."""
    path = tmp_path / "models.toml"
    path.write_text(MINE)
    with WireServer(reply(200, answer())) as server:
        url = server.base_url
        for how in ("given", "environment", "mapping"):
            more: dict[str, Any] = {"models": path} if how == "given" else {}
            if how == "mapping":
                more = {"models": {"hosts": ["compatible"], "models": [{"id": "mine", "like": "dall-e-2"}]}}
            if how == "environment":
                monkeypatch.setenv("IMGKIT_MODELS", str(path))
            with imgkit.ImageService("requests", base_url=url, model="mine", **more) as images:
                with pytest.raises(imgkit.InvalidRequestError, match="size: mine takes"):
                    images.create_image("x", size="100x100")
                images.create_image("x", size="100x100", model="other")
        with imgkit.ImageService("requests", base_url=url, model="mine-too", models=path) as images:
            with pytest.raises(
                imgkit.InvalidRequestError, match="response_format: mine-too does not take it"
            ):
                images.create_image("x", response_format="url")
        assert server.posts == 3


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[models]]\nid = 3", "models.0.id"),
        ("[[models]]\nname = 'x'", "models.0.name: Unknown field"),
        ("[rules.x]\nfield = 'n'\nmost = 'many'", "rules.x.value.most: Must be a number"),
        ("[[models]]\nid = 'x'\nrules = ['no-such']", "refers to rules.no-such, which is missing"),
        ("[[models]]\nid = 'x'\nlike = 'nobody'", "is like 'nobody', which is missing"),
        ("= 3", "cannot be read"),
    ],
)
def test_an_invalid_file(tmp_path: Path, text: str, problem: str) -> None:
    """Rejects an invalid file when the service is built, and names its path."""
    path = tmp_path / "models.toml"
    path.write_text(text)
    with pytest.raises(imgkit.ConfigurationError) as caught:
        imgkit.ImageService(models=path)
    assert problem in str(caught.value)
    with pytest.raises(imgkit.ConfigurationError, match="No such file"):
        imgkit.ImageService(models=tmp_path / "nothing.toml")


def test_policies_over_the_wire(flavor: Any, http_backend: str) -> None:
    """Raises before sending, drops the field, or warns and sends it."""
    sent = []

    def script(line: Any) -> None:
        sent.append(line.body)
        reply(200, answer())(line)

    with WireServer(script) as server:

        def ask(policy: str) -> Any:
            settings = {
                "provider": official(server.base_url),
                "api_key": "sk-test-0123456789",
                "model": "gpt-image-2",
            }
            call = lambda service: service.create_image("x", response_format="url")  # noqa: E731
            return flavor.run(call, http_backend, on_unsupported=policy, **settings)

        with pytest.raises(imgkit.InvalidRequestError):
            ask("raise")
        assert server.posts == 0
        assert "response_format was left out" in ask("drop").warnings[0]
        assert b"response_format" not in sent[0]
        assert "response_format: gpt-image-2 does not take it" in ask("warn").warnings[0]
        assert b"response_format" in sent[1]
    with pytest.raises(imgkit.ConfigurationError, match="on_unsupported must be"):
        imgkit.ImageService(on_unsupported="ignore")  # type: ignore[arg-type]


def test_warnings_on_errors(flavor: Any) -> None:
    """Adds warnings as notes to an error."""
    error = {"error": {"message": "The model does not exist", "code": "model_not_found"}}
    with WireServer(reply(404, error)) as server:
        settings = {
            "provider": official(server.base_url),
            "api_key": "sk-test-0123456789",
            "model": "gpt-image-1",
        }
        with pytest.raises(imgkit.NotFoundError) as caught:
            flavor.run(lambda service: service.create_image("x"), "requests", **settings)
    assert "was shut down on 2026-10-23" in caught.value.__notes__[0]


def test_emulated_variations_lose_no_field() -> None:
    """Variations have no field that edits lack."""
    assert set(field_names(CreateImageVariationRequest)) <= set(field_names(CreateImageEditRequest))
    assert dataclasses.is_dataclass(CreateImageVariationRequest)
    assert explain_violation(Rule(name="r", field="n", most=3), 4) == "takes 0 to 3, not 4"
    assert explain_violation(Rule(name="r", field="n", most=0), 1) == "takes 0 to 0, not 1"
    assert explain_violation(Rule(name="r", field="n", least=3), 1) == "takes 3 or more, not 1"
    assert png()


@pytest.mark.parametrize("given", ["2026-01-02", date(2026, 1, 2), datetime(2026, 1, 2, 3, 4)])
def test_a_date_may_be_text(given: object) -> None:
    """Reads a date in a mapping as TOML writes it, as text, or with a time."""
    (facts,) = load_own_facts({"models": [{"id": "m", "shutdown": given}]})
    assert facts["models"][0]["shutdown"] == date(2026, 1, 2)
    wrong: object
    for wrong in ("tomorrow", 3, [], "2026-13-01"):
        with pytest.raises(imgkit.ConfigurationError, match=r"Must be a date such as 2026-11-23\."):
            load_own_facts({"models": [{"id": "m", "shutdown": wrong}]})
