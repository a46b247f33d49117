"""Variations: native where the server has the operation, else emulated by an edit."""

from __future__ import annotations

from dataclasses import replace

from imgkit.core.context import CallContext
from imgkit.core.pipeline import DispatchResult, dispatch
from imgkit.errors import EndpointRetiredError, ModelNotFoundError, NotFoundError
from imgkit.models import CreateImageEditRequest, CreateImageVariationRequest, field_names
from imgkit.runtime.flow import Flow
from imgkit.schemas.requests import validate_request

PROMPT = (
    "Make a new variation of this picture. Keep its subject, style and mood; change the composition and the "
    "details."
)
"""Prompt of the edit that emulates a variation."""


def create_variation(context: CallContext, request: CreateImageVariationRequest) -> Flow[DispatchResult]:
    """Send a variation request, or an edit in its place, as the call's strategy says.

    "auto" asks for a native variation unless the host is known to lack the operation, and falls back
    to an edit after a 404 or 405.

    Raises:
        EndpointRetiredError: the strategy is "native" and the host is known to lack the operation;
            nothing was sent.
        ImgkitError: as `dispatch`.
    """
    core, options = context.core, context.options
    retired = core.catalogue.find_retirement(request.operation, core.target.host_class)
    if options.strategy == "native" and retired is not None:
        since = f"was switched off on {retired.date}" if retired.date else "does not exist"
        raise EndpointRetiredError(
            f"{request.operation} {since} at {core.target.base_url} ({retired.origin}). Nothing was sent.",
            status=0,
            date=retired.date,
            hint=f"{retired.instead}.",
        )
    warnings: tuple[str, ...] = ()
    if options.strategy == "auto" and retired is not None:
        since = f" since {retired.date}" if retired.date else ""
        warnings = (f"This server has no variations{since}; imgkit asked for an edit instead.",)
    if options.strategy == "native" or (options.strategy == "auto" and retired is None):
        try:
            return (yield from dispatch(context, request))
        except NotFoundError as error:
            if options.strategy == "native" or not _lacks_operation(error):
                raise
            warnings = (
                f"This server has no variations (HTTP {error.status}); imgkit asked for an edit instead.",
            )
    edit = to_edit_request(request, options.variation_prompt or PROMPT)
    result = yield from dispatch(context, edit)
    response = result.response
    meta = replace(response.meta, emulated=True, emulation_prompt=edit.prompt)
    response = replace(response, meta=meta, warnings=(*warnings, *response.warnings))
    return result._replace(response=response)


def _lacks_operation(error: NotFoundError) -> bool:
    return error.status in (404, 405) and not isinstance(error, ModelNotFoundError)


def to_edit_request(request: CreateImageVariationRequest, prompt: str) -> CreateImageEditRequest:
    """Return the edit request that emulates a variation.

    Raises:
        InvalidRequestError: the prompt is not valid.
    """
    fields = {name: getattr(request, name) for name in field_names(type(request))}
    return validate_request(CreateImageEditRequest, {**fields, "prompt": prompt})
