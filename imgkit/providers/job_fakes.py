"""The base class of fakes whose APIs accept jobs."""

from __future__ import annotations

from typing import Any

from imgkit.providers.fakes import LOST, FakeApi, FakeReply, Paint, paint_plain


class FakeJob:
    """A job of a fake.

    Args:
        id: its id.
        values: the values of its submit.

    Attributes:
        id, values: as given.
        polls: number of polls so far.
    """

    def __init__(self, id: str, values: Any) -> None:
        self.id = id
        self.values = values
        self.polls = 0


class FakeJobApi(FakeApi):
    """A fake that keeps jobs and counts their polls. A subclass answers requests in `handle`.

    Attributes:
        jobs: the jobs by id.

    Example:
        ::

            class FakeAcme(FakeJobApi):
                def handle(self, request):
                    if request.method == "POST":
                        job = self.add_job(request.json())
                        return self.accept(json_reply(202, {"id": job.id}))
                    job = self.jobs.get(request.query.get("id", ""))
                    if job is None:
                        return json_reply(404, {"message": "no such task"})
                    if self.loses_poll(job):
                        return LOST
                    word = "done" if self.is_done(job) else "working"
                    return json_reply(200, {"state": word, "url": f"{request.root}/files/{job.id}"})
    """

    def __init__(self, scenario: str = "success", *, paint: Paint = paint_plain, polls: int = 2) -> None:
        super().__init__(scenario, paint=paint, polls=polls)
        self.jobs: dict[str, FakeJob] = {}

    def add_job(self, values: Any, id: str | None = None) -> FakeJob:
        """Keep a new job, and return it; its id counts the jobs if the client gave none."""
        job = FakeJob(id or f"job-{len(self.jobs) + 1}", values)
        self.jobs[job.id] = job
        return job

    def accept(self, reply: FakeReply) -> FakeReply:
        """Return the reply to a submit, which the scenario ``lost_submit`` loses."""
        return LOST if self.scenario == "lost_submit" else reply

    def loses_poll(self, job: FakeJob) -> bool:
        """Count a poll of a job; return whether the scenario ``lost_poll`` loses its reply."""
        job.polls += 1
        return self.scenario == "lost_poll" and job.polls == 1

    def count_ahead(self, job: FakeJob) -> int:
        """Return the polls until a job is at work: 0 at work, negative once it has ended."""
        return self.polls - job.polls

    def is_done(self, job: FakeJob) -> bool:
        """Return whether a job has ended."""
        return self.count_ahead(job) < 0
