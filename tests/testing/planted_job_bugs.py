"""Planted bugs of providers of jobs: fal's, bfl's or ComfyUI's provider with a single mistake about jobs.

The docstring of each class says why the mistake matters. `JobProviderContract` must find all of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, TypeVar

from imgkit import ImgkitError, JobFailedError, ModerationBlockedError, UnreadableReplyError
from imgkit.providers import (
    BytesBody,
    ComfyUIProvider,
    DecodedImage,
    DecodedImages,
    FakeReply,
    FakeRequest,
    HttpRequest,
    JobUpdate,
    json_reply,
)
from imgkit.providers.base_provider import BaseProvider
from imgkit.providers.bfl import BflProvider
from imgkit.providers.fal import FalProvider
from imgkit.providers.fal_fake import FakeFal
from imgkit.testing import png

ProviderT = TypeVar("ProviderT", bound=BaseProvider)


class PlantedJobBug(NamedTuple):
    """A provider with a bug, and the test of the contract that finds it.

    Attributes:
        provider: class of the provider.
        test: name of the test.
        message: pattern of its message.
    """

    provider: type[Any]
    test: str
    message: str


PLANTED_JOB_BUGS: list[PlantedJobBug] = []


def plant(test: str, message: str) -> Callable[[type[ProviderT]], type[ProviderT]]:
    """Add a provider to the planted bugs; see `PlantedJobBug`."""

    def add(provider: type[ProviderT]) -> type[ProviderT]:
        PLANTED_JOB_BUGS.append(PlantedJobBug(provider, test, message))
        return provider

    return add


def add_to_state(update: Any, **members: Any) -> Any:
    """Return an update with more members in its state; images unchanged."""
    return replace(update, state={**update.state, **members}) if isinstance(update, JobUpdate) else update


# --- Polls -----------------------------------------------------------------------------------


@plant("test_polls_ask_and_change_nothing", "by POST, as the submit is")
class SubmitsAgain(FalProvider):
    """Each poll makes another job, and is paid for."""

    def encode(self, *arguments: Any) -> HttpRequest:
        self.submitted = super().encode(*arguments)
        return self.submitted

    def decode(self, *arguments: Any) -> Any:
        return add_to_state(super().decode(*arguments), submit=self.submitted.url)

    def poll(self, job: Any, target: Any) -> HttpRequest:
        if len(job.state) > 5:
            return super().poll(job, target)
        return HttpRequest("POST", job.state["submit"], {}, BytesBody(b'{"prompt": ""}', "application/json"))

    def decode_poll(self, job: Any, *arguments: Any) -> Any:
        if len(job.state) > 5:
            return super().decode_poll(job, *arguments)
        return JobUpdate(state={**job.state, "again": 1})


class FakeForPosts(FakeFal):
    """The API in a version that answers a POST about a job like a GET."""

    def handle(self, request: FakeRequest) -> FakeReply:
        is_poll = "/requests/" in request.path
        return super().handle(request._replace(method="GET") if is_poll else request)


@plant("test_polls_ask_and_change_nothing", "A poll is a POST request")
class PollsByPost(FalProvider):
    """Some APIs take a POST to the address of a job as a change of the job."""

    fake = FakeForPosts

    def poll(self, job: Any, target: Any) -> HttpRequest:
        asked = super().poll(job, target)
        return replace(asked, method="POST") if not asked.url.endswith("/status") else asked


@plant("test_polls_ask_and_change_nothing", "A poll has a body of 18 bytes")
class PollsWithBody(FalProvider):
    """The body may change the job, and proxies drop a GET that has one."""

    def poll(self, job: Any, target: Any) -> HttpRequest:
        body = BytesBody(b'{"status":"READY"}', "application/json")
        return replace(super().poll(job, target), body=body)


@plant("test_polls_ask_and_change_nothing", "Two polls of the same job differ")
class PollsWithClock(FalProvider):
    """No cassette replays the poll."""

    def poll(self, job: Any, target: Any) -> HttpRequest:
        asked = super().poll(job, target)
        return replace(asked, url=f"{asked.url}?t={time.perf_counter_ns()}")


@plant("test_polls_stay_at_the_api", "A poll goes to https://queue.fal.run/.*imgkit sends no key")
class PollsOfficialHost(FalProvider):
    """Behind a relay, imgkit refuses to poll, and the images that were paid for are lost."""

    def poll(self, job: Any, target: Any) -> HttpRequest:
        asked = super().poll(job, target)
        return replace(asked, url=asked.url.replace(target.base_url, self.base_url))


@plant("test_poll_hosts", "poll_hosts has '\\*'")
class PollsAnywhere(FalProvider):
    """A reply that names a foreign host gets the key."""

    poll_hosts: ClassVar[tuple[str, ...]] = ("queue.fal.run", "*")


@plant("test_poll_hosts", "poll_hosts has '\\*\\.run'")
class PollsWholeDomain(FalProvider):
    """Anybody can register a name that fits, and gets the key."""

    poll_hosts: ClassVar[tuple[str, ...]] = ("*.run",)


# --- The state -------------------------------------------------------------------------------


@plant("test_jobs_hold_no_key", "The state of a job holds the key")
class KeepsKey(FalProvider):
    """The key is on the disk, in the record of each job."""

    def decode(self, *arguments: Any) -> Any:
        return add_to_state(super().decode(*arguments), key=os.environ["FAL_KEY"])


@plant("test_jobs_hold_no_key", "The key is in the query")
class PollsWithKey(FalProvider):
    """The key is in the logs of every proxy."""

    def poll(self, job: Any, target: Any) -> HttpRequest:
        asked = super().poll(job, target)
        return replace(asked, url=f"{asked.url}?sig={os.environ.get('FAL_KEY')}")


@plant("test_follows_jobs", "does not survive JSON: .*not JSON serializable")
class KeepsBytes(FalProvider):
    """The record cannot be written, and a job that is paid for is lost."""

    def decode(self, *arguments: Any) -> Any:
        return add_to_state(super().decode(*arguments), digest=b"\x00")


@plant("test_follows_jobs", "does not survive JSON: .* becomes ")
class KeepsTuple(FalProvider):
    """Another process sees another state than this one."""

    def decode(self, *arguments: Any) -> Any:
        return add_to_state(super().decode(*arguments), sizes=(1, 2))


@plant("test_follows_jobs", "The state of a job has 300.* bytes")
class KeepsImages(FalProvider):
    """Each record holds the inputs of its call."""

    def decode(self, *arguments: Any) -> Any:
        return add_to_state(super().decode(*arguments), image="A" * 300_000)


@plant("test_follows_jobs", "poll.. raises KeyError.*Another process must be able to poll")
class KeepsAddressToItself(FalProvider):
    """Only the process that submitted the job can collect it."""

    urls: Any = None

    def decode(self, *arguments: Any) -> Any:
        update: Any = super().decode(*arguments)
        self.urls = update.state
        return replace(update, state={"request_id": update.state["request_id"]})

    def poll(self, job: Any, target: Any) -> HttpRequest:
        return super().poll(job.advance(state=self.urls or job.state), target)


# --- The course ------------------------------------------------------------------------------


class FakeWithPreview(FakeFal):
    """The API in a version that shows unfinished images."""

    def handle(self, request: FakeRequest) -> FakeReply:
        reply = super().handle(request)
        if reply.status == 202 and b"IN_PROGRESS" in reply.body:
            image = {"url": f"{request.root}/files/preview.png"}
            return json_reply(202, {"status": "IN_PROGRESS", "preview": image})
        return reply


@plant("test_follows_jobs", "still at work at poll 3.*a preview is no result")
class TakesPreviewAsResult(FalProvider):
    """The caller gets a sketch, and the image that was paid for is lost."""

    fake = FakeWithPreview

    def decode_poll(self, job: Any, head: Any, body: Any, *arguments: Any) -> Any:
        if head.status == 202 and "preview" in body.json():
            return DecodedImages(pictures=(DecodedImage(data=png(1)),))
        return super().decode_poll(job, head, body, *arguments)


@plant("test_follows_jobs", "The job has made 2 images, and decode_poll.. returns 1")
class DropsSecondResult(FalProvider):
    """The caller pays for two images, and gets one."""

    def decode_poll(self, *arguments: Any) -> Any:
        result = super().decode_poll(*arguments)
        if isinstance(result, DecodedImages):
            return replace(result, pictures=result.pictures[:1])
        return result


@plant("test_follows_jobs", "after 20 polls decode_poll.. still says that it goes on")
class NeverAsksForResult(FalProvider):
    """A job that has ended is polled for ever."""

    def decode_poll(self, job: Any, *arguments: Any) -> Any:
        result = super().decode_poll(job, *arguments)
        return replace(result, state=job.state) if isinstance(result, JobUpdate) else result


@plant("test_follows_jobs", "The progress of a job is 50")
class CountsPercents(BflProvider):
    """The bar of the command is full at once."""

    def decode_poll(self, *arguments: Any) -> Any:
        result = super().decode_poll(*arguments)
        if isinstance(result, JobUpdate) and result.progress is not None:
            return replace(result, progress=round(100 * result.progress))
        return result


@plant("test_follows_jobs", "is to be fetched with the key, which no other host may get")
class FetchesResultsWithKey(FalProvider):
    """The host of the files gets the key."""

    def decode_poll(self, *arguments: Any) -> Any:
        result = super().decode_poll(*arguments)
        if isinstance(result, DecodedImages):
            url = "https://v3.fal.media/files/x.png"
            return replace(
                result, pictures=tuple(replace(p, url=url, with_key=True) for p in result.pictures)
            )
        return result


@plant("test_follows_jobs", "decode_poll.. changes the state of the job")
class ChangesJobs(FalProvider):
    """imgkit sees no change, and does not write the new state down."""

    def decode_poll(self, job: Any, *arguments: Any) -> Any:
        result = super().decode_poll(job, *arguments)
        if isinstance(result, JobUpdate):
            job.state.update(result.state, polls=job.state.get("polls", 0) + 1)
            return replace(result, state=job.state)
        return result


# --- Failures --------------------------------------------------------------------------------


@plant("test_refusals_end_jobs", "The job fails in the scenario 'refused'.*returns 1 images")
class SwallowsRefusals(FalProvider):
    """The caller gets an empty image, and does not learn why."""

    def decode_poll(self, *arguments: Any) -> Any:
        try:
            return super().decode_poll(*arguments)
        except ModerationBlockedError:
            return DecodedImages(pictures=(DecodedImage(data=png(1)),))


@plant("test_refusals_end_jobs", "after 20 polls decode_poll.. still says that it goes on")
class WaitsForRefused(BflProvider):
    """A refused job is polled until the deadline."""

    def decode_poll(self, job: Any, *arguments: Any) -> Any:
        try:
            return super().decode_poll(job, *arguments)
        except ModerationBlockedError:
            return JobUpdate(state=job.state)


@plant("test_refusals_end_jobs", "ends with JobFailedError. Use refused")
class NamesRefusalsFailures(BflProvider):
    """The caller tries the prompt again and again."""

    def decode_poll(self, *arguments: Any) -> Any:
        try:
            return super().decode_poll(*arguments)
        except ModerationBlockedError as error:
            raise JobFailedError(error.problem, status=200) from None


@plant("test_failures_end_jobs", "The job fails in the scenario 'invalid'.*returns 1 images")
class SwallowsFailures(FalProvider):
    """A failed job counts as a success."""

    def decode_poll(self, *arguments: Any) -> Any:
        try:
            return super().decode_poll(*arguments)
        except ImgkitError:
            return DecodedImages(pictures=(DecodedImage(data=png(1)),))


@plant("test_failures_end_jobs", "The API knows no such job .404., and decode_poll.. gives JobUpdate")
class WaitsForUnknownJobs(FalProvider):
    """A job that the API has forgotten is polled for ever."""

    def decode_poll(self, job: Any, head: Any, *arguments: Any) -> Any:
        if head.status == 404:
            return JobUpdate(state=job.state)
        return super().decode_poll(job, head, *arguments)


@plant("test_unknown_words", "An unknown word for the state ends the job: decode_poll.. gives JobFailedError")
class EndsAtUnknownWords(FalProvider):
    """The next version of the API loses every job."""

    def decode_poll(self, job: Any, head: Any, body: Any, *arguments: Any) -> Any:
        value = body.json() if head.status < 300 else {}
        known = ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")
        if isinstance(value, dict) and value.get("status", known[0]) not in known:
            raise JobFailedError("The job has an unknown state.", status=200)
        return super().decode_poll(job, head, body, *arguments)


@plant("test_odd_polls", "raises JsonSyntaxError")
class TrustsProxies(FalProvider):
    """A proxy's page ends the call with a traceback."""

    def decode_poll(self, job: Any, head: Any, body: Any, *arguments: Any) -> Any:
        body.json()
        return super().decode_poll(job, head, body, *arguments)


