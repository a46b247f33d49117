"""The pytest plugin, run by pytest: offline by default, recording only on request."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from imgkit.cli.run import run as imgkit_command
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import WireServer, reply
from tests.support.nested_pytest import run_pytest, start_pytest

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


def test_unmarked_tests_run_offline(pytester: pytest.Pytester) -> None:
    """Runs tests without the marker on the offline backend."""
    pytester.makepyfile(OFFLINE)
    start_pytest(pytester).assert_outcomes(passed=2)


def test_records_once_then_replays(pytester: pytest.Pytester) -> None:
    """Fails without a cassette and sends nothing; then records, and replays."""
    with WireServer(reply(200, answer(png(1)))) as server:
        pytester.makepyfile(test_it=TESTS.format(base_url=server.base_url))
        failed = run_pytest(pytester)
        failed.assert_outcomes(errors=2)
        failed.stdout.fnmatch_lines(["*no cassette*cassettes/test_it/test_fox.yaml*--imgkit-record=once*"])
        assert server.accepted == 0
        run_pytest(pytester, "--imgkit-record=once").assert_outcomes(passed=2)
        assert server.posts == 2
    folder = pytester.path / "cassettes/test_it"
    assert sorted(path.name for path in folder.iterdir()) == ["cat.yaml", "test_fox.yaml"]
    run_pytest(pytester).assert_outcomes(passed=2)
    run_pytest(pytester, "-n", "2").assert_outcomes(passed=2)


def test_changed_request_fails_with_its_differences(pytester: pytest.Pytester) -> None:
    """Fails an unrecorded request, lists the fields that differ, and sends nothing."""
    with WireServer(reply(200, answer(png(1)))) as server:
        source = TESTS.format(base_url=server.base_url)
        pytester.makepyfile(test_it=source)
        run_pytest(pytester, "--imgkit-record=once").assert_outcomes(passed=2)
        pytester.makepyfile(test_it=source.replace('"a fox"', '"a wolf"'))
        failed = run_pytest(pytester)
        failed.assert_outcomes(passed=1, failed=1)
        failed.stdout.fnmatch_lines(
            [
                "*Exception: imgkit: Nothing was sent. *--imgkit-record=new_episodes*",
                '*imgkit_body differs: prompt: "a fox" was recorded, "a wolf" is requested*',
            ]
        )
        failed.stdout.no_fnmatch_line("*whether the request was received is not known*")
        assert server.posts == 2


def test_rewrite_deletes_old_recordings(pytester: pytest.Pytester) -> None:
    """Replaces old recordings in rewrite mode."""
    with WireServer(reply(200, answer(png(1)))) as server:
        source = TESTS.format(base_url=server.base_url)
        pytester.makepyfile(test_it=source)
        run_pytest(pytester, "--imgkit-record=once").assert_outcomes(passed=2)
        pytester.makepyfile(test_it=source.replace('"a fox"', '"a wolf"'))
        run_pytest(pytester, "--imgkit-record=rewrite").assert_outcomes(passed=2)
    text = (pytester.path / "cassettes/test_it/test_fox.yaml").read_text()
    assert "a wolf" in text
    assert "a fox" not in text
    run_pytest(pytester).assert_outcomes(passed=2)


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


@pytest.mark.parametrize(
    ("mode", "workers"), [("new_episodes", ()), ("new_episodes", ("-n", "3")), ("rewrite", ("-n", "3"))]
)
def test_tests_can_share_a_cassette(mode: str, workers: tuple[str, ...], pytester: pytest.Pytester) -> None:
    """Keeps the recordings of all tests that share a cassette, in one process or in three."""
    with WireServer(reply(200, answer(png(1)))) as server:
        source = SHARED.format(base_url=server.base_url)
        pytester.makepyfile(test_it=source.replace('"a "', '"two of "'))
        run_pytest(pytester, "--imgkit-record=new_episodes").assert_outcomes(passed=6)
        pytester.makepyfile(test_it=source)
        run_pytest(pytester, f"--imgkit-record={mode}", *workers).assert_outcomes(passed=6)
        assert server.posts == 12
    run_pytest(pytester).assert_outcomes(passed=6)
    (path,) = pytester.path.glob("cassettes/test_it/*")
    assert ("two of" in path.read_text()) == (mode == "new_episodes")


def test_replay_retries_without_waiting(pytester: pytest.Pytester) -> None:
    """Retries a recorded 429 at once, although it asked for 100 seconds."""
    slow = reply(429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, retry_after_ms="10")
    with WireServer(slow, reply(200, answer(png(1)))) as server:
        source = TESTS.format(base_url=server.base_url).partition("@pytest.mark.imgkit_cassette(name")[0]
        pytester.makepyfile(test_it=source)
        run_pytest(pytester, "--imgkit-record=once").assert_outcomes(passed=1)
        assert server.posts == 2
    text = (pytester.path / "cassettes/test_it/test_fox.yaml").read_text()
    path = pytester.path / "cassettes/test_it/test_fox.yaml"
    assert "'10'" in text
    path.write_text(text.replace("'10'", "'100000'"))
    start = time.monotonic()
    run_pytest(pytester).assert_outcomes(passed=1)
    assert time.monotonic() - start < 30


def test_example_project_replays(pytester: pytest.Pytester) -> None:
    """Replays the example project, whose cassettes hold no secret."""
    shutil.copytree(EXAMPLE, pytester.path, dirs_exist_ok=True)
    run_pytest(pytester).assert_outcomes(passed=5)
    assert imgkit_command(["cassette", "check", str(pytester.path / "tests/cassettes")]) == 0


@pytest.mark.parametrize(
    ("arguments", "expected_line"),
    [
        ('record="sometimes"', "*Unknown record mode 'sometimes'. Available: none, once*"),
        (
            'nmae="fox"',
            "*UsageError: imgkit_cassette got an unexpected keyword*nmae*. Usage: imgkit_cassette(name=*",
        ),
    ],
)
def test_wrong_marker_is_a_usage_error(arguments: str, expected_line: str, pytester: pytest.Pytester) -> None:
    """Reports a wrong argument of the marker."""
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.mark.imgkit_cassette({arguments})
        def test_it(image_service): ...
        """
    )
    failed = run_pytest(pytester)
    failed.assert_outcomes(errors=1)
    failed.stdout.fnmatch_lines([expected_line])


