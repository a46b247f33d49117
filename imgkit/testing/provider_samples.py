"""The samples that the contract of a provider works with: requests, replies and values of fields."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from imgkit.errors import ConfigurationError, InvalidRequestError
from imgkit.images.inputs import ImageFile, OpenedInputs, open_input
from imgkit.images.references import ImageReference
from imgkit.models import (
    CreateImageEditRequest,
    CreateImageRequest,
    CreateImageVariationRequest,
    ImageRequest,
    Usage,
)
from imgkit.providers.base import DecodedImages, Provider, ReplyBody, Target
from imgkit.providers.fakes import FakeApi
from imgkit.providers.job_base import UploadingProvider
from imgkit.redact import Secret
from imgkit.testing import canary
from imgkit.testing.samples import png
from imgkit.testing.upload_course import play_uploads
from imgkit.wire.json_body import JsonReply
from imgkit.wire.messages import Head, HttpRequest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

POLLS_AT_WORK = 3
"""Polls that find the job of the contract at work."""

ValueT = TypeVar("ValueT", bound="DataclassInstance")

SAMPLE_REQUESTS: tuple[ImageRequest, ...] = (
    CreateImageRequest(prompt="a fox"),
    CreateImageEditRequest(image=(png(1),), prompt="a hat"),
    CreateImageVariationRequest(image=png(1)),
)
"""A request for each operation."""

FIELD_VALUES: Mapping[str, Sequence[Any]] = {
    "prompt": ("a fox", "an owl", 'Füchse & "Eulen" 🦊\n%41'),
    "model": ("model-a", "model-b"),
    "n": (2, 3),
    "size": ("1024x1024", "1536x1024", "1024x1536"),
    "aspect_ratio": ("16:9", "1:1", "3:4"),
    "resolution": ("1K", "2K"),
    "seed": (7, 8),
    "negative_prompt": ("rain", "snow"),
    "quality": ("low", "high"),
    "background": ("transparent", "opaque"),
    "output_format": ("png", "jpeg", "webp"),
    "output_compression": (40, 80),
    "moderation": ("auto", "low"),
    "input_fidelity": ("low", "high"),
    "response_format": ("url", "b64_json"),
    "style": ("vivid", "natural"),
    "complexity": ("low", "high"),
    "frame_count": (4, 8),
    "frame_duration_ms": (100, 200),
    "svg": ({"model": "a"}, {"model": "b"}),
    "safety_identifier": ("person-1", "person-2"),
    "user": ("person-1", "person-2"),
    "model_options": ({"contract_option": 1}, {"contract_option": 2}),
    "extra_body": ({"contract_member": 1}, {"contract_member": 2}, {"contract_member": ["a", "b"]}),
    "extra_headers": ({"x-contract": "1"}, {"x-contract": "2"}),
}
"""Values by field of a request, without images. No two values of a field mean the same."""


class ProviderSamples:
    """The samples of a provider's contract. `ProviderContract` describes how to override them."""

    endpoints: ClassVar[Mapping[str, str]] = {}
    """The end of the URL's path by operation, such as ``{"create_image_edit": "/images/edits"}``."""

    images_per_reply: ClassVar[int] = 3
    """The largest number of images in a reply, up to 3."""

    reply_headers: ClassVar[Mapping[str, str]] = {"content-type": "application/json"}
    """The headers of a success reply."""

    def provider(self) -> Provider:
        """Return a new provider."""
        raise NotImplementedError("Override provider() to return the provider under test.")

    def reply(self, pictures: list[bytes]) -> bytes | None:
        """Return the body of a success reply with these images, in the provider's dialect.

        Return None if the API only sends URLs, and override `url_reply`.
        """
        raise NotImplementedError("Override reply() to return a success reply.")

    def url_reply(self, urls: list[str]) -> bytes | None:
        """Return the body of a success reply with the URLs of images; None if the API sends none."""
        return None

    def usage_reply(self, pictures: list[bytes], usage: Usage) -> bytes | None:
        """Return a success reply that reports input, output and total tokens; None if the API has none."""
        return None

    def error_reply(self, message: str) -> bytes:
        """Return the body of an error reply with a message, in the provider's dialect."""
        return json.dumps({"error": {"message": message}}).encode()

    def requests(self) -> list[ImageRequest]:
        """Return requests that the provider supports.

        The contract adds a request for each other operation that the provider takes.
        """
        return [CreateImageRequest(prompt="a fox")]

    def copy_values(self, field: str) -> Sequence[Any]:
        """Return copies of the `field_values`: a provider may change what it gets."""
        return copy.deepcopy(self.field_values(field))

    def field_values(self, field: str) -> Sequence[Any]:
        """Return values of a request's field that mean different things; at least two.

        Override it for a dialect in which some of the default values mean the same. The test allows any
        of them to be refused.
        """
        return FIELD_VALUES[field]

    def fake(self, scenario: str = "success", polls: int = POLLS_AT_WORK) -> FakeApi:
        """Return the API's side in small, for jobs and uploads.

        Args:
            scenario: one of `imgkit.providers.fakes.SCENARIOS`.
            polls: number of polls that find a job at work.
        """
        make = getattr(self.provider(), "fake", None)
        assert make is not None, "The provider has no fake. Set its attribute, or override fake()."
        fake: FakeApi = make(scenario, polls=polls)
        return fake

    def sample_url(self, name: str) -> str:
        """Return the address of a file of the API. Override it for replies that name files in their place."""
        return f"https://files.example/{name}?sig=a%2Fb"

    def target(self, provider: Provider) -> Target:
        """Return the target of the requests."""
        accepts = getattr(provider, "accepts", None)
        takes_model = accepts is None or all("model" in fields for fields in accepts.values())
        return Target(
            base_url=provider.base_url or "https://api.example",
            host_class="compatible",
            model="a-model" if takes_model else None,
        )

    @property
    def secret_headers(self) -> set[str]:
        """The names of the headers that an auth plugin sets."""
        return {"authorization", *(credential.header for credential in self.provider().credentials)}

    def list_input_requests(self) -> list[ImageRequest]:
        """Return the requests with input images."""
        return [request for request in self.list_requests() if request.operation != "create_image"]

    def list_requests(self) -> list[ImageRequest]:
        """Return `requests`, and a request for each other operation that the provider takes."""
        requests = self.requests()
        operations = {request.operation for request in requests}
        others = [request for request in SAMPLE_REQUESTS if request.operation not in operations]
        return [*requests, *(request for request in others if self.takes_operation(request))]

    def takes_operation(self, request: ImageRequest) -> bool:
        """Return whether the provider takes the operation of a request; fail if the request lacks a field."""
        with ExitStack() as cleanup:
            try:
                self.encode(request, cleanup)
            except ConfigurationError:
                return False
            except InvalidRequestError as error:
                missing = {name for name in error.fields if getattr(request, name, "") is None}
                if not missing:
                    return False
            else:
                return True
        raise AssertionError(
            f"{request.operation} needs {', '.join(sorted(missing))}. Override requests() and return such a "
            'request. To refuse the operation, raise InvalidRequestError({"operation": "…"}) in check().'
        )

    def takes_request(self, request: ImageRequest) -> bool:
        """Return whether the provider takes a request."""
        with ExitStack() as cleanup:
            try:
                self.encode(request, cleanup)
            except (ConfigurationError, InvalidRequestError):
                return False
        return True

    def encode(
        self,
        request: ImageRequest,
        cleanup: ExitStack,
        provider: Provider | None = None,
        target: Target | None = None,
    ) -> HttpRequest:
        """Check and encode a request.

        Args:
            request: the request; the contract opens its images.
            cleanup: closes the opened images.
            provider: a new provider if None.
            target: the target of the contract if None.
        """
        provider = provider or self.provider()
        return self.encode_opened(request, open_inputs(request, cleanup), provider, target)

    def encode_opened(
        self, request: ImageRequest, inputs: OpenedInputs, provider: Provider, target: Target | None = None
    ) -> HttpRequest:
        """Check and encode a request whose images are open."""
        target = target or self.target(provider)
        provider.check(request, target)
        if isinstance(provider, UploadingProvider):
            inputs = play_uploads(provider, request, inputs, target, self.fake())
        return provider.encode(request, inputs, target)

    def read_body(self, body: bytes, provider: Provider) -> JsonReply:
        """Return the body of a success reply that arrives in chunks of 4 KiB."""
        reply = JsonReply(provider.base64_keys)
        for start in range(0, len(body), 4096):
            reply.feed(body[start : start + 4096])
        reply.close()
        return reply

    def decode(
        self,
        body: bytes,
        status: int = 200,
        provider: Provider | None = None,
        secrets: tuple[Secret, ...] = (),
    ) -> DecodedImages:
        """Decode a success reply with a new provider, or with the given provider."""
        provider = provider or self.provider()
        head = Head(status, {**self.reply_headers, "x-request-id": "req_1"})
        reply = self.read_body(body, provider)
        return self.decode_body(provider, head, reply, secrets)

    def decode_body(
        self, provider: Provider, head: Head, reply: ReplyBody, secrets: tuple[Secret, ...]
    ) -> DecodedImages:
        """Decode the body of a success reply."""
        decoded = provider.decode(head, reply, self.target(provider), secrets)
        assert isinstance(decoded, DecodedImages), "The sample reply names a job in place of images."
        return decoded

    def is_free(self, provider: Provider, head: Head, body: bytes) -> bool:
        """Return whether the provider calls a 5xx reply free. A provider without the method calls none so."""
        rule = getattr(provider, "failure_is_free", None)
        return rule is not None and rule(head, body)

    def sample_reply(self, count: int, seed: int = 1) -> tuple[bytes, list[bytes | str]]:
        """Return the body of a success reply, and the bytes or the URLs of its images.

        Args:
            count: number of images; fewer if the API never sends so many.
            seed: different seeds give different images.
        """
        count = min(count, self.images_per_reply)
        # Small images stay in the JSON text; large images are decoded while they arrive.
        images = [png(seed + number, 8 if number % 2 else 64) for number in range(count)]
        body = self.reply(images)
        if body is not None:
            return body, list(images)
        urls = [self.sample_url(f"{seed + number}.png") for number in range(count)]
        body = self.url_reply(urls)
        assert body is not None, "Override reply() for replies with images, or url_reply() for URLs."
        return body, list(urls)

    def assert_presentable(self, error: Any) -> None:
        """Fail unless the error's message is 10 to 2,000 characters long and hides the key."""
        kind, size = type(error).__name__, len(str(error))
        assert 10 < size < 2000, (
            f"The message of {kind} has {size} characters. Write a sentence or two; cut "
            "long texts of the server."
        )
        texts = [str(error), repr(error), repr(error.args), repr(getattr(error, "__notes__", ()))]
        texts += [repr(value) for value in vars(error).values() if isinstance(value, str | tuple | dict)]
        for key in (canary.KEY, canary.PLAIN_KEY):
            assert not any(key in text for text in texts), (
                f"{kind} repeats the key: {error}. Pass `secrets` on, to error_from_reply, "
                "to refused or to readable."
            )


