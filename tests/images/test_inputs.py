"""Image inputs: every kind of value, concurrent reads, Pillow modes."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import tempfile
import time
import urllib.parse
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from imgkit.images.image import Image
from imgkit.images.inputs import find_type_problem, open_input
from imgkit.images.sniff import Kind
from tests.support.openings import cleanup, refusal
from tests.support.pictures import noise, picture

PNG = picture("PNG")

__all__ = ["cleanup"]  # a fixture, used by name


class Pipe:
    """A minimal file object that can only be read."""

    def __init__(self, data: bytes, pieces: int = 7) -> None:
        self._stream = io.BytesIO(data)
        self._pieces = pieces

    def read(self, size: int) -> bytes:
        return self._stream.read(min(size, self._pieces))


def zipped(tmp_path: Path) -> Any:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("in.png", PNG)
    return zipfile.ZipFile(tmp_path / "a.zip").open("in.png")


def gzipped(tmp_path: Path) -> Any:
    (tmp_path / "a.png.gz").write_bytes(gzip.compress(PNG))
    return gzip.open(tmp_path / "a.png.gz")


def file(tmp_path: Path, data: bytes = PNG, name: str = "in.png") -> Path:
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


def named_temporary(tmp_path: Path) -> Any:
    stream = tempfile.NamedTemporaryFile(dir=tmp_path)  # noqa: SIM115 - closed by the test
    stream.write(PNG)
    stream.seek(0)
    return stream


def real_pipe(tmp_path: Path) -> Any:
    reader, writer = os.pipe()
    os.write(writer, PNG)
    os.close(writer)
    return open(reader, "rb")


KINDS: dict[str, Callable[[Path], Any]] = {
    "str": lambda folder: str(file(folder)),
    "path": file,
    "bytes": lambda folder: PNG,
    "bytearray": lambda folder: bytearray(PNG),
    "memoryview": lambda folder: memoryview(PNG),
    "bytes-io": lambda folder: io.BytesIO(PNG),
    "handle": lambda folder: file(folder).open("rb"),
    "raw-handle": lambda folder: io.FileIO(file(folder)),
    "update-handle": lambda folder: file(folder).open("r+b"),
    "named-temporary": named_temporary,
    "gzip": gzipped,
    "buffered-gzip": lambda folder: io.BufferedReader(gzipped(folder)),
    "zip": zipped,
    "buffered-bytes-io": lambda folder: io.BufferedReader(io.BytesIO(PNG)),
    "pipe-object": lambda folder: Pipe(PNG),
    "pipe": real_pipe,
    "image": lambda folder: Image.from_bytes(PNG),
    "data-url": lambda folder: "data:image/png;base64," + base64.b64encode(PNG).decode(),
    "data-url-upper-case": lambda folder: "DATA:;BASE64," + base64.b64encode(PNG).decode(),
    "data-url-wrapped": lambda folder: "data:image/png;base64,\n" + base64.encodebytes(PNG).decode(),
    "data-url-escaped": lambda folder: "data:;base64," + urllib.parse.quote(base64.b64encode(PNG), safe=""),
    "data-url-percent": lambda folder: "data:image/png," + urllib.parse.quote(PNG),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_input(kind: str, tmp_path: Path, cleanup: ExitStack) -> None:
    """Reads the same bytes from every kind of input, repeatedly."""
    value = KINDS[kind](tmp_path)
    assert find_type_problem(value) is None
    if hasattr(value, "close"):
        cleanup.callback(value.close)
    opened = open_input(value, "image", cleanup)
    assert opened.read() == opened.read() == PNG
    assert (opened.length, opened.kind) == (len(PNG), Kind("png", 8, 8))
    assert opened.sha256 == hashlib.sha256(PNG).hexdigest()


POSITIONED = ["bytes-io", "handle", "raw-handle", "update-handle", "named-temporary", "gzip", "zip"]


@pytest.mark.parametrize("kind", POSITIONED)
def test_position_is_the_start_and_stays(kind: str, tmp_path: Path, cleanup: ExitStack) -> None:
    """Reads a file object from its position on and restores the position."""
    content = b"12345" + PNG
    values: dict[str, Any] = {
        "bytes-io": lambda: io.BytesIO(content),
        "handle": lambda: file(tmp_path, content).open("rb"),
        "raw-handle": lambda: io.FileIO(file(tmp_path, content)),
        "update-handle": lambda: file(tmp_path, content).open("r+b"),
        "named-temporary": lambda: tempfile.NamedTemporaryFile(dir=tmp_path),  # noqa: SIM115
        "gzip": lambda: gzip.GzipFile(file(tmp_path, gzip.compress(content))),
        "zip": lambda: zipped(tmp_path),
    }
    stream = values[kind]()
    cleanup.callback(stream.close)
    start = 0 if kind == "zip" else 5
    if kind == "named-temporary":
        stream.write(content)
    stream.seek(start)
    assert open_input(stream, "image", cleanup).read() == PNG
    assert stream.tell() == start
    assert stream.read() == PNG


def test_caller_may_close_the_file(tmp_path: Path, cleanup: ExitStack) -> None:
    """Reads a duplicate descriptor, so closing the file does no harm."""
    stream = file(tmp_path).open("rb")
    opened = open_input(stream, "image", cleanup)
    stream.close()
    with file(tmp_path, b"x" * len(PNG), "other").open("rb"):
        assert opened.read() == PNG


@pytest.mark.parametrize("kind", ["bytes", "path", "pipe-object"])
def test_concurrent_reads(
    kind: str, tmp_path: Path, cleanup: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gives each thread of a call the complete image."""

    class Slow(tempfile.SpooledTemporaryFile[bytes]):
        def seek(self, *args: Any) -> int:
            at = super().seek(*args)
            time.sleep(0.002)  # another thread has its turn here, if it may
            return at

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", Slow)
    data = noise(4, 400)
    value = {"bytes": data, "path": file(tmp_path, data), "pipe-object": Pipe(data, 1 << 20)}[kind]
    shared = open_input(value, "image", cleanup)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: hashlib.sha256(shared.read()).hexdigest(), range(8))) == {shared.sha256}


