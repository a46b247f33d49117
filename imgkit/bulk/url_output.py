"""The output of a run at a URL: images and their list, each written whole; the manifest is a local file."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path

from imgkit.bulk.image_lines import encode_lines, iterate_images
from imgkit.bulk.manifest import BulkRow, Manifest
from imgkit.bulk.output import METADATA, DigestPlan, Output, damaged_name, image_name
from imgkit.bulk.url_store import UrlStore, is_cut_url, is_url
from imgkit.errors import ConfigurationError, SaveError
from imgkit.files import remove_after
from imgkit.images.image import Image
from imgkit.images.sidecars import SavableImage
from imgkit.wire.json_values import Json, JsonMapping

STAGING = "outgoing"
"""Folder in the run folder in which images wait for their upload."""

RUN_FILE = ".imgkit-run.json"
"""Object that names the run whose images are at a URL."""

CHECKPOINT_ROWS, CHECKPOINT_S = 1000, 60.0
"""Requests, or seconds, after which the list is written anew."""

LIST_SHARE = 20
"""A checkpoint waits this many times as long as the latest one took: lists of a million lines take long."""

_STAGED = re.compile(r"(?:[0-9a-f]{64}|list)-[0-9a-f]{12}\.[a-z]+|\..+\.part")
"""Names in the staging folder. Others belong to a user."""


class StagingPlan(DigestPlan):
    """A save plan whose files wait for their upload, each under a name of its own."""

    def build_path(self, image: SavableImage, digest: str, count: int) -> Path:
        """Return the path of an image."""
        path = Path(image_name(image, digest))
        return self.folder / f"{path.stem}-{secrets.token_hex(6)}{path.suffix}"


class UrlOutput(Output):
    """The output of a run at a URL. Its methods may block; any thread may call them.

    An image is at the URL before its request counts as done. So a network that fails costs no image: the
    reply stays in the spool, and the next run delivers it. An object cannot be appended to, so checkpoints
    write the list anew from the manifest.

    Args:
        store: the place.
        run_folder: the local folder of the run.
        has_prompts: list the prompts, too.
    """

    def __init__(self, store: UrlStore, run_folder: Path, *, has_prompts: bool = True) -> None:
        super().__init__(run_folder / STAGING, has_prompts=has_prompts)
        self.plan = StagingPlan.for_folder(self.folder)
        self.url = store.url
        self._store = store
        self._manifest: Manifest | None = None
        self._guard = threading.Lock()
        self._is_listed = True
        self._list_bytes: int | None = None
        self._new_rows = 0
        self._due_at = self._not_before = 0.0

    @property
    def has_images(self) -> bool:
        """False: `claim` finds out by the mark of the run."""
        return False

    def claim(self, manifest: Manifest) -> None:
        """Check that the URL can be written to, and take it for the run of a manifest.

        Raises:
            InvalidRequestError: the staging folder cannot be written to.
            ConfigurationError: the URL cannot be used, or another run has its images there.
        """
        super().claim(manifest)
        for path in self.folder.iterdir():
            if _STAGED.fullmatch(path.name):
                with suppress(OSError):  # a killed process has left it, and it takes only room
                    path.unlink()
        try:
            self._claim_url(manifest.read_token(), has_images=any(iterate_images(manifest)))
        except SaveError as error:
            raise ConfigurationError(f"{error} Nothing was sent.") from None
        self._manifest = manifest
        self._is_listed = manifest.read_fact("list_bytes") == self._list_bytes
        self._due_at = time.monotonic() + CHECKPOINT_S

    def _claim_url(self, run_id: str, *, has_images: bool) -> None:
        """Write the mark of the run, which shows that the URL can be written to; read it again."""
        self._list_bytes = self._store.measure(METADATA)
        mark = json.dumps({"imgkit_run": 1, "id": run_id}).encode()
        found = self._store.read(RUN_FILE)
        if found is None and has_images:
            raise ConfigurationError(
                f"The images of this run are no longer at {self.url}: {RUN_FILE} is missing there. Give the "
                "URL that has them, or another run folder to make all images again."
            )
        if found == mark or (found is None and self._list_bytes is None):
            self._store.write(RUN_FILE, mark)
            found = self._store.read(RUN_FILE)
        if found != mark:
            raise ConfigurationError(
                f"{self.url} holds the images of another run. Give the folder of that run (run_folder=…, "
                f"--run FOLDER), or another URL. If that folder is lost, move {METADATA} and {RUN_FILE} away."
            )

    def publish(self, images: Sequence[Image]) -> None:
        """Upload saved images, then remove their files. Equal images are one object.

        Raises:
            ImgkitError: the URL rejects an image.
        """
        for image in images:
            self._upload(image, self._name_image(image))
        for image in images:
            _remove_staged(image)

    def set_aside(self, image: Image) -> str:
        """Upload the bytes of a damaged image under a name of no image format, and return the name.

        Raises:
            ImgkitError: the URL rejects them.
        """
        name = damaged_name(image)
        self._upload(image, name)
        _remove_staged(image)
        return name

    def _upload(self, image: Image, name: str) -> None:
        if image.path is None:
            raise SaveError(f"Image {image.index} has no file to upload.", images=(image,))
        self._store.write(name, image.path)

    def _name_image(self, image: Image) -> str:
        """Return the name of a saved image at the URL."""
        return image_name(image, image.sha256)

    def list_images(self, entries: Iterable[JsonMapping]) -> None:
        """Count images that the manifest has and the list may lack.

        Raises:
            ConfigurationError: the manifest cannot be written.
        """
        if self._is_listed:
            self._find_manifest().write_fact("list_bytes", -1)
            self._is_listed = False
        self._new_rows += 1

    def checkpoint(self) -> None:
        """Write the list anew where that is due.

        Raises:
            ImgkitError: the URL rejects the list; the next run writes it.
        """
        with self._guard:
            now = time.monotonic()
            is_due = self._new_rows >= CHECKPOINT_ROWS or (self._new_rows > 0 and now >= self._due_at)
            if now < self._not_before or not is_due:
                return
            self._new_rows, self._not_before = 0, math.inf  # one at a time
        self._write_list(self._find_manifest())

    def finish(self) -> None:
        """Write the list as a whole, if it lacks an image.

        Raises:
            ImgkitError: the URL rejects the list; the next run writes it.
        """
        if not self._is_listed:
            manifest = self._find_manifest()
            manifest.write_fact("list_bytes", self._write_list(manifest))
            self._is_listed = True

    def _write_list(self, manifest: Manifest) -> int:
        """Write the list from the manifest, and return its size; the next checkpoint then waits."""
        started = time.monotonic()
        staged = self.folder / f"list-{secrets.token_hex(6)}.jsonl"
        try:
            with remove_after(staged):
                with staged.open("xb") as stream:
                    stream.writelines(encode_lines([entry]) for entry in iterate_images(manifest))
                self._store.write(METADATA, staged)
                return staged.stat().st_size
        except OSError as error:
            raise SaveError(
                f"Cannot write {METADATA} ({error.strerror or error}). The images are complete; the next run "
                "lists them. Free disk space."
            ) from None
        finally:
            now = time.monotonic()
            self._not_before = now + LIST_SHARE * (now - started)
            self._due_at = max(now + CHECKPOINT_S, self._not_before)

    def open_parts(self, token: str) -> None:
        """Keep incomplete images in the staging folder, which belongs to the run."""

    def repair_list(
        self, mark: Json, unlisted: Iterable[BulkRow], all_rows: Callable[[], Iterable[BulkRow]]
    ) -> list[int]:
        """Let `finish` write the list anew if requests may be missing from it; return their numbers."""
        numbers = [row.number for row in unlisted]
        if numbers:
            self._find_manifest().write_fact("list_bytes", -1)
            self._is_listed = False
        return numbers

    def drop_lines(self, dropped: Iterable[JsonMapping], current: Iterable[JsonMapping]) -> None:
        """Let `finish` write the list anew from the manifest."""
        self._find_manifest().write_fact("list_bytes", -1)
        self._is_listed = False

    def _find_manifest(self) -> Manifest:
        if self._manifest is None:
            raise LookupError("a URL is claimed first")
        return self._manifest


def _remove_staged(image: Image) -> None:
    """Remove the local file of an image that is at the URL. The next run removes a file that stays."""
    if image.path is not None:
        with suppress(OSError):
            image.path.unlink()


def open_output(
    folder: str | PathLike[str], run_folder: str | PathLike[str] | None, *, has_prompts: bool = True
) -> Output:
    """Return the output of a run: a folder, or a URL that fsspec knows.

    >>> import tempfile
    >>> open_output(tempfile.mkdtemp(), None).url is None
    True

    Args:
        folder: the folder, or the URL.
        run_folder: the local folder of the run, None for the output folder.
        has_prompts: list the prompts, too.

    Raises:
        ConfigurationError: a name is empty, or a URL cannot be an output, has no run folder, or is in place
            of the run folder.
    """
    place = os.fspath(folder)
    manifest_place = None if run_folder is None else os.fspath(run_folder)
    if "" in (place, manifest_place):
        raise ConfigurationError("The output, or the run folder, is an empty text. Name a folder.")
    if manifest_place is not None and (is_url(manifest_place) or is_cut_url(manifest_place)):
        raise ConfigurationError(
            "The run folder is a URL, but a manifest needs a local disk. Name a local folder (run_folder=…, "
            "--run FOLDER)."
        )
    if is_cut_url(place):
        raise ConfigurationError(
            "The output is a URL that a Path has shortened: one of its two slashes is missing. Pass a str."
        )
    for name in ("file://", "local://"):
        place = place.removeprefix(name)
    if not is_url(place):
        return Output(Path(place), has_prompts=has_prompts)
    store = UrlStore(place)
    if manifest_place is None:
        raise ConfigurationError(
            f"A run with its images at {store.url} needs a local folder for its manifest. Name it "
            "(run_folder=…, --run FOLDER)."
        )
    return UrlOutput(store, Path(manifest_place), has_prompts=has_prompts)
