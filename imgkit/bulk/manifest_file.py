"""The file of a manifest: its check, and changes of rows that wait for it.

Changes that come together are written and flushed together.
"""

from __future__ import annotations

import sqlite3
from collections import deque

CHECKED_BYTES = 64 * 1024 * 1024
"""A larger manifest is not read through, which would take seconds."""


class Change:
    """A change of a row.

    Attributes:
        statement, values: the SQL.
        durable: flush it to the disk.
        error: why it could not be written, None for no reason.
    """

    __slots__ = ("durable", "error", "statement", "values")

    def __init__(self, statement: str, values: tuple[object, ...], durable: bool) -> None:
        self.statement, self.values, self.durable = statement, values, durable
        self.error: sqlite3.Error | None = None


class Changes:
    """The changes that wait. Any thread may `add`; the thread that has the file may `write`."""

    def __init__(self) -> None:
        self._waiting: deque[Change] = deque()
        self._is_durable: bool | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, statement: str, values: tuple[object, ...], *, durable: bool) -> Change:
        """Add a change, and return it. Quick."""
        change = Change(statement, values, durable)
        self._waiting.append(change)
        return change

    def set_durable(self, rows: sqlite3.Connection, durable: bool) -> None:
        """Let the next transaction be flushed to the disk, or not. Raises `sqlite3.Error`."""
        if durable != self._is_durable:
            rows.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._is_durable = durable

    def write(self, rows: sqlite3.Connection) -> None:
        """Write all changes that wait, in their order, as one transaction. Their errors stay with them.

        Args:
            rows: the file, outside of a transaction.
        """
        changes: list[Change] = []
        while self._waiting:
            changes.append(self._waiting.popleft())
        if not changes:
            return
        try:
            self.set_durable(rows, any(change.durable for change in changes))
            rows.execute("BEGIN IMMEDIATE")
            try:
                for change in changes:
                    rows.execute(change.statement, change.values)
                rows.execute("COMMIT")
            except BaseException:
                if rows.in_transaction:  # on a full disk SQLite has rolled it back
                    rows.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            for change in changes:
                change.error = error
        except BaseException:  # Ctrl-C: the next thread writes them
            self._waiting.extendleft(reversed(changes))
            raise


def check_manifest(rows: sqlite3.Connection, *, is_reader: bool) -> None:
    """Raise an error if a manifest is damaged.

    SQLite itself refuses a file that is cut short, and each damaged page once it is read.

    Args:
        rows: the open manifest.
        is_reader: do not read it through, whatever its size.

    Raises:
        sqlite3.Error: it is damaged.
    """
    pages, size = (rows.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    if not is_reader and pages * size <= CHECKED_BYTES:
        problem = rows.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(problem)
    for end in ("LIMIT 1", "ORDER BY n DESC LIMIT 1"):
        rows.execute(f"SELECT n, id, digest, state, request, info, leader FROM rows {end}").fetchone()  # noqa: S608
