"""Beside pytest-recording: both plugins in one run, one kind of cassette."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from imgkit.cli.run import run as imgkit_command
from imgkit.testing import canary
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import WireServer, reply

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


def run(pytester: pytest.Pytester, *args: str) -> Any:
    return pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", "-W", "error", *args)


def write(pytester: pytest.Pytester, base_url: str, prompt: str = "a fox") -> None:
    pytester.makepyfile(test_it=TESTS.format(base_url=base_url, prompt=prompt, key=canary.KEY))


def test_both_record_and_replay(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by its own option; then without a network, one process or two; the cassettes are alike."""
    monkeypatch.setenv("OPENAI_API_KEY", canary.KEY)
    with WireServer(reply(200, answer(png(1, 200)))) as server:
        write(pytester, server.base_url)
        run(pytester).assert_outcomes(failed=2, errors=1, passed=1)
        assert server.accepted == 0
        run(pytester, "--record-mode=once").assert_outcomes(passed=3, errors=1)
        assert server.posts == 2
        run(pytester, "--imgkit-record=once").assert_outcomes(passed=4)
        assert server.posts == 3
    run(pytester, "--block-network").assert_outcomes(passed=4)
    run(pytester, "--block-network", "-n", "2").assert_outcomes(passed=4)
    folder = Path(pytester.path, "cassettes/test_it")
    names = ["test_ours.yaml", "test_theirs.yaml", "test_theirs_with_coroutines.yaml"]
    assert sorted(one.name for one in folder.glob("*.yaml")) == names
    ours, theirs = (yaml.safe_load((folder / name).read_text()) for name in names[:2])
    for one in (*ours["interactions"], *theirs["interactions"]):
        del one["response"]["headers"]
    assert ours == theirs
    assert imgkit_command(["cassette", "check", str(folder)]) == 0
    assert canary.found_in(folders=[folder]) == []


def test_a_miss_names_what_differs(pytester: pytest.Pytester) -> None:
    """Field by field, where vcrpy would show two bodies; pytest-recording's cassettes too."""
    with WireServer(reply(200, answer(png(1, 200)))) as server:
        write(pytester, server.base_url)
        run(pytester, "--record-mode=once", "--imgkit-record=once").assert_outcomes(passed=4)
    write(pytester, server.base_url, prompt="a wolf")
    failed = run(pytester, "-n", "2")
    failed.assert_outcomes(failed=3, passed=1)
    # Of the tracebacks: where CI is set, pytest says it all once more in its summary.
    told = [line for line in failed.outlines if line.startswith("E ") and "imgkit_body differs" in line]
    assert len(told) == 3
    assert all('prompt: "a fox" was recorded, "a wolf" is asked for' in line for line in told)
