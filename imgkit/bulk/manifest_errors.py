"""The errors of a manifest: its folder, its file, and requests that do not fit to it.

A folder must be on a disk of this machine: SQLite's log needs memory that its users share.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from imgkit.bulk.row_values import NewRow
from imgkit.errors import ConfigurationError, InvalidRequestError

MOUNTS = Path("/proc/self/mounts")

_NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ncpfs", "ceph", "glusterfs", "lustre"),
        *("gpfs", "beegfs", "davfs", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone"),
        *("fuse.goofys", "fuse.mountpoint-s3", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse"),
        *("fuse.davfs2", "fuse.curlftpfs", "fuse.blobfuse", "fuse.blobfuse2", "fuse.juicefs"),
    }
)


def find_network_file_system(folder: Path) -> str | None:
    """Return the type of the network file system that has a folder; None for a local one, or if unknown.

    The folder need not exist.
    """
    try:
        # Names are bytes in the encoding of the file system.
        lines = MOUNTS.read_text("utf-8", "surrogateescape").splitlines()
        path = os.path.realpath(folder)
    except OSError:
        return None  # this system lists no mounts
    return find_mount_type(path, lines)


def find_mount_type(path: str, lines: Iterable[str]) -> str | None:
    """Return the type of the network file system that has an absolute path, None for another.

    >>> find_mount_type("/data/out", ["/dev/sda / ext4 rw 0 0", "host:/x /data nfs4 rw 0 0"])
    'nfs4'

    Args:
        path: the path, without symbolic links.
        lines: the mounts as Linux lists them.
    """
    best, kind = "", ""
    for line in lines:
        words = line.split(" ")
        if len(words) < 3:
            continue
        # Linux writes spaces as \040.
        point = words[1].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        inside = point == "/" or path == point or path.startswith(point + "/")
        if inside and len(point) >= len(best):  # a later mount hides an earlier one
            best, kind = point, words[2]
    if kind == "9p" and best == "/":  # the root of a sandbox, which is its local disk
        return None
    return kind if kind in _NETWORK else None


def refuse_network_disk(folder: Path) -> None:
    """Refuse a run folder on another machine.

    Raises:
        ConfigurationError: the folder is on a network file system.
    """
    kind = find_network_file_system(folder)
    if kind is not None:
        raise ConfigurationError(
            f"{str(folder)[:200]!r} is on a network file system ({kind}), which may damage a manifest.",
            hint="Pass a run_folder=… on a local disk. The images may stay where they are.",
            field="run_folder",
        )


def refuse_repeated_id(row: NewRow, place: int) -> None:
    """Raise InvalidRequestError for a request whose id is that of another, at a place."""
    raise InvalidRequestError({"id": f"Two requests have the id {row.id[:80]!r}. The other is row {place}."})


def foreign_run_error(folder: Path, row_id: str) -> ConfigurationError:
    """Return the error of a folder whose run has none of the requests, but another, `row_id`."""
    return ConfigurationError(
        f"{str(folder)[:200]!r} belongs to another run: its requests, such as {row_id[:80]!r}, are not in "
        "this input.",
        hint="Give another folder, or pass extend=True to add the requests to that run.",
        field="extend",
    )


def unusable_error(folder: Path, problem: str) -> ConfigurationError:
    """Return the error of a manifest that cannot be used."""
    return ConfigurationError(
        f"The manifest in {str(folder)[:200]!r} cannot be used: {problem}. Give another run folder, on a "
        "local disk."
    )


def lost_manifest_error(folder: Path, run_folder: Path) -> ConfigurationError:
    """Return the error of images whose manifest is not in the run folder."""
    return ConfigurationError(
        f"{str(folder)[:200]!r} has the images of a run, but its manifest is not in "
        f"{str(run_folder)[:200]!r}, or is empty. Give the run folder of that run, or another output folder."
    )


def lost_images_error(folder: Path, run_folder: Path) -> ConfigurationError:
    """Return the error of a run folder whose images are not in the output folder."""
    return ConfigurationError(
        f"The images of this run are not in {str(folder)[:200]!r}. Give the output folder that has them, or "
        f"another run folder in place of {str(run_folder)[:200]!r}."
    )


def missing_state_folder_error() -> ConfigurationError:
    """Return the error of a service that keeps no replies."""
    return ConfigurationError(
        "A run needs a state folder, which keeps replies until their images are saved. Give the service a "
        "state_folder=…, or set IMGKIT_HOME.",
        field="state_folder",
    )
