"""Pictures of streams that are to be saved go to disk while they arrive, partial ones too."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import json
import os
import pickle
import subprocess
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
from imgkit.images import part_files as scratch
from imgkit.images.part_files import BUFFER_BYTES, PartFile, PartFiles
from imgkit.testing.samples import png
from tests.conftest import Face
from tests.support.event_streams import HEAD, Seen, completed, event, partial, streamed, then, watch
from tests.support.pictures import encoded
from tests.support.wire_server import WireServer, reply

SKETCH, SHARPER, WHOLE = (png(seed, 250) for seed in (1, 2, 3))
"""190 kB of noise each."""


def fox(folder: Path, **more: Any) -> Callable[[Any], Any]:
    return lambda service: service.stream_image("a fox", save_to=folder / "fox.png", **more)


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


def is_on_disk(image: imgkit.Image) -> bool:
    return isinstance(image.source, PartFile) and image.source.path is not None


def test_saved_while_it_arrives(flavor: Face, http_backend: str, tmp_path: Path) -> None:
    """Each picture is on disk when its event comes, the complete one under its name."""
    found: list[Any] = []

    def look(one: Any) -> None:
        if isinstance(one, PartialImage):
            assert is_on_disk(one.image)
        else:
            assert one.image.path.read_bytes() == WHOLE
        found.append((one.image.data, one.image.format, one.image.width, one.image.sha256))

    with WireServer(streamed(partial(0, SKETCH), partial(1, SHARPER), completed(WHOLE))) as server:
        seen = watch(flavor, fox(tmp_path), http_backend, base_url=server.base_url, see=look)
    pictures = (SKETCH, SHARPER, WHOLE)
    assert found == [(data, "png", 250, hashlib.sha256(data).hexdigest()) for data in pictures]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fox.png", "fox.png.json"]
    assert json.loads((tmp_path / "fox.png.json").read_text())["sha256"] == seen.response[0].sha256
    # Whoever has kept the events still has their pictures.
    assert [one.image.data for one in seen.events] == [SKETCH, SHARPER, WHOLE]
    assert [pickle.loads(pickle.dumps(one.image)).data for one in seen.events] == [SKETCH, SHARPER, WHOLE]
    assert seen.events[0].image.save(tmp_path / "late.png").read_bytes() == SKETCH


@pytest.mark.parametrize("overwrite", [False, True])
def test_partial_pictures_are_the_caller_s_to_save(flavor: Face, tmp_path: Path, overwrite: bool) -> None:
    """As often as they like; what becomes of the file they saved is nothing to the event."""
    paths: list[Path] = []

    def look(one: Any) -> None:
        if isinstance(one, PartialImage):
            for name in ("a.png", "b.png"):
                paths.append(one.image.save(tmp_path / name, overwrite=overwrite))
                assert paths[-1].read_bytes() == SKETCH
            assert json.loads(Path(f"{paths[-1]}.json").read_text())["sha256"] == one.image.sha256
            with paths[0].open("r+b") as file:
                file.write(b"something else")
            assert paths[1].read_bytes() == one.image.data == SKETCH

    with WireServer(streamed(partial(0, SKETCH), completed(WHOLE))) as server:
        seen = watch(flavor, fox(tmp_path), "requests", base_url=server.base_url, see=look)
    assert [path.exists() for path in paths] == [True, True]
    assert seen.events[0].image.data == SKETCH
    assert hidden(tmp_path) == []


def test_what_nobody_holds_is_gone_at_once(tmp_path: Path) -> None:
    """A stream with many partial pictures takes the room of two, on disk and in memory."""
    pieces = [partial(number, png(number, 250)) for number in range(12)]
    with WireServer(streamed(*pieces, completed(WHOLE))) as server:
        with (
            imgkit.ImageService("requests", base_url=server.base_url) as images,
            fox(tmp_path)(images) as events,
        ):
            for number, one in enumerate(events):
                if number < 12:
                    assert one.image.data == png(number, 250)
                assert len(hidden(tmp_path)) <= 3
                del one
        assert events.response[0].data == WHOLE
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("partials", [0, 1])
def test_memory_stays_flat(flavor: Face, tmp_path: Path, partials: int) -> None:
    """Whatever the size of its pictures, what Python holds while a stream is saved is under 2 MiB."""
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

    def save(one: PartialImage | Completed) -> None:
        if isinstance(one, PartialImage):
            one.image.save(tmp_path / "fox.partial-0.png")

    def blocking(service: Any) -> None:
        with fox(tmp_path, partial_images=partials)(service) as events:
            for one in events:
                save(one)
                del one

    async def awaiting(service: Any) -> None:
        async with fox(tmp_path, partial_images=partials)(service) as events:
            async for one in events:
                save(one)
                del one

    with WireServer(script) as server:  # it is in this process: what it holds was there before
        work, backend = (blocking, "requests") if flavor.flavor == "sync" else (awaiting, "aiohttp")
        flavor.run(work, backend, base_url=server.base_url, plugins=[Peak()])
    names = ["fox.png", *(["fox.partial-0.png"] if partials else [])]
    for name in names:
        assert (tmp_path / name).stat().st_size == len(data)
        told = json.loads((tmp_path / f"{name}.json").read_text())
        assert told["sha256"] == hashlib.sha256(data).hexdigest()
    assert 0 < Peak.peak < (2 << 20) + (1 << 17) * 3, Peak.peak


def test_leaving_early(flavor: Face, http_backend: str, tmp_path: Path) -> None:
    """In the midst of the next picture: no file stays, and the picture that one left with is there."""
    script = then(partial(0, SKETCH), completed(WHOLE)[:200_000], lambda line: line.until_client_leaves())
    with WireServer(script) as server:
        seen = watch(flavor, fox(tmp_path), http_backend, base_url=server.base_url, see=lambda one: True)
    assert seen.events[0].image.data == SKETCH
    assert list(tmp_path.iterdir()) == []


def test_a_cancelled_task(http_backend: str, tmp_path: Path) -> None:
    """No file stays, and what had come is in the spool."""
    came = threading.Event()
    half = completed(WHOLE)[:200_000]

    class Counter:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            if (
                isinstance(event, imgkit.plugins.events.Progress)
                and event.received_bytes > len(partial(0, SKETCH)) + 150_000
            ):
                came.set()

    async def main(base_url: str) -> None:
        options: dict[str, Any] = {"base_url": base_url, "plugins": [Counter()]}
        async with imgkit.AsyncImageService(
            http_backend, state_folder=tmp_path / "state", **options
        ) as service:

            async def read() -> None:
                async with fox(tmp_path / "out")(service) as events:
                    async for _ in events:
                        pass

            task = asyncio.create_task(read())
            assert await asyncio.to_thread(came.wait, 20)
            assert len(hidden(tmp_path / "out")) >= 1
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


def broken(flavor: Face, kind: type[Exception], script: Any, folder: Path, backend: str) -> tuple[Any, Seen]:
    """Return the error that a stream ends with, and what came before; nothing is left in the folder."""
    seen = Seen()
    (folder / "out").mkdir()
    options: dict[str, Any] = {"state_folder": folder / "state", "seen": seen}
    with WireServer(script) as server, pytest.raises(kind) as caught:
        watch(flavor, fox(folder / "out"), backend, base_url=server.base_url, **options)
    assert list((folder / "out").iterdir()) == []
    return caught.value, seen


def test_a_cut(flavor: Face, http_backend: str, tmp_path: Path) -> None:
    """What did arrive is in the error and in the spool, as if nothing had been on the way to a file."""
    pieces = (partial(0, SKETCH), partial(1, SHARPER), completed(WHOLE)[:200_000])
    error, seen = broken(
        flavor, imgkit.OutcomeUnknownError, streamed(*pieces, end=b""), tmp_path, http_backend
    )
    assert [one.image.data for one in seen.events] == [SKETCH, SHARPER]
    assert [one.data for one in error.images] == [SHARPER]
    assert pickle.loads(pickle.dumps(error)).images[0].data == SHARPER
    assert error.body.startswith(b'{"type": "image_generation.completed"')
    assert len(error.body) > 190_000
    (record,) = open_spool(tmp_path / "state").list_replies()
    found = recover(record)
    assert [found.images[0].data, found.damaged] == [SHARPER, (1,)]
    assert WHOLE.startswith(found.images[1].data)
    assert len(found.images[1].data) > 140_000


def test_an_error_event(flavor: Face, tmp_path: Path) -> None:
    """No file stays, and partial pictures that were kept are there."""
    script = streamed(partial(0, SKETCH), event({"type": "error", "code": "server_error", "message": "boom"}))
    error, seen = broken(flavor, imgkit.ApiError, script, tmp_path, "requests")
    assert "boom" in str(error)
    assert seen.events[0].image.data == SKETCH


def test_no_complete_picture(flavor: Face, tmp_path: Path) -> None:
    """The error has the last partial picture, though its file is gone."""
    error, _ = broken(flavor, imgkit.StreamError, streamed(partial(0, SKETCH)), tmp_path, "requests")
    assert [one.data for one in error.images] == [SKETCH]
    (record,) = open_spool(tmp_path / "state").list_replies()
    assert [one.data for one in recover(record).images] == [SKETCH]


def test_broken_base64(flavor: Face, tmp_path: Path) -> None:
    """It is told as if it had been read whole, and not saved."""
    members = {"type": "image_generation.completed", "b64_json": encoded(WHOLE)[:-9] + "*" * 9}
    error, _ = broken(flavor, imgkit.UnreadableReplyError, streamed(event(members)), tmp_path, "requests")
    assert "broken base64" in str(error)
    assert json.loads(error.body) == members


def test_several_at_once(flavor: Face, tmp_path: Path) -> None:
    """Events that come in one piece share nothing."""
    pieces = b"".join((partial(0, SKETCH), completed(WHOLE), partial(0, SHARPER), completed(SKETCH)))
    with WireServer(streamed(pieces)) as server:
        seen = watch(flavor, fox(tmp_path, n=2), "aiohttp", base_url=server.base_url)
    assert [one.image.data for one in seen.events] == [SKETCH, WHOLE, SHARPER, SKETCH]
    assert [one.path.read_bytes() for one in seen.response] == [WHOLE, SKETCH]
    assert hidden(tmp_path) == []


def test_json_instead(flavor: Face, tmp_path: Path) -> None:
    """The pictures of a plain reply go to disk too."""
    body = {"data": [{"b64_json": encoded(SKETCH)}, {"b64_json": encoded(WHOLE)}]}
    with WireServer(reply(200, body)) as server:
        seen = watch(flavor, fox(tmp_path, n=2), "requests", base_url=server.base_url)
    assert seen.kinds == ["Completed", "Completed"]
    assert [one.image.path.read_bytes() for one in seen.events] == [SKETCH, WHOLE]
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("at", [0, 1, 3, 5])
def test_a_full_disk_leaves_pictures_in_memory(
    flavor: Face, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Whenever the disk is full, all events come with their bytes."""
    calls = []
    write = os.write

    def full(descriptor: int, data: Any) -> int:
        calls.append(len(data))
        if len(calls) > at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(scratch.os, "write", full)
    with WireServer(streamed(partial(0, SKETCH), completed(WHOLE))) as server:
        seen = watch(flavor, fox(tmp_path), "requests", base_url=server.base_url)
    assert len(calls) > at
    assert [one.image.data for one in seen.events] == [SKETCH, WHOLE]
    assert (tmp_path / "fox.png").read_bytes() == WHOLE
    assert hidden(tmp_path) == []


