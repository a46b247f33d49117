"""The stores of the cache: the contract, and what only a folder can get wrong."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.cache.folder import FolderStore
from imgkit.cache.memory import MemoryStore
from imgkit.plugins.protocols import CacheStore, Failure, Hit, Lease
from imgkit.testing import CacheStoreContract
from imgkit.testing.cache_store import KEY, OTHER, PICTURES, busy, entry, hit, leased
from tests.support.processes import run_in_fork, start_process

_SPEC = importlib.util.spec_from_file_location("fsspec_store", "examples/stores/fsspec_store.py")
assert _SPEC is not None
assert _SPEC.loader is not None
EXAMPLE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(EXAMPLE)


class TestMemoryStore(CacheStoreContract):
    test_two_handles = None  # type: ignore[assignment]  # a store in memory is its own only handle

    def store(self, folder: Path) -> CacheStore:
        return MemoryStore()


class TestFolderStore(CacheStoreContract):
    def store(self, folder: Path) -> CacheStore:
        return FolderStore(folder)


class TestFsspecStore(CacheStoreContract):
    def store(self, folder: Path) -> CacheStore:
        return EXAMPLE.FsspecStore(f"memory:/{folder}")  # type: ignore[no-any-return]  # loaded by its path


def kept(folder: Path, key: str = KEY, **about: Any) -> FolderStore:
    store = FolderStore(folder, **about)
    store.commit(leased(store.try_lease(key)), entry())
    return store


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_everything_is_private(tmp_path: Path) -> None:
    kept(tmp_path / "cache")
    for path in [tmp_path / "cache", *(tmp_path / "cache").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_pictures_are_files_with_their_digest(tmp_path: Path) -> None:
    kept(tmp_path)
    names = sorted(path.suffix for path in files(tmp_path / "v1/entries"))
    assert names == [".bin", ".jpg", ".json"] or names == [".jpg", ".json", ".png"]
    assert list((tmp_path / "v1/leases").iterdir()) == []


def damage_picture(path: Path, how: str) -> None:
    content = path.read_bytes()
    match how:
        case "shorter":
            path.write_bytes(content[:-1])
        case "another byte":
            path.write_bytes(content[:-1] + b"?")
        case "gone":
            path.unlink()
        case "a link":
            path.rename(path.with_name("elsewhere"))
            path.symlink_to(path.with_name("elsewhere"))
        case "a FIFO":
            path.unlink()
            os.mkfifo(path)


@pytest.mark.parametrize("how", ["shorter", "another byte", "gone", "a link", "a FIFO"])
def test_a_damaged_picture_is_a_miss(tmp_path: Path, how: str) -> None:
    """And the next commit mends it."""
    store = kept(tmp_path)
    picture = next(path for path in files(tmp_path) if path.suffix == ".jpg")
    damage_picture(picture, how)
    lease = leased(store.try_lease(KEY))
    store.commit(lease, entry())
    assert hit(store.try_lease(KEY)).pictures == PICTURES
    assert len(files(picture.parent)) == 3


ENTRIES = ["", "{", "[]", "null", '{"created_at": "x"}', '{"created_at": 9e9, "pictures": 3, "facts": {}}',
           "[" * 9999,
           '{"created_at": 9e9, "pictures": [{"file": "../../x", "bytes": 1, "sha256": ""}], "facts": {}}',
           '{"created_at": 9e9, "pictures": [{"file": 3}], "facts": {}}',
           '{"created_at": 9e9, "pictures": [], "facts": []}',
           '{"created_at": NaN, "pictures": []}']  # fmt: skip


@pytest.mark.parametrize("text", ENTRIES)
def test_a_damaged_entry_is_a_miss(tmp_path: Path, text: str) -> None:
    store = kept(tmp_path)
    (path,) = (path for path in files(tmp_path) if path.name == "entry.json")
    path.write_text(text)
    store.index.rebuild()
    assert len(store.index.rows()) == ("sha256" in text)  # counted, but no hit
    leased(store.try_lease(KEY)).close()


def test_without_verifying_sizes_still_count(tmp_path: Path) -> None:
    store = kept(tmp_path, verify=False)
    picture = next(path for path in files(tmp_path) if path.suffix == ".jpg")
    damage_picture(picture, "another byte")
    hit(store.try_lease(KEY))
    damage_picture(picture, "shorter")
    leased(store.try_lease(KEY)).close()


def test_the_index_is_made_anew(tmp_path: Path) -> None:
    """Lost or broken, it is derived from the files."""
    store = kept(tmp_path)
    path = tmp_path / "v1/index.sqlite3"
    for content in (None, b"", b"no database at all" * 100):
        for name in ("", "-wal", "-shm"):
            Path(f"{path}{name}").unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        (row,) = store.index.rows()
        assert (row.key, row.pictures, row.size_bytes) == (KEY, 2, sum(map(len, PICTURES)))
        assert row.prompt.startswith("a fox")


def test_limits(tmp_path: Path) -> None:
    """What was not used for the longest time goes first; what is being made anew stays."""
    now = time.time()
    size = sum(map(len, PICTURES))
    store = FolderStore(tmp_path, max_bytes=2 * size, max_age_s=3600, clock=lambda: now)
    for number in range(3):
        key = f"{number}" * 64
        store.commit(leased(store.try_lease(key)), entry(created_at=now))
        now += 1
    assert [row.key[0] for row in store.index.rows()] == ["1", "2"]
    leased(store.try_lease("0" * 64)).close()
    now += 3601
    held = leased(store.try_lease("1" * 64))
    assert store.prune() == ["2" * 64]
    held.close()
    assert store.prune() == ["1" * 64]
    assert store.list_keys() == []


def test_the_newest_entry_stays(tmp_path: Path) -> None:
    """Whoever waits for it would else pay again for a picture that is larger than the limit."""
    store = kept(tmp_path, max_bytes=1)
    hit(store.try_lease(KEY))
    store.commit(leased(store.try_lease(OTHER)), entry())
    hit(store.try_lease(OTHER))
    assert store.list_keys() == [OTHER]


def test_use_is_noted_once_an_hour(tmp_path: Path) -> None:
    now = time.time()
    store = FolderStore(tmp_path, clock=lambda: now)
    store.commit(leased(store.try_lease(KEY)), entry(created_at=now))
    (before,) = store.index.rows()
    now += 60
    hit(store.try_lease(KEY))
    assert store.index.rows() == [before]
    now += 3600
    hit(store.try_lease(KEY))
    assert store.index.rows()[0].used_at == now


def test_failures_are_forgotten(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    first = leased(store.try_lease(KEY))
    store.abandon(first, Failure("ServerError", "x"))
    (path,) = (tmp_path / "v1/failures").iterdir()
    os.utime(path, (0, 0))
    second = leased(store.try_lease(KEY))
    store.abandon(second, Failure("ServerError", "y"))
    assert [one.name for one in (tmp_path / "v1/failures").iterdir()] == [f"{second.holder}.json"]


def test_folders_of_others(tmp_path: Path) -> None:
    """A folder that others may write to could hold pictures that nobody asked for."""
    tmp_path.chmod(0o777)
    with pytest.raises(imgkit.ConfigurationError, match="chmod 700"):
        FolderStore(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(imgkit.ConfigurationError, match="another folder"):
        FolderStore(tmp_path / "file" / "x")


def test_memory_limits() -> None:
    now = 1000.0
    store = MemoryStore(max_bytes=sum(map(len, PICTURES)), max_age_s=60, clock=lambda: now)
    for key in (KEY, OTHER):
        store.commit(leased(store.try_lease(key)), entry(created_at=now))
    assert len(store) == 1
    hit(store.try_lease(OTHER))
    now += 61
    leased(store.try_lease(OTHER)).close()
    store.clear()
    assert len(store) == 0


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_a_forked_child_holds_nothing(tmp_path: Path, kind: str) -> None:
    """Leases stay with the parent. In the child those in memory are free, since their holder is not there."""
    store = MemoryStore() if kind == "memory" else FolderStore(tmp_path)
    lease = leased(store.try_lease(KEY))
    assert run_in_fork(lambda: isinstance(store.try_lease(KEY), Lease) == (kind == "memory")) == 0
    busy(store.try_lease(KEY))
    store.commit(lease, entry())


WRITER = """
import itertools, os, sys, time
from imgkit.plugins.protocols import Lease
from imgkit.cache.folder import FolderStore
from imgkit.testing.cache_store import entry
store = FolderStore(sys.argv[1])
for _ in sys.stdin:
    parent = os.getpid()
    child = os.fork()
    if not child:
        break
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
else:
    sys.exit()
