"""The contract of a provider whose API accepts jobs (`imgkit.providers.JobProvider`)."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from imgkit.errors import (
    AuthenticationError,
    ImgkitError,
    ModerationBlockedError,
    PermissionDeniedError,
    UnreadableReplyError,
)
from imgkit.images.sniff import sniff
from imgkit.providers.fakes import FakeReply
from imgkit.providers.job_values import JobUpdate
from imgkit.testing import canary
from imgkit.testing.job_contract_steps import JobContractSteps
from imgkit.testing.job_course import JobCourse, assert_news, show_outcome
from imgkit.testing.provider_replies import ECHOES
from imgkit.testing.provider_requests import RELAY
from imgkit.testing.provider_samples import POLLS_AT_WORK, change
from imgkit.testing.request_checks import assert_no_key, join_wire
from imgkit.testing.upload_course import split_request
from imgkit.wire.json_values import is_data_url
from imgkit.wire.messages import HttpRequest
from imgkit.wire.urls import origin

ODD_BODIES = (b"", b"<html><h1>Busy</h1></html>", b"{}", b"[]", b"null", b"3", b'"text"', b"{", b"\xff\xfe")
"""Bodies that proxies and broken servers send in place of the news of a job."""


class JobProviderContract(JobContractSteps):
    """The tests that every provider of jobs must pass, in addition to the tests of `ProviderContract`.

    They play whole jobs against the provider's own `fake`, step by step, without I/O. Override `provider`,
    and `url_reply` or `reply` with the reply that holds the *result* of a job::

        class TestAcmeJobs(JobProviderContract):
            def provider(self):
                return AcmeProvider()

            def reply(self, pictures):
                return None

            def url_reply(self, urls):
                return json.dumps({"status": "done", "images": urls}).encode()

    Override `fake` if the provider has no attribute of this name, and `sample_url` if replies name files in
    place of addresses. `last_job` is the job that the sample reply is about. `state_member` and
    `poll_methods` are attributes.
    """

    def test_polls_ask_and_change_nothing(self) -> None:
        """Polls with equal GETs without a body; the API gets a single submit."""
        course = self.start(self.fake())
        self.finish(course)
        submit = course.submit
        assert submit is not None
        for request in course.polls:
            is_submit = request.method == "POST" and request.url == submit.url
            assert not is_submit, (
                f"A poll is sent to {request.url} by POST, as the submit is. It makes and bills another job."
            )
            assert request.method in self.poll_methods, (
                f"A poll is a {request.method} request. A poll asks and changes nothing: use "
                f"{' or '.join(self.poll_methods)}, or name the API's method in poll_methods."
            )
            size = request.body.length if request.method == "GET" else 0
            assert not size, f"A poll has a body of {size} bytes. A GET has none."
        count = course.fake.count.get(f"POST {urlsplit(submit.url).path}", 0)
        assert count == 1, f"The API got {count} submits for one job."
        first, second = (self.job_provider().poll(course.job, course.target) for _ in range(2))
        assert join_wire(first) == join_wire(second), (
            "Two polls of the same job differ. Cassettes would not find them again: use no clock and no "
            "random numbers."
        )

    def test_jobs_hold_no_key(self) -> None:
        """Puts no key into the state of a job, nor into the requests about it."""
        with pytest.MonkeyPatch.context() as environment:
            for credential in self.provider().credentials:
                environment.setenv(credential.variable, canary.KEY)
            course = self.start(self.fake())
            self.finish(course)
            cancel = self.job_provider().cancel_job(course.job, course.target)
        for request in [*course.polls, *([] if cancel is None else [cancel])]:
            assert_no_key(request, self.secret_headers)

    def test_poll_hosts(self) -> None:
        """Names the hosts of polls one by one, or with a wildcard in place of a single label."""
        hosts = self.job_provider().poll_hosts
        assert isinstance(hosts, tuple), f"poll_hosts is {hosts!r}. Use a tuple."
        for name in hosts:
            assert re.fullmatch(r"(([a-z0-9-]+|\*)\.)*[a-z0-9-]+\.[a-z][a-z0-9-]*", str(name)), (
                f"poll_hosts has {name!r}. Name a host in lower case, such as api.example.com or "
                "api.*.example.com: the key goes to every host that fits."
            )

    def test_polls_stay_at_the_api(self) -> None:
        """Polls the server that received the submit, or a host in `poll_hosts`."""
        target = self.target(self.provider())
        relay = change(target, base_url=RELAY + urlsplit(target.base_url).path)
        for place in (change(target, host_class="official"), relay):
            course = self.start(self.fake(), place)
            self.finish(course)
            for request in course.polls:
                self.assert_stays_at_the_api(request, place, "A poll")

    def test_follows_jobs(self) -> None:
        """Returns news while the API is at work, and all images afterwards."""
        course = self.start(self.fake())
        for number in range(POLLS_AT_WORK):
            result = course.poll(self.job_provider())
            assert isinstance(result, JobUpdate), (
                f"The API is still at work at poll {number + 1}, and decode_poll() returns images: a preview "
                "is no result. Put it into JobUpdate.preview."
            )
            assert_news(result)
        decoded = self.finish(course)
        wanted = self.images_per_job
        assert len(decoded.pictures) == wanted, (
            f"The job has made {wanted} images, and decode_poll() returns {len(decoded.pictures)}."
        )
        for image in decoded.pictures:
            if image.url is None or is_data_url(image.url):
                continue
            is_own = origin(image.url) == origin(course.target.base_url)
            assert is_own or not image.with_key, (
                f"The image at {image.url} is to be fetched with the key, which no other host may get. Leave "
                "out with_key."
            )
            reply = course.ask(HttpRequest("GET", image.url))
            assert sniff(reply.body) is not None, (
                f"The API serves no image at {image.url}: it replies with HTTP {reply.status}."
            )

    def test_refusals_end_jobs(self) -> None:
        """Reports refused content as a `ModerationBlockedError`."""
        error = self.find_error("refused")
        assert isinstance(error, ModerationBlockedError), (
            f"The API refuses the content, and the job ends with {type(error).__name__}. Use refused()."
        )

    def test_failures_end_jobs(self) -> None:
        """Reports a job that has failed, and a job that the API does not know any more."""
        self.find_error("invalid")
        course = self.start(self.fake())
        reply = self.fake().answer_parts(*split_request(self.job_provider().poll(course.job, course.target)))
        if reply.status == 404:
            outcome = self.try_poll(course, reply)
            is_end = isinstance(outcome, ImgkitError) and not isinstance(outcome, UnreadableReplyError)
            assert is_end, (
                f"The API knows no such job (404), and decode_poll() gives {show_outcome(outcome)}: imgkit "
                "would poll it for ever. Raise a JobFailedError; imgkit itself repeats an early poll."
            )

    def test_unknown_words(self) -> None:
        """Follows a job whose state has a word that the provider does not know."""
        if not self.state_member:
            return
        course = self.start(self.fake())
        reply = course.ask(self.job_provider().poll(course.job, course.target))
        values = json.loads(reply.body)
        assert self.state_member in values, (
            f"The reply to a poll has no {self.state_member!r}: {reply.body[:200]!r}. Name the member "
            "with the state in state_member."
        )
        body = json.dumps({**values, self.state_member: "contract_state"}).encode()
        outcome = self.try_poll(course, reply._replace(body=body))
        assert isinstance(outcome, JobUpdate), (
            f"An unknown word for the state ends the job: decode_poll() gives {show_outcome(outcome)}. The "
            "next version of the API may have more words: return a JobUpdate for them."
        )

    def test_odd_polls(self) -> None:
        """Loses no job for a reply that is not the API's, nor for a key that it refuses."""
        course = self.start(self.fake())
        for body in ODD_BODIES:
            outcome = self.try_poll(course, FakeReply(200, {"content-type": "text/html"}, body))
            assert isinstance(outcome, JobUpdate | UnreadableReplyError), (
                f"For the body {body!r}, decode_poll() gives {show_outcome(outcome)}, which ends the job. "
                "Read the reply inside `with imgkit.providers.readable(head, body, secrets):`."
            )
        for status in (401, 403):
            outcome = self.try_poll(course, FakeReply(status, {}, self.error_reply("no")))
            assert isinstance(outcome, AuthenticationError | PermissionDeniedError), (
                f"For HTTP {status}, decode_poll() gives {show_outcome(outcome)}. The job goes on: "
                "return the error that error() returns, so that another key can collect it."
            )

    def test_polls_hide_keys(self) -> None:
        """Hides the key that the reply to a poll repeats."""
        course = self.start(self.fake())
        for status in (200, 400, 404, 422):
            for body in ECHOES:
                outcome = self.try_poll(course, FakeReply(status, {}, body))
                if isinstance(outcome, ImgkitError):
                    self.assert_presentable(outcome)

    def test_cancels_jobs(self) -> None:
        """Cancels a job at work, and tells that it is too late for a job that has ended."""
        for is_over in (False, True):
            course = self.start(self.fake(polls=0 if is_over else POLLS_AT_WORK))
            if is_over:
                self.finish(course)
            if self.job_provider().cancel_job(course.job, course.target) is None:
                return
            request, reply, is_cancelled = self.cancel(course)
            assert is_cancelled is not is_over, (
                f"decode_cancel() returns {is_cancelled} for HTTP {reply.status} with {reply.body[:100]!r}, "
                f"and the job {'had ended: its images are paid for' if is_over else 'was at work'}."
            )
            assert is_over or request.method != "GET", "A GET cancels no job. Use the API's method."

    def test_finds_lost_jobs(self) -> None:
        """Gives each call a handle of its own if it has any, and finds its lost job."""
        provider, request = self.job_provider(), self.list_requests()[0]
        target = self.target(provider)
        first, second = (provider.submit_handle(request, number * 32, target) for number in ("a", "b"))
        if first is None:
            return
        assert first != second, (
            f"Two calls have the same handle, {dict(first)!r:.200}. Make it from call_id: find_lost() would "
            "take the job of another call."
        )
        course = JobCourse(self.fake("lost_submit"), request, target)
        course.keep(JobUpdate(state=first))
        outcome = self.search(course)
        assert isinstance(outcome, ImgkitError), (
            f"The API has no such job, and the search for it gives {show_outcome(outcome)}. Raise an error: "
            "imgkit would wait for a job that never arrived."
        )
        with ExitStack() as cleanup:
            encoded = self.encode(request, cleanup, provider, target)
            wires = [join_wire(encoded), join_wire(provider.add_handle(encoded, first))]
            assert wires[0] != wires[1], (
                "add_handle() returns a request without the handle: the API cannot know the job by it."
            )
            course.ask(provider.add_handle(encoded, first))
        course.keep(JobUpdate(state=first))
        outcome = self.search(course)
        assert not isinstance(outcome, ImgkitError), (
            f"The API has accepted the job, its reply was lost, and the search for it gives "
            f"{show_outcome(outcome)}: the job is paid for and lost."
        )
