"""The contract of a provider whose API accepts jobs (`imgkit.providers.JobProvider`)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property, partial
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from imgkit.catalogue.catalogue import Catalogue
from imgkit.errors import (
    AuthenticationError,
    ImgkitError,
    ModerationBlockedError,
    PermissionDeniedError,
    UnreadableReplyError,
)
from imgkit.jobs.job import Job
from imgkit.models import ImageRequest
from imgkit.providers.base import DecodedImages, Provider, Target
from imgkit.providers.fakes import FakeApi, FakeReply
from imgkit.providers.job_base import JobProvider
from imgkit.providers.job_values import JobUpdate
from imgkit.redact import Secret
from imgkit.testing import canary
from imgkit.testing.job_course import (
    JobCourse,
    JobDialect,
    assert_news,
    host_fits,
    show_outcome,
    split_request,
)
from imgkit.testing.provider_contract import ProviderContract
from imgkit.testing.provider_replies import ECHOES, fail_for_builtin
from imgkit.testing.provider_requests import RELAY, Encode
from imgkit.testing.provider_samples import change
from imgkit.testing.request_checks import assert_no_key, join_wire
from imgkit.wire.messages import Head, HttpRequest
from imgkit.wire.urls import origin

POLLS_AT_WORK = 3
"""Polls that find the job of the contract at work."""

MAX_POLLS = 20
"""Polls after which a job that has ended must have an end."""

ODD_BODIES = (b"", b"<html><h1>Busy</h1></html>", b"{}", b"[]", b"null", b"3", b'"text"', b"{", b"\xff\xfe")
"""Bodies that proxies and broken servers send in place of the news of a job."""


class JobProviderContract(ProviderContract):
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

    Override `fake` if the provider has no attribute of this name. `state_member` and `poll_methods` are
    attributes.
    """

    state_member: ClassVar[str] = "status"
    """The member with the word for the state of a job, in the reply to a poll."""

    poll_methods: ClassVar[tuple[str, ...]] = ("GET",)
    """The methods of polls."""

    def fake(self, scenario: str = "success", polls: int = POLLS_AT_WORK) -> FakeApi:
        """Return the API's side in small.

        Args:
            scenario: one of `imgkit.providers.fakes.SCENARIOS`.
            polls: number of polls that find a job at work.
        """
        make = getattr(self.provider(), "fake", None)
        assert make is not None, "The provider has no fake. Set its attribute, or override fake()."
        fake: FakeApi = make(scenario, polls=polls)
        return fake

    # --- The course of a job -----------------------------------------------------------------

    def job_provider(self, provider: Provider | None = None) -> JobDialect:
        """Return a new provider, or the given provider; fail if it follows no jobs."""
        provider = provider or self.provider()
        assert isinstance(provider, JobProvider), (
            "The provider lacks members of JobProvider. Derive it from BaseProvider; define poll() and "
            "decode_poll()."
        )
        return provider

    def start(self, fake: FakeApi, target: Target | None = None) -> JobCourse:
        """Submit a job, with two images if the API makes several.

        Raises:
            ImgkitError: the fake refuses the request.
        """
        provider = self.job_provider()
        request = self.list_requests()[0]
        request = change(request, n=2) if self.images_per_reply > 1 else request
        target = target or self.target(provider)
        course = JobCourse(fake, request, target)
        with ExitStack() as cleanup:
            course.start(provider, self.encode(request, cleanup, provider, target))
        return course

    def finish(self, course: JobCourse) -> DecodedImages:
        """Poll a job until its images are there; each poll is made by a new provider.

        Raises:
            ImgkitError: the job has failed.
        """
        for _ in range(MAX_POLLS):
            result = course.poll(self.job_provider())
            if isinstance(result, DecodedImages):
                return result
        raise AssertionError(
            f"The job has ended, and after {MAX_POLLS} polls decode_poll() still says that it goes on: "
            f"{dict(course.job.state)!r:.300}."
        )

    @cached_property
    def last_job(self) -> Job:
        """The job of the contract before the poll that returns its images."""
        course = self.start(self.fake())
        self.finish(course)
        return course.job

    def decode(
        self,
        body: bytes,
        status: int = 200,
        provider: Provider | None = None,
        secrets: tuple[Secret, ...] = (),
    ) -> DecodedImages:
        """Decode a reply with the result of a job."""
        job_provider = self.job_provider(provider)
        head = Head(status, {**self.reply_headers, "x-request-id": "req_1"})
        reply = self.read_body(body, job_provider)
        decoded = job_provider.decode_poll(self.last_job, head, reply, self.target(job_provider), secrets)
        assert isinstance(decoded, DecodedImages), (
            f"decode_poll() says that the job goes on for the body {body[:60]!r}. Raise an "
            "UnreadableReplyError for a reply that is no result; imgkit asks again."
        )
        return decoded

    def list_calls(self, provider: Provider, cleanup: ExitStack) -> list[tuple[str, Callable[[], object]]]:
        """Return calls of all methods of the provider, each with the name of its method."""
        methods = ("poll", "cancel_job", "find_lost")
        arguments = (self.last_job, self.target(provider))
        calls = [(name, partial(getattr(provider, name), *arguments)) for name in methods]
        return [*super().list_calls(provider, cleanup), *calls]

    def run_call(self, provider: Provider, request: ImageRequest, seed: int) -> list[object]:
        """Encode a request, poll its job, decode a reply, and return the results."""
        job_provider = self.job_provider(provider)
        results = super().run_call(provider, request, seed)
        job = self.last_job.advance(state={**self.last_job.state, "contract": seed})
        return [*results, join_wire(job_provider.poll(job, self.target(provider)))]

    def assert_field_is_sent(self, request: ImageRequest, field: str, encode: Encode) -> None:
        """Fail unless the values of a field give different requests; imgkit splits n for some APIs."""
        facts = self.provider().model_facts
        if field == "n" and facts and Catalogue("", facts).max_images_per_request == 1:
            return
        super().assert_field_is_sent(request, field, encode)

    def assert_stays_at_the_api(self, request: HttpRequest, target: Target, action: str) -> None:
        """Fail unless a request with the key goes to the origin of the target, or to a poll host."""
        place = origin(request.url)
        if place == origin(target.base_url):
            return
        scheme, host, _ = place
        is_named = any(host_fits(host, pattern) for pattern in self.job_provider().poll_hosts)
        is_allowed = is_named and target.host_class == "official" and scheme == "https"
        assert is_allowed, (
            f"{action} goes to {request.url}, and the API is at {target.base_url}. imgkit sends no key: use "
            "target.base_url or the address in the reply, and name the API's further hosts in poll_hosts."
        )

    # --- The tests ---------------------------------------------------------------------------

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
        wanted = 2 if self.images_per_reply > 1 else 1
        assert len(decoded.pictures) == wanted, (
            f"The job has made {wanted} images, and decode_poll() returns {len(decoded.pictures)}."
        )
        for image in decoded.pictures:
            is_own = image.url is None or origin(image.url) == origin(course.target.base_url)
            assert is_own or not image.with_key, (
                f"The image at {image.url} is to be fetched with the key, which no other host may get. Leave "
                "out with_key."
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
            provider = self.job_provider()
            request = provider.cancel_job(course.job, course.target)
            if request is None:
                return
            assert request.method != "GET", "A GET cancels no job. Use the API's method."
            is_submit = course.submit is not None and request.url == course.submit.url
            assert not is_submit, f"The cancellation goes to {request.url}, as the submit does."
            self.assert_stays_at_the_api(request, course.target, "The cancellation")
            reply = course.ask(request)
            body = self.read_body(reply.body, provider)
            head = Head(reply.status, reply.headers)
            is_cancelled = provider.decode_cancel(course.job, head, body, course.target)
            assert is_cancelled is not is_over, (
                f"decode_cancel() returns {is_cancelled} for HTTP {reply.status} with {reply.body[:100]!r}, "
                f"and the job {'had ended: its images are paid for' if is_over else 'was at work'}."
            )

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
        course = JobCourse(self.fake(), request, target)
        course.keep(JobUpdate(state=first))
        question = provider.find_lost(course.job, target)
        assert question is not None, "submit_handle() returns a handle, and find_lost() does not use it."
        assert_no_key(question, self.secret_headers)
        self.assert_stays_at_the_api(question, target, "The search for a lost job")

    # --- Helpers -----------------------------------------------------------------------------

    def find_error(self, scenario: str) -> ImgkitError:
        """Return the error that ends a job in a scenario of the fake; fail if it has none."""
        try:
            decoded = self.finish(self.start(self.fake(scenario)))
        except ImgkitError as error:
            self.assert_presentable(error)
            return error
        raise AssertionError(
            f"The job fails in the scenario {scenario!r} of the fake, and decode_poll() returns "
            f"{len(decoded.pictures)} images."
        )

    def try_poll(self, course: JobCourse, reply: FakeReply) -> JobUpdate | DecodedImages | ImgkitError:
        """Return the outcome of a reply to a poll; fail for an exception that is not imgkit's."""
        try:
            return course.read(self.job_provider(), reply)
        except ImgkitError as error:
            return error
        except AssertionError:
            raise
        except Exception as error:
            fail_for_builtin(error, "decode_poll", reply.body)
