"""The cost of calls from usage and dated prices, and cost estimates for requests."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from imgkit.catalogue.catalogue import Catalogue
from imgkit.images.shapes import RESOLUTIONS, find_nearest_resolution, parse_size
from imgkit.models import Cost, CreateImageEditRequest, CreateImageRequest, Estimate, ImageRequest, Usage

if TYPE_CHECKING:
    from imgkit.catalogue.facts import Model, Prices, Tokens

MILLION = Decimal(1_000_000)
NOTHING = Decimal(0)

_REFERENCE_SIZE = "1024x1024"

_PRICED_FIELDS = ("prompt", "n", "size", "quality", "output_format")
"""Fields that affect the price; values in ``extra_body`` win, as they do in the request that is sent."""


def compute_cost(
    usage: Usage | None,
    model: Model | None,
    operation: str,
    request: ImageRequest | None = None,
    images: int = 0,
) -> Cost:
    """Return the cost of a reply.

    Args:
        usage: the server's token counts, None if it reports none.
        model: None for an unknown model.
        operation: name of the operation.
        request: the request, for prices of images.
        images: number of images that arrived.

    Example:
        >>> catalogue = Catalogue("openai", "imgkit.providers:openai.toml")
        >>> model = catalogue.find_model("gpt-image-1", "official")
        >>> compute_cost(Usage(input_tokens=10, output_tokens=1000), model, "create_image").currency
        'USD'
    """
    if model is None or model.prices is None:
        return Cost(note="no prices are known for this model on this host")
    if model.prices.is_by_image and request is not None:
        bounds = _price_image(model.prices, request)
        if bounds is None or bounds[0] != bounds[1]:
            return Cost(note="the price of this image depends on values that the request leaves open")
        prices = model.prices
        return Cost(amount=bounds[0] * images, currency=prices.currency, as_of=prices.origin.as_of)
    if usage is None:
        return Cost(note="the server reports no usage")
    if "svg_usage" in usage.extra:
        return Cost(note="drawing svg is billed separately, at unknown prices")
    output = (usage.output_tokens, usage.output_text_tokens, usage.output_image_tokens)
    if not any(output) and any(tokens is not None for tokens in output):
        return Cost(note="the usage that the server reports has no output tokens, which no image costs")
    prices = model.prices
    amount, notes = NOTHING, []
    for tokens, price, note in _itemize(usage, prices, operation):
        if tokens is None:
            return Cost(note="the usage that the server reports is incomplete")
        if tokens and price is None:
            return Cost(note=f"no price is known for {note}")
        amount += tokens * (price or NOTHING) / MILLION
        if note.startswith("counted"):
            notes.append(note)
    return Cost(amount=amount, currency=prices.currency, as_of=prices.origin.as_of, note="; ".join(notes))


def _itemize(
    usage: Usage, prices: Prices, operation: str
) -> Iterable[tuple[int | None, Decimal | None, str]]:
    """Yield the tokens of each kind, their price per million, and a label or note."""
    text, image = usage.input_text_tokens, usage.input_image_tokens
    if text is None and image is None:
        if operation == "create_image":
            text, image = usage.input_tokens, 0
            yield text, prices.text_in, "input text"
        else:
            note = "counted all input as images, because the server does not itemize it"
            yield usage.input_tokens, prices.image_in, note
    else:
        yield text or 0, prices.text_in, "input text"
        yield image or 0, prices.image_in, "input images"
    text, image = usage.output_text_tokens, usage.output_image_tokens
    if text is None and image is None:
        # Output without details is image output (BerriAI/litellm#31142, read 2026-11-23).
        yield usage.output_tokens, prices.image_out, "output images"
    else:
        yield text or 0, prices.text_out, "output text"
        yield image or 0, prices.image_out, "output images"


def compute_estimate(
    request: ImageRequest, model: Model | None, catalogue: Catalogue, partial_images: int = 0
) -> Estimate:
    """Return the estimated cost of a request with all its images.

    Budgets reserve the upper bound, in which unknown values count at their maximum.

    Args:
        request: validated by its schema.
        model: None for an unknown model.
        catalogue: of the provider.
        partial_images: number of partial images per image.

    Example:
        >>> catalogue = Catalogue("openai", "imgkit.providers:openai.toml")
        >>> request = CreateImageRequest(prompt="a fox", quality="low", size="1024x1024")
        >>> compute_estimate(request, catalogue.find_model("gpt-image-1", "official"), catalogue).currency
        'USD'
    """
    prices = None if model is None else find_prices(model)
    if model is None or prices is None:
        return Estimate(note="no prices are known for this model on this host")
    request, problem = _merge_extra_body(request)
    if problem:
        return Estimate(note=problem)
    if prices.is_by_image or model.tokens is None:
        count, bounds_of_image = request.n or 1, _price_image(prices, request)
        if bounds_of_image is None:
            return Estimate(note="no price is known for an image of these values")
        least, most = bounds_of_image
        return Estimate(
            low=count * least, high=count * most, currency=prices.currency, as_of=prices.origin.as_of
        )
    for name, values in model.tokens.not_of.items():
        if (value := getattr(request, name, None)) in values:
            return Estimate(note=f"no token counts are known for {name}={value!r}")
    bounds = _count_output_tokens(request, model.tokens)
    if bounds is None:
        return Estimate(note=f"no token counts are known for quality {getattr(request, 'quality', None)!r}")
    beside = catalogue.tokens_beside
    partial = partial_images * int(beside.get("partial_image", 0))
    # A token is a byte at least, and seldom more than six.
    prompt = len(getattr(request, "prompt", "").encode("utf-8", "surrogatepass"))
    image_count = _count_input_images(request)
    count = request.n or 1
    low = _price(prices, prompt // 6, image_count * beside.get("input_image", [0])[0], count * bounds[0])
    high = _price(
        prices, prompt, image_count * beside.get("input_image", [0])[-1], count * (bounds[1] + partial)
    )
    if low is None or high is None:
        return Estimate(note="some prices for this request are not known")
    return Estimate(
        low=low, high=high, currency=prices.currency, as_of=prices.origin.as_of, note=model.tokens.note
    )


def find_prices(model: Model) -> Prices | None:
    """Return the prices from which the cost of a request can be estimated, None for none."""
    prices = model.prices
    return None if prices is None or (model.tokens is None and not prices.is_by_image) else prices


def _price_image(prices: Prices, request: ImageRequest) -> tuple[Decimal, Decimal] | None:
    """Return the least and the highest price of an image, None if it is unknown."""
    for field, by_value in prices.per_image_by.items():
        value = getattr(request, field, None)
        if isinstance(value, str) and value in by_value:
            return by_value[value], by_value[value]
        if value is None and prices.per_image is None and by_value:
            return min(by_value.values()), max(by_value.values())
    if prices.per_megapixel is not None:
        size = re.fullmatch(r"([0-9]+)x([0-9]+)", request.size or "")
        if size is None:
            return None
        amount = prices.per_megapixel * int(size[1]) * int(size[2]) / MILLION
        return amount, amount
    return None if prices.per_image is None else (prices.per_image, prices.per_image)


def _merge_extra_body(request: ImageRequest) -> tuple[ImageRequest, str]:
    """Return the request with the price fields of its ``extra_body``, and a problem or an empty text."""
    extra = request.extra_body or {}
    overrides: dict[str, Any] = {
        name: extra[name] for name in _PRICED_FIELDS if name in extra and hasattr(request, name)
    }
    for name, value in overrides.items():
        fits = type(value) is int and value > 0 if name == "n" else isinstance(value, str)
        if not fits and value is not None:
            return request, f"extra_body has an invalid {name}"
    return (replace(request, **overrides) if overrides else request), ""


def _count_output_tokens(request: ImageRequest, tokens: Tokens) -> tuple[int, int] | None:
    """Return the minimum and maximum of tokens per image, None for an unknown quality."""
    quality = getattr(request, "quality", None) or "auto"
    by_size = [tokens.by_quality.get(quality)] if quality != "auto" else list(tokens.by_quality.values())
    if request.resolution is not None and not parse_size(request.size):
        by_size = [_keep_resolution(table, request.resolution) for table in by_size if table]
    counts = [_count_by_size(table, request.size or "auto") for table in by_size if table]
    if not counts:
        return None
    return min(low for low, _ in counts), max(high for _, high in counts)


def _keep_resolution(by_size: Mapping[str, int], resolution: str) -> Mapping[str, int]:
    """Return the counts of the sizes whose area is nearest to a resolution; all if there are none."""
    known = (resolution, *RESOLUTIONS)
    kept = {
        size: count
        for size, count in by_size.items()
        if find_nearest_resolution(math.sqrt(_area(size)), known) == resolution
    }
    return kept or by_size


def _count_by_size(by_size: Mapping[str, int], size: str) -> tuple[int, int]:
    if size in by_size:
        return by_size[size], by_size[size]
    match = re.fullmatch(r"([0-9]+)x([0-9]+)", size)
    if match is None:
        return min(by_size.values()), max(by_size.values())
    area = int(match[1]) * int(match[2])
    known_sizes = [_REFERENCE_SIZE] if _REFERENCE_SIZE in by_size else list(by_size)
    guesses = [by_size[known] * area / _area(known) for known in known_sizes]
    return int(min(guesses) * 0.8), int(max(guesses) * 1.25) + 1


def _area(size: str) -> int:
    width, _, height = size.partition("x")
    return int(width) * int(height)


def _count_input_images(request: ImageRequest) -> int:
    if isinstance(request, CreateImageRequest):
        return 0
    image = request.image
    count = len(image) if isinstance(image, list | tuple) else 1
    if isinstance(request, CreateImageEditRequest):
        count += (request.mask is not None) + (request.markup is not None)
    return count


def _price(prices: Prices, text: int, image: int, output: int) -> Decimal | None:
    total = NOTHING
    for tokens, price in ((text, prices.text_in), (image, prices.image_in), (output, prices.image_out)):
        if tokens and price is None:
            return None
        total += tokens * (price or NOTHING) / MILLION
    return total


def sum_costs(costs: Iterable[Cost]) -> Cost:
    """Return the sum of costs; it is unknown if any of them is."""
    cost_list = list(costs)
    if not cost_list:
        return Cost(note="nothing was sent")
    unknown = next((cost for cost in cost_list if not cost.known), None)
    if unknown is not None:
        return unknown
    notes = dict.fromkeys(cost.note for cost in cost_list if cost.note)
    amount = sum((cost.amount for cost in cost_list if cost.amount is not None), NOTHING)
    return Cost(
        amount=amount, currency=cost_list[0].currency, as_of=cost_list[0].as_of, note="; ".join(notes)
    )
