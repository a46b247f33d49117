"""A pytest plugin: services for tests that run offline or replay cassettes.

Fixtures: `image_service` and `async_image_service`; `imgkit_settings` overrides their arguments. A test
with ``@pytest.mark.imgkit_cassette`` replays ``cassettes/MODULE/TEST.yaml`` beside its file. The option
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

MODES = ("none", "once", "new_episodes", "all", "rewrite")
MARKER = "imgkit_cassette"

_MARKER_HELP = (
    f"{MARKER}(name=None, backend='requests', record=None): Replay a cassette. name: file name, by default "
    "the test's name; backend: its name or an instance; record: mode that overrides --imgkit-record."
)
_CASSETTE_FIXTURE = "_imgkit_cassette_settings"
_START_TIME = pytest.StashKey[float]()
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
        return (yield)


@contextmanager
def _miss_notes(item: pytest.Item) -> Iterator[None]:
    """Add a note to an error of a marked test that means a missing recording."""
    try:
        yield
    except Exception as error:
        if item.get_closest_marker(MARKER) is not None:
            from imgkit.testing.vcr_cassettes import add_miss_note

            add_miss_note(
                error, "Record it with --imgkit-record=new_episodes (or rewrite), or correct the request."
            )
        raise


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
