"""OpenAI's models at Azure: URLs, headers, bodies, and requests that are rejected before sending."""

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
from imgkit.plugins.tokens import Token
from imgkit.providers.azure import AzureProvider
from imgkit.providers.base import Credential, Target
from imgkit.providers.openai import OpenAIProvider
from imgkit.runtime.flow import SendRequest, advance
from imgkit.testing import StreamingProviderContract, cassette
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import Line, WireServer, reply
from tests.providers.test_sdk_parity import ReceivedRequest, assert_equal_requests, receive_request
from tests.support.openai_samples import OpenAISamples
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


def sent_by_sdk(operation: str, **settings: Any) -> ReceivedRequest:
    """Return the one request of the official SDK for the same call."""
    with WireServer(reply(200, answer(png(3)))) as server:
        whole = {"api_version": VERSION, "azure_endpoint": server.origin, "max_retries": 0, **settings}
        with openai.AzureOpenAI(**whole) as client:
            method = {"create_image": "generate", "create_image_edit": "edit"}[operation]
            getattr(client.images, method)(**CALLS[operation], model="my draw")
    (line,) = server.lines
    return receive_request(line)


@pytest.mark.parametrize("operation", CALLS)
def test_deployments(flavor: Any, http_backend: str, operation: str) -> None:
    """Sends the same path, query and header as the SDK in the layout with deployments."""
    line = sent(flavor, http_backend, operation)
    assert line.request_line == (
        f"POST /openai/deployments/my%20draw/images/{PATHS[operation]}?api-version={VERSION} HTTP/1.1"
    )
    assert line.headers["api-key"] == KEY
    assert "authorization" not in line.headers
    assert_equal_requests(receive_request(line), sent_by_sdk(operation, api_key=KEY))


@pytest.mark.parametrize("operation", CALLS)
def test_the_newer_layout(flavor: Any, http_backend: str, operation: str, monkeypatch: Any) -> None:
    """Sends the deployment only in the body, and ignores the variable of the api-version."""
    monkeypatch.setenv("OPENAI_API_VERSION", VERSION)
    line = sent(flavor, http_backend, operation, "/openai/v1", version=None)
    assert line.request_line == f"POST /openai/v1/images/{PATHS[operation]} HTTP/1.1"
    assert line.headers["api-key"] == KEY
    found = receive_request(line)
    model = json.loads(found.members)["model"] if found.members else found.parts["model"][0]
    assert model == "my draw"
    line = sent(flavor, http_backend, operation, "/openai/v1/", version="preview")
    assert line.request_line == f"POST /openai/v1/images/{PATHS[operation]}?api-version=preview HTTP/1.1"


def test_all_from_the_environment(flavor: Any, http_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads the SDK's variables in its order, token before key, and sends no organisation."""
    monkeypatch.setenv("OPENAI_API_VERSION", VERSION)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-openai")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    nothing: dict[str, Any] = {"base_url": None, "api_key": None, "provider": "azure"}

    def both() -> tuple[Line, ReceivedRequest]:
        with WireServer(reply(200, answer(png(3)))) as server:
            monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.origin)
            work = lambda images: images.create_image(**CALLS["create_image"])  # noqa: E731
            flavor.run(work, http_backend, **{**nothing, "model": "my draw"})
        (line,) = server.lines
        sdk = sent_by_sdk("create_image")
        assert sdk.headers.pop("openai-organization") == "org-of-openai"  # nobody's business at Azure
        return line, sdk

    line, sdk = both()
    assert_equal_requests(receive_request(line), sdk)
    assert line.headers["api-key"] == KEY
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", TOKEN)
    line, sdk = both()
    assert_equal_requests(receive_request(line), sdk)
    assert line.headers["authorization"] == f"Bearer {TOKEN}"
    assert not {"api-key", "openai-organization"} & set(line.headers)


def test_tokens_of_a_source(flavor: Any, http_backend: str) -> None:
    """Prefers the token of a plugin to the key of the service."""

    class Entra:
        def token(self) -> Token:
            return Token(TOKEN)

    line = sent(flavor, http_backend, "create_image", plugins=[TokenAuth(Entra())])
    assert line.headers["authorization"] == f"Bearer {TOKEN}"
    assert "api-key" not in line.headers


