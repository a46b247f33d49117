"""Variations, where the server still makes them; elsewhere edits with a prompt that asks for one."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Literal

from imgkit.core.config import Core
from imgkit.core.context import CacheUse
from imgkit.core.pipeline import DispatchResult, dispatch
from imgkit.core.send import CallContext
from imgkit.errors import EndpointRetiredError, InvalidRequestError, ModelNotFoundError, NotFoundError
from imgkit.images.inputs import Prepare
from imgkit.models import (
    CreateImageEditRequest,
    CreateImageVariationRequest,
    field_names,
)
from imgkit.runtime.flow import Flow
from imgkit.schemas.requests import validate_request

Strategy = Literal["auto", "native", "emulate"]
STRATEGIES: tuple[Strategy, ...] = ("auto", "native", "emulate")

PROMPT = (
    "Make a new variation of this picture. Keep its subject, style and mood; change the composition and the "
    "details."
)
"""How an edit is asked for a variation."""


def parse_strategy(given: object) -> Strategy:
    """Return a checked strategy. Raises InvalidRequestError."""
    if given not in STRATEGIES:
        known = ", ".join(map(repr, STRATEGIES))
        raise InvalidRequestError({"strategy": f"is {str(given)[:40]!r}: give one of {known}"})
    return given


def create_variation(
    core: Core,
    course: CallContext,
    request: CreateImageVariationRequest,
    strategy: Strategy,
    prompt: str | None,
    use: CacheUse,
    cleanup: ExitStack,
    prepare: Prepare | None,
) -> Flow[DispatchResult]:
    """Return variations of a picture.

    Args:
        core, course: the service, and the call.
        request: as it was prepared.
        strategy: "native": by the server's own operation; "emulate": by an edit; "auto": natively where that
            may be there, else by an edit.
        prompt: of the edit, `PROMPT` if None.
        use: of the cache.
        cleanup: what the call undoes at its end.
        prepare: what becomes of the picture.

    Raises:
        EndpointRetiredError: "native", and the host is known not to have it; nothing was sent.
        ImgkitError: as `answered` has it.
    """
    gone = core.catalogue.retired(request.operation, core.target.host_class)
    if strategy == "native" and gone is not None:
        since = f"was switched off on {gone.date}" if gone.date else "does not exist"
        raise EndpointRetiredError(
            f"{request.operation} {since} at {core.target.base_url} ({gone.origin}); nothing was sent. "
            f"{gone.instead}.",
            status=0,
            date=gone.date,
        )
    note: tuple[str, ...] = ()
    if strategy == "native" or (strategy == "auto" and gone is None):
        try:
            return (yield from dispatch(core, course, request, use, cleanup, prepare))
        except NotFoundError as error:
            if (
                strategy == "native"
                or error.status not in (404, 405)
                or isinstance(error, ModelNotFoundError)
            ):
                raise
            note = (f"this server has no variations (HTTP {error.status}), so an edit was asked for one",)
    edit = to_edit_request(request, prompt or PROMPT)
    found = yield from dispatch(core, course, edit, use, cleanup, prepare)
    response = found.response
    meta = replace(response.meta, emulated=True, emulation_prompt=edit.prompt)
    return found._replace(response=replace(response, meta=meta, warnings=(*note, *response.warnings)))


def to_edit_request(request: CreateImageVariationRequest, prompt: str) -> CreateImageEditRequest:
    """Return the edit that asks for variations. Raises InvalidRequestError for a prompt that is none."""
    shared = {name: getattr(request, name) for name in field_names(type(request))}
    edit: CreateImageEditRequest = validate_request(CreateImageEditRequest, {**shared, "prompt": prompt})
    return edit
