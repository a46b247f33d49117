"""The output of a run: images under the names of their digests, and a list of them for data loaders."""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from imgkit.bulk.image_lines import encode_lines, iterate_images, name_entry, read_list, rewrite_list
from imgkit.bulk.manifest import BulkRow, Manifest
from imgkit.bulk.manifest_errors import lost_images_error, lost_manifest_error
from imgkit.errors import ConfigurationError, SaveError
from imgkit.files import make_folders, sync_folder, write_all, write_atomically
from imgkit.images.image import Image
from imgkit.images.saving import SavePlan
from imgkit.images.sidecars import SavableImage
from imgkit.images.sniff import EXTENSIONS
from imgkit.images.sources import FileSource, have_same_bytes
from imgkit.models import ImagesResponse
from imgkit.wire.json_values import Json, JsonMapping, JsonObject

METADATA, IMAGES, REPORTS = "metadata.jsonl", "images", "reports"
DAMAGED = ".bin"
"""Extension of bytes that are no whole image."""

CHECK_S = 1.0
"""Seconds in which the output folder is checked once, however many requests start."""

_LINE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)


@dataclass(frozen=True)
class DigestPlan(SavePlan):
    """A save plan that names images by their digests, in 256 folders: equal images are one file.

    Attributes:
        parts: the folder of incomplete images, None to keep them near their final names.
    """

    parts: Path | None = None

    _check_at = 0.0

    @classmethod
    def for_folder(cls, folder: Path) -> DigestPlan:
        """Return the plan for an output folder."""
        return cls(folder, f"{IMAGES}/{{digest}}.{{ext}}", make_folder=True, overwrite=True, sidecar=False)

    @property
    def needs_digest(self) -> bool:
        """True: the digest is the name."""
        return True

    @property
    def part_folder(self) -> Path | None:
        """The folder of incomplete images."""
        return self.parts

    def build_path(self, image: SavableImage, digest: str, count: int) -> Path:
        """Return the path of an image."""
        return self.folder / image_name(image, digest)

    @property
    def needs_check(self) -> bool:
        """Whether the latest check is older than `CHECK_S` seconds."""
        return time.monotonic() >= self._check_at

    def check(self) -> None:
        """Check that the folder is writable, once in `CHECK_S` seconds."""
        if self.needs_check:
            super().check()
            object.__setattr__(self, "_check_at", time.monotonic() + CHECK_S)  # plans are frozen

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


def image_name(image: SavableImage, digest: str) -> str:
    """Return the name of an image in an output."""
    extension = EXTENSIONS[image.format][0] if image.format else DAMAGED
    return f"{IMAGES}/{digest[:2]}/{digest}{extension}"


def damaged_name(image: SavableImage) -> str:
    """Return the name of a damaged image in an output."""
    return f"{IMAGES}/{image.sha256[:2]}/{image.sha256}{DAMAGED}"


