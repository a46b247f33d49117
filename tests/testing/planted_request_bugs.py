"""Planted bugs of providers: each is OpenAI's provider with a mistake in an address, a body or conduct."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from imgkit.providers import (
    BytesBody,
    Credential,
    DecodedImages,
    Field,
    File,
    HttpRequest,
    MultipartBody,
    OpenAIProvider,
    OpenedInputs,
    Target,
)
from imgkit.wire.messages import hash_blocks
from tests.testing.planted_bugs import plant

# --- Addresses and keys ----------------------------------------------------------------------


@plant("test_sends_operations_to_their_endpoints", "create_image_edit goes to .*/generations")
class SendsEditsToGenerations(OpenAIProvider):
    """The API draws a new image in place of the edit."""

    def url(self, request: Any, target: Target) -> str:
        return super().url(request, target).replace("/edits", "/generations")


@plant("test_follows_the_target", "Build the URL from target.base_url")
class IgnoresBaseUrl(OpenAIProvider):
    """Requests for a company's own server go to the public API."""

    def url(self, request: Any, target: Target) -> str:
        return super().url(request, replace(target, base_url=self.base_url))


@plant("test_follows_the_target", "ignores target.organization")
class IgnoresOrganization(OpenAIProvider):
    """Another organization pays."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        return super().encode(request, inputs, replace(target, organization=None))


@plant("test_requests_hold_no_credentials", "The key is in the query")
class PutsKeyIntoQuery(OpenAIProvider):
    """Proxies and access logs keep URLs."""

    def url(self, request: Any, target: Target) -> str:
        return f"{super().url(request, target)}?u={os.environ.get('OPENAI_API_KEY', '')}"


@plant("test_requests_hold_no_credentials", "The query of the URL has api_key")
class HasQueryForKey(OpenAIProvider):
    """A plugin that fills the place in puts the key into every log."""

    def url(self, request: Any, target: Target) -> str:
        return f"{super().url(request, target)}?api_key="


@plant("test_requests_hold_no_credentials", "The key is in the body")
class PutsKeyIntoBody(OpenAIProvider):
    """Cassettes and the cache keep bodies."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        members = {**(request.extra_body or {}), "key": os.environ.get("OPENAI_API_KEY", "")}
        return super().encode(replace(request, extra_body=members), inputs, target)


@plant("test_requests_hold_no_credentials", "The provider keeps the key")
class KeepsKey(OpenAIProvider):
    """Tracebacks with local variables, and debuggers, show the attributes of a provider."""

    def __init__(self) -> None:
        self.key = os.environ.get("OPENAI_API_KEY", "")

    def __repr__(self) -> str:
        return f"KeepsKey({self.key!r})"


@plant("test_encodes_requests", "encode.. sets authorization")
class SetsAuthorization(OpenAIProvider):
    """The plugin that refreshes a token is without effect."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        encoded = super().encode(request, inputs, target)
        return replace(encoded, headers={**encoded.headers, "authorization": "Bearer"})


# --- Bytes ------------------------------------------------------------------------------------


@plant("test_encodes_requests", "Two equal create_image requests differ")
class AddsRandomHeader(OpenAIProvider):
    """No request is found in the cache, and no cassette matches."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        encoded = super().encode(request, inputs, target)
        return replace(encoded, headers={**encoded.headers, "x-trace": uuid.uuid4().hex})


class OneTimeBody:
    """A body whose generator is consumed by its first reader."""

    def __init__(self, data: bytes, content_type: str) -> None:
        self.content_type = content_type
        self.length = len(data)
        self._blocks = (data[start : start + 8] for start in range(0, len(data), 8))

    def blocks(self) -> Iterator[bytes]:
        return self._blocks

    def sha256(self) -> str:
        return hash_blocks(self)


@plant("test_bodies_can_be_read_again", "The second reading of a create_image body gives other bytes")
class ConsumesBody(OpenAIProvider):
    """The retry after a rate limit sends an empty body."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        encoded = super().encode(request, inputs, target)
        body = OneTimeBody(b"".join(encoded.body.blocks()), encoded.body.content_type)
        return replace(encoded, body=body)


@dataclass
class WrongLengthBody:
    """A body with the length of its text in characters."""

    data: bytes
    content_type: str

    @property
    def length(self) -> int:
        return len(self.data) - 1

    def blocks(self) -> Iterator[bytes]:
        yield self.data

    def sha256(self) -> str:
        return hash_blocks(self)


@plant("test_bodies_can_be_read_again", "its length says")
class CountsCharacters(OpenAIProvider):
    """Servers cut the body off, or wait for bytes that never come."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        encoded = super().encode(request, inputs, target)
        body = WrongLengthBody(b"".join(encoded.body.blocks()), encoded.body.content_type)
        return replace(encoded, body=body)


