"""The memory of a service for its uploads: calls with the same input share one upload."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple

from imgkit.fork import ForkRegistry

MAX_REMEMBERED_UPLOADS = 256


class RememberedUpload(NamedTuple):
    """An upload that the API has.

    Attributes:
        handle: the API's handle.
    """

    handle: object


class UploadMemory:
    """The uploads of a service, by digest: an image is uploaded once. Its methods are quick and thread-safe.

    One call at a time leads an upload. The others wait until it is remembered, or until the leader has
    failed and the next of them may lead.

    Example:
        >>> memory = UploadMemory()
        >>> memory.lead("image 12ab", leader="one call"), memory.lead("image 12ab", leader="another")
        (True, False)
        >>> memory.add("image 12ab", "file-7")
        >>> memory.find("image 12ab")
        RememberedUpload(handle='file-7')
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, RememberedUpload] = OrderedDict()
        self._leaders: dict[str, object] = {}
        self._lock = threading.Lock()
        _MEMORIES.add(self)

    def find(self, digest: str) -> RememberedUpload | None:
        """Return an upload, None if there is none. `add` forgets the least recently used first."""
        with self._lock:
            known = self._known.get(digest)
            if known is not None:
                self._known.move_to_end(digest)
            return known

    def lead(self, digest: str, leader: object) -> bool:
        """Let a call upload an input, unless it is remembered or another call uploads it.

        Args:
            digest: digest of the upload.
            leader: the call, which ends its lead by `end`.

        Returns:
            Whether the call leads.
        """
        with self._lock:
            if digest in self._known or digest in self._leaders:
                return False
            self._leaders[digest] = leader
            return True

    def add(self, digest: str, handle: object) -> None:
        """Remember an upload."""
        with self._lock:
            self._known[digest] = RememberedUpload(handle)
            while len(self._known) > MAX_REMEMBERED_UPLOADS:
                self._known.popitem(last=False)

    def end(self, digest: str, leader: object) -> None:
        """End the lead of a call, whether it has uploaded or not. Another may lead if it has not."""
        with self._lock:
            if self._leaders.get(digest) is leader:
                del self._leaders[digest]

    def reset(self) -> None:
        """Forget the leaders in a forked child: they stay in the parent."""
        self._lock = threading.Lock()
        self._leaders = {}


_MEMORIES: ForkRegistry[UploadMemory] = ForkRegistry(UploadMemory.reset)
