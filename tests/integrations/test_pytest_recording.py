"""The pytest plugin works beside pytest-recording; both write the same kind of cassette."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from imgkit.cli.run import run as imgkit_command
from imgkit.testing import canary
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import WireServer, reply
from tests.support.nested_pytest import start_pytest

pytest_plugins = ["pytester"]

TESTS = """
import asyncio, imgkit, pytest
from imgkit.testing import vcr_config as settings

BASE_URL = {base_url!r}
PROMPT = {prompt!r}

@pytest.fixture
def vcr_config():
    return settings()

@pytest.fixture
def imgkit_settings():
    return {{"base_url": BASE_URL}}

@pytest.mark.vcr
def test_theirs():
    with imgkit.ImageService("requests", base_url=BASE_URL, api_key={key!r}) as images:
        assert images.create_image(PROMPT)[0].width == 200

@pytest.mark.vcr
def test_theirs_with_coroutines():
    async def main():
        async with imgkit.AsyncImageService("aiohttp", base_url=BASE_URL, api_key={key!r}) as images:
            return await images.create_image(PROMPT)
    assert asyncio.run(main())[0].width == 200

@pytest.mark.imgkit_cassette
def test_ours(image_service):
    assert image_service.create_image(PROMPT)[0].width == 200

def test_offline(image_service):
    assert image_service.create_image(PROMPT, size="16x16").meta.backend == "offline"
"""


def write_tests(pytester: pytest.Pytester, base_url: str, prompt: str = "a fox") -> None:
    """Write a test file with tests for both plugins."""
    pytester.makepyfile(test_it=TESTS.format(base_url=base_url, prompt=prompt, key=canary.KEY))


def test_each_plugin_records_with_its_own_option(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sends nothing by default, and records each plugin's tests with that plugin's option."""
    monkeypatch.setenv("OPENAI_API_KEY", canary.KEY)
    with WireServer(reply(200, answer(png(1, 200)))) as server:
        write_tests(pytester, server.base_url)
        start_pytest(pytester).assert_outcomes(failed=2, errors=1, passed=1)
        assert server.accepted == 0
        start_pytest(pytester, "--record-mode=once").assert_outcomes(passed=3, errors=1)
        assert server.posts == 2
        start_pytest(pytester, "--imgkit-record=once").assert_outcomes(passed=4)
        assert server.posts == 3
    check_cassettes(Path(pytester.path, "cassettes/test_it"))


def test_both_plugins_replay_without_network(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replays the cassettes of both plugins without a network, in one process and in two."""
    monkeypatch.setenv("OPENAI_API_KEY", canary.KEY)
    with WireServer(reply(200, answer(png(1, 200)))) as server:
        write_tests(pytester, server.base_url)
        start_pytest(pytester, "--record-mode=once", "--imgkit-record=once").assert_outcomes(passed=4)
    start_pytest(pytester, "--block-network").assert_outcomes(passed=4)
    start_pytest(pytester, "--block-network", "-n", "2").assert_outcomes(passed=4)
    check_cassettes(Path(pytester.path, "cassettes/test_it"))


def check_cassettes(folder: Path) -> None:
    """Fail unless both plugins wrote equal cassettes without secrets."""
    names = ["test_ours.yaml", "test_theirs.yaml", "test_theirs_with_coroutines.yaml"]
    assert sorted(path.name for path in folder.glob("*.yaml")) == names
    own, other = (yaml.safe_load((folder / name).read_text()) for name in names[:2])
    for entry in (*own["interactions"], *other["interactions"]):
        del entry["response"]["headers"], entry["response"]["status"]["message"]
    for entry, other_entry in zip(own["interactions"], other["interactions"], strict=True):
        # HTTP libraries add headers of their own.
        headers, other_headers = entry["request"].pop("headers"), other_entry["request"].pop("headers")
        assert headers.items() <= other_headers.items()
    assert own == other
    assert imgkit_command(["cassette", "check", str(folder)]) == 0
    assert canary.find_secret(folders=[folder]) == []


def test_miss_lists_differing_fields(pytester: pytest.Pytester) -> None:
    """Lists the fields that differ, also for pytest-recording's cassettes."""
    with WireServer(reply(200, answer(png(1, 200)))) as server:
        write_tests(pytester, server.base_url)
        start_pytest(pytester, "--record-mode=once", "--imgkit-record=once").assert_outcomes(passed=4)
    write_tests(pytester, server.base_url, prompt="a wolf")
    failed = start_pytest(pytester)
    failed.assert_outcomes(failed=3, passed=1)
    # Count the tracebacks only: in CI, pytest repeats each message in its summary.
    differences = [
        line for line in failed.outlines if line.startswith("E ") and "imgkit_body differs" in line
    ]
    assert len(differences) == 3
    assert all('prompt: "a fox" was recorded, "a wolf" is requested' in line for line in differences)


SERVED = """
import httpx, pytest, requests

def ask(base_url, prompt, **more):
    body = dict(model="gpt-image-2", prompt=prompt, size="64x64", **more)
    return httpx.post(base_url + "/images/generations", json=body, timeout=30)

import aiohttp, asyncio

async def ask_by_aiohttp(url):
    async with aiohttp.ClientSession() as session, session.post(url, json={"prompt": "a hen"}) as reply:
        return reply.status

def ask_in_many_ways(base_url):
    assert ask(base_url, "a fox").status_code == 200
    url = f"{base_url}/images/generations"
    assert requests.post(url, json={"prompt": "a cat"}).status_code == 200
    assert asyncio.run(ask_by_aiohttp(url)) == 200

@pytest.mark.vcr
def test_marked(imgkit_server):
    ask_in_many_ways(imgkit_server.base_url)
    assert len(imgkit_server.requests) == 3

@pytest.mark.vcr
def test_other_traffic_is_still_refused(imgkit_server):
    with pytest.raises(Exception, match="Can't play back this request"):
        requests.get("http://127.0.0.1:9/")
"""


def test_vcrpy_lets_requests_to_the_server_pass(pytester: pytest.Pytester) -> None:
    """Answers an app beside a cassette of pytest-recording, which neither records nor refuses it."""
    pytester.makepyfile(SERVED)
    start_pytest(pytester).assert_outcomes(passed=2)
    start_pytest(pytester, "--record-mode=once", "-k", "marked").assert_outcomes(passed=1, deselected=1)
    assert not list(pytester.path.rglob("*.yaml"))