@plant("test_odd_polls", "decode_poll.. gives JobFailedError .*which ends the job")
class EndsAtOddReplies(FalProvider):
    """A single bad reply loses a job that is paid for."""

    def decode_poll(self, *arguments: Any) -> Any:
        try:
            return super().decode_poll(*arguments)
        except UnreadableReplyError as error:
            raise JobFailedError(error.problem, status=200) from None


@plant("test_odd_polls", "For HTTP 401, decode_poll.. gives JobFailedError")
class EndsAtWrongKeys(FalProvider):
    """A job that another key could collect is forgotten."""

    def decode_poll(self, job: Any, head: Any, *arguments: Any) -> Any:
        if head.status == 401:
            raise JobFailedError("The job cannot be read.", status=401)
        return super().decode_poll(job, head, *arguments)


@plant("test_polls_hide_keys", "repeats the key")
class ForgetsSecrets(FalProvider):
    """The key stands in the log of the app."""

    def decode_poll(self, job: Any, head: Any, body: Any, target: Any, secrets: Any = ()) -> Any:
        return super().decode_poll(job, head, body, target)


# --- Cancellation and lost submits -----------------------------------------------------------


@plant("test_cancels_jobs", "decode_cancel.. returns True for HTTP 400.*had ended: its images are paid for")
class ForgetsEndedJobs(FalProvider):
    """A cancellation that comes too late loses the images that are paid for."""

    def decode_cancel(self, *arguments: Any) -> bool:
        super().decode_cancel(*arguments)
        return True


