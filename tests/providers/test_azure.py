"""OpenAI's models at Azure: where requests go, what they carry, and what is refused before they do."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import openai
import pytest

import imgkit
from imgkit.core.operations import OperationFlows
from imgkit.default_plugins.auth import TokenAuth
from imgkit.models import CreateImageRequest, ImageRequest
from imgkit.plugins.tokens import Token
from imgkit.providers.azure import AzureProvider
from imgkit.providers.base import Credential, Target, list_credentials
from imgkit.providers.openai import OpenAIProvider
from imgkit.runtime.flow import SendRequest, advance
from imgkit.testing import ProviderContract, cassette
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import Line, WireServer, reply
from tests.providers.test_sdk_parity import Arrived, arrived, same
from tests.support.pictures import picture

KEY = "0123456789abcdefCANARY0123456789"
TOKEN = "eyJhbGciCANARY.eyJhdWQiOiJodHRwczovCANARY.c2lnbmF0dXJl"
VERSION = "2025-04-01-preview"
RED = picture()
CLEAR = picture(mode="RGBA", color="#0000")
CALLS: dict[str, dict[str, Any]] = {
    "create_image": {"prompt": "a fox", "n": 2, "size": "1024x1024"},
    "create_image_edit": {"image": RED, "prompt": "a hat", "mask": CLEAR},
}
PATHS = {"create_image": "generations", "create_image_edit": "edits"}
OFFICIAL = "https://res.openai.azure.com"


def sent(
    flavor: Any, backend: str, operation: str, root: str = "", version: str | None = VERSION, **settings: Any
) -> Line:
    """Return the one request of a call."""
    with WireServer(reply(200, answer(png(3)))) as server:
        whole = {"model": "my draw", "base_url": server.origin + root, "api_key": KEY, **settings}
        provider = whole.pop("provider", None) or AzureProvider(version)
        got = flavor.run(
            lambda images: getattr(images, operation)(**CALLS[operation]), backend, provider=provider, **whole
        )
        assert got[0].data == png(3)
    (line,) = server.lines
    return line


def sent_by_sdk(operation: str, **settings: Any) -> Arrived:
    """Return the one request of the official SDK for the same call."""
    with WireServer(reply(200, answer(png(3)))) as server:
        whole = {"api_version": VERSION, "azure_endpoint": server.origin, "max_retries": 0, **settings}
        with openai.AzureOpenAI(**whole) as client:
            method = {"create_image": "generate", "create_image_edit": "edit"}[operation]
            getattr(client.images, method)(**CALLS[operation], model="my draw")
    (line,) = server.lines
    return arrived(line)


@pytest.mark.parametrize("operation", CALLS)
def test_deployments(flavor: Any, http_backend: str, operation: str) -> None:
    """The layout with a deployment in the path: exact path, query and header, and the same as the SDK's."""
    line = sent(flavor, http_backend, operation)
    assert line.request_line == (
        f"POST /openai/deployments/my%20draw/images/{PATHS[operation]}?api-version={VERSION} HTTP/1.1"
    )
    assert line.headers["api-key"] == KEY
    assert "authorization" not in line.headers
    same(arrived(line), sent_by_sdk(operation, api_key=KEY))


@pytest.mark.parametrize("operation", CALLS)
def test_the_newer_layout(flavor: Any, http_backend: str, operation: str, monkeypatch: Any) -> None:
    """The deployment is in the body only; the environment's api-version is another layout's."""
    monkeypatch.setenv("OPENAI_API_VERSION", VERSION)
    line = sent(flavor, http_backend, operation, "/openai/v1", version=None)
    assert line.request_line == f"POST /openai/v1/images/{PATHS[operation]} HTTP/1.1"
    assert line.headers["api-key"] == KEY
    found = arrived(line)
    model = json.loads(found.members)["model"] if found.members else found.parts["model"][0]
    assert model == "my draw"
    line = sent(flavor, http_backend, operation, "/openai/v1/", version="preview")
    assert line.request_line == f"POST /openai/v1/images/{PATHS[operation]}?api-version=preview HTTP/1.1"


def test_all_from_the_environment(flavor: Any, http_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of the SDK, and its order: a token before a key; and no organisation of OpenAI's."""
    monkeypatch.setenv("OPENAI_API_VERSION", VERSION)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-openai")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    nothing: dict[str, Any] = {"base_url": None, "api_key": None, "provider": "azure"}

    def both() -> tuple[Line, Arrived]:
        with WireServer(reply(200, answer(png(3)))) as server:
            monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.origin)
            work = lambda images: images.create_image(**CALLS["create_image"])  # noqa: E731
            flavor.run(work, http_backend, **{**nothing, "model": "my draw"})
        (line,) = server.lines
        sdk = sent_by_sdk("create_image")
        assert sdk.headers.pop("openai-organization") == "org-of-openai"  # nobody's business at Azure
        return line, sdk

    line, sdk = both()
    same(arrived(line), sdk)
    assert line.headers["api-key"] == KEY
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", TOKEN)
    line, sdk = both()
    same(arrived(line), sdk)
    assert line.headers["authorization"] == f"Bearer {TOKEN}"
    assert not {"api-key", "openai-organization"} & set(line.headers)


