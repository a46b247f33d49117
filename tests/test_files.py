"""Atomic writes, and callbacks in forked children."""

from __future__ import annotations

import gc
import os
import stat
import tracemalloc
from pathlib import Path

import pytest

from imgkit import files
from imgkit.fork import ForkRegistry


def test_writes_a_new_file(tmp_path: Path) -> None:
    """Writes all chunks under the given mode, and leaves no temporary file."""
    path = tmp_path / "a.json"
    files.write_atomically(path, iter([b"{", b"}"]), mode=0o640)
    assert path.read_bytes() == b"{}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_replaces_a_file(tmp_path: Path) -> None:
    """Replaces the old file as a whole."""
    path = tmp_path / "a.json"
    for data in (b"old and longer", b"new"):
        files.write_atomically(path, data, sync=False)
    assert path.read_bytes() == b"new"


def test_a_failure_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the old file and removes the temporary file when the disk fails."""

    def fail(*args: object) -> None:
        raise OSError("disk full")

    path = tmp_path / "a.json"
    files.write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_keeps_an_existing_file(tmp_path: Path) -> None:
    """Raises FileExistsError with `os.link` as publisher, and removes the temporary file."""
    path = tmp_path / "a.json"
    files.write_atomically(path, b"old", publish=os.link)
    with pytest.raises(FileExistsError):
        files.write_atomically(path, b"new", publish=os.link)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_refuses_to_create_through_a_link(tmp_path: Path) -> None:
    """Creates no file behind a symbolic link."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    with pytest.raises(FileExistsError):
        files.create_empty(link, 0o600)
    assert not (tmp_path / "target").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_resets_living_objects_in_a_child() -> None:
    """Resets each living object in a forked child, and none in the parent."""

    class Counter:
        resets = 0

        def reset(self) -> None:
            self.resets += 1

    registry = ForkRegistry(Counter.reset)
    counters = [Counter(), Counter()]
    for counter in counters:
        registry.add(counter)
    del counter
    counters.pop()
    gc.collect()
    child = os.fork()
    if child == 0:
        os._exit(0 if counters[0].resets == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert counters[0].resets == 0


def test_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    """Reads a small file without a buffer of the largest allowed size, and all of one without a size."""
    path = tmp_path / "call.json"
    path.write_bytes(b"{}")
    tracemalloc.start()
    try:
        assert files.read_regular_file(path, 1 << 30) == b"{}"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    status = Path("/proc/self/status")
    if status.exists():  # its size is 0
        assert len(files.read_regular_file(status, 1 << 20)) > 100
        with pytest.raises(OSError, match="more than 100"):
            files.read_regular_file(status, 100)
