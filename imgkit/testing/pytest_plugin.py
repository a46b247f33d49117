"""A pytest plugin: services for tests that run offline or replay cassettes.

Fixtures: `image_service`, `async_image_service` and `imgkit_server`; `imgkit_settings` overrides the
arguments of all, `imgkit_server_settings` those of the server. A test with
``@pytest.mark.imgkit_cassette`` replays ``cassettes/MODULE/TEST.yaml`` beside its file. The option
``--imgkit-record`` records it; no other test reaches the network::

    @pytest.mark.imgkit_cassette
    def test_fox(image_service):
        assert image_service.create_image("a fox")[0].width == 1024
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from vcr import VCR

    from imgkit.async_service import AsyncImageService
    from imgkit.service import ImageService
    from imgkit.testing.app_server import AppServer

MODES = ("none", "once", "new_episodes", "all", "rewrite")
MARKER = "imgkit_cassette"

_MARKER_HELP = (
    f"{MARKER}(name=None, backend='requests', record=None): Replay a cassette. name: file name, by default "
    "the test's name; backend: its name or an instance; record: mode that overrides --imgkit-record."
)
_CASSETTE_FIXTURE = "_imgkit_cassette_settings"
_START_TIME = pytest.StashKey[float]()
_SERVER = pytest.StashKey["AppServer"]()
_REMEDY = "Record it with --imgkit-record=new_episodes (or rewrite), or correct the request."
_MAX_RECORDING_S = 600.0
_MAX_NAME_CHARACTERS = 150
"""Characters of a file name before its digest and suffix; file systems allow 255 bytes."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that lets tests reach the network."""
    parser.getgroup("imgkit").addoption(
        "--imgkit-record",
        choices=MODES,
        default="none",
        help="Recording mode of imgkit_cassette tests. none (default): replay; an unrecorded request is "
        "an error. once: record if the cassette is missing. new_episodes: record missing requests. all: "
        "record all requests and keep the old recordings of other requests. rewrite: record all requests "
        "and delete the old recordings.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.stash[_START_TIME] = time.time()
    config.addinivalue_line("markers", _MARKER_HELP)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Open the cassette of a marked test before any other fixture, which may make calls, too."""
    names = getattr(item, "fixturenames", None)
    if names is not None and item.get_closest_marker(MARKER) is not None and names[:1] != [_CASSETTE_FIXTURE]:
        names.insert(0, _CASSETTE_FIXTURE)
    with _miss_notes(item):
        return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_recording_configure(config: pytest.Config, vcr: VCR) -> None:
    """Register our matcher with pytest-recording; its fixture may return `vcr_config`."""
    from imgkit.testing.vcr_cassettes import register

    register(vcr)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Add a note about the nearest recorded request and about recording."""
    with _miss_notes(item):
        result = yield
    problem = _describe_server_misses(item)
    if problem is not None:
        # The app has hidden the error of its request.
        pytest.fail(problem, pytrace=False)
    return result


@contextmanager
def _miss_notes(item: pytest.Item) -> Iterator[None]:
    """Add a note to an error of a marked test that means a missing recording."""
    try:
        yield
    except Exception as error:
        if item.get_closest_marker(MARKER) is not None:
            from imgkit.testing.vcr_cassettes import add_miss_note

            add_miss_note(error, _REMEDY)
        problem = _describe_server_misses(item)
        if problem is not None:
            error.add_note(problem)
        raise


def _describe_server_misses(item: pytest.Item) -> str | None:
    """Return a message about the requests to `imgkit_server` that have no recording, None for none."""
    server = item.stash.get(_SERVER, None)
    misses = [] if server is None else server.misses
    if not misses:
        return None
    requests = "1 request has" if len(misses) == 1 else f"{len(misses)} requests have"
    reason = (misses[0].error or "").partition(" Nothing was sent.")[0]
    remedy = _REMEDY if item.get_closest_marker(MARKER) is not None else "Record it, or correct the request."
    return f"imgkit_server: {requests} no recording; the app got a 404. {reason} {remedy}"


@pytest.fixture
def imgkit_settings() -> dict[str, Any]:
    """Arguments of the services; override this fixture in a test file or ``conftest.py``."""
    return {}


@pytest.fixture
def _imgkit_cassette_settings(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Service arguments from the test's marker; the cassette is open during the test."""
    marker = request.node.get_closest_marker(MARKER)
    if marker is None:
        yield {"backend": "offline"}
        return
    name, backend, record = _parse_marker(marker)
    mode = record or request.config.getoption("--imgkit-record")
    path = cassette_path(request, name)
    if mode == "none" and not os.path.lexists(path):
        pytest.fail(
            f"There is no cassette {path}. Record it with --imgkit-record=once; this sends requests and may "
            "cost money.",
            pytrace=False,
        )
    from imgkit.cassettes.writer import lock_cassette
    from imgkit.default_plugins.retry import NoWaitRetry
    from imgkit.testing.service_cassettes import cassette

    if mode == "none":
        with cassette(path, record_mode="none"):
            # A recorded pause has passed.
            yield {"backend": backend, "retry": NoWaitRetry()}
        return
    # Tests in other workers may share the cassette.
    with lock_cassette(path.with_name(f"{path.name}.turn"), _MAX_RECORDING_S):
        rewrite = mode == "rewrite"
        drop_unused = rewrite and not _was_recorded_in_this_run(path, request.config)
        with cassette(path, record_mode="all" if rewrite else mode, drop_unused_requests=drop_unused):
            yield {"backend": backend}


@pytest.fixture
def image_service(
    _imgkit_cassette_settings: dict[str, Any], imgkit_settings: dict[str, Any]
) -> Iterator[ImageService]:
    """An `ImageService`: offline, or on the cassette of the test's marker."""
    from imgkit.service import ImageService

    with ImageService(**{**_imgkit_cassette_settings, **imgkit_settings}) as service:
        yield service


@pytest.fixture
def async_image_service(
    _imgkit_cassette_settings: dict[str, Any], imgkit_settings: dict[str, Any]
) -> AsyncImageService:
    """An `AsyncImageService`: offline, or on the cassette; enter it with ``async with``."""
    from imgkit.async_service import AsyncImageService

    return AsyncImageService(**{**_imgkit_cassette_settings, **imgkit_settings})


@pytest.fixture
def imgkit_server_settings() -> dict[str, Any]:
    """Settings of `imgkit_server`, such as a token; override this fixture as `imgkit_settings`."""
    return {}


@pytest.fixture
def imgkit_server(
    request: pytest.FixtureRequest,
    _imgkit_cassette_settings: dict[str, Any],
    imgkit_settings: dict[str, Any],
    imgkit_server_settings: dict[str, Any],
) -> Iterator[AppServer]:
    """A server with OpenAI's Images API for apps that take a base URL: offline, or on the cassette."""
    from imgkit.testing.app_server import AppServer

    settings = {**_imgkit_cassette_settings, **imgkit_settings}
    with AppServer(imgkit_server_settings, **settings) as server:
        request.node.stash[_SERVER] = server
        yield server


def cassette_path(request: pytest.FixtureRequest, name: str | None = None) -> Path:
    """Return the cassette path of a test: ``cassettes/MODULE/TEST.yaml`` or ``CLASS.TEST.yaml``.

    Unsafe characters become hyphens, and a digest of the full name follows, so no two tests share a path.

    Args:
        request: Fixture request of the test.
        name: Name to use in place of the test's name.
    """
    path = Path(str(request.node.path))
    full_name = name or ".".join(
        [*(class_.__name__ for class_ in _list_classes(request.node)), request.node.name]
    )
    safe_name = re.sub(r"[^A-Za-z0-9_.\[\]-]", "-", full_name)[:_MAX_NAME_CHARACTERS]
    if safe_name != full_name or full_name.startswith("."):
        digest = hashlib.sha256(full_name.encode("utf-8", "surrogatepass")).hexdigest()
        safe_name = f"{safe_name.strip('.')}-{digest[:8]}"
    return path.parent / "cassettes" / path.stem / f"{safe_name}.yaml"


def _was_recorded_in_this_run(path: Path, config: pytest.Config) -> bool:
    """Return whether a test of this run wrote the file; workers start before the first test."""
    return path.exists() and path.stat().st_mtime >= config.stash[_START_TIME]


def _list_classes(node: pytest.Item) -> Iterator[type]:
    for parent in node.listchain():
        if isinstance(parent, pytest.Class):
            yield parent.obj


def _parse_marker(marker: pytest.Mark) -> tuple[Any, ...]:
    try:
        return _parse_arguments(*marker.args, **marker.kwargs)
    except TypeError as error:
        problem = str(error).removeprefix("_parse_arguments() ")
        raise pytest.UsageError(f"{MARKER} {problem}. Usage: {_MARKER_HELP}") from None


def _parse_arguments(
    name: str | None = None, backend: object = "requests", record: str | None = None
) -> tuple[Any, ...]:
    if record is not None and record not in MODES:
        raise pytest.UsageError(f"{MARKER}: Unknown record mode {record!r}. Available: {', '.join(MODES)}.")
    return name, backend, record
