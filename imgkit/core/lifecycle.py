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
from imgkit.core.config import Core, seconds
from imgkit.core.context import CacheUse
from imgkit.core.pipeline import Answered, answered
from imgkit.core.send import Course, kept, settled
from imgkit.core.variations import Strategy, varied
from imgkit.errors import ImgkitError
from imgkit.images.inputs import Prepare
from imgkit.images.part_files import Scratch
from imgkit.images.saving import SavePlan
from imgkit.models import CreateImageVariationRequest, ImageRequest, ImagesResponse, field_names
from imgkit.plugins.events import Call, Cancelled, Failed, Succeeded
from imgkit.runtime.flow import Flow, Run
from imgkit.schemas.requests import checked

SaveTo = str | PathLike[str] | SavePlan | None


class Wish(NamedTuple):
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


def carried_out(core: Core, request: ImageRequest, wish: Wish) -> Flow[ImagesResponse]:
    """Run one operation with its events around it."""

    def work(course: Course, cleanup: ExitStack) -> Flow[ImagesResponse]:
        return _pictures(core, course, request, wish, cleanup)

    return (yield from conducted(begun(core, request, wish.timeout_s), work))


Work: TypeAlias = Callable[[Course, ExitStack], Flow[ImagesResponse]]


def conducted(course: Course, work: Work) -> Flow[ImagesResponse]:
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


def begun(
    core: Core, request: ImageRequest, timeout_s: float | None, partial_images: int | None = None
) -> Course:
    """Return the course of a call that begins now. Raises `ConfigurationError` for a time that is none."""
    limit_s = core.limits.timeout_s if timeout_s is None else seconds("timeout_s", timeout_s)
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
    return Course(
        call=call,
        table=core.table,
        equipment=core.equipment,
        provider=core.provider,
        target=core.target,
        max_reply_bytes=core.limits.max_reply_bytes,
        deadline=time.monotonic() + limit_s,
        clock=time.monotonic,
    )


def prepared(course: Course, request: ImageRequest) -> ImageRequest:
    """Return the request as plugins want it: they may do what users may, and no more."""
    changed = course.table.prepare(request, course.call)
    if changed is request:
        return request
    kind = type(request)
    made: ImageRequest = checked(kind, {name: getattr(changed, name) for name in field_names(kind)})
    return made


def _scratch(plan: SavePlan, call: Call, cleanup: ExitStack) -> Scratch:
    # Partial pictures need no digest, and most of a stream is such.
    scratch = Scratch(plan.folder, digests=plan.needs_digest and not call.partial_images)
    cleanup.callback(scratch.close)
    return scratch


def _pictures(
    core: Core, course: Course, request: ImageRequest, wish: Wish, cleanup: ExitStack
) -> Flow[ImagesResponse]:
    plan = yield from planned(course, wish.save_to, cleanup)
    request = prepared(course, request)
    if isinstance(request, CreateImageVariationRequest):
        how = wish.strategy, wish.variation_prompt
        found = yield from varied(core, course, request, *how, wish.use, cleanup, wish.prepare)
    else:
        found = yield from answered(core, course, request, wish.use, cleanup, wish.prepare)
    return (yield from handed_over(core, found, plan))


def planned(course: Course, save_to: SaveTo, cleanup: ExitStack) -> Flow[SavePlan | None]:
    """Return the plan for ``save_to=``, once it is known that files can be written there.

    Pictures of the call go there while they arrive.
    """
    plan = save_to if save_to is None or isinstance(save_to, SavePlan) else SavePlan.of(save_to)
    if plan is not None:
        yield Run(plan.check, before_sending=True)
        course.scratch = partial(_scratch, plan, course.call, cleanup)
    return plan


def handed_over(core: Core, found: Answered, plan: SavePlan | None) -> Flow[ImagesResponse]:
    """Save the pictures if that is wanted, and end the accounts of the requests that brought them."""
    response = found.response
    try:
        if plan is not None:
            response = yield from results.save_all(core, response, plan)
    except ImgkitError as error:
        for part, brought in found.each:
            yield from kept(part, error, brought)
        raise
    for part, brought in found.each:
        yield from settled(part, brought)
        if part.account.problems:
            response = replace(response, warnings=(*response.warnings, *part.account.problems))
    return response
