"""Tests of `BaseProvider`: its defaults, and providers that do not derive from it."""

from __future__ import annotations

from typing import Any

import pytest

import imgkit
from imgkit.providers import BaseProvider, Credential, OpenAIProvider, Target

TARGET = Target(base_url="https://api.acme.example/v1", host_class="official")
MEMBERS = (
    "base_url", "env", "base64_keys", "model_facts", "takes_references", "mask_polarity", "credentials",
    "official_hosts", "models_request", "check", "encode", "decode", "error",
)  # fmt: skip


class Acme(BaseProvider):
    """A provider that sets only what has no default."""

    base_url = "https://api.acme.example/v1"
    env = {"api_key": "ACME_API_KEY"}


class Standalone:
    """A provider with all members, but another base class."""

    def __init__(self, *without: str) -> None:
        provider = OpenAIProvider()
        for name in MEMBERS:
            if name not in without:
                setattr(self, name, getattr(provider, name))


def test_defaults() -> None:
    """Gives each optional member a default."""
    provider = Acme()
    assert provider.base64_keys == frozenset()
    assert provider.model_facts == ""
    assert provider.takes_references is False
    assert provider.mask_polarity == "transparent"
    assert provider.official_hosts == ()
    assert provider.models_request(TARGET) is None


def test_default_credentials() -> None:
    """Reads a bearer token from the variable of the API key, also in a subclass with another variable."""

    class Enterprise(Acme):
        env = {"api_key": "ACME_ENTERPRISE_KEY"}

    assert Acme().credentials == (Credential(variable="ACME_API_KEY"),)
    assert Enterprise().credentials == (Credential(variable="ACME_ENTERPRISE_KEY"),)


def test_credentials_of_a_subclass() -> None:
    """Replaces the bearer token with a class attribute."""
    key = Credential(variable="ACME_API_KEY", header="x-acme-key", scheme="")

    class Enterprise(Acme):
        credentials = (key,)

    assert Enterprise().credentials == (key,)


def test_a_provider_of_another_base_class() -> None:
    """Accepts an object with all members of the protocol."""
    provider: Any = Standalone()
    with imgkit.ImageService("offline", provider=provider) as service:
        assert len(service.create_image("a fox", size="64x64")) == 1


def test_a_provider_that_lacks_members() -> None:
    """Rejects an object without all members, and names them."""
    provider: Any = Standalone("encode", "model_facts")
    with pytest.raises(imgkit.ConfigurationError, match="lacks model_facts, encode.*BaseProvider"):
        imgkit.ImageService("offline", provider=provider)