def test_tokens_of_a_source(flavor: Any, http_backend: str) -> None:
    """A plugin that fetches tokens comes before the key of the service."""

    class Entra:
        def token(self) -> Token:
            return Token(TOKEN)

    line = sent(flavor, http_backend, "create_image", plugins=[TokenAuth(Entra())])
    assert line.headers["authorization"] == f"Bearer {TOKEN}"
    assert "api-key" not in line.headers


def test_a_deployment_per_call(flavor: Any, http_backend: str) -> None:
    """A call may name another deployment, whose name cannot leave its place in the path."""
    with WireServer(reply(200, answer(png(3)))) as server:
        work = lambda images: images.create_image("a fox", model="a/../b?c#d")  # noqa: E731
        provider = AzureProvider(VERSION)
        flavor.run(work, http_backend, provider=provider, base_url=server.origin + "/openai", api_key=KEY)
        path = server.lines[0].request_line.split()[1]
    assert path == f"/openai/deployments/a%2F..%2Fb%3Fc%23d/images/generations?api-version={VERSION}"


REFUSED: list[tuple[str, dict[str, Any], str, dict[str, Any], type[imgkit.ImgkitError], str]] = [
    (
        "2024-02-01",
        {},
        "create_image_edit",
        {},
        imgkit.ConfigurationError,
        "edits since api-version 2025-04-01",
    ),
    ("2025-03-01-preview", {}, "create_image_edit", {}, imgkit.ConfigurationError, "OPENAI_API_VERSION"),
    ("", {}, "create_image", {}, imgkit.ConfigurationError, "needs an api-version"),
    (VERSION, {"model": None}, "create_image", {}, imgkit.MissingModelError, "name of a deployment"),
    (
        VERSION,
        {},
        "create_image_variation",
        {"image": RED, "strategy": "native"},
        imgkit.EndpointRetiredError,
        "does not exist at .* An edit with a prompt stands in for it",
    ),
]


@pytest.mark.parametrize(("version", "settings", "operation", "arguments", "kind", "said"), REFUSED)
def test_refused_before_sending(
    flavor: Any,
    http_backend: str,
    version: str,
    settings: Any,
    operation: str,
    arguments: Any,
    kind: Any,
    said: str,
) -> None:
    """What Azure would not take is told with what to do, and nothing is sent."""
    with WireServer(reply(200, answer(png(3)))) as server:
        whole = {"model": "draw", "base_url": server.origin, "api_key": KEY, **settings}
        with pytest.raises(kind, match=said):
            flavor.run(
                lambda images: getattr(images, operation)(**(arguments or CALLS[operation])),
                http_backend, provider=AzureProvider(version), **whole,
            )  # fmt: skip
        assert server.accepted == 0


def test_variations_are_edits(flavor: Any, http_backend: str) -> None:
    """Azure has none, so an edit is asked for one, and no other path is tried before."""
    with WireServer(reply(200, answer(png(3)))) as server:
        settings = {
            "base_url": server.origin,
            "api_key": KEY,
            "model": "d",
            "provider": AzureProvider(VERSION),
        }
        got = flavor.run(lambda images: images.create_image_variation(RED), http_backend, **settings)
        (line,) = server.lines
    assert got.meta.emulated
    assert line.request_line.startswith("POST /openai/deployments/d/images/edits?")


@pytest.mark.parametrize("version", [VERSION, "2025-04-01", "2026-01-01-preview", "preview", "latest"])
def test_versions_that_have_edits(version: str) -> None:
    request = imgkit.CreateImageEditRequest(image=RED, prompt="a hat", model="draw")
    AzureProvider(version).check(request, Target(base_url=OFFICIAL, host_class="official"))


@pytest.mark.parametrize("version", ["2025 04", "x" * 41, "a&b=c", "a\r\n"])
def test_versions_that_are_none(version: str) -> None:
    with pytest.raises(imgkit.ConfigurationError, match="OPENAI_API_VERSION"):
        AzureProvider(version)


def test_no_address_of_its_own() -> None:
    with pytest.raises(imgkit.ConfigurationError, match="base_url=… or set AZURE_OPENAI_ENDPOINT"):
        imgkit.ImageService("requests", provider="azure", api_key=KEY)


