"""The cost of calls from usage and dated prices; an unknown cost is never 0."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any

import pytest

import imgkit
from imgkit.catalogue.catalogue import Catalogue
from imgkit.catalogue.pricing import compute_cost, compute_estimate, sum_costs
from imgkit.models import Cost, CreateImageEditRequest, CreateImageRequest, Usage
from imgkit.providers.gemini import GeminiProvider
from imgkit.providers.openai import OpenAIProvider

CATALOGUE = Catalogue("openai", OpenAIProvider.model_facts)
MODEL = CATALOGUE.find_model("gpt-image-2", "official")
assert MODEL is not None

MEDIUM = Usage(
    input_tokens=50, output_tokens=1056, input_text_tokens=10, input_image_tokens=40, output_image_tokens=1056
)


@pytest.mark.parametrize(
    ("usage", "operation", "amount"),
    [
        (MEDIUM, "create_image", "0.03205"),
        (Usage(input_tokens=10, output_tokens=1056), "create_image", "0.03173"),
        (Usage(input_tokens=10, output_tokens=1056), "create_image_edit", "0.03176"),
        (Usage(input_tokens=0, output_tokens=0), "create_image", None),
        (Usage(input_tokens=9, output_image_tokens=0, output_text_tokens=0), "create_image", None),
        (Usage(output_tokens=100), "create_image", None),
        (Usage(), "create_image", None),
        (None, "create_image", None),
        (Usage(input_text_tokens=1, output_text_tokens=1), "create_image", None),
        (dataclasses.replace(MEDIUM, extra={"svg_usage": {}}), "create_image", None),
    ],
)
def test_cost(usage: Usage | None, operation: str, amount: str | None) -> None:
    """Prices text and images separately; output without details counts as images."""
    cost = compute_cost(usage, MODEL, operation)
    assert cost.known is (amount is not None)
    if amount is None:
        assert cost.note
        assert str(cost).startswith("unknown (")
    else:
        assert cost.amount == Decimal(amount)
        assert str(cost.as_of) == "2026-11-23"
        assert "prices of 2026-11-23" in str(cost)


def test_no_prices() -> None:
    """Returns an unknown cost without prices."""
    assert not compute_cost(MEDIUM, None, "create_image").known
    assert not compute_cost(MEDIUM, CATALOGUE.find_model("dall-e-2", "official"), "create_image").known


def test_sums() -> None:
    """Returns an unknown sum if one cost is unknown."""
    known = compute_cost(MEDIUM, MODEL, "create_image")
    assert sum_costs([known, known]).amount == 2 * known.amount  # type: ignore[operator]
    assert not sum_costs([known, Cost(note="who knows")]).known
    assert not sum_costs([]).known


@pytest.mark.parametrize(
    ("fields", "low", "high"),
    [
        ({"quality": "medium", "size": "1024x1024"}, 0.0316, 0.0318),
        ({"quality": "high", "size": "1536x1024", "n": 2}, 0.372, 0.373),
        ({}, 0.008, 0.188),
        ({"quality": "medium", "size": "2048x2048"}, 0.09, 0.16),
    ],
)
def test_estimate(fields: dict[str, Any], low: float, high: float) -> None:
    """Computes bounds from token counts; values that the server chooses span all counts."""
    found = compute_estimate(CreateImageRequest(prompt="a fox", **fields), MODEL, CATALOGUE)
    assert found.low is not None
    assert found.high is not None
    assert low <= float(found.low) <= float(found.high) <= high
    assert "not documented" in found.note


def test_unknown_estimates() -> None:
    """Returns an unknown estimate without token counts."""
    assert not compute_estimate(CreateImageRequest(prompt="x", quality="max"), MODEL, CATALOGUE).known
    assert not compute_estimate(CreateImageRequest(prompt="x"), None, CATALOGUE).known
    more = compute_estimate(
        CreateImageEditRequest(image=(b"", b""), prompt="x", quality="low"), MODEL, CATALOGUE
    )
    less = compute_estimate(CreateImageRequest(prompt="x", quality="low"), MODEL, CATALOGUE)
    assert more.high is not None
    assert less.high is not None
    assert more.high > less.high


@pytest.mark.parametrize(
    "extra", [{"n": 10}, {"quality": "high"}, {"size": "1536x1024"}, {"prompt": "a fox and a hare" * 9}]
)
def test_extra_body_counts_as_it_is_sent(extra: dict[str, Any]) -> None:
    """Prices values in extra_body, which win in the request that is sent."""
    base: dict[str, Any] = {"prompt": "a fox", "n": 1, "quality": "low", "size": "1024x1024"}
    given = compute_estimate(CreateImageRequest(**{**base, "extra_body": extra}), MODEL, CATALOGUE)
    assert given.known
    assert given == compute_estimate(CreateImageRequest(**{**base, **extra}), MODEL, CATALOGUE)


@pytest.mark.parametrize("extra", [{"n": "10"}, {"n": 0}, {"n": True}, {"size": 5}, {"quality": "max"}])
def test_invalid_extra_body_has_no_price(extra: dict[str, Any]) -> None:
    """Returns an unknown estimate for invalid values in extra_body."""
    found = compute_estimate(CreateImageRequest(prompt="x", extra_body=extra), MODEL, CATALOGUE)
    assert not found.known
    assert found.note


@pytest.mark.parametrize("output_format", ["gif", "svg"])
def test_animations_and_drawings_have_no_estimate(output_format: str) -> None:
    """Returns an unknown estimate, because tokens of one still image do not bound the cost."""
    model = CATALOGUE.find_model("gpt-image-2.6-flare", "official")
    for given in ({"output_format": output_format}, {"extra_body": {"output_format": output_format}}):
        found = compute_estimate(CreateImageRequest(prompt="x", **given), model, CATALOGUE)
        assert not found.known
        assert output_format in found.note
    assert compute_estimate(CreateImageRequest(prompt="x", output_format="webp"), model, CATALOGUE).known


def _own(medium: Any) -> dict[str, Any]:
    return {
        "hosts": ["compatible"],
        "prices": {"own": {"currency": "USD", "text_in": 5, "image_out": 30}},
        "tokens": {"own": {"medium": medium}},
        "models": [{"id": "m", "prices": "own", "tokens": "own"}],
    }


def test_unknown_sizes() -> None:
    """Scales the token counts of known sizes by area."""
    settings: dict[str, Any] = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
    with imgkit.ImageService("requests", models=_own({"512x512": 300}), **settings) as images:
        found = images.estimate("x", quality="medium", size="1024x1024")
    assert found.low is not None
    assert found.high is not None
    assert float(found.low) < 1200 * 30 / 1_000_000 < float(found.high) < 0.05


@pytest.mark.parametrize("medium", [5, {"512x512": "abc"}, {"512x512": -3}, {"big": 3}, {"0x5": 3}])
def test_invalid_token_counts(medium: Any) -> None:
    """Names invalid token counts of a user file when it is read."""
    settings: dict[str, Any] = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
    with pytest.raises(imgkit.ConfigurationError, match="medium: Must be a table of tokens by size"):
        imgkit.ImageService("requests", models=_own(medium), **settings).estimate("x")


@pytest.mark.parametrize("price", [float("nan"), float("inf"), -1, True, "5"])
def test_invalid_prices(price: Any) -> None:
    """Names invalid prices of a user file when it is read."""
    facts = _own({"1024x1024": 300})
    facts["prices"]["own"]["image_out"] = price
    with pytest.raises(imgkit.ConfigurationError, match="image_out: Must be a number from 0 on"):
        imgkit.ImageService("requests", base_url="http://127.0.0.1:1/v1", models=facts).estimate("x")


def test_markup_counts_as_an_image() -> None:
    """Prices a markup like a mask."""
    plain = CreateImageEditRequest(image=b"", prompt="x", quality="low")
    marked = compute_estimate(dataclasses.replace(plain, markup=b""), MODEL, CATALOGUE)
    assert marked == compute_estimate(dataclasses.replace(plain, mask=b""), MODEL, CATALOGUE)
    assert marked != compute_estimate(plain, MODEL, CATALOGUE)


def test_estimate_of_a_service() -> None:
    """Estimates a request object or a prompt; offline is free, an unknown host has no estimate."""
    with imgkit.ImageService() as images:
        assert images.estimate("a fox", n=3).high == 0
        assert float(images.create_image("a fox", size="64x64").cost.amount or 0) == 0
        assert images.create_image("a fox", size="64x64").cost.known
        with pytest.raises(imgkit.InvalidRequestError, match="did you mean 'quality'"):
            images.estimate("a fox", qualty="high")
        with pytest.raises(imgkit.InvalidRequestError):
            images.estimate("a fox", n=0)
    with imgkit.ImageService("requests", base_url="http://127.0.0.1:1/v1") as images:
        assert not images.estimate(CreateImageRequest(prompt="a fox")).known
    with imgkit.ImageService("requests", model="gpt-image-2", api_key="sk-test-0123456789") as images:
        one, ten = images.estimate("a fox", quality="low"), images.estimate("a fox", quality="low", n=10)
        assert one.high is not None
        assert ten.high is not None
        assert ten.high > 9 * one.high
        assert str(one).endswith("USD (prices of 2026-11-23)")


@pytest.mark.parametrize(
    ("shape", "low", "high"),
    [
        ({"resolution": "4K"}, 2520, 2520),
        ({"resolution": "512", "aspect_ratio": "16:9"}, 747, 747),
        ({"size": "1024x1024"}, 1120, 1120),
        ({}, 747, 2520),
    ],
)
def test_a_resolution_has_its_own_tokens(shape: dict[str, Any], low: int, high: int) -> None:
    """Counts the tokens of the sizes of a resolution, and of all sizes without one."""
    catalogue = Catalogue("gemini", GeminiProvider.model_facts)
    request = CreateImageRequest(prompt="a", **shape)
    model = catalogue.find_model("gemini-3.1-flash-image", "official")
    found = compute_estimate(request, model, catalogue)
    text = Decimal("0.0000005")
    assert (found.low, found.high) == (Decimal(low) * 60 / 10**6, Decimal(high) * 60 / 10**6 + text)
