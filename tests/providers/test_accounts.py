"""Keys of another vendor's form, and missing keys: refused before anything is sent."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from imgkit import (
    AsyncImageService,
    BearerAuth,
    ConfigurationError,
    HeaderAuth,
    ImageService,
    MissingKeyError,
    hookimpl,
)
from imgkit.cli.run import run
from imgkit.plugins import ProviderSpec
from imgkit.plugins.registry import register_plugins
from imgkit.providers import OpenAIProvider, Secret
from imgkit.providers.accounts import Account, list_provider_specs
from imgkit.testing import WireServer, answer, reply
from tests.cli.support import clear_environment

TAIL = "CANARY0123456789abcdef"
VENDORS = {
    "sk-ant-": "Anthropic",
    "sk-or-": "OpenRouter",
    "r8_": "Replicate",
    "hf_": "Hugging Face",
    "AIza": "Google",
    "xai-": "xAI",
    "gsk_": "Groq",
}
FACTS = """
provider = "{name}"
[account]
console = "https://acme.example/keys"
key_prefixes = ["acme-"]
"""


class AcmeProvider(OpenAIProvider):
    """A provider of a plugin whose keys have a form."""

    base_url = "https://api.acme.example/v1"
    env = {"api_key": "ACME_API_KEY"}
    model_facts = "acme_facts:acme.toml"


class AcmePlugin:
    """The plugin with it."""

    @hookimpl
    def imgkit_providers(self) -> Iterable[ProviderSpec]:
        return (ProviderSpec(name="acme", target=f"{__name__}:AcmeProvider"),)


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[AcmePlugin]:
    """Return a plugin whose facts can be read."""
    (tmp_path / "acme_facts").mkdir()
    (tmp_path / "acme_facts" / "__init__.py").touch()
    (tmp_path / "acme_facts" / "acme.toml").write_text(FACTS.format(name="acme"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "acme_facts", raising=False)
    return AcmePlugin


def catch(**arguments: Any) -> str:
    """Return the message of the error of a call that must send nothing."""
    with ImageService("requests", model="m", retry=False, **arguments) as images:
        with pytest.raises(ConfigurationError) as caught:
            images.create_image("a fox")
    assert "CANARY" not in repr([caught.value, caught.value.__cause__, caught.value.__context__])
    return str(caught.value)


@pytest.mark.parametrize("prefix", VENDORS)
@pytest.mark.parametrize("provider", ["openai", "bfl"])
def test_key_of_another_vendor(provider: str, prefix: str) -> None:
    """Names the vendor and the page that has the right keys."""
    message = catch(provider=provider, api_key=f"{prefix}{TAIL}")
    assert message.startswith(f"api_key has the form of a key of {VENDORS[prefix]}. https://api.")
    assert "so nothing was sent. Give a key from https://" in message


def test_every_source_of_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks the key of a variable, a callable and a file, and says which variable holds it."""
    key = f"r8_{TAIL}"
    path = tmp_path / "key"
    path.write_text(key)
    path.chmod(0o600)
    assert catch(api_key=lambda: key).startswith("api_key has the form of a key of Replicate.")
    assert catch(plugins=[BearerAuth(file=path)]).startswith("api_key has the form of a key of Replicate.")
    monkeypatch.setenv("OPENAI_API_KEY", key)
    assert catch().startswith("OPENAI_API_KEY has the form of a key of Replicate.")


def test_async_service() -> None:
    """Refuses the key under the asynchronous service, too, and suggests the vendor's provider."""

    async def create() -> None:
        async with AsyncImageService("aiohttp", model="m", api_key=f"AIza{TAIL}") as images:
            await images.create_image("a fox")

    with pytest.raises(ConfigurationError, match=r'For a key of Google, pass provider="gemini"\.'):
        asyncio.run(create())