def open_inputs(request: ImageRequest, cleanup: ExitStack) -> OpenedInputs:
    """Return the opened images of a request.

    Args:
        request: its images may be references.
        cleanup: closes the opened images.
    """

    def open_image(value: object, field: str) -> ImageFile | ImageReference:
        return value if isinstance(value, ImageReference) else open_input(value, field, cleanup)

    if isinstance(request, CreateImageRequest):
        return OpenedInputs()
    images = request.image if isinstance(request.image, list | tuple) else (request.image,)
    names = ["image"] if len(images) == 1 else [f"image.{index}" for index in range(len(images))]
    opened = tuple(open_image(value, name) for value, name in zip(images, names, strict=True))
    overlays = {
        name: open_image(value, name)
        for name in ("mask", "markup")
        if (value := getattr(request, name, None)) is not None
    }
    return OpenedInputs(opened, overlays.get("mask"), overlays.get("markup"))


def list_contents(decoded: DecodedImages) -> list[bytes | str | None]:
    """Return the bytes of each decoded image, or its URL."""
    return [
        image.source.read() if image.source is not None else image.data or image.url
        for image in decoded.pictures
    ]


def change(value: ValueT, **fields: Any) -> ValueT:
    """Return a request or a target with other values in some fields.

    >>> change(CreateImageRequest(prompt="a fox"), n=2).n
    2
    """
    return replace(value, **fields)
