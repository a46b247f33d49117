"""The course of a job at a provider's fake, step by step and without I/O."""

from __future__ import annotations

import json
import re
from typing import Protocol

from imgkit.errors import ImgkitError
from imgkit.jobs.job import MAX_STATE_BYTES, Job
from imgkit.models import ImageRequest
from imgkit.providers.base import DecodedImages, Provider, Target
from imgkit.providers.fakes import FakeApi, FakeReply
from imgkit.providers.job_base import JobProvider
from imgkit.providers.job_values import JobUpdate
from imgkit.testing import canary
from imgkit.testing.provider_replies import SECRETS
from imgkit.testing.upload_course import split_request
from imgkit.wire.json_body import JsonReply
from imgkit.wire.messages import Head, HttpRequest

CALL_ID = "a" * 32
"""imgkit's id of the submit of the contract."""

STATE_HINT = "Keep ids and addresses in it, as texts, numbers, lists and mappings with texts as keys."


class JobDialect(Provider, JobProvider, Protocol):
    """A provider whose API accepts jobs, with all its methods."""


class JobCourse:
    """The course of a job: its submit, its polls, and the news that the provider reads from the replies.

    Each poll goes through JSON and, if the caller makes a new provider for it, through another process.

    Args:
        fake: the API.
        request: the request of the caller.
        target: the server.

    Attributes:
        submit: the request that was submitted, None before.
        job: the job with its latest state.
        polls: the requests of the polls so far.
    """

    def __init__(self, fake: FakeApi, request: ImageRequest, target: Target) -> None:
        self.fake = fake
        self.request = request
        self.target = target
        self.submit: HttpRequest | None = None
        self.polls: list[HttpRequest] = []
        self.job = Job(
            id="contract-0",
            provider="contract",
            base_url=target.base_url,
            operation=request.operation,
            submitted_at=1.0,
        )

    def start(self, provider: JobDialect, encoded: HttpRequest) -> JobUpdate:
        """Submit an encoded request, with its handle; fail unless the provider reads a job from the reply.

        Raises:
            ImgkitError: the API refuses the request.
        """
        handle = provider.submit_handle(self.request, CALL_ID, self.target)
        if handle is not None:
            self.keep(JobUpdate(state=handle))
            encoded = provider.add_handle(encoded, handle)
        self.submit = encoded
        reply = self.ask(encoded)
        arguments = (_read_head(reply), read_reply(provider, reply), self.target, SECRETS)
        is_success = 200 <= reply.status < 300
        update = provider.decode(*arguments) if is_success else None
        if update is None:
            raise provider.error(arguments[0], reply.body, SECRETS)
        assert isinstance(update, JobUpdate), (
            f"The API accepts a job, and decode() returns {type(update).__name__}. Return a JobUpdate."
        )
        self.keep(update)
        return update

    def poll(self, provider: JobDialect, reply: FakeReply | None = None) -> JobUpdate | DecodedImages:
        """Poll the job once, and keep its new state.

        Args:
            provider: the provider.
            reply: the reply to the poll; that of the fake if None.

        Raises:
            ImgkitError: as `JobProvider.decode_poll`.
        """
        try:
            request = provider.poll(self.job, self.target)
        except (AttributeError, LookupError, TypeError) as error:
            raise AssertionError(
                f"poll() raises {type(error).__name__} ({error}) for {dict(self.job.state)!r:.300}. Another "
                "process must be able to poll the job: keep all that it needs in the state."
            ) from error
        self.polls.append(request)
        reply = self.ask(request) if reply is None else reply
        result = self.read(provider, reply)
        if isinstance(result, JobUpdate):
            self.keep(result)
        return result

    def read(self, provider: JobDialect, reply: FakeReply) -> JobUpdate | DecodedImages:
        """Return the content of a reply to a poll; keep nothing. Raises as `JobProvider.decode_poll`."""
        body = read_reply(provider, reply)
        before = json.dumps(self.job.state)
        result = provider.decode_poll(self.job, _read_head(reply), body, self.target, SECRETS)
        assert json.dumps(self.job.state) == before, (
            f"decode_poll() changes the state of the job from {before:.200} to {self.job.state!r:.200}. "
            "Return a JobUpdate with a new mapping."
        )
        assert isinstance(result, JobUpdate | DecodedImages), (
            f"decode_poll() returns {type(result).__name__}. Return DecodedImages or a JobUpdate."
        )
        return result

    def ask(self, request: HttpRequest) -> FakeReply:
        """Return the fake's reply to a request."""
        return self.fake.answer_parts(*split_request(request))

    def keep(self, update: JobUpdate) -> None:
        """Keep the state of a job as its record does; fail unless it survives JSON and holds no key."""
        state = dict(update.state)
        try:
            text = json.dumps(state, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise AssertionError(
                f"The state of a job does not survive JSON: {error}. {STATE_HINT}"
            ) from error
        restored = json.loads(text)
        assert restored == state, (
            f"The state of a job does not survive JSON: {state!r:.200} becomes {restored!r:.200}. "
            f"{STATE_HINT}"
        )
        assert len(text) <= MAX_STATE_BYTES, (
            f"The state of a job has {len(text)} bytes; it may have {MAX_STATE_BYTES}. {STATE_HINT}"
        )
        for key in (canary.KEY, canary.PLAIN_KEY):
            assert key not in text, (
                "The state of a job holds the key. imgkit writes it to the disk: an auth plugin sends it "
                "with each poll."
            )
        self.job = self.job.advance(state=restored)


def read_reply(provider: JobDialect, reply: FakeReply) -> JsonReply:
    """Return the body of a fake's reply as a provider gets it."""
    body = JsonReply(provider.base64_keys if 200 <= reply.status < 300 else frozenset())
    body.feed(reply.body)
    body.close()
    return body


def _read_head(reply: FakeReply) -> Head:
    return Head(reply.status, {"x-request-id": "req_1", **reply.headers})


def assert_news(update: JobUpdate) -> None:
    """Fail unless the values of an update are possible.

    >>> assert_news(JobUpdate(state={}, progress=0.5))
    """
    progress, pause_s = update.progress, update.poll_after_s
    assert progress is None or 0 <= progress <= 1, (
        f"The progress of a job is {progress!r}. It is a fraction from 0 to 1: divide percents by 100."
    )
    assert pause_s is None or pause_s >= 0, f"poll_after_s is {pause_s!r}. It is None, or from 0 on."


def host_fits(host: str, pattern: str) -> bool:
    """Return whether a host fits a pattern of `poll_hosts`, whose "*" stands for a single label.

    >>> host_fits("api.eu.acme.example", "api.*.acme.example"), host_fits("evil.example", "*.acme.example")
    (True, False)
    """
    expression = r"[^.]+".join(re.escape(part) for part in pattern.split("*"))
    return re.fullmatch(expression, host) is not None


def show_outcome(outcome: object) -> str:
    """Return the type of an outcome, with the message of an error."""
    return f"{type(outcome).__name__}{f' ({outcome})'[:200] if isinstance(outcome, ImgkitError) else ''}"
