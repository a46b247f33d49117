"""The lines of a list of images: from the manifest, as text, and back from a file that was edited."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from io import BufferedRandom
from pathlib import Path

from imgkit.bulk.manifest import Manifest
from imgkit.files import write_atomically
from imgkit.wire.json_values import Json, JsonMapping

_BLOCK_BYTES = 1024 * 1024
_LINE_START = b'{"file_name"'


def iterate_images(manifest: Manifest) -> Iterator[JsonMapping]:
    """Yield the facts about the images of all requests that a manifest has, in the order of the requests."""
    for row in manifest.list_with_images():
        yield from row.info["images"]


def encode_lines(entries: Iterable[JsonMapping]) -> bytes:
    """Return lines of the list of images."""
    lines = "".join(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n" for entry in entries)
    return lines.encode("utf-8", "surrogatepass")


def compute_checksum(file: BufferedRandom, size: int) -> int | None:
    """Return the checksum of the beginning of a file, None for a shorter file; the rest is read next."""
    checksum = 0
    while size:
        block = file.read(min(size, _BLOCK_BYTES))
        if not block:
            return None
        checksum, size = zlib.crc32(block, checksum), size - len(block)
    return checksum


def is_half(line: bytes) -> bool:
    """Return whether a line without an end is the beginning of a line of ours, which a kill cut."""
    if not line.startswith(_LINE_START[: len(line)]):
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False


def find_name(line: bytes) -> int | None:
    """Return the name of the image in a line, None for any other line."""
    try:
        return name_entry(json.loads(line))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def read_list(path: Path, mark: Json) -> tuple[bool, set[int], tuple[int, int]]:
    """Read a list behind its mark, or all of it if the mark does not fit.

    A line that a killed process left unfinished is cut.

    Args:
        path: the list, which may be missing.
        mark: its size and checksum as far as they are known.

    Returns:
        Whether the mark fits, the names of the images in the lines that were read, and the new mark.

    Raises:
        OSError: the list cannot be read, or not be cut.
    """
    listed: set[int] = set()
    if not path.exists():
        return mark == [0, 0], listed, (0, 0)
    with path.open("r+b") as file:
        size, checksum = mark if isinstance(mark, list) else (0, 0)
        is_known = isinstance(mark, list) and compute_checksum(file, size) == checksum
        if not is_known:
            size = checksum = file.seek(0)
        end_line = b""
        for line in file:
            if not line.endswith(b"\n"):
                if is_half(line):
                    file.truncate(size)
                    break
                end_line = b"\n"  # an editor has taken it away
            name = find_name(line)
            if name is not None:
                listed.add(name)
            size, checksum = size + len(line), zlib.crc32(line, checksum)
        if end_line:
            file.seek(0, os.SEEK_END)
            file.write(end_line)
            size, checksum = size + 1, zlib.crc32(end_line, checksum)
    return is_known, listed, (size, checksum)


def rewrite_list(path: Path, dropped: set[int], current: set[int]) -> tuple[int, int]:
    """Write a list anew without the lines of some images, and return its new mark.

    Args:
        path: the list.
        dropped: the names of the images.
        current: names among them of which the last line stays.

    Raises:
        OSError: the list cannot be read or written; it is as before.
    """
    left = dict.fromkeys(dropped, 0)  # lines of each image up to the one that stays
    size = checksum = 0

    def read_lines() -> Iterator[bytes]:
        nonlocal size, checksum
        for line in file:
            name = find_name(line)
            if name is not None and name in left:
                left[name] -= 1
                if left[name] != 0:
                    continue
            size, checksum = size + len(line), zlib.crc32(line, checksum)
            yield line

    with path.open("rb") as file:
        if current:
            for name in map(find_name, file):
                if name is not None and name in current:
                    left[name] += 1
            file.seek(0)
        write_atomically(path, read_lines(), mode=0o644)
    return size, checksum


def name_entry(entry: JsonMapping) -> int:
    """Return the name of an image in the list: a number, since a million names have to fit into memory."""
    name: tuple[Json, Json, Json] = entry["id"], entry["index"], entry["file_name"]
    return hash(name)
