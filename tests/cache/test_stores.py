"""The cache stores pass the contract; the folder store survives damage, limits and killed processes."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.cache.folder import FolderStore
from imgkit.cache.memory import MemoryStore
from imgkit.locks import FileLock
from imgkit.plugins.protocols import CacheStore, Failure, Hit, Lease
from imgkit.testing import CacheStoreContract
from imgkit.testing.cache_store_contract import (
    IMAGES,
    KEY,
    OTHER_KEY,
    expect_busy,
    expect_hit,
    expect_lease,
    make_entry,
)
from tests.support.processes import TIMEOUT_S, start_process

_SPEC = importlib.util.spec_from_file_location("fsspec_store", "examples/stores/fsspec_store.py")
assert _SPEC is not None
assert _SPEC.loader is not None
EXAMPLE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(EXAMPLE)


class TestMemoryStore(CacheStoreContract):
    # A memory store shares nothing with other stores.
    test_stores_on_same_folder_share_state = None  # type: ignore[assignment]

    def store(self, folder: Path) -> CacheStore:
        return MemoryStore()


class TestFolderStore(CacheStoreContract):
    def store(self, folder: Path) -> CacheStore:
        return FolderStore(folder)


class TestFsspecStore(CacheStoreContract):
    def store(self, folder: Path) -> CacheStore:
        return EXAMPLE.FsspecStore(f"memory:/{folder}")  # type: ignore[no-any-return]  # loaded by its path


def fill_store(folder: Path, key: str = KEY, **options: Any) -> FolderStore:
    """Return a folder store with an entry."""
    store = FolderStore(folder, **options)
    store.commit(expect_lease(store.try_lease(key)), make_entry())
    return store


def list_files(folder: Path) -> list[Path]:
    """Return all files below a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]


