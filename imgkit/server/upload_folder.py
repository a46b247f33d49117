"""The images of requests on the disk, with a limit for all of them together."""

from __future__ import annotations

import shutil
from pathlib import Path

from imgkit.images.part_files import PartFile, PartFiles
from imgkit.server.envelopes import Rejection


class UploadFolder:
    """The folder for images of requests.

    Args:
        path: the folder.
        max_bytes: most bytes of all images at once; half of the free disk if that is less.
        max_body_bytes: largest request; there is room for one in any case.
    """

    def __init__(self, path: Path, max_bytes: int, max_body_bytes: int) -> None:
        self.path = path
        # The other half is for the replies, which are paid for.
        self._max_bytes = max(min(max_bytes, shutil.disk_usage(path).free // 2), max_body_bytes)
        # A sum could lose a change: the garbage collector may end a file while another is counted.
        self._sizes: dict[int, int] = {}

    def new_file(self) -> PartFile:
        """Return a file for an image."""
        return UploadFile(self)

    def new_files(self) -> PartFiles:
        """Return files for the images of a request."""
        return UploadFiles(self)

    def reserve(self, file: UploadFile) -> None:
        """Count the bytes of a file, which is about to be written.

        Raises:
            Rejection: there is no room.
        """
        self._sizes[id(file)] = file.length
        if sum(list(self._sizes.values())) > self._max_bytes:
            self.forget(file)
            raise Rejection(
                503,
                "server_busy",
                "The images of other requests fill the space for uploads. Nothing was sent. Send the request "
                "again later.",
                headers={"x-should-retry": "true", "retry-after": "5"},
                closes=True,
            )

    def forget(self, file: UploadFile) -> None:
        """Count the bytes of a file no longer. Idempotent."""
        self._sizes.pop(id(file), None)


class UploadFiles(PartFiles):
    """The images of a request that arrive at the same time.

    Args:
        uploads: their folder.
    """

    def __init__(self, uploads: UploadFolder) -> None:
        super().__init__(uploads.path, digests=True)
        self._uploads = uploads

    def make_file(self, folder: Path, digest: bool) -> PartFile:
        """Return a new file."""
        return UploadFile(self._uploads)


class UploadFile(PartFile):
    """An image of a request: in memory while it is small, then in a file that counts.

    Args:
        uploads: its folder.
    """

    _uploads: UploadFolder | None = None

    def __init__(self, uploads: UploadFolder) -> None:
        super().__init__(uploads.path, digest=True)
        self._uploads = uploads

    def write(self) -> None:
        """Write the buffer to disk; see `PartFile.write`.

        Raises:
            Rejection: the images of other requests leave no room.
        """
        if self._uploads is not None:
            self._uploads.reserve(self)
        super().write()

    def discard(self) -> None:
        """Delete the file, and make room for others. Idempotent."""
        super().discard()
        if self._uploads is not None:
            self._uploads.forget(self)
