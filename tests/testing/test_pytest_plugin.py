"""The plugin of pytest, run by pytest: offline unless asked, and nothing sent by accident."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from imgkit.cli.run import run as imgkit_command
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import WireServer, reply

EXAMPLE = Path(__file__).parents[2] / "examples/testing-an-app"

pytest_plugins = ["pytester"]

TESTS = """
import asyncio, imgkit, pytest

@pytest.fixture
def imgkit_settings():
    return {{"base_url": {base_url!r}, "model": "m"}}

@pytest.mark.imgkit_cassette
def test_fox(image_service):
    assert image_service.create_image("a fox")[0].width == 8

@pytest.mark.imgkit_cassette(name="cat", backend="aiohttp")
def test_cat(async_image_service):
    async def main():
        async with async_image_service as images:
            return await images.create_image("a cat")
    assert asyncio.run(main())[0].width == 8
"""
OFFLINE = """
import asyncio

def test_offline(image_service):
    assert image_service.create_image("a fox", size="64x64").meta.backend == "offline"

def test_coroutines(async_image_service):
    async def main():
        async with async_image_service as images:
            return await images.create_image("a fox", size="64x64")
    assert asyncio.run(main()).meta.backend == "offline"
"""


def run(pytester: pytest.Pytester, *args: str) -> Any:
    return pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", "-W", "error", *args)


def test_offline_unless_asked(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(OFFLINE)
    run(pytester).assert_outcomes(passed=2)


def test_record_and_replay(pytester: pytest.Pytester) -> None:
    """Without a cassette nothing is sent, and the failure says how to record; then it is replayed."""
    with WireServer(reply(200, answer(png(1)))) as server:
        pytester.makepyfile(test_it=TESTS.format(base_url=server.base_url))
        failed = run(pytester)
        failed.assert_outcomes(errors=2)
        failed.stdout.fnmatch_lines(["*no cassette*cassettes/test_it/test_fox.yaml*--imgkit-record=once*"])
        assert server.accepted == 0
        run(pytester, "--imgkit-record=once").assert_outcomes(passed=2)
        assert server.posts == 2
    folder = pytester.path / "cassettes/test_it"
    assert sorted(path.name for path in folder.iterdir()) == ["cat.yaml", "test_fox.yaml"]
    run(pytester).assert_outcomes(passed=2)
    run(pytester, "-n", "2").assert_outcomes(passed=2)


def test_another_request_fails_and_tells_what_differs(pytester: pytest.Pytester) -> None:
    with WireServer(reply(200, answer(png(1)))) as server:
        source = TESTS.format(base_url=server.base_url)
        pytester.makepyfile(test_it=source)
        run(pytester, "--imgkit-record=once").assert_outcomes(passed=2)
        pytester.makepyfile(test_it=source.replace('"a fox"', '"a wolf"'))
        failed = run(pytester)
        failed.assert_outcomes(passed=1, failed=1)
        failed.stdout.fnmatch_lines(
            [
                '*imgkit_body differs: prompt: "a fox" was recorded, "a wolf" is asked for*',
                "*imgkit: nothing was sent: *--imgkit-record=new_episodes*",
            ]
        )
        failed.stdout.no_fnmatch_line("*whether the request was received is not known*")
        assert server.posts == 2


def test_rewriting(pytester: pytest.Pytester) -> None:
    """What is not asked for any more goes."""
    with WireServer(reply(200, answer(png(1)))) as server:
        source = TESTS.format(base_url=server.base_url)
        pytester.makepyfile(test_it=source)
        run(pytester, "--imgkit-record=once").assert_outcomes(passed=2)
        pytester.makepyfile(test_it=source.replace('"a fox"', '"a wolf"'))
        run(pytester, "--imgkit-record=rewrite").assert_outcomes(passed=2)
    text = (pytester.path / "cassettes/test_it/test_fox.yaml").read_text()
    assert "a wolf" in text
    assert "a fox" not in text
    run(pytester).assert_outcomes(passed=2)


SHARED = """
import pytest

@pytest.fixture
def imgkit_settings():
    return {{"base_url": {base_url!r}, "model": "m"}}

@pytest.mark.imgkit_cassette("shared")
@pytest.mark.parametrize("animal", ["fox", "cat", "hen", "owl", "emu", "yak"])
def test_it(image_service, animal):
    assert image_service.create_image("a " + animal)[0].width == 8
