"""The pytest marker closes every way by which a replayed test could reach the API."""

from __future__ import annotations

from pathlib import Path

import pytest

import imgkit
from imgkit.testing import WireServer, answer, cassette, png, reply
from tests.support.api_server import ROOT
from tests.support.nested_pytest import run_pytest
from tests.support.wire_backends import fail_when_touched

pytest_plugins = ["pytester"]

DOORS = """
import unittest
import imgkit, pytest
from imgkit.backends import BackendOptions
from tests.support.wire_backends import Backends, PycurlBackend

BASE_URL = {base_url!r}
EARLIER = imgkit.ImageService("requests", base_url=BASE_URL, retry=False)

def ask(images):
    assert images.create_image("a fox")[0].width == 8

@pytest.fixture(scope="session")
def session_fox():
    return EARLIER.create_image("a fox")

@pytest.fixture(autouse=True)
def first(request):
    if "autouse" in request.node.name:
        ask(EARLIER)

@pytest.fixture
def fox():
    return EARLIER.create_image("a fox")

@pytest.fixture
def asks_at_the_end():
    yield
    ask(EARLIER)

@pytest.mark.imgkit_cassette("fox")
def test_fixture_of_a_session(session_fox):
    assert session_fox[0].width == 8

@pytest.mark.imgkit_cassette("fox")
def test_autouse_fixture(): ...

@pytest.mark.imgkit_cassette("fox")
def test_fixture(fox):
    assert fox[0].width == 8

@pytest.mark.imgkit_cassette("fox")
def test_fixture_in_its_teardown(asks_at_the_end): ...

@pytest.mark.imgkit_cassette("fox", backend=PycurlBackend(BackendOptions()))
def test_instance_in_the_marker(image_service):
    ask(image_service)

class TestSetup:
    def setup_method(self):
        ask(EARLIER)

    @pytest.mark.imgkit_cassette("fox")
    def test_setup_method(self): ...

class TestUnit(unittest.TestCase):
    def setUp(self):
        self.images = EARLIER

    @pytest.mark.imgkit_cassette("fox")
    def test_unit(self):
        ask(self.images)

def test_marked_by_conftest():
    ask(EARLIER)

@pytest.mark.imgkit_cassette("fox", backend=PycurlBackend)
def test_class_in_the_marker(image_service):
    ask(image_service)
"""

CONFTEST = """
import pytest

@pytest.fixture
def imgkit_settings():
    return {{"base_url": {base_url!r}}}

def pytest_collection_modifyitems(items):
    for item in items:
        if "by_conftest" in item.name:
            item.add_marker(pytest.mark.imgkit_cassette("fox"))
"""


def test_marker_closes_every_door(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replays calls of fixtures, of setup and teardown, and of services that exist already."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with WireServer(reply(200, answer(png(1)))) as server:
        path = Path(pytester.path, "cassettes/test_it/fox.yaml")
        with cassette(path), imgkit.ImageService("requests", base_url=server.base_url) as images:
            images.create_image("a fox")
    with WireServer(fail_when_touched) as server:
        pytester.makepyfile(test_it=DOORS.format(base_url=server.base_url))
        pytester.makeconftest(CONFTEST.format(base_url=server.base_url))
        result = run_pytest(pytester)
        assert server.accepted == 0
    result.assert_outcomes(passed=8, errors=1)
    result.stdout.fnmatch_lines(["*ConfigurationError: backend: PycurlBackend is a class. Pass an instance*"])


MISS = """
import imgkit, pytest

@pytest.fixture
def elk():
    with imgkit.ImageService("requests", base_url={base_url!r}, retry=False) as images:
        return images.create_image("an elk")

@pytest.mark.imgkit_cassette("fox")
def test_it(elk): ...
"""


def test_miss_in_a_fixture_is_explained(pytester: pytest.Pytester) -> None:
    """Explains a missing recording in a fixture as in a test, and sends nothing."""
    with WireServer(reply(200, answer(png(1)))) as server:
        path = Path(pytester.path, "cassettes/test_it/fox.yaml")
        with cassette(path), imgkit.ImageService("requests", base_url=server.base_url) as images:
            images.create_image("a fox")
        pytester.makepyfile(test_it=MISS.format(base_url=server.base_url))
        result = run_pytest(pytester)
        assert server.posts == 1
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*imgkit: Nothing was sent.*--imgkit-record=new_episodes*"])
