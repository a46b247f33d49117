"""What a budget writes down: what is spent, and what is reserved by whom; shared by threads and processes.

It is one small SQLite database, in memory or in a file, and each change is one transaction. In a file it
survives whatever happens to a process: a reservation whose owner died counts as spent from then on, since
nobody knows.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imgkit.errors import ConfigurationError
from imgkit.fork import ForkRegistry
from imgkit.locks import FileLock

FILE = "budget.sqlite"
PATIENCE_S = 30.0
"""Seconds to wait for others who write at this moment; a change takes milliseconds."""

_TABLES = (
    """CREATE TABLE IF NOT EXISTS totals (
        one INTEGER PRIMARY KEY CHECK (one = 1), spent INTEGER NOT NULL, unknown INTEGER NOT NULL,
        unpriced INTEGER NOT NULL)""",
    "INSERT OR IGNORE INTO totals VALUES (1, 0, 0, 0)",
    """CREATE TABLE IF NOT EXISTS reservations (
        number INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, amount INTEGER NOT NULL,
        priced INTEGER NOT NULL)""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The state of a book. Amounts are whole billionths of a dollar.

    Attributes:
        spent: in all.
        unknown: the part of it that was reserved by calls whose real cost is not known.
        reserved: by calls that run.
        unpriced: how many calls were made that have no price.
    """

    spent: int
    unknown: int
    reserved: int
    unpriced: int


class BudgetStore:
    """A book of one budget.

    Args:
        folder: where its file is, made if it is missing; None to keep it in memory.

    Raises:
        ConfigurationError: the file cannot be used.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._memory: sqlite3.Connection | None = None
        self._owner: tuple[int, str] | None = None
        _STORES.add(self)
        if folder is None:
            self._memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            weakref.finalize(self, self._memory.close)
        with self._change() as tables:
            for statement in _TABLES:
                tables.execute(statement)

    def reserve(self, wanted: int, limit: int, *, priced: bool) -> int | Totals:
        """Reserve an amount if it fits under the limit.

        Args:
            wanted: the amount.
            limit: that spent and reserved amounts together may reach.
            priced: whether `wanted` is what the call may cost; otherwise nobody knows.

        Returns:
            The number of the reservation, or the state of the book if there is no room.
        """
        with self._change() as tables:
            totals = self._swept(tables)
            if totals.spent + totals.reserved + wanted > limit:
                return totals
            made = tables.execute(
                "INSERT INTO reservations (owner, amount, priced) VALUES (?, ?, ?)",
                (self._own_name(), wanted, priced),
            )
            return int(made.lastrowid or 0)

    def end(self, number: int, cost: int | None) -> None:
        """End a reservation.

        Args:
            number: of the reservation.
            cost: what is spent; None if that is not known, so that all that was reserved counts.
        """
        with self._change() as tables:
            found = tables.execute(
                "SELECT amount, priced FROM reservations WHERE number = ?", (number,)
            ).fetchone()
            if found is None:
                return
            amount, priced = found
            tables.execute("DELETE FROM reservations WHERE number = ?", (number,))
            if cost is None:
                _lost(tables, amount, 0 if priced else 1)
            else:
                tables.execute("UPDATE totals SET spent = spent + ?", (cost,))

    def totals(self) -> Totals:
        """Return the state of the book."""
        with self._change() as tables:
            return self._swept(tables)

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it happens, or nothing."""
        try:
            with self._lock:  # between processes it is SQLite that sees to it
                connection = self._opened()
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    try:
                        yield connection
                    except BaseException:
                        connection.execute("ROLLBACK")
                        raise
                    connection.execute("COMMIT")
                finally:
                    if connection is not self._memory:
                        connection.close()
        except (sqlite3.Error, OSError) as error:
            place = f"in {str(self._folder / FILE)!r}" if self._folder else "in memory"
            raise ConfigurationError(
                f"the budget {place} cannot be read or written ({error}): mend that, or give another folder"
            ) from None

    def _opened(self) -> sqlite3.Connection:
        """Return a connection; one to a file is for one change only, so that forks and threads share none."""
        if self._memory is not None:
            return self._memory
        assert self._folder is not None, "a book is in memory or in a file"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = sqlite3.connect(self._folder / FILE, timeout=PATIENCE_S, isolation_level=None)
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _own_name(self) -> str:
        """Return the name under which this process reserves; a lock of that name says that it is alive."""
        if self._owner is None or self._owner[0] != os.getpid():
            name = uuid.uuid4().hex
            if self._folder is not None:
                lock = FileLock.try_acquire(self._folder / f"{name}.lock")
                assert lock is not None, "nobody else has this name"
                weakref.finalize(self, lock.release)
            self._owner = (os.getpid(), name)
        return self._owner[1]

    def _swept(self, tables: sqlite3.Connection) -> Totals:
        """Return the state, after the reservations of processes that died were counted as spent."""
        own = self._owner[1] if self._owner and self._owner[0] == os.getpid() else ""
        others = tables.execute("SELECT DISTINCT owner FROM reservations WHERE owner != ?", (own,))
        for owner in others.fetchall():
            if self._folder is None:
                continue  # in memory: a forked child has a copy, with calls that are not its own
            lock = FileLock.try_acquire(self._folder / f"{owner[0]}.lock")
            if lock is not None:
                theirs = tables.execute("SELECT amount, priced FROM reservations WHERE owner = ?", owner)
                for amount, priced in theirs.fetchall():
                    _lost(tables, amount, 0 if priced else 1)
                tables.execute("DELETE FROM reservations WHERE owner = ?", owner)
                lock.release()
        spent, unknown, unpriced = tables.execute("SELECT spent, unknown, unpriced FROM totals").fetchone()
        (reserved,) = tables.execute("SELECT COALESCE(SUM(amount), 0) FROM reservations").fetchone()
        return Totals(spent=spent, unknown=unknown, reserved=reserved, unpriced=unpriced)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()


def _lost(tables: sqlite3.Connection, amount: int, unpriced: int) -> None:
    """Count a reservation whose real cost nobody knows."""
    tables.execute(
        "UPDATE totals SET spent = spent + ?, unknown = unknown + ?, unpriced = unpriced + ?",
        (amount, amount, unpriced),
    )


_STORES = ForkRegistry(BudgetStore._after_fork)