@plant("test_cancels_jobs", "A GET cancels no job")
class CancelsByGet(FalProvider):
    """The job goes on, and is paid for."""

    def cancel_job(self, job: Any, target: Any) -> HttpRequest | None:
        return HttpRequest("GET", job.state["cancel_url"])


@plant("test_finds_lost_jobs", "Two calls have the same handle")
class SharesHandles(FalProvider):
    """A call collects the images of another."""

    def submit_handle(self, request: Any, call_id: str, target: Any) -> Any:
        return {"request_id": "job"}


@plant("test_finds_lost_jobs", "find_lost.. does not use it")
class ForgetsHandles(FalProvider):
    """A submit whose reply was lost stays unknown, although the API could tell."""

    def submit_handle(self, request: Any, call_id: str, target: Any) -> Any:
        return {"request_id": call_id}


# --- Inherited tests, which reach the methods of jobs too ------------------------------------


@plant("test_does_no_io", "poll.. does I/O")
class SleepsBeforePolls(FalProvider):
    """All other calls of the event loop stop."""

    def poll(self, job: Any, target: Any) -> HttpRequest:
        time.sleep(0.001)
        return super().poll(job, target)


# --- Uploads, handles and downloads, which ComfyUI has -----------------------------------------


@plant("test_encodes_requests", "asks for 'image' again")
class UploadsAgain(ComfyUIProvider):
    """The first image is uploaded until the call fails."""

    def next_upload(self, request: Any, inputs: Any, done: Any, target: Any) -> Any:
        return super().next_upload(request, inputs, {}, target)


