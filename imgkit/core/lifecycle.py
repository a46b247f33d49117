"""The course of a call: what is around its requests, from the user's wish to saved pictures."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import NamedTuple, TypeAlias

from imgkit.core import responses as results
from imgkit.core.config import Core, check_seconds
from imgkit.core.context import CacheUse
from imgkit.core.pipeline import DispatchResult, dispatch
from imgkit.core.send import CallContext, keep_reservations, settle_reservations
from imgkit.core.variations import Strategy, create_variation
from imgkit.errors import ImgkitError
from imgkit.images.inputs import Prepare
from imgkit.images.part_files import PartFiles
from imgkit.images.saving import SavePlan
from imgkit.models import CreateImageVariationRequest, ImageRequest, ImagesResponse, field_names
from imgkit.plugins.events import Call, Cancelled, Failed, Succeeded
from imgkit.runtime.flow import Flow, RunBlocking
from imgkit.schemas.requests import validate_request

SaveTo = str | PathLike[str] | SavePlan | None


class CallOptions(NamedTuple):
    """How a call is to be carried out, beside what it asks for.

    Attributes:
        save_to: where the pictures go.
        use: of the cache.
        timeout_s: seconds that the call may take, the service's if None.
        strategy: how variations are made.
        variation_prompt: of the edit that stands in for one.
        prepare: what becomes of input pictures.
    """

    save_to: SaveTo = None
    use: CacheUse = CacheUse()
    timeout_s: float | None = None
    strategy: Strategy = "auto"
    variation_prompt: str | None = None
    prepare: Prepare | None = None


def run_call(core: Core, request: ImageRequest, wish: CallOptions) -> Flow[ImagesResponse]:
    """Run one operation with its events around it."""

    def work(course: CallContext, cleanup: ExitStack) -> Flow[ImagesResponse]:
        return _pictures(core, course, request, wish, cleanup)

    return (yield from conducted(start_call(core, request, wish.timeout_s), work))


Work: TypeAlias = Callable[[CallContext, ExitStack], Flow[ImagesResponse]]


def conducted(course: CallContext, work: Work) -> Flow[ImagesResponse]:
    """Do the work of a call with its events around it.

    Args:
        course: of the call.
        work: does it; what must be undone at the end goes on the stack that it is given.
    """
    with ExitStack() as cleanup:
        try:
            response = yield from work(course, cleanup)
        except ImgkitError as error:
            course.table.notify(Failed(error, shared=course.shared), course.call)
            raise
        except BaseException as error:  # closed from outside, or a bug: all must hear of it
            if course.delivered is not None and isinstance(error, GeneratorExit):
                course.account.settle(course.delivered)
                course.table.notify(Succeeded(course.delivered), course.call)
                raise
            course.break_off(error)
            course.table.notify(Cancelled(maybe_billed=course.in_doubt), course.call)
            raise
        course.table.notify(Succeeded(response), course.call)
        return response


def start_call(
    core: Core, request: ImageRequest, timeout_s: float | None, partial_images: int | None = None
) -> CallContext:
    """Return the course of a call that begins now. Raises `ConfigurationError` for a time that is none."""
    limit_s = core.limits.timeout_s if timeout_s is None else check_seconds("timeout_s", timeout_s)
    call = Call(
        id=secrets.token_hex(16),
        operation=request.operation,
        backend=core.backend_name,
        provider=core.provider_name,
        base_url=core.target.base_url,
        host_class=core.target.host_class,
        timeout_s=limit_s,
        partial_images=partial_images,
    )
    return CallContext(
        call=call,
        table=core.table,
        equipment=core.equipment,
        provider=core.provider,
        target=core.target,
        max_reply_bytes=core.limits.max_reply_bytes,
        deadline=time.monotonic() + limit_s,
        clock=time.monotonic,
    )


def apply_prepare_hooks(course: CallContext, request: ImageRequest) -> ImageRequest:
    """Return the request as plugins want it: they may do what users may, and no more."""
    changed = course.table.prepare(request, course.call)
    if changed is request:
        return request
    kind = type(request)
    made: ImageRequest = validate_request(kind, {name: getattr(changed, name) for name in field_names(kind)})
    return made


def _scratch(plan: SavePlan, call: Call, cleanup: ExitStack) -> PartFiles:
    # Partial pictures need no digest, and most of a stream is such.
    scratch = PartFiles(plan.folder, digests=plan.needs_digest and not call.partial_images)
    cleanup.callback(scratch.close)
    return scratch


def _pictures(
    core: Core, course: CallContext, request: ImageRequest, wish: CallOptions, cleanup: ExitStack
) -> Flow[ImagesResponse]:
    plan = yield from open_save_plan(course, wish.save_to, cleanup)
    request = apply_prepare_hooks(course, request)
    if isinstance(request, CreateImageVariationRequest):
        how = wish.strategy, wish.variation_prompt
        found = yield from create_variation(core, course, request, *how, wish.use, cleanup, wish.prepare)
    else:
        found = yield from dispatch(core, course, request, wish.use, cleanup, wish.prepare)
    return (yield from deliver(core, found, plan))


def open_save_plan(course: CallContext, save_to: SaveTo, cleanup: ExitStack) -> Flow[SavePlan | None]:
    """Return the plan for ``save_to=``, once it is known that files can be written there.

    Pictures of the call go there while they arrive.
    """
    plan = save_to if save_to is None or isinstance(save_to, SavePlan) else SavePlan.of(save_to)
    if plan is not None:
        yield RunBlocking(plan.check, before_sending=True)
        course.scratch = partial(_scratch, plan, course.call, cleanup)
    return plan


def deliver(core: Core, found: DispatchResult, plan: SavePlan | None) -> Flow[ImagesResponse]:
    """Save the pictures if that is wanted, and end the accounts of the requests that brought them."""
    response = found.response
    try:
        if plan is not None:
            response = yield from results.save_all(core, response, plan)
    except ImgkitError as error:
        for part, brought in found.each:
            yield from keep_reservations(part, error, brought)
        raise
    for part, brought in found.each:
        yield from settle_reservations(part, brought)
        if part.account.problems:
            response = replace(response, warnings=(*response.warnings, *part.account.problems))
    return response