class Output:
    """The output folder of a run. Its methods may block; `publish` and `checkpoint` in any thread.

    Args:
        folder: the folder, made if it is missing.
        has_prompts: list the prompts, too.

    Attributes:
        folder: the folder in which calls save their images.
        plan: the save plan of the calls.
        url: the URL of the images, None for a folder.
        list_mark: size and checksum of the list as this process has written it, None once somebody else has
            written to it.
    """

    url: str | None = None

    def __init__(self, folder: Path, *, has_prompts: bool = True) -> None:
        self.folder = folder
        self.plan = DigestPlan.for_folder(folder)
        self._has_prompts = has_prompts
        self.list_mark: tuple[int, int] | None = None

    def claim(self, manifest: Manifest) -> None:
        """Check that the output can be written to, and take it for the run of a manifest.

        Raises:
            InvalidRequestError: the folder cannot be written to.
            ConfigurationError: the images of the run are elsewhere.
        """
        self.plan.check()
        known = manifest.read_fact("target")
        if known == self.url:
            self._refuse_missing_images(manifest)
            return
        if any(iterate_images(manifest)):
            raise ConfigurationError(
                f"The images of this run are {'in a local folder' if known is None else f'at {known}'}. Give "
                f"that output again, or another run folder in place of {str(manifest.folder)[:200]!r}."
            )
        manifest.write_fact("target", self.url)

    def _refuse_missing_images(self, manifest: Manifest) -> None:
        """Refuse a folder without any image of a run that has some, and images without their manifest."""
        if self.url is not None:
            return
        if self.has_images:
            if not any(manifest.count().values()):  # every one of them would be made again
                raise lost_manifest_error(self.folder, manifest.folder)
        elif any(iterate_images(manifest)):  # the list would name missing files
            raise lost_images_error(self.folder, manifest.folder)

    def open_parts(self, token: str) -> None:
        """Empty the folder of incomplete images that belongs to a run, and use it from now on.

        Only the process that holds the run may call this: all files in the folder are those of dead ones.

        Args:
            token: name of the run, which no other run has.

        Raises:
            SaveError: the folder cannot be used; nothing was sent.
        """
        folder = self.folder / IMAGES / f".parts-{token}"
        try:
            make_folders(folder)
            for path in folder.iterdir():
                path.unlink()
        except OSError as error:
            raise SaveError(
                f"Cannot use {str(folder)[:200]!r} ({error.strerror or error}). Nothing was sent. Make it a "
                "folder that you can write to."
            ) from None
        self.plan = replace(self.plan, parts=folder)

    def close_parts(self) -> None:
        """Remove the folders of incomplete images and of reports if they are empty. Idempotent."""
        for folder in (self.plan.parts, self.folder / REPORTS):
            if folder is not None:
                with suppress(OSError):  # the next run removes the rest
                    folder.rmdir()

    @property
    def has_images(self) -> bool:
        """Whether the folder has images of a run, or a list of them. May block."""
        with suppress(OSError):
            if (self.folder / METADATA).stat().st_size > 0:
                return True
        with suppress(OSError):
            return any(len(name) == 2 for name in os.listdir(self.folder / IMAGES))
        return False

    def describe(self, row: BulkRow, response: ImagesResponse, positions: Iterable[int]) -> list[JsonObject]:
        """Return the facts about the saved images of a request, as the list has them.

        Args:
            row: the row.
            response: its images.
            positions: the place of each among the images of the row.
        """
        cost = response.cost.amount
        share = None if cost is None else float(cost) / max(1, len(response.images))
        return [
            self._describe_image(row, image, position, share)
            for image, position in zip(response.images, positions, strict=True)
        ]

    def _describe_image(self, row: BulkRow, image: Image, position: int, cost: float | None) -> JsonObject:
        request = row.request
        shared = ("operation", "prompt", "model", "image", "mask", "markup")
        parameters = {name: value for name, value in request.items() if name not in shared}
        return {
            "file_name": self._name_image(image),
            "id": row.id,
            "index": position,
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

    def _name_image(self, image: Image) -> str:
        """Return the name of a saved image in the output."""
        return "" if image.path is None else image.path.relative_to(self.folder).as_posix()

    def publish(self, images: Sequence[Image]) -> None:
        """Bring saved images to their places. In a folder, they are there."""

    def set_aside(self, image: Image) -> str:
        """Keep the bytes of a saved image that is damaged as a file of no image format; return its name."""
        name = damaged_name(image)
        if image.path is not None:
            with suppress(OSError):  # it stays under its own name
                os.replace(image.path, image.path.with_suffix(DAMAGED))
        return name

    def find_places(self, entries: Iterable[JsonMapping]) -> tuple[tuple[Path, ...], tuple[str, ...]]:
        """Return the files of described images, and their URLs; one of both is empty."""
        names = [str(entry["file_name"]) for entry in entries]
        if self.url is None:
            return tuple(self.folder / name for name in names), ()
        return (), tuple(f"{self.url}/{name}" for name in names)

    def write_report(self, name: str, report: bytes) -> None:
        """Put the report of a task beside the images, for a run that does not get it.

        Raises:
            SaveError: the disk rejects it.
        """
        path = self.folder / REPORTS / f"{name}.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                write_atomically(path, report)
            except FileNotFoundError:  # a run that ended just now has removed the empty folder
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
        data = encode_lines(entries)
        try:
            descriptor = os.open(self.folder / METADATA, _LINE_FLAGS, 0o644)
            try:
                end = os.fstat(descriptor).st_size
                try:
                    write_all(descriptor, data)
                except OSError:
                    os.ftruncate(descriptor, end)  # half a line would spoil the next one
                    raise
            finally:
                os.close(descriptor)
        except OSError as error:
            self.list_mark = None  # the next run reads the whole list
            raise SaveError(
                f"Cannot write {METADATA} ({error.strerror or error}). The images are complete; the next run "
                "lists them. Free disk space."
            ) from None
        if self.list_mark is not None:
            size, checksum = self.list_mark
            is_own = size == end  # nobody else has written since
            self.list_mark = (end + len(data), zlib.crc32(data, checksum)) if is_own else None

    def drop_lines(self, dropped: Iterable[JsonMapping], current: Iterable[JsonMapping]) -> None:
        """Drop the lines of images from the list. Lines that are not of the run stay as they are.

        Args:
            dropped: the id, the index and the file name of each image.
            current: those among them that a row has again. The last line of each stays.

        Raises:
            SaveError: the list cannot be written; the next run writes it.
        """
        path = (self.folder / METADATA).resolve()
        try:
            self.list_mark = rewrite_list(path, set(map(name_entry, dropped)), set(map(name_entry, current)))
        except FileNotFoundError:
            return
        except OSError as error:
            raise SaveError(
                f"Cannot write {METADATA} ({error.strerror or error}). It names images that the run has no "
                "longer; the next run corrects it. Free disk space."
            ) from None

    def checkpoint(self) -> None:
        """Write the list anew where that is due. In a folder, it has each image already.

        Raises:
            ImgkitError: the list cannot be written; the next run writes it.
        """

    def finish(self) -> None:
        """Leave the list whole at the end of a run; raises as `checkpoint`. In a folder, it is whole."""

    def repair_list(
        self, mark: Json, unlisted: Iterable[BulkRow], all_rows: Callable[[], Iterable[BulkRow]]
    ) -> list[int]:
        """Complete the list of images. Lines that are not of the run stay as they are.

        Args:
            mark: the mark of the list as the manifest knows it.
            unlisted: requests whose images may be missing from the list.
            all_rows: returns all requests with images, for a list that was deleted or edited.

        Returns:
            The numbers of the requests that are listed now.

        Raises:
            SaveError: the list cannot be written; nothing was sent.
        """
        try:
            is_known, listed, self.list_mark = read_list(self.folder / METADATA, mark)
        except OSError as error:
            raise SaveError(
                f"Cannot repair {METADATA} ({error.strerror or error}). Nothing was sent. Make it a file "
                "that you can write to."
            ) from None
        numbers = []
        for row in unlisted if is_known else all_rows():
            images: list[JsonMapping] = row.info.get("images", [])
            # The lines of the others are before the mark.
            doubtful = images[-row.info.get("unlisted", len(images)) :] if is_known else images
            missing = [entry for entry in doubtful if name_entry(entry) not in listed]
            if missing:
                self.list_images(missing)
            numbers.append(row.number)
        return numbers
