"""Index cache entries by size and last use in SQLite; rebuild the index if it is lost or broken.

New rows go to a journal, a text file, and enter the database with its next use: opening a database would
cost each cache miss more than all its other work.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from imgkit.files import BINARY_FLAGS, NO_FOLLOW, read_regular_file, write_all
from imgkit.locks import is_same_file

T = TypeVar("T")

_PROMPT_CHARACTERS = 120
_LARGEST_INTEGER = (1 << 63) - 1
MAX_WAIT_S = 5.0
"""Maximum wait for another process that writes the index, in seconds."""

_MAX_JOURNAL_BYTES = 64 * 1024 * 1024
"""A larger journal is damaged: imgkit takes it into the database each minute."""

_JOURNAL_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | NO_FOLLOW | BINARY_FLAGS


@dataclass(frozen=True, slots=True)
class Row:
    """The index row of an entry.

    Attributes:
        key: Key of the entry.
        created_at, used_at: Unix times in seconds; the store updates `used_at` at most once an hour.
        size_bytes: Size of the entry's images.
        pictures: Number of images.
        operation, model, prompt: The request; each shortened to 120 characters.
    """

    key: str
    created_at: float
    used_at: float
    size_bytes: int
    pictures: int
    operation: str
    model: str
    prompt: str


def build_row(key: str, document: Mapping[str, Any], used_at: float) -> Row:
    """Return the index row of an entry.

    Args:
        key: Key of the entry.
        document: The line of JSON of the entry.
        used_at: Last use, as a Unix time in seconds.

    Raises:
        KeyError, TypeError, ValueError: The document is damaged.
    """
    facts = document["facts"]
    return Row(
        key=key,
        created_at=float(document["created_at"]),
        used_at=used_at,
        size_bytes=sum(int(item["bytes"]) for item in document["pictures"]),
        pictures=len(document["pictures"]),
        operation=_shorten(facts.get("operation")),
        model=_shorten(facts.get("model")),
        prompt=_shorten(facts.get("prompt")),
    )


def _shorten(value: object) -> str:
    """Return the start of a text without lone surrogates, which SQLite refuses."""
    return str(value or "")[:_PROMPT_CHARACTERS].encode("utf-8", "replace").decode("utf-8")


_COLUMNS = ", ".join(field.name for field in fields(Row))
_PLACEHOLDERS = ", ".join("?" for _ in fields(Row))
_INSERT = f"INSERT OR REPLACE INTO entries ({_COLUMNS}) VALUES ({_PLACEHOLDERS})"  # noqa: S608
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY, created_at REAL NOT NULL, used_at REAL NOT NULL, size_bytes INTEGER NOT NULL,
    pictures INTEGER NOT NULL, operation TEXT NOT NULL, model TEXT NOT NULL, prompt TEXT NOT NULL
) WITHOUT ROWID
"""


