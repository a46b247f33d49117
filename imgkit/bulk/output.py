"""The output of a run: images under the names of their digests, and a list of them for data loaders."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from imgkit.bulk.manifest import BulkRow
from imgkit.errors import SaveError
from imgkit.files import sync_folder, write_all, write_atomically
from imgkit.images.image import Image
from imgkit.images.saving import SavePlan
from imgkit.images.sidecars import SavableImage
from imgkit.images.sniff import EXTENSIONS
from imgkit.images.sources import FileSource, have_same_bytes
from imgkit.models import ImagesResponse
from imgkit.wire.json_values import Json, JsonMapping, JsonObject

_EntryName: TypeAlias = tuple[Json, Json, Json]
METADATA, IMAGES, REPORTS = "metadata.jsonl", "images", "reports"
_TAIL_BYTES = 8 * 1024 * 1024
"""End of the list in which lines of a killed process are looked for."""

CHECK_S = 1.0
"""Seconds in which the output folder is checked once, however many requests start."""

_LINE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)


class DigestPlan(SavePlan):
    """A save plan that names images by their digests, in 256 folders: equal images are one file."""

    _check_at = 0.0

    @classmethod
    def for_folder(cls, folder: Path) -> DigestPlan:
        """Return the plan for an output folder."""
        return cls(folder, f"{IMAGES}/{{digest}}.{{ext}}", make_folder=True, overwrite=True, sidecar=False)

    @property
    def needs_digest(self) -> bool:
        """True: the digest is the name."""
        return True

    def build_path(self, image: SavableImage, digest: str, count: int) -> Path:
        """Return the path of an image."""
        extension = EXTENSIONS[image.format][0] if image.format else ".bin"
        return self.folder / IMAGES / digest[:2] / f"{digest}{extension}"

    def check(self) -> None:
        """Check that the folder is writable, once in `CHECK_S` seconds."""
        now = time.monotonic()
        if now >= self._check_at:
            super().check()
            object.__setattr__(self, "_check_at", now + CHECK_S)  # plans are frozen

    def write(self, image: SavableImage, count: int) -> Path:
        """Write an image, unless the same image is there already."""
        path = self.build_path(image, image.sha256, count)
        try:
            is_there = have_same_bytes(FileSource.from_path(path), image.source)
        except OSError:
            is_there = False
        if not is_there:
            return super().write(image, count)
        with suppress(OSError):  # some folders cannot be flushed
            sync_folder(path.parent)  # the request that wrote it may not have come so far
        return path


class Output:
    """The output folder of a run. Its methods may block.

    Args:
        folder: the folder, made if it is missing.
        has_prompts: list the prompts, too.
    """

    def __init__(self, folder: Path, *, has_prompts: bool = True) -> None:
        self.folder = folder
        self.plan = DigestPlan.for_folder(folder)
        self._has_prompts = has_prompts

    @property
    def has_images(self) -> bool:
        """Whether the list has an image. May block."""
        try:
            return (self.folder / METADATA).stat().st_size > 0
        except OSError:
            return False

    def describe(self, row: BulkRow, response: ImagesResponse) -> list[JsonObject]:
        """Return the facts about the saved images of a request, as the list has them."""
        cost = response.cost.amount
        share = None if cost is None else float(cost) / max(1, len(response.images))
        return [self._describe_image(row, image, share) for image in response.images]

    def _describe_image(self, row: BulkRow, image: Image, cost: float | None) -> JsonObject:
        request = row.request
        shared = ("operation", "prompt", "model", "image", "mask", "markup")
        parameters = {name: value for name, value in request.items() if name not in shared}
        return {
            "file_name": "" if image.path is None else image.path.relative_to(self.folder).as_posix(),
            "id": row.id,
            "index": image.index,
            **({"prompt": str(request.get("prompt") or "")} if self._has_prompts else {}),
            "operation": request["operation"],
            "model": str(image.about.get("model") or ""),
            "parameters": json.dumps(parameters, sort_keys=True),
            "cost": cost,
            "sha256": image.sha256,
        }

    def complete(self, entry: JsonObject, row: BulkRow) -> JsonObject:
        """Return the facts that a worker has sent about an image, with the prompt, which it leaves out."""
        if not self._has_prompts:
            return entry
        names = [*entry]
        names.insert(names.index("index") + 1, "prompt")
        known = {**entry, "prompt": str(row.request.get("prompt") or "")}
        return {name: known[name] for name in names}

    def find_paths(self, entries: Iterable[JsonMapping]) -> tuple[Path, ...]:
        """Return the files of described images."""
        return tuple(self.folder / str(entry["file_name"]) for entry in entries)

    def write_report(self, name: str, report: bytes) -> None:
        """Put the report of a task beside the images, for a run that does not get it.

        Raises:
            SaveError: the disk rejects it.
        """
        path = self.folder / REPORTS / f"{name}.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, report)
        except OSError as error:
            raise SaveError(
                f"Cannot write {REPORTS} ({error.strerror or error}). The images are complete. Free disk "
                "space."
            ) from None

    def read_report(self, name: str) -> bytes | None:
        """Return the report of a task, None for none. Raises `SaveError`."""
        try:
            return (self.folder / REPORTS / f"{name}.json").read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SaveError(f"Cannot read {REPORTS} ({error.strerror or error}).") from None

    def remove_report(self, name: str) -> None:
        """Remove the report of a task: the manifest has it. A report that stays does no harm."""
        try:
            (self.folder / REPORTS / f"{name}.json").unlink(missing_ok=True)
        except OSError:
            return

    def list_images(self, entries: Iterable[JsonMapping]) -> None:
        """Append lines to the list of images, in a single write.

        Raises:
            SaveError: the disk rejects it.
        """
        lines = "".join(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n" for entry in entries)
        try:
            descriptor = os.open(self.folder / METADATA, _LINE_FLAGS, 0o644)
            try:
                end = os.fstat(descriptor).st_size
                try:
                    write_all(descriptor, lines.encode("utf-8", "surrogatepass"))
                except OSError:
                    os.ftruncate(descriptor, end)  # half a line would spoil the next one
                    raise
            finally:
                os.close(descriptor)
        except OSError as error:
            raise SaveError(
                f"Cannot write {METADATA} ({error.strerror or error}). The images are complete; the next run "
                "lists them. Free disk space."
            ) from None

    def repair_list(self, rows: Iterable[BulkRow]) -> list[int]:
        """Cut a line that a killed process left unfinished, and list the images of these requests.

        Args:
            rows: requests whose images may be missing from the list.

        Returns:
            The numbers of the requests that are listed now.

        Raises:
            SaveError: the list cannot be written; nothing was sent.
        """
        try:
            listed = self._cut_unfinished_line()
        except OSError as error:
            raise SaveError(
                f"Cannot repair {METADATA} ({error.strerror or error}). Nothing was sent. Make it a file "
                "that you can write to."
            ) from None
        missing = list(rows)
        for row in missing:
            images: list[JsonMapping] = row.info.get("images", [])
            self.list_images(entry for entry in images if _name_entry(entry) not in listed)
        return [row.number for row in missing]

    def _cut_unfinished_line(self) -> set[_EntryName]:
        """Cut the list behind its last whole line; return the images in its tail. Raises OSError."""
        path = self.folder / METADATA
        listed: set[_EntryName] = set()
        if not path.exists():
            return listed
        with path.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            start = max(0, end - _TAIL_BYTES)
            file.seek(start)
            tail = file.read()
            whole = tail.rfind(b"\n") + 1
            if whole < len(tail):
                file.truncate(start + whole)
        for line in tail[:whole].splitlines():
            try:
                listed.add(_name_entry(json.loads(line)))
            except (ValueError, KeyError, TypeError):
                continue  # the first line of the tail may be cut
        return listed


def _name_entry(entry: JsonMapping) -> _EntryName:
    return entry["id"], entry["index"], entry["file_name"]
