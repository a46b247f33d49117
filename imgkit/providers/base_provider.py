"""The base class of providers, with defaults for the members that few dialects need."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from imgkit.errors import InvalidRequestError
from imgkit.models import ImageRequest, Operation, field_names
from imgkit.providers.base import Credential, MaskPolarity, ReplyBody, Target
from imgkit.redact import Secret
from imgkit.wire.messages import Head, HttpRequest

if TYPE_CHECKING:
    from imgkit.jobs.job import Job
    from imgkit.providers.fakes import FakeApi
    from imgkit.providers.job_values import JobUpdate


class BaseProvider:
    """A base class for providers, with defaults for the members that few dialects need.

    A subclass sets `base_url`, `env` and `accepts`, and defines `encode`, `decode` and `error`; `Provider`
    describes all other members.

    Attributes:
        accepts: the fields of a request that the dialect can express, by operation. `check` refuses other
            operations and fields. None accepts all: then `check` or `encode` must refuse by themselves.
        default_model: the model of a service without one, None if the caller must name one.
        repeats_within_s: seconds in which the API answers a repeated request with the same Idempotency-Key by
            the first run. imgkit then sends each request with a key, and repeats a request whose reply was
            lost. 0 for an API without such keys. Only for a provider of jobs.
        hard_masks: the API refuses a grey pixel of a mask; imgkit makes each black or white.
        fake: a small imitation of the API, which answers offline; None for OpenAI's dialect.

    Example:
        >>> class AcmeProvider(BaseProvider):
        ...     base_url = "https://api.acme.example/v1"
        ...     env = {"api_key": "ACME_API_KEY"}
        ...     accepts = {"create_image": {"prompt", "n"}}
        >>> AcmeProvider().credentials
        (Credential(variable='ACME_API_KEY', header='authorization', scheme='Bearer'),)
    """

    base_url: ClassVar[str] = ""
    env: ClassVar[Mapping[str, str]]
    accepts: ClassVar[Mapping[Operation, Collection[str]] | None] = None
    default_model: ClassVar[str | None] = None
    base64_keys: ClassVar[frozenset[str]] = frozenset()
    model_facts: ClassVar[str] = ""
    takes_references: ClassVar[bool] = False
    mask_polarity: ClassVar[MaskPolarity] = "transparent"
    hard_masks: ClassVar[bool] = False
    official_hosts: ClassVar[tuple[str, ...]] = ()
    poll_hosts: ClassVar[tuple[str, ...]] = ()
    job_version: ClassVar[int] = 1
    repeats_within_s: ClassVar[float] = 0.0
    fake: ClassVar[type[FakeApi] | None] = None

    @property
    def credentials(self) -> tuple[Credential, ...]:
        """A bearer token from the variable that ``env["api_key"]`` names."""
        return (Credential(variable=self.env["api_key"]),)

    def choose_credentials(self, target: Target) -> tuple[Credential, ...]:
        """Return the credentials for a target: all; an API with several doors has a key for each."""
        return self.credentials

    def choose_mask_polarity(self, request: ImageRequest, target: Target) -> MaskPolarity:
        """Return `mask_polarity`; an API whose endpoints differ has one for each."""
        return self.mask_polarity

    def models_request(self, target: Target) -> HttpRequest | None:
        """Return None: the API has no free list of models."""
        return None

    def list_fields(self, operation: Operation, target: Target) -> Collection[str] | None:
        """Return the fields of a request that a server takes; None if it may take any.

        The default is `accepts`, whatever the server. An operation without fields does not exist there.
        """
        return None if self.accepts is None else self.accepts.get(operation, ())

    def choose_model(self, request: ImageRequest) -> str | None:
        """Return the model for a request that names none; None if the server chooses.

        Override it where the model depends on the request, such as on its mask; else set `default_model`.
        """
        return None

    def check(self, request: ImageRequest, target: Target) -> None:
        """Refuse an operation or a field that `accepts` leaves out.

        A subclass with further rules calls it first. The model of the service counts as a field.

        Raises:
            InvalidRequestError: The message names the operation or the fields. Nothing was sent.
        """
        if self.accepts is None:
            return
        operation = request.operation
        fields = self.accepts.get(operation)
        if fields is None:
            choices = ", ".join(sorted(self.accepts))
            raise InvalidRequestError(
                {"operation": f"This provider has no {operation}. Use one of: {choices}."}
            )
        given = [name for name in field_names(type(request)) if getattr(request, name) is not None]
        if target.model is not None and target.host_class != "offline":
            given.append("model")
        refused = dict.fromkeys(name for name in given if name not in fields)
        if refused:
            raise InvalidRequestError(
                {name: f"This provider takes no {name} for {operation}. Leave it out." for name in refused}
            )

    def failure_is_final(self, job: Job, head: Head) -> bool:
        """Return False: a 5xx reply to a poll says nothing about the job."""
        return False

    def submit_handle(self, request: ImageRequest, call_id: str, target: Target) -> Mapping[str, Any] | None:
        """Return None: nothing is known of a job before the API accepts it."""
        return None

    def add_handle(self, request: HttpRequest, handle: Mapping[str, Any]) -> HttpRequest:
        """Return the request unchanged: the API learns nothing of the handle."""
        return request

    def find_lost(self, job: Job, target: Target) -> HttpRequest | None:
        """Return None: the API cannot tell whether a lost submit has arrived."""
        return None

    def cancel_job(self, job: Job, target: Target) -> HttpRequest | None:
        """Return None: the API cancels no jobs."""
        return None

    def decode_cancel(
        self, job: Job, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> bool | JobUpdate:
        """Return whether the reply to a cancel request is a success."""
        return 200 <= head.status < 300

    def failure_is_free(self, head: Head, body: bytes) -> bool:
        """Return False: no 5xx reply proves that the request was not billed."""
        return False