@pytest.mark.parametrize(
    ("base_url", "host_class"),
    [
        (OFFICIAL, "official"),
        ("https://RES.openai.azure.com:443/openai/v1", "official"),
        ("https://res.services.ai.azure.com", "official"),
        ("https://res.cognitiveservices.azure.com", "official"),
        ("https://openai.azure.com.evil.example", "compatible"),
        ("https://evilopenai.azure.com", "compatible"),
        ("https://res.openai.azure.com:8443", "compatible"),
        ("https://api.openai.com/v1", "compatible"),
        ("http://127.0.0.1:1", "compatible"),
    ],
)
def test_official_hosts(base_url: str, host_class: str) -> None:
    with imgkit.ImageService("requests", provider=AzureProvider(VERSION), base_url=base_url) as images:
        assert images._core.target.host_class == host_class


def test_the_official_host_needs_a_key() -> None:
    """Stepped by hand: the key's variables are named, and a key is on the way to that host only."""
    with imgkit.ImageService(
        "requests", provider=AzureProvider(VERSION), base_url=OFFICIAL, model="d"
    ) as images:
        flow = OperationFlows(images._core).create_image("a fox")
        with pytest.raises(imgkit.MissingKeyError, match="AZURE_OPENAI_AD_TOKEN or AZURE_OPENAI_API_KEY"):
            advance(flow, None)
    settings: dict[str, Any] = {"base_url": OFFICIAL, "model": "d", "api_key": lambda: KEY}
    with imgkit.ImageService("requests", provider=AzureProvider(VERSION), **settings) as images:
        need = advance(OperationFlows(images._core).create_image("a fox"), None)
        assert isinstance(need, SendRequest)
        assert need.request.url.startswith(f"{OFFICIAL}/openai/deployments/d/images/generations?")
        assert need.request.headers["api-key"] == KEY
        assert KEY not in f"{need!r}{images!r}{images.plugins!r}{images._core._asdict()!r}"
    with pytest.raises(imgkit.ConfigurationError, match="unencrypted"):
        imgkit.ImageService("requests", provider="azure", base_url="http://res.example", api_key=KEY)


def test_offline_needs_nothing(flavor: Any) -> None:
    """The painter speaks this dialect too: no key, no address, no deployment; variations as well."""

    def work(images: Any) -> Any:
        return images.create_image_variation(png(1, 64))

    assert flavor.run(work, provider="azure")[0].format == "png"


def test_refusals_name_the_filters(flavor: Any, http_backend: str) -> None:
    """Azure's own error shapes come out as classes, with its own id of the call, and without the key."""
    filters = {"violence": {"filtered": True, "severity": "high"}, "hate": {"filtered": False}}
    blocked = {"error": {
        "code": "contentFilter", "message": f"No. {KEY}",
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": filters},
    }}  # fmt: skip
    with WireServer(reply(400, blocked, x_request_id="", apim_request_id="az_1")) as server:
        with pytest.raises(imgkit.ModerationBlockedError) as caught:
            flavor.run(
                lambda images: images.create_image("a fox"), http_backend,
                provider=AzureProvider(VERSION), base_url=server.origin, api_key=KEY, model="d",
            )  # fmt: skip
    assert (caught.value.categories, caught.value.request_id) == (("violence",), "az_1")
    assert KEY not in str(caught.value)


def test_on_a_cassette(http_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded with one backend and a key, replayed with the other and a token; neither is on it."""
    path = tmp_path / "azure.yaml"
    other = {"requests": "aiohttp", "aiohttp": "requests"}[http_backend]
    with WireServer(reply(200, answer(png(3)))) as server:
        origin = server.origin
        with cassette(path, record_mode="all"):
            provider = AzureProvider(VERSION)
            settings: dict[str, Any] = {"provider": provider, "base_url": origin, "model": "d"}
            with imgkit.ImageService(http_backend, api_key=KEY, **settings) as images:
                images.create_image("a fox")
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", TOKEN)
    with cassette(path, record_mode="none"), imgkit.ImageService(other, **settings) as images:
        assert images.create_image("a fox")[0].data == png(3)
    text = path.read_text()
    assert f"api-version={VERSION}" in text
    assert "CANARY" not in text
    assert "api-key" not in text.lower()


def test_credentials_of_providers() -> None:
    """A provider that says nothing of credentials has one key, as a bearer token."""
    assert list_credentials(OpenAIProvider()) == (Credential(variable="OPENAI_API_KEY"),)
    assert [one.header for one in list_credentials(AzureProvider(VERSION))] == ["authorization", "api-key"]


def test_it_is_short() -> None:
    """A second provider needs no change in the core, and little code."""
    from imgkit.providers import azure

    assert len(inspect.getsource(azure).splitlines()) < 130


class TestAzureContract(ProviderContract):
    def provider(self) -> AzureProvider:
        return AzureProvider(VERSION)

    def reply(self, pictures: list[bytes]) -> bytes:
        return json.dumps(answer(*pictures) if pictures else {"data": []}).encode()

    def requests(self) -> list[ImageRequest]:
        edit = imgkit.CreateImageEditRequest(image=RED, prompt="a hat")
        return [CreateImageRequest(prompt="a fox"), edit]

    def target(self, provider: Any) -> Target:
        return Target(base_url=OFFICIAL, host_class="official", model="draw")