@plant("test_encodes_requests", "An upload goes to https://files.acme.example/upload/image")
class UploadsElsewhere(ComfyUIProvider):
    """The key and the user's image go to another host."""

    def next_upload(self, request: Any, inputs: Any, done: Any, target: Any) -> Any:
        elsewhere = replace(target, base_url="https://files.acme.example")
        return super().next_upload(request, inputs, done, elsewhere)


@plant("test_encodes_requests", "The handle of an upload does not survive JSON")
class KeepsTuples(ComfyUIProvider):
    """A handle changes its type on the way through the record of a job."""

    def decode_upload(self, *arguments: Any) -> Any:
        return {**super().decode_upload(*arguments), "pair": (1, 2)}


@plant("test_finds_lost_jobs", "add_handle.. returns a request without the handle")
class SubmitsWithoutHandles(ComfyUIProvider):
    """The API gives the job another id, and a lost submit is never found."""

    def add_handle(self, request: HttpRequest, handle: Any) -> HttpRequest:
        return request


@plant("test_finds_lost_jobs", "The API has no such job, and the search for it gives JobUpdate")
class FindsMissingJobs(ComfyUIProvider):
    """A submit that never arrived is waited for until the deadline."""

    def decode_poll(self, *arguments: Any) -> Any:
        try:
            return super().decode_poll(*arguments)
        except JobFailedError:
            return JobUpdate(state=arguments[0].state)


@plant("test_finds_lost_jobs", "its reply was lost, and the search for it gives JobFailedError")
class SearchesTheHistoryAlone(ComfyUIProvider):
    """A job that waits in the queue counts as lost, and is bought again."""

    def find_lost(self, job: Any, target: Any) -> HttpRequest:
        return HttpRequest("GET", f"{target.base_url}/history/{job.state['prompt_id']}")

    def decode_poll(self, job: Any, *arguments: Any) -> Any:
        return super().decode_poll(job.advance(state={**job.state, "step": "history"}), *arguments)


@plant("test_follows_jobs", "The API serves no image at .*HTTP 404")
class NamesWrongFiles(ComfyUIProvider):
    """The images are made, and nobody can fetch them."""

    def decode_poll(self, *arguments: Any) -> Any:
        result = super().decode_poll(*arguments)
        if isinstance(result, JobUpdate):
            return result
        images = (replace(each, url=str(each.url).replace("/view", "/file")) for each in result.pictures)
        return replace(result, pictures=tuple(images))


@plant("test_cancels_jobs", "decode_cancel.. returns False for HTTP 200.*was at work")
class StopsAtTheQueue(ComfyUIProvider):
    """A cancellation asks for the place in the queue, and does no more."""

    def decode_cancel(self, *arguments: Any) -> Any:
        return super().decode_cancel(*arguments) is True
