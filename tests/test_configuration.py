"""The configuration of a service: every mistake is reported before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import imgkit
from imgkit.backends.requests import _Adapter
from imgkit.core.core import Core
from imgkit.server.served_service import ServedService
from imgkit.wire.messages import BackendOptions
from tests.support.pictures import answer
from tests.support.wire_server import WireServer, reply

OFFICIAL = "https://api.openai.com/v1"


def build_core(*args: Any, **options: Any) -> Core:
    """Return the core of a closed service."""
    service = imgkit.ImageService(*args, **options)
    service.close()
    return service._core


def test_offline_is_the_default(monkeypatch: Any) -> None:
    """A key and a base URL in the environment do not switch the backend."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-live-0000000000")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.openai.com/v1")
    with imgkit.ImageService() as service:
        made = service.create_image("a fox", size="256x256")
    assert made.meta.backend == "offline"
    assert made[0].about["offline"] is True


@pytest.mark.parametrize("name", ["api_key", "base_url", "organization", "project"])
def test_network_options_need_a_network_backend(name: str) -> None:
    """Refuses a key, base URL, organization or project with the offline backend, and explains it."""
    options: dict[str, Any] = {name: "https://x.example"}
    with pytest.raises(imgkit.ConfigurationError, match=f'{name}.*backend="requests"'):
        imgkit.ImageService(**options)


def test_backend_by_environment(monkeypatch: Any) -> None:
    """Reads IMGKIT_BACKEND, IMGKIT_PROVIDER and IMGKIT_MODEL; an argument wins."""
    monkeypatch.setenv("IMGKIT_BACKEND", "requests")
    monkeypatch.setenv("IMGKIT_MODEL", "m-env")
    assert build_core().backend_name == "requests"
    assert build_core().target.model == "m-env"
    assert build_core("offline", model="m-arg").backend_name == "offline"
    assert build_core("offline", model="m-arg").target.model == "m-arg"
    monkeypatch.setenv("IMGKIT_PROVIDER", "opnai")
    with pytest.raises(imgkit.UnknownProviderError, match="did you mean 'openai'"):
        build_core()


@pytest.mark.parametrize("name", ["nope", "request", "../x", "os:system", "", " "])
def test_unknown_backend(name: str) -> None:
    """Lists the known backends for an unknown name, and imports nothing for it."""
    with pytest.raises(imgkit.UnknownBackendError, match="aiohttp, offline, requests"):
        imgkit.ImageService(name)


def test_no_model_on_the_official_host() -> None:
    """The official host needs a model; the error lists the live models with their date."""
    with imgkit.ImageService("requests", api_key="sk-test-000000000000") as service:
        with pytest.raises(imgkit.MissingModelError, match=r"2026-11-23.*gpt-image-2"):
            service.create_image("a fox")
        with pytest.raises(imgkit.MissingModelError):
            service.create_image_variation(b"not even opened")


def test_missing_key() -> None:
    """Sends nothing to the official host without a key; the error names the variable."""
    with imgkit.ImageService("requests", model="gpt-image-2") as service:
        with pytest.raises(imgkit.MissingKeyError, match="OPENAI_API_KEY"):
            service.create_image("a fox")


def test_a_compatible_server_needs_no_key(http_backend: str, flavor: Any) -> None:
    """Calls a compatible server without a key if there is none."""
    with WireServer(reply(200, answer())) as server:
        flavor.run(lambda service: service.create_image("a fox"), http_backend, base_url=server.base_url)
    assert "authorization" not in server.lines[0].headers


