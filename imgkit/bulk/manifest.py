"""The manifest of a run: a database that knows each request and what became of it.

A request is written down as being sent before it leaves. So after any crash, each row is either certain, or
listed as unknown.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

from imgkit.bulk.departures import Departures
from imgkit.bulk.manifest_errors import refuse_network_disk, refuse_repeated_id, unusable_error
from imgkit.bulk.manifest_file import Changes, check_manifest
from imgkit.bulk.manifest_queries import ManifestQueries
from imgkit.bulk.row_adding import (
    AddOptions,
    add_rows,
    amend_row,
    encode_json,
    replace_absent_leaders,
)
from imgkit.bulk.row_values import STATES as STATES
from imgkit.bulk.row_values import Added as Added
from imgkit.bulk.row_values import BulkRow as BulkRow
from imgkit.bulk.row_values import NewRow as NewRow
from imgkit.bulk.row_values import State as State
from imgkit.errors import ConfigurationError
from imgkit.files import create_empty, make_folders
from imgkit.locks import FileLock
from imgkit.wire.json_values import Json, JsonMapping

FILE, LOCK = "manifest.sqlite", "manifest.lock"
END = "end"
"""The fact of a manifest that says why the latest run stopped; None if it did not."""

VERSION = 1
"""Version of the tables. A manifest of a later version is refused."""

_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE rows (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, digest BLOB NOT NULL, state INTEGER NOT NULL,
    request TEXT NOT NULL, info TEXT NOT NULL, listed INTEGER NOT NULL DEFAULT 0, leader INTEGER);
CREATE INDEX unlisted ON rows(n) WHERE state = 3 AND listed = 0;
CREATE INDEX waiting ON rows(n) WHERE state = 0;
CREATE INDEX open ON rows(state, n) WHERE state NOT IN (0, 3);
CREATE INDEX followers ON rows(leader, n) WHERE leader IS NOT NULL AND state = 0;
"""
_DROPPED = "CREATE TABLE IF NOT EXISTS dropped (id TEXT, position INTEGER, file_name TEXT)"
"""Images whose lines the list is to drop. A manifest of an earlier imgkit lacks the table."""

_inherited: list[sqlite3.Connection] = []
"""Connections of a parent process. SQLite must not close them."""
_held: dict[Path, tuple[int, FileLock]] = {}
"""Locks that this process, or a parent, holds: processes of several containers may have equal numbers."""


