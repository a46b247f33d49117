"""Live estimates: ask the API itself for the price of a request. Such a question is free."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from functools import partial

from imgkit.core.context import CallContext, CallOptions, start_call
from imgkit.core.core import Core
from imgkit.core.free_requests import FailedRequest, send_free_request, to_free_error
from imgkit.core.lifecycle import apply_prepare_hooks
from imgkit.core.pipeline import open_inputs
from imgkit.core.provider_calls import call_before_sending, to_reply_error
from imgkit.core.sent_secrets import refuse_secrets_in_texts
from imgkit.core.validation import max_images_per_request, validate_for_model
from imgkit.core.variations import PROMPT, to_edit_request
from imgkit.errors import ConfigurationError, ImgkitError, TransportError
from imgkit.images.inputs import OpenedInputs
from imgkit.models import CreateImageVariationRequest, Estimate, ImageRequest
from imgkit.providers.job_base import PricingProvider
from imgkit.redact import safe_url
from imgkit.runtime.flow import Flow
from imgkit.wire.urls import origin


def estimate_live(core: Core, request: ImageRequest) -> Flow[Estimate]:
    """Return the price of a request as the API quotes it. The request itself is not sent.

    A call that imgkit would split into several requests has a quote for each size of them.

    Args:
        core: parts of the service.
        request: validated by its schema.

    Raises:
        ConfigurationError: the API of the provider quotes no prices.
        ImgkitError: as the call itself would raise it before sending; or the API or the wire failed, and
            nothing was paid.
    """
    provider = core.provider
    if not isinstance(provider, PricingProvider):
        raise ConfigurationError(
            f"Provider {core.provider_name} quotes no prices: its API has no request for them.",
            hint="An estimate that is not live has the dated prices that imgkit knows.",
            field="live",
        )
    context = start_call(core, request, CallOptions())
    with context.cleanup:
        request = _to_sent_request(context, request)
        request, model, _ = validate_for_model(core, request)
        inputs, _ = yield from open_inputs(context, request, model)
        context.request = request
        refuse_secrets_in_texts(request, core.sent.known)
        if core.target.host_class == "offline":
            return core.settings.estimate(request, 0)
        quotes = []
        for images, parts in _count_parts(core, request):
            part = replace(request, n=images)
            quotes.append(((yield from _ask_for_price(context, provider, part, inputs)), parts))
    return _sum_quotes(quotes)


def _to_sent_request(context: CallContext, request: ImageRequest) -> ImageRequest:
    """Return the request that a call would send: after the hooks, an edit where variations are emulated."""
    core = context.core
    request = apply_prepare_hooks(context, request)
    retired = core.catalogue.find_retirement(request.operation, core.target.host_class)
    if retired is not None and isinstance(request, CreateImageVariationRequest):
        return to_edit_request(request, PROMPT)
    return request


def _count_parts(core: Core, request: ImageRequest) -> list[tuple[int | None, int]]:
    """Return the numbers of images per request, each with the number of such requests."""
    limit = max_images_per_request(core, request) if (request.n or 1) > 1 else None
    if limit is None or request.n is None or request.n <= limit:
        return [(request.n, 1)]
    whole, rest = divmod(request.n, limit)
    return [(limit, whole), *([(rest, 1)] if rest else [])]


def _ask_for_price(
    context: CallContext, provider: PricingProvider, request: ImageRequest, inputs: OpenedInputs
) -> Flow[Estimate]:
    core = context.core
    build = partial(provider.price_request, request, inputs, core.target)
    question = call_before_sending(core, "price_request", build)
    if origin(question.url) != origin(core.target.base_url):
        raise ConfigurationError(
            f"Provider {core.provider_name} asks {safe_url(question.url)} for prices, which is not the API's "
            "own address. Nothing was sent. Report it to the provider's author."
        )
    reply = yield from send_free_request(context, question)
    if isinstance(reply, FailedRequest):
        raise TransportError(f"No price arrived. {reply.problem} The request was free. Try again.")
    head, body, secrets = reply
    try:
        if not 200 <= head.status < 300:
            raise to_reply_error(core, head, body.raw(), secrets.secrets)
        decode = partial(provider.decode_price, head, body, core.target, secrets.secrets)
        return call_before_sending(core, "decode_price", decode)
    except ImgkitError as error:
        problem = to_free_error(error, "price")
        secrets.clean_error(problem)
        raise problem from None


def _sum_quotes(quotes: list[tuple[Estimate, int]]) -> Estimate:
    """Return the sum of quotes, each with a number of requests; it is unknown if any of them is."""
    low, high = Decimal(0), Decimal(0)
    for quote, count in quotes:
        if quote.low is None or quote.high is None:
            return quote
        low, high = low + count * quote.low, high + count * quote.high
    return replace(quotes[0][0], low=low, high=high)
