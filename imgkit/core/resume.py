"""Resume: collect the images of pending jobs, in this process or in another; cancel a job."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from imgkit.billing.reservations import ReservationGroup
from imgkit.cache.flights import join_flight
from imgkit.catalogue.pricing import sum_costs
from imgkit.core.cache_entries import is_whole, to_entry
from imgkit.core.cache_lease import CacheLease
from imgkit.core.config import check_seconds
from imgkit.core.context import CallContext, CallOptions, CallRecord, FetchedImages, SaveTo, start_call
from imgkit.core.core import Core
from imgkit.core.job_joining import follow_claimed_job
from imgkit.core.job_keeper import JobKeeper, check_job, merge_pending, open_job_store, restore_plan
from imgkit.core.job_requests import ask_to_cancel
from imgkit.core.lifecycle import call_events, deliver
from imgkit.core.part_gate import PartGate
from imgkit.core.pipeline import DispatchResult, is_final, most_serious_error
from imgkit.core.provider_calls import call_for_job
from imgkit.core.responses import build_response, sum_usage, warn_of_missing_images
from imgkit.core.send import mark_ended
from imgkit.errors import (
    ConfigurationError,
    ImgkitError,
    InvalidRequestError,
    JobPendingError,
)
from imgkit.images.inputs import OpenedInputs
from imgkit.images.saving import SavePlan
from imgkit.jobs.job import Job
from imgkit.jobs.store import StoredJob
from imgkit.models import (
    CreateImageEditRequest,
    CreateImageRequest,
    CreateImageVariationRequest,
    ImageRequest,
    ImagesResponse,
)
from imgkit.plugins.protocols import Lease
from imgkit.providers.job_base import JobProvider
from imgkit.runtime.flow import Finished, Flow, run_blocking, run_parallel
from imgkit.wire.urls import origin

MAX_PARALLEL_JOBS = 8
"""Jobs that one `resume` polls at the same time."""


class _Part(NamedTuple):
    """A job that is being collected."""

    job: Job
    context: CallContext


def list_jobs(core: Core) -> Flow[tuple[Job, ...]]:
    """Return the pending jobs of a service's provider and host in its state folder, the soonest expiry first.

    Raises:
        ConfigurationError: as `read_records`.
    """
    records = yield from run_blocking(partial(read_records, core))
    return tuple(
        each.job
        for each in records
        if each.job is not None
        and each.job.provider == core.provider_name
        and origin(each.job.base_url) == origin(core.target.base_url)
    )


def read_records(core: Core) -> list[StoredJob]:
    """Return all records in the state folder of a service, the soonest expiry first. May block.

    Raises:
        ConfigurationError: the service has no state folder, or the folder cannot be read.
    """
    store = open_job_store(core)
    if store is None:
        if core.target.host_class == "offline":
            raise ConfigurationError("Jobs of the offline backend stay in memory, so there are none on disk.")
        raise ConfigurationError(
            "This service keeps no jobs on disk. Give it a state_folder=…, or set IMGKIT_HOME.",
            field="state_folder",
        )
    try:
        return store.list_jobs()
    except OSError as error:
        raise ConfigurationError(f"Cannot read {str(store.folder)!r} ({error.strerror or error}).") from None


def find_jobs(source: object) -> list[Job]:
    """Return the jobs that a job, an error, a response or a list of them names.

    Raises:
        InvalidRequestError: the source names no job.
    """
    found = list({job.id: job for job in _iterate_jobs(source)}.values())
    if not found:
        problem = (
            f"A {type(source).__name__} names no pending job. Give a Job, a JobPendingError, or a response "
            "whose errors have one."
        )
        raise InvalidRequestError({"job": problem})
    return found


def _iterate_jobs(source: object) -> Iterable[Job]:
    if isinstance(source, Job):
        yield source
    elif isinstance(source, ImagesResponse):
        for error in source.errors:
            yield from _iterate_jobs(error)
    elif isinstance(source, ImgkitError):
        yield from (job for job in getattr(source, "jobs", ()) if isinstance(job, Job))
    elif isinstance(source, list | tuple):
        for each in source:
            yield from _iterate_jobs(each)


def resume_jobs(
    core: Core,
    source: object,
    save_to: SaveTo = None,
    timeout_s: float | None = None,
    record: CallRecord | None = None,
) -> Flow[ImagesResponse]:
    """Poll pending jobs until their images are there, and deliver them as their call would have.

    Args:
        core: parts of the service.
        source: a job, an error or a response that names jobs, or a list of them.
        save_to: where to save the images, None for the place that the call named.
        timeout_s: seconds that this may take, None for the service's limit.
        record: a record of the call outside of it, None for none.

    Raises:
        InvalidRequestError: the source names no job, or a job of another provider or host.
        ImgkitError: as `imgkit.core.job_polling.follow_job`.
    """
    jobs, provider = _check_source(core, source)
    plan = _choose_plan(jobs[0], save_to)
    options = CallOptions(timeout_s=_check_timeout(timeout_s), record=record)
    context = start_call(core, rebuild_request(jobs), options)
    with call_events(context):
        if plan is not None:
            yield from run_blocking(plan.check, before_sending=True)
        context.images_of_call = max(job.images_of_call for job in jobs)
        parts = [_Part(job, context.add_part(job.part, PartGate(), job.first_index)) for job in jobs]
        flows = tuple(_collect(part, provider) for part in parts)
        if len(flows) == 1:
            responses, errors = [(yield from flows[0])], {}
        else:
            ends = yield from run_parallel(flows, MAX_PARALLEL_JOBS)
            responses = [end.value for end in ends if isinstance(end, Finished)]
            errors = {n: end.error for n, end in enumerate(ends) if not isinstance(end, Finished)}
        done = [part for number, part in enumerate(parts) if number not in errors]
        if not done:
            pending = [error for error in errors.values() if isinstance(error, JobPendingError)]
            raise merge_pending(pending) if pending else most_serious_error(list(errors.values()))
        merged = _merge(responses, list(errors.values()))
        result = DispatchResult(
            merged, tuple((part.context, each) for part, each in zip(done, responses, strict=True))
        )
        response = yield from deliver(context, result, plan)
        if isinstance(source, ImagesResponse):
            response = _add_to(source, response, context.images_of_call)
        context.response = response
    return response


def cancel_job(core: Core, source: object, timeout_s: float | None = None) -> Flow[ImagesResponse | None]:
    """Cancel the job that a source names; collect its images if it is too late.

    Returns:
        The images, None for a job that the provider has cancelled.

    Raises:
        InvalidRequestError: the source names several jobs, the provider cancels no jobs, or the job is of
            another provider.
        ImgkitError: the request failed; the job goes on.
    """
    jobs, provider = _check_source(core, source)
    if len(jobs) > 1:
        raise InvalidRequestError({"job": f"{len(jobs)} jobs are given. Cancel them one by one."})
    job = jobs[0]
    request = call_for_job(core, "cancel_job", partial(provider.cancel_job, job, core.target))
    if request is None:
        problem = f"Provider {core.provider_name} cannot cancel jobs."
        raise InvalidRequestError({"job": problem}, {"job": "Collect it with service.resume(job)."})
    context = start_call(core, rebuild_request([job]), CallOptions(timeout_s=_check_timeout(timeout_s)))
    with context.cleanup:
        keeper = JobKeeper.for_service(core)
        context.cleanup.callback(keeper.release)
        yield from run_blocking(partial(keeper.claim, job), before_sending=True)
        is_cancelled = yield from ask_to_cancel(context, provider, job, request)
        if is_cancelled:
            group = yield from run_blocking(partial(ReservationGroup.adopt, core.resources.ledgers, job.id))
            yield from run_blocking(partial(group.settle, None))
            yield from run_blocking(keeper.remove)
            return None
    return (yield from resume_jobs(core, job, timeout_s=timeout_s))


def _check_source(core: Core, source: object) -> tuple[list[Job], JobProvider]:
    """Return the jobs that a source names, the soonest expiry first, and their provider."""
    jobs = sorted(find_jobs(source), key=lambda job: job.expires_at or float("inf"))
    provider = core.provider
    for job in jobs:
        check_job(core, job)
    if not isinstance(provider, JobProvider):
        raise InvalidRequestError({"job": f"Provider {core.provider_name} has no jobs."})
    return jobs, provider


def _check_timeout(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else check_seconds("timeout_s", timeout_s)


def _choose_plan(job: Job, save_to: SaveTo) -> SavePlan | None:
    if save_to is None:
        return restore_plan(job.save_to)
    return save_to if isinstance(save_to, SavePlan) else SavePlan.from_target(save_to)


def rebuild_request(jobs: list[Job]) -> ImageRequest:
    """Return a request with the prompt, model and count of some jobs of a call. It has no input images."""
    job, facts = jobs[0], jobs[0].facts
    prompt, model = facts.get("prompt"), facts.get("model")
    model = model if isinstance(model, str) else None
    count = sum(each.images for each in jobs)
    n = count if count != 1 else None
    if job.operation == "create_image_variation":
        return CreateImageVariationRequest(image=b"", model=model, n=n)
    prompt = prompt if isinstance(prompt, str) else ""
    if job.operation == "create_image_edit":
        return CreateImageEditRequest(image=(), prompt=prompt, model=model, n=n)
    return CreateImageRequest(prompt=prompt, model=model, n=n)


def _collect(part: _Part, provider: JobProvider) -> Flow[ImagesResponse]:
    """Follow one job to its images."""
    context, job = part.context, part.job
    core, started = context.core, time.monotonic()
    with context.cleanup:
        keeper = context.job_keeper = JobKeeper.for_service(core)
        context.cleanup.callback(keeper.release)
        context.request, context.facts = rebuild_request([job]), job.facts
        yield from run_blocking(partial(keeper.claim, job), before_sending=True)
        try:
            fetched = yield from follow_claimed_job(context, provider, keeper, job)
        except ImgkitError as error:
            if is_final(error):
                yield from mark_ended(context)
            raise
        yield from _fill_cache(context, job, fetched)
        response = build_response(context, context.request, OpenedInputs(), fetched, started)
        images = tuple(
            replace(image, index=job.first_index + number) for number, image in enumerate(response.images)
        )
        return replace(response, images=images)


def _fill_cache(context: CallContext, job: Job, fetched: FetchedImages) -> Flow[None]:
    """Store the images of a job in the cache that its call would have filled."""
    cache, key = context.core.resources.cache, job.cache_key
    decoded = fetched.decoded
    if cache is None or key is None or not is_whole(decoded):
        return
    entry = to_entry(context.request, context.core.target.model, fetched.head, decoded, time.time())
    flight = join_flight(cache.thing, key)
    context.cleanup.callback(flight.leave)

    def store() -> None:
        answer = cache.thing.try_lease(key)
        if isinstance(answer, Lease):
            if flight.lead():
                CacheLease(context, cache, answer, flight).commit(entry)
            else:
                answer.close()

    yield from run_blocking(store)


def _merge(responses: list[ImagesResponse], errors: list[ImgkitError]) -> ImagesResponse:
    """Return one response for the jobs of a call."""
    images = sorted((image for each in responses for image in each.images), key=lambda image: image.index)
    warnings = dict.fromkeys(warning for each in responses for warning in each.warnings)
    warnings.update(dict.fromkeys(f"{type(error).__name__}: {error}" for error in errors))
    return replace(
        responses[0],
        images=tuple(images),
        usage=sum_usage(each.usage for each in responses),
        cost=sum_costs(each.cost for each in responses),
        warnings=tuple(warnings),
        errors=tuple(errors),
    )


def _add_to(earlier: ImagesResponse, later: ImagesResponse, requested: int) -> ImagesResponse:
    """Return the response of a call with the images that were pending when it returned."""
    still_missing = [error for error in earlier.errors if not isinstance(error, JobPendingError)]
    outdated = f"{JobPendingError.__name__}: "
    old_count = warn_of_missing_images(replace(earlier, warnings=()), requested).warnings
    warnings = [text for text in earlier.warnings if outdated not in text and text not in old_count]
    whole = replace(
        _merge([earlier, later], []),
        errors=(*still_missing, *later.errors),
        warnings=(*warnings, *later.warnings),
    )
    return warn_of_missing_images(whole, requested)
