"""The contract of a provider (`imgkit.providers.Provider`)."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest

import imgkit
from imgkit.errors import ImgkitError
from imgkit.images.inputs import OpenedInputs, open_input
from imgkit.models import CreateImageRequest, ImageRequest
from imgkit.providers.base import DecodedImages, Provider, Target
from imgkit.redact import Secret
from imgkit.testing import canary
from imgkit.testing.samples import png
from imgkit.wire.json_body import JsonReply
from imgkit.wire.messages import Head, HttpRequest

GARBAGE = (
    b"", b"{", b"null", b"[]", b"3", b'"text"', b"<html>", b"\xff\xfe", b"{}", b'{"data": null}',
    b'{"error": {"message": 3, "code": [], "param": {}}}', b'{"error": null}', b'[{"error": "x"}]',
    b'{"error": 3}', b"[" * 5000, b'{"error": "' + b"x" * 100_000 + b'"}',
)  # fmt: skip
GATEWAY_BODIES = (
    b"", b"<html><h1>Gateway</h1></html>", b'{"message": "Service Unavailable"}', b'{"error": "timeout"}',
    b'{"statusCode": 500, "message": "Internal server error"}',
)  # fmt: skip
OWN_ERROR = b'{"error": {"message": "It failed.", "type": "server_error", "code": "server_error"}}'
STATUSES = (
    400,
    401,
    402,
    403,
    404,
    405,
    408,
    409,
    413,
    422,
    429,
    500,
    501,
    502,
    503,
    504,
    520,
    301,
    100,
    599,
)


class ProviderContract:
    """The tests that every provider must pass. They need no backend: a provider does no I/O.

    Override `provider` and `reply`::

        class TestAcme(ProviderContract):
            def provider(self):
                return AcmeProvider()

            def reply(self, pictures):
                encoded = [base64.b64encode(image).decode() for image in pictures]
                return json.dumps({"pictures": encoded}).encode()

    Override `requests` too if the provider has further operations.
    """

    def provider(self) -> Provider:
        """Return a new provider."""
        raise NotImplementedError("Override provider() to return the provider under test.")

    def reply(self, pictures: list[bytes]) -> bytes:
        """Return the body of a success reply with these images, in the provider's dialect."""
        raise NotImplementedError("Override reply() to return a success reply.")

    def requests(self) -> list[ImageRequest]:
        """Return requests that the provider supports, at least one per operation."""
        return [CreateImageRequest(prompt="a fox")]

    def target(self, provider: Provider) -> Target:
        """Return the target of the requests."""
        base_url = provider.base_url or "https://api.example"
        return Target(base_url=base_url, host_class="compatible", model="a-model")

    def encode(self, request: ImageRequest, cleanup: ExitStack) -> HttpRequest:
        """Check and encode a request."""
        provider = self.provider()
        target = self.target(provider)
        value = getattr(request, "image", ())
        sources = value if isinstance(value, list | tuple) else (value,)
        inputs = OpenedInputs(tuple(open_input(source, "image", cleanup) for source in sources))
        provider.check(request, target)
        return provider.encode(request, inputs, target)

    def decode(self, body: bytes, status: int = 200) -> DecodedImages:
        """Decode a success reply that arrives in chunks of 4 KiB."""
        provider = self.provider()
        reply = JsonReply(provider.base64_keys)
        for start in range(0, len(body), 4096):
            reply.feed(body[start : start + 4096])
        reply.close()
        return provider.decode(Head(status, {"x-request-id": "req_1"}), reply, self.target(provider))

    def test_metadata(self) -> None:
        """Declares an https base URL, environment variables and base64 keys of the right types."""
        provider = self.provider()
        if provider.base_url:
            parts = urlsplit(provider.base_url)
            assert parts.scheme == "https"
            assert parts.hostname
            assert not provider.base_url.endswith("/")
        else:
            assert "base_url" in provider.env, "A provider without a base URL needs a variable for it."
        assert "api_key" in provider.env
        assert all(isinstance(name, str) and name for name in provider.env.values())
        assert all(isinstance(key, str) and key for key in provider.base64_keys)

    def test_credentials(self) -> None:
        """Gives each credential its own variable and a lower-case header; `api_key` sets one of them."""
        provider = self.provider()
        credentials = provider.credentials
        assert provider.env["api_key"] in [credential.variable for credential in credentials]
        assert len({credential.variable for credential in credentials}) == len(credentials)
        assert all(item.header and item.header == item.header.lower() for item in credentials)

    def test_official_hosts(self) -> None:
        """Names official hosts by domain, never by address or by a lone wildcard."""
        provider = self.provider()
        for name in provider.official_hosts:
            labels = name.removeprefix("*.").split(".")
            assert name == name.lower()
            assert len(labels) > 1
            assert all(label and "*" not in label and "/" not in label for label in labels)

    def test_models_request(self) -> None:
        """Requests the list of models with a GET to the target, without credentials."""
        provider = self.provider()
        target = self.target(provider)
        request = provider.models_request(target)
        if request is not None:
            assert request.method == "GET"
            assert request.url.startswith(target.base_url)
            assert not {credential.header for credential in provider.credentials} & set(request.headers)

    def test_encodes_requests(self) -> None:
        """Encodes equal requests to equal bytes, for the target, without credentials."""
        for request in self.requests():
            with ExitStack() as cleanup:
                first, second = self.encode(request, cleanup), self.encode(request, cleanup)
                bodies = [b"".join(encoded.body.blocks()) for encoded in (first, second, second)]
                assert bodies[0] == bodies[1] == bodies[2]
                assert len(bodies[0]) == first.body.length
                assert (first.url, dict(first.headers)) == (second.url, dict(second.headers))
                assert first.method == "POST"
                assert first.url.startswith(self.target(self.provider()).base_url)
                assert first.body.content_type
                assert all(name == name.lower() for name in first.headers)
                secret_headers = {credential.header for credential in self.provider().credentials}
                assert not {"authorization", "content-length", "content-type", *secret_headers} & set(
                    first.headers
                )

    def test_decodes_images(self) -> None:
        """Decodes images of any size byte for byte."""
        images = [png(1), png(2, 64), png(3)]
        assert [image.data for image in self.decode(self.reply(images)).pictures] == images

    def test_reply_without_images_is_an_error(self) -> None:
        """Reports a reply without images as an error that may have been billed."""
        for body in (self.reply([]), *GARBAGE):
            with pytest.raises(ImgkitError) as caught:
                self.decode(body)
            self.assert_presentable(caught.value)
            assert caught.value.maybe_billed or isinstance(caught.value, imgkit.ApiError)

    def test_truncated_replies(self) -> None:
        """Never decodes wrong bytes from a truncated reply."""
        images = [png(1), png(2, 64)]
        body = self.reply(images)
        for end in range(1, len(body), max(1, len(body) // 50)):
            try:
                decoded = self.decode(body[:end])
            except ImgkitError as error:
                self.assert_presentable(error)
            else:
                assert all(image.data in images for image in decoded.pictures)

    @pytest.mark.parametrize("status", STATUSES)
    def test_maps_errors(self, status: int) -> None:
        """Maps any body of an error status to an imgkit error that hides the key."""
        provider = self.provider()
        echo = json.dumps({"error": {"message": f"the key {canary.KEY} is wrong", "code": "x"}}).encode()
        for body in (echo, *GARBAGE):
            head = Head(status, {"x-request-id": "req_1"})
            error = provider.error(head, body, (Secret(canary.KEY),))
            assert isinstance(error, ImgkitError)
            self.assert_presentable(error)
            if isinstance(error, imgkit.ApiError):
                assert error.status == status
                assert error.request_id == "req_1"

    def test_retry_relevant_errors(self) -> None:
        """Distinguishes wrong keys, rate limits with their wait, and gateway pages."""
        provider = self.provider()
        body = json.dumps({"error": {"message": "no"}}).encode()
        assert isinstance(provider.error(Head(401, {}), body, ()), imgkit.AuthenticationError)
        rate_limit = provider.error(Head(429, {"retry-after": "7"}), body, ())
        assert isinstance(rate_limit, imgkit.RateLimitError)
        assert rate_limit.retry_after_s == 7
        for status in (502, 504):
            assert isinstance(provider.error(Head(status, {}), b"<html>", ()), imgkit.OutcomeUnknownError)

    def test_free_failures(self) -> None:
        """Calls no reply of a gateway free, and returns an unbilled error for every free failure."""
        provider = self.provider()
        for head in (Head(status, {}) for status in range(500, 600)):
            for body in GATEWAY_BODIES:
                assert provider.failure_is_free(head, body) is False
            for body in (OWN_ERROR, *GARBAGE):
                if provider.failure_is_free(head, body):
                    assert not provider.error(head, body, ()).maybe_billed

    def assert_presentable(self, error: Any) -> None:
        """Fail unless the error's message is 10 to 2,000 characters long and hides the key."""
        assert 10 < len(str(error)) < 2000
        assert canary.KEY not in f"{error}{error!r}{error.args}"
