"""The index of a folder of entries: what there is, how large, when it was used. Made anew if it is lost."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path

WAIT_S = 5.0
"""How long a process waits for another one that is writing the index."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the index knows of an entry.

    Attributes:
        key: of the entry.
        created_at, used_at: Unix time in seconds; the second is noted at most once an hour.
        size_bytes: of its files.
        pictures: how many.
        operation, model, prompt: of the request, the prompt shortened.
    """

    key: str
    created_at: float
    used_at: float
    size_bytes: int
    pictures: int
    operation: str
    model: str
    prompt: str


_NAMES = ", ".join(field.name for field in fields(Row))
_MARKS = ", ".join("?" for _ in fields(Row))
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY, created_at REAL NOT NULL, used_at REAL NOT NULL, size_bytes INTEGER NOT NULL,
    pictures INTEGER NOT NULL, operation TEXT NOT NULL, model TEXT NOT NULL, prompt TEXT NOT NULL
) WITHOUT ROWID
"""


class Index:
    """A SQLite file. Connections live for one use, so that neither threads nor forks share any.

    Args:
        path: of the file.
        scan: yields the rows of what is really there, for an index that is new or broken.
    """

    def __init__(self, path: Path, scan: Callable[[], Iterable[Row]]) -> None:
        self._path = path
        self._scan = scan

    def put(self, row: Row) -> None:
        """Add or replace a row. Raises OSError."""
        with self._open() as db:
            db.execute(f"INSERT OR REPLACE INTO entries ({_NAMES}) VALUES ({_MARKS})", astuple(row))  # noqa: S608

    def used(self, key: str, at: float) -> None:
        """Note that an entry was used. Raises OSError."""
        with self._open() as db:
            db.execute("UPDATE entries SET used_at = ? WHERE key = ?", (at, key))

    def drop(self, key: str) -> None:
        """Remove a row. Raises OSError."""
        with self._open() as db:
            db.execute("DELETE FROM entries WHERE key = ?", (key,))

    def rows(self) -> list[Row]:
        """Return all rows, what was not used for the longest time first. Raises OSError."""
        with self._open() as db:
            found = db.execute(f"SELECT {_NAMES} FROM entries ORDER BY used_at, key")  # noqa: S608
            return [Row(*values) for values in found]

    def size_bytes(self) -> int:
        """Return the size of all entries. Raises OSError."""
        with self._open() as db:
            (total,) = db.execute("SELECT coalesce(sum(size_bytes), 0) FROM entries").fetchone()
            return int(total)

    def rebuild(self) -> None:
        """Make the index anew from what is there. Raises OSError."""
        with self._open() as db:
            db.execute("DELETE FROM entries")
            self._fill(db)

    def _fill(self, db: sqlite3.Connection) -> None:
        db.executemany(
            f"INSERT OR REPLACE INTO entries ({_NAMES}) VALUES ({_MARKS})",  # noqa: S608
            (astuple(row) for row in self._scan()),
        )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Connect for one transaction; a file that is no database is replaced."""
        try:
            try:
                connection = self._connect()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                for name in ("", "-wal", "-shm"):
                    self._path.with_name(self._path.name + name).unlink(missing_ok=True)
                connection = self._connect()
            with closing(connection) as db, db:
                yield db
        except sqlite3.Error as error:
            raise OSError(f"the index {str(self._path)!r} cannot be used: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        new = not self._path.exists()
        if new:  # before SQLite does, to be private from the first moment on
            os.close(os.open(self._path, os.O_CREAT | os.O_WRONLY, 0o600))
        db = sqlite3.connect(self._path, timeout=WAIT_S)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            with db:
                db.execute("BEGIN IMMEDIATE")
                known = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'entries'").fetchone()[0]
                if not known:
                    db.execute(_SCHEMA)
                    self._fill(db)
        except BaseException:
            db.close()
            raise
        return db
