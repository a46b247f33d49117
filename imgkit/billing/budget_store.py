"""The store of a budget: amounts spent and reserved, shared by threads and processes.

The store is a small SQLite database, in memory or in a file. Each change is a transaction. A file survives
the death of any process: the reservations of a dead process count as spent.
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
LOCK_TIMEOUT_S = 30.0
"""Seconds to wait for another process that writes. A change takes milliseconds."""

_JOB_OWNER = "job:"
"""Begins the owner of a reservation that a job carries: no process owns it."""

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
    """The totals of a budget. Amounts are whole billionths of a dollar.

    Attributes:
        spent: amount spent in all.
        unknown: the part of `spent` that was reserved by calls of unknown cost.
        reserved: amount reserved by running calls.
        unpriced: number of calls without a price.
    """

    spent: int
    unknown: int
    reserved: int
    unpriced: int


class BudgetStore:
    """The store of one budget.

    Args:
        folder: folder of its file, created if missing; None for memory.

    Raises:
        ConfigurationError: the file cannot be used.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._owner: tuple[int, str] | None = None
        _STORES.add(self)
        self._database: Path | sqlite3.Connection
        if folder is not None:
            self._database = folder / FILE
        else:
            self._database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            weakref.finalize(self, self._database.close)
        with self._transaction() as tables:
            for statement in _TABLES:
                tables.execute(statement)

    @property
    def may_block(self) -> bool:
        """Whether its methods wait for a disk, or for another process."""
        return self._folder is not None

    def reserve(self, amount: int, limit: int, *, priced: bool) -> int | Totals:
        """Reserve an amount if it fits under the limit.

        Args:
            amount: the highest cost of the call.
            limit: highest sum of spent and reserved amounts.
            priced: False for a call without a price, whose `amount` is a guess.

        Returns:
            The number of the reservation, or the totals if the limit has no room.
        """
        with self._transaction() as tables:
            totals = self._expire_dead_owners(tables)
            if totals.spent + totals.reserved + amount > limit:
                return totals
            cursor = tables.execute(
                "INSERT INTO reservations (owner, amount, priced) VALUES (?, ?, ?)",
                (self._owner_name(), amount, priced),
            )
            return int(cursor.lastrowid or 0)

    def defer(self, number: int, job_id: str) -> None:
        """Hand a reservation from this process to a job, which another process may end.

        Args:
            number: number of the reservation.
            job_id: id of the job.
        """
        with self._transaction() as tables:
            tables.execute(
                "UPDATE reservations SET owner = ? WHERE number = ?", (_JOB_OWNER + job_id, number)
            )

    def find_deferred(self, job_id: str) -> int | None:
        """Return the number of the reservation that a job carries, None for none."""
        with self._transaction() as tables:
            row = tables.execute(
                "SELECT number FROM reservations WHERE owner = ?", (_JOB_OWNER + job_id,)
            ).fetchone()
            return None if row is None else int(row[0])

    def end(self, number: int, cost: int | None) -> None:
        """End a reservation.

        Args:
            number: number of the reservation.
            cost: the cost; None for an unknown cost, which counts the whole reservation as spent.
        """
        with self._transaction() as tables:
            if cost is None:
                found = tables.execute("SELECT amount, priced FROM reservations WHERE number = ?", (number,))
                for amount, priced in found.fetchall():
                    _count_as_spent(tables, amount, 0 if priced else 1)
            deleted = tables.execute("DELETE FROM reservations WHERE number = ?", (number,))
            if cost is not None and deleted.rowcount:
                tables.execute("UPDATE totals SET spent = spent + ?", (cost,))

    def add_spending(self, amount: int) -> None:
        """Count an amount as spent for which no reservation was made."""
        with self._transaction() as tables:
            tables.execute("UPDATE totals SET spent = spent + ?", (amount,))

    def totals(self) -> Totals:
        """Return the totals."""
        with self._transaction() as tables:
            return self._expire_dead_owners(tables)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Run a transaction: all of it takes effect, or nothing."""
        try:
            with self._lock:  # SQLite itself serializes processes
                connection = self._connect()
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    try:
                        yield connection
                    except BaseException:
                        if connection.in_transaction:  # on a full disk SQLite has rolled it back
                            connection.execute("ROLLBACK")
                        raise
                    connection.execute("COMMIT")
                finally:
                    if connection is not self._database:
                        connection.close()
        except (sqlite3.Error, OSError) as error:
            place = f"in {str(self._folder / FILE)[-200:]!r}" if self._folder else "in memory"
            reason = getattr(error, "strerror", None) or error
            raise ConfigurationError(
                f"Cannot read or write the budget {place} ({reason}). Repair it, or give another folder."
            ) from None

    def _connect(self) -> sqlite3.Connection:
        """Return a connection. One to a file serves a single transaction: forks and threads share none."""
        if isinstance(self._database, sqlite3.Connection):
            return self._database
        self._database.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = sqlite3.connect(self._database, timeout=LOCK_TIMEOUT_S, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _owner_name(self) -> str:
        """Return the name of this process in the store. A lock of that name proves that it is alive."""
        if self._owner is None or self._owner[0] != os.getpid():
            name = uuid.uuid4().hex
            if self._folder is not None:
                lock = FileLock.acquire(self._folder / f"{name}.lock")
                weakref.finalize(self, lock.release)
            self._owner = (os.getpid(), name)
        return self._owner[1]

    def _expire_dead_owners(self, tables: sqlite3.Connection) -> Totals:
        """Count the reservations of dead processes as spent, and return the totals."""
        if self._folder is not None:  # the memory of a forked child has a copy of its parent's reservations
            self._expire_other_owners(tables, self._folder)
        spent, unknown, unpriced, reserved = tables.execute(
            "SELECT spent, unknown, unpriced, (SELECT COALESCE(SUM(amount), 0) FROM reservations) FROM totals"
        ).fetchone()
        return Totals(spent=spent, unknown=unknown, reserved=reserved, unpriced=unpriced)

    def _expire_other_owners(self, tables: sqlite3.Connection, folder: Path) -> None:
        own = self._owner[1] if self._owner and self._owner[0] == os.getpid() else ""
        others = tables.execute(
            "SELECT DISTINCT owner FROM reservations WHERE owner != ? AND substr(owner, 1, 4) != ?",
            (own, _JOB_OWNER),
        )
        for owner in others.fetchall():
            lock = FileLock.try_acquire(folder / f"{owner[0]}.lock")
            if lock is not None:
                theirs = tables.execute("SELECT amount, priced FROM reservations WHERE owner = ?", owner)
                for amount, priced in theirs.fetchall():
                    _count_as_spent(tables, amount, 0 if priced else 1)
                tables.execute("DELETE FROM reservations WHERE owner = ?", owner)
                lock.release()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()


def _count_as_spent(tables: sqlite3.Connection, amount: int, unpriced: int) -> None:
    """Count a reservation of unknown cost as spent."""
    tables.execute(
        "UPDATE totals SET spent = spent + ?, unknown = unknown + ?, unpriced = unpriced + ?",
        (amount, amount, unpriced),
    )


_STORES = ForkRegistry(BudgetStore._after_fork)