"""


@pytest.mark.parametrize("workers", [(), ("-n", "3")], ids=["in one process", "in three"])
@pytest.mark.parametrize("mode", ["new_episodes", "rewrite"])
def test_tests_that_share_a_cassette(mode: str, workers: tuple[str, ...], pytester: pytest.Pytester) -> None:
    """None loses what another one has recorded and paid for; what nobody asks for any more goes."""
    with WireServer(reply(200, answer(png(1)))) as server:
        source = SHARED.format(base_url=server.base_url)
        pytester.makepyfile(test_it=source.replace('"a "', '"two of "'))
        run(pytester, "--imgkit-record=new_episodes").assert_outcomes(passed=6)
        pytester.makepyfile(test_it=source)
        run(pytester, f"--imgkit-record={mode}", *workers).assert_outcomes(passed=6)
        assert server.posts == 12
    run(pytester).assert_outcomes(passed=6)
    (path,) = pytester.path.glob("cassettes/test_it/*")
    assert ("two of" in path.read_text()) == (mode == "new_episodes")


def test_retries_do_not_wait_on_replay(pytester: pytest.Pytester) -> None:
    """A recorded 429 that asked for seconds is tried again at once."""
    slow = reply(429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, retry_after="1")
    with WireServer(slow, reply(200, answer(png(1)))) as server:
        source = TESTS.format(base_url=server.base_url).partition("@pytest.mark.imgkit_cassette(name")[0]
        pytester.makepyfile(test_it=source)
        run(pytester, "--imgkit-record=once").assert_outcomes(passed=1)
        assert server.posts == 2
    text = (pytester.path / "cassettes/test_it/test_fox.yaml").read_text()
    path = pytester.path / "cassettes/test_it/test_fox.yaml"
    path.write_text(text.replace("'1'", "'100'"))
    began = time.monotonic()
    run(pytester).assert_outcomes(passed=1)
    assert time.monotonic() - began < 30


def test_the_example(pytester: pytest.Pytester) -> None:
    """A project that is to be copied from: its suite replays, and nothing in it is secret."""
    shutil.copytree(EXAMPLE, pytester.path, dirs_exist_ok=True)
    run(pytester).assert_outcomes(passed=5)
    assert imgkit_command(["cassette", "check", str(pytester.path / "tests/cassettes")]) == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('record="sometimes"', "*record is one of none, once*"),
        (
            'nmae="fox"',
            "*UsageError: imgkit_cassette got an unexpected keyword*nmae*: it is imgkit_cassette(name=*",
        ),
    ],
)
def test_a_wrong_marker(arguments: str, told: str, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.mark.imgkit_cassette({arguments})
        def test_it(image_service): ...
        """
    )
    failed = run(pytester)
    failed.assert_outcomes(errors=1)
    failed.stdout.fnmatch_lines([told])


def test_it_imports_nothing_heavy(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_it():
            heavy = {"vcr", "requests", "aiohttp", "marshmallow", "PIL", "yaml"}
            assert not heavy & set(sys.modules)
        """
    )
    run(pytester).assert_outcomes(passed=1)


NAMES = """
import imgkit, pytest

@pytest.fixture
def imgkit_settings():
    return {{"base_url": {base_url!r}}}

def ask(images, prompt):
    assert images.create_image(prompt)[0].width == 8

class TestOne:
    @pytest.mark.imgkit_cassette
    def test_it(self, image_service):
        ask(image_service, "one")

class TestTwo:
    class TestInner:
        @pytest.mark.imgkit_cassette
        def test_it(self, image_service):
            ask(image_service, "two")

@pytest.mark.imgkit_cassette
@pytest.mark.parametrize("words", ["a/b", "a:b", "ä", "a" * 300], ids=str)
def test_it(image_service, words):
    ask(image_service, words)
"""


def test_no_two_tests_share_a_cassette(pytester: pytest.Pytester) -> None:
    """Methods of two classes, and parameters that differ in characters which no file may have."""
    with WireServer(reply(200, answer(png(1)))) as server:
        pytester.makepyfile(test_it=NAMES.format(base_url=server.base_url))
        run(pytester, "--imgkit-record=once").assert_outcomes(passed=6)
        assert server.posts == 6
    names = sorted(path.name for path in (pytester.path / "cassettes/test_it").iterdir())
    assert len(names) == 6
    assert names[:2] == ["TestOne.test_it.yaml", "TestTwo.TestInner.test_it.yaml"]
    assert sum(name.startswith("test_it[a-b]-") for name in names) == 2
    assert all(name.isascii() and len(name) < 200 for name in names)
    run(pytester, "-n", "2").assert_outcomes(passed=6)


OWN_SERVICE = """
import asyncio, imgkit, pytest

BASE_URL = {base_url!r}

@pytest.fixture
def imgkit_settings():
    return {{"base_url": BASE_URL}}

@pytest.mark.imgkit_cassette
def test_a_service_of_its_own():
    with imgkit.ImageService("requests", base_url=BASE_URL) as images:
        assert images.create_image("a fox")[0].width == 8

@pytest.mark.imgkit_cassette(backend="aiohttp")
def test_both(image_service, async_image_service):
    async def main():
        async with async_image_service as images:
            return await images.create_image("a hen")
    assert asyncio.run(main())[0].width == image_service.create_image("a cat")[0].width == 8
"""


def test_the_marker_is_enough(pytester: pytest.Pytester) -> None:
    """A service that a test makes itself sends nothing either; two services share the cassette of a test."""
    with WireServer(reply(200, answer(png(1)))) as server:
        pytester.makepyfile(test_it=OWN_SERVICE.format(base_url=server.base_url))
        run(pytester).assert_outcomes(errors=2)
        assert server.accepted == 0
        run(pytester, "--imgkit-record=once").assert_outcomes(passed=2)
        assert server.posts == 3
    run(pytester).assert_outcomes(passed=2)
    assert (pytester.path / "cassettes/test_it/test_both.yaml").read_text().count("method: POST") == 2
