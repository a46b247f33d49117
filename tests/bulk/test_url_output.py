"""Runs whose images are at a URL, which may fail after an image is paid for."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

import imgkit
from imgkit.bulk import url_output
from imgkit.bulk.url_output import RUN_FILE, UrlOutput, open_output
from imgkit.bulk.url_store import UrlStore
from imgkit.cli.run import run as imgkit_command
from imgkit.testing.wire_server import serve_fake
from tests.bulk.test_bulk import OUTCOMES, BadPrompts, carry_out, open_api
from tests.bulk.test_engines import ThreadEngine
from tests.conftest import ServiceRunner

URL: Any = "memory://foxes"
SMALL = {"size": "32x32"}
SECRET = "s3cr3t/password+0"


@pytest.fixture
def memory() -> Any:
    """Return the file system behind memory://, empty."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    return fs


def read_url_list(fs: Any) -> list[dict[str, Any]]:
    """Return the lines of the list at the URL."""
    return [json.loads(line) for line in fs.cat_file("/foxes/metadata.jsonl").decode().splitlines()]


def test_a_run_at_a_url(flavor: ServiceRunner, memory: Any, tmp_path: Path) -> None:
    """Uploads each image under its digest, and leaves a whole list and no file; the next run adds to it."""
    options: dict[str, Any] = {"run_folder": tmp_path / "run", "defaults": SMALL}
    found, _ = carry_out(flavor, ["a fox", {"id": "test-1", "prompt": "a hen"}], URL, **options)
    entries = read_url_list(memory)
    assert [entry["id"] for entry in entries] == ["1", "test-1"]
    for entry in entries:
        digest = hashlib.sha256(memory.cat_file(f"/foxes/{entry['file_name']}")).hexdigest()
        assert digest == entry["sha256"]
        assert entry["file_name"] == f"images/{digest[:2]}/{digest}.png"
    assert {url for outcome in found for url in outcome.urls} == {
        f"memory://foxes/{entry['file_name']}" for entry in entries
    }
    assert [outcome.paths for outcome in found] == [(), ()]
    more = ["a fox", {"id": "test-1", "prompt": "a hen"}, "a fox"]
    _, run = carry_out(flavor, more, URL, **options)
    assert run.counts["done"] == 3
    assert len(read_url_list(memory)) == 3
    assert len(memory.find("/foxes/images")) == 2  # equal images are one object
    assert not list((tmp_path / "run" / "outgoing").iterdir())


def test_equal_rows_at_a_url(flavor: ServiceRunner, memory: Any, tmp_path: Path) -> None:
    """Equal rows have the same URL, and all are listed."""
    rows = ["a fox", "a fox"]
    found, _ = carry_out(flavor, rows, URL, run_folder=tmp_path, defaults=SMALL, dedupe=True)
    assert len({outcome.urls for outcome in found}) == len(found[0].urls) == 1
    assert [outcome.paths for outcome in found] == [(), ()]
    assert [entry["id"] for entry in read_url_list(memory)] == ["1", "2"]


def test_a_url_has_one_run(flavor: ServiceRunner, memory: Any, tmp_path: Path) -> None:
    """Refuses the URL of another run, another place for the images of a run, and a URL that is empty now."""
    options: dict[str, Any] = {"run_folder": tmp_path / "run", "defaults": SMALL}
    typo: Any = "memory://typo"
    carry_out(flavor, [], typo, **options)
    carry_out(flavor, ["a fox"], URL, **options)
    with pytest.raises(imgkit.ConfigurationError, match="the images of another run"):
        carry_out(flavor, ["a fox"], URL, run_folder=tmp_path / "other")
    other: Any
    for other in (tmp_path / "out", typo):
        with pytest.raises(imgkit.ConfigurationError, match="are at memory://foxes"):
            carry_out(flavor, ["a fox"], other, **options)
    memory.rm_file(f"/foxes/{RUN_FILE}")
    with pytest.raises(imgkit.ConfigurationError, match="move metadata.jsonl"):
        carry_out(flavor, ["a fox"], URL, run_folder=tmp_path / "other")
    memory.store.clear()
    with pytest.raises(imgkit.ConfigurationError, match="are no longer at memory://foxes"):
        carry_out(flavor, ["a fox"], URL, **options)
    carry_out(flavor, ["a fox"], tmp_path / "out", run_folder=tmp_path / "local", defaults=SMALL)
    with pytest.raises(imgkit.ConfigurationError, match="in a local folder"):
        carry_out(flavor, ["a fox"], URL, run_folder=tmp_path / "local")


