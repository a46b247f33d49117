"""Code beside imgkit in a test with a cassette: it is refused, warned of, or left to vcrpy."""

from __future__ import annotations

import asyncio
import http.client
import inspect
import socket
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import requests
import urllib3
import vcr

import imgkit
from imgkit.testing import CassetteWarning, WireServer, answer, cassette, png, reply, vcr_config
from tests.record_cassettes import FOLDER
from tests.support.wire_backends import Backends, fail_when_touched

HOST = "api.imgkit.test"
URL = f"http://{HOST}/v1/images/generations"
RECORDED = FOLDER / "create_image.yaml"


async def ask_with_aiohttp(url: str) -> int:
    """Send a request by aiohttp."""
    async with aiohttp.ClientSession() as session, session.post(url, data=b"{}") as response:
        return response.status


async def ask_with_httpx(url: str) -> int:
    """Send a request by the coroutines of httpx."""
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.post(url, content=b"{}")).status_code


def ask_with_http_client(url: str) -> int:
    """Send a request by http.client."""
    connection = http.client.HTTPConnection(urllib3.util.parse_url(url).netloc or "", timeout=5)
    connection.request("POST", "/v1/images/generations", b"{}")
    return connection.getresponse().status


LIBRARIES: dict[str, Callable[[str], Any]] = {
    "aiohttp": ask_with_aiohttp,
    "http.client": ask_with_http_client,
    "httpx": lambda url: httpx.Client(trust_env=False).post(url, content=b"{}").status_code,
    "httpx, coroutines": ask_with_httpx,
    "requests": lambda url: requests.post(url, data=b"{}", timeout=5, proxies={"http": ""}).status_code,
    "urllib": lambda url: (
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, b"{}", timeout=5).status
    ),
    "urllib3": lambda url: urllib3.PoolManager().request("POST", url, body=b"{}", retries=False).status,
}


def ask(library: str, url: str) -> Any:
    """Send a request by a library and return its status."""
    result = LIBRARIES[library](url)
    return asyncio.run(result) if inspect.iscoroutine(result) else result


@pytest.mark.parametrize("library", LIBRARIES)
def test_replay_refuses_other_code(library: str) -> None:
    """Refuses other code the host of the cassette, with an error that no HTTP library wraps."""
    with cassette(RECORDED, record_mode="none"):
        with pytest.raises(imgkit.ConfigurationError, match=f"other code connects to '{HOST}'"):
            ask(library, URL)


@pytest.mark.parametrize("host", ["api.openai.com", "API.OpenAI.com", b"api.openai.com"])
def test_replay_refuses_official_host(host: Any) -> None:
    """Refuses the official host although the cassette does not name it, in any spelling."""
    with cassette(RECORDED, record_mode="none"):
        with pytest.raises(imgkit.ConfigurationError, match="(?i)other code connects to 'api.openai.com'"):
            socket.getaddrinfo(host, 443)


def test_other_hosts_stay_open(tmp_path: Path) -> None:
    """Lets other code reach this machine during a replay, and any host afterwards."""
    with WireServer(reply(200, answer())) as server:
        with (
            cassette(tmp_path / "c.yaml"),
            imgkit.ImageService("requests", base_url=server.base_url) as images,
        ):
            images.create_image("a fox")
            assert ask("requests", f"{server.base_url}/images/generations") == 200
        with cassette(tmp_path / "c.yaml", record_mode="none"):
            assert ask("requests", f"{server.base_url}/images/generations") == 200
        assert server.posts == 3
    with cassette(RECORDED, record_mode="none"):
        pass
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo(HOST, 80, flags=socket.AI_NUMERICHOST)


@pytest.mark.parametrize("library", ["aiohttp", "httpx", "requests", "urllib3"])
def test_vcrpy_serves_other_code(library: str, tmp_path: Path) -> None:
    """Leaves other code to vcrpy beside a cassette of imgkit; both replay."""
    with WireServer(reply(201, answer())) as server:
        url = f"{server.base_url}/images/generations"
        with vcr.use_cassette(str(tmp_path / "vcr.yaml")):
            assert ask(library, url) == 201
    path = tmp_path / "vcr.yaml"
    path.write_text(path.read_text().replace(url, URL))
    for order in (0, 1):
        contexts: list[Any] = [vcr.use_cassette(str(path)), cassette(RECORDED, record_mode="none")]
        with contexts[order], contexts[1 - order]:
            assert ask(library, URL) == 201
            with imgkit.ImageService(
                "httpx-based", plugins=[Backends()], base_url=f"http://{HOST}/v1"
            ) as images:
                images.create_image("a red fox in the snow", model="offline-painter", size="256x256")


