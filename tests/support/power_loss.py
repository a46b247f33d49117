"""Power failures: a folder as a crash of the machine would leave it, at any moment of a test.

`watch` records each change of a folder. `PowerLoss.rebuild` makes the folder anew as it would be found after
a crash at that moment. A file keeps the content, and a folder the names, of its last flush.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

Survivors = Literal["flushed", "names", "zeros"]
SURVIVORS: tuple[Survivors, ...] = ("flushed", "names", "zeros")
"""A crash leaves only flushed names and contents; or all names, and files that were not flushed are empty or
full of zeros."""

_CHANGES = ("open", "mkdir", "rename", "replace", "unlink", "remove", "rmdir", "link", "fsync", "close")


class Moment(NamedTuple):
    """A moment at which the machine may crash.

    Attributes:
        action: name of the function of `os` that was called last.
        trees: content of the folder by relative path, None for a folder; for each kind of survivors.
    """

    action: str
    trees: dict[Survivors, dict[str, bytes | None]]


class PowerLoss:
    """The moments of a folder.

    Attributes:
        moments: in the order of time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._root = os.stat(folder).st_ino
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, tuple[int, bool]]] = {}
        self.moments: list[Moment] = []
        self.flush_all()

    def flush_all(self) -> None:
        """Take the folder as it is for flushed."""
        for path in (self._folder, *self._folder.rglob("*")):
            self.flush(path.lstat().st_ino, path)

    def flush(self, inode: int, path: Path | None = None) -> None:
        """Record the flush of a file or folder, wherever it is now."""
        path = path or self._find(inode)
        if path is None:
            return
        if path.is_dir():
            self._names[inode] = {
                entry.name: (entry.inode(), entry.is_dir(follow_symlinks=False)) for entry in os.scandir(path)
            }
        else:
            self._contents[inode] = path.read_bytes()

    def forget(self, inode: int) -> None:
        """Record that a new file or folder has this inode."""
        self._contents.pop(inode, None)
        self._names.pop(inode, None)

    def record(self, action: str) -> None:
        """Add a moment."""
        self.moments.append(Moment(action, {kind: dict(self._survive(kind)) for kind in SURVIVORS}))

    def rebuild(self, moment: Moment, survivors: Survivors, target: Path) -> Path:
        """Make `target` the folder after a crash at a moment, and return it."""
        target.mkdir(mode=0o700)
        for name, content in moment.trees[survivors].items():
            path = target / name
            if content is None:
                path.mkdir(mode=0o700)
            else:
                path.write_bytes(content)
        return target

    def _survive(self, kind: Survivors) -> Iterator[tuple[str, bytes | None]]:
        if kind == "flushed":
            yield from self._walk_flushed(self._root, "")
            return
        for path in sorted(self._folder.rglob("*")):
            name = str(path.relative_to(self._folder))
            if path.is_dir():
                yield name, None
            else:
                info = path.lstat()
                lost = b"" if kind == "names" else bytes(info.st_size)
                yield name, self._contents.get(info.st_ino, lost)

    def _walk_flushed(self, inode: int, prefix: str) -> Iterator[tuple[str, bytes | None]]:
        for name, (child, is_folder) in self._names.get(inode, {}).items():
            yield prefix + name, None if is_folder else self._contents.get(child, b"")
            if is_folder:
                yield from self._walk_flushed(child, f"{prefix}{name}/")

    def _find(self, inode: int) -> Path | None:
        paths = (self._folder, *self._folder.rglob("*"))
        return next((path for path in paths if path.lstat().st_ino == inode), None)


@contextmanager
def watch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PowerLoss]:
    """Record the moments of a folder in this block."""
    loss = PowerLoss(folder)
    busy = False

    def wrap(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            nonlocal busy
            if busy:
                return function(*args, **options)
            is_new = name == "mkdir" or (name == "open" and not os.path.lexists(args[0]))
            result = function(*args, **options)
            busy = True
            try:
                if name == "fsync":
                    loss.flush(os.fstat(args[0]).st_ino)
                elif is_new:
                    loss.forget(os.lstat(args[0]).st_ino)
                loss.record(name)
            finally:
                busy = False
            return result

        return call

    with monkeypatch.context() as patch:
        for name in _CHANGES:
            patch.setattr(os, name, wrap(name, getattr(os, name)))
        yield loss