def test_files_are_private(tmp_path: Path) -> None:
    """Gives only the owner access to folders and files."""
    fill_store(tmp_path / "cache")
    for path in [tmp_path / "cache", *(tmp_path / "cache").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def find_entry(folder: Path) -> Path:
    """Return the file of the only entry of a store."""
    (path,) = list_files(folder / "v2/entries")
    return path


def test_entry_is_a_line_of_json_and_the_images(tmp_path: Path) -> None:
    """Stores an entry as one file, and leaves no lease file."""
    fill_store(tmp_path)
    line, rest = find_entry(tmp_path).read_bytes().split(b"\n", 1)
    assert [item["bytes"] for item in json.loads(line)["pictures"]] == [len(data) for data in IMAGES]
    assert rest == b"".join(IMAGES)
    assert list((tmp_path / "v2/leases").iterdir()) == []


def damage_entry(path: Path, damage: str) -> None:
    """Damage the file of an entry in a given way."""
    content = path.read_bytes()
    match damage:
        case "shorter":
            path.write_bytes(content[:-1])
        case "another byte":
            path.write_bytes(content[:-1] + b"?")
        case "longer":
            path.write_bytes(content + b"?")
        case "huge":
            os.truncate(path, 1 << 40)  # a sparse file: reading it would end the process
        case "gone":
            path.unlink()
        case "a link":
            path.rename(path.with_name("elsewhere"))
            path.symlink_to(path.with_name("elsewhere"))
        case "a FIFO":
            path.unlink()
            os.mkfifo(path)


@pytest.mark.parametrize("damage", ["shorter", "another byte", "longer", "huge", "gone", "a link", "a FIFO"])
def test_damaged_image_is_a_miss(tmp_path: Path, damage: str) -> None:
    """Treats a damaged entry as a miss; the next commit repairs it."""
    store = fill_store(tmp_path)
    entry = find_entry(tmp_path)
    damage_entry(entry, damage)
    lease = expect_lease(store.try_lease(KEY))
    store.commit(lease, make_entry())
    assert expect_hit(store.try_lease(KEY)).pictures == IMAGES
    assert entry.is_file()
    assert not entry.is_symlink()


ENTRIES = ["", "{", "[]", "null", '{"created_at": "x"}', '{"created_at": 9e9, "pictures": 3, "facts": {}}',
           "[" * 9999,
           '{"created_at": 9e9, "pictures": [{"bytes": 1, "sha256": "ab"}], "facts": {}}\nx',
           '{"created_at": 9e9, "pictures": [{"bytes": 1e30, "sha256": ""}], "facts": {}}\nx',
           '{"created_at": 9e9, "pictures": [{"bytes": -9}, {"bytes": 10}], "facts": {}}\nx',
           '{"created_at": 9e9, "pictures": [{"file": 3}], "facts": {}}',
           '{"created_at": 9e9, "pictures": [], "facts": []}',
           '{"created_at": NaN, "pictures": []}']  # fmt: skip


@pytest.mark.parametrize("text", ENTRIES)
def test_damaged_entry_is_a_miss(tmp_path: Path, text: str) -> None:
    """Treats a damaged entry as a miss."""
    store = fill_store(tmp_path)
    find_entry(tmp_path).write_text(text)
    store.index.rebuild()
    assert len(store.index.rows()) == ('"ab"' in text)  # counted, but no hit
    expect_lease(store.try_lease(KEY)).close()


def test_verify_off_still_compares_sizes(tmp_path: Path) -> None:
    """Compares only the sizes of images if `verify` is False."""
    store = fill_store(tmp_path, verify=False)
    damage_entry(find_entry(tmp_path), "another byte")
    expect_hit(store.try_lease(KEY))
    damage_entry(find_entry(tmp_path), "shorter")
    expect_lease(store.try_lease(KEY)).close()


def test_rebuilds_lost_or_broken_index(tmp_path: Path) -> None:
    """Rebuilds a lost or broken index from the files."""
    store = fill_store(tmp_path)
    path = tmp_path / "v2/index.sqlite3"
    for content in (None, b"", b"no database at all" * 100):
        for name in ("", "-wal", "-shm"):
            Path(f"{path}{name}").unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        (row,) = store.index.rows()
        assert (row.key, row.pictures, row.size_bytes) == (KEY, 2, sum(map(len, IMAGES)))
        assert row.prompt.startswith("a fox")


def test_an_index_that_cannot_be_opened(tmp_path: Path) -> None:
    """Reports an index that is no file as such, and deletes no folder in its place."""
    store = FolderStore(tmp_path)
    (tmp_path / "v2/index.sqlite3").mkdir()
    for use in (store.index.rows, store.index.rebuild):
        with pytest.raises(OSError, match="cannot be used"):
            use()
    assert (tmp_path / "v2/index.sqlite3").is_dir()


def test_two_processes_make_a_folder_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores an entry whose folder another process makes at the same moment."""
    store = FolderStore(tmp_path)
    lease = expect_lease(store.try_lease(KEY))
    (tmp_path / "v2/entries" / KEY[:2]).mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", lambda path, **options: False)
        store.commit(lease, make_entry())
    expect_hit(store.try_lease(KEY))


def test_prunes_by_size_and_age(tmp_path: Path) -> None:
    """Removes the least recently used entries first, and no leased entry."""
    now = time.time()
    size = sum(map(len, IMAGES))
    store = FolderStore(tmp_path, max_bytes=2 * size, max_age_s=3600, clock=lambda: now)
    for number in range(3):
        key = f"{number}" * 64
        store.commit(expect_lease(store.try_lease(key)), make_entry(created_at=now))
        now += 1
    assert [row.key[0] for row in store.index.rows()] == ["1", "2"]
    expect_lease(store.try_lease("0" * 64)).close()
    now += 3601
    lease = expect_lease(store.try_lease("1" * 64))
    assert store.prune() == ["2" * 64]
    lease.close()
    assert store.prune() == ["1" * 64]
    assert store.list_keys() == []


def test_keeps_newest_entry_beyond_size_limit(tmp_path: Path) -> None:
    """Keeps the newest entry beyond the limit, for the callers that wait for it."""
    store = fill_store(tmp_path, max_bytes=1)
    expect_hit(store.try_lease(KEY))
    store.commit(expect_lease(store.try_lease(OTHER_KEY)), make_entry())
    expect_hit(store.try_lease(OTHER_KEY))
    assert store.list_keys() == [OTHER_KEY]


def test_updates_last_use_once_an_hour(tmp_path: Path) -> None:
    """Updates the last use at most once an hour."""
    now = time.time()
    store = FolderStore(tmp_path, clock=lambda: now)
    store.commit(expect_lease(store.try_lease(KEY)), make_entry(created_at=now))
    (before,) = store.index.rows()
    now += 60
    expect_hit(store.try_lease(KEY))
    assert store.index.rows() == [before]
    now += 3600
    expect_hit(store.try_lease(KEY))
    assert store.index.rows()[0].used_at == now


def test_deletes_old_failures(tmp_path: Path) -> None:
    """Deletes failures that are older than an hour, with the first failure of a process."""
    store = FolderStore(tmp_path)
    first = expect_lease(store.try_lease(KEY))
    store.abandon(first, Failure("ServerError", "x"))
    (path,) = (tmp_path / "v2/failures").iterdir()
    os.utime(path, (0, 0))
    store = FolderStore(tmp_path)
    second = expect_lease(store.try_lease(KEY))
    store.abandon(second, Failure("ServerError", "y"))
    assert [one.name for one in (tmp_path / "v2/failures").iterdir()] == [f"{second.holder}.json"]


def test_a_burst_of_failures_walks_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists the kept failures once a minute, so that 300 failures do not cost 300 walks."""
    store, walks = FolderStore(tmp_path), []
    list_folder = os.listdir

    def count(path: str) -> list[str]:
        walks.append(path)
        return list_folder(path)

    monkeypatch.setattr(os, "listdir", count)
    for number in range(5):
        store.abandon(expect_lease(store.try_lease(f"{number}" * 64)), Failure("ServerError", "x"))
    assert len(walks) == 1


def test_rejects_unsafe_folders(tmp_path: Path) -> None:
    """Rejects a folder that other users can write to, or that cannot be created."""
    tmp_path.chmod(0o777)
    with pytest.raises(imgkit.ConfigurationError, match="chmod 700"):
        FolderStore(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(imgkit.ConfigurationError, match="another folder"):
        FolderStore(tmp_path / "file" / "x")


def test_memory_store_limits() -> None:
    """Applies size and age limits, and clears the memory store."""
    now = 1000.0
    store = MemoryStore(max_bytes=sum(map(len, IMAGES)), max_age_s=60, clock=lambda: now)
    for key in (KEY, OTHER_KEY):
        store.commit(expect_lease(store.try_lease(key)), make_entry(created_at=now))
    assert len(store) == 1
    expect_hit(store.try_lease(OTHER_KEY))
    wide = MemoryStore(max_bytes=2 * sum(map(len, IMAGES)))
    for key in (KEY, OTHER_KEY):
        wide.commit(expect_lease(wide.try_lease(key)), make_entry())
    assert len(wide) == 2  # the limit itself is allowed
    now += 61
    expect_lease(store.try_lease(OTHER_KEY)).close()
    store.clear()
    assert len(store) == 0


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_forked_child_holds_no_lease(tmp_path: Path, kind: str) -> None:
    """Leaves leases to the parent; a child's memory store starts without leases."""
    store = MemoryStore() if kind == "memory" else FolderStore(tmp_path)
    lease = expect_lease(store.try_lease(KEY))
    child = os.fork()
    if child == 0:
        exit_code = 2
        try:
            result = store.try_lease(KEY)
            exit_code = 0 if isinstance(result, Lease) == (kind == "memory") else 1
        finally:
            os._exit(exit_code)
    assert os.waitpid(child, 0)[1] == 0
    expect_busy(store.try_lease(KEY))
    store.commit(lease, make_entry())


WRITER = """
import itertools, os, sys, time
from imgkit.plugins.protocols import Lease
from imgkit.cache.folder import FolderStore
from imgkit.testing.cache_store_contract import make_entry
store = FolderStore(sys.argv[1])
print("ready", flush=True)
for number in itertools.count():
    result = store.try_lease(f"{number % 3:064d}", newer_than=time.time())
    if isinstance(result, Lease):
        store.commit(result, make_entry(pictures=(number.to_bytes(8, "big") * 4000, b"b" * number)))
"""


def test_killed_writer_leaves_whole_entries(tmp_path: Path) -> None:
    """Leaves whole entries and free leases when the writer is killed."""
    store = FolderStore(tmp_path)
    for attempt in range(12):
        writer = start_process(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(0.003 * (attempt + 1))
        writer.send_signal(signal.SIGKILL)
        writer.wait(TIMEOUT_S)
        for number in range(3):
            result = store.try_lease(f"{number:064d}")
            if isinstance(result, Hit):
                first, second = result.entry.pictures
                assert first == len(second).to_bytes(8, "big") * 4000
            else:
                expect_lease(result).close()
    store.sweep()
    store.index.rebuild()
    assert len(store.index.rows()) == len(store.list_keys())


def test_a_sweep_takes_only_the_files_of_dead_writers(tmp_path: Path) -> None:
    """Counts and removes the partial entry of a dead process, not that of a running lease."""
    store = fill_store(tmp_path)
    lease = expect_lease(store.try_lease(OTHER_KEY))
    dead, running = (tmp_path / "v2/entries" / key[:2] / f".{key}.0123.part" for key in (KEY, OTHER_KEY))
    running.parent.mkdir()
    for path in (dead, running):
        path.write_bytes(b"x")
    leases = sorted((tmp_path / "v2/leases").iterdir())
    assert [store.sweep(), store.sweep()] == [1, 0]
    assert list((tmp_path / "v2/entries").glob("??/.*")) == [running]
    assert sorted((tmp_path / "v2/leases").iterdir()) == leases
    lease.close()


def test_a_failed_look_leaves_no_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frees the key of a lease that cannot be written, even while its error is alive."""
    store, other = FolderStore(tmp_path), FolderStore(tmp_path)

    def fail(lock: FileLock, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(FileLock, "write", fail)
        with pytest.raises(OSError, match="No space left") as caught:
            store.try_lease(KEY)
    assert list((tmp_path / "v2/leases").iterdir()) == []
    lease = expect_lease(other.try_lease(KEY))
    assert isinstance(caught.value, OSError)
    lease.close()


def test_folder_holds_only_entries_and_index(tmp_path: Path) -> None:
    """Writes only entries, a journal and a single database."""
    store = fill_store(tmp_path)
    assert sorted(path.name for path in list_files(tmp_path)) == [f"{KEY}.entry", "index.sqlite3"]
    store.commit(expect_lease(store.try_lease(OTHER_KEY)), make_entry())
    entries = sorted([f"{KEY}.entry", f"{OTHER_KEY}.entry"])
    new = [*entries, "index.sqlite3", "index.sqlite3-new"]
    assert sorted(path.name for path in list_files(tmp_path)) == sorted(new)


def test_the_journal_loses_no_row(tmp_path: Path) -> None:
    """Lists every entry of stores that commit while others read the index."""
    stores = [FolderStore(tmp_path) for _ in range(4)]
    keys = [f"{number:064x}" for number in range(120)]

    def commit(number: int) -> None:
        store = stores[number % 3]
        store.commit(expect_lease(store.try_lease(keys[number])), make_entry())
        if number % 5 == 0:
            stores[3].index.rows()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(commit, range(len(keys))))
    assert sorted(row.key for row in stores[3].index.rows()) == keys


def test_a_journal_of_a_killed_process(tmp_path: Path) -> None:
    """Reads a journal that a killed process had taken; a torn line is left out."""
    store = fill_store(tmp_path)
    store.commit(expect_lease(store.try_lease(OTHER_KEY)), make_entry())
    journal = tmp_path / "v2/index.sqlite3-new"
    text = journal.read_bytes()
    journal.rename(f"{journal}-0123456789ab")
    third = "c3" * 32
    journal.write_bytes(text.replace(OTHER_KEY.encode(), third.encode()) + b'["cut", 1.0, "nan')
    assert sorted(row.key for row in store.index.rows()) == sorted([KEY, OTHER_KEY, third])
    assert [path.name for path in journal.parent.glob("*-new*")] == []