@pytest.mark.parametrize("failure", [PermissionError, TimeoutError])
def test_a_url_that_fails(
    flavor: ServiceRunner,
    http_backend: str,
    failure: type[OSError],
    memory: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stops the sending, keeps the paid replies, and the next run uploads them without a request."""
    api, prompts = BadPrompts(OUTCOMES["refused"][0]), [f"good {number}" for number in range(6)]
    put = MemoryFileSystem.pipe_file
    monkeypatch.setenv("ACME_STORAGE_SECRET", SECRET)

    def fail(self: Any, path: str, value: bytes, **more: Any) -> None:
        if "/images/" in path:
            raise failure(f"denied for {SECRET}")
        put(self, path, value, **more)

    with serve_fake(api) as server:
        settings = {**open_api(server, tmp_path), "run_folder": tmp_path / "run", "most_in_flight": 2}
        with monkeypatch.context() as broken:
            broken.setattr(MemoryFileSystem, "pipe_file", fail)
            found, run = carry_out(flavor, prompts, URL, http_backend, **settings)
            assert {outcome.state for outcome in found} == {"sending"}
            assert isinstance(run.stopped, imgkit.SaveError)
            assert f"{failure.__name__}: denied for …" in str(run.stopped)
            assert api.posts == len(found) <= 3
            with pytest.raises(imgkit.SaveError, match="memory://foxes"):
                carry_out(flavor, prompts, URL, http_backend, **settings)
        _, run = carry_out(flavor, prompts, URL, http_backend, **settings)
        assert run.counts["done"] == api.posts == 6
    assert [entry["id"] for entry in read_url_list(memory)] == [str(n) for n in range(1, 7)]
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or SECRET.encode() not in file.read_bytes()


def test_a_url_that_rejects_everything(flavor: ServiceRunner, http_backend: str, memory: Any, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Finds a place that does not exist, or may not be written to, before anything is sent, in each run."""
    api = BadPrompts(OUTCOMES["refused"][0])
    with serve_fake(api) as server:
        settings = {**open_api(server, tmp_path), "run_folder": tmp_path / "run"}
        for prompts in (["a fox"], ["a fox", "a hen"]):
            with monkeypatch.context() as broken:
                broken.setattr(MemoryFileSystem, "pipe_file", reject)
                with pytest.raises(
                    imgkit.ConfigurationError, match=r"bucket does not exist.*Nothing was sent"
                ):
                    carry_out(flavor, prompts, URL, http_backend, **settings)
            carry_out(flavor, prompts, URL, http_backend, **settings)
        assert api.posts == 2


def test_uploads_that_hang_hold_up_no_reply(
    http_backend: str, memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Takes the replies of all requests in flight while a URL hangs: none of them becomes unknown."""
    prompts, most = [f"good {number}" for number in range(40)], 12
    put, uploads, all_hang = MemoryFileSystem.pipe_file, iter(range(100)), threading.Event()
    came: list[bool] = []

    def hang(self: Any, path: str, value: bytes, **more: Any) -> None:
        if "/images/" in path and (number := next(uploads)) >= 25:
            if number == 24 + most:
                all_hang.set()
            came.append(all_hang.wait(10))
        put(self, path, value, **more)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", hang)
    with serve_fake(BadPrompts(OUTCOMES["refused"][0])) as server:
        settings = {**open_api(server, tmp_path), "run_folder": tmp_path / "run", "most_in_flight": most}
        _, run = carry_out(ServiceRunner("async"), prompts, URL, http_backend, **settings)
    assert len(came) == 15
    assert all(came)
    assert run.counts["done"] == 40


def reject(*_: object, **more: object) -> None:
    """Fail as a missing bucket does."""
    raise FileNotFoundError("The specified bucket does not exist")


def test_checkpoints(
    flavor: ServiceRunner, memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes the list at checkpoints; after a kill, the next run completes it though it sends nothing."""
    options: dict[str, Any] = {"run_folder": tmp_path / "run", "defaults": SMALL, "most_in_flight": 1}
    monkeypatch.setattr(url_output, "LIST_SHARE", 0)
    monkeypatch.setattr(url_output, "CHECKPOINT_ROWS", 3)
    with monkeypatch.context() as killed:
        killed.setattr(UrlOutput, "finish", lambda self: None)
        carry_out(flavor, [f"fox {number}" for number in range(5)], URL, **options)
    assert [entry["id"] for entry in read_url_list(memory)] == ["1", "2", "3"]
    staging = tmp_path / "run" / "outgoing"
    for name in (f"{'0' * 64}-{'1' * 12}.png", f"list-{'2' * 12}.jsonl", ".imgkit-33.part", ".a.png.44.part"):
        (staging / name).touch()
    (staging / "images").mkdir()  # of a job that another command has collected
    found, _ = carry_out(flavor, [f"fox {number}" for number in range(5)], URL, **options)
    assert found == []
    assert [entry["id"] for entry in read_url_list(memory)] == ["1", "2", "3", "4", "5"]
    assert os.listdir(staging) == ["images"]
    before = memory.store["/foxes/metadata.jsonl"]
    carry_out(flavor, [f"fox {number}" for number in range(5)], URL, **options)
    assert memory.store["/foxes/metadata.jsonl"] is before  # nothing was left to list
    for damage in (b"", b"{}", None):
        if damage is None:
            memory.rm_file("/foxes/metadata.jsonl")
        else:
            memory.pipe_file("/foxes/metadata.jsonl", damage)
        carry_out(flavor, [f"fox {number}" for number in range(5)], URL, **options)
        assert len(read_url_list(memory)) == 5


def test_a_list_that_the_url_rejects(flavor: ServiceRunner, memory: Any, tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Keeps the images as done, says why the list is not there, and the next run writes it."""
    options: dict[str, Any] = {"run_folder": tmp_path / "run", "defaults": SMALL}
    put = MemoryFileSystem.pipe_file

    def fail(self: Any, path: str, value: bytes, **more: Any) -> None:
        if path.endswith(".jsonl"):
            raise OSError("busy")
        put(self, path, value, **more)

    with monkeypatch.context() as broken:
        broken.setattr(MemoryFileSystem, "pipe_file", fail)
        [outcome], run = carry_out(flavor, ["a fox"], URL, **options)
    assert outcome.state == "done"
    assert isinstance(run.stopped, imgkit.SaveError)
    assert "Cannot write metadata.jsonl at memory://foxes" in str(run.stopped)
    carry_out(flavor, ["a fox"], URL, **options)
    assert len(read_url_list(memory)) == 1


class ShelfFileSystem(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A file system whose files grow under their names, as those behind SFTP do."""

    protocol = "shelf"
    moves: list[str] = []

    def mv(self, path1: str, path2: str, **more: Any) -> None:
        self.moves.append(path2)
        super().mv(path1, path2, **more)


def test_files_that_grow_are_renamed(flavor: ServiceRunner, tmp_path: Path) -> None:
    """Where a half upload would be a file, uploads under a hidden name, and renames it at the end."""
    fsspec.register_implementation("shelf", ShelfFileSystem, clobber=True)
    url: Any = f"shelf://{tmp_path}/out"
    carry_out(flavor, ["a fox"], url, run_folder=tmp_path / "run", defaults=SMALL)
    [image] = (tmp_path / "out" / "images").rglob("*.*")
    assert hashlib.sha256(image.read_bytes()).hexdigest() == image.stem
    assert {str(image), f"{tmp_path}/out/metadata.jsonl"} <= set(ShelfFileSystem.moves)
    with pytest.raises(imgkit.SaveError, match=r"FileNotFoundError"):
        UrlStore(url).write("images/x.png", tmp_path / "missing")
    assert not list((tmp_path / "out").rglob("*.part"))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"s3://AKIAFOX0:{SECRET}@bucket/foxes", "holds a password or a key"),
        (f"s3://AKIAFOX0:0/{SECRET}@bucket/foxes", "holds a password or a key"),
        (f"sftp://me:{SECRET}@host:22/foxes", "holds a password or a key"),
        (f"https://host/foxes?sig={SECRET}", "has a query"),
        ("simplecache::s3://bucket/foxes", "chains file systems"),
        (f"zip://a.zip::sftp://me:{SECRET}@host/b", "chains file systems"),
        ("s3://", "names no bucket"),
        ("nosuch://bucket/foxes", "Protocol not known: nosuch"),
        (Path("s3://bucket/foxes"), "a URL that a Path has shortened"),
    ],
)
def test_urls_that_cannot_be_outputs(url: Any, words: str, tmp_path: Path) -> None:
    """Names the problem of a URL before anything is sent, without its secrets."""
    with imgkit.ImageService() as images:
        with pytest.raises(imgkit.ConfigurationError) as caught:
            list(images.bulk(["a fox"], folder=url, run_folder=tmp_path / "run"))
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "AKIA" not in str(caught.value)


