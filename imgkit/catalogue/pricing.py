"""What calls cost, from usage and dated prices; and what they may cost, before they are sent."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from imgkit.catalogue.catalogue import Catalogue
from imgkit.models import Cost, CreateImageEditRequest, CreateImageRequest, Estimate, ImageRequest, Usage

if TYPE_CHECKING:
    from imgkit.catalogue.facts import Model, Prices, Tokens

MILLION = Decimal(1_000_000)
NOTHING = Decimal(0)

_REFERENCE_SIZE = "1024x1024"

_COUNTED = ("prompt", "n", "size", "quality", "output_format")
"""Fields that a price depends on; those in ``extra_body`` win, as they do in what is sent."""


def compute_cost(usage: Usage | None, model: Model | None, operation: str) -> Cost:
    """Return what a reply has cost.

    Args:
        usage: as the server counted.
        model: None for one of which nothing is known.
        operation: of the request that was sent.
    """
    if model is None or model.prices is None:
        return Cost(note="no prices are known for this model on this host")
    if usage is None:
        return Cost(note="the server reports no usage")
    if "svg_usage" in usage.extra:
        return Cost(note="drawing svg is billed apart, at prices that are not known")
    prices = model.prices
    amount, notes = NOTHING, []
    for tokens, price, note in _counted(usage, prices, operation):
        if tokens is None:
            return Cost(note="the usage that the server reports is not whole")
        if tokens and price is None:
            return Cost(note=f"no price is known for {note}")
        amount += tokens * (price or NOTHING) / MILLION
        if note.startswith("counted"):
            notes.append(note)
    return Cost(amount=amount, currency=prices.currency, as_of=prices.origin.as_of, note="; ".join(notes))


def _counted(
    usage: Usage, prices: Prices, operation: str
) -> Iterable[tuple[int | None, Decimal | None, str]]:
    """Yield tokens of each kind, their price per million, and what there is to say."""
    text, image = usage.input_text_tokens, usage.input_image_tokens
    if text is None and image is None:
        if operation == "create_image":
            text, image = usage.input_tokens, 0
            yield text, prices.text_in, "input text"
        else:
            note = "counted all input as pictures: the server does not tell it apart"
            yield usage.input_tokens, prices.image_in, note
    else:
        yield text or 0, prices.text_in, "input text"
        yield image or 0, prices.image_in, "input pictures"
    text, image = usage.output_text_tokens, usage.output_image_tokens
    if text is None and image is None:
        # Output without details is that of pictures (BerriAI/litellm#31142, read 2026-11-23).
        yield usage.output_tokens, prices.image_out, "output pictures"
    else:
        yield text or 0, prices.text_out, "output text"
        yield image or 0, prices.image_out, "output pictures"


def estimate(
    request: ImageRequest, model: Model | None, catalogue: Catalogue, partial_images: int = 0
) -> Estimate:
    """Return what a request may cost, all its pictures together.

    The upper bound is for budgets: what is not known counts at its highest.

    Args:
        request: checked by its schema.
        model: None for one of which nothing is known.
        catalogue: of the provider.
        partial_images: that are asked for beside each picture.
    """
    if model is None or model.prices is None or model.tokens is None:
        return Estimate(note="no prices are known for this model on this host")
    prices = model.prices
    request, problem = _as_sent(request)
    if problem:
        return Estimate(note=problem)
    for name, values in model.tokens.not_of.items():
        if (value := getattr(request, name, None)) in values:
            return Estimate(note=f"no token counts are known for {name}={value!r}")
    bounds = _output(request, model.tokens)
    if bounds is None:
        return Estimate(note=f"no token counts are known for quality {getattr(request, 'quality', None)!r}")
    beside = catalogue.tokens_beside
    partial = partial_images * int(beside.get("partial_image", 0))
    # A token is a byte at least, and seldom more than six.
    prompt = len(getattr(request, "prompt", "").encode("utf-8", "surrogatepass"))
    pictures = _pictures_of(request)
    count = request.n or 1
    low = _amount(prices, prompt // 6, pictures * beside.get("input_image", [0])[0], count * bounds[0])
    high = _amount(
        prices, prompt, pictures * beside.get("input_image", [0])[-1], count * (bounds[1] + partial)
    )
    if low is None or high is None:
        return Estimate(note="prices are not known for all that this request uses")
    return Estimate(
        low=low, high=high, currency=prices.currency, as_of=prices.origin.as_of, note=model.tokens.note
    )


def _as_sent(request: ImageRequest) -> tuple[ImageRequest, str]:
    """Return a request with what its ``extra_body`` says of its price, and what cannot be read there."""
    extra = request.extra_body or {}
    own = {name: extra[name] for name in _COUNTED if name in extra and hasattr(request, name)}
    for name, value in own.items():
        fits = type(value) is int and value > 0 if name == "n" else isinstance(value, str)
        if not fits and value is not None:
            return request, f"extra_body gives a {name} that is not understood"
    return (replace(request, **own) if own else request), ""


def _output(request: ImageRequest, tokens: Tokens) -> tuple[int, int] | None:
    """Return the fewest and the most tokens of one picture, None for a quality that is not known."""
    quality = getattr(request, "quality", None) or "auto"
    by_size = [tokens.by_quality.get(quality)] if quality != "auto" else list(tokens.by_quality.values())
    counts = [_of_size(one, request.size or "auto") for one in by_size if one]
    if not counts:
        return None
    return min(low for low, _ in counts), max(high for _, high in counts)


def _of_size(by_size: dict[str, int] | object, size: str) -> tuple[int, int]:
    assert isinstance(by_size, dict), "a table of sizes"
    if size in by_size:
        return by_size[size], by_size[size]
    found = re.fullmatch(r"([0-9]+)x([0-9]+)", size)
    if found is None:
        return min(by_size.values()), max(by_size.values())
    area = int(found[1]) * int(found[2])
    known = [_REFERENCE_SIZE] if _REFERENCE_SIZE in by_size else list(by_size)
    guesses = [by_size[one] * area / _area(one) for one in known]
    return int(min(guesses) * 0.8), int(max(guesses) * 1.25) + 1


def _area(size: str) -> int:
    width, _, height = size.partition("x")
    return int(width) * int(height)


def _pictures_of(request: ImageRequest) -> int:
    if isinstance(request, CreateImageRequest):
        return 0
    image = request.image
    many = len(image) if isinstance(image, list | tuple) else 1
    if isinstance(request, CreateImageEditRequest):
        many += (request.mask is not None) + (request.markup is not None)
    return many


def _amount(prices: Prices, text: int, image: int, output: int) -> Decimal | None:
    total = NOTHING
    for tokens, price in ((text, prices.text_in), (image, prices.image_in), (output, prices.image_out)):
        if tokens and price is None:
            return None
        total += tokens * (price or NOTHING) / MILLION
    return total


def sum_costs(costs: Iterable[Cost]) -> Cost:
    """Return the sum of several costs; one that is not known makes it unknown."""
    whole = list(costs)
    if not whole:
        return Cost(note="nothing was sent")
    unknown = next((one for one in whole if not one.known), None)
    if unknown is not None:
        return unknown
    notes = dict.fromkeys(one.note for one in whole if one.note)
    amount = sum((one.amount for one in whole if one.amount is not None), NOTHING)
    return Cost(amount=amount, currency=whole[0].currency, as_of=whole[0].as_of, note="; ".join(notes))
