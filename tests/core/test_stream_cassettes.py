"""A stream that was recorded is played again: by vcrpy on both backends, and by the offline backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.testing import cassette
from tests.conftest import Face
from tests.support.event_streams import PARTIAL, WHOLE, Seen, completed, partial, streamed, watch
from tests.support.pictures import noise, picture
from tests.support.wire_server import WireServer

KEY = "sk-" + "0123456789abcdef" * 2


def draw(service: Any) -> Any:
    return service.stream_image("a fox", partial_images=2)


def pictures(seen: Seen) -> list[tuple[str, bytes]]:
    return [(type(one).__name__, one.image.data) for one in seen.events]


WANTED = [("PartialImage", PARTIAL), ("PartialImage", noise(13)), ("Completed", WHOLE)]


@pytest.fixture
def recorded(flavor: Face, http_backend: str, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """Record a stream from a server, and return the cassette with the options that the service had."""
    path = tmp_path / "fox.yaml"
    with WireServer(streamed(partial(0), b": wait\n\n", partial(1, noise(13)), completed())) as server:
        options = {"base_url": server.base_url, "api_key": KEY, "model": "m"}
        with cassette(path):
            seen = watch(flavor, draw, http_backend, **options)
        assert pictures(seen) == WANTED
        assert server.posts == 1
    return path, options


def test_on_both_backends(flavor: Face, recorded: Any) -> None:
    """What one backend has recorded, both play, though nobody listens there any more."""
    path, options = recorded
    for backend in ("requests", "aiohttp"):
        with cassette(path, record_mode="none") as tape:
            seen = watch(flavor, draw, backend, **options)
        assert pictures(seen) == WANTED
        assert seen.response.usage.total_tokens == 9
        assert tape.all_played


def test_offline(flavor: Face, recorded: Any) -> None:
    """The offline backend plays it without vcrpy; a plain call is not answered with a stream."""
    path, _ = recorded
    seen = watch(flavor, draw, fixtures=path, model="m")
    assert pictures(seen) == WANTED
    with imgkit.ImageService(fixtures=path, model="m") as service:
        with pytest.raises(imgkit.FixtureMissingError, match="stream: true was recorded, nothing is asked"):
            service.create_image("a fox")


def test_what_is_on_the_cassette(recorded: Any) -> None:
    """No key, no base64: the pictures are files, each once."""
    path, _ = recorded
    text = path.read_text()
    assert KEY not in text
    assert len(text) < 4000
    kept = sorted(one.read_bytes() for one in Path(f"{path}.files").iterdir())
    assert kept == sorted([PARTIAL, noise(13), WHOLE])


def test_an_edit(flavor: Face, http_backend: str, tmp_path: Path) -> None:
    """Forms with their file play too."""
    path = tmp_path / "hat.yaml"

    def edit(service: Any) -> Any:
        return service.stream_image_edit(picture(), "a hat")

    with WireServer(streamed(completed(kind="image_edit"))) as server, cassette(path):
        watch(flavor, edit, http_backend, base_url=server.base_url)
    for backend, options in ((http_backend, {"base_url": server.base_url}), ("offline", {"fixtures": path})):
        with cassette(path, record_mode="none"):
            assert pictures(watch(flavor, edit, backend, **options)) == [("Completed", WHOLE)]


def test_by_the_recorder(flavor: Face, http_backend: str, tmp_path: Path) -> None:
    """Without vcrpy the same: both backends and the offline one play what the recorder has written."""
    path = tmp_path / "fox.yaml"
    with WireServer(streamed(partial(0), partial(1, noise(13)), completed())) as server:
        options = {"base_url": server.base_url, "api_key": KEY, "model": "m"}
        seen = watch(flavor, draw, http_backend, plugins=[imgkit.RecorderPlugin(path)], **options)
    assert pictures(seen) == WANTED
    assert seen.response.warnings == ()
    assert pictures(watch(flavor, draw, fixtures=path, model="m")) == WANTED
    for backend in ("requests", "aiohttp"):
        with cassette(path, record_mode="none"):
            assert pictures(watch(flavor, draw, backend, **options)) == WANTED
