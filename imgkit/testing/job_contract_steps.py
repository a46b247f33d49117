"""The steps of the contract of a provider whose API accepts jobs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property, partial
from typing import ClassVar

from imgkit.catalogue.catalogue import Catalogue
from imgkit.errors import ImgkitError, UnreadableReplyError
from imgkit.jobs.job import Job
from imgkit.models import ImageRequest
from imgkit.providers.base import DecodedImages, Provider, ReplyBody, Target
from imgkit.providers.fakes import FakeApi, FakeReply
from imgkit.providers.job_base import JobProvider
from imgkit.providers.job_values import JobUpdate
from imgkit.redact import Secret
from imgkit.testing.job_course import JobCourse, JobDialect, host_fits
from imgkit.testing.provider_contract import ProviderContract
from imgkit.testing.provider_replies import fail_for_builtin
from imgkit.testing.provider_requests import Encode
from imgkit.testing.provider_samples import change
from imgkit.testing.request_checks import assert_no_key, join_wire
from imgkit.wire.messages import Head, HttpRequest
from imgkit.wire.urls import origin

MAX_STEPS = 10
"""Requests of a cancellation or a search."""

MAX_POLLS = 20
"""Polls after which a job that has ended must have an end."""


class JobContractSteps(ProviderContract):
    """The attributes and steps of `imgkit.testing.JobProviderContract`, which describes them."""

    state_member: ClassVar[str] = "status"
    """The member with the word for the state of a job, in the reply to a poll; "" without words."""

    poll_methods: ClassVar[tuple[str, ...]] = ("GET",)
    """The methods of polls."""

    def job_provider(self, provider: Provider | None = None) -> JobDialect:
        """Return a new provider, or the given provider; fail if it follows no jobs."""
        provider = provider or self.provider()
        assert isinstance(provider, JobProvider), (
            "The provider lacks members of JobProvider. Derive it from BaseProvider; define poll() and "
            "decode_poll()."
        )
        return provider

    @property
    def max_images_per_request(self) -> int | None:
        """The limit in the provider's facts; imgkit sends a request for each image if it is 1."""
        facts = self.provider().model_facts
        return Catalogue("", facts).max_images_per_request if facts else None

    @property
    def images_per_job(self) -> int:
        """The number of images that the contract asks a job for."""
        return 2 if self.images_per_reply > 1 and self.max_images_per_request != 1 else 1

    def start(self, fake: FakeApi, target: Target | None = None) -> JobCourse:
        """Submit a job, with two images if the API makes several.

        Raises:
            ImgkitError: the fake refuses the request.
        """
        provider = self.job_provider()
        request = self.list_requests()[0]
        request = change(request, n=2) if self.images_per_job > 1 else request
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

    def decode_body(
        self, provider: Provider, head: Head, reply: ReplyBody, secrets: tuple[Secret, ...]
    ) -> DecodedImages:
        """Decode a reply with the result of a job."""
        job_provider = self.job_provider(provider)
        decoded = job_provider.decode_poll(self.last_job, head, reply, self.target(job_provider), secrets)
        if isinstance(decoded, JobUpdate) and decoded.poll_after_s == 0:
            raise UnreadableReplyError(f"decode_poll() goes on to {dict(decoded.state)!r:.200}.")
        assert isinstance(decoded, DecodedImages), (
            "decode_poll() says that the job goes on for a reply with its result, or with rubbish. Raise an "
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
        if field == "n" and self.max_images_per_request == 1:
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

    def cancel(self, course: JobCourse) -> tuple[HttpRequest, FakeReply, bool]:
        """Cancel a job, step by step; return the last request, its reply, and whether it is cancelled."""
        provider = self.job_provider()
        for _ in range(MAX_STEPS):
            request = provider.cancel_job(course.job, course.target)
            assert request is not None, "decode_cancel() names another step, and cancel_job() has none."
            is_submit = course.submit is not None and request.url == course.submit.url
            assert not is_submit, f"The cancellation goes to {request.url}, as the submit does."
            self.assert_stays_at_the_api(request, course.target, "The cancellation")
            reply = course.ask(request)
            body = self.read_body(reply.body, provider)
            head = Head(reply.status, reply.headers)
            try:
                result = provider.decode_cancel(course.job, head, body, course.target)
            except ImgkitError as error:
                raise AssertionError(
                    f"The API refuses the {request.method} to {request.url}: {error.problem} Use the API's "
                    "method and address. A GET cancels no job."
                ) from error
            if isinstance(result, bool):
                return request, reply, result
            course.keep(result)
        raise AssertionError(f"The cancellation has no end after {MAX_STEPS} steps.")

    def search(self, course: JobCourse) -> JobUpdate | DecodedImages | ImgkitError:
        """Return the outcome of the search for a job whose submit has no reply, step by step."""
        provider = self.job_provider()
        for _ in range(MAX_STEPS):
            question = provider.find_lost(course.job, course.target)
            assert question is not None, "submit_handle() returns a handle, and find_lost() does not use it."
            assert_no_key(question, self.secret_headers)
            self.assert_stays_at_the_api(question, course.target, "The search for a lost job")
            outcome = self.try_poll(course, course.ask(question))
            if not isinstance(outcome, JobUpdate) or outcome.poll_after_s != 0:
                return outcome
            course.keep(outcome)
        raise AssertionError(f"The search for a lost job has no end after {MAX_STEPS} steps.")
