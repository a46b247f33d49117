"""What calls cost, by usage and dated prices; never a false 0."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any

import pytest

import imgkit
from imgkit.catalogue.catalogue import Catalogue
from imgkit.catalogue.pricing import compute_cost, estimate, sum_costs
from imgkit.models import Cost, CreateImageEditRequest, CreateImageRequest, Usage
from imgkit.providers.openai import OpenAIProvider

CATALOGUE = Catalogue("openai", OpenAIProvider.model_facts)
MODEL = CATALOGUE.find("gpt-image-2", "official")
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
        (Usage(input_tokens=0, output_tokens=0), "create_image", "0"),
        (Usage(output_tokens=100), "create_image", None),
        (Usage(), "create_image", None),
        (None, "create_image", None),
        (Usage(input_text_tokens=1, output_text_tokens=1), "create_image", None),
        (dataclasses.replace(MEDIUM, extra={"svg_usage": {}}), "create_image", None),
    ],
)
def test_cost(usage: Usage | None, operation: str, amount: str | None) -> None:
    """Text and pictures count apart; output without details is pictures; what is not known has no amount."""
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
    assert not compute_cost(MEDIUM, None, "create_image").known
    assert not compute_cost(MEDIUM, CATALOGUE.find("dall-e-2", "official"), "create_image").known


def test_sums() -> None:
    """One part that is not known makes the whole unknown."""
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
    """Bounds hold what the counts say; what is left to the server counts from its least to its most."""
    found = estimate(CreateImageRequest(prompt="a fox", **fields), MODEL, CATALOGUE)
    assert found.low is not None
    assert found.high is not None
    assert low <= float(found.low) <= float(found.high) <= high
    assert "not documented" in found.note


def test_estimates_that_are_not_known() -> None:
    assert not estimate(CreateImageRequest(prompt="x", quality="max"), MODEL, CATALOGUE).known
    assert not estimate(CreateImageRequest(prompt="x"), None, CATALOGUE).known
    more = estimate(CreateImageEditRequest(image=(b"", b""), prompt="x", quality="low"), MODEL, CATALOGUE)
    less = estimate(CreateImageRequest(prompt="x", quality="low"), MODEL, CATALOGUE)
    assert more.high is not None
    assert less.high is not None
    assert more.high > less.high


@pytest.mark.parametrize(
    "extra", [{"n": 10}, {"quality": "high"}, {"size": "1536x1024"}, {"prompt": "a fox and a hare" * 9}]
)
def test_extra_body_counts_as_it_is_sent(extra: dict[str, Any]) -> None:
    """What is given beside the fields wins on the wire, so a budget reserves for it."""
    base: dict[str, Any] = {"prompt": "a fox", "n": 1, "quality": "low", "size": "1024x1024"}
    given = estimate(CreateImageRequest(**{**base, "extra_body": extra}), MODEL, CATALOGUE)
    assert given.known
    assert given == estimate(CreateImageRequest(**{**base, **extra}), MODEL, CATALOGUE)


@pytest.mark.parametrize("extra", [{"n": "10"}, {"n": 0}, {"n": True}, {"size": 5}, {"quality": "max"}])
def test_extra_body_that_nobody_understands_has_no_price(extra: dict[str, Any]) -> None:
    found = estimate(CreateImageRequest(prompt="x", extra_body=extra), MODEL, CATALOGUE)
    assert not found.known
    assert found.note


@pytest.mark.parametrize("output_format", ["gif", "svg"])
def test_animations_and_drawings_have_no_estimate(output_format: str) -> None:
    """Tokens of one still picture do not bound them, so a budget must not take them for such."""
    model = CATALOGUE.find("gpt-image-2.6-flare", "official")
    for given in ({"output_format": output_format}, {"extra_body": {"output_format": output_format}}):
        found = estimate(CreateImageRequest(prompt="x", **given), model, CATALOGUE)
        assert not found.known
        assert output_format in found.note
    assert estimate(CreateImageRequest(prompt="x", output_format="webp"), model, CATALOGUE).known


def _own(medium: Any) -> dict[str, Any]:
    return {
        "hosts": ["compatible"],
        "prices": {"own": {"currency": "USD", "text_in": 5, "image_out": 30}},
        "tokens": {"own": {"medium": medium}},
        "models": [{"id": "m", "prices": "own", "tokens": "own"}],
    }


def test_a_size_counts_by_its_area_from_any_size_that_is_known() -> None:
    settings: dict[str, Any] = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
    with imgkit.ImageService("requests", models=_own({"512x512": 300}), **settings) as images:
        found = images.estimate("x", quality="medium", size="1024x1024")
    assert found.low is not None
    assert found.high is not None
    assert float(found.low) < 1200 * 30 / 1_000_000 < float(found.high) < 0.05


@pytest.mark.parametrize("medium", [5, {"512x512": "abc"}, {"512x512": -3}, {"big": 3}, {"0x5": 3}])
def test_counts_of_ones_own_that_are_none(medium: Any) -> None:
    """Told by name when the facts are read, not by a builtin error or a price below nothing."""
    settings: dict[str, Any] = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
    with pytest.raises(imgkit.ConfigurationError, match="medium: Must be a table of tokens by size"):
        imgkit.ImageService("requests", models=_own(medium), **settings).estimate("x")


@pytest.mark.parametrize("price", [float("nan"), float("inf"), -1, True, "5"])
def test_prices_of_ones_own_that_are_none(price: Any) -> None:
    facts = _own({"1024x1024": 300})
    facts["prices"]["own"]["image_out"] = price
    with pytest.raises(imgkit.ConfigurationError, match="image_out: Must be a number from 0 on"):
        imgkit.ImageService("requests", base_url="http://127.0.0.1:1/v1", models=facts).estimate("x")


def test_markup_is_a_picture_too() -> None:
    plain = CreateImageEditRequest(image=b"", prompt="x", quality="low")
    marked = estimate(dataclasses.replace(plain, markup=b""), MODEL, CATALOGUE)
    assert marked == estimate(dataclasses.replace(plain, mask=b""), MODEL, CATALOGUE)
    assert marked != estimate(plain, MODEL, CATALOGUE)


def test_a_service_tells_before() -> None:
    """For a request object or a prompt; offline costs nothing, an unknown host is not known."""
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