for number in itertools.takewhile(lambda number: os.getppid() == parent, itertools.count()):
    answer = store.try_lease(f"{number % 3:064d}", newer_than=time.time())
    if isinstance(answer, Lease):
        store.commit(answer, entry(pictures=(number.to_bytes(8, "big") * 4000, b"b" * number)))
"""


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """Whenever a process is killed, every hit is whole, its lease is free, and nothing has to be mended."""
    store = FolderStore(tmp_path)
    writers = start_process(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writers.stdin is not None
    assert writers.stdout is not None
    for round in range(12):
        writers.stdin.write(b"\n")
        writers.stdin.flush()
        writer = int(writers.stdout.readline())
        time.sleep(0.003 * (round + 1))
        os.kill(writer, signal.SIGKILL)
        assert writers.stdout.readline() == b"ended\n"
        for number in range(3):
            answer = store.try_lease(f"{number:064d}")
            if isinstance(answer, Hit):
                first, second = answer.entry.pictures
                assert first == len(second).to_bytes(8, "big") * 4000
            else:
                leased(answer).close()
    store.sweep()
    store.index.rebuild()
    assert len(store.index.rows()) == len(store.list_keys())


def test_no_pickle_and_no_code(tmp_path: Path) -> None:
    """What is in the folder is JSON, pictures, and one database."""
    kept(tmp_path)
    for path in files(tmp_path):
        if path.suffix == ".json":
            assert isinstance(json.loads(path.read_bytes()), dict)
        else:
            assert path.suffix in (".png", ".jpg", ".bin", ".sqlite3", ".sqlite3-wal", ".sqlite3-shm")
