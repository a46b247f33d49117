"""The provider protocol and its values. A provider is an API dialect; it does no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

from imgkit.errors import ConfigurationError, ImgkitError
from imgkit.images.inputs import OpenedInputs
from imgkit.images.sources import Source
from imgkit.models import Cost, HostClass, ImageRequest, Usage
from imgkit.providers.credentials import Credential as Credential
from imgkit.providers.job_values import JobUpdate
from imgkit.redact import Secret
from imgkit.wire.json_values import DivertedImage
from imgkit.wire.messages import Head, HttpRequest
from imgkit.wire.plain_values import describe_failure, has_type, type_name

MaskPolarity: TypeAlias = Literal["transparent", "white", "black"]
"""The pixels of a mask that may change: transparent pixels, or white or black pixels of a grey image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The server that receives a provider's requests.

    Attributes:
        base_url: without a trailing slash; the provider appends the API's paths.
        host_class: "official" is the provider's own host, "compatible" another server with the same
            dialect, "offline" a backend that reaches no network.
        organization, project: sent as headers unless None.
        model: the model of requests that name none.

    Example:
        >>> Target(base_url="https://api.example.com/v1", host_class="official").model is None
        True
    """

    base_url: str
    host_class: HostClass
    organization: str | None = None
    project: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedImage:
    """One image of a reply: its bytes, the URL to download it from, or a source that is already on disk.

    Attributes:
        data, source, url: the image.
        with_key: the URL is at the API's own origin and needs the credentials.
        revised_prompt: the prompt that the server used.
        extra: other members of the reply about this image.

    Example:
        >>> DecodedImage(url="https://cdn.example.com/fox.png").data is None
        True
    """

    data: bytes | None = None
    source: Source | None = None
    url: str | None = None
    with_key: bool = False
    revised_prompt: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedImages:
    """The content of a success reply, from which the core builds an `ImagesResponse`.

    Attributes:
        pictures: the images of the reply, in its order.
        created: Unix time in seconds.
        usage: token counts as the server reports them.
        background, output_format, size, quality: the values that the server used.
        warnings: problems with single images; the others are still delivered.
        damaged: True if an image of the reply is missing or unreadable.
        cost: the cost as the reply tells it, None if it does not.
        extra: members of the reply without a field here.

    Example:
        >>> len(DecodedImages(pictures=(DecodedImage(data=b"..."),)).pictures)
        1
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
    cost: Cost | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedPartialImage:
    """An unfinished image from an event of a stream.

    Attributes:
        index: 0 for the first, None if the server does not count.
        data, source: its bytes, or a source that is already on disk.

    Example:
        >>> DecodedPartialImage(index=0, data=b"...").index
        0
    """

    index: int | None = None
    data: bytes | None = None
    source: Source | None = None


class ReplyBody(Protocol):
    """The body of a success reply.

    Attributes:
        length: the body's size in bytes.

    Example:
        A provider reads the body in `Provider.decode`::

            for entry in body.json()["images"]:
                data = decode_base64(entry["base64"])
    """

    length: int

    def json(self) -> Any:
        """Return the JSON value of the body.

        Strings under the provider's `base64_keys` are decoded already; pass them to
        `imgkit.providers.decode_base64` to get their bytes.

        Raises:
            ValueError: The body is not UTF-8 or not one JSON value, repeats a key in an object, or holds
                NaN or Infinity.
        """

    def raw(self) -> bytes:
        """Return the body's bytes as the server sent them."""

    def image(self) -> DivertedImage | None:
        """Return the body as an image, for an API that answers with the image itself; None for another body.

        `imgkit.providers.decode_image_body` makes it a result. With ``save_to=``, its bytes are on disk
        already.
        """


