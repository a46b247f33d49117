"""`imgkit cache`: what is kept of replies, and getting rid of it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgkit.cache.folder import FolderStore
from imgkit.cli import console as streams
from imgkit.cli import exit_codes as exits
from imgkit.cli import state
from imgkit.default_plugins.cache import cache_folder

if TYPE_CHECKING:
    from imgkit.cache.index import Row

_DAY_S = 24 * 3600.0


def store_of(folder: str | None, state_folder: str | None) -> FolderStore:
    """Return the store that the other commands use with ``--cache``.

    Raises:
        ConfigurationError: it cannot be used.
    """
    where = Path(folder) if folder else cache_folder(state.folder(state_folder))
    return FolderStore(where)


def ls(store: FolderStore, *, as_json: bool) -> int:
    """List the entries, what was used last at the end."""
    rows = _rows(store)
    if as_json:
        return streams.send_text(_line({"entries": [asdict(row) for row in rows]}))
    now = time.time()
    lines = [
        f"{row.key[:12]}  {_span(now - row.created_at):>6}  {row.size_bytes / 1e6:7.2f} MB  "
        f"{row.pictures:>2}  {row.operation}  {row.model or '-'}  {row.prompt[:60]!r}"
        for row in rows
    ]
    if not lines:
        streams.tell(f"imgkit: nothing is kept in {store.folder}")
    return streams.send_text("".join(f"{line}\n" for line in lines))


def stats(store: FolderStore, *, as_json: bool) -> int:
    """Tell how much there is."""
    rows = _rows(store)
    facts: dict[str, Any] = {
        "folder": str(store.folder),
        "entries": len(rows),
        "pictures": sum(row.pictures for row in rows),
        "bytes": sum(row.size_bytes for row in rows),
        "max_bytes": store.max_bytes,
        "oldest_s": round(time.time() - min(row.created_at for row in rows), 1) if rows else None,
    }
    if as_json:
        return streams.send_text(_line(facts))
    lines = [f"{name:10} {value}" for name, value in facts.items() if value is not None]
    return streams.send_text("\n".join(lines) + "\n")


def clear(store: FolderStore, *, older_than_days: float | None) -> int:
    """Remove entries; those that are being made stay."""
    end = time.time() - (older_than_days or 0.0) * _DAY_S
    try:
        young = {row.key for row in store.index.rows() if row.created_at >= end}
        keys = [key for key in store.list_keys() if older_than_days is None or key not in young]
        busy = [key for key in keys if not store.remove(key)]
    except OSError as error:
        raise state.unusable(store.folder, error) from None
    streams.tell(f"imgkit: {len(keys) - len(busy)} removed")
    for key in busy:
        streams.tell(f"imgkit: {key[:12]} is being made by a call that runs: it stays")
    return exits.PARTLY if busy else exits.OK


def verify(store: FolderStore, *, remove: bool) -> int:
    """Read every entry with its digests, tell which are not whole, and make the index anew."""
    try:
        keys = store.list_keys()
        broken = [key for key in keys if store.read(key, newer_than=0.0) is None]
        for key in broken:
            gone = remove and store.remove(key)
            streams.tell(f"imgkit: {key} is not whole, or too old{'; removed' if gone else ''}")
        swept = store.sweep() if remove else 0
        store.index.rebuild()
    except OSError as error:
        raise state.unusable(store.folder, error) from None
    more = f", {swept} stray files removed" if swept else ""
    streams.tell(f"imgkit: {len(keys) - len(broken)} of {len(keys)} entries are whole{more}")
    return exits.OK if remove or not broken else exits.PARTLY


def _rows(store: FolderStore) -> list[Row]:
    try:
        return store.index.rows()
    except OSError as error:
        raise state.unusable(store.folder, error) from None


def _line(facts: dict[str, Any]) -> str:
    return json.dumps({"schema_version": 1, **facts}) + "\n"


def _span(span_s: float) -> str:
    for size_s, unit in ((_DAY_S, "d"), (3600.0, "h"), (60.0, "min")):
        if span_s >= 2 * size_s:
            return f"{span_s / size_s:.0f} {unit}"
    return f"{span_s:.0f} s"
