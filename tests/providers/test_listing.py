"""The list of providers, and the table in the documentation that comes from it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

import imgkit
from imgkit import ProviderInfo, hookimpl, list_providers
from imgkit.catalogue.catalogue import Catalogue, load_provider_data
from imgkit.plugins import ProviderSpec
from imgkit.plugins.registry import load_hook_table
from imgkit.providers import BaseProvider
from imgkit.schemas.model_facts import MODEL_FACTS_SCHEMA
from tests.support.provider_table import build_table, list_own_providers, split_page


class AcmeProvider(BaseProvider):
    """A provider of a plugin, without facts."""

    base_url = "https://api.acme.example/v1"
    env = {"api_key": "ACME_API_KEY"}
    accepts = {"create_image": {"prompt", "seed", "n"}}
    mask_polarity = "white"

    def encode(self, *arguments: object) -> None: ...

    def decode(self, *arguments: object) -> None: ...

    def error(self, *arguments: object) -> None: ...


def fail_to_build() -> None:
    """Fail as a provider with a wrong constructor does."""
    raise RuntimeError("no luck")


class AcmePlugin:
    """A plugin with a good provider and three broken ones."""

    @hookimpl
    def imgkit_providers(self) -> Iterable[ProviderSpec]:
        here = __name__
        return (
            ProviderSpec(name="acme", target=f"{here}:AcmeProvider", summary="pictures of Acme"),
            ProviderSpec(name="acme-gone", target="no_such_module:Provider", install="pip install acme"),
            ProviderSpec(name="acme-raises", target=f"{here}:fail_to_build"),
            ProviderSpec(name="acme-empty", target="types:SimpleNamespace"),
        )


def list_acme() -> dict[str, ProviderInfo]:
    return {info.name: info for info in list_providers([AcmePlugin]) if info.name.startswith("acme")}


def test_the_table_in_the_documentation_is_current() -> None:
    """Equals the providers; after a change, run `make providers`."""
    _, table, _ = split_page()
    assert table == build_table()


def test_all_providers_are_listed() -> None:
    """Lists each registered provider once, with operations, a key variable and no problem."""
    infos = list_own_providers()
    assert [info.name for info in infos] == sorted(info.name for info in infos)
    assert {info.name for info in infos} == set(load_hook_table().provider_specs())
    for info in infos:
        assert info.problem is None
        assert info.operations
        assert info.key_variables
        assert not info.needs_key or info.console, f"{info.name} names no page with keys"


def test_abilities() -> None:
    """Tells what differs between APIs."""
    found = {info.name: info for info in list_providers()}
    openai, bfl, a1111 = found["openai"], found["bfl"], found["a1111"]
    assert (openai.streams, openai.runs_jobs, openai.prices, openai.mask) == (
        True,
        False,
        "table",
        "transparent",
    )
    assert (bfl.streams, bfl.runs_jobs, bfl.prices, bfl.mask) == (False, True, "reply", "white")
    assert (openai.max_images_per_request, bfl.max_images_per_request) == (10, 1)
    assert openai.emulates_variations  # OpenAI has retired them
    assert "create_image_variation" in a1111.operations
    assert (a1111.emulates_variations, a1111.needs_key, a1111.prices) == (False, False, "own server")
    assert found["gemini"].mask is None
    assert 0 < openai.facts[0] < openai.facts[1]


@pytest.mark.parametrize("info", list_own_providers(), ids=lambda info: info.name)
def test_facts_can_be_read(info: ProviderInfo) -> None:
    """Reads all facts of a provider, also those that only its own host needs, and finds no unknown key."""
    place = f"imgkit.providers:{info.name}.toml"
    Catalogue(info.name, place).list_models()
    facts = load_provider_data(place)
    assert facts["provider"] == info.name
    known = {name: table for name, table in facts.items() if name in MODEL_FACTS_SCHEMA.fields}
    MODEL_FACTS_SCHEMA.read(known)


def test_providers_of_plugins() -> None:
    """Lists a plugin's provider with its abilities, and a broken one with its problem."""
    found = list_acme()
    acme = found["acme"]
    assert (acme.summary, acme.key_variables) == ("pictures of Acme", ("ACME_API_KEY",))
    assert dict(acme.operations) == {"create_image": ("n", "prompt", "seed")}
    assert (acme.mask, acme.emulates_variations, acme.takes_seed, acme.prices) == (None, False, True, "no")
    assert acme.distribution
    problems = {name: info.problem or "" for name, info in found.items()}
    assert "pip install acme" in problems["acme-gone"]
    assert "no luck" in problems["acme-raises"]
    assert "is not a provider" in problems["acme-empty"]


def test_public_names() -> None:
    """Exports the function and its value."""
    assert {"ProviderInfo", "list_providers"} <= set(dir(imgkit))