def test_key_from_environment_and_callable(monkeypatch: Any) -> None:
    """Reads the key from the environment or a callable on each call; an argument wins."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env-0000000000")
    keys = iter(["k1", "k2"])
    with WireServer(reply(200, answer())) as server:
        for options in ({}, {"api_key": "sk-arg"}, {"api_key": lambda: next(keys)}):
            with imgkit.ImageService("requests", base_url=server.base_url, **options) as service:
                service.create_image("a")
                service.create_image("b")
    sent = [line.headers["authorization"].removeprefix("Bearer ") for line in server.lines]
    assert sent == ["sk-env-0000000000"] * 2 + ["sk-arg"] * 2 + ["k1", "k2"]


BASE_URLS = {
    "api.openai.com/v1": "does not start with http:// or https://",
    "": "not a URL",
    "ftp://x/v1": "http:// or https://",
    "https://": "no valid host",
    "https://u:CANARY@h/v1": "credentials",
    "https://h/v1?x=1": "contains '\\?' or '#'",
    "https://h/v1#f": "contains '\\?' or '#'",
    "https://h/v1/images/generations": 'Pass base_url="https://h/v1"|Set OPENAI_BASE_URL=https://h/v1',
    "https://[::1": "not a URL",
    "https://h:0/v1": "no valid host",
    "https://h:99999/v1": "not a URL",
    "https://h ost/v1": "not a URL",
    "https://bücher.example/v1": "xn--",
    "https://h\\@evil/v1": "not a URL",
    "https://h/v1\r\nX: y": "not a URL",
}


@pytest.mark.parametrize("url", BASE_URLS)
def test_bad_base_urls(url: str, monkeypatch: Any) -> None:
    """Each unusable base URL has its own message, which shows no secret."""
    with pytest.raises(imgkit.ConfigurationError, match=BASE_URLS[url]) as caught:
        imgkit.ImageService("requests", base_url=url)
    assert str(caught.value).startswith("base_url")
    assert "CANARY" not in str(caught.value)
    if url.strip() and "\r" not in url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        with pytest.raises(imgkit.ConfigurationError, match="OPENAI_BASE_URL"):
            imgkit.ImageService("requests")


MENDED_URLS = {
    "localhost:8000/v1": "http://localhost:8000/v1",
    "127.0.0.1:8000": "http://127.0.0.1:8000",
    "[::1]:8000/v1": "http://[::1]:8000/v1",
    "192.168.0.5:8000/v1": "http://192.168.0.5:8000/v1",
    "gpu-box:8000/v1": "http://gpu-box:8000/v1",
    "api.example.com/v1": "https://api.example.com/v1",
    "api.openai.com": "https://api.openai.com/v1",
    "api.openai.com/images/generations": "https://api.openai.com/v1",
    "https:/api.example.com/v1": "https://api.example.com/v1",
    "//api.example.com/v1": "https://api.example.com/v1",
    "api.example.com/v1/images/edits?x=CANARY": "https://api.example.com/v1",
    "https://api.openai.com": "https://api.openai.com/v1",
    "https://API.openai.com/": "https://API.openai.com/v1",
    "https://api.openai.com/v1/images/generations/": "https://api.openai.com/v1",
    "https://api.openai.com/v1/chat/completions": "https://api.openai.com/v1",
    "http://localhost:8000/v1?api_key=CANARY": "http://localhost:8000/v1",
    "https://r.openai.azure.com/openai/v1/images/generations?api-version=preview": (
        "https://r.openai.azure.com/openai/v1"
    ),
}


@pytest.mark.parametrize("url", MENDED_URLS)
def test_a_wrong_base_url_has_its_remedy(url: str, monkeypatch: Any) -> None:
    """The error holds the URL to pass instead, in the words of its source, and that URL works."""
    better = MENDED_URLS[url]
    with pytest.raises(imgkit.ConfigurationError) as caught:
        imgkit.ImageService("requests", base_url=url)
    assert str(caught.value).endswith(f' Pass base_url="{better}".')
    assert "CANARY" not in str(caught.value)
    assert build_core("requests", base_url=better).target.base_url == better
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(imgkit.ConfigurationError, match="^OPENAI_BASE_URL") as caught:
        imgkit.ImageService("aiohttp")
    assert str(caught.value).endswith(f" Set OPENAI_BASE_URL={better}.")


@pytest.mark.parametrize(("prefix", "rest"), [
    ("https://r.openai.azure.com/openai", ""),
    ("https://r.openai.azure.com/openai", "/"),
    ("https://r.openai.azure.com/openai", "/images/generations?api-version=2025-04-01-preview"),
    ("https://gateway.example/x/openai", "/images/generations?api-version=2025-04-01-preview"),
])  # fmt: skip
def test_an_azure_target_uri(prefix: str, rest: str) -> None:
    """The error takes an address of a deployment apart into base_url, provider, model and version."""
    with pytest.raises(imgkit.ConfigurationError) as caught:
        imgkit.ImageService("requests", base_url=f"{prefix}/deployments/my-dep{rest}")
    words = f'Pass base_url="{prefix.removesuffix("/openai")}". Pass provider="azure" and model="my-dep".'
    version = " Set OPENAI_API_VERSION=2025-04-01-preview." if "?" in rest else ""
    assert str(caught.value).endswith(words + version)
    with pytest.raises(imgkit.ConfigurationError, match="the name of a deployment as model"):
        imgkit.ImageService("requests", base_url="https://r.openai.azure.com/openai/deployments/")


@pytest.mark.parametrize("url", [
    "http://localhost:4000/openai/deployments/gpt-image-1",
    "https://gateway.example/v1/models/flux",
    "https://gateway.example/v2/images/proxy/v1",
])  # fmt: skip
def test_roots_of_other_servers_are_taken(url: str) -> None:
    """Takes a root whose path only looks like that of an operation."""
    assert build_core("requests", base_url=url).target.base_url == url


WITHOUT_BACKEND: dict[str, Any] = {
    "provider": "openai",
    "model": "gpt-image-2",
    "proxy": "http://127.0.0.1:9",
    "ca": "ca.pem",
    "use_env_proxy": True,
    "reuse_connections": True,
    "allow_insecure": True,
    **dict.fromkeys(("api_key", "base_url", "organization", "project"), "x"),
}


@pytest.mark.parametrize("name", WITHOUT_BACKEND)
def test_a_setting_of_an_api_needs_a_backend(name: str, monkeypatch: Any) -> None:
    """Refuses to paint in place of the API that a setting means; naming the offline backend allows it."""
    given = {name: WITHOUT_BACKEND[name]}
    for kind in (imgkit.ImageService, imgkit.AsyncImageService):
        with pytest.raises(imgkit.ConfigurationError, match=f'^{name} is given without.*backend="requests"'):
            kind(**given)
    assert build_core("offline", **given).backend_name == "offline"
    if name in ("provider", "model"):
        assert build_core(client_options={"seed": "1"}, **given).backend_name == "offline"
        monkeypatch.setenv(f"IMGKIT_{name.upper()}", str(given[name]))
        with pytest.raises(imgkit.ConfigurationError, match=r"^IMGKIT_.* Set IMGKIT_BACKEND=requests"):
            imgkit.ImageService()
        monkeypatch.setenv("IMGKIT_BACKEND", "offline")
        assert build_core().backend_name == "offline"


MIXED_UP: list[tuple[dict[str, Any], str]] = [
    ({"backend": "openai"}, r"'openai' is a provider, not a backend.*Pass backend=\"requests\""),
    ({"backend": "azure"}, r'Pass backend="requests" or backend="aiohttp", with provider="azure"\.$'),
    ({"backend": "cache"}, r"'cache' is a plugin, not a backend.*Pass plugins=\[\"cache\"\]\.$"),
    ({"backend": "offline", "provider": "requests"}, r'Pass backend="requests"\.'),
    ({"backend": "offline", "provider": ""}, "name of the provider is empty"),
    ({"backend": "offline", "provider": []}, "A list is not a provider"),
    ({"backend": "offline", "provider": type("Acme", (), {})}, "Acme is a class. Pass an instance"),
    ({"plugins": ["azure"]}, r'Pass provider="azure" with a backend\.$'),
    ({"backend": []}, "type list is neither a name nor a backend"),
    ({"backend": 0}, "type int is neither a name nor a backend"),
]


@pytest.mark.parametrize(("given", "problem"), MIXED_UP)
def test_names_of_another_kind(given: dict[str, Any], problem: str) -> None:
    """Tells a backend, a provider and a plugin apart, and paints for none of these values."""
    with pytest.raises(imgkit.ConfigurationError, match=problem):
        imgkit.ImageService(**given)


def test_slashes_and_hosts() -> None:
    """Ignores a trailing slash, and knows the official host in any spelling."""
    assert (
        build_core("requests", base_url="http://localhost:1/v1/").target.base_url == "http://localhost:1/v1"
    )
    assert (
        build_core("requests", base_url="http://localhost:1//v1").target.base_url == "http://localhost:1//v1"
    )
    assert build_core("requests").target.base_url == OFFICIAL
    assert build_core("requests", base_url="https://API.openai.com:443/v1").target.host_class == "official"
    assert (
        build_core("requests", base_url="https://api.openai.com.evil.example/v1").target.host_class
        == "compatible"
    )


def test_a_key_is_not_sent_unencrypted(monkeypatch: Any) -> None:
    """Sends a key over plain http to this machine only, unless the caller allows it."""
    with pytest.raises(imgkit.ConfigurationError, match="unencrypted"):
        imgkit.ImageService("requests", base_url="http://10.0.0.5/v1", api_key="sk-000000000000")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-000000000000")
    with pytest.raises(imgkit.ConfigurationError, match="unencrypted"):
        imgkit.ImageService("requests", base_url="http://10.0.0.5/v1")
    build_core("requests", base_url="http://10.0.0.5/v1", allow_insecure=True)
    build_core("requests", base_url="http://127.0.0.1:5/v1")


WRONG: dict[str, Any] = {
    "timeout_s": -1,
    "connect_timeout_s": 0,
    "read_timeout_s": float("nan"),
    "max_reply_bytes": 0,
    "max_in_flight": True,
    "proxy": "proxy.example:3128",
    "organization": "org\n",
    "api_key": "sk-\nCANARY-000000",
    "project": "",
}


def test_many_requests_at_once() -> None:
    """Refuses more than 100,000 requests at once; a pool of connections stays smaller still."""
    assert build_core(max_in_flight=100_000).options.max_in_flight == 100_000
    for given, kept in ((100_000, 1024), (7, 7)):
        pool = _Adapter(BackendOptions(max_in_flight=given)).poolmanager.connection_from_url(
            "http://x.example"
        )
        assert pool.pool is not None
        assert pool.pool.maxsize == kept
    with pytest.raises(
        imgkit.ConfigurationError, match="max_in_flight must be .* from 1 to 100000, not 1000"
    ):
        build_core(max_in_flight=10**7)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values(name: str) -> None:
    """A wrong value raises an error that names the argument and shows no key."""
    options: dict[str, Any] = {name: WRONG[name] if name != "organization" else "org\x00"}
    with pytest.raises(imgkit.ConfigurationError, match=name) as caught:
        imgkit.ImageService("requests", **options)
    assert "CANARY" not in str(caught.value)


def test_a_bad_ca_file(http_backend: str, tmp_path: Any) -> None:
    """Refuses a CA file without certificates when the service is built, on each backend."""
    path = tmp_path / "ca.pem"
    path.write_text("nothing")
    problems = {path: "PEM", tmp_path / "missing.pem": "No such file", 7: "TypeError|PEM"}
    for ca, problem in problems.items():
        with pytest.raises(imgkit.ConfigurationError, match=f"^ca: .*{problem}"):
            imgkit.ImageService(http_backend, ca=ca)


def test_unknown_argument() -> None:
    """An unknown argument raises an error with the nearest real name."""
    with pytest.raises(imgkit.ConfigurationError, match="did you mean 'base_url'"):
        imgkit.ImageService(base_ulr="x")  # type: ignore[arg-type]
    for kind, name in ((ServedService, "AsyncImageService"), (imgkit.ImageService, "ImageService")):
        wrong: Any = {"provdier": "openai"}
        with pytest.raises(imgkit.ConfigurationError, match=f"argument of {name} .did you mean 'provider'"):
            kind(**wrong)


def test_arguments_of_a_call() -> None:
    """Unknown, missing or duplicate arguments of a call raise an imgkit error."""
    with imgkit.ImageService() as typed_service:
        service: Any = typed_service  # the calls are wrong on purpose
        cases: list[tuple[Callable[[], object], str]] = [
            (lambda: service.create_image("a", qualty="high"), "qualty: .*did you mean 'quality'"),
            (lambda: service.create_image(), "prompt: This argument is missing"),
            (lambda: service.create_image_edit(), "image: This argument is missing"),
            (lambda: service.create_image_edit("a.png"), "prompt: The prompt is missing"),
            (lambda: service.create_image("a", "b"), "takes prompt, then keywords"),
            (lambda: service.create_image("a", prompt="b"), "prompt: This argument is given twice"),
            (
                lambda: service.create_image(imgkit.CreateImageRequest(prompt="a"), n=2),
                "n: Set this field on the request object",
            ),
            (lambda: service.create_image("a", timeout_s=-1), "timeout_s"),
            (lambda: service.download("x"), "image"),
        ]
        for call, message in cases:
            with pytest.raises(imgkit.ImgkitError, match=message):
                call()


def test_reprs_show_no_key() -> None:
    """The repr of a service and its parts shows no key."""
    service = imgkit.ImageService("requests", base_url="http://127.0.0.1:1/v1", api_key="sk-CANARY-00000000")
    assert "backend='requests'" in repr(service)
    assert "CANARY" not in f"{service!r}{service._core!r}{service._core.table!r}{vars(service)}"
    service.close()