def test_plugin_imports_no_heavy_library(pytester: pytest.Pytester) -> None:
    """Imports no HTTP library, no YAML, no Pillow and no vcrpy at startup."""
    pytester.makepyfile(
        """
        import sys

        def test_it():
            heavy = {"vcr", "requests", "aiohttp", "marshmallow", "PIL", "yaml"}
            assert not heavy & set(sys.modules)
        """
    )
    start_pytest(pytester).assert_outcomes(passed=1)


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


def test_cassette_paths_are_unique(pytester: pytest.Pytester) -> None:
    """Gives methods of two classes and unusual parameters a cassette each."""
    with WireServer(reply(200, answer(png(1)))) as server:
        pytester.makepyfile(test_it=NAMES.format(base_url=server.base_url))
        run_pytest(pytester, "--imgkit-record=once").assert_outcomes(passed=6)
        assert server.posts == 6
    names = sorted(path.name for path in (pytester.path / "cassettes/test_it").iterdir())
    assert len(names) == 6
    assert names[:2] == ["TestOne.test_it.yaml", "TestTwo.TestInner.test_it.yaml"]
    assert sum(name.startswith("test_it[a-b]-") for name in names) == 2
    assert all(name.isascii() and len(name) < 200 for name in names)
    run_pytest(pytester, "-n", "2").assert_outcomes(passed=6)


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


def test_marker_covers_every_service(pytester: pytest.Pytester) -> None:
    """Replays a service that the test creates itself, and two services on a shared cassette."""
    with WireServer(reply(200, answer(png(1)))) as server:
        pytester.makepyfile(test_it=OWN_SERVICE.format(base_url=server.base_url))
        run_pytest(pytester).assert_outcomes(errors=2)
        assert server.accepted == 0
        run_pytest(pytester, "--imgkit-record=once").assert_outcomes(passed=2)
        assert server.posts == 3
    run_pytest(pytester).assert_outcomes(passed=2)
    assert (pytester.path / "cassettes/test_it/test_both.yaml").read_text().count("method: POST") == 2


ANY_BACKEND = """
import imgkit, pytest
from imgkit.backends import BackendOptions
from tests.support.wire_backends import Backends, HttpxCoroutines

BASE_URL = {base_url!r}

@pytest.fixture
def imgkit_settings():
    return {{"base_url": BASE_URL, "plugins": [Backends()]}}

@pytest.mark.imgkit_cassette(backend="pycurl-based")
def test_named(image_service):
    assert image_service.create_image("a fox")[0].width == 8

@pytest.mark.imgkit_cassette
def test_instance():
    backend = HttpxCoroutines(BackendOptions())
    with imgkit.ImageService(backend, base_url=BASE_URL) as images:
        assert images.create_image("a {animal}")[0].width == 8
"""


def test_marker_serves_backends_of_strangers(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sends nothing with a stranger's backend without the option; then records once, and replays."""
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLE.parents[1]))
    with WireServer(reply(200, answer(png(1)))) as server:
        pytester.makepyfile(test_it=ANY_BACKEND.format(base_url=server.base_url, animal="hen"))
        run_pytest(pytester).assert_outcomes(errors=2)
        assert server.accepted == 0
        run_pytest(pytester, "--imgkit-record=once").assert_outcomes(passed=2)
        run_pytest(pytester, "--imgkit-record=once").assert_outcomes(passed=2)
        assert server.posts == 2
        pytester.makepyfile(test_it=ANY_BACKEND.format(base_url=server.base_url, animal="wolf"))
        run_pytest(pytester).assert_outcomes(passed=1, failed=1)
        assert server.posts == 2
    for path in pytester.path.glob("cassettes/test_it/*.yaml"):
        assert path.read_text().count("method: POST") == 1
