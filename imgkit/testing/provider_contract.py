"""The contract of a provider (`imgkit.providers.Provider`)."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from urllib.parse import urlsplit

from imgkit.images.inputs import OpenedInputs
from imgkit.models import ImageRequest, field_names
from imgkit.providers.base import Provider
from imgkit.testing.provider_guards import forbid_io, list_source_files, run_interleaved
from imgkit.testing.provider_replies import OWN_ERROR, SECRETS, ProviderReplyTests
from imgkit.testing.provider_requests import ProviderRequestTests
from imgkit.testing.provider_samples import change, list_contents, open_inputs
from imgkit.testing.request_checks import assert_no_key, join_wire
from imgkit.testing.samples import png
from imgkit.wire.messages import Head
from imgkit.wire.urls import is_loopback


class ProviderContract(ProviderRequestTests, ProviderReplyTests):
    """The tests that every provider must pass. They need no backend: a provider does no I/O.

    Override `provider` and `reply`::

        class TestAcme(ProviderContract):
            def provider(self):
                return AcmeProvider()

            def reply(self, pictures):
                encoded = [base64.b64encode(image).decode() for image in pictures]
                return json.dumps({"pictures": encoded}).encode()

    Override further methods if the dialect has more: `url_reply` and `usage_reply` for replies with URLs
    and with token counts, `error_reply` for errors of another shape than OpenAI's, `requests` for
    operations that need certain fields, `field_values` for fields with values of their own, `fake` for an
    `imgkit.providers.UploadingProvider` without this attribute. `endpoints`, `images_per_reply` and
    `reply_headers` are attributes.
    """

    def test_metadata(self) -> None:
        """Declares an https base URL, environment variables and base64 keys of the right types."""
        provider = self.provider()
        base_url, variables = provider.base_url, provider.env
        if base_url:
            parts = urlsplit(base_url)
            is_near = is_loopback(parts.hostname or "")
            is_safe = parts.scheme == "https" or is_near
            assert is_safe, f"base_url is {base_url!r}. A key travels by https only, but to this machine."
            assert parts.hostname, f"base_url is {base_url!r}, which names no host."
            assert not base_url.endswith("/"), f"base_url is {base_url!r}. Leave out the slash at its end."
        else:
            assert "base_url" in variables, "A provider without a base URL needs a variable for it in `env`."
        assert "api_key" in variables, "`env` names no variable for the API key."
        assert all(isinstance(name, str) and name for name in variables.values()), f"`env` is {variables!r}."
        keys = provider.base64_keys
        assert all(isinstance(key, str) and key for key in keys), f"base64_keys is {keys!r}."

    def test_credentials(self) -> None:
        """Gives each credential its own variable and a lower-case header; `api_key` sets one of them."""
        provider = self.provider()
        variables = [credential.variable for credential in provider.credentials]
        key = provider.env["api_key"]
        assert key in variables, f"`env` reads the API key from {key}, and no credential has this variable."
        assert len(set(variables)) == len(variables), f"Two credentials share a variable: {variables}."
        for header in (credential.header for credential in provider.credentials):
            assert header, "A credential names no header."
            assert header == header.lower(), f"The header {header!r} of a credential is not in lower case."

    def test_official_hosts(self) -> None:
        """Names official hosts by domain, never by address or by a lone wildcard."""
        for name in self.provider().official_hosts:
            assert re.fullmatch(r"(\*\.)?([a-z0-9-]+\.)+[a-z][a-z0-9-]*", name), (
                f"official_hosts has {name!r}. Name a domain in lower case, such as api.example.com or "
                "*.example.com: the key goes to these hosts."
            )

    def test_models_request(self) -> None:
        """Requests the list of models with a GET to the target, without credentials."""
        provider = self.provider()
        target = self.target(provider)
        request = provider.models_request(target)
        if request is not None:
            assert request.method == "GET", f"The list of models is asked for by {request.method}, not GET."
            assert request.url.startswith(target.base_url), f"The list of models is at {request.url}."
            assert_no_key(request, self.secret_headers)

    def test_does_no_io(self) -> None:
        """Opens no file and no socket, starts no process and no thread, and does not sleep."""
        with ExitStack() as cleanup:
            for name, call in self.list_calls(self.provider(), cleanup):
                for is_first in (True, False):
                    # Modules and package data may load on first use.
                    with forbid_io(f"{name}()", allow_reading=is_first):
                        call()

    def test_keeps_calls_apart(self) -> None:
        """Gives a call the same result beside another call, and after it."""
        files = list_source_files(type(self.provider()))
        for request in self.list_requests():
            expected = self.run_call(self.provider(), request, 1)
            provider = self.provider()
            call = partial(self.run_call, provider, request, 1)
            other = partial(self.run_call, provider, self.change_request(request), 4)
            for result in [*run_interleaved(call, other, files), call()]:
                assert result == expected, (
                    f"{request.operation} gives another result while the provider serves another call, or "
                    f"after it: {result!r:.300} in place of {expected!r:.300}. Threads and tasks share a "
                    "provider: keep nothing of a call in its attributes, or in globals."
                )

    def list_calls(self, provider: Provider, cleanup: ExitStack) -> list[tuple[str, Callable[[], object]]]:
        """Return calls of all methods of the provider, each with the name of its method.

        Args:
            provider: the provider under test.
            cleanup: closes the images of the requests.
        """
        calls: list[tuple[str, Callable[[], object]]] = [
            ("models_request", partial(provider.models_request, self.target(provider)))
        ]
        for request in self.list_requests():
            inputs = open_inputs(request, cleanup)
            calls.append(("encode", partial(self.encode_whole, request, inputs, provider)))
        refusal = self.error_reply("It failed.")
        for body in (self.sample_reply(2)[0], refusal, b"<html>", b"{}"):
            calls.append(("decode", partial(self.try_decode, body, provider)))
        for status in (400, 401, 403, 429, 500, 503):
            for body in (refusal, OWN_ERROR, b"<html>"):
                calls.append(("error", partial(provider.error, Head(status, {}), body, SECRETS)))
                calls.append(("failure_is_free", partial(self.is_free, provider, Head(status, {}), body)))
        return calls

    def change_request(self, request: ImageRequest) -> ImageRequest:
        """Return a request of the same operation, with other values in the fields that the provider takes."""
        names = field_names(type(request))
        for field in ("prompt", "image", "n", "size", "model", "extra_body"):
            value = png(9) if field == "image" else self.copy_values(field)[1]
            if field in names and self.takes_request(change(request, **{field: value})):
                request = change(request, **{field: value})
        return request

    def run_call(self, provider: Provider, request: ImageRequest, seed: int) -> list[object]:
        """Encode a request, decode a reply, and return the results.

        Args:
            provider: the provider under test.
            request: the request.
            seed: chooses the images of the reply.
        """
        with ExitStack() as cleanup:
            wire = self.encode_whole(request, open_inputs(request, cleanup), provider)
        decoded = self.decode(self.sample_reply(2, seed)[0], provider=provider)
        return [wire, list_contents(decoded), decoded]

    def encode_whole(self, request: ImageRequest, inputs: OpenedInputs, provider: Provider) -> bytes:
        """Check and encode a request; return its wire form, with the whole body."""
        return join_wire(self.encode_opened(request, inputs, provider))
