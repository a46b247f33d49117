"""Exports of a run: its images as shards that data loaders stream."""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

from imgkit.bulk.manifest import BulkRow, Manifest
from imgkit.errors import ConfigurationError, SaveError
from imgkit.wire.json_values import JsonMapping, JsonObject

MAX_SAMPLES, MAX_SHARD_BYTES = 10_000, 1_000_000_000
"""Defaults of the size of a shard."""

_PART_PREFIX = ".imgkit-export-"
"""Begins the names of shards that are not complete."""

_PROMPTS = ("negative_prompt", "variation_prompt")
"""Parameters with text of the user, beside the prompt."""


class ExportOptions(NamedTuple):
    """The options of an export.

    Attributes:
        max_samples: most images in a shard.
        max_bytes: most bytes in a shard; a larger image has a shard of its own.
        has_prompts: export the prompts.
        skip_damaged: leave out images that are missing or changed, in place of an error.
        overwrite: replace the shards of an earlier export.
    """

    max_samples: int = MAX_SAMPLES
    max_bytes: int = MAX_SHARD_BYTES
    has_prompts: bool = True
    skip_damaged: bool = False
    overwrite: bool = False


class Exported(NamedTuple):
    """The result of an export.

    Attributes:
        images: number of images.
        shards: the files, in order.
        skipped: problems of the images that were left out.
    """

    images: int
    shards: tuple[Path, ...]
    skipped: tuple[str, ...] = ()


class Sample(NamedTuple):
    """An image of a run with its facts.

    Attributes:
        key: its name in the export, in the order of the rows, without a dot.
        extension: of its file, without a dot.
        data: its bytes.
        facts: the facts about it, as ``metadata.jsonl`` has them.
    """

    key: str
    extension: str
    data: bytes
    facts: JsonMapping


def export_webdataset(manifest: Manifest, images: Path, target: Path, options: ExportOptions) -> Exported:
    """Write the images of a run as tar files for the library webdataset. The same run gives equal bytes.

    The members ``KEY.png`` and ``KEY.json`` of an image are neighbours. Keys are numbers of rows, so no id
    becomes a path. A shard appears under its name once all shards are complete.

    Args:
        manifest: the manifest of the run.
        images: the output folder of the run.
        target: the folder of the shards, made if it is missing; or a file ``NAME.tar`` for all images.
        options: the options.

    Raises:
        ConfigurationError: an image is missing or changed, the manifest and the shards differ, or the target
            has shards already.
        SaveError: the disk rejects a shard.
    """
    is_single = target.suffix == ".tar"
    folder = target.parent if is_single else target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        old = sorted(folder.glob(glob.escape(target.name) if is_single else "shard-*.tar"))
        if old and not options.overwrite:
            raise ConfigurationError(
                f"{str(old[0])[:200]!r} exists. Nothing was written.",
                hint="Give another place, or pass --force to replace it.",
                field="overwrite",
            )
        for part in folder.glob(f"{_PART_PREFIX}*"):
            part.unlink()
        if is_single:
            options = options._replace(max_samples=sys.maxsize, max_bytes=sys.maxsize)
        return _write_shards(manifest, images, folder, options, old, target.name if is_single else None)
    except OSError as error:
        problem = error.strerror or str(error)
        raise SaveError(f"Cannot write shards in {str(target)[:200]!r} ({problem}).") from None


def _write_shards(
    manifest: Manifest,
    images: Path,
    target: Path,
    options: ExportOptions,
    old: list[Path],
    only_name: str | None,
) -> Exported:
    parts: list[Path] = []
    shard: _Shard | None = None
    skipped: list[str] = []
    count = 0
    try:
        for sample in read_samples(manifest, images, options, skipped.append):
            if shard is not None and shard.is_full(sample, options):
                shard.close()
                shard = None
            if shard is None:
                shard = _Shard(target / f"{_PART_PREFIX}{len(parts):06d}.tar")
                parts.append(shard.path)
            shard.add(sample)
            count += 1
        if shard is not None:
            shard.close()
            shard = None
        shards = tuple(target / (only_name or f"shard-{number:06d}.tar") for number in range(len(parts)))
        for part, path in zip(parts, shards, strict=True):
            os.replace(part, path)
        for path in set(old) - set(shards):
            path.unlink()
    finally:
        if shard is not None:
            shard.abandon()
        for part in parts:
            part.unlink(missing_ok=True)
    return Exported(count, shards, tuple(skipped))


