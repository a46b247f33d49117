"""The contract of a provider: `imgkit.providers.base.Provider`."""

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
    """What every provider does. It is tested without any backend: a provider does no I/O."""

    def provider(self) -> Provider:
        """Return a new provider."""
        raise NotImplementedError("a contract is told what to test")

    def reply(self, pictures: list[bytes]) -> bytes:
        """Return the body of a success reply with these pictures, in the dialect."""
        raise NotImplementedError("a contract is told what a reply looks like")

    def requests(self) -> list[ImageRequest]:
        """Return requests that the provider takes; one of each operation that it has."""
        return [CreateImageRequest(prompt="a fox")]

    def target(self, provider: Provider) -> Target:
        """Return where requests go."""
        base_url = provider.base_url or "https://api.example"
        return Target(base_url=base_url, host_class="compatible", model="a-model")

    def encode(self, request: ImageRequest, cleanup: ExitStack) -> HttpRequest:
        """Return a request as it goes out."""
        provider = self.provider()
        target = self.target(provider)
        listed = getattr(request, "image", ())
        images = listed if isinstance(listed, list | tuple) else (listed,)
        inputs = OpenedInputs(tuple(open_input(one, "image", cleanup) for one in images))
        provider.check(request, target)
        return provider.encode(request, inputs, target)

    def decode(self, body: bytes, status: int = 200) -> DecodedImages:
        """Return what a success reply says."""
        provider = self.provider()
        reply = JsonReply(provider.base64_keys)
        for start in range(0, len(body), 4096):
            reply.feed(body[start : start + 4096])
        reply.close()
        return provider.decode(Head(status, {"x-request-id": "req_1"}), reply, self.target(provider))

    def test_its_description(self) -> None:
        """Address, environment and keys are what the core relies on."""
        provider = self.provider()
        if provider.base_url:
            parts = urlsplit(provider.base_url)
            assert parts.scheme == "https"
            assert parts.hostname
            assert not provider.base_url.endswith("/")
        else:
            assert "base_url" in provider.env, "without an address of its own, a variable gives one"
        assert "api_key" in provider.env
        assert all(isinstance(name, str) and name for name in provider.env.values())
        assert all(isinstance(key, str) and key for key in provider.base64_keys)

    def test_its_credentials(self) -> None:
        """Each has a variable and a header of its own; ``api_key=`` goes with one of them."""
        provider = self.provider()
        credentials = provider.credentials
        assert provider.env["api_key"] in [one.variable for one in credentials]
        assert len({one.variable for one in credentials}) == len(credentials)
        assert all(one.header and one.header == one.header.lower() for one in credentials)

    def test_its_hosts(self) -> None:
        """Names of hosts are names, not addresses, and never all hosts there are."""
        provider = self.provider()
        for name in provider.official_hosts:
            labels = name.removeprefix("*.").split(".")
            assert name == name.lower()
            assert len(labels) > 1
            assert all(label and "*" not in label and "/" not in label for label in labels)

    def test_its_list_of_models(self) -> None:
        """The free request is a GET to where all requests go, without credentials."""
        provider = self.provider()
        target = self.target(provider)
        request = provider.models_request(target)
        if request is not None:
            assert request.method == "GET"
            assert request.url.startswith(target.base_url)
            assert not {one.header for one in provider.credentials} & set(request.headers)

    def test_requests(self) -> None:
        """Equal requests are equal bytes, go to the target, and hold no credentials."""
        for request in self.requests():
            with ExitStack() as cleanup:
                first, second = self.encode(request, cleanup), self.encode(request, cleanup)
                bodies = [b"".join(one.body.blocks()) for one in (first, second, second)]
                assert bodies[0] == bodies[1] == bodies[2]
                assert len(bodies[0]) == first.body.length
                assert (first.url, dict(first.headers)) == (second.url, dict(second.headers))
                assert first.method == "POST"
                assert first.url.startswith(self.target(self.provider()).base_url)
                assert first.body.content_type
                assert all(name == name.lower() for name in first.headers)
                own = {one.header for one in self.provider().credentials}
                assert not {"authorization", "content-length", "content-type", *own} & set(first.headers)

    def test_pictures(self) -> None:
        """Pictures come out byte for byte, whatever their size."""
        wanted = [png(1), png(2, 64), png(3)]
        assert [one.data for one in self.decode(self.reply(wanted)).pictures] == wanted

    def test_replies_without_pictures(self) -> None:
        """They are errors that say that something may have been billed."""
        for body in (self.reply([]), *GARBAGE):
            with pytest.raises(ImgkitError) as caught:
                self.decode(body)
            self.fit(caught.value)
            assert caught.value.maybe_billed or isinstance(caught.value, imgkit.ApiError)

    def test_cut_replies(self) -> None:
        """A reply that is cut off anywhere is an error, or has fewer pictures; never wrong bytes."""
        wanted = [png(1), png(2, 64)]
        whole = self.reply(wanted)
        for end in range(1, len(whole), max(1, len(whole) // 50)):
            try:
                answer = self.decode(whole[:end])
            except ImgkitError as error:
                self.fit(error)
            else:
                assert all(one.data in wanted for one in answer.pictures)

    @pytest.mark.parametrize("status", STATUSES)
    def test_errors(self, status: int) -> None:
        """Whatever a body says, a reply that is not 2xx is an error of imgkit's tree, fit to be shown."""
        provider = self.provider()
        echo = json.dumps({"error": {"message": f"the key {canary.KEY} is wrong", "code": "x"}}).encode()
        for body in (echo, *GARBAGE):
            head = Head(status, {"x-request-id": "req_1"})
            error = provider.error(head, body, (Secret(canary.KEY),))
            assert isinstance(error, ImgkitError)
            self.fit(error)
            if isinstance(error, imgkit.ApiError):
                assert error.status == status
                assert error.request_id == "req_1"

    def test_errors_that_the_core_acts_on(self) -> None:
        """Wrong keys and rate limits have classes of their own; a gateway's page is no answer of the API."""
        provider = self.provider()
        body = json.dumps({"error": {"message": "no"}}).encode()
        assert isinstance(provider.error(Head(401, {}), body, ()), imgkit.AuthenticationError)
        limited = provider.error(Head(429, {"retry-after": "7"}), body, ())
        assert isinstance(limited, imgkit.RateLimitError)
        assert limited.retry_after_s == 7
        for status in (502, 504):
            assert isinstance(provider.error(Head(status, {}), b"<html>", ()), imgkit.OutcomeUnknownError)

    def fit(self, error: Any) -> None:
        """Assert that an error can be shown: short, and without the key."""
        assert 10 < len(str(error)) < 2000
        assert canary.KEY not in f"{error}{error!r}{error.args}"
