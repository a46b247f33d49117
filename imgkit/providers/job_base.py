"""The protocols of providers whose APIs accept jobs, want uploads first, tell progress, or quote prices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from imgkit.images.inputs import OpenedInputs
from imgkit.models import Estimate, ImageRequest
from imgkit.providers.base import DecodedImages, ReplyBody, Target
from imgkit.providers.job_values import JobUpdate, Upload
from imgkit.redact import Secret
from imgkit.wire.messages import Head, HttpRequest

if TYPE_CHECKING:
    from imgkit.jobs.job import Job


@runtime_checkable
class JobProvider(Protocol):
    """The further methods of a provider whose API accepts jobs and is asked until they are done.

    `Provider.decode` returns a `JobUpdate` in place of images. imgkit then writes the job down, asks with
    `poll` after growing pauses, and collects the images. Polls are free: imgkit repeats them after any
    failure of the wire, a 429 and a 5xx, until the deadline of the call. It submits once.

    `imgkit.providers.BaseProvider` has defaults for `poll_hosts`, `job_version`, `failure_is_final`,
    `submit_handle`, `add_handle`, `find_lost` and `cancel_job`.

    Example:
        ::

            class AcmeProvider(BaseProvider):
                def decode(self, head, body, target, secrets=()):
                    return JobUpdate(state={"task": body.json()["task_id"]})

                def poll(self, job, target):
                    return HttpRequest("GET", f"{target.base_url}/tasks/{job.state['task']}")

                def decode_poll(self, job, head, body, target, secrets=()): ...
    """

    @property
    def poll_hosts(self) -> tuple[str, ...]:
        """Further hosts that may be polled with the key, by https only, as for `official_hosts`."""

    @property
    def job_version(self) -> int:
        """The version of the state that this class writes. A job with a later one is refused."""

    def poll(self, job: Job, target: Target) -> HttpRequest:
        """Return the request that asks for the state or the result of a job, without credentials."""

    def decode_poll(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | JobUpdate:
        """Return the images, or the news of a job that is still at work; a new state may name another step.

        A word for a state that the class does not know means that the job goes on.

        Args:
            job: the job.
            head: status and headers of the reply; never 429, and 5xx only after `failure_is_final`.
            body: its body.
            target: the server that received the request.
            secrets: strings that were sent and must not appear in a message.

        Raises:
            ImgkitError: the job has failed, or was refused. ``error.maybe_billed`` tells whether it costs.
            UnreadableReplyError: the reply is not the API's; imgkit asks again.
        """

    def failure_is_final(self, job: Job, head: Head) -> bool:
        """Return whether a 5xx reply to a poll is the failure of the job itself, and no fault of the API.

        imgkit then passes it to `decode_poll`. It repeats the poll after any other 5xx reply.
        """

    def submit_handle(self, request: ImageRequest, call_id: str, target: Target) -> Mapping[str, Any] | None:
        """Return the state of a job that is known before its request is sent, None for none.

        With it, `find_lost` can ask for a job whose reply was lost.

        Args:
            request, target: as for `Provider.encode`.
            call_id: imgkit's id of this submit. No other job has it.
        """

    def add_handle(self, request: HttpRequest, handle: Mapping[str, Any]) -> HttpRequest:
        """Return the request of `Provider.encode` with the result of `submit_handle` in it.

        `encode` leaves it out, so that equal requests have equal bodies for the cache.
        """

    def find_lost(self, job: Job, target: Target) -> HttpRequest | None:
        """Return a free request that tells whether a submit has arrived, None if the API cannot tell.

        `decode_poll` decodes the reply; an error means that the API does not know the job. A `JobUpdate`
        with ``poll_after_s=0`` asks again with its state.
        """

    def cancel_job(self, job: Job, target: Target) -> HttpRequest | None:
        """Return the request that cancels a job, None if the API cannot."""

    def decode_cancel(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> bool | JobUpdate:
        """Return whether the job is cancelled; False if it had ended before.

        A `JobUpdate` names another step: `cancel_job` is called again with its state.

        Raises:
            ImgkitError: The API refuses for another reason; the job goes on.
        """


@runtime_checkable
class UploadingProvider(Protocol):
    """The further methods of a provider whose API wants input images before the request.

    Example:
        ::

            class AcmeProvider(BaseProvider):
                def next_upload(self, request, inputs, done, target):
                    if not inputs.image or "image" in done:
                        return None
                    file = inputs.image[0]
                    return Upload("image", HttpRequest("PUT", ...), file.sha256)

                def decode_upload(self, upload, head, body, target, secrets=()):
                    return body.json()["id"]
    """

    def next_upload(
        self, request: ImageRequest, inputs: OpenedInputs, done: Mapping[str, Any], target: Target
    ) -> Upload | None:
        """Return the next upload of a request, None once the API has all inputs.

        Args:
            request, inputs, target: as for `Provider.encode`.
            done: the handles so far, by name; later uploads may depend on them.
        """

    def decode_upload(
        self, upload: Upload, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> Any:
        """Return the API's handle of an upload, a JSON value.

        Raises:
            ImgkitError: The API refuses the input. Nothing was paid.
        """


@runtime_checkable
class ProgressProvider(Protocol):
    """The further methods of a provider whose API tells its progress beside an open reply."""

    def progress(
        self, request: ImageRequest, target: Target, *, wants_preview: bool = False
    ) -> HttpRequest | None:
        """Return the free request that asks for the progress, without credentials; None to ask nothing.

        Args:
            request, target: as for `Provider.encode`.
            wants_preview: the caller streams, so the unfinished image is of use.
        """

    def decode_progress(self, head: Head, body: ReplyBody, target: Target) -> JobUpdate:
        """Return the progress and the preview of a running request; any failure is ignored.

        The ``state`` of the update is not used.
        """


@runtime_checkable
class PricingProvider(Protocol):
    """The further methods of a provider whose API quotes the price of a request without running it.

    `ImageService.estimate` asks it with ``live=True``.

    Example:
        ::

            class AcmeProvider(BaseProvider):
                def price_request(self, request, inputs, target):
                    encoded = self.encode(request, inputs, target)
                    return replace(encoded, url=f"{encoded.url}?quote=1")

                def decode_price(self, head, body, target, secrets=()):
                    with readable(head, body, secrets):
                        price = Decimal(str(body.json()["usd"]))
                    return Estimate(low=price, high=price, note="quoted by the API")
    """

    def price_request(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the free request that asks for the price, without credentials, to the API's own origin.

        Args:
            request, inputs, target: as for `Provider.encode`.
        """

    def decode_price(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> Estimate:
        """Return the bounds of the price in a 2xx reply, for all images of the request.

        Raises:
            ImgkitError: The reply holds no price.
        """


@runtime_checkable
class ClockProvider(Protocol):
    """The further method of a provider for tests, whose offline API has a clock of its own.

    A call then does not sleep between polls. The pause counts against the deadline of the call.
    """

    def pass_time(self, job: Job, wait_s: float) -> None:
        """Let the pause before a poll pass for its job. Called in place of a sleep."""