@plant("test_content_type_is_true", "The body is sent as text/plain, and begins with")
class SendsJsonAsText(OpenAIProvider):
    """Servers refuse the body, or read it as a form."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        encoded = super().encode(request, inputs, target)
        return replace(encoded, body=BytesBody(b"".join(encoded.body.blocks()), "text/plain"))


@plant("test_content_type_is_true", "A GIF is sent as image/png")
class SendsEveryImageAsPng(OpenAIProvider):
    """The API decodes the file as another format, and refuses it."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        encoded = super().encode(request, inputs, target)
        if not isinstance(encoded.body, MultipartBody):
            return encoded
        parts: list[Field | File] = [
            replace(part, media_type="image/png") if isinstance(part, File) else part
            for part in encoded.body.parts
        ]
        return replace(encoded, body=MultipartBody(parts))


@plant("test_leaves_requests_unchanged", "Encoding changes extra_body of the caller's create_image request")
class ChangesExtraBody(OpenAIProvider):
    """The caller's next request lacks the member."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        members = dict(request.extra_body or {})
        if request.extra_body:
            request.extra_body.clear()
        return super().encode(replace(request, extra_body=members), inputs, target)


# --- Conduct ----------------------------------------------------------------------------------


@plant("test_does_no_io", "encode.. does I/O: open")
class OpensFileToEncode(OpenAIProvider):
    """The event loop stands still while the disk is busy."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        with open(__file__, "rb") as file:
            file.read(1)
        return super().encode(request, inputs, target)


@plant("test_does_no_io", "decode.. does I/O: socket.")
class ConnectsToDecode(OpenAIProvider):
    """A download that no deadline, proxy or address check covers."""

    def decode(self, *arguments: Any, **options: Any) -> DecodedImages:
        with socket.socket() as connection:
            connection.settimeout(1)
        return super().decode(*arguments, **options)


@plant("test_does_no_io", "decode.. does I/O: ")
class HidesFailedConnection(OpenAIProvider):
    """The provider catches its exceptions, so nobody sees them."""

    def decode(self, *arguments: Any, **options: Any) -> DecodedImages:
        try:
            socket.create_connection(("localhost", 9), 0.1)
        except Exception as error:
            self.problem = str(error)
        return super().decode(*arguments, **options)


@plant("test_does_no_io", "error.. does I/O: time.sleep")
class SleepsForErrors(OpenAIProvider):
    """All calls of the async service wait, not only this one."""

    def error(self, head: Any, body: bytes, secrets: Any) -> Any:
        time.sleep(0.001)
        return super().error(head, body, secrets)


@plant("test_keeps_calls_apart", "gives another result while the provider serves another call")
class KeepsRequest(OpenAIProvider):
    """Two threads get the image of one prompt."""

    def check(self, request: Any, target: Target) -> None:
        self.request = request

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        return super().encode(self.request, inputs, target)


@plant("test_keeps_calls_apart", "gives another result while the provider serves another call")
class RemembersCount(OpenAIProvider):
    """The reply to one call is cut to the number of images of another."""

    count = 10

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        self.count = request.n or 1
        return super().encode(request, inputs, target)

    def decode(self, *arguments: Any, **options: Any) -> DecodedImages:
        decoded = super().decode(*arguments, **options)
        return replace(decoded, pictures=decoded.pictures[: self.count])


@plant("test_keeps_calls_apart", "gives another result while the provider serves another call")
class CollectsImages(OpenAIProvider):
    """Each reply has the images of all earlier replies, too."""

    def __init__(self) -> None:
        self.images: list[Any] = []

    def decode(self, *arguments: Any, **options: Any) -> DecodedImages:
        decoded = super().decode(*arguments, **options)
        self.images += decoded.pictures
        return replace(decoded, pictures=tuple(self.images))


# --- Declarations -----------------------------------------------------------------------------


@plant("test_metadata", "A key travels by https only")
class HasPlainAddress(OpenAIProvider):
    """The key crosses the network in the clear."""

    base_url: ClassVar[str] = "http://api.openai.com/v1"


@plant("test_credentials", "no credential has this variable")
class HasNoVariableForItsKey(OpenAIProvider):
    """``api_key=`` of a service has no header."""

    credentials: ClassVar[Any] = (Credential(variable="OTHER_KEY"),)


@plant("test_official_hosts", "the key goes to these hosts")
class TrustsEveryHost(OpenAIProvider):
    """The key goes to any server that base_url names."""

    official_hosts: ClassVar[tuple[str, ...]] = ("*",)


@plant("test_models_request", "by POST, not GET")
class ListsModelsByPost(OpenAIProvider):
    """``imgkit doctor --live`` might cost money."""

    def models_request(self, target: Target) -> HttpRequest:
        return HttpRequest("POST", f"{target.base_url}/models", {"accept": "application/json"})
