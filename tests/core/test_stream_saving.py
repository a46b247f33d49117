"""Streamed images that are saved go to disk as they arrive, partial images too."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import json
import os
import pickle
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit import Completed, PartialImage
from imgkit.core.recovery import recover
from imgkit.default_plugins.spool import open_spool
from imgkit.images.part_files import BUFFER_BYTES, PartFile, PartFiles
from imgkit.testing.samples import png
from tests.conftest import ServiceRunner
from tests.support.event_streams import HEAD, Seen, completed, event, partial, streamed, then, watch
from tests.support.pictures import encoded
from tests.support.processes import run_process
from tests.support.wire_server import WireServer, reply

SKETCH, SHARPER, WHOLE = (png(seed, 250) for seed in (1, 2, 3))
"""190 kB of noise each."""


def stream_to_file(folder: Path, **more: Any) -> Callable[[Any], Any]:
    """Return a call that streams an image into a folder."""
    return lambda service: service.stream_image("a fox", save_to=folder / "fox.png", **more)


def list_hidden_files(folder: Path) -> list[str]:
    """Return the names of the hidden files in a folder."""
    return [path.name for path in folder.rglob(".*")]


def is_on_disk(image: imgkit.Image) -> bool:
    return isinstance(image.source, PartFile) and image.source.path is not None


def test_images_are_saved_as_they_arrive(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> None:
    """Each image is on disk when its event arrives; the complete image has its final name."""
    images: list[Any] = []

    def look(item: Any) -> None:
        if isinstance(item, PartialImage):
            assert is_on_disk(item.image)
        else:
            assert item.image.path.read_bytes() == WHOLE
        images.append((item.image.data, item.image.format, item.image.width, item.image.sha256))

    with WireServer(streamed(partial(0, SKETCH), partial(1, SHARPER), completed(WHOLE))) as server:
        seen = watch(flavor, stream_to_file(tmp_path), http_backend, base_url=server.base_url, see=look)
    pictures = (SKETCH, SHARPER, WHOLE)
    assert images == [(data, "png", 250, hashlib.sha256(data).hexdigest()) for data in pictures]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fox.png", "fox.png.json"]
    assert json.loads((tmp_path / "fox.png.json").read_text())["sha256"] == seen.response[0].sha256
    # The images of the events stay readable after the call.
    assert [item.image.data for item in seen.events] == [SKETCH, SHARPER, WHOLE]
    assert [pickle.loads(pickle.dumps(item.image)).data for item in seen.events] == [SKETCH, SHARPER, WHOLE]
    assert seen.events[0].image.save(tmp_path / "late.png").read_bytes() == SKETCH


@pytest.mark.parametrize("overwrite", [False, True])
def test_callers_may_save_partial_images(flavor: ServiceRunner, tmp_path: Path, overwrite: bool) -> None:
    """The caller may save a partial image several times; changes to those files leave the event alone."""
    paths: list[Path] = []

    def look(item: Any) -> None:
        if isinstance(item, PartialImage):
            for name in ("a.png", "b.png"):
                paths.append(item.image.save(tmp_path / name, overwrite=overwrite))
                assert paths[-1].read_bytes() == SKETCH
            assert json.loads(Path(f"{paths[-1]}.json").read_text())["sha256"] == item.image.sha256
            with paths[0].open("r+b") as file:
                file.write(b"something else")
            assert paths[1].read_bytes() == item.image.data == SKETCH

    with WireServer(streamed(partial(0, SKETCH), completed(WHOLE))) as server:
        seen = watch(flavor, stream_to_file(tmp_path), "requests", base_url=server.base_url, see=look)
    assert [path.exists() for path in paths] == [True, True]
    assert seen.events[0].image.data == SKETCH
    assert list_hidden_files(tmp_path) == []


def test_unreferenced_partial_images_are_deleted(tmp_path: Path) -> None:
    """A stream of many partial images needs the disk and memory of two."""
    pieces = [partial(number, png(number, 250)) for number in range(12)]
    with WireServer(streamed(*pieces, completed(WHOLE))) as server:
        with (
            imgkit.ImageService("requests", base_url=server.base_url) as images,
            stream_to_file(tmp_path)(images) as events,
        ):
            for number, item in enumerate(events):
                if number < 12:
                    assert item.image.data == png(number, 250)
                assert len(list_hidden_files(tmp_path)) <= 3
                del item
        assert events.response[0].data == WHOLE
    assert list_hidden_files(tmp_path) == []


@pytest.mark.parametrize("partials", [0, 1])
def test_memory_stays_flat(flavor: ServiceRunner, tmp_path: Path, partials: int) -> None:
    """Holds less than about 2 MiB while it saves a stream, for images of any size."""
    data = png()[:-12] + os.urandom(24 << 20) + png()[-12:]
    text = base64.b64encode(data)
    kinds = [b"partial_image"] * partials + [b"completed"]

    def script(line: Any) -> None:
        line.send(HEAD.replace(b"transfer-encoding: chunked\r\n", b""))
        for kind in kinds:
            line.send(b'data: {"type":"image_generation.' + kind + b'","b64_json":"')
            for start in range(0, len(text), 1 << 16):
                line.send(text[start : start + (1 << 16)])
            line.send(b'"}\n\n')

    class Peak:
        peak = 0

        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            name = type(event).__name__
            if name == "FirstByte":
                tracemalloc.start()
            elif name == "Succeeded":
                Peak.peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()

    def save(item: PartialImage | Completed) -> None:
        if isinstance(item, PartialImage):
            item.image.save(tmp_path / "fox.partial-0.png")

    def blocking(service: Any) -> None:
        with stream_to_file(tmp_path, partial_images=partials)(service) as events:
            for item in events:
                save(item)
                del item

    async def awaiting(service: Any) -> None:
        async with stream_to_file(tmp_path, partial_images=partials)(service) as events:
            async for item in events:
                save(item)
                del item

    # The server runs in this process, but allocates its data before the measurement starts.
    with WireServer(script) as server:
        work, backend = (blocking, "requests") if flavor.flavor == "sync" else (awaiting, "aiohttp")
        flavor.run(work, backend, base_url=server.base_url, plugins=[Peak()])
    names = ["fox.png", *(["fox.partial-0.png"] if partials else [])]
    for name in names:
        assert (tmp_path / name).stat().st_size == len(data)
        sidecar = json.loads((tmp_path / f"{name}.json").read_text())
        assert sidecar["sha256"] == hashlib.sha256(data).hexdigest()
    assert 0 < Peak.peak < (2 << 20) + (1 << 17) * 3, Peak.peak


def test_leaving_early(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> None:
    """Leaves no file if the caller leaves mid-image, and keeps the delivered image readable."""
    script = then(partial(0, SKETCH), completed(WHOLE)[:200_000], lambda line: line.until_client_leaves())
    with WireServer(script) as server:
        seen = watch(
            flavor, stream_to_file(tmp_path), http_backend, base_url=server.base_url, see=lambda item: True
        )
    assert seen.events[0].image.data == SKETCH
    assert list(tmp_path.iterdir()) == []


def test_a_cancelled_task_spools_its_images(http_backend: str, tmp_path: Path) -> None:
    """A cancelled task leaves no file, and keeps the received data in the spool."""
    arrived = threading.Event()
    half = completed(WHOLE)[:200_000]

    class Counter:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            if (
                isinstance(event, imgkit.plugins.events.Progress)
                and event.received_bytes > len(partial(0, SKETCH)) + 150_000
            ):
                arrived.set()

    async def main(base_url: str) -> None:
        options: dict[str, Any] = {"base_url": base_url, "plugins": [Counter()]}
        async with imgkit.AsyncImageService(
            http_backend, state_folder=tmp_path / "state", **options
        ) as service:

            async def read() -> None:
                async with stream_to_file(tmp_path / "out")(service) as events:
                    async for _ in events:
                        pass

            task = asyncio.create_task(read())
            assert await asyncio.to_thread(arrived.wait, 20)
            assert len(list_hidden_files(tmp_path / "out")) >= 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    (tmp_path / "out").mkdir()
    with WireServer(then(partial(0, SKETCH), half, lambda line: line.until_client_leaves())) as server:
        asyncio.run(main(server.base_url))
    assert list((tmp_path / "out").iterdir()) == []
    (record,) = open_spool(tmp_path / "state").list_replies()
    first, second = recover(record).images
    assert first.data == SKETCH
    assert len(second.data) > 100_000
    assert WHOLE.startswith(second.data)


def break_stream(
    flavor: ServiceRunner, kind: type[Exception], script: Any, folder: Path, backend: str
) -> tuple[Any, Seen]:
    """Return the error that ends a stream and the events before it; the folder is empty then."""
    seen = Seen()
    (folder / "out").mkdir()
    options: dict[str, Any] = {"state_folder": folder / "state", "seen": seen}
    with WireServer(script) as server, pytest.raises(kind) as caught:
        watch(flavor, stream_to_file(folder / "out"), backend, base_url=server.base_url, **options)
    assert list((folder / "out").iterdir()) == []
    return caught.value, seen


def test_a_cut_stream_keeps_its_data(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> None:
    """The error and the spool hold the data of a cut stream, as if nothing had gone to a file."""
    pieces = (partial(0, SKETCH), partial(1, SHARPER), completed(WHOLE)[:200_000])
    error, seen = break_stream(
        flavor, imgkit.OutcomeUnknownError, streamed(*pieces, end=b""), tmp_path, http_backend
    )
    assert [item.image.data for item in seen.events] == [SKETCH, SHARPER]
    assert [image.data for image in error.images] == [SHARPER]
    assert pickle.loads(pickle.dumps(error)).images[0].data == SHARPER
    assert error.body.startswith(b'{"type": "image_generation.completed"')
    assert len(error.body) > 190_000
    (record,) = open_spool(tmp_path / "state").list_replies()
    recovered = recover(record)
    assert [recovered.images[0].data, recovered.damaged] == [SHARPER, (1,)]
    assert WHOLE.startswith(recovered.images[1].data)
    assert len(recovered.images[1].data) > 140_000


def test_an_error_event(flavor: ServiceRunner, tmp_path: Path) -> None:
    """An error event leaves no file, and delivered partial images stay readable."""
    script = streamed(partial(0, SKETCH), event({"type": "error", "code": "server_error", "message": "boom"}))
    error, seen = break_stream(flavor, imgkit.ApiError, script, tmp_path, "requests")
    assert "boom" in str(error)
    assert seen.events[0].image.data == SKETCH


def test_a_stream_without_a_complete_image(flavor: ServiceRunner, tmp_path: Path) -> None:
    """The error holds the last partial image, although its file is deleted."""
    error, _ = break_stream(flavor, imgkit.StreamError, streamed(partial(0, SKETCH)), tmp_path, "requests")
    assert [image.data for image in error.images] == [SKETCH]
    (record,) = open_spool(tmp_path / "state").list_replies()
    assert [image.data for image in recover(record).images] == [SKETCH]


def test_broken_base64(flavor: ServiceRunner, tmp_path: Path) -> None:
    """Reports broken base64 like an event read whole, and saves nothing."""
    members = {"type": "image_generation.completed", "b64_json": encoded(WHOLE)[:-9] + "*" * 9}
    error, _ = break_stream(
        flavor, imgkit.UnreadableReplyError, streamed(event(members)), tmp_path, "requests"
    )
    assert "broken base64" in str(error)
    assert json.loads(error.body) == members


def test_several_events_in_one_chunk(flavor: ServiceRunner, tmp_path: Path) -> None:
    """Events that arrive in one chunk share no file."""
    pieces = b"".join((partial(0, SKETCH), completed(WHOLE), partial(0, SHARPER), completed(SKETCH)))
    with WireServer(streamed(pieces)) as server:
        seen = watch(flavor, stream_to_file(tmp_path, n=2), "aiohttp", base_url=server.base_url)
    assert [item.image.data for item in seen.events] == [SKETCH, WHOLE, SHARPER, SKETCH]
    assert [image.path.read_bytes() for image in seen.response] == [WHOLE, SKETCH]
    assert list_hidden_files(tmp_path) == []


def test_json_in_place_of_a_stream(flavor: ServiceRunner, tmp_path: Path) -> None:
    """Writes the images of a plain JSON reply to disk too."""
    body = {"data": [{"b64_json": encoded(SKETCH)}, {"b64_json": encoded(WHOLE)}]}
    with WireServer(reply(200, body)) as server:
        seen = watch(flavor, stream_to_file(tmp_path, n=2), "requests", base_url=server.base_url)
    assert seen.kinds == ["Completed", "Completed"]
    assert [item.image.path.read_bytes() for item in seen.events] == [SKETCH, WHOLE]
    assert list_hidden_files(tmp_path) == []


@pytest.mark.parametrize("at", [0, 1, 3, 5])
def test_a_full_disk_leaves_images_in_memory(
    flavor: ServiceRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """All events carry their bytes, whenever the disk is full."""
    calls = []
    write = os.write

    def full(descriptor: int, data: Any) -> int:
        calls.append(len(data))
        if len(calls) > at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    with WireServer(streamed(partial(0, SKETCH), completed(WHOLE))) as server:
        seen = watch(flavor, stream_to_file(tmp_path), "requests", base_url=server.base_url)
    assert len(calls) > at
    assert [item.image.data for item in seen.events] == [SKETCH, WHOLE]
    assert (tmp_path / "fox.png").read_bytes() == WHOLE
    assert list_hidden_files(tmp_path) == []


def test_an_image_that_cannot_be_saved(
    flavor: ServiceRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller gets an unsavable image in memory, and the final error holds it too."""

    def no(*args: Any) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("imgkit.images.saving._link", no)
    error, seen = break_stream(flavor, imgkit.SaveError, streamed(completed(WHOLE)), tmp_path, "requests")
    assert (seen.events[0].image.path, seen.events[0].image.data) == (None, WHOLE)
    assert error.response[0].data == WHOLE


