"""Images that a run has no longer: those of amended rows, and files that were deleted from its output.

A row whose image is missing was paid for, so it is unknown: nothing sends it again unasked. If its file is
back, the next run lists it again.
"""

from __future__ import annotations

import os

from imgkit.bulk.image_lines import name_entry
from imgkit.bulk.manifest import BulkRow, Manifest, State
from imgkit.bulk.output import IMAGES, Output
from imgkit.bulk.row_calls import RunFiles
from imgkit.bulk.row_progress import RowProgress
from imgkit.wire.json_values import JsonMapping

FOLDER_TIMES = "folder_times"
"""Fact of a manifest: when each folder of images has changed, at the last look for missing images."""


def drop_old_lines(manifest: Manifest, output: Output) -> None:
    """Drop the lines of images that rows have no longer from the list. May block.

    Args:
        manifest: the manifest of the run, which names the images.
        output: the output of the run.

    Raises:
        SaveError: the list cannot be written; the next run drops the lines.
    """
    dropped = manifest.list_dropped()
    if not dropped:
        return
    names = set(map(name_entry, dropped))
    current: list[JsonMapping] = []
    for row_id in {entry["id"] for entry in dropped}:
        row = manifest.find(row_id)
        images: list[JsonMapping] = [] if row is None else row.info.get("images", [])
        current += [entry for entry in images if name_entry(entry) in names]
    output.drop_lines(dropped, current)
    manifest.clear_dropped(output.list_mark)


def note_missing_images(files: RunFiles, counts: dict[State, int]) -> dict[str, State]:
    """Find the rows whose images were deleted, and write down that their outcome is unknown. May block.

    It reads the whole manifest, and lists the output once, unless the output is as it was at the last look.

    Args:
        files: the files of the run. No request is in flight.
        counts: number of rows in each state, which is corrected.

    Returns:
        The ids of the rows, with the states that they had. Rows that were found before are not among them.
    """
    times = _read_folder_times(files.output)
    if files.manifest.read_fact(FOLDER_TIMES) == times:  # no file has come or gone since the last look
        return {}
    known = list_names(files.output)
    if known is None:
        return {}
    missing = {number for number, name in files.manifest.list_ended_files() if hash(name) not in known}
    found: dict[str, State] = {}
    for number in sorted(missing):
        row = files.manifest.find_number(number)
        lost = [] if row is None else [e for e in row.info["images"] if not _has_file(files.output, e)]
        if row is None or not lost:
            continue
        progress = RowProgress(row)
        progress.lose_images(lost)
        names = ", ".join(str(entry["file_name"]) for entry in lost[:3])
        are = "1 image is" if len(lost) == 1 else f"{len(lost)} images are"
        progress.info["error"] = f"{are} missing in the output: {names}"
        files.manifest.add_dropped(lost)
        files.manifest.mark(number, "unknown", progress.info, durable=False)
        found[row.id] = row.state
        counts[row.state] -= 1
        counts["unknown"] += 1
    files.manifest.write_fact(FOLDER_TIMES, times)
    return found


def list_names(output: Output) -> set[int] | None:
    """Return the names of the images in an output as numbers; None if they cannot be listed. May block.

    A million names would be large. The objects at a URL are not listed.
    """
    if output.url is not None:
        return None
    names: set[int] = set()
    try:
        for shard in os.listdir(output.folder / IMAGES):
            if len(shard) == 2:
                files = os.listdir(output.folder / IMAGES / shard)
                names.update(hash(f"{IMAGES}/{shard}/{name}") for name in files)
    except FileNotFoundError:
        return names
    except OSError:
        return None
    return names


def _has_file(output: Output, entry: JsonMapping) -> bool:
    return (output.folder / str(entry["file_name"])).is_file()


def _read_folder_times(output: Output) -> dict[str, int]:
    """Return when each folder of images has changed. May block."""
    try:
        with os.scandir(output.folder / IMAGES) as shards:
            return {shard.name: shard.stat().st_mtime_ns for shard in shards if len(shard.name) == 2}
    except OSError:
        return {}


def restore_images(files: RunFiles, row: BulkRow) -> BulkRow:
    """List missing images of a row again whose files are back; return the row as it is then. May block.

    Args:
        files: the files of the run.
        row: the row, of which nothing is in flight.

    Raises:
        SaveError: the list cannot be written.
    """
    lost: list[JsonMapping] = row.info.get("lost", [])
    found = [dict(entry) for entry in lost if _has_file(files.output, entry)]
    if not found:
        return row
    progress = RowProgress(row)
    progress.find_images(found)
    is_whole = not (progress.missing or progress.sent)
    row = row._replace(state="done" if is_whole else row.state, info=progress.info)
    files.manifest.mark(row.number, row.state, row.info, is_listed=False)
    files.list_images(row.number, found)
    return row
