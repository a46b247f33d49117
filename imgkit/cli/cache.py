"""The command `imgkit cache`: list, verify and clear the stored replies."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from imgkit.cache.folder import FolderStore
from imgkit.cli import console, exit_codes, report, values
from imgkit.default_plugins.caching import cache_folder

if TYPE_CHECKING:
    from imgkit.cache.index import Row

_DAY_S = 24 * 3600.0


def open_store(folder: str | None, state_folder: str | None) -> FolderStore:
    """Return the store that ``--cache`` uses.

    Args:
        folder: the value of ``--folder``; None for the folder below the state folder.
        state_folder: the value of ``--state-folder``.

    Raises:
        ConfigurationError: the folder cannot be used.
    """
    return FolderStore(Path(folder) if folder else cache_folder(values.find_state_folder(state_folder)))


def print_entries(store: FolderStore, *, as_json: bool) -> int:
    """Print the entries, the most recently used last."""
    rows = _list_rows(store)
    if as_json:
        return console.write_bytes(report.encode_json({"entries": [asdict(row) for row in rows]}))
    now = time.time()
    lines = [
        f"{row.key[:12]}  {_format_age(now - row.created_at):>6}  {row.size_bytes / 1e6:7.2f} MB  "
        f"{row.pictures:>2}  {row.operation}  {row.model or '-'}  {row.prompt[:60]!r}"
        for row in rows
    ]
    if not lines:
        console.print_message(f"imgkit: The cache in {store.folder} is empty.")
    return console.write_text("".join(f"{line}\n" for line in lines))


def print_stats(store: FolderStore, *, as_json: bool) -> int:
    """Print the folder, the size and the age of the cache."""
    rows = _list_rows(store)
    facts: dict[str, object] = {
        "folder": str(store.folder),
        "entries": len(rows),
        "images": sum(row.pictures for row in rows),
        "bytes": sum(row.size_bytes for row in rows),
        "max_bytes": store.max_bytes,
        "oldest_s": round(time.time() - min(row.created_at for row in rows), 1) if rows else None,
    }
    if as_json:
        return console.write_bytes(report.encode_json(facts))
    lines = [f"{name:10} {value}\n" for name, value in facts.items() if value is not None]
    return console.write_text("".join(lines))


def clear_entries(store: FolderStore, *, older_than_days: float | None) -> int:
    """Remove entries, except those that a running call is writing.

    Args:
        store: the store.
        older_than_days: remove only entries of at least this age; None removes all.

    Returns:
        0, or 9 if an entry could not be removed.

    Raises:
        ConfigurationError: the folder cannot be read or written.
    """
    end = time.time() - (older_than_days or 0.0) * _DAY_S
    try:
        young = {row.key for row in store.index.rows() if row.created_at >= end}
        keys = [key for key in store.list_keys() if older_than_days is None or key not in young]
        busy = [key for key in keys if not store.remove(key)]
    except OSError as error:
        raise values.unusable_folder_error(store.folder, error) from None
    console.print_message(f"imgkit: {len(keys) - len(busy)} entries removed.")
    for key in busy:
        console.print_message(f"imgkit: {key[:12]} was not removed: a running call is writing it.")
    return exit_codes.PARTIAL if busy else exit_codes.OK


def verify_entries(store: FolderStore, *, remove: bool) -> int:
    """Check every entry against its digests, and rebuild the index.

    Args:
        store: the store.
        remove: remove damaged entries and stray files.

    Returns:
        0, or 9 if a damaged entry is left.

    Raises:
        ConfigurationError: the folder cannot be read or written.
    """
    try:
        keys = store.list_keys()
        damaged = [key for key in keys if store.read(key, newer_than=0.0) is None]
        for key in damaged:
            suffix = "; removed" if remove and store.remove(key) else ""
            console.print_message(f"imgkit: {key} is damaged or too old{suffix}.")
        swept = store.sweep() if remove else 0
        store.index.rebuild()
    except OSError as error:
        raise values.unusable_folder_error(store.folder, error) from None
    suffix = f", {swept} stray files removed" if swept else ""
    console.print_message(f"imgkit: {len(keys) - len(damaged)} of {len(keys)} entries are intact{suffix}.")
    return exit_codes.OK if remove or not damaged else exit_codes.PARTIAL


def _list_rows(store: FolderStore) -> list[Row]:
    try:
        return store.index.rows()
    except OSError as error:
        raise values.unusable_folder_error(store.folder, error) from None


def _format_age(age_s: float) -> str:
    for size_s, unit in ((_DAY_S, "d"), (3600.0, "h"), (60.0, "min")):
        if age_s >= 2 * size_s:
            return f"{age_s / size_s:.0f} {unit}"
    return f"{age_s:.0f} s"