def test_discarding_a_half_built_part_file() -> None:
    """Discards a part file whose constructor Ctrl-C interrupted."""
    PartFile.__new__(PartFile).discard()


def test_reading_an_image_while_the_call_ends(tmp_path: Path) -> None:
    """Another thread can read a partial image while it moves from disk to memory."""
    data = os.urandom(BUFFER_BYTES * 4)
    for _ in range(20):
        part_files = PartFiles(tmp_path, digests=False)
        file = part_files.new_file()
        file.add(data)
        part_files.write()
        file.share()
        wrong: list[object] = []

        def read(file: PartFile = file, wrong: list[object] = wrong) -> None:
            try:
                wrong += [1 for _ in range(20) if file.read() != data or file.read_at(9, 7) != data[7:16]]
            except imgkit.ImgkitError as error:
                wrong.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        part_files.close()
        reader.join()
        assert wrong == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_leaves_files_to_its_parent(tmp_path: Path) -> None:
    """A forked child that closes its copy of a stream deletes no file of its parent."""
    with WireServer(streamed(partial(0, SKETCH), partial(1, SHARPER), completed(WHOLE))) as server:
        code = f"""
import os, sys
import imgkit
with imgkit.ImageService("requests", base_url={server.base_url!r}, retry=False) as images:
    with images.stream_image("a fox", save_to={str(tmp_path / "fox.png")!r}) as events:
        first = next(events)
        child = os.fork()
        if child == 0:
            events._driver._flow.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert len(first.image.data) == {len(SKETCH)}
        kinds = [type(one).__name__ for one in events]
print(kinds, events.response[0].path.stat().st_size)
"""
        done = run_process([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"['PartialImage', 'Completed'] {len(WHOLE)}\n", done.stderr
    assert list_hidden_files(tmp_path) == []
