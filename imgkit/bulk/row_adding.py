"""Adding requests to a manifest: new and known ones, changed ones, and equal ones."""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from imgkit.bulk.manifest_errors import foreign_run_error
from imgkit.bulk.row_values import STATES, Added, NewRow, State, describe_changed
from imgkit.errors import InvalidRequestError
from imgkit.wire.json_values import JsonMapping


class AddOptions(NamedTuple):
    """The options of `imgkit.bulk.manifest.Manifest.add`."""

    amend: bool
    extend: bool
    dedupe: bool
    accept: Callable[[NewRow], bool]


def add_rows(
    table: sqlite3.Connection,
    rows: Iterable[NewRow],
    options: AddOptions,
    folder: Path,
    refuse_repeated: Callable[[NewRow, int], None],
    hold_amendment: Callable[[int, NewRow], bool],
) -> Added:
    """Add requests to the tables of a manifest, within a transaction of the caller.

    Args:
        table: the open manifest.
        rows: the requests.
        options: the options.
        folder: the run folder, for errors.
        refuse_repeated, hold_amendment: see `imgkit.bulk.manifest.Manifest.add`.

    Raises:
        InvalidRequestError: requests changed under their ids.
        ConfigurationError: the run has none of the requests.
    """
    new = known = 0
    amended: Counter[State] = Counter()
    numbers = array("q")  # a list of a million would be large
    changed: list[str] = []
    is_first = table.execute("SELECT 1 FROM given LIMIT 1").fetchone() is None
    other = table.execute("SELECT id FROM rows LIMIT 1").fetchone() if is_first else None
    if is_first:
        _prepare_leaders(table, dedupe=options.dedupe)
    for row in rows:
        found = table.execute("SELECT n, digest, state FROM rows WHERE id = ?", (row.id,)).fetchone()
        may_be_sent = found is None or found[2] == 0 or (options.amend and found[1] != row.digest)
        if may_be_sent and not options.accept(row):
            continue
        number = _insert(table, row) if found is None else found[0]
        given = table.execute("INSERT OR IGNORE INTO given VALUES (?, ?)", (number, row.place))
        if not given.rowcount:
            earlier = table.execute("SELECT place FROM given WHERE n = ?", (number,)).fetchone()
            refuse_repeated(row, earlier[0])
            continue
        numbers.append(number)
        if found is None:
            new += 1
        elif found[1] == row.digest or (options.amend and hold_amendment(number, row)):
            known += 1
        elif options.amend:
            amended[STATES[found[2]]] += 1
            amend_row(table, number, row)
        else:
            changed.append(row.id)
        if options.dedupe:
            _follow(table, number, row.digest)
    if changed:
        raise InvalidRequestError({"id": describe_changed(changed)})
    if other is not None and new and not known and not amended and not options.extend:
        raise foreign_run_error(folder, other[0])
    return Added(new, known, amended, numbers)


def encode_json(value: JsonMapping) -> str:
    """Return a JSON text that the manifest can keep."""
    text = json.dumps(dict(value), ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:  # the path of a file whose name is no UTF-8
        return json.dumps(dict(value), separators=(",", ":"))
    return text


def _insert(table: sqlite3.Connection, row: NewRow) -> int:
    added = table.execute(
        "INSERT INTO rows (id, digest, state, request, info) VALUES (?, ?, 0, ?, '{}')",
        (row.id, row.digest, encode_json(row.request)),
    )
    return added.lastrowid or 0


def amend_row(table: sqlite3.Connection, number: int, row: NewRow) -> None:
    """Let a changed request wait again; the list is to drop the lines of its images.

    What it has cost, or may have cost, stays. The first of its followers leads the others.
    """
    [heir] = table.execute("SELECT MIN(n) FROM rows WHERE leader = ? AND state = 0", (number,)).fetchone()
    _replace_leader(table, number, heir)
    table.execute(
        "INSERT INTO dropped SELECT rows.id, json_extract(image.value, '$.index'), "
        "json_extract(image.value, '$.file_name') FROM rows, json_each(rows.info, '$.images') AS image "
        "WHERE rows.n = ?",
        (number,),
    )
    table.execute(
        "UPDATE rows SET digest = ?, state = 0, request = ?, leader = NULL, info = "
        "json_patch('{}', json_object('cost', json_extract(info, '$.cost'), 'lost_usd', "
        "json_extract(info, '$.lost_usd'), 'unpriced', CASE WHEN state IN (1, 2, 6) AND ("
        "json_extract(info, '$.cost') IS NULL OR json_array_length(info, '$.sent') > 0) THEN json('true') "
        "ELSE json_extract(info, '$.unpriced') END)) WHERE n = ?",
        (row.digest, encode_json(row.request), number),
    )


def replace_absent_leaders(table: sqlite3.Connection) -> None:
    """Let requests that were added follow the first of them, if their leader waits and was not added.

    Args:
        table: the open manifest, in a transaction of the caller.
    """
    found = table.execute(
        "SELECT leader, MIN(n) FROM rows JOIN given USING (n) WHERE leader IS NOT NULL AND state = 0 AND "
        "EXISTS (SELECT 1 FROM rows AS first WHERE first.n = rows.leader AND first.state = 0 AND "
        "NOT EXISTS (SELECT 1 FROM given AS other WHERE other.n = first.n)) GROUP BY leader"
    )
    for leader, heir in found.fetchall():
        _replace_leader(table, leader, heir)


def _replace_leader(table: sqlite3.Connection, leader: int, heir: int | None) -> None:
    """Let the followers of a request that wait follow one of them, which goes alone."""
    table.execute("UPDATE rows SET leader = NULLIF(?, n) WHERE leader = ? AND state = 0", (heir, leader))


def _prepare_leaders(table: sqlite3.Connection, *, dedupe: bool) -> None:
    """Make equal requests easy to find; without `dedupe`, let those that follow go alone."""
    if dedupe:
        table.execute("CREATE INDEX IF NOT EXISTS leaders ON rows(digest) WHERE leader IS NULL")
    else:
        # There is an index for each of the two.
        table.execute("UPDATE rows SET leader = NULL WHERE leader IS NOT NULL AND state = 0")
        table.execute("UPDATE rows SET leader = NULL WHERE leader IS NOT NULL AND state NOT IN (0, 3)")


def _follow(table: sqlite3.Connection, number: int, digest: bytes) -> None:
    """Let a request that waits follow an equal one, if there is one."""
    table.execute(
        "UPDATE rows SET leader = (SELECT first.n FROM rows AS first WHERE first.digest = :digest AND "
        "first.leader IS NULL AND first.n <> :number LIMIT 1) "
        "WHERE n = :number AND state = 0 AND leader IS NULL",
        {"number": number, "digest": digest},
    )
