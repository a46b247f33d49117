"""Saving images: complete files under free names, with sidecars."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import stat
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgkit.errors import InvalidRequestError, SaveError
from imgkit.images import sidecars
from imgkit.images.image import Image
from imgkit.images.saving import SavePlan, slug, with_extension
from tests.support.pictures import picture
from tests.support.processes import run_process

PNG, JPEG = picture("PNG"), picture("JPEG")
ABOUT = {"prompt": "An Otter, at work!", "operation": "create_image", "model": "gpt-image-2/x"}


def image(data: bytes = PNG, **values: Any) -> Image:
    return Image.from_bytes(data, **{"about": ABOUT, **values})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def problem(target: Any) -> str:
    """Return the reason why a target is rejected before anything is sent."""
    with pytest.raises(InvalidRequestError) as caught:
        SavePlan.from_target(target).check()
    assert list(caught.value.fields) == ["save_to"]
    return caught.value.fields["save_to"]


TARGETS = [
    ("a.png", PNG, "a.png"),
    ("a.PNG", PNG, "a.PNG"),
    ("a", PNG, "a.png"),
    ("a.png", JPEG, "a.jpg"),
    ("a.jpeg", JPEG, "a.jpeg"),
    ("a.v2", PNG, "a.v2.png"),
    ("a.png", b"<html>", "a.png.bin"),
    ("a.svg", picture("WEBP"), "a.webp"),
    ("", PNG, "an-otter-at-work.png"),
    ("{index}.{ext}", PNG, "1.png"),
    ("{index:03d}-{slug:.5}", PNG, None),
    ("{index:03d}-{slug}", PNG, "001-an-otter-at-work.png"),
    ("{slug:>20}.{ext}", PNG, "    an-otter-at-work.png"),
    ("{operation}-{model}-{digest}", PNG, f"create-image-gpt-image-2-x-{image().sha256[:12]}.png"),
    ("{{literal}}", PNG, "{literal}.png"),
    ("x{index}.jpg", PNG, "x1.png"),
]


@pytest.mark.parametrize(("target", "data", "expected"), TARGETS)
def test_names(target: str, data: bytes, expected: str | None, tmp_path: Path) -> None:
    """Takes the name from the target, the extension from the bytes, and writes the bytes unchanged."""
    if expected is None:
        assert "does not fit" in problem(f"{tmp_path}/{target}")
        return
    path = image(data).save(f"{tmp_path}/{target}")
    assert path == tmp_path / expected
    assert path.read_bytes() == data
    assert names(tmp_path) == [expected, f"{expected}.json"]


def test_several_images_of_a_call(tmp_path: Path) -> None:
    """Numbers a plain file name; a pattern numbers itself."""
    plain, pattern = (
        SavePlan.from_target(tmp_path / "a.png"),
        SavePlan.from_target(f"{tmp_path}/b{{index}}.{{ext}}"),
    )
    paths = [plan.write(image(index=index), 2) for plan in (plain, pattern) for index in (0, 1)]
    assert [path.name for path in paths] == ["a-1.png", "a-2.png", "b1.png", "b2.png"]


def test_folders(tmp_path: Path) -> None:
    """Creates folders for a slash and for a pattern, but not for a plain file."""
    assert image().save(f"{tmp_path}/new/deep/").parent == tmp_path / "new/deep"
    assert image().save(f"{tmp_path}/{{model}}/{{index}}").parent == tmp_path / "gpt-image-2-x"
    SavePlan.from_target(f"{tmp_path}/fresh/").check()
    assert (tmp_path / "fresh").is_dir()
    assert "Make the folder" in problem(tmp_path / "missing" / "a.png")
    with pytest.raises(SaveError, match="still in image.data"):
        image().save(tmp_path / "missing" / "a.png")
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("sidecar", [True, False])
def test_next_free_name(sidecar: bool, tmp_path: Path) -> None:
    """Skips a name taken by a file, a folder, a dead link or a foreign sidecar."""
    (tmp_path / "a.png").write_bytes(b"mine")
    (tmp_path / "a-2.png").mkdir()
    (tmp_path / "a-3.png").symlink_to("nowhere")
    (tmp_path / "a-4.png.json").write_text("{}")
    path = image().save(tmp_path / "a.png", sidecar=sidecar)
    assert path.name == ("a-5.png" if sidecar else "a-4.png")
    assert (tmp_path / "a.png").read_bytes() == b"mine"
    assert (tmp_path / "a-4.png.json").read_text() == "{}"


def test_overwrite(tmp_path: Path) -> None:
    """Replaces the image and its own sidecar and leaves nothing else behind."""
    image(index=3).save(tmp_path / "a.png")
    path = image(picture(size=(9, 9))).save(tmp_path / "a.png", overwrite=True)
    assert names(tmp_path) == ["a.png", "a.png.json"]
    assert json.loads((tmp_path / "a.png.json").read_bytes())["width_px"] == 9
    assert path.read_bytes() == picture(size=(9, 9))


def test_overwrite_replaces_a_link_and_not_its_target(tmp_path: Path) -> None:
    """Replaces a symbolic link and keeps its target."""
    (tmp_path / "target").write_bytes(b"precious")
    for name in ("a.png", "a.png.json"):
        (tmp_path / name).symlink_to("target")
    (tmp_path / "target").write_text(json.dumps({sidecars.SIDECAR_MARK: 1}))
    before = (tmp_path / "target").read_bytes()
    path = image().save(tmp_path / "a.png", overwrite=True)
    assert not path.is_symlink()
    assert path.read_bytes() == PNG
    assert (tmp_path / "target").read_bytes() == before


FOREIGN = [b"{}", b"[]", b"", b"not json", b'{"imgkit_sidecar"', b"[" * 100_000, b"\xff", None]


@pytest.mark.parametrize("content", FOREIGN)
def test_a_foreign_sidecar_is_never_replaced(content: bytes | None, tmp_path: Path) -> None:
    """Stops before writing if a foreign file takes the name of the sidecar."""
    (tmp_path / "a.png").write_bytes(b"mine")
    beside = tmp_path / "a.png.json"
    os.mkfifo(beside) if content is None else beside.write_bytes(content)
    given = image()
    with pytest.raises(SaveError, match="not a sidecar of imgkit") as caught:
        given.save(tmp_path / "a.png", overwrite=True)
    assert caught.value.images == (given,)
    assert (tmp_path / "a.png").read_bytes() == b"mine"
    assert given.save(tmp_path / "a.png", overwrite=True, sidecar=False).read_bytes() == PNG


def test_sidecar(tmp_path: Path) -> None:
    """Writes all facts as ASCII JSON, including text that no encoding can represent."""
    odd = "an otter \ud800 \x00\x1b[31m \u202e🦦"
    image(revised_prompt=odd, index=1).save(tmp_path / "a.png")
    raw = (tmp_path / "a.png.json").read_bytes()
    assert raw.isascii()
    assert json.loads(raw) == {
        "imgkit_sidecar": 1,
        **ABOUT,
        "index": 1,
        "revised_prompt": odd,
        "format": "png",
        "width_px": 8,
        "height_px": 8,
        "sha256": image().sha256,
    }


BAD_TARGETS = [
    ("{nope}.png", "does not fit"), ("{}.png", "does not fit"), ("{0}.png", "does not fit"),
    ("{slug.__class__}", "does not fit"), ("{slug[0]}", "does not fit"), ("{index.real}", "does not fit"),
    ("{slug!r}", "does not fit"), ("{slug:d}", "does not fit"), ("{index:s}", "does not fit"),
    ("{index:{slug}}", "does not fit"), ("{index:999999999}", "does not fit"), ("a{", "does not fit"),
    ("a}b", "does not fit"), ("a\0b.png", "NUL"), (5, "Pass a path"), (b"a.png", "Pass it as text"),
    (None, "Pass a path"), ("\ud800.png", "cannot be a path"), ("missing/..", "not a file name"),
    ("x" * 300, "File name too long"), ("x" * 245 + ".png", "File name too long"),
    ("x" * 245 + "{index}", "File name too long"), ("/proc/nowhere/a/", "Choose another place"),
    ("/proc/version/a.png", "Choose another folder"), ("/proc/version/a/", "Choose another folder"),
    ("/proc/a.png", "Cannot write in '/proc'"),
]  # fmt: skip


@pytest.mark.parametrize(("target", "expected"), BAD_TARGETS)
def test_targets_rejected_by_the_check(
    target: Any, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rejects an impossible target and leaves nothing behind."""
    monkeypatch.chdir(tmp_path)
    assert expected in problem(target)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("target", "remedy"),
    [
        (io.BytesIO(), "write the bytes yourself: file.write(image.data)"),
        (io.StringIO(), "write the bytes yourself"),
        (b"a.png", "os.fsdecode"),
        (None, "Pass a path as str or os.PathLike"),
        ("file/a.png", "'file' is a file or lies below one. Choose another folder. The image is still in"),
        ("no/a.png", "Make the folder 'no' first, or write 'no/a.{ext}' to have it made. The image is"),
        ("/proc/a.png", "Choose another place. The image is still in image.data"),
        ("x" * 300, "Choose a shorter name. The image is still in image.data"),
    ],
)
def test_each_wrong_target_of_save_has_its_remedy(
    target: Any, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names the likely mistake, and the argument of `Image.save`."""
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises((InvalidRequestError, SaveError)) as caught:
        image().save(target)
    assert remedy in str(caught.value)
    if isinstance(caught.value, InvalidRequestError):
        assert list(caught.value.fields) == ["target"]
    assert image().save("no/a.{ext}") == Path("no/a.png")


@pytest.mark.parametrize(
    "target", ["a.png", "out/", "", "{index}.{ext}", "o/{slug}/{index}", "x" * 230 + ".png"]
)
def test_accepted_targets_can_be_written(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes every accepted target with number, extension and sidecar."""
    monkeypatch.chdir(tmp_path)
    plan = SavePlan.from_target(target)
    plan.check()
    assert not list(tmp_path.rglob("*.part"))
    for index in range(12):
        assert plan.write(image(picture("WEBP"), index=index, about={"prompt": "x" * 999}), 12).is_file()


class DiskFull(OSError):
    strerror = "No space left on device"


FAILURES = [
    (["fsync"], 1, []),  # the image
    (["fsync"], 2, []),  # the sidecar
    (["fsync"], 3, ["a.png", "a.png.json"]),  # their folder: some file systems refuse, and nothing is lost
    (["link", "replace"], 1, []),
    (["link", "replace"], 2, []),
    (["link", "replace"], 3, ["a.png", "a.png.json"]),  # there is no third name to give
]


@pytest.mark.parametrize(("steps", "first", "left"), FAILURES)
def test_a_failing_disk(
    steps: list[str], first: int, left: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaves either the complete image with its sidecar or nothing, at every failing step."""
    calls: list[str] = []

    def failing(name: str, real: Any) -> Any:
        def step(*args: Any) -> Any:
            calls.append(name)
            if first <= len(calls) < first + len(steps):
                raise DiskFull
            return real(*args)

        return step

    for name in steps:
        monkeypatch.setattr(os, name, failing(name, getattr(os, name)))
    given = image()
    if left:
        given.save(tmp_path / "a.png")
    else:
        with pytest.raises(SaveError, match="No space left") as caught:
            given.save(tmp_path / "a.png")
        assert caught.value.images == (given,)
    assert names(tmp_path) == left


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves without replacing a file on a file system without hard links."""

    def refuse(*args: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert [image().save(tmp_path / "a.png").name for _ in range(3)] == ["a.png", "a-2.png", "a-3.png"]
    assert len(names(tmp_path)) == 6


LIMITED = """
import resource, sys
sys.dont_write_bytecode = True  # the limit would cut that short, too, for all who import it later
from imgkit.errors import SaveError
from imgkit.images.image import Image
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
image = Image.from_bytes(b"\\x89PNG" + bytes(100_000))
try:
    image.save(sys.argv[1])
except SaveError as error:
    assert error.images == (image,)
    print(error)
"""


def test_file_size_limit(tmp_path: Path) -> None:
    """Leaves no part file if the system cuts a write, and reports the image in memory."""
    run = run_process(
        [sys.executable, "-c", LIMITED, str(tmp_path / "a.png")], capture_output=True, text=True, check=True
    )
    assert "File too large" in run.stdout
    assert "still in image.data" in run.stdout
    assert names(tmp_path) == []


def save_many(folder: Path, byte: int, count: int) -> list[str]:
    return [image(PNG + bytes([byte]) * 50_000).save(folder / "a.png").name for _ in range(count)]


def assert_distinct_and_whole(folder: Path, saved: list[str]) -> None:
    assert len(set(saved)) == len(saved) == len(names(folder)) // 2
    for name in saved:
        data = (folder / name).read_bytes()
        assert len(data) == len(PNG) + 50_000
        assert len(set(data[len(PNG) :])) == 1
        assert json.loads((folder / f"{name}.json").read_bytes())["sha256"] == image(data).sha256


def test_threads_with_the_same_name(tmp_path: Path) -> None:
    """Eight threads get distinct, complete files with their own sidecars."""
    gate = threading.Barrier(8)

    def work(byte: int) -> list[str]:
        gate.wait()
        return save_many(tmp_path, byte, 3)

    with ThreadPoolExecutor(8) as pool:
        saved = [name for group in pool.map(work, range(8)) for name in group]
    assert_distinct_and_whole(tmp_path, saved)


def test_processes_with_the_same_name(tmp_path: Path) -> None:
    """Four processes get distinct, complete files with their own sidecars."""
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        groups = pool.starmap(save_many, [(tmp_path, byte, 5) for byte in range(4)], chunksize=1)
    assert_distinct_and_whole(tmp_path, [name for group in groups for name in group])


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o000])
def test_umask(mask: int, tmp_path: Path) -> None:
    """Creates files with the permissions of the user's umask."""
    old = os.umask(mask)
    try:
        path = image().save(tmp_path / "a.png")
    finally:
        os.umask(old)
    for file in (path, tmp_path / "a.png.json"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask


SLUGS = [
    ("An Otter, at work!", "an-otter-at-work"), ("../../etc/passwd", "etc-passwd"), ("C:\\x", "c-x"),
    ("~/.ssh/x", "ssh-x"), ("🦦🦦", "image"), ("", "image"), ("\0", "image"), ("\ud800", "image"),
    ("Überraschung ½", "uberraschung-12"), ("---", "image"), ("x" * 1_000_000, "x" * 48), ("漢字", "image"),
    ("a" * 47 + " b", "a" * 47), ("{slug}", "slug"), ("%s\n", "s"),
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "expected"), SLUGS)
def test_slug(prompt: str, expected: str, tmp_path: Path) -> None:
    """Makes a safe part of a file name that never leaves the folder."""
    assert slug(prompt) == expected
    path = image(about={"prompt": prompt}).save(f"{tmp_path}/")
    assert path == tmp_path / f"{expected}.png"


@given(st.text())
def test_any_slug_is_harmless(prompt: str) -> None:
    """Keeps only letters, digits and single inner dashes of any prompt."""
    assert all(part.isascii() and part.isalnum() and part == part.lower() for part in slug(prompt).split("-"))
    assert 1 <= len(slug(prompt)) <= 48


@given(st.text() | st.text("{}:.!0index[]/"))
def test_any_target_is_a_plan_or_rejected(target: str) -> None:
    """Returns a plan that can name files, or raises an InvalidRequestError."""
    try:
        plan = SavePlan.from_target(target)
    except InvalidRequestError:
        return
    assert plan.pattern.format(index=1, slug="s", ext="png", digest="0", operation="o", model="m")


def test_extensions() -> None:
    """Keeps a correct extension, replaces a wrong image extension, extends any other name."""
    assert with_extension(Path("a.JPEG"), "jpeg") == Path("a.JPEG")
    assert with_extension(Path("a.gif"), "jpeg") == Path("a.jpg")
    assert with_extension(Path("a.tar"), "jpeg") == Path("a.tar.jpg")
    assert with_extension(Path("a.bin"), None) == Path("a.bin")


def interrupt(work: Callable[[], object], line: int) -> bool:
    """Run `work` and raise KeyboardInterrupt at a line of the modules for files; return whether it came."""
    seen = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal seen
        if Path(frame.f_code.co_filename).name not in ("files.py", "saving.py", "part_files.py"):
            return None
        seen += event == "line"
        if event == "line" and seen == line:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return seen >= line


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of an open descriptor
def test_ctrl_c_leaves_no_hidden_file(tmp_path: Path) -> None:
    """Leaves no hidden file behind wherever Ctrl-C interrupts a check or a save."""

    def work() -> None:
        SavePlan.from_target(tmp_path / "a.png").check()
        image().save(tmp_path / "out" / "a.png", sidecar=False)

    (tmp_path / "out").mkdir()
    line = 1
    # A thread of its own: an exception of a trace function may stay the thread's current exception.
    with ThreadPoolExecutor(1) as thread:
        while thread.submit(interrupt, work, line).result():
            assert list(tmp_path.rglob(".*")) == [], line
            for path in (tmp_path / "out").iterdir():
                path.unlink()
            line += 1
    assert line > 50
