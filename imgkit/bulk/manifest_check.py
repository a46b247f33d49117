"""The check of a manifest that is opened: damage is found before anything is sent."""

from __future__ import annotations

import sqlite3

CHECKED_BYTES = 64 * 1024 * 1024
"""A larger manifest is not read through, which would take seconds."""


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
        rows.execute(f"SELECT n, id, digest, state, request, info FROM rows {end}").fetchone()  # noqa: S608