@pytest.mark.parametrize("mode", ["once", "new_episodes", "all"])
def test_warns_of_recording_without_a_request(mode: str, tmp_path: Path) -> None:
    """Warns when a recording ends without a request, and writes nothing."""
    with pytest.warns(CassetteWarning, match="No imgkit service made a request.*use vcrpy") as caught:
        with cassette(tmp_path / "c.yaml", record_mode=mode):
            pass
    assert caught[0].filename == __file__
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError), cassette(tmp_path / "c.yaml", record_mode=mode):
        raise KeyError


@pytest.mark.parametrize("settings", [{}, {"match_on": ["method"]}, None], ids=["plain", "own", "vcr_config"])
def test_any_cassette_of_vcrpy_is_noticed(settings: Any, tmp_path: Path) -> None:
    """Refuses backends that vcrpy does not patch, whatever the settings of the cassette are."""
    chosen = vcr_config() if settings is None else settings
    with WireServer(fail_when_touched) as server:
        with vcr.use_cassette(str(tmp_path / "c.yaml"), **chosen):
            with imgkit.ImageService(
                "pycurl-based", base_url=server.base_url, plugins=[Backends()]
            ) as images:
                with pytest.raises(
                    imgkit.ConfigurationError, match="not intercept the backend 'pycurl-based'"
                ):
                    images.create_image("a fox")
        assert server.accepted == 0


@pytest.mark.parametrize(
    ("arguments", "settings", "problem"),
    [
        (["c.yaml"], {"recordmode": "none"}, "recordmode is no setting .*did you mean 'record_mode'"),
        (["c.yaml"], {"custom_patches": ()}, "custom_patches is no setting"),
        (["c.yaml"], {"record_mode": "never"}, "'never' is not a valid record_mode"),
        (["c.yaml"], {"serializer": "toml"}, "Serializer toml"),
        (["c.yaml"], {"match_on": ["prompt"]}, "Matcher prompt"),
        ([None], {}, "the path must be text or a path, not None"),
        ([""], {}, "the path must be text"),
        (["a\0b"], {}, "the path must be text"),
        ([b"c.yaml"], {}, "the path must be text"),
    ],
)
def test_wrong_settings(arguments: Any, settings: Any, problem: str) -> None:
    """Refuses a wrong path or setting before anything is sent."""
    with pytest.raises(imgkit.ConfigurationError, match=problem), cassette(*arguments, **settings):
        raise AssertionError("The cassette opens.")


def test_decorator(tmp_path: Path) -> None:
    """Decorates functions and coroutine functions; each call opens the cassette anew."""
    with WireServer(reply(200, answer(png(1)))) as server:
        settings: dict[str, Any] = {"base_url": server.base_url}

        @cassette(tmp_path / "c.yaml")
        def create(prompt: str) -> bytes:
            with imgkit.ImageService("requests", **settings) as images:
                return images.create_image(prompt)[0].data

        @cassette(tmp_path / "c.yaml")
        async def create_later(prompt: str) -> bytes:
            async with imgkit.AsyncImageService("aiohttp", **settings) as images:
                return (await images.create_image(prompt))[0].data

        assert create.__name__ == "create"
        assert {create("a fox"), create("a fox"), asyncio.run(create_later("a fox"))} == {png(1)}
        assert server.posts == 1

    with pytest.raises(imgkit.ConfigurationError, match="create_all is a generator"):

        @cassette(tmp_path / "c.yaml")
        def create_all() -> Iterator[bytes]:
            yield create("a fox")

    with pytest.raises(imgkit.ConfigurationError, match="Tests is a class"):

        @cassette(tmp_path / "c.yaml")
        class Tests: ...


def test_context_opens_again_after_its_end() -> None:
    """Opens a context twice, one time after the other, and refuses to open it inside itself."""
    context = cassette(RECORDED, record_mode="none")
    for _ in range(2):
        with context as tape:
            assert len(tape) == 3
            with pytest.raises(imgkit.ConfigurationError, match="is open already"), context:
                raise AssertionError("The context opens inside itself.")


def test_settings_of_vcr_config_are_taken(tmp_path: Path) -> None:
    """Takes the settings that `vcr_config` returns, and merges as usual."""
    with WireServer(reply(200, answer())) as server:
        with cassette(tmp_path / "c.yaml", **vcr_config()):
            with imgkit.ImageService("requests", base_url=server.base_url) as images:
                images.create_image("a fox")
    with cassette(tmp_path / "c.yaml", record_mode="none", **vcr_config()), imgkit.ImageService() as images:
        assert images.create_image("a fox")[0].width == 8