def test_what_cannot_be_saved(flavor: Face, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reaches the caller in memory, and the error at the end has it too."""

    def no(*args: Any) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("imgkit.images.saving._link", no)
    error, seen = broken(flavor, imgkit.SaveError, streamed(completed(WHOLE)), tmp_path, "requests")
    assert (seen.events[0].image.path, seen.events[0].image.data) == (None, WHOLE)
    assert error.response[0].data == WHOLE


def test_a_file_that_was_not_made_whole() -> None:
    """Ctrl-C may come within its making; nothing is wrong with its end then."""
    PartFile.__new__(PartFile).discard()


def test_a_picture_read_while_the_call_ends(tmp_path: Path) -> None:
    """Another thread that reads a partial picture never meets the moment between disk and memory."""
    data = os.urandom(BUFFER_BYTES * 4)
    for _ in range(20):
        held = PartFiles(tmp_path, digests=False)
        file = held.new_file()
        file.add(data)
        held.write()
        file.share()
        wrong: list[object] = []

        def read(file: PartFile = file, wrong: list[object] = wrong) -> None:
            try:
                wrong += [1 for _ in range(20) if file.read() != data or file.read_at(9, 7) != data[7:16]]
            except imgkit.ImgkitError as error:
                wrong.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        held.close()
        reader.join()
        assert wrong == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_leaves_files_to_its_parent(tmp_path: Path) -> None:
    """A child that closes its copy of a stream takes no picture from its parent."""
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
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"['PartialImage', 'Completed'] {len(WHOLE)}\n", done.stderr
    assert hidden(tmp_path) == []