def test_a_deployment_per_call(flavor: Any, http_backend: str) -> None:
    """Sends a call to another deployment, and quotes its name in the path."""
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
def test_rejected_before_sending(
    flavor: Any,
    http_backend: str,
    version: str,
    settings: Any,
    operation: str,
    arguments: Any,
    kind: Any,
    said: str,
) -> None:
    """Rejects requests that Azure would reject, with a remedy, and sends nothing."""
    with WireServer(reply(200, answer(png(3)))) as server:
        whole = {"model": "draw", "base_url": server.origin, "api_key": KEY, **settings}
        with pytest.raises(kind, match=said):
            flavor.run(
                lambda images: getattr(images, operation)(**(arguments or CALLS[operation])),
                http_backend, provider=AzureProvider(version), **whole,
            )  # fmt: skip
        assert server.accepted == 0


def test_variations_are_edits(flavor: Any, http_backend: str) -> None:
    """Sends a variation as an edit, and tries no other path first."""
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
    """Accepts edits with these api-versions."""
    request = imgkit.CreateImageEditRequest(image=RED, prompt="a hat", model="draw")
    AzureProvider(version).check(request, Target(base_url=OFFICIAL, host_class="official"))


@pytest.mark.parametrize("version", ["2025 04", "x" * 41, "a&b=c", "a\r\n"])
def test_invalid_versions(version: str) -> None:
    """Rejects invalid api-versions."""
    with pytest.raises(imgkit.ConfigurationError, match="OPENAI_API_VERSION"):
        AzureProvider(version)


def test_no_address_of_its_own() -> None:
    """Asks for the address of the resource."""
    with pytest.raises(imgkit.ConfigurationError, match="Pass base_url, or set AZURE_OPENAI_ENDPOINT"):
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
    """Classifies hosts as official or compatible."""
    with imgkit.ImageService("requests", provider=AzureProvider(VERSION), base_url=base_url) as images:
        assert images._core.target.host_class == host_class


def test_the_official_host_needs_a_key() -> None:
    """Names the variables of the key, and sends a key only to the official host."""
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
    """Draws offline without key, address or deployment, including variations."""

    def work(images: Any) -> Any:
        return images.create_image_variation(png(1, 64))

    assert flavor.run(work, "offline", provider="azure")[0].format == "png"


def test_content_filter_errors(flavor: Any, http_backend: str) -> None:
    """Maps Azure's error shapes to classes with its request id, and without the key."""
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
    """Records with a key and replays with a token on another backend; the cassette has neither."""
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
    """Has a bearer token by default, and Azure's token and key."""
    assert OpenAIProvider().credentials == (Credential(variable="OPENAI_API_KEY"),)
    assert [one.header for one in AzureProvider(VERSION).credentials] == ["authorization", "api-key"]


def test_it_is_short() -> None:
    """Needs no change in the core, and little code."""
    from imgkit.providers import azure

    assert len(inspect.getsource(azure).splitlines()) < 130


class TestAzureContract(OpenAISamples, StreamingProviderContract):
    def provider(self) -> AzureProvider:
        return AzureProvider(VERSION)

    def target(self, provider: Any) -> Target:
        return Target(base_url=OFFICIAL, host_class="official", model="draw")


class TestAzureV1Contract(OpenAISamples, StreamingProviderContract):
    def provider(self) -> AzureProvider:
        return AzureProvider()

    def target(self, provider: Any) -> Target:
        return Target(base_url=f"{OFFICIAL}/openai/v1", host_class="official", model="draw")


@pytest.mark.parametrize("backend", ["requests", "aiohttp"])
@pytest.mark.parametrize(
    ("provider", "path", "remedy"),
    [
        ("openai", "", 'Pass provider="azure".'),
        ("openai", "/openai", 'Pass provider="azure".'),
        ("azure", "/v1", 'or base_url="https://r.openai.azure.com/openai/v1" for the newer layout.'),
        ("azure", "/api/projects/p", 'Pass base_url="https://r.openai.azure.com", or'),
    ],
)
def test_an_address_of_another_layout(backend: str, provider: str, path: str, remedy: str) -> None:
    """Refuses an address below which Azure has no image API, before anything is sent."""
    address = f"https://r.openai.azure.com{path}"
    for kind in (imgkit.ImageService, imgkit.AsyncImageService):
        service: Any = kind(backend, provider=provider, base_url=address, model="d", api_key="k")
        with pytest.raises(imgkit.ConfigurationError) as caught:
            service.dry_run("create_image", "a fox")
        assert remedy in str(caught.value)


def test_the_newer_layout_without_the_provider() -> None:
    """Sends to /openai/v1 as to any compatible server."""
    address = "https://r.openai.azure.com/openai/v1"
    with imgkit.ImageService("requests", base_url=address, model="d", api_key="k") as service:
        assert service.dry_run("create_image", "a fox").startswith(f"POST {address}/images/generations")