@pytest.mark.parametrize(
    ("provider", "key"),
    [
        ("openai", f"sk-{TAIL}"),
        ("openai", f"sk-proj-{TAIL}"),
        ("openai", TAIL),
        ("gemini", f"AIza{TAIL}"),
        ("bfl", f"sk-{TAIL}"),
        ("fal", f"{TAIL}:{TAIL}"),
        ("comfyui", f"r8_{TAIL}"),
    ],
)
def test_keys_that_may_be_right(provider: str, key: str) -> None:
    """Takes its own forms, forms that many vendors share, unknown forms, and any key of an own server."""
    with ImageService("requests", provider=provider, model="fal-ai/x", api_key=key) as images:
        assert images.dry_run("create_image", "a fox").startswith("POST ")


def test_any_key_for_a_compatible_server() -> None:
    """Sends any key to a server that the caller names."""
    with WireServer(reply(200, answer())) as server:
        with ImageService("requests", base_url=server.base_url, api_key=f"sk-ant-{TAIL}") as images:
            images.create_image("a fox")
        assert server.posts == 1


def test_instances_and_gateways() -> None:
    """Knows the vendor of an instance by its facts and its host; a header of the user's own takes any key."""

    class Router(OpenAIProvider):
        base_url = "https://openrouter.ai/api/v1"

    for provider, key in ((OpenAIProvider(), "sk-proj-"), (Router(), "sk-or-")):
        with ImageService("requests", provider=provider, model="m", api_key=f"{key}{TAIL}") as images:
            images.dry_run("create_image", "a fox")
    plugin = HeaderAuth("x-other-key", f"sk-ant-{TAIL}")
    with ImageService("requests", model="m", api_key=f"sk-{TAIL}", plugins=[plugin]) as images:
        images.dry_run("create_image", "a fox")


def test_providers_of_plugins(acme: type[AcmePlugin]) -> None:
    """Knows the keys of a plugin's provider, at its own host and at those of others."""
    message = catch(provider="acme", plugins=[acme], api_key=f"sk-ant-{TAIL}")
    assert "of Anthropic. https://api.acme.example/v1 does not take it" in message
    assert "Give a key from https://acme.example/keys." in message
    message = catch(provider="openai", plugins=[acme], api_key=f"acme-{TAIL}")
    assert message.endswith('For a key of provider acme, pass provider="acme".')
    with ImageService(
        "requests", provider="acme", model="m", plugins=[acme], api_key=f"acme-{TAIL}"
    ) as images:
        images.dry_run("create_image", "a fox")


def test_a_broken_plugin_disturbs_no_other_provider() -> None:
    """Takes a key although another provider cannot be loaded."""

    class Broken:
        @hookimpl
        def imgkit_providers(self) -> Iterable[ProviderSpec]:
            return (ProviderSpec(name="broken", target="no_such_module:Provider"),)

    account = Account("openai", list_specs=lambda: list_provider_specs(register_plugins([Broken])))
    account.check_key(Secret(TAIL), "api_key", "https://api.openai.com/v1")


@pytest.mark.parametrize("provider", ["openai", "bfl", "fal", "gemini"])
def test_missing_key(provider: str) -> None:
    """Names the provider's own variable, and the page that has its keys."""
    with ImageService("requests", provider=provider, model="fal-ai/x") as images:
        with pytest.raises(MissingKeyError) as caught:
            images.create_image("a fox")
    variable = images._core.provider.env["api_key"]
    assert re.search(rf"{variable}.* is not set\. https://\S+ has your keys\. Set it", str(caught.value))


def test_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Refuses the key with a hint in options; the doctor finds it without sending anything."""
    clear_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", f"AIza{TAIL}")
    monkeypatch.setenv("IMGKIT_BACKEND", "requests")
    assert run(["create", "a fox", "--model", "m", "-o", str(tmp_path / "fox.png")]) == 2
    err = capfd.readouterr().err
    assert "imgkit: OPENAI_API_KEY has the form of a key of Google. https://api.openai.com/v1" in err
    assert "For a key of Google, pass --provider gemini." in err
    assert run(["doctor"]) == 1
    out = capfd.readouterr().out
    assert "wrong  API key: OPENAI_API_KEY has the form of a key of Google." in out
    assert "CANARY" not in err + out