def test_cleanup_closes_all_descriptors(tmp_path: Path) -> None:
    """Closes every descriptor at the end of the call."""
    path, pipe = file(tmp_path), Pipe(PNG)
    with path.open("rb") as stream:
        before = len(os.listdir("/proc/self/fd"))
        with ExitStack() as stack:
            for value in (path, stream, pipe):
                open_input(value, "image", stack)
            assert len(os.listdir("/proc/self/fd")) > before
        assert len(os.listdir("/proc/self/fd")) == before


MODES = (
    "1 L LA La P PA RGB RGBA RGBa RGBX CMYK YCbCr LAB HSV I F I;16 I;16B I;16L I;16N".split()  # noqa: SIM905
)


@pytest.mark.parametrize("mode", MODES)
def test_pil_modes(mode: str, cleanup: ExitStack) -> None:
    """Encodes a Pillow image of any mode as a PNG of its size."""
    opened = open_input(PIL.Image.new(mode, (5, 3)), "image", cleanup)
    assert opened.kind == Kind("png", 5, 3)


@pytest.mark.parametrize("mode", ["LA", "La", "P", "PA", "RGBA", "RGBa"])
def test_pil_transparency_is_kept(mode: str, cleanup: ExitStack) -> None:
    """Keeps the transparency of a Pillow image, as masks require."""
    source = PIL.Image.new("RGBA", (2, 2), (255, 255, 255, 0))
    given = source.convert({"La": "LA", "PA": "P"}.get(mode, mode))
    if mode == "P":
        given.info["transparency"] = 0
        given.putdata([0, 0, 0, 0])
    elif mode != given.mode:
        given = given.convert(mode)
    sent = PIL.Image.open(io.BytesIO(open_input(given, "mask", cleanup).read()))
    assert sent.convert("RGBA").getchannel("A").getextrema() == (0, 0)


def test_pil_sixteen_bits_are_kept(cleanup: ExitStack) -> None:
    """Keeps grey values above 255."""
    sent = PIL.Image.open(io.BytesIO(open_input(PIL.Image.new("I", (1, 1), 1000), "image", cleanup).read()))
    assert sent.getpixel((0, 0)) == 1000


def test_pil_failures(tmp_path: Path, cleanup: ExitStack) -> None:
    """Rejects a Pillow image without pixels or with a truncated file."""
    assert "0x4 pixels" in refusal(PIL.Image.new("RGB", (0, 4)), cleanup)
    with PIL.Image.open(file(tmp_path, PNG[:48])) as lazy:
        assert "cannot be written as PNG" in refusal(lazy, cleanup)
