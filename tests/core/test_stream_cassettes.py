"""Recorded streams, replayed by vcrpy on both HTTP backends and by the offline backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.testing import cassette
from tests.conftest import ServiceRunner
from tests.support.event_streams import PARTIAL, WHOLE, Seen, completed, partial, streamed, watch
from tests.support.pictures import noise, picture
from tests.support.wire_server import WireServer

KEY = "sk-" + "0123456789abcdef" * 2


def stream_fox(service: Any) -> Any:
    """Return a stream with two partial images."""
    return service.stream_image("a fox", partial_images=2)


def images_by_event(seen: Seen) -> list[tuple[str, bytes]]:
    """Return the event names and image bytes of a stream."""
    return [(type(item).__name__, item.image.data) for item in seen.events]


WANTED = [("PartialImage", PARTIAL), ("PartialImage", noise(13)), ("Completed", WHOLE)]


@pytest.fixture
def recording(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """Record a stream; return the cassette and the options of the service."""
    path = tmp_path / "fox.yaml"
    with WireServer(streamed(partial(0), b": wait\n\n", partial(1, noise(13)), completed())) as server:
        options: dict[str, Any] = {"base_url": server.base_url, "api_key": KEY, "model": "m"}
        with cassette(path):
            seen = watch(flavor, stream_fox, http_backend, **options)
        assert images_by_event(seen) == WANTED
        assert server.posts == 1
    return path, options


def test_replay_on_both_backends(flavor: ServiceRunner, recording: Any) -> None:
    """Both HTTP backends replay a stream that one of them recorded, without a server."""
    path, options = recording
    for backend in ("requests", "aiohttp"):
        with cassette(path, record_mode="none") as tape:
            seen = watch(flavor, stream_fox, backend, **options)
        assert images_by_event(seen) == WANTED
        assert seen.response.usage.total_tokens == 9
        assert tape.all_played


def test_replay_offline(flavor: ServiceRunner, recording: Any) -> None:
    """The offline backend replays the stream without vcrpy, but not for a plain call."""
    path, _ = recording
    seen = watch(flavor, stream_fox, fixtures=path, model="m")
    assert images_by_event(seen) == WANTED
    with imgkit.ImageService(fixtures=path, model="m") as service:
        with pytest.raises(
            imgkit.FixtureMissingError, match="stream: true was recorded, nothing is requested"
        ):
            service.create_image("a fox")


def test_the_cassette_holds_no_key_and_no_base64(recording: Any) -> None:
    """Stores no key and no base64 in the cassette; each image is one file."""
    path, _ = recording
    text = path.read_text()
    assert KEY not in text
    assert len(text) < 4000
    kept = sorted(path.read_bytes() for path in Path(f"{path}.files").iterdir())
    assert kept == sorted([PARTIAL, noise(13), WHOLE])


def test_an_edit_is_replayed(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> None:
    """Replays streams of forms with files."""
    path = tmp_path / "hat.yaml"

    def edit(service: Any) -> Any:
        return service.stream_image_edit(picture(), "a hat")

    with WireServer(streamed(completed(kind="image_edit"))) as server, cassette(path):
        watch(flavor, edit, http_backend, base_url=server.base_url)
    for backend, options in ((http_backend, {"base_url": server.base_url}), ("offline", {"fixtures": path})):
        with cassette(path, record_mode="none"):
            assert images_by_event(watch(flavor, edit, backend, **options)) == [("Completed", WHOLE)]


def test_the_recorder_writes_the_same_cassette(
    flavor: ServiceRunner, http_backend: str, tmp_path: Path
) -> None:
    """All backends replay a stream that the recorder wrote without vcrpy."""
    path = tmp_path / "fox.yaml"
    with WireServer(streamed(partial(0), partial(1, noise(13)), completed())) as server:
        options: dict[str, Any] = {"base_url": server.base_url, "api_key": KEY, "model": "m"}
        seen = watch(flavor, stream_fox, http_backend, plugins=[imgkit.RecorderPlugin(path)], **options)
    assert images_by_event(seen) == WANTED
    assert seen.response.warnings == ()
    assert images_by_event(watch(flavor, stream_fox, fixtures=path, model="m")) == WANTED
    for backend in ("requests", "aiohttp"):
        with cassette(path, record_mode="none"):
            assert images_by_event(watch(flavor, stream_fox, backend, **options)) == WANTED
