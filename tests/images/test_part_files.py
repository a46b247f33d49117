"""Part files: images go to disk during the download and keep every guarantee of saving."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import pickle
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.images.part_files import BUFFER_BYTES, PartFiles
from imgkit.images.saving import SavePlan
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import Line, WireServer, head, reply
from tests.support.official import official

BIG = png(1, 500)
"""750 kB of noise."""


def ask(flavor: Any, backend: str, *script: Any, **more: Any) -> Any:
    with WireServer(*script) as server:
        call = lambda service: service.create_image("a fox", **more)  # noqa: E731
        return flavor.run(call, backend, base_url=server.base_url)


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


def test_saved_whole(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """Saves several images, large and small, with the digests in their sidecars."""
    pictures = [BIG, png(2), png(3, 500)]
    got = ask(
        flavor, http_backend, reply(200, answer(*pictures)), save_to=tmp_path / "{index}-{digest}.{ext}"
    )
    for image, data in zip(got, pictures, strict=True):
        assert image.path.read_bytes() == data == image.data
        assert image.path.name.endswith(f"-{image.sha256[:12]}.png")
        assert json.loads(Path(f"{image.path}.json").read_text())["sha256"] == image.sha256
        assert (image.format, image.width) == ("png", 8 if data is pictures[1] else 500)
    assert pickle.loads(pickle.dumps(got[0])).data == BIG
    assert hidden(tmp_path) == []


def test_never_over_another_file(flavor: Any, tmp_path: Path) -> None:
    """Takes the next free name, and says so, if another program takes the name during the call."""

    def script(line: Line) -> None:
        (tmp_path / "fox.png").write_bytes(b"mine")
        reply(200, answer(BIG))(line)

    got = ask(flavor, "requests", script, save_to=tmp_path / "fox.png")
    assert got[0].path.name == "fox-2.png"
    assert "Remove the old file" in got.warnings[0]
    assert (tmp_path / "fox.png").read_bytes() == b"mine"


@pytest.mark.parametrize(("picture_mib", "sidecar"), [(4, True), (24, True), (24, False)])
def test_memory_stays_flat(tmp_path: Path, picture_mib: int, sidecar: bool) -> None:
    """Needs under 2 MiB of Python memory for images of any size, to save and to hash them."""
    data = png()[:-12] + os.urandom(picture_mib << 20) + png()[-12:]
    text = base64.b64encode(data)

    def script(line: Line) -> None:
        body = b'{"data":[{"b64_json":"' + text + b'"}]}'
        line.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        for start in range(0, len(body), 1 << 16):
            line.send(body[start : start + (1 << 16)])

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

    with WireServer(script) as server:  # it is in this process: what it holds was there before
        with imgkit.ImageService("requests", base_url=server.base_url, plugins=[Peak()]) as images:
            got = images.create_image(
                "a fox", save_to=SavePlan.from_target(tmp_path / "fox.png", sidecar=sidecar)
            )
    assert got[0].path is not None
    tracemalloc.start()
    assert got[0].sha256 == hashlib.sha256(data).hexdigest()
    counted = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counted < 1 << 20
    assert got[0].path.stat().st_size == len(data)
    assert 0 < Peak.peak < (2 << 20) + (1 << 17) * 3, Peak.peak


@pytest.mark.parametrize("at", [0, 1, 3])
def test_full_disk(flavor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Keeps the image in memory if the disk is full, and saves it later."""
    calls = []
    write = os.write

    def full(descriptor: int, data: Any) -> int:
        calls.append(len(data))
        if len(calls) > at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    got = ask(flavor, "requests", reply(200, answer(BIG)), save_to=tmp_path / "fox.png")
    assert calls
    assert got[0].data == BIG == got[0].path.read_bytes()
    assert hidden(tmp_path) == []


