"""Finding what an earlier process has left of a request: its kept reply, or its jobs."""

from __future__ import annotations

from typing import NamedTuple

from imgkit.billing.spool_record import SpooledReply
from imgkit.core.core import Core
from imgkit.core.job_keeper import open_job_store
from imgkit.core.recovery import drop_record, find_lost_reply, recover
from imgkit.images.image import Image
from imgkit.jobs.job import Job
from imgkit.models import Cost, ImagesResponse, Meta
from imgkit.wire.json_values import JsonMapping


class Kept(NamedTuple):
    """A reply that the spool has kept.

    Attributes:
        record: the record in the spool; None for jobs with records of their own.
        images: its images.
        jobs: the jobs that it accepts in place of images.
    """

    record: SpooledReply | None
    images: tuple[Image, ...] = ()
    jobs: tuple[Job, ...] = ()

    def to_response(self, images: tuple[Image, ...]) -> ImagesResponse:
        """Return the response that the call would have returned, as far as the record tells."""
        facts: JsonMapping = {} if self.record is None else self.record.facts
        meta = Meta(
            operation=facts.get("operation", "create_image"),
            call_id=str(facts.get("call_id", "")),
            backend=str(facts.get("backend", "")),
            provider=str(facts.get("provider", "")),
            model=facts.get("model"),
        )
        return ImagesResponse(images=images, meta=meta, cost=Cost(note="the call was interrupted"))

    def forget(self) -> None:
        """Remove the record: its images are elsewhere."""
        if self.record is not None:
            drop_record(self.record)


def find_kept(core: Core, info: JsonMapping) -> Kept | None:
    """Return what is kept of the attempt that a row names, None for nothing that is whole. May block."""
    call_id = str(info.get("call_id", ""))
    jobs = find_pending_jobs(core, info)
    if jobs:
        return Kept(None, jobs=tuple(jobs))
    lost = find_lost_reply(core.resources.ledgers, f"{call_id}-{info.get('attempt', 1)}")
    if lost.record is None or lost.record.state == "running":
        return None
    found = recover(lost.record)
    if found.job is not None:
        store = open_job_store(core)
        if store is not None:
            store.save(found.job)
            drop_record(lost.record)
            return Kept(None, jobs=(found.job,))
    return Kept(lost.record, found.images) if found.whole else None


def find_pending_jobs(core: Core, info: JsonMapping) -> list[Job]:
    """Return the jobs in the state folder that the call of a row has left. May block."""
    store = open_job_store(core)
    call_id = info.get("call_id")
    if store is None or not call_id:
        return []
    return [each.job for each in store.list_jobs() if each.job is not None and each.job.call_id == call_id]
