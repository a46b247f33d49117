"""The lines of a list of images: from the manifest, as text, and back from a file that was edited."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from io import BufferedRandom

from imgkit.bulk.manifest import Manifest
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


def name_entry(entry: JsonMapping) -> int:
    """Return the name of an image in the list: a number, since a million names have to fit into memory."""
    name: tuple[Json, Json, Json] = entry["id"], entry["index"], entry["file_name"]
    return hash(name)
