"""Pictures that are refused, and files that change, grow or never end."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import tempfile
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgkit.errors import InvalidRequestError
from imgkit.images import inputs
from imgkit.images.inputs import ImageFile, find_type_problem, open_input
from imgkit.images.sniff import is_complete_bytes
from imgkit.wire.messages import BLOCK_BYTES
from tests.support.openings import cleanup, refusal
from tests.support.pictures import picture

PNG = picture("PNG")

__all__ = ["cleanup"]  # a fixture, used by name


def file(tmp_path: Path, data: bytes = PNG, name: str = "in.png") -> Path:
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


def text_handle(folder: Path) -> Any:
    return file(folder, b"text").open()


def closed(stream: Any) -> Any:
    stream.close()
    return stream


class Raises:
    def read(self, size: int) -> bytes:
        raise RuntimeError("sk-abcdefghijk " + "x" * 5_000)


class GivesText:
    def read(self, size: int) -> str:
        return "text"


WRONG_STREAMS: list[tuple[Callable[[Path], Any], str]] = [
    (text_handle, "open as text"),
    (lambda folder: io.StringIO("text"), "open as text"),
    (lambda folder: tempfile.NamedTemporaryFile("w+", dir=folder), "open as text"),  # noqa: SIM115
    (lambda folder: closed(io.BytesIO(PNG)), "Is it still open?"),
    (lambda folder: closed(file(folder).open("rb")), "Is it still open?"),
    (lambda folder: (folder / "out.png").open("wb"), "UnsupportedOperation"),
    (lambda folder: io.BytesIO(), "is empty"),
    (lambda folder: io.BufferedReader(io.BytesIO()), "is empty"),
    (lambda folder: Raises(), "failed (RuntimeError: "),
    (lambda folder: GivesText(), "returns str, not bytes"),
    (lambda folder: io.FileIO("/dev/zero"), "not a regular file"),
]


@pytest.mark.parametrize(("make", "problem"), WRONG_STREAMS)
def test_wrong_file_objects(make: Any, problem: str, tmp_path: Path, cleanup: ExitStack) -> None:
    """Whatever is wrong with a file object is an invalid request, without keys in the message."""
    value = make(tmp_path)
    if hasattr(value, "close"):
        cleanup.callback(value.close)
    said = refusal(value, cleanup)
    assert problem in said
    assert "sk-abc" not in said


def test_position_is_restored_when_reading_fails(cleanup: ExitStack) -> None:
    """A stream that is refused midway stands where it stood."""

    class Odd(io.BytesIO):
        def read(self, size: int | None = -1) -> Any:
            return super().read(size).decode("latin-1")

    stream = Odd(b"12345" + PNG)
    stream.seek(5)
    refusal(stream, cleanup)
    assert stream.tell() == 5


def test_endless_stream(monkeypatch: pytest.MonkeyPatch, cleanup: ExitStack) -> None:
    """A stream that never ends is read up to the limit and no further."""
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
    (b"\0\0\2\0\1\0" + bytes(60), "is something else"),
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
def test_wrong_content(data: bytes, problem: str, kind: str, tmp_path: Path, cleanup: ExitStack) -> None:
    """The bytes decide, not the name; each problem is named, whatever way the bytes come."""
    path = file(tmp_path, data)
    value: Any = {"path": path, "bytes": data, "stream": io.BytesIO(data)}[kind]
    assert problem in refusal(value, cleanup)


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "fifo")
    return folder / "fifo"


WRONG_PATHS: list[tuple[Callable[[Path], Any], str]] = [
    (lambda folder: folder / "missing.png", "No such file"),
    (lambda folder: folder, "is a folder"),
    (fifo, "is not a regular file"),
    (lambda folder: "/dev/zero", "is not a regular file"),
    (lambda folder: "/proc/self/mem", "is empty"),
    (lambda folder: "a\0b.png", "embedded null"),
    (lambda folder: "\ud800.png", "surrogates not allowed"),
    (lambda folder: file(folder) / "below.png", "Not a directory"),
    (lambda folder: b"missing-as-bytes", "is text"),
    (lambda folder: "x" * 5_000_000, "File name too long"),
    (lambda folder: "data:image/png;base64", "without a comma"),
    (lambda folder: "data:image/png;base64,AAA*", "broken base64"),
    (lambda folder: "data:image/png;base64,QQ==QQ==", "broken base64"),
    (lambda folder: "data:;base64,é", "broken base64"),
    (lambda folder: "data:," + "\ud800", "cannot be read"),
    (lambda folder: "data:,", "is empty"),
    (lambda folder: "data:image/svg+xml,%3Csvg/%3E", "is svg"),
]


@pytest.mark.parametrize(("make", "problem"), WRONG_PATHS)
def test_wrong_paths(make: Any, problem: str, tmp_path: Path, cleanup: ExitStack) -> None:
    """A path or a data: URL that leads to no picture is refused at once; none of them blocks."""
    assert problem in refusal(make(tmp_path), cleanup)


def test_unreadable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cleanup: ExitStack) -> None:
    """A file without permission, and one whose disk fails, are refused with the system's reason."""
    path = file(tmp_path)

    def fail(*args: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        assert "Cannot open" in refusal(path, cleanup)
    monkeypatch.setattr(os, "pread", fail)
    assert "Cannot read" in refusal(path, cleanup)


TYPES = [
    ("http://example.com/a.png", "does not fetch"), ("HTTPS://example.com/a.png", "does not fetch"),
    ("", "empty path"), (5, "type int"), (None, "type NoneType"), ({}, "type dict"), ([PNG], "type list"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "problem"), TYPES)
def test_wrong_types(value: Any, problem: str) -> None:
    """What can be no picture is known by its type, before anything is opened."""
    assert problem in (find_type_problem(value) or "")


def grow(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, len(PNG) // 2)


def rewrite(path: Path) -> None:
    path.write_bytes(PNG[::-1])


@pytest.mark.parametrize("change", [grow, shrink, rewrite])
def test_changed_after_opening(change: Callable[[Path], None], tmp_path: Path, cleanup: ExitStack) -> None:
    """A file that changes before it is sent never goes out whole."""
    path = file(tmp_path)
    os.utime(path, (1, 1))  # so that the change shows even within one tick of the file system's clock
    opened = open_input(path, "image", cleanup)
    change(path)
    sent = b""
    with pytest.raises(InvalidRequestError, match="changed|shorter"):
        for block in opened.blocks():
            sent += block
    assert len(sent) < opened.length


def test_replaced_after_opening(tmp_path: Path, cleanup: ExitStack) -> None:
    """Another file under the same name is never mixed in: the old one is refused, as its links changed."""
    path = file(tmp_path)
    os.utime(path, (1, 1))
    opened = open_input(path, "image", cleanup)
    os.replace(file(tmp_path, b"other", "other"), path)
    with pytest.raises(InvalidRequestError, match="changed"):
        opened.read()
    with path.open("rb") as stream:
        assert stream.read() == b"other"


@pytest.mark.parametrize("kind", ["path", "stream"])
def test_memory_is_flat(kind: str, tmp_path: Path) -> None:
    """A picture of 64 MB is opened and sent in bounded blocks, never held whole."""
    path = file(tmp_path)
    os.truncate(path, 64 * 1024 * 1024)  # zeros behind the end of the picture
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
    """Bytes are a whole picture or an invalid request, which can be pickled; nothing else happens."""
    with ExitStack() as stack:
        if is_complete_bytes(data):
            assert open_input(data, "image", stack).read() == data
            return
        with pytest.raises(InvalidRequestError) as caught:
            open_input(data, "image", stack)
    assert pickle.loads(pickle.dumps(caught.value)).fields == caught.value.fields


def test_short_reads(cleanup: ExitStack) -> None:
    """A source that gives less than was asked for loses nothing."""
    chance = random.Random(1)
    opened = ImageFile("image", len(PNG), lambda size, at: PNG[at : at + min(size, chance.randint(1, 1024))])
    assert opened.read() == PNG
