"""The memory of a service for its uploads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

MAX_REMEMBERED = 256
"""Uploads that a service remembers."""


class UploadMemory:
    """The uploads of a service, by digest: an image is uploaded once. Thread-safe."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, digest: str) -> Any:
        """Return the API's handle of an upload, None if there is none."""
        with self._lock:
            return self._known.get(digest)

    def add(self, digest: str, handle: Any) -> None:
        """Remember an upload."""
        with self._lock:
            self._known[digest] = handle
            while len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
