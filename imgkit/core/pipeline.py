"""From a checked request to its answer: judged by what is known of the model, its pictures opened, sent.

More pictures than a model makes at once are asked for in several requests, which run at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from imgkit.catalogue.rules import check_inputs, check_request, max_value
from imgkit.core import responses as results
from imgkit.core.cached_send import fetch
from imgkit.core.config import Core
from imgkit.core.context import CacheUse
from imgkit.core.send import CallContext
from imgkit.errors import (
    ApiError,
    BudgetExceededError,
    ConfigurationError,
    ImgkitError,
    InvalidRequestError,
    ModerationBlockedError,
    NotSentError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
)
from imgkit.images.image import Image
from imgkit.images.inputs import ImageReference, OpenedInputs, Prepare, open_file
from imgkit.models import CreateImageEditRequest, CreateImageRequest, ImageRequest, ImagesResponse
from imgkit.plugins.events import Started
from imgkit.providers.base import mask_polarity
from imgkit.runtime.flow import Finished, Flow, RunBlocking, RunParallel

if TYPE_CHECKING:
    from imgkit.catalogue.facts import Model
    from imgkit.core.inputs import InputRules

AT_ONCE = 4
"""Requests of one call that run at the same time."""


class DispatchResult(NamedTuple):
    """What a request has got.

    Attributes:
        response: all its pictures.
        each: the courses of the requests that were needed, and what each of them has brought.
    """

    response: ImagesResponse
    each: tuple[tuple[CallContext, ImagesResponse], ...]


def dispatch(
    core: Core,
    course: CallContext,
    request: ImageRequest,
    use: CacheUse,
    cleanup: ExitStack,
    prepare: Prepare | None = None,
) -> Flow[DispatchResult]:
    """Send a request and return its pictures.

    Args:
        core, course: the service, and the call.
        request: checked.
        use: of the cache.
        cleanup: what the call undoes at its end.
        prepare: what becomes of input pictures.

    Raises:
        ImgkitError: with what is known of the model in its notes.
    """
    request, model, warnings = validate_for_model(core, request)
    with attach_warnings_to_errors(warnings):
        inputs, told = yield from open_inputs(core, request, model, prepare, cleanup)
        warnings += told
        if course.request is None:
            course.request = request
            course.table.notify(Started(), course.call)
        course.request = request
        found = yield from send_split(core, course, request, inputs, use, cleanup)
    return found if not warnings else found._replace(response=results.with_warnings(found.response, warnings))


def validate_for_model(
    core: Core, request: ImageRequest, more: Mapping[str, Any] | None = None
) -> tuple[ImageRequest, Model | None, list[str]]:
    """Return a request as it fits its model and dialect, what is known of that model, and what is to be said.

    Args:
        core: the service.
        request: as plugins want it.
        more: values that are no fields of the request, such as ``stream``.

    Raises:
        ImgkitError: it does not fit; nothing is sent.
    """
    model = core.catalogue.find(model_of(request, core), core.target.host_class)
    request, warnings = check_request(request, model, core.catalogue, core.on_unsupported, date.today(), more)
    core.provider.check(request, core.target)
    return request, model, warnings


@contextmanager
def attach_warnings_to_errors(warnings: list[str]) -> Iterator[None]:
    """Add what is to be said of a request to an error that it ends with."""
    try:
        yield
    except ImgkitError as error:
        for warning in warnings:
            error.add_note(warning)
        raise


def model_of(request: ImageRequest, core: Core) -> str | None:
    """Return the name of the model that a request goes to, None where the server chooses."""
    named = (request.extra_body or {}).get("model") or request.model or core.target.model
    return named if isinstance(named, str) else None


def most_at_once(request: ImageRequest, core: Core) -> int | None:
    """Return how many pictures one request may ask for, None where no limit is known."""
    model = core.catalogue.find(model_of(request, core), core.target.host_class)
    known = None if model is None else max_value("n", request, model, core.catalogue)
    return core.catalogue.most_pictures if known is None else known


def send_split(
    core: Core,
    course: CallContext,
    request: ImageRequest,
    inputs: OpenedInputs,
    use: CacheUse,
    cleanup: ExitStack,
) -> Flow[DispatchResult]:
    """Send a request, as several if it asks for more pictures than there are at once."""
    limit = most_at_once(request, core) if (request.n or 1) > 1 else None
    if limit is None or (request.n or 1) <= limit:
        response = yield from _sent(core, course, request, inputs, use, cleanup)
        return DispatchResult(response, ((course, response),))
    counts = _split(request.n or 1, limit)
    courses = [course.part() for _ in counts]
    halted: list[ImgkitError] = []
    flows = tuple(
        _send_part(core, one, replace(request, n=count), inputs, use._replace(part=number), halted)
        for number, (one, count) in enumerate(zip(courses, counts, strict=True))
    )
    outcomes = yield RunParallel(flows, min(AT_ONCE, core.options.max_in_flight))
    course.attempts += [attempt for one in courses for attempt in one.attempts]
    each = tuple(
        (one, out.value) for one, out in zip(courses, outcomes, strict=True) if isinstance(out, Finished)
    )
    wrong = {number: out.error for number, out in enumerate(outcomes) if not isinstance(out, Finished)}
    if not each:
        raise most_serious_error(list(wrong.values()))
    return DispatchResult(results.merge_responses([one for _, one in each], wrong, counts, course), each)


def _split(count: int, limit: int) -> list[int]:
    whole, rest = divmod(count, limit)
    return [limit] * whole + ([rest] if rest else [])


def _send_part(
    core: Core,
    course: CallContext,
    request: ImageRequest,
    inputs: OpenedInputs,
    use: CacheUse,
    halted: list[ImgkitError],
) -> Flow[ImagesResponse]:
    """Send one of several requests, unless another has shown that there is no use in it."""
    if halted:
        raise NotSentError(
            f"nothing was sent for this part of the call: another ended with {type(halted[0]).__name__}",
            permanent=True,
        )
    with ExitStack() as cleanup:
        try:
            course.request = request
            return (yield from _sent(core, course, request, inputs, use, cleanup))
        except ImgkitError as error:
            if _is_final(error):
                halted.append(error)
            raise


def _is_final(error: ImgkitError) -> bool:
    """Whether an equal request would meet the same error: then nothing more of the call is sent."""
    if isinstance(error, ModerationBlockedError):
        return error.stage == "input"
    if isinstance(error, ServerError) or (
        isinstance(error, RateLimitError) and not isinstance(error, QuotaExceededError)
    ):
        return False
    return isinstance(error, ApiError | BudgetExceededError | ConfigurationError | InvalidRequestError)


def most_serious_error(errors: list[ImgkitError]) -> ImgkitError:
    """Return the error that a call ends with: one that may have cost money before any other."""
    chosen = next((one for one in errors if getattr(one, "maybe_billed", False)), errors[0])
    others = [one for one in errors if one is not chosen]
    if others:
        chosen.add_note(
            f"{len(others)} more requests of this call ended without pictures, such as: {others[0]}"
        )
    return chosen


def _sent(
    core: Core,
    course: CallContext,
    request: ImageRequest,
    inputs: OpenedInputs,
    use: CacheUse,
    cleanup: ExitStack,
) -> Flow[ImagesResponse]:
    began = course.clock()
    wire_request = core.provider.encode(request, inputs, core.target)
    fetched = yield from fetch(core, course, wire_request, use, cleanup)
    return results.build_response(core, course, request, inputs, fetched, began)


def open_inputs(
    core: Core, request: ImageRequest, model: Model | None, prepare: Prepare | None, cleanup: ExitStack
) -> Flow[tuple[OpenedInputs, list[str]]]:
    """Open the pictures of a request and make them ready; those that are still at a URL are fetched first."""
    if isinstance(request, CreateImageRequest):
        return OpenedInputs(), []
    listed = request.image if isinstance(request.image, tuple) else (request.image,)
    wanted = [("image" if len(listed) == 1 else f"image.{index}", one) for index, one in enumerate(listed)]
    if isinstance(request, CreateImageEditRequest):
        wanted += [(name, one) for name in ("mask", "markup") if (one := getattr(request, name)) is not None]
    here: dict[str, Any] = {}
    for field, one in wanted:
        if isinstance(one, ImageReference):
            _check_reference(core, request, field)
        here[field] = (yield from results.ensure_downloaded(core, one)) if isinstance(one, Image) else one
    facts = None if model is None else model.inputs
    from imgkit.core.inputs import (
        InputRules,  # with all that looks at pixels: only for calls that have inputs
    )

    rules = InputRules.of(facts, mask_polarity(core.provider))
    ready: tuple[OpenedInputs, list[str]] = yield RunBlocking(
        partial(_prepare_inputs, here, rules, prepare, cleanup), before_sending=True
    )
    inputs, told = ready
    if model is not None and facts is not None:
        told = [*told, *check_inputs(inputs, model, core.on_unsupported, date.today())]
    return inputs, told


def _prepare_inputs(
    here: dict[str, Any], rules: InputRules, prepare: Prepare | None, cleanup: ExitStack
) -> tuple[OpenedInputs, list[str]]:
    """Open what is no mere name, and make it ready. May block."""
    found = {
        field: one if isinstance(one, ImageReference) else open_file(one, field, cleanup)
        for field, one in here.items()
    }
    mask, markup = found.pop("mask", None), found.pop("markup", None)
    from imgkit.core.inputs import prepare_inputs

    return prepare_inputs(tuple(found.values()), mask, markup, rules=rules, how=prepare, cleanup=cleanup)


def _check_reference(core: Core, request: ImageRequest, field: str) -> None:
    if not isinstance(request, CreateImageEditRequest) or not getattr(
        core.provider, "takes_references", False
    ):
        what = f"{request.operation} of provider {core.provider_name}"
        raise InvalidRequestError(
            {field: f"is an ImageReference, which {what} does not take: give the picture"}
        )
