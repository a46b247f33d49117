"""Bad input images, and files that change, grow or never end."""

from __future__ import annotations

import base64
import io
import os
import pickle
import random
import struct
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import imgkit
from imgkit.errors import InvalidRequestError
from imgkit.images import inputs
from imgkit.images.inputs import ImageFile, find_type_problem, open_input
from imgkit.images.sniff import is_complete_bytes
from imgkit.wire.messages import BLOCK_BYTES
from tests.support.openings import cleanup, refusal
from tests.support.pictures import picture
from tests.support.wire_server import WireServer

PNG = picture("PNG")
BASE64 = base64.b64encode(PNG).decode()

__all__ = ["cleanup"]  # a fixture, used by name


def write_file(tmp_path: Path, data: bytes = PNG, name: str = "in.png") -> Path:
    """Write a file into a folder and return its path."""
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


def open_as_text(folder: Path) -> Any:
    """Return a file that is open as text."""
    return write_file(folder, b"text").open()


def close_and_return(stream: Any) -> Any:
    """Close a stream and return it."""
    stream.close()
    return stream


class Raises:
    def read(self, size: int) -> bytes:
        raise RuntimeError("sk-abcdefghijk " + "x" * 5_000)


class GivesText:
    def read(self, size: int) -> str:
        return "text"


WRONG_STREAMS: list[tuple[Callable[[Path], Any], str]] = [
    (open_as_text, "open as text"),
    (lambda folder: io.StringIO("text"), "open as text"),
    (lambda folder: tempfile.NamedTemporaryFile("w+", dir=folder), "open as text"),  # noqa: SIM115
    (lambda folder: close_and_return(io.BytesIO(PNG)), "Is it still open?"),
    (lambda folder: close_and_return(write_file(folder).open("rb")), "Is it still open?"),
    (lambda folder: (folder / "out.png").open("wb"), "UnsupportedOperation"),
    (lambda folder: io.BytesIO(), "is empty"),
    (lambda folder: io.BufferedReader(io.BytesIO()), "is empty"),
    (lambda folder: Raises(), "failed (RuntimeError: "),
    (lambda folder: GivesText(), "returns str, not bytes"),
    (lambda folder: io.FileIO("/dev/zero"), "not a regular file"),
]


class Slow:
    """A file object whose first read never ends by itself."""

    def __init__(self) -> None:
        self.is_over = threading.Event()

    def read(self, size: int) -> bytes:
        self.is_over.wait(10)
        return b""


def test_a_slow_file_object_ends_with_the_call(flavor: Any) -> None:
    """A file object that blocks ends the call at its deadline, before anything is sent."""
    slow, started = Slow(), time.monotonic()
    with WireServer() as server, pytest.raises(imgkit.NotSentError, match="Nothing was sent"):
        call = lambda service: service.create_image_edit(slow, "a hat", timeout_s=0.2)  # noqa: E731
        try:
            flavor.run(call, "requests", base_url=server.base_url)
        finally:
            took_s = time.monotonic() - started
            slow.is_over.set()
    assert took_s < 5
    assert server.posts == 0


@pytest.mark.parametrize(("make", "problem"), WRONG_STREAMS)
def test_wrong_file_objects(make: Any, problem: str, tmp_path: Path, cleanup: ExitStack) -> None:
    """Refuses a bad file object with its problem, and without keys in the message."""
    value = make(tmp_path)
    if hasattr(value, "close"):
        cleanup.callback(value.close)
    reason = refusal(value, cleanup)
    assert problem in reason
    assert "sk-abc" not in reason


def test_position_is_restored_when_reading_fails(cleanup: ExitStack) -> None:
    """Restores the position of a stream that it refuses midway."""

    class Odd(io.BytesIO):
        def read(self, size: int | None = -1) -> Any:
            return super().read(size).decode("latin-1")

    stream = Odd(b"12345" + PNG)
    stream.seek(5)
    refusal(stream, cleanup)
    assert stream.tell() == 5


def test_endless_stream(monkeypatch: pytest.MonkeyPatch, cleanup: ExitStack) -> None:
    """Reads an endless stream up to the limit and no further."""
    monkeypatch.setattr(inputs, "MAX_INPUT_BYTES", 1_000_000)
    asked = []

    class Endless:
        def read(self, size: int) -> bytes:
            asked.append(size)
            return bytes(size)

    assert "is over 1000000 bytes" in refusal(Endless(), cleanup)
    assert sum(asked) <= 1_000_000 + BLOCK_BYTES


