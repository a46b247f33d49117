"""A plugin of pytest: services for tests, offline or from cassettes, and never from the network unless asked.

Fixtures: `image_service`, `async_image_service`, and `imgkit_settings` to override their arguments. A test
with ``@pytest.mark.imgkit_cassette`` gets a service that answers from ``cassettes/MODULE/TEST.yaml`` beside
its file; ``--imgkit-record`` records it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from imgkit.service import AsyncImageService, ImageService

MODES = ("none", "once", "new_episodes", "all", "rewrite")
MARKER = "imgkit_cassette"

_DESCRIBED = (
    f"{MARKER}(name=None, backend='requests', record=None): answer from a cassette. name: of the file, that "
    "of the test by default; backend: which sends and replays; record: wins over --imgkit-record."
)
_NO_KEY = "replayed-and-never-sent"


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
    config.addinivalue_line("markers", _DESCRIBED)


@pytest.fixture
def imgkit_settings() -> dict[str, Any]:
    """Arguments for the services; override it in a test file or ``conftest.py``."""
    return {}


@pytest.fixture
def image_service(request: pytest.FixtureRequest, imgkit_settings: dict[str, Any]) -> Iterator[ImageService]:
    """An `ImageService`: offline, or on the cassette of the test's marker."""
    from imgkit.service import ImageService

    with ExitStack() as stack:
        settings = _settings(request, imgkit_settings, stack)
        yield stack.enter_context(ImageService(**settings))


@pytest.fixture
def async_image_service(
    request: pytest.FixtureRequest, imgkit_settings: dict[str, Any]
) -> Iterator[AsyncImageService]:
    """An `AsyncImageService` in the same way; the test enters it with ``async with``."""
    from imgkit.service import AsyncImageService

    with ExitStack() as stack:
        yield AsyncImageService(**_settings(request, imgkit_settings, stack))


def cassette_path(request: pytest.FixtureRequest, name: str | None = None) -> Path:
    """Return the cassette of a test: ``cassettes/MODULE/TEST.yaml`` beside its file.

    Args:
        request: of the test.
        name: instead of the test's own.
    """
    path = Path(str(request.node.path))
    own = "".join(one if one.isalnum() or one in "-_.[]" else "-" for one in name or request.node.name)
    return path.parent / "cassettes" / path.stem / f"{own.strip('.') or 'cassette'}.yaml"


def _settings(request: pytest.FixtureRequest, given: dict[str, Any], stack: ExitStack) -> dict[str, Any]:
    """Return the arguments of a service, its cassette entered."""
    marker = request.node.get_closest_marker(MARKER)
    if marker is None:
        return {"backend": "offline", **given}
    name, backend, record = _marked(*marker.args, **marker.kwargs)
    mode = record or request.config.getoption("--imgkit-record")
    path = cassette_path(request, name)
    _enter(path, mode, stack)
    if mode != "none":
        return {"backend": backend, **given}
    from imgkit.testing.replay import Unhurried

    # A replay needs no key, and does not wait: what it waited for is on the cassette.
    return {"backend": backend, "api_key": _NO_KEY, "retry": Unhurried(), **given}


def _marked(name: str | None = None, backend: str = "requests", record: str | None = None) -> tuple[Any, ...]:
    if record is not None and record not in MODES:
        raise pytest.UsageError(f"{MARKER}: record is one of {', '.join(MODES)}, not {record!r}")
    return name, backend, record


def _enter(path: Path, mode: str, stack: ExitStack) -> None:
    from imgkit.testing.cassettes import cassette

    if mode == "none" and not path.exists():
        pytest.fail(
            f"there is no cassette {path}: record it with --imgkit-record=once, which sends requests and may "
            "cost money",
            pytrace=False,
        )
    rewrite = mode == "rewrite"
    stack.enter_context(cassette(path, record_mode="all" if rewrite else mode, drop_unused_requests=rewrite))
