"""A plugin of pytest: services for tests, offline or from cassettes, and never from the network unless asked.

Fixtures: `image_service`, `async_image_service`, and `imgkit_settings` to override their arguments. A test
with ``@pytest.mark.imgkit_cassette`` gets a service that answers from ``cassettes/MODULE/TEST.yaml`` beside
its file; ``--imgkit-record`` records it.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from vcr import VCR

    from imgkit.service import AsyncImageService, ImageService

MODES = ("none", "once", "new_episodes", "all", "rewrite")
MARKER = "imgkit_cassette"

_DESCRIBED = (
    f"{MARKER}(name=None, backend='requests', record=None): answer from a cassette. name: of the file, that "
    "of the test by default; backend: which sends and replays; record: wins over --imgkit-record."
)
_TAPE = "_imgkit_tape"
_NO_KEY = "replayed-and-never-sent"
_BEGAN = pytest.StashKey[float]()
_LONGEST_RECORDING_S = 600.0
_LONGEST_NAME = 150
"""Characters of a file's name before its digest and ending: file systems take 255 bytes."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that lets tests reach the network."""
    parser.getgroup("imgkit").addoption(
        "--imgkit-record",
        choices=MODES,
        default="none",
        help="how tests marked imgkit_cassette treat what is not on a cassette. none (default): an error, "
        "and nothing is sent; once: recorded if there is no cassette; new_episodes: what is missing; all: "
        "everything anew, beside what is there; rewrite: everything anew, and what is not asked for goes.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.stash[_BEGAN] = time.time()
    config.addinivalue_line("markers", _DESCRIBED)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Put every test with the marker on its cassette, also one that makes a service of its own."""
    names = getattr(item, "fixturenames", None)
    if names is not None and item.get_closest_marker(MARKER) is not None and _TAPE not in names:
        names.append(_TAPE)


@pytest.hookimpl(optionalhook=True)
def pytest_recording_configure(config: pytest.Config, vcr: VCR) -> None:
    """Let the cassettes of pytest-recording be matched as ours are: its fixture may return `vcr_config`."""
    from imgkit.testing.cassettes import register

    register(vcr)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Tell for a request that is not on the cassette which one is nearest, and how to record it."""
    try:
        return (yield)
    except Exception as error:
        if item.get_closest_marker(MARKER) is not None:
            from imgkit.testing.cassettes import explain

            explain(error, "Record it with --imgkit-record=new_episodes (or rewrite), or mend the request")
        raise


@pytest.fixture
def imgkit_settings() -> dict[str, Any]:
    """Arguments for the services; override it in a test file or ``conftest.py``."""
    return {}


@pytest.fixture
def _imgkit_tape(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """The arguments of a service as the test's marker has them, on its cassette: one for all services."""
    marker = request.node.get_closest_marker(MARKER)
    if marker is None:
        yield {"backend": "offline"}
        return
    name, backend, record = _read(marker)
    mode = record or request.config.getoption("--imgkit-record")
    path = cassette_path(request, name)
    if mode == "none" and not path.exists():
        pytest.fail(
            f"there is no cassette {path}: record it with --imgkit-record=once, which sends requests and may "
            "cost money",
            pytrace=False,
        )
    from imgkit.cassettes.alone import alone
    from imgkit.default_plugins.retry import NoWaitRetry
    from imgkit.testing.cassettes import cassette

    if mode == "none":
        with cassette(path, record_mode="none"):
            # A replay needs no key, and does not wait: what it waited for is on the cassette.
            yield {"backend": backend, "api_key": _NO_KEY, "retry": NoWaitRetry()}
        return
    with alone(path, _LONGEST_RECORDING_S):  # tests of other workers may share it
        rewrite = mode == "rewrite"
        dropped = rewrite and not _is_of_this_run(path, request.config)
        with cassette(path, record_mode="all" if rewrite else mode, drop_unused_requests=dropped):
            yield {"backend": backend}


@pytest.fixture
def image_service(_imgkit_tape: dict[str, Any], imgkit_settings: dict[str, Any]) -> Iterator[ImageService]:
    """An `ImageService`: offline, or on the cassette of the test's marker."""
    from imgkit.service import ImageService

    with ImageService(**{**_imgkit_tape, **imgkit_settings}) as service:
        yield service


@pytest.fixture
def async_image_service(_imgkit_tape: dict[str, Any], imgkit_settings: dict[str, Any]) -> AsyncImageService:
    """An `AsyncImageService` in the same way; the test enters it with ``async with``."""
    from imgkit.service import AsyncImageService

    return AsyncImageService(**{**_imgkit_tape, **imgkit_settings})


def cassette_path(request: pytest.FixtureRequest, name: str | None = None) -> Path:
    """Return the cassette of a test: ``cassettes/MODULE/TEST.yaml`` beside its file, or ``CLASS.TEST.yaml``.

    What is no fit name for a file is changed, and a digest of the real name is added: no two tests share one.

    Args:
        request: of the test.
        name: instead of the test's own.
    """
    path = Path(str(request.node.path))
    own = name or ".".join([*(one.__name__ for one in _classes(request.node)), request.node.name])
    fit = re.sub(r"[^A-Za-z0-9_.\[\]-]", "-", own)[:_LONGEST_NAME]
    if fit != own or own.startswith("."):
        fit = f"{fit.strip('.')}-{hashlib.sha256(own.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    return path.parent / "cassettes" / path.stem / f"{fit}.yaml"


def _is_of_this_run(path: Path, config: pytest.Config) -> bool:
    """Return whether another test of this run has recorded it: all workers begin before the first test."""
    return path.exists() and path.stat().st_mtime >= config.stash[_BEGAN]


def _classes(node: pytest.Item) -> Iterator[type]:
    for parent in node.listchain():
        if isinstance(parent, pytest.Class):
            yield parent.obj


def _read(marker: pytest.Mark) -> tuple[Any, ...]:
    try:
        return _marked(*marker.args, **marker.kwargs)
    except TypeError as error:
        told = str(error).removeprefix("_marked() ")
        raise pytest.UsageError(f"{MARKER} {told}: it is {_DESCRIBED}") from None


def _marked(name: str | None = None, backend: str = "requests", record: str | None = None) -> tuple[Any, ...]:
    if record is not None and record not in MODES:
        raise pytest.UsageError(f"{MARKER}: record is one of {', '.join(MODES)}, not {record!r}")
    return name, backend, record