WRONG_FILES = [
    (b"", "is empty (0 bytes)"),
    (b"hello", "is text"),
    (b"<!doctype html><p>", "is HTML"),
    (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "is svg"),
    (b"%PDF-1.7\n", "is a PDF"),
    (b"%!PS-Adobe-3.0 EPSF", "is PostScript"),
    (b"\0\0\2\0\1\0" + bytes(60), "is unrecognized data, not"),
    (b"\0\0\1\0\1\0" + bytes(60), "is an icon (ICO), not"),
    (b"II*\0" + bytes(60), "is TIFF, not"),
    (b"BM\x46\0\0\0" + bytes(60), "is BMP, not"),
    (b"BM, no picture: words", "is text"),
    (b"\0\0\0\x18ftypheic" + bytes(60), "is HEIC, not"),
    (PNG[:-5], "is a png image that is cut off"),
    (picture("JPEG")[:-2], "is a jpeg image that is cut off"),
    (picture("WEBP")[:-2], "is a webp image that is cut off"),
    (picture("GIF")[:-1], "is a gif image that is cut off"),
    (PNG[:16] + struct.pack(">II", 0, 5) + PNG[24:], "0x5 pixels"),
    (PNG[:16] + struct.pack(">II", 50_000, 50_000) + PNG[24:], "claims 50000x50000"),
    (PNG[:16] + struct.pack(">II", 2**31 - 1, 1) + PNG[24:], "claims 2147483647x1"),
    (b"\xff\xd8\xff\xd9", "jpeg header is broken"),
]


@pytest.mark.parametrize(("data", "problem"), WRONG_FILES)
@pytest.mark.parametrize("kind", ["path", "bytes", "stream"])
def test_bad_content(data: bytes, problem: str, kind: str, tmp_path: Path, cleanup: ExitStack) -> None:
    """Names each problem of bad content, from paths, bytes and streams; the file name does not matter."""
    path = write_file(tmp_path, data)
    value: Any = {"path": path, "bytes": data, "stream": io.BytesIO(data)}[kind]
    assert problem in refusal(value, cleanup)


def make_fifo(folder: Path) -> Path:
    """Make a named pipe and return its path."""
    os.mkfifo(folder / "fifo")
    return folder / "fifo"


WRONG_PATHS: list[tuple[Callable[[Path], Any], str]] = [
    (lambda folder: folder / "missing.png", "No such file"),
    (lambda folder: folder, "is a folder"),
    (make_fifo, "is not a regular file"),
    (lambda folder: "/dev/zero", "is not a regular file"),
    (lambda folder: "/proc/self/mem", "is empty"),
    (lambda folder: "a\0b.png", "embedded null"),
    (lambda folder: "\ud800.png", "surrogates not allowed"),
    (lambda folder: write_file(folder) / "below.png", "Not a directory"),
    (lambda folder: b"missing-as-bytes", "is text"),
    (lambda folder: "x" * 5_000_000, "File name too long"),
    (lambda folder: "data:image/png;base64", "without a comma"),
    (lambda folder: "data:image/png;base64,AAA*", "broken base64"),
    (lambda folder: "data:image/png;base64,QQ==QQ==", "broken base64"),
    (lambda folder: "data:;base64,é", "broken base64"),
    (lambda folder: "data:," + "\ud800", "cannot be read"),
    (lambda folder: "data:,", "is empty"),
    (lambda folder: "data:image/svg+xml,%3Csvg/%3E", "is svg"),
    (lambda folder: BASE64, "base64 text of a png image, not a path. Put 'data:image/png;base64,'"),
    (lambda folder: BASE64 * 50, "base64 text of a png image, not a path"),
    (lambda folder: base64.b64encode(picture("JPEG")).decode(), "base64 text of a jpeg image, not a path"),
    (lambda folder: base64.urlsafe_b64encode(picture("WEBP")).decode(), "base64 text of a webp image"),
    (lambda folder: f'"data:image/png;base64,{BASE64}"', "a data: URL in quotes. Remove the quotes."),
    (lambda folder: BASE64.encode(), "base64 text of a png image. Decode it first."),
    (lambda folder: io.BytesIO(BASE64.encode()), "base64 text of a png image. Decode it first."),
    (lambda folder: write_file(folder, BASE64.encode()), "base64 text of a png image. Decode it first."),
    (lambda folder: f"data:;base64,{base64.b64encode(BASE64.encode()).decode()}", "Decode it first."),
    (lambda folder: b"data:image/png;base64," + BASE64.encode(), "base64 text of a png image. Decode"),
    (lambda folder: os.fsencode(write_file(folder)), "Give a path as text, not as bytes."),
    (lambda folder: f"file://{folder}/a%20fox.png", "/a fox.png'."),
    (lambda folder: "~/no-such-fox.png", f"Pass the path '{Path.home()}/no-such-fox.png'."),
    (lambda folder: write_file(folder).with_name("im.png"), "(did you mean 'in.png'?). Check the path."),
]


