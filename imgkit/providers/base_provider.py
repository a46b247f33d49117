"""The base class of providers, with defaults for the members that few dialects need."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

from imgkit.errors import InvalidRequestError
from imgkit.models import ImageRequest, Operation, field_names
from imgkit.providers.base import Credential, MaskPolarity, Target
from imgkit.wire.messages import Head, HttpRequest


class BaseProvider:
    """A base class for providers, with defaults for the members that few dialects need.

    A subclass sets `base_url`, `env` and `accepts`, and defines `encode`, `decode` and `error`; `Provider`
    describes all other members.

    Attributes:
        accepts: the fields of a request that the dialect can express, by operation. `check` refuses other
            operations and fields. None accepts all: then `check` or `encode` must refuse by themselves.

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
    base64_keys: ClassVar[frozenset[str]] = frozenset()
    model_facts: ClassVar[str] = ""
    takes_references: ClassVar[bool] = False
    mask_polarity: ClassVar[MaskPolarity] = "transparent"
    official_hosts: ClassVar[tuple[str, ...]] = ()

    @property
    def credentials(self) -> tuple[Credential, ...]:
        """A bearer token from the variable that ``env["api_key"]`` names."""
        return (Credential(variable=self.env["api_key"]),)

    def models_request(self, target: Target) -> HttpRequest | None:
        """Return None: the API has no free list of models."""
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

    def failure_is_free(self, head: Head, body: bytes) -> bool:
        """Return False: no 5xx reply proves that the request was not billed."""
        return False