def test_local_places(tmp_path: Path) -> None:
    """Takes file:// for a folder, a port for no password, and refuses a manifest at a URL."""
    assert open_output(f"file://{tmp_path}/out", None).folder == tmp_path / "out"
    assert open_output("sftp://me@host:22/a@b", tmp_path).url == "sftp://me@host:22/a@b"
    for run_folder in ("s3://bucket/run", Path("s3://bucket/run")):
        with pytest.raises(imgkit.ConfigurationError, match="The run folder is a URL"):
            open_output("out", run_folder)


@pytest.mark.parametrize(
    ("module", "url", "remedy"),
    [
        ("fsspec.core", URL, "pip install 'imgkit-service[fsspec]'"),
        ("s3fs", "s3://bucket/foxes", "pip install s3fs"),
    ],
)
def test_missing_packages(
    module: str, url: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names the package to install before anything is sent."""
    monkeypatch.setitem(sys.modules, module, None)
    with imgkit.ImageService() as images:
        with pytest.raises(imgkit.ConfigurationError, match="not installed") as caught:
            list(images.bulk(["a fox"], folder=url, run_folder=tmp_path / "run"))
    assert str(caught.value).endswith(remedy)


def test_the_command_at_a_url(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`imgkit bulk -o URL` prints URLs, and needs a local run folder."""
    monkeypatch.chdir(tmp_path)
    Path("p.csv").write_text("id,prompt,size\na,a fox,64x64\n")
    assert imgkit_command(["bulk", "p.csv", "-o", URL]) == 2
    assert "--run FOLDER" in capsys.readouterr().err
    assert imgkit_command(["bulk", "p.csv", "-o", URL, "--run", "run"]) == 0
    assert capsys.readouterr().out.startswith("memory://foxes/images/")
    assert memory.exists(f"/foxes/{RUN_FILE}")
    assert imgkit_command(["bulk", "status", "run"]) == 0
    assert "1  done" in capsys.readouterr().out


def test_other_engines_need_a_folder(flavor: ServiceRunner, memory: Any, tmp_path: Path) -> None:
    """Refuses a URL where workers would save images to their own disks, before anything is sent."""
    with pytest.raises(imgkit.ConfigurationError, match="cannot upload to memory://foxes"):
        carry_out(flavor, ["a fox"], URL, run_folder=tmp_path / "run", engine=ThreadEngine())
