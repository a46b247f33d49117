"""The fixture `imgkit_server`: apps that take a base URL meet a server of the test's process."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgkit.cli.run import run as imgkit_command
from imgkit.errors import ConfigurationError
from imgkit.testing import canary, cassette
from imgkit.testing.app_server import AppServer
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import WireServer, reply
from tests.support.nested_pytest import run_pytest
from tests.support.served import EDITS, GENERATIONS, form, send

pytest_plugins = ["pytester"]

APP = """
import httpx, pytest, requests

def ask(base_url, prompt, **more):
    body = dict(model="gpt-image-2", prompt=prompt, size="64x64", **more)
    return httpx.post(base_url + "/images/generations", json=body, timeout=30)
"""
OFFLINE = (
    APP
    + """
@pytest.mark.parametrize("number", range(4))
def test_app(imgkit_server, number):
    import openai

    with openai.OpenAI(base_url=imgkit_server.base_url, api_key="any") as client:
        client.images.generate(model="gpt-image-2", prompt=f"fox {number}", size="64x64")
    assert [(each.prompt, each.model, each.state) for each in imgkit_server.requests] == [
        (f"fox {number}", "gpt-image-2", "done")
    ]

class TestSettings:
    @pytest.fixture
    def imgkit_settings(self):
        return {"client_options": {"simulate": 429}, "retry": False}

    @pytest.fixture
    def imgkit_server_settings(self):
        return {"token": "abc", "routes": ["small=gpt-image-1-mini"]}

    def test_app(self, imgkit_server):
        assert ask(imgkit_server.base_url, "a fox").status_code == 401
        headers = {"authorization": "Bearer abc"}
        url = f"{imgkit_server.base_url}/images/generations"
        assert requests.post(url, json={"prompt": "a fox"}, headers=headers).status_code == 429
        assert [each.state for each in imgkit_server.requests] == ["failed"]
        models = requests.get(f"{imgkit_server.base_url}/models", headers=headers).json()["data"]
        assert models[0]["id"] == "small"

def test_two_services(imgkit_server, image_service):
    assert ask(imgkit_server.base_url, "a fox").status_code == 200
    assert image_service.create_image("a fox", size="64x64").meta.backend == "offline"
"""
)


def test_serves_an_app_offline(pytester: pytest.Pytester) -> None:
    """Paints without a cassette, tells what was asked, and takes settings."""
    pytester.makepyfile(OFFLINE)
    run_pytest(pytester).assert_outcomes(passed=6)


RECORDED = (
    APP
    + """
@pytest.fixture
def imgkit_settings():
    return {{"base_url": {base_url!r}}}

@pytest.mark.imgkit_cassette
def test_fox(imgkit_server):
    assert ask(imgkit_server.base_url, {prompt!r}).status_code == 200

@pytest.mark.imgkit_cassette(backend="aiohttp")
def test_hen(imgkit_server):
    reply = ask(imgkit_server.base_url, {prompt!r}, stream=True)
    assert "completed" in reply.text, reply.text

@pytest.mark.imgkit_cassette("shared")
@pytest.mark.parametrize("animal", ["cat", "owl", "emu"])
def test_shared(imgkit_server, image_service, animal):
    assert ask(imgkit_server.base_url, "a " + animal).status_code == 200
    assert image_service.create_image("one " + animal, model="gpt-image-2")[0].width == 8
"""
)


def test_records_and_replays_through_the_server(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records the requests of apps with the option, and replays them without a key when the API is gone."""
    monkeypatch.setenv("OPENAI_API_KEY", canary.KEY)
    with WireServer(reply(200, answer(png(1)))) as api:
        pytester.makepyfile(test_it=RECORDED.format(base_url=api.base_url, prompt="a fox"))
        missing = run_pytest(pytester)
        missing.assert_outcomes(errors=5)
        missing.stdout.fnmatch_lines(["*no cassette*cassettes/test_it/test_fox.yaml*--imgkit-record=once*"])
        assert api.accepted == 0
        run_pytest(pytester, "--imgkit-record=new_episodes").assert_outcomes(passed=5)
        assert api.posts == 8
    monkeypatch.delenv("OPENAI_API_KEY")
    run_pytest(pytester, "-n", "2").assert_outcomes(passed=5)
    folder = pytester.path / "cassettes"
    assert imgkit_command(["cassette", "check", str(folder)]) == 0
    assert canary.find_secret(folders=[folder]) == []
    assert "127.0.0.1" in (folder / "test_it/test_fox.yaml").read_text()  # the API alone is recorded
    pytester.makepyfile(test_it=RECORDED.format(base_url=api.base_url, prompt="a wolf"))
    missed = run_pytest(pytester)
    missed.assert_outcomes(passed=3, failed=2)
    missed.stdout.fnmatch_lines(
        [
            "*assert 404 == 200*",
            "*imgkit_server: 1 request has no recording; the app got a 404. *differs: "
            'prompt: "a fox" was recorded, "a wolf" is requested*--imgkit-record=new_episodes*',
        ]
    )


HIDDEN = (
    APP
    + """
@pytest.mark.imgkit_cassette("fox")
def test_the_app_hides_the_error(imgkit_server):
    reply = ask(imgkit_server.base_url, "a wolf")
    assert (reply.status_code, reply.headers["x-should-retry"]) == (404, "false")
    assert reply.json()["error"]["code"] == "fixture_missing"
    assert '"a wolf" is requested' in reply.json()["error"]["message"]
"""
)


def test_a_hidden_miss_fails_the_test(pytester: pytest.Pytester) -> None:
    """Fails a test whose app has swallowed the error, and names the option that records."""
    pytester.makepyfile(test_it=HIDDEN)
    with WireServer(reply(200, answer(png(1)))) as api:
        path = Path(pytester.path, "cassettes/test_it/fox.yaml")
        with cassette(path), AppServer(backend="aiohttp", base_url=api.base_url, api_key="k") as server:
            assert send(server, GENERATIONS, {"prompt": "a fox", "model": "gpt-image-2"}).status == 200
    failed = run_pytest(pytester)
    failed.assert_outcomes(failed=1)
    failed.stdout.fnmatch_lines(["imgkit_server: 1 request has no recording*--imgkit-record=new_episodes*"])


def test_tells_the_requests_of_an_app() -> None:
    """Lists operation, model, prompt and outcome of each request, the oldest first, also after the end."""
    with AppServer() as server:
        send(server, GENERATIONS, {"prompt": "a fox", "n": 2, "size": "64x64"})
        body, kind = form(image=png(1, 64), prompt="a hat", model="gpt-image-2", size="64x64")
        send(server, EDITS, body, content_type=kind)
        send(server, GENERATIONS, {"prompt": ""})
    assert [(each.operation, each.model, each.prompt) for each in server.requests] == [
        ("create_image", None, "a fox"),
        ("create_image_edit", "gpt-image-2", "a hat"),
    ]
    assert [(each.state, each.status, each.images) for each in server.requests] == [
        ("done", 200, 2),
        ("done", 200, 1),
    ]
    assert server.misses == []


def test_refuses_an_unknown_setting() -> None:
    """Names the setting that is not a setting of a server, and the nearest that is."""
    with pytest.raises(ConfigurationError, match="'tokn' is not a setting of a server.*token"):
        AppServer({"tokn": "abc"})
