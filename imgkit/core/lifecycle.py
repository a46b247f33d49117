"""The lifecycle of a call: events, `prepare` hooks, saving, and the settlement of reservations.

`run_call` is the outermost generator of an operation. `imgkit.core.pipeline` sends its requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

from imgkit.catalogue.rules import find_violations
from imgkit.core.context import CallContext, CallRecord, parse_options, start_call
from imgkit.core.core import Core
from imgkit.core.pipeline import DispatchResult, dispatch
from imgkit.core.provider_calls import list_fields
from imgkit.core.responses import (
    ensure_downloaded,
    save_all,
    warn_of_missing_images,
    warn_of_other_formats,
)
from imgkit.core.send import keep_reservations, settle_reservations
from imgkit.core.sent_secrets import list_request_secrets
from imgkit.core.variations import create_variation
from imgkit.errors import ImgkitError, InvalidRequestError
from imgkit.images.names import asked_format, check_plan
from imgkit.images.saving import SavePlan
from imgkit.images.sources import UrlSource
from imgkit.models import (
    CreateImageVariationRequest,
    ImageRequest,
    ImagesResponse,
    count_requested_images,
    field_names,
    resolve_model,
    sent_parameters,
)
from imgkit.plugins.events import Cancelled, Failed, Succeeded
from imgkit.plugins.table import describe_error, warn
from imgkit.redact import scrub
from imgkit.runtime.flow import Flow, carry_out, run_blocking
from imgkit.schemas.requests import validate_request
from imgkit.wire.plain_values import has_type

if TYPE_CHECKING:
    from imgkit.plugins.protocols import Sink
    from imgkit.plugins.resources import Resource


OFFLINE_FORMATS = ("png", "jpeg", "webp")
"""Formats that the offline backend paints without a model."""


def run_call(
    core: Core, kind: type[ImageRequest], value: object, arguments: Mapping[str, object]
) -> Flow[ImagesResponse]:
    """Carry out one operation.

    Args:
        core: parts of the service.
        kind: class of the request.
        value: the first argument of the operation: a request, or the value of its first field.
        arguments: all arguments of the operation by name.

    Raises:
        ImgkitError: as `imgkit.ImageService.create_image` documents it.
    """
    request = build_request(kind, value, arguments)
    context = start_call(core, request, parse_options(arguments))
    with call_events(context):
        plan = yield from open_save_plan(context)
        request = ask_for_format(core, apply_prepare_hooks(context, request), plan)
        if isinstance(request, CreateImageVariationRequest):
            result = yield from create_variation(context, request)
        else:
            result = yield from dispatch(context, request)
        response = context.response = yield from deliver(context, result, plan)
    return response


def build_request(kind: type[ImageRequest], value: object, arguments: Mapping[str, object]) -> ImageRequest:
    """Return the validated request of an operation.

    Args:
        kind: class of the request.
        value: the first argument: an instance of `kind`, which excludes other fields, or a field's value.
        arguments: all arguments by name.

    Raises:
        InvalidRequestError: a field is wrong, or stands beside a request object.
    """
    names = field_names(kind)
    if not has_type(value, kind):
        return validate_request(kind, {name: arguments.get(name) for name in names})
    extra = [name for name in names if arguments.get(name) is not None and arguments[name] is not value]
    if extra:
        problem = "Set this field on the request object. Give the object or keywords, not both."
        raise InvalidRequestError(dict.fromkeys(extra, problem))
    return validate_request(kind, {name: getattr(value, name) for name in names})


@contextmanager
def call_events(context: CallContext) -> Iterator[None]:
    """Tell observers how a call ends, then undo what the call holds.

    An interrupted call (Ctrl-C, a cancelled task, a bug) is `Cancelled`. A stream whose caller leaves
    after the last image has `Succeeded`.
    """
    table, call = context.core.table, context.call
    with context.cleanup:
        try:
            yield
        except ImgkitError as error:
            # A plugin may have failed before the request was sent.
            context.core.sent.remember(list_request_secrets(context.request))
            context.core.sent.all.clean_error(error)
            table.notify(Failed(error, shared=context.shared), call)
            raise
        except BaseException as error:
            if context.response is not None and isinstance(error, GeneratorExit):
                context.reservations.settle(context.response)
                if context.core.resources.sinks:
                    warn("A stream was left early, so its images reached no sink. Read streams to their end.")
                table.notify(Succeeded(context.response), call)
                raise
            context.abort_reservations(error)
            _name_pending_jobs(context, error)
            table.notify(Cancelled(maybe_billed=context.maybe_billed), call)
            raise
        assert context.response is not None, "a call that ends without an error has its response"
        table.notify(Succeeded(context.response), call)


def _name_pending_jobs(context: CallContext, error: BaseException) -> None:
    """Say how to collect the jobs of an interrupted call: in a note, or in a warning about a stream."""
    jobs = context.jobs
    if not jobs:
        return
    names = ", ".join(job.id for job in jobs)
    text = (
        f"The provider goes on with job {names}. Collect it with service.resume(job), or `imgkit jobs wait`."
    )
    # A closed generator gets GeneratorExit, whose context is the interruption.
    interruption = error.__context__ if isinstance(error, GeneratorExit) else error
    if interruption is None:
        warn(f"A call was left early. {text}")
        return
    interruption.add_note(text)


def apply_prepare_hooks(context: CallContext, request: ImageRequest) -> ImageRequest:
    """Apply the `prepare` hooks and validate the result like user input.

    A hook can also change ``extra_headers`` or ``extra_body`` in place.
    """
    changed = context.core.table.prepare(request, context.call)
    if not context.core.table.prepares:
        return request
    kind = type(request)
    return validate_request(kind, {name: getattr(changed, name) for name in field_names(kind)})


def ask_for_format(core: Core, request: ImageRequest, plan: SavePlan | None) -> ImageRequest:
    """Return the request with the format that the file name asks for, if the model is known to take it.

    An API without the field sends the image in its own format, and saving it warns of another one.
    """
    asked = None if plan is None else asked_format(plan)
    if asked is None or isinstance(request, CreateImageVariationRequest):
        return request
    members = {**sent_parameters(request), **(request.extra_body or {})}
    model = core.catalogue.find_model(resolve_model(request, core.target.model), core.target.host_class)
    is_given = "output_format" in members or members.get("background") == "transparent"
    if is_given or asked == core.catalogue.defaults.get("output_format"):
        return request
    fields = list_fields(core.provider, request.operation, core.target)
    if fields is not None and "output_format" not in fields:
        return request
    changed = replace(request, output_format=asked)
    if model is None:
        return changed if core.target.host_class == "offline" and asked in OFFLINE_FORMATS else request
    return request if any(find_violations(changed, model, core.catalogue)) else changed


def open_save_plan(context: CallContext) -> Flow[SavePlan | None]:
    """Return the plan of ``save_to=`` after a check that its folder can be written to.

    From then on the image bytes of replies go to part files in that folder.
    """
    save_to = context.options.save_to
    if save_to is None:
        return None
    plan = save_to if has_type(save_to, SavePlan) else SavePlan.from_target(save_to)  # type: ignore[arg-type]
    members = {**sent_parameters(context.request), **(context.request.extra_body or {})}
    if plan.needs_check:
        check = partial(check_plan, plan, members.get("output_format"), members.get("n"))
        yield from run_blocking(check, before_sending=True)
    context.part_files_in(plan)
    context.plan = plan
    return plan


def deliver(context: CallContext, result: DispatchResult, plan: SavePlan | None) -> Flow[ImagesResponse]:
    """Save the images if a plan says so, tell the sinks, and end the reservations of all requests.

    Raises:
        SaveError: an image could not be saved; every reservation is kept.
    """
    response = warn_of_missing_images(result.response, count_requested_images(context.request))
    result = result._replace(response=response)
    is_local = not any(isinstance(image.source, UrlSource) for image in response.images)
    record = context.options.record
    if (
        record is None
        or context.core.resources.sinks
        or not is_local
        or not _delivery_may_block(record, result)
    ):
        return (yield from _deliver(context, result, plan))
    # A run has many calls: each takes one turn of a thread in place of several.
    flow = _deliver(context, result, plan)
    return (yield from run_blocking(partial(carry_out, flow), threads="records"))


def _deliver(context: CallContext, result: DispatchResult, plan: SavePlan | None) -> Flow[ImagesResponse]:
    response = result.response
    if plan is not None:
        try:
            count = context.images_of_call if any(part.job_keeper for part, _ in result.parts) else None
            response = yield from save_all(context, response, plan, count)
        except ImgkitError as error:
            for part, part_response in result.parts:
                yield from keep_reservations(part, error, part_response)
            raise
    response = yield from warn_of_other_formats(response, context.request, plan)
    if context.core.resources.sinks:
        response = yield from send_to_sinks(context, response)
    record = context.options.record
    if record is not None:
        try:
            mark = partial(_record_delivery, record, response, result)
            if _delivery_may_block(record, result):
                yield from run_blocking(mark, threads="records")
            else:
                mark()
        except ImgkitError as error:
            for part, part_response in result.parts:
                yield from keep_reservations(part, error, part_response)
            raise
    for part, part_response in result.parts:
        yield from settle_reservations(part, part_response)
        if part.reservations.problems:
            response = replace(response, warnings=(*response.warnings, *part.reservations.problems))
        if part.job_keeper is not None:
            yield from run_blocking(part.job_keeper.remove)
    return response


def _delivery_may_block(record: CallRecord, result: DispatchResult) -> bool:
    """Return whether a record, or a ledger, may block when it learns of a delivery."""
    return record.may_block or any(part.reservations.settle_may_block for part, _ in result.parts)


def _record_delivery(record: CallRecord, response: ImagesResponse, result: DispatchResult) -> None:
    """Let a record know the delivered images, then settle the reservations. May block."""
    sent = [(part.name_part(), len(each.images)) for part, each in result.parts]
    sent.sort(key=lambda pair: pair[0].first)  # the order of the images
    record.mark_delivered(response, sent)
    for part, part_response in result.parts:
        part.reservations.settle(part_response)


def send_to_sinks(context: CallContext, response: ImagesResponse) -> Flow[ImagesResponse]:
    """Hand the response to all sinks and return it with their warnings.

    Images that are still at a URL are fetched first. A failure becomes a warning.
    """
    images, warnings = [], []
    for image in response.images:
        try:
            image = yield from ensure_downloaded(context.core, image, context.deadline)
        except ImgkitError as error:
            warnings.append(f"Image {image.index} reached the sinks without its bytes. {error}")
        images.append(image)
    response = replace(response, images=tuple(images), warnings=(*response.warnings, *warnings))
    for sink in context.core.resources.sinks:
        new_warnings = yield from run_blocking(partial(_call_sink, sink, response))
        response = replace(response, warnings=(*response.warnings, *new_warnings))
    return response


def _call_sink(sink: Resource[Sink], response: ImagesResponse) -> tuple[str, ...]:
    """Call a sink and return its warnings. No failure leaves this function: the images may be paid for."""
    try:
        result: object = sink.thing.receive(response)
        if result is None:
            return ()
        texts = (result,) if isinstance(result, str) else tuple(cast("Iterable[object]", result))
        if isinstance(result, ImagesResponse) or not all(isinstance(text, str) for text in texts):
            raise TypeError(f"receive returned a {type(result).__name__} in place of texts")
        return tuple(scrub(str(text), limit=500) for text in texts)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a sink may run an event loop, whose CancelledError is no Exception
        return (f"{sink.origin} failed in its sink ({describe_error(error)}). The images are complete.",)
