"""Validation of a request for its model and provider, before anything is sent."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from imgkit.catalogue.adaptation import SHAPE, fit_fields, fit_shape
from imgkit.catalogue.rules import check_request, max_value
from imgkit.core.core import Core
from imgkit.core.provider_calls import call_before_sending, choose_model, list_fields
from imgkit.errors import ImgkitError, InvalidRequestError
from imgkit.images.inputs import OpenedInputs
from imgkit.models import ImageRequest, resolve_model
from imgkit.wire.messages import HttpRequest
from imgkit.wire.plain_values import show_value

if TYPE_CHECKING:
    from imgkit.catalogue.facts import Model


def validate_for_model(
    core: Core, request: ImageRequest, stream_values: Mapping[str, object] | None = None
) -> tuple[ImageRequest, Model | None, list[str]]:
    """Validate the request against the model's rules; return it, the model's data and the warnings.

    Args:
        core: parts of the service.
        request: the request after the `prepare` hooks.
        stream_values: values of a stream that are no fields of the request, such as ``stream``.

    Raises:
        ImgkitError: the model or the provider refuses the request; nothing was sent.
    """
    name = resolve_model(request, core.target.model)
    if name is None and (name := choose_model(core.provider, request)) is not None:
        request = replace(request, model=name)
    model = core.catalogue.find_model(name, core.target.host_class)
    option_warnings = _check_options(core, request, name)
    fields = list_fields(core.provider, request.operation, core.target)
    today = date.today()
    request, field_warnings = fit_fields(
        request, fields, core.provider_name, model, core.on_unsupported, today
    )
    request, warnings = check_request(
        request, model, core.catalogue, core.on_unsupported, today, stream_values
    )
    warnings = [*option_warnings, *field_warnings, *warnings]
    request, shape_warnings = _check_by_provider(core, request, fields, model)
    return request, model, [*warnings, *shape_warnings]


def _check_by_provider(
    core: Core, request: ImageRequest, fields: Collection[str] | None, model: Model | None
) -> tuple[ImageRequest, list[str]]:
    """Let the provider check a request; drop or adapt the shapes that it refuses, where the policy says so.

    Facts about models hold at the provider's own host. Elsewhere, the provider alone knows its shapes.

    Raises:
        ImgkitError: the provider refuses the request; nothing was sent.
    """
    given, warnings = request, list[str]()
    refused: dict[str, str] = {}
    while True:
        try:
            call_before_sending(core, "check", partial(core.provider.check, request, core.target))
        except InvalidRequestError as error:
            found = {name: text for name, text in error.fields.items() if name in SHAPE}
            is_known = bool(refused.keys() & found.keys())
            if core.on_unsupported not in ("drop", "adapt") or found != error.fields or is_known:
                raise
            refused |= found
            request, warnings = fit_shape(given, refused, fields, model, core.on_unsupported)
        else:
            return request, warnings


def _check_options(core: Core, request: ImageRequest, model: str | None) -> list[str]:
    """Validate ``model_options``; return warnings.

    Raises:
        InvalidRequestError: the API lacks an option, or it takes other values. Nothing was sent.
    """
    if not request.model_options:
        return []
    from imgkit.catalogue.model_options import check_options, select_options

    catalogue = core.catalogue
    known = select_options(catalogue.options, model, request.operation)
    problems, warnings = check_options(
        request.model_options, known, core.provider_name, is_open=catalogue.has_open_options
    )
    if catalogue.has_own_options:
        warnings = []
    if problems:
        hint = "extra_body={…} sends members without a check."
        raise InvalidRequestError(problems, hints={"model_options": hint})
    return warnings


def encode_request(core: Core, request: ImageRequest, inputs: OpenedInputs) -> HttpRequest:
    """Return the HTTP request of the provider.

    Raises:
        ImgkitError: the provider refuses the request, or failed; nothing was sent.
    """
    encoded = call_before_sending(core, "encode", partial(core.provider.encode, request, inputs, core.target))
    check_address(encoded, resolve_model(request, core.target.model))
    return encoded


def check_address(encoded: HttpRequest, model: str | None) -> None:
    """Refuse a model that leads to another address: some providers put its name into their path.

    Raises:
        InvalidRequestError: the name has a step such as ``..``, and the path has it too; nothing was sent.
    """
    steps = {".", ".."} & set((model or "").split("/"))
    if steps & {unquote(step) for step in urlsplit(encoded.url).path.split("/")}:
        raise InvalidRequestError({"model": f"{show_value(model)} leads to another address. Name a model."})


@contextmanager
def attach_warnings_to_errors(warnings: list[str]) -> Iterator[None]:
    """Add the warnings about a request to the error that ends it, as notes."""
    try:
        yield
    except ImgkitError as error:
        for warning in warnings:
            error.add_note(warning)
        raise


def max_images_per_request(core: Core, request: ImageRequest) -> int | None:
    """Return the largest number of images that one request may ask for, None without a known limit."""
    model = core.catalogue.find_model(resolve_model(request, core.target.model), core.target.host_class)
    limit = None if model is None else max_value("n", request, model, core.catalogue)
    return core.catalogue.max_images_per_request if limit is None else limit
