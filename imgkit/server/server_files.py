"""The files of a server: its work folder, and in the state folder the images that no client has."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from imgkit.errors import ConfigurationError, ImgkitError
from imgkit.files import make_folders
from imgkit.images.image import Image
from imgkit.locks import FileLock
from imgkit.server.frames import find_source
from imgkit.server.settings import choose_work_folder

UNDELIVERED = "undelivered"
UNFINISHED = "unfinished.jsonl"

_LOCK = "lock"


def keep_image(state_folder: Path, image: Image) -> str:
    """Save an image with its sidecar in the state folder. May block.

    Args:
        state_folder: the state folder.
        image: the image.

    Returns:
        Its path, or why it could not be saved.
    """
    folder = state_folder / UNDELIVERED
    try:
        make_folders(folder)
        folder.chmod(0o700)
        whole = replace(image, path=None, source=find_source(image))
        stamp = time.strftime("%Y%m%d-%H%M%S")
        return str(whole.save(folder / f"{stamp}-{image.index + 1}.{image.format or 'bin'}"))
    except (ImgkitError, OSError) as error:
        return f"lost, because it could not be saved: {error}"


def list_unfinished(state_folder: Path, facts: Sequence[Mapping[str, object]]) -> Path:
    """Append calls that did not finish to a list in the state folder. May block.

    Args:
        state_folder: the state folder.
        facts: facts about each call.

    Raises:
        OSError: the list cannot be written.
    """
    make_folders(state_folder)
    path = state_folder / UNFINISHED
    with path.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(each, default=str) + "\n" for each in facts)
    return path


def open_work_folder(state_folder: Path | None) -> tuple[Path, FileLock]:
    """Make a folder for the files of a server; remove those of servers that have died.

    Returns:
        The folder, and a lock beside it that says that its server lives.

    Raises:
        ConfigurationError: the folder cannot be written, or belongs to another user.
    """
    parent = choose_work_folder(state_folder)
    try:
        if state_folder is None:
            _make_private_folder(parent)
        else:
            make_folders(parent)
        lock = None
        while lock is None:  # a server that starts at the same time may take the lock for that of a dead one
            lock = FileLock.try_acquire(parent / f"{secrets.token_hex(8)}.{_LOCK}")
        folder = lock.path.with_suffix("")
        make_folders(folder)
        folder.chmod(0o700)  # uploads and images of callers
        for other in parent.glob(f"*.{_LOCK}"):
            dead = None if other == lock.path else FileLock.try_acquire(other)
            if dead is not None:
                _clear_dead(other.with_suffix(""), state_folder)
                dead.release()
    except OSError as error:
        raise ConfigurationError(
            f"The server cannot write to {str(parent)!r} ({error.strerror or error}). Pass another "
            "--state-folder."
        ) from None
    return folder, lock


def _make_private_folder(folder: Path) -> None:
    """Make a folder that only this user can enter, where every user may make folders.

    Raises:
        OSError: the folder cannot be made.
        ConfigurationError: it is a link, or belongs to another user, who could exchange its content.
    """
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    is_own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    if not stat.S_ISDIR(found.st_mode) or not is_own:
        raise ConfigurationError(
            f"{str(folder)!r} is not a folder of this user. Its owner could read the images of callers. Pass "
            "a --state-folder, or set TMPDIR to a folder of your own."
        )
    folder.chmod(0o700)


def _clear_dead(folder: Path, state_folder: Path | None) -> None:
    """Remove the folder of a server that was killed; its images are kept."""
    if state_folder is not None:
        left = [path for path in folder.glob("*-*.*") if not path.name.startswith((".", "partial-"))]
        for path in left:
            target = state_folder / UNDELIVERED / path.name
            make_folders(target.parent)
            path.replace(target)
    shutil.rmtree(folder, ignore_errors=True)