class Manifest(ManifestQueries):
    """The manifest in a run folder, open in this process. Its methods may block; any thread may call them.

    Changes of rows that come while another is written wait, and are then written and flushed together.

    Args:
        folder: the run folder.
        is_reader: only read it, also while another process carries out the run.

    Attributes:
        folder: the run folder.
        departures: the log of the requests that leave.

    Raises:
        ConfigurationError: another process has the run, a later version has written the manifest, or it is
            damaged.
    """

    def __init__(self, folder: Path, *, is_reader: bool = False) -> None:
        self.folder = folder
        refuse_network_disk(folder)
        self._guard = threading.RLock()
        self._changes = Changes()
        self.departures = Departures(folder)
        self._process = os.getpid()
        self._lock = None if is_reader else self._lock_run()
        try:
            self._rows = self._open()
        except BaseException:
            self._release_lock()
            raise

    @property
    def is_inherited(self) -> bool:
        """Whether this process is a fork of the one that has the run."""
        return os.getpid() != self._process

    def close(self) -> None:
        """Close the file and let other processes have the run. Idempotent. Does nothing in a forked child."""
        if self.is_inherited:
            _inherited.append(self._rows)  # its end would close the file of the parent
            return
        with self._guard:
            self._changes.write(self._rows)
            self._rows.close()
            if self._lock is not None:
                self.departures.close()
            self._release_lock()

    def refuse_fork(self) -> None:
        """Refuse a process that is a fork of the one that has the run.

        Raises:
            ConfigurationError: it is; nothing was sent.
        """
        if self.is_inherited:
            raise ConfigurationError(
                f"Process {self._process} carries out the run in {str(self.folder)[:200]!r}, and this "
                "process is a fork of it. Nothing was sent. Use the outcomes in the process that made them."
            )

    def read_fact(self, name: str) -> Json:
        """Return a fact of the run, None for none."""
        with self._using_file():
            found = self._rows.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if found is None else json.loads(found[0])

    def write_fact(self, name: str, value: object) -> None:
        """Write a fact of the run, a JSON value."""
        with self._transaction():
            self._rows.execute("REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def read_token(self) -> str:
        """Return the name of the run, which no other run has."""
        token = self.read_fact("token")
        if token is None:
            token = secrets.token_hex(8)
            self.write_fact("token", token)
        return str(token)

    def add(
        self,
        rows: Iterable[NewRow],
        *,
        amend: bool = False,
        extend: bool = False,
        dedupe: bool = False,
        refuse_repeated: Callable[[NewRow, int], None] = refuse_repeated_id,
        hold_amendment: Callable[[int, NewRow], bool] = lambda number, row: False,
        accept: Callable[[NewRow], bool] = bool,
    ) -> Added:
        """Add requests. A request that the manifest has stays as it is.

        Args:
            rows: the requests.
            amend: let requests that changed wait again.
            extend: add requests to a run that has none of them.
            dedupe: let requests that ask for the same follow the first of them.
            refuse_repeated: receives a request whose id was added before while the manifest is open, and the
                place of the earlier one; the request is left out. By default, it is an error.
            hold_amendment: returns whether a changed request stays as it is for now, by its number.
            accept: returns whether to add a request that may be sent; all by default.

        Raises:
            InvalidRequestError: requests changed under their ids, and `amend` is False; nothing was added.
            ConfigurationError: the run has none of them, and `extend` is False; nothing was added.
        """
        with self._transaction():
            options = AddOptions(amend, extend, dedupe, accept)
            return add_rows(self._rows, rows, options, self.folder, refuse_repeated, hold_amendment)

    def amend(self, number: int, row: NewRow) -> None:
        """Let a request that changed wait again."""
        with self._transaction():
            amend_row(self._rows, number, row)

    def replace_absent_leaders(self) -> None:
        """Let requests go alone that wait for an equal request which was not added: it is not sent."""
        with self._transaction():
            replace_absent_leaders(self._rows)

    def mark(
        self,
        number: int,
        state: State,
        info: JsonMapping,
        *,
        durable: bool = True,
        is_listed: bool | None = None,
    ) -> None:
        """Write down what became of a request.

        Args:
            number: its number.
            state: the new state.
            info: facts about its latest attempt, JSON values.
            durable: flush it to the disk, so that a power cut does not take it back.
            is_listed: whether the output lists all of its images; None leaves this as it is.
        """
        change = self._changes.add(
            "UPDATE rows SET state = ?, info = ?, listed = COALESCE(?, listed) WHERE n = ?",
            (STATES.index(state), encode_json(info), is_listed, number),
            durable=durable,
        )
        with self._using_file():  # writes all changes that wait
            if change.error is not None:
                raise change.error

    def mark_listed(self, numbers: Iterable[int], mark: tuple[int, int] | None) -> None:
        """Write down that the output lists the images of requests, together with the next change.

        Args:
            numbers: the numbers of the requests.
            mark: size and checksum of the list, None if they are not known.
        """
        for number in numbers:
            self._changes.add("UPDATE rows SET listed = 1 WHERE n = ?", (number,), durable=False)
        self._changes.add("REPLACE INTO facts VALUES ('list', ?)", (json.dumps(mark),), durable=False)

    def add_dropped(self, entries: Iterable[JsonMapping]) -> None:
        """Write down, together with the next change, that the list is to drop the lines of images."""
        for entry in entries:
            name = (entry["id"], entry["index"], entry["file_name"])
            self._changes.add("INSERT INTO dropped VALUES (?, ?, ?)", name, durable=False)

    def clear_dropped(self, mark: tuple[int, int] | None) -> None:
        """Write down that the list has dropped all lines that it was to drop.

        Args:
            mark: size and checksum of the list, None if they are not known.
        """
        with self._transaction(durable=False):
            self._rows.execute("DELETE FROM dropped")
            self._rows.execute("REPLACE INTO facts VALUES ('list', ?)", (json.dumps(mark),))

    def count(self) -> dict[State, int]:
        """Return the number of requests in each state."""
        with self._using_file():
            total = self._rows.execute("SELECT COUNT(*) FROM rows").fetchone()[0]
            # The indexes have all states but "done", of which most are.
            counts = dict.fromkeys(STATES, 0)
            counts["waiting"] = self._rows.execute("SELECT COUNT(*) FROM rows WHERE state = 0").fetchone()[0]
            for place, number in self._rows.execute(
                "SELECT state, COUNT(*) FROM rows WHERE state NOT IN (0, 3) GROUP BY state"
            ):
                counts[STATES[place]] = number
        counts["done"] = total - sum(counts.values())
        return counts

    def sum_costs(self) -> Decimal:
        """Return the sum of the known costs of all requests, in dollars. It reads the whole manifest.

        Requests that were sent again count with the highest cost of what was open, too.
        """
        costs = [
            f"CAST(ROUND(COALESCE(json_extract(info, '$.{name}'), 0) * 1e9) AS INTEGER)"
            for name in ("cost", "lost_usd")
        ]
        with self._using_file():
            found = self._rows.execute(
                f"SELECT SUM({costs[0]} + {costs[1]}) FROM rows WHERE info != '{{}}'"  # noqa: S608
            ).fetchone()
        return Decimal(f"{Decimal(found[0] or 0).scaleb(-9).normalize():f}")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read one state of the file, while another process writes."""
        with self._using_file():
            self._rows.execute("BEGIN")
            try:
                yield
            finally:
                self._rows.execute("COMMIT")

    def _lock_run(self) -> FileLock:
        path = self.folder / LOCK
        try:
            make_folders(self.folder)
            lock = FileLock.try_acquire(path)
            if lock is not None:
                path.write_text(str(os.getpid()))
                _held[path.resolve()] = (os.getpid(), lock)
                return lock
            owner = path.read_text().strip()
        except (FileExistsError, NotADirectoryError):
            raise ConfigurationError(
                f"{str(self.folder)[:200]!r} cannot be a folder: a file is in its place. Give another folder."
            ) from None
        except OSError as error:
            raise unusable_error(self.folder, error.strerror or str(error)) from None
        if path.resolve() in _held and _held[path.resolve()][0] == os.getpid():
            raise ConfigurationError(
                f"This process carries out the run in {str(self.folder)!r} already. Take its outcomes to "
                "their end, or close them, before you begin again."
            )
        raise ConfigurationError(
            f"Another process{f' ({owner})' if owner.isdecimal() else ''} carries out the run in "
            f"{str(self.folder)!r}. Wait for it, or stop it."
        )

    def _release_lock(self) -> None:
        if self._lock is not None:
            for place in [place for place, (_, lock) in _held.items() if lock is self._lock]:
                del _held[place]
            self._lock.release()

    def _open(self) -> sqlite3.Connection:
        path = self.folder / FILE
        try:
            if self._lock is not None and not path.exists():
                create_empty(path, 0o600)
            place = f"{path.absolute().as_uri()}?mode={'ro' if self._lock is None else 'rw'}"
            rows = sqlite3.connect(place, timeout=30, isolation_level=None, check_same_thread=False, uri=True)
            if self._lock is None and not os.access(self.folder, os.W_OK) and not _has_log(path):
                rows.close()  # SQLite makes files beside the manifest, even to read it
                rows = sqlite3.connect(f"{place}&immutable=1", isolation_level=None, uri=True)
        except (OSError, sqlite3.Error) as error:
            raise unusable_error(self.folder, str(error)) from None
        try:
            if self._lock is not None:
                rows.execute("PRAGMA journal_mode = WAL")
            version = rows.execute("PRAGMA user_version").fetchone()[0]
            if version == 0 and rows.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
                raise sqlite3.DatabaseError("another program has written it")
            if version == 0 and self._lock is not None:
                rows.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
            elif version > VERSION:
                raise ConfigurationError(
                    f"A later version of imgkit wrote the manifest in {str(self.folder)!r} (format "
                    f"{version}; this version reads up to {VERSION}). Upgrade imgkit to continue this run."
                )
            else:
                check_manifest(rows, is_reader=self._lock is None)
            if self._lock is not None:
                rows.execute(_DROPPED)
            rows.execute("CREATE TEMP TABLE given (n INTEGER PRIMARY KEY, place INTEGER NOT NULL)")
        except BaseException as error:
            rows.close()
            if isinstance(error, sqlite3.Error):
                raise unusable_error(self.folder, str(error)) from None
            raise
        return rows

    @contextmanager
    def _using_file(self) -> Iterator[None]:
        """Let one thread use the file, after the changes that wait.

        Raises:
            ConfigurationError: the file cannot be used, such as on a full disk, or in a forked child.
        """
        self.refuse_fork()
        with self._guard:
            try:
                if not self._rows.in_transaction:
                    self._changes.write(self._rows)
                yield
            except sqlite3.Error as error:
                raise unusable_error(self.folder, str(error)) from None

    @contextmanager
    def _transaction(self, *, durable: bool = True) -> Iterator[None]:
        with self._using_file():
            self._changes.set_durable(self._rows, durable=durable)
            self._rows.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._rows.execute("ROLLBACK")
                raise
            self._rows.execute("COMMIT")


def _has_log(path: Path) -> bool:
    """Return whether SQLite has changes beside the file: a process writes it, or was killed."""
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0