def test_unsaved_image_is_in_the_error(flavor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts an unsaved image into the error and deletes its part file."""

    def no(*args: Any) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("imgkit.images.saving._link", no)
    with pytest.raises(imgkit.SaveError) as caught:
        ask(flavor, "requests", reply(200, answer(BIG)), save_to=tmp_path / "fox.png")
    response: Any = caught.value.response
    assert response[0].data == BIG
    assert hidden(tmp_path) == []


def test_truncated_response(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """Puts the received bytes into the error and leaves no hidden file."""
    text = json.dumps(answer(BIG)).encode()

    def script(line: Line) -> None:
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text[:500_000])

    with pytest.raises(imgkit.OutcomeUnknownError) as caught:
        ask(flavor, http_backend, script, save_to=tmp_path / "fox.png")
    assert len(caught.value.body) > 400_000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "spoil", [lambda text: text + "!", lambda text: text[: len(text) // 2] + "*" + text[9:]]
)
def test_broken_base64(flavor: Any, tmp_path: Path, spoil: Any) -> None:
    """Reports broken base64 with the complete body."""
    body = {"data": [{"b64_json": spoil(base64.b64encode(BIG).decode())}]}
    with pytest.raises(imgkit.UnreadableReplyError, match="broken base64") as caught:
        ask(flavor, "requests", reply(200, body), save_to=tmp_path / "fox.png")
    assert json.loads(caught.value.body) == body
    assert list(tmp_path.iterdir()) == []


def test_a_saved_file_that_is_gone_or_changed(flavor: Any, tmp_path: Path) -> None:
    """Explains how to keep images in memory if a saved file is gone or changed."""
    got = ask(flavor, "requests", reply(200, answer(BIG, png(3, 500))), save_to=tmp_path / "{index}.png")
    got[0].path.unlink()
    got[1].path.write_bytes(b"something else")
    for image in got:
        with pytest.raises(imgkit.NotDownloadedError, match="save_to"):
            image.data  # noqa: B018


def test_parts_of_a_call(flavor: Any, tmp_path: Path) -> None:
    """Gives each concurrent request its own part files."""

    def script(line: Line) -> None:
        seed = json.loads(line.body)["n"]
        reply(200, answer(*[png(seed * 100 + number, 300) for number in range(seed)]))(line)

    with WireServer(script) as server:
        settings = {
            "provider": official(server.base_url),
            "api_key": "sk-test-0123456789",
            "model": "gpt-image-2",
        }
        call = lambda service: service.create_image("a fox", n=13, save_to=tmp_path)  # noqa: E731
        got = flavor.run(call, "aiohttp", **settings)
    wanted = [
        *(png(1000 + number, 300) for number in range(10)),
        *(png(300 + number, 300) for number in range(3)),
    ]
    assert [image.path.read_bytes() for image in got] == wanted
    assert hidden(tmp_path) == []


def test_with_a_spool_and_a_cache(flavor: Any, tmp_path: Path) -> None:
    """Saves images of a spooled or cached response."""
    with WireServer(reply(200, answer(BIG))) as server:
        for number in range(2):
            call = lambda service, n=number: service.create_image("a fox", save_to=tmp_path / f"{n}.png")  # noqa: E731
            more: dict[str, Any] = {"state_folder": tmp_path / "state", "plugins": ["cache"]}
            got = flavor.run(call, "requests", base_url=server.base_url, **more)
            assert got[0].path.read_bytes() == BIG
        assert server.posts == 1


def test_short_images_stay_in_memory(tmp_path: Path) -> None:
    """Buffers an image in memory up to the buffer size."""
    files = PartFiles(tmp_path, digests=True)
    file = files.new_file()
    file.add(b"x" * (BUFFER_BYTES - 1))
    assert not files.should_flush
    files.write()
    assert file.source() is None
    file.add(b"x")
    assert files.should_flush
    files.write()
    assert file.source() is file
    assert file.path is not None
    assert file.path.stat().st_size == BUFFER_BYTES
    files.close()
    files.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pattern", ["fox.png", "{slug}.{ext}"])
def test_folder_deleted_during_the_download(
    flavor: Any, http_backend: str, tmp_path: Path, pattern: str
) -> None:
    """Saves the image if the folder may be created again, else puts it into the error."""
    folder = tmp_path / "out"
    folder.mkdir()
    text = json.dumps(answer(BIG)).encode()

    def script(line: Line) -> None:
        line.send(head(200, {"content-length": str(len(text))}) + text[:600_000])
        while not hidden(folder):
            line.wait(0.01)
        shutil.rmtree(folder)
        line.send(text[600_000:])

    if "{" in pattern:
        got = ask(flavor, http_backend, script, save_to=f"{folder}/{pattern}")
        assert got[0].path.read_bytes() == BIG
        return
    with pytest.raises(imgkit.SaveError) as caught:
        ask(flavor, http_backend, script, save_to=folder / pattern)
    response: Any = caught.value.response
    assert [image.data for image in response] == [BIG]
    assert [image.data for image in caught.value.images] == [BIG]


def test_repr_of_an_image_without_its_file(flavor: Any, tmp_path: Path) -> None:
    """Represents an image without its file as text, for logs and notebooks."""
    got = ask(flavor, "requests", reply(200, answer(BIG)), save_to=tmp_path / "fox.png")
    got[0].path.unlink()
    assert repr(got[0]) == f"Image(index=0, saved to '{tmp_path / 'fox.png'}', which is gone or has changed)"
    assert "which is gone" in repr(got)
    assert got[0]._repr_mimebundle_() == {"text/plain": repr(got[0])}