class Provider(Protocol):
    """An API dialect: encodes an operation as an HTTP request, and decodes the reply into images.

    Derive from `imgkit.providers.BaseProvider`, which has defaults for the members from `base64_keys` to
    `check`, and for `failure_is_free`. A class with all members works as well; without `failure_is_free`,
    no 5xx reply is free.

    Attributes:
        base_url: the official address; "" if each customer has an address of their own.

    Example:
        ::

            class AcmeProvider(BaseProvider):
                base_url = "https://api.acme.example/v1"
                env = {"api_key": "ACME_API_KEY"}
                base64_keys = frozenset({"pictures"})

                def check(self, request, target): ...
                def encode(self, request, inputs, target): ...
                def decode(self, head, body, target, secrets=()): ...
                def error(self, head, body, secrets): ...
    """

    base_url: ClassVar[str]

    @property
    def env(self) -> Mapping[str, str]:
        """Names of environment variables for "api_key", "base_url", "organization" and "project".

        "region" names the variable from which a provider without `base_url` makes its address.
        """

    @property
    def base64_keys(self) -> frozenset[str]:
        """Members of a success reply that hold images in base64. The core decodes them on arrival."""

    @property
    def model_facts(self) -> str:
        """The file with dated data about its models, ``"package:file.toml"``; see `imgkit.catalogue`."""

    @property
    def takes_references(self) -> bool:
        """True if edits accept an `ImageReference` as an input."""

    @property
    def mask_polarity(self) -> MaskPolarity:
        """The pixels that may change, in the masks that `encode` receives.

        Callers always give masks whose transparent pixels may change; imgkit converts them.
        """

    @property
    def credentials(self) -> tuple[Credential, ...]:
        """Headers that carry a key, in the order in which imgkit reads their variables.

        ``api_key=`` of a service is the key of ``env["api_key"]``.
        """

    @property
    def official_hosts(self) -> tuple[str, ...]:
        """Further hosts of the provider itself, by https only.

        ``"*.example.com"`` matches all hosts below example.com.
        """

    def models_request(self, target: Target) -> HttpRequest | None:
        """Return a GET that lists the models, or None if the API has none.

        ``imgkit doctor --live`` sends it: it must be free of charge and need the key. The reply is
        ``{"data": [{"id": …}, …]}``, or Google's ``{"models": [{"name": "models/…"}, …]}``.
        """

    def check(self, request: ImageRequest, target: Target) -> None:
        """Apply the dialect's own rules, before imgkit opens the inputs.

        Raises:
            ConfigurationError: The service lacks a setting. Nothing was sent.
            InvalidRequestError: The dialect cannot express the request. Nothing was sent.
        """

    def encode(self, request: ImageRequest, inputs: OpenedInputs, target: Target) -> HttpRequest:
        """Return the HTTP request, without credentials."""

    def decode(
        self, head: Head, body: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedImages | JobUpdate:
        """Return the images of a 2xx reply. A `JobProvider` may return the job that the API accepted.

        Raises:
            ImgkitError: The reply holds an error or no images, or cannot be read.
        """

    def error(self, head: Head, body: bytes, secrets: tuple[Secret, ...]) -> ImgkitError:
        """Return the error for a reply outside 2xx.

        Args:
            head: status and headers.
            body: the reply's bytes.
            secrets: strings that were sent and must not appear in the message.
        """

    def failure_is_free(self, head: Head, body: bytes) -> bool:
        """Return whether a 5xx reply proves that the request was not billed.

        imgkit then raises the error that `error` returns, and may send the request again. After any other
        5xx reply imgkit raises an `OutcomeUnknownError`, sends nothing again, and counts the attempt as
        spent: a gateway answers 500 too when it gives up, while the API goes on behind it.

        Args:
            head: status, from 500 on, and headers.
            body: the reply's bytes.
        """


def find_credentials(provider: Provider, target: Target) -> tuple[tuple[Credential, ...], str]:
    """Return the credentials for a target, and the variable of the one to which ``api_key=`` belongs.

    Example:
        >>> from imgkit.providers.azure import AzureProvider
        >>> target = Target(base_url="https://acme.openai.azure.com", host_class="official")
        >>> find_credentials(AzureProvider(), target)[1]
        'AZURE_OPENAI_API_KEY'
    """
    # A provider of another base class may lack the method.
    choose = getattr(provider, "choose_credentials", None)
    credentials = tuple(provider.credentials if choose is None else choose(target))
    variables = [credential.variable for credential in credentials]
    key = provider.env["api_key"]
    return credentials, key if key in variables or not variables else variables[0]


_MEMBERS = (
    *("base_url", "env", "base64_keys", "model_facts", "takes_references", "mask_polarity", "credentials"),
    *("official_hosts", "models_request", "check", "encode", "decode", "error"),
)


def check_provider(provider: object) -> None:
    """Reject an object that lacks members of `Provider`.

    Raises:
        ConfigurationError: The message names the members.
    """
    try:
        problem = _find_provider_problem(provider)
    except Exception as error:
        # The object is the caller's: it may raise anything.
        problem = describe_failure(error)
    if problem is not None:
        raise ConfigurationError(
            f"A {type_name(provider)} is not a provider. {problem}. Derive its class from "
            "imgkit.providers.BaseProvider."
        )


def _find_provider_problem(provider: Any) -> str | None:
    missing = [name for name in _MEMBERS if not hasattr(provider, name)]
    if missing:
        return f"It lacks {', '.join(missing)}"
    if not isinstance(provider.env, Mapping) or "api_key" not in provider.env:
        return "Its env is no mapping that names the variable of its api_key"
    if not has_type(provider.base_url, str):
        return "Its base_url is no text"
    return None if isinstance(provider.credentials, tuple | list) else "Its credentials are no tuple"


@runtime_checkable
class StreamingProvider(Protocol):
    """The further methods of a provider whose API streams images while it draws them.

    Example:
        ::

            class AcmeProvider(BaseProvider):
                def encode_stream(self, request, inputs, target, partial_images): ...
                def decode_event(self, head, data, target, secrets=()): ...
    """

    @property
    def base64_keys(self) -> frozenset[str]:
        """As for `Provider`; they hold for the data of events too."""

    def encode_stream(
        self, request: ImageRequest, inputs: OpenedInputs, target: Target, partial_images: int | None
    ) -> HttpRequest:
        """Return the request for a stream of server-sent events.

        Args:
            request, inputs, target: as for `Provider.encode`.
            partial_images: number of partial images that the caller wants, 0 to 3; None if unspecified.

        Raises:
            InvalidRequestError: The API cannot stream this request. Nothing was sent.
        """

    def decode_event(
        self, head: Head, data: ReplyBody, target: Target, secrets: tuple[Secret, ...] = ()
    ) -> DecodedPartialImage | DecodedImages | None:
        """Return the content of an event of a stream.

        Args:
            head: of the reply.
            data: the event's data.
            target: the server that received the request.
            secrets: strings that were sent and must not appear in a message.

        Returns:
            A partial image; the finished images; None for any other event.

        Raises:
            ImgkitError: The event is an error, or cannot be read.
        """
