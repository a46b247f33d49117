"""Joining: follow a job that another call or process has left, in place of a new submit."""

from __future__ import annotations

import time
from functools import partial

from imgkit.billing.reservations import ReservationGroup
from imgkit.core.context import CallContext, FetchedImages
from imgkit.core.free_requests import FailedRequest
from imgkit.core.job_keeper import JobKeeper, open_job_store
from imgkit.core.job_polling import accept_job, deliver_job, follow_job
from imgkit.core.repeats import find_submit, name_key
from imgkit.errors import NotSentError, OutcomeUnknownError
from imgkit.jobs.job import Job
from imgkit.providers.job_base import JobProvider
from imgkit.providers.job_values import JobUpdate
from imgkit.runtime.flow import Flow, run_blocking, sleep

WAIT_S = 0.25
"""Seconds between two looks at a job that another process follows."""


def follow_claimed_job(
    context: CallContext, provider: JobProvider, keeper: JobKeeper, job: Job
) -> Flow[FetchedImages]:
    """Follow a job that this process has taken over, with the reservations that it carries.

    Raises:
        OutcomeUnknownError: the reply to its submit was lost, and the API does not know it.
        ImgkitError: as `follow_job`.
    """
    ledgers = context.core.resources.ledgers
    context.reservations = yield from run_blocking(partial(ReservationGroup.adopt, ledgers, job.id))
    update = JobUpdate(state=job.state, poll_after_s=0)
    if job.phase == "sending":
        found = yield from find_submit(context, provider, job)
        if isinstance(found, FailedRequest):
            error = OutcomeUnknownError(f"Whether job {job.id} runs is not known. {found.problem}")
            name_key(error, job)
            raise error
        if not isinstance(found, JobUpdate):
            return (yield from deliver_job(context, keeper, *found))
        update = found
        yield from run_blocking(partial(keeper.save, accept_job(job, update)))
    return (yield from follow_job(context, provider, keeper, update))


def claim_job_of_entry(context: CallContext, key: str) -> Flow[JobKeeper | None]:
    """Take over the pending job that fills a cache entry, after another process has left it.

    Returns:
        The keeper of the job, None if there is none.

    Raises:
        NotSentError: another process still followed the job at the deadline.
    """
    store = open_job_store(context.core)
    if store is None:
        return None
    while True:
        stored = yield from run_blocking(partial(store.find_by_cache_key, key), before_sending=True)
        if stored is None or stored.job is None:
            return None
        keeper = JobKeeper(store)
        context.cleanup.callback(keeper.release)
        if not stored.is_running and (yield from run_blocking(partial(keeper.try_claim, stored.job))):
            return keeper
        if time.monotonic() + WAIT_S >= context.deadline:
            raise NotSentError(
                f"Another process still follows job {stored.id} of an identical call. This call sent "
                "nothing. Call again later."
            )
        yield from sleep(WAIT_S)


def join_job(context: CallContext, provider: JobProvider, keeper: JobKeeper) -> Flow[FetchedImages]:
    """Follow the pending job of an earlier identical call to its images."""
    context.job_keeper = keeper
    return (yield from follow_claimed_job(context, provider, keeper, keeper.current))
