"""The questions to a manifest: requests by state, by number, by id, and those that follow others."""

from __future__ import annotations

import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

from imgkit.bulk.row_values import STATES, BulkRow, State
from imgkit.wire.json_values import JsonObject

_ENDED = "(3, 4, 5, 6)"
"""The states done, blocked, failed and unknown."""

_CHUNK = 10_000
"""Requests whose images are read at once."""

_GIVEN = "EXISTS (SELECT 1 FROM given WHERE given.n = rows.n)"


class ManifestQueries(ABC):
    """The part of `imgkit.bulk.manifest.Manifest` that only reads the rows. Its methods may block."""

    _rows: sqlite3.Connection

    @abstractmethod
    def _using_file(self) -> AbstractContextManager[None]:
        """Let one thread use the file."""

    def list_waiting(self, after: int = 0, limit: int = 1000) -> list[BulkRow]:
        """Return the next requests that wait, in their order, behind the number `after`."""
        return self._select("state = 0 AND n > ? ORDER BY n LIMIT ?", (after, limit))

    def list_given(self, after: int = 0, limit: int = 1000) -> list[BulkRow]:
        """Return the next requests that wait and were added while the manifest is open, as `list_waiting`.

        Followers are not among them.
        """
        where = f"state = 0 AND leader IS NULL AND n > ? AND {_GIVEN} ORDER BY n LIMIT ?"
        return self._select(where, (after, limit))

    def find_waiting(self, provider: str | None) -> BulkRow | None:
        """Return the first of the requests of `list_given` that names a provider, None for none.

        Args:
            provider: the name; None for requests that name no provider.
        """
        where = f"state = 0 AND leader IS NULL AND json_extract(request, '$.provider') IS ? AND {_GIVEN}"
        found = self._select(f"{where} ORDER BY n LIMIT 1", (provider,))
        return found[0] if found else None

    def list_numbers(self, numbers: Sequence[int]) -> list[BulkRow]:
        """Return the requests with these numbers that wait, in their order. Followers are not among them."""
        marks = ",".join("?" * len(numbers))
        where = "state = 0 AND leader IS NULL AND n IN (" + marks + ") ORDER BY n"
        return self._select(where, tuple(numbers))

    def count_left_out(self) -> int:
        """Return the number of requests that wait, but were not added while the manifest is open.

        A follower counts if its leader does: else it copies the outcome of its leader.
        """
        with self._using_file():
            number: int = self._rows.execute(
                f"SELECT COUNT(*) FROM rows WHERE state = 0 AND NOT {_GIVEN} AND (leader IS NULL OR "  # noqa: S608
                "EXISTS (SELECT 1 FROM rows AS first WHERE first.n = rows.leader AND first.state = 0 AND "
                "NOT EXISTS (SELECT 1 FROM given WHERE given.n = first.n)))"
            ).fetchone()[0]
            return number

    def list_leaders(self) -> list[int]:
        """Return the numbers of the requests that have ended and have followers that wait."""
        with self._using_file():
            found = self._rows.execute(
                "SELECT DISTINCT leader FROM rows WHERE leader IS NOT NULL AND state = 0 AND "  # noqa: S608
                f"(SELECT state FROM rows AS first WHERE first.n = rows.leader) IN {_ENDED}"
            )
            return [number for (number,) in found]

    def find_leader(self, row_id: str) -> int | None:
        """Return the number of a request if it has ended and has followers that wait, else None."""
        with self._using_file():
            found = self._rows.execute(
                f"SELECT first.n FROM rows AS first WHERE id = ? AND first.state IN {_ENDED} AND "  # noqa: S608
                "EXISTS (SELECT 1 FROM rows WHERE leader = first.n AND state = 0)",
                (row_id,),
            ).fetchone()
        return None if found is None else found[0]

    def list_followers(self, leader: int, after: int = 0, limit: int = 1000) -> list[BulkRow]:
        """Return the next followers of a request that wait, in their order, behind the number `after`."""
        return self._select("leader = ? AND state = 0 AND n > ? ORDER BY n LIMIT ?", (leader, after, limit))

    def find_number(self, number: int) -> BulkRow | None:
        """Return the request with a number, None for none."""
        found = self._select("n = ?", (number,))
        return found[0] if found else None

    def is_given(self, number: int) -> bool:
        """Return whether the request with a number was added while the manifest is open."""
        with self._using_file():
            found = self._rows.execute("SELECT 1 FROM given WHERE n = ?", (number,))
            return found.fetchone() is not None

    def list_rows(self, state: State) -> Iterator[BulkRow]:
        """Yield all requests in a state, in their order; the state may change meanwhile."""
        after = 0
        while True:
            # SQLite uses an index of some rows only for a query that repeats its condition.
            some = "" if state in ("waiting", "done") else "state NOT IN (0, 3) AND "
            where = f"{some}state = {STATES.index(state)} AND n > ? ORDER BY n LIMIT 1000"
            rows = self._select(where, (after,))
            yield from rows
            if not rows:
                return
            after = rows[-1].number

    def find(self, row_id: str) -> BulkRow | None:
        """Return the request with an id, None for none."""
        found = self._select("id = ?", (row_id,))
        return found[0] if found else None

    def list_unlisted(self) -> list[BulkRow]:
        """Return the requests with saved images that the output does not list for sure.

        A request that is not done may have some of its images.
        """
        done = self._select("state = 3 AND listed = 0 ORDER BY n", ())
        others = self._select("state NOT IN (0, 3) AND listed = 0 ORDER BY state, n", ())
        return [*done, *(row for row in others if row.info.get("images"))]

    def list_with_images(self) -> Iterator[BulkRow]:
        """Yield all requests with saved images, in their order."""
        after = 0
        while True:
            rows = self._select("info != '{}' AND n > ? ORDER BY n LIMIT 1000", (after,))
            yield from (row for row in rows if row.info.get("images"))
            if not rows:
                return
            after = rows[-1].number

    def list_dropped(self) -> list[JsonObject]:
        """Return the images whose lines the list is to drop."""
        with self._using_file():
            found = self._rows.execute("SELECT id, position, file_name FROM dropped")
            return [dict(zip(("id", "index", "file_name"), values, strict=True)) for values in found]

    def list_ended_files(self) -> Iterator[tuple[int, str]]:
        """Yield numbers and file names of the images of requests that are done, failed or unknown.

        It reads the whole manifest.
        """
        with self._using_file():
            last = self._rows.execute("SELECT MAX(n) FROM rows").fetchone()[0] or 0
        for start in range(0, last, _CHUNK):
            with self._using_file():
                found = self._rows.execute(
                    "SELECT rows.n, json_extract(image.value, '$.file_name') FROM rows, "
                    "json_each(rows.info, '$.images') AS image WHERE rows.state IN (3, 5, 6) "
                    "AND rows.n > ? AND rows.n <= ?",
                    (start, start + _CHUNK),
                ).fetchall()
            yield from found

    def list_without_cost(self) -> Iterator[BulkRow]:
        """Yield the requests that were sent, or have some of their images, and whose cost is not known.

        Requests that were sent again are among them if the highest cost of what was open is not known.
        """
        sent = (
            "(state IN (1, 2, 3, 6) OR json_array_length(info, '$.images') > 0 OR "
            "(json_extract(info, '$.again') = 1 AND json_extract(info, '$.lost_usd') IS NULL))"
        )
        unpriced = "json_extract(info, '$.unpriced') = 1"
        after, where = 0, f"n > ? AND ({sent} AND json_extract(info, '$.cost') IS NULL OR {unpriced})"
        while rows := self._select(f"{where} ORDER BY n LIMIT 1000", (after,)):
            yield from rows
            after = rows[-1].number

    def find_latest_error(self) -> BulkRow | None:
        """Return the last request in the file that failed, was refused or is unknown; None for none."""
        found = self._select("state IN (4, 5, 6) ORDER BY n DESC LIMIT 1", ())
        return found[0] if found else None

    def _select(self, where: str, values: tuple[object, ...]) -> list[BulkRow]:
        with self._using_file():
            found = self._rows.execute(
                "SELECT n, id, state, request, info, leader FROM rows WHERE " + where,  # noqa: S608  # constants
                values,
            )
            return [
                BulkRow(number, row_id, STATES[place], json.loads(request), json.loads(info), leader)
                for number, row_id, place, request, info, leader in found
            ]
