"""What a provider is: an API dialect, free of any I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

from imgkit.errors import ImgkitError
from imgkit.images.inputs import OpenedInputs
from imgkit.images.sources import Source
from imgkit.models import HostClass, ImageRequest, Usage
from imgkit.redact import Secret
from imgkit.wire.messages import Head, HttpRequest

MaskPolarity: TypeAlias = Literal["transparent", "white"]
"""Which pixels of a mask may change: transparent ones, or the white ones of a grey picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a provider's requests go.

    Attributes:
        base_url: without a trailing slash; paths of the API are put behind it.
        host_class: "official" is the provider's own host, "compatible" another server that speaks
            its dialect, "offline" a backend that reaches no network.
        organization, project: sent along where they are set.
        model: used where a request names none.
    """

    base_url: str
    host_class: HostClass
    organization: str | None = None
    project: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedImage:
    """One picture of an answer: its bytes, the URL where they are, or what has put them on disk already."""

    data: bytes | None = None
    source: Source | None = None
    url: str | None = None
    revised_prompt: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedImages:
    """What a success reply says; the core makes an `ImagesResponse` of it.

    A reply is damaged if some of its pictures could not be read; `warnings` say which.
    """

    pictures: tuple[DecodedImage, ...]
    created: int | None = None
    usage: Usage | None = None
    background: str | None = None
    output_format: str | None = None
    size: str | None = None
    quality: str | None = None
    warnings: tuple[str, ...] = ()
    damaged: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedPartialImage:
    """A picture as far as it is done, in an event of a stream.

    Attributes:
        index: 0 for the first, None where the server does not count.
        data, source: its bytes, or what has put them on disk already.
    """

    index: int | None = None
    data: bytes | None = None
    source: Source | None = None


class ReplyBody(Protocol):
    """The body of a success reply.

    Attributes:
        length: how many bytes came.
    """

    length: int

    def json(self) -> Any:
        """Return its value; what was base64 under one of the provider's `base64_keys` is decoded already, and
        `imgkit.wire.json_values.decode_base64` returns its bytes.

        Raises:
            ValueError: not UTF-8, not one JSON value, a key twice in one object, NaN or Infinity.
        """

    def raw(self) -> bytes:
        """Return it as it came."""


def mask_polarity(provider: object) -> MaskPolarity:
    """Return how a provider's API takes masks: what its class attribute ``mask_polarity`` says.

    Callers always give masks whose transparent pixels may change, which is what is meant without it.
    """
    polarity: MaskPolarity = getattr(provider, "mask_polarity", "transparent")
    return polarity


class Provider(Protocol):
    """An API dialect: how an operation becomes a request, and a reply becomes pictures.

    Attributes:
        base_url: the official one; "" where each customer has an address of their own.
        env: names of environment variables for "api_key", "base_url", "organization", "project".
        base64_keys: members of a success reply whose values are pictures in base64; they are decoded while
            they arrive.

    A provider may have more attributes, which have these values where it has not:

    - ``model_facts: str = ""``: ``"package:file.toml"``, its data about models (`imgkit.catalogue`).
    - ``takes_references: bool = False``: it encodes an `ImageReference` among the inputs of an edit.
    - ``mask_polarity: MaskPolarity = "transparent"``: what of a mask may change, in the masks `encode` gets.
    - ``credentials: tuple[Credential, ...]``: headers that can carry a key, in the order in which the
      environment is asked; a bearer token by default. ``api_key=`` of a service is the key of
      ``env["api_key"]``.
    - ``official_hosts: tuple[str, ...] = ()``: hosts beside that of `base_url` where the provider itself
      answers, by https only; ``"*.example.com"`` is all below example.com.
    - ``models_request(target: Target) -> HttpRequest``: a GET that is free, needs the key, and is answered by
      ``{"data": [{"id": …}, …]}``, for ``imgkit doctor --live``.
    """

    base_url: ClassVar[str]
    env: ClassVar[Mapping[str, str]]
    base64_keys: ClassVar[frozenset[str]]

    def check(self, request: ImageRequest, target: Target) -> None:
        """Apply the dialect's own rules, before inputs are opened.

        Raises:
            ConfigurationError, InvalidRequestError: nothing is sent.
        """

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the request as it goes over the wire, without credentials."""

    def decode(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages:
        """Return what a 2xx reply says.

        Raises:
            ImgkitError: an error inside the reply, no pictures, or nothing that can be read.
        """

    def error(self, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return what a reply that is not 2xx means.

        Args:
            head: status and headers.
            body: whatever came.
            secrets: strings that were sent and must not come back in the message.
        """


@runtime_checkable
class StreamingProvider(Protocol):
    """What a provider has besides `Provider` if its API can send pictures while they are made."""

    base64_keys: ClassVar[frozenset[str]]

    def encode_stream(
        self, request: ImageRequest, inputs: OpenedInputs, target: Target, partial_images: int | None
    ) -> HttpRequest:
        """Return the request for a stream of server-sent events.

        Args:
            request, inputs, target: as for `Provider.encode`.
            partial_images: how many partial pictures are wanted, 0 to 3; None where the caller does not say.

        Raises:
            InvalidRequestError: what is asked for cannot be streamed; nothing is sent.
        """

    def decode_event(
        self, head: Head, data: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedPartialImage | DecodedImages | None:
        """Return what an event of a stream says.

        Args:
            head: of the reply.
            data: what the event holds.
            target: where the request went.
            secrets: strings that were sent and must not come back in a message.

        Returns:
            A partial picture; an answer with the pictures that are complete; None for any other event.

        Raises:
            ImgkitError: the event is an error, or cannot be read.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A way to show who calls: a header, and where its key is found.

    Attributes:
        variable: the environment variable that holds the key.
        header: that carries it, in lower case.
        scheme: what stands before it, "" for nothing.
    """

    variable: str
    header: str = "authorization"
    scheme: str = "Bearer"


def list_credentials(provider: Provider) -> tuple[Credential, ...]:
    """Return the ways in which a provider can be shown who calls."""
    bearer = (Credential(variable=provider.env["api_key"]),)
    found: tuple[Credential, ...] = getattr(provider, "credentials", bearer)
    return found
