"""Scripted jobs: an application tests each end of a job without network, key, cost and waiting."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from imgkit import (
    AsyncImageService,
    ConfigurationError,
    ImageService,
    JobFailedError,
    JobPendingError,
    ModerationBlockedError,
    OutcomeUnknownError,
    PartialImage,
)
from imgkit.errors import ImgkitError
from imgkit.plugins import hookimpl
from imgkit.plugins.events import JobProgress
from imgkit.testing import JobNews, JobScript, ScriptedJobs, png
from tests.conftest import ServiceRunner


def catch(flavor: ServiceRunner, jobs: ScriptedJobs, kind: type[ImgkitError], **fields: Any) -> Any:
    """Return the error of a call."""
    with pytest.raises(kind) as caught:
        flavor.run(lambda service: service.create_image("a red fox", **fields), **jobs.settings())
    return caught.value


def resume(flavor: ServiceRunner, jobs: ScriptedJobs, source: Any, **fields: Any) -> Any:
    """Return the response of another service that resumes a job."""
    return flavor.run(lambda service: service.resume(source, **fields), **jobs.settings())


def test_a_late_job_is_pending_until_the_clock_moves(flavor: ServiceRunner) -> None:
    """Leaves a job of 90 s pending after 60 s, at once; delivers it when its time has come."""
    jobs, began = ScriptedJobs(after_s=90), time.monotonic()
    error = catch(flavor, jobs, JobPendingError, timeout_s=60)
    assert [job.provider for job in error.jobs] == ["scripted"]
    jobs.clock.advance(30)
    with pytest.raises(JobPendingError):
        resume(flavor, jobs, error, timeout_s=59)
    jobs.clock.advance(60)
    assert jobs.clock.now_s == 90
    assert resume(flavor, jobs, error, timeout_s=1)[0].width == 512
    assert len(jobs.submits) == 1
    assert time.monotonic() - began < 30  # no call has slept


def test_a_call_with_enough_time_gets_its_images(flavor: ServiceRunner) -> None:
    """Delivers a job of 900 s to a call that may take longer, without a pause."""
    jobs = ScriptedJobs(after_s=900)
    work = flavor.run(
        lambda service: service.create_image("a red fox", size="64x64", timeout_s=1000), **jobs.settings()
    )
    assert work[0].width == 64
    assert jobs.clock.now_s == 0


def test_news_and_previews_arrive_in_order(flavor: ServiceRunner) -> None:
    """Tells the news of the script to observers, and its previews to a stream."""
    seen: list[JobProgress] = []

    class Watch:
        @hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            if isinstance(event, JobProgress):
                seen.append(event)

    news = [JobNews(40, "painting", 0.5, preview=True), JobNews(5, "2 jobs ahead")]
    jobs = ScriptedJobs(after_s=90, news=news)

    def work(service: Any) -> Any:
        if isinstance(service, ImageService):
            with service.stream_image("a red fox", partial_images=1) as stream:
                return list(stream)

        async def collect() -> Any:
            async with service.stream_image("a red fox", partial_images=1) as stream:
                return [event async for event in stream]

        return collect()

    events = flavor.run(work, **jobs.settings(plugins=[Watch()]))
    assert isinstance(events[0], PartialImage)
    assert len(events) == 2
    told = [(event.note, event.progress, event.wait_s) for event in seen]
    assert told == [("", None, 5), ("2 jobs ahead", None, 35), ("painting", 0.5, 50)]


@pytest.mark.parametrize("billed", [False, True])
@pytest.mark.parametrize(("end", "kind"), [("refused", ModerationBlockedError), ("failed", JobFailedError)])
def test_a_script_ends_a_job(flavor: ServiceRunner, end: Any, kind: type[ImgkitError], billed: bool) -> None:
    """Raises the error of the end, which tells whether it costs."""
    jobs = ScriptedJobs(after_s=5, end=end, billed=billed)
    assert catch(flavor, jobs, kind).maybe_billed is billed


def test_images_expire_by_the_clock(flavor: ServiceRunner) -> None:
    """Delivers images before their expiry, and afterwards names a billed job without images."""
    jobs = ScriptedJobs(after_s=90, expires_after_s=600)
    error = catch(flavor, jobs, JobPendingError, timeout_s=60)
    assert error.jobs[0].expires_at > time.time() + 600
    jobs.clock.advance(600)
    assert len(resume(flavor, jobs, error)) == 1
    jobs.clock.advance(100)
    with pytest.raises(JobFailedError, match="has expired") as caught:
        resume(flavor, jobs, error)
    assert caught.value.maybe_billed
    assert catch(flavor, ScriptedJobs(end="expired"), JobFailedError).code == "expired"


def test_some_jobs_of_a_call_are_late(flavor: ServiceRunner) -> None:
    """Returns the images that are there; resuming the response adds the late one in its place."""
    jobs = ScriptedJobs([JobScript(after_s=10), JobScript(after_s=300), JobScript(after_s=59)])
    response = flavor.run(
        lambda service: service.create_image("a red fox", n=3, timeout_s=60), **jobs.settings()
    )
    assert [image.index for image in response] == [0, 2]
    (late,) = response.errors
    assert isinstance(late, JobPendingError)
    jobs.clock.advance(300)
    whole = resume(flavor, jobs, response)
    assert [image.index for image in whole] == [0, 1, 2]
    assert len({image.sha256 for image in whole}) == 3
    assert len(jobs.submits) == 3


def test_a_lost_submit_is_found(flavor: ServiceRunner) -> None:
    """Finds a job whose reply was lost; a request that was lost itself stays unknown."""
    jobs = ScriptedJobs(submit="reply_lost", after_s=20)
    response = flavor.run(lambda service: service.create_image("a red fox"), **jobs.settings())
    assert len(response) == 1
    assert len(jobs.submits) == 1
    jobs.scripts = [JobScript(submit="lost")]
    error = catch(flavor, jobs, OutcomeUnknownError)
    assert any("does not know the job" in note for note in error.__notes__)
    assert len(jobs.submits) == 1


def test_a_lost_submit_is_pending_too(flavor: ServiceRunner) -> None:
    """Leaves a late job pending although the reply to its submit was lost."""
    jobs = ScriptedJobs(submit="reply_lost", after_s=90)
    error = catch(flavor, jobs, JobPendingError, timeout_s=60)
    jobs.clock.advance(90)
    assert len(resume(flavor, jobs, error)) == 1


def test_jobs_are_cancelled(flavor: ServiceRunner) -> None:
    """Cancels a job that is at work; a job that has ended is collected."""
    jobs = ScriptedJobs(after_s=90)
    error = catch(flavor, jobs, JobPendingError, timeout_s=60)
    (job,) = error.jobs
    assert flavor.run(lambda service: service.cancel_job(job), **jobs.settings()) is None
    with pytest.raises(JobFailedError, match="cancelled"):
        resume(flavor, jobs, error)
    error = catch(flavor, jobs, JobPendingError, timeout_s=60)
    jobs.clock.advance(90)
    late = flavor.run(lambda service: service.cancel_job(error.jobs[0]), **jobs.settings())
    assert len(late) == 1


def test_edits_and_variations_submit_their_inputs(flavor: ServiceRunner) -> None:
    """Submits the digests of input images, so a test can compare them."""
    jobs = ScriptedJobs(after_s=1)
    image = png(1, 64)
    flavor.run(lambda service: service.create_image_edit(image, "a hat"), **jobs.settings())
    flavor.run(lambda service: service.create_image_variation(image), **jobs.settings())
    assert [body["operation"] for body in jobs.submits] == ["create_image_edit", "create_image_variation"]
    assert len({str(body["inputs"]) for body in jobs.submits}) == 1


def test_calls_at_the_same_time_keep_their_own_time() -> None:
    """Gives each of several concurrent calls its own pauses: none makes another late or early."""
    jobs, ends = ScriptedJobs(after_s=90), []

    def call(service: ImageService, timeout_s: float) -> None:
        try:
            ends.append(len(service.create_image(f"a fox within {timeout_s}", timeout_s=timeout_s)))
        except JobPendingError:
            ends.append(-1)

    with ImageService(**jobs.settings()) as service:
        threads = [threading.Thread(target=call, args=(service, each)) for each in (60, 100, 60, 100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(ends) == [-1, -1, 1, 1]

    async def main() -> list[object]:
        async with AsyncImageService(**jobs.settings()) as images:
            calls = (images.create_image(f"fox {each}", timeout_s=each) for each in (60, 100))
            return await asyncio.gather(*calls, return_exceptions=True)

    late, done = asyncio.run(main())
    assert isinstance(late, JobPendingError)
    assert not isinstance(done, BaseException)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"after_s": -1}, "after_s"),
        ({"after_s": "soon"}, "after_s"),
        ({"after_s": float("inf")}, "after_s"),
        ({"end": "lost"}, "end"),
        ({"submit": "twice"}, "submit"),
        ({"news": ["half"]}, "news"),
        ({"news": 5}, "news"),
        ({"news": [JobNews(-1)]}, "news.at_s"),
        ({"news": [JobNews(1, progress=50)]}, "news.progress"),
        ({"expires_after_s": -1}, "expires_after_s"),
        ({"after": 1}, "after"),
        ({"scripts": []}, "scripts"),
        ({"scripts": 5}, "scripts"),
        ({"scripts": [JobScript()], "after_s": 1}, "after_s"),
    ],
)
def test_impossible_scripts_are_refused(values: dict[str, Any], field: str) -> None:
    """Names the value of a script that cannot be."""
    with pytest.raises(ConfigurationError) as caught:
        ScriptedJobs(**values)
    assert caught.value.field == field


def test_the_clock_does_not_run_back() -> None:
    """Refuses a step back, and a step that is no number."""
    clock = ScriptedJobs().clock
    for step in (-1, "later", float("nan")):
        with pytest.raises(ConfigurationError, match="from 0 on"):
            clock.advance(step)  # type: ignore[arg-type]
    assert clock.now_s == 0