class Index:
    """An index in a SQLite file. Each use opens a connection of its own, so threads and forks share none.

    Args:
        path: Path of the SQLite file.
        scan: Yields the rows of all entries, for a new or broken index.
    """

    def __init__(self, path: Path, scan: Callable[[], Iterable[Row]]) -> None:
        self._path = path
        self._journal = path.with_name(f"{path.name}-new")
        self._scan_rows = scan

    def put(self, row: Row) -> None:
        """Add or replace a row.

        Raises:
            OSError: The journal cannot be written.
        """
        line = json.dumps(astuple(row)).encode("ascii") + b"\n"
        is_written = False
        while not is_written:
            descriptor = os.open(self._journal, _JOURNAL_FLAGS, 0o600)
            try:
                write_all(descriptor, line)
                # Another process may have taken the journal, and read it, before the line was in it.
                is_written = is_same_file(descriptor, self._journal)
            finally:
                os.close(descriptor)

    def mark_used(self, key: str, at: float) -> None:
        """Set the last use of an entry to `at`, a Unix time in seconds.

        Raises:
            OSError: The index cannot be used.
        """
        with self._open() as db:
            db.execute("UPDATE entries SET used_at = ? WHERE key = ?", (at, key))

    def delete(self, key: str) -> None:
        """Delete a row.

        Raises:
            OSError: The index cannot be used.
        """
        with self._open() as db:
            db.execute("DELETE FROM entries WHERE key = ?", (key,))

    def rows(self) -> list[Row]:
        """Return all rows, the least recently used entry first.

        Raises:
            OSError: The index cannot be used.
        """
        query = f"SELECT {_COLUMNS} FROM entries ORDER BY used_at, key"  # noqa: S608
        return self._query(query, lambda found: [_to_row(values) for values in found])

    def size_bytes(self) -> int:
        """Return the size of all entries in bytes.

        Raises:
            OSError: The index cannot be used.
        """
        return self.totals()[0]

    def totals(self) -> tuple[int, float]:
        """Return the size of all entries in bytes, and the Unix time of the oldest in seconds.

        Raises:
            OSError: The index cannot be used.
        """
        query = "SELECT coalesce(sum(size_bytes), 0), coalesce(min(created_at), 1e999) FROM entries"
        return self._query(query, lambda found: (int(found[0][0]), float(found[0][1])))

    def rebuild(self) -> None:
        """Replace all rows with the rows of a new scan.

        Raises:
            OSError: The index cannot be used.
        """
        with self._open() as db:
            db.execute("DELETE FROM entries")
            self._fill(db)

    def _query(self, query: str, convert: Callable[[list[tuple[Any, ...]]], T]) -> T:
        """Return the converted result of a query. A value of a wrong type is damage: the index is rebuilt."""
        for _ in range(2):
            with self._open() as db:
                found = db.execute(query).fetchall()
            with suppress(TypeError, ValueError, OverflowError):
                return convert(found)
            self._delete()
        raise OSError(f"The cache index {str(self._path)!r} cannot be used: it is damaged.")

    def _fill(self, db: sqlite3.Connection) -> None:
        db.executemany(_INSERT, (astuple(row) for row in self._scan_rows()))

    def _absorb_journal(self, db: sqlite3.Connection) -> None:
        """Move the rows of the journal into the database, and of journals that a crash left behind."""
        with suppress(FileNotFoundError):  # no new rows, or another process was faster
            self._journal.replace(self._journal.with_name(f"{self._journal.name}-{secrets.token_hex(6)}"))
        taken = sorted(self._journal.parent.glob(f"{self._journal.name}-*"))
        if taken:
            with db:
                for journal in taken:
                    with suppress(OSError):  # damaged, or another process was faster
                        text = read_regular_file(journal, _MAX_JOURNAL_BYTES, follow=False)
                        db.executemany(_INSERT, _parse_journal(text))
            for journal in taken:
                journal.unlink(missing_ok=True)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Connect for a single transaction; replace a file that is not a database."""
        try:
            try:
                connection = self._connect()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                self._delete()
                connection = self._connect()
            with closing(connection) as db:
                self._absorb_journal(db)
                with db:
                    yield db
        except sqlite3.Error as error:
            if type(error) is sqlite3.DatabaseError:
                self._delete()  # a crash of the machine has torn it; the next use builds it anew
            raise OSError(f"The cache index {str(self._path)!r} cannot be used: {error}.") from error

    def _connect(self) -> sqlite3.Connection:
        is_new = not self._path.exists()
        # SQLite would create the file with the default permissions.
        if is_new:
            os.close(os.open(self._path, os.O_CREAT | os.O_WRONLY, 0o600))
        db = sqlite3.connect(self._path, timeout=MAX_WAIT_S)
        try:
            # Entries are flushed, and the index is derived from them: it need not survive a power failure.
            db.execute("PRAGMA synchronous = OFF")
            if not _has_table(db):
                db.execute("PRAGMA journal_mode = WAL")
                with db:
                    db.execute("BEGIN IMMEDIATE")
                    if not _has_table(db):
                        db.execute(_SCHEMA)
                        self._fill(db)
        except BaseException:
            db.close()
            raise
        return db

    def _delete(self) -> None:
        for name in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + name).unlink(missing_ok=True)


def _parse_journal(text: bytes) -> Iterator[tuple[object, ...]]:
    """Yield the values of each row. A line that a crash has torn is lost until the index is rebuilt."""
    for line in text.splitlines():
        with suppress(ValueError, TypeError, OverflowError, RecursionError):
            yield astuple(_to_row(json.loads(line)))


def _to_row(values: Iterable[Any]) -> Row:
    """Return a row of stored values.

    Raises:
        TypeError, ValueError, OverflowError: The values are damaged.
    """
    key, created_at, used_at, size_bytes, pictures, *texts = values
    operation, model, prompt = map(_shorten, texts)
    row = Row(
        str(key), float(created_at), float(used_at), int(size_bytes), int(pictures), operation, model, prompt
    )
    if max(row.size_bytes, row.pictures) > _LARGEST_INTEGER:
        raise OverflowError("SQLite cannot hold the number.")
    return row


def _has_table(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries'").fetchone() is not None