def read_samples(
    manifest: Manifest, images: Path, options: ExportOptions, skip: Callable[[str], object]
) -> Iterator[Sample]:
    """Yield the images of the requests that are done, in the order of the rows.

    Raises:
        ConfigurationError: an image is missing or changed, and may not be skipped; or rows were not read.
    """
    with manifest.snapshot():
        done, rows = manifest.count()["done"], 0
        for row in manifest.list_rows("done"):
            rows += 1
            yield from _read_row(row, images, options, skip)
    if rows != done:
        raise ConfigurationError(f"The manifest has {done} requests that are done, and {rows} were read.")


def _read_row(
    row: BulkRow, images: Path, options: ExportOptions, skip: Callable[[str], object]
) -> Iterator[Sample]:
    entries = row.info.get("images", ())
    for place, entry in enumerate(entries):
        try:
            data = _read_image(row, images, entry)
        except ConfigurationError as error:
            if not options.skip_damaged:
                raise
            skip(error.problem)
            continue
        key = f"{row.number:09d}" if len(entries) == 1 else f"{row.number:09d}-{place:02d}"
        extension = str(entry["file_name"]).rpartition(".")[2].lower()
        yield Sample(key, extension, data, _choose_facts(entry, has_prompts=options.has_prompts))


def _read_image(row: BulkRow, images: Path, entry: JsonMapping) -> bytes:
    path = images / str(entry.get("file_name", ""))
    name = f"The image of row {row.id[:80]!r} (number {row.number}), {str(path)[-200:]!r},"
    try:
        data = path.read_bytes()
    except OSError as error:
        problem = f"{name} cannot be read ({error.strerror or error})."
    else:
        if hashlib.sha256(data).hexdigest() == entry.get("sha256"):
            return data
        problem = f"{name} has changed since the run saved it."
    raise ConfigurationError(
        problem, hint="Restore the file, or pass --skip-damaged to leave it out.", field="image_file"
    )


def _choose_facts(entry: JsonMapping, *, has_prompts: bool) -> JsonObject:
    facts = {name: value for name, value in entry.items() if name != "file_name"}
    if not has_prompts:
        facts.pop("prompt", None)
        parameters = json.loads(str(facts.get("parameters") or "{}"))
        kept = {name: value for name, value in parameters.items() if name not in _PROMPTS}
        facts["parameters"] = json.dumps(kept, sort_keys=True)
    return facts


class _Shard:
    """A tar file that is being written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        self._count = 0

    def is_full(self, sample: Sample, options: ExportOptions) -> bool:
        """Return whether the image belongs into the next shard."""
        return self._count >= options.max_samples or self._file.tell() + len(sample.data) > options.max_bytes

    def add(self, sample: Sample) -> None:
        """Add the members of an image."""
        text = json.dumps(sample.facts, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")
        for extension, data in ((sample.extension, sample.data), ("json", text)):
            member = tarfile.TarInfo(f"{sample.key}.{extension}")
            member.size = len(data)
            self._tar.addfile(member, io.BytesIO(data))
        self._count += 1

    def close(self) -> None:
        """Flush the file to the disk.

        Raises:
            OSError: the disk is full.
        """
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        """Close the file as it is."""
        try:
            self._file.close()
        except OSError:
            return  # the disk is full, which another error tells


Exporter: TypeAlias = Callable[[Manifest, Path, Path, ExportOptions], Exported]

FORMATS: Mapping[str, Exporter] = {"webdataset": export_webdataset}
"""The formats of exports by name."""
