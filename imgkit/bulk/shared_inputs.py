"""The input images that rows of a run share: each file is opened, checked and hashed once.

A run keeps the latest files open. Their bytes stay on the disk, so that large images cost no memory. Each row
looks at the status of its file first: a file that has changed, or was replaced, is opened anew.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from contextlib import ExitStack
from typing import TypeAlias

from imgkit.fork import ForkRegistry
from imgkit.images.inputs import ImageFile, RawFile, open_file, validate_image
from imgkit.wire.json_values import is_data_url

MAX_OPEN_FILES = 32
"""Files that a run keeps open while no row needs them. A row has up to 18."""

_Status: TypeAlias = tuple[int, int, int, int, int]


class _SharedFile:
    """A file that rows share. Threads open it one after the other, under its guard.

    Attributes:
        path: its path, as the rows give it.
        status: its status before it was opened.
        guard: held while it is opened, checked or hashed.
        raw: the opened file once it is checked, None before.
        image: the same with its digest, None before a row needs it.
        cleanup: closes it.
        rows: number of rows that use it.
        is_retired: it is closed with the last of them.
    """

    def __init__(self, path: str, status: _Status) -> None:
        self.path = path
        self.status = status
        self.guard = threading.Lock()
        self.raw: RawFile | None = None
        self.image: ImageFile | None = None
        self.cleanup = ExitStack()
        self.rows = 0
        self.is_retired = False


class SharedInputs:
    """The input images of a run. Any thread may use them."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, _SharedFile] = OrderedDict()
        self._guard = threading.Lock()
        _INPUTS.add(self)

    def open_file(
        self, value: object, field: str, cleanup: ExitStack, deadline: float | None = None
    ) -> RawFile:
        """Open an image input like `imgkit.images.inputs.open_file`, and hash an image at a path. May block.

        Args:
            value, field, cleanup, deadline: as for that function.

        Returns:
            The opened input; an `ImageFile` for a path, with its digest.

        Raises:
            InvalidRequestError: as `imgkit.images.inputs.open_input`.
        """
        shared = self._hold(value, cleanup)
        if shared is None:
            return open_file(value, field, cleanup, deadline)
        with shared.guard:
            image = shared.image
            if image is None:
                image = shared.image = ImageFile.from_raw(self._open(shared, field).for_field(field))
        return image.for_field(field)

    def open_checked(self, path: str, field: str, cleanup: ExitStack) -> RawFile:
        """Open an image and check its header and its end marker, without reading all of it. May block.

        Raises:
            InvalidRequestError: as `imgkit.images.inputs.open_input`.
        """
        shared = self._hold(path, cleanup)
        if shared is None:
            file = open_file(path, field, cleanup)
            validate_image(file)
            return file
        with shared.guard:
            return self._open(shared, field).for_field(field)

    def close(self) -> None:
        """Close the files that no row uses; the others are closed with their last row."""
        with self._guard:
            files = list(self._files.values())
        for shared in files:
            self._retire(shared)

    def reset(self) -> None:
        """Replace the lock in a forked child: a thread that exists only in the parent may hold it."""
        self._guard = threading.Lock()

    def _open(self, shared: _SharedFile, field: str) -> RawFile:
        """Open and check a file, unless that is done."""
        if shared.raw is None:
            try:
                raw = open_file(shared.path, field, shared.cleanup)
                validate_image(raw)
            except BaseException:
                self._retire(shared)  # the next row looks again
                raise
            shared.raw = raw
        return shared.raw

    def _hold(self, value: object, cleanup: ExitStack) -> _SharedFile | None:
        """Return the file of a path, which stays open until `cleanup`; None for any other input."""
        if type(value) is not str or is_data_url(value):
            return None
        status = _read_status(value)
        if status is None:
            return None
        with self._guard:
            shared = self._files.get(value)
            stale = [] if shared is None or shared.status == status else [shared]
            if shared is None or stale:
                shared = self._files[value] = _SharedFile(value, status)
            self._files.move_to_end(value)
            shared.rows += 1
            while len(self._files) > MAX_OPEN_FILES:
                stale.append(self._files.popitem(last=False)[1])
        cleanup.callback(self._release, shared)
        for each in stale:
            self._retire(each)
        return shared

    def _release(self, shared: _SharedFile) -> None:
        with self._guard:
            shared.rows -= 1
            is_over = shared.is_retired and not shared.rows
        if is_over:
            shared.cleanup.close()

    def _retire(self, shared: _SharedFile) -> None:
        """Give a file to no further row, and close it once no row uses it."""
        with self._guard:
            if self._files.get(shared.path) is shared:
                del self._files[shared.path]
            shared.is_retired = True
            is_over = not shared.rows
        if is_over:
            shared.cleanup.close()


def _read_status(path: str) -> _Status | None:
    """Return the facts that change with the bytes of a file; None if it is missing, or no regular file."""
    try:
        now = os.stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(now.st_mode):
        return None
    return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns


_INPUTS: ForkRegistry[SharedInputs] = ForkRegistry(SharedInputs.reset)