@pytest.mark.parametrize(("make", "problem"), WRONG_PATHS)
def test_bad_paths(make: Any, problem: str, tmp_path: Path, cleanup: ExitStack) -> None:
    """Refuses a path or data: URL without an image at once, and never blocks."""
    assert problem in refusal(make(tmp_path), cleanup)


def test_unreadable_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cleanup: ExitStack) -> None:
    """Refuses unreadable files with the reason of the system."""
    path = write_file(tmp_path)

    def fail(*args: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        assert "Cannot open" in refusal(path, cleanup)
    monkeypatch.setattr(os, "pread", fail)
    assert "Cannot read" in refusal(path, cleanup)


TYPES = [
    ("http://example.com/a.png", "does not fetch"), ("HTTPS://example.com/a.png", "does not fetch"),
    ("s3://bucket/a.png", "does not fetch"),
    ("", "empty path"), (5, "type int"), (None, "type NoneType"), ({}, "type dict"), ([PNG], "type list"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "problem"), TYPES)
def test_wrong_types(value: Any, problem: str) -> None:
    """Refuses inputs of a wrong type before it opens anything."""
    assert problem in (find_type_problem(value) or "")


def grow(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, len(PNG) // 2)


def rewrite(path: Path) -> None:
    path.write_bytes(PNG[::-1])


@pytest.mark.parametrize("change", [grow, shrink, rewrite])
def test_files_that_change_after_opening(
    change: Callable[[Path], None], tmp_path: Path, cleanup: ExitStack
) -> None:
    """A file that changes before it is sent never goes out whole."""
    path = write_file(tmp_path)
    # An old time stamp shows the change even within one tick of the file system's clock.
    os.utime(path, (1, 1))
    opened = open_input(path, "image", cleanup)
    change(path)
    sent = b""
    with pytest.raises(InvalidRequestError, match="changed|shorter"):
        for block in opened.blocks():
            sent += block
    assert len(sent) < opened.length


def test_files_that_are_replaced_after_opening(tmp_path: Path, cleanup: ExitStack) -> None:
    """Refuses a file that another file replaced, and mixes nothing of both."""
    path = write_file(tmp_path)
    os.utime(path, (1, 1))
    opened = open_input(path, "image", cleanup)
    os.replace(write_file(tmp_path, b"other", "other"), path)
    with pytest.raises(InvalidRequestError, match="changed"):
        opened.read()
    with path.open("rb") as stream:
        assert stream.read() == b"other"


@pytest.mark.parametrize("kind", ["path", "stream"])
def test_memory_is_flat(kind: str, tmp_path: Path) -> None:
    """Opens and sends an image of 64 MB in bounded blocks."""
    path = write_file(tmp_path)
    os.truncate(path, 64 * 1024 * 1024)  # zeros after the end of the image
    with ExitStack() as stack:
        value: Any = path if kind == "path" else stack.enter_context(path.open("r+b"))
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        lengths = [len(block) for block in open_input(value, "image", stack).blocks()]
        _, peak = tracemalloc.get_traced_memory()
    assert sum(lengths) == 64 * 1024 * 1024
    assert max(lengths) <= BLOCK_BYTES
    assert peak < 16 * 1024 * 1024


@given(st.one_of(st.binary(max_size=200), st.integers(0, len(PNG)).map(lambda end: PNG[:end])))
def test_fuzz(data: bytes) -> None:
    """Any bytes are an image or raise an InvalidRequestError that can be pickled."""
    with ExitStack() as stack:
        if is_complete_bytes(data):
            assert open_input(data, "image", stack).read() == data
            return
        with pytest.raises(InvalidRequestError) as caught:
            open_input(data, "image", stack)
    assert pickle.loads(pickle.dumps(caught.value)).fields == caught.value.fields


def test_short_reads(cleanup: ExitStack) -> None:
    """Loses nothing from a source that returns less than requested."""
    chance = random.Random(1)
    opened = ImageFile("image", len(PNG), lambda size, at: PNG[at : at + min(size, chance.randint(1, 1024))])
    assert opened.read() == PNG
