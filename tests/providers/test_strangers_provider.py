"""A provider from a plugin: another dialect without a change in the core."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

import imgkit
from imgkit.images.inputs import OpenedInputs
from imgkit.plugins.hookspecs import ProviderSpec, hookimpl
from imgkit.providers.base import Provider, Target
from imgkit.providers.openai import OpenAIProvider
from imgkit.testing import StreamingProviderContract
from imgkit.wire.messages import HttpRequest
from tests.support.openai_samples import OpenAISamples
from tests.support.pictures import answer, picture
from tests.support.wire_server import WireServer, reply


class AcmeProvider(OpenAIProvider):
    """OpenAI's dialect under another path, with variables of its own."""

    base_url: ClassVar[str] = "https://api.acme.example/v2"
    env: ClassVar[dict[str, str]] = {"api_key": "ACME_KEY", "base_url": "ACME_URL"}

    def check(self, request: Any, target: Target) -> None:
        if request.size is not None:
            raise imgkit.InvalidRequestError({"size": "acme has one size only"})

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        made = super().encode(request, inputs, target)
        return dataclasses.replace(made, url=made.url.replace("/images/", "/pictures/"))


class TestAcme(OpenAISamples, StreamingProviderContract):
    """A dialect that subclasses OpenAI's passes the contract."""

    endpoints: ClassVar[Mapping[str, str]] = {
        "create_image": "/pictures/generations",
        "create_image_edit": "/pictures/edits",
        "create_image_variation": "/pictures/variations",
    }

    def provider(self) -> Provider:
        return AcmeProvider()


class AcmePlugin:
    @hookimpl
    def imgkit_providers(self) -> list[ProviderSpec]:
        return [ProviderSpec(name="acme", target=f"{__name__}:AcmeProvider")]


def test_a_third_party_provider(flavor: Any, http_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finds a plugin's provider by name, and applies its variables and rules."""
    monkeypatch.setenv("ACME_KEY", "k-acme-0000000000")
    with WireServer(reply(200, answer())) as server:
        monkeypatch.setenv("ACME_URL", server.base_url)
        options = {"provider": "acme", "plugins": [AcmePlugin()]}
        made = flavor.run(lambda service: service.create_image("a fox"), http_backend, **options)
        with pytest.raises(imgkit.InvalidRequestError, match="one size only"):
            flavor.run(lambda service: service.create_image("a fox", size="64x64"), http_backend, **options)
    assert made[0].data == picture()
    assert made.meta.provider == "acme"
    (line,) = server.lines
    assert line.request_line == "POST /v1/pictures/generations HTTP/1.1"
    assert line.headers["authorization"] == "Bearer k-acme-0000000000"


def test_two_providers_of_one_name() -> None:
    """Names both plugins that provide the same name."""

    class Copy:
        @hookimpl
        def imgkit_providers(self) -> list[ProviderSpec]:
            return [ProviderSpec(name="openai", target="x:y")]

    with pytest.raises(imgkit.ConfigurationError, match="Copy"):
        imgkit.ImageService(plugins=[Copy()])
