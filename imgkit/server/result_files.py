"""Result URLs: images that the server keeps for a while under names that nobody can guess."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import NamedTuple

from imgkit.images.image import Image
from imgkit.images.sources import Source
from imgkit.server.frames import find_source

MOST_LINKS = 10_000
"""Most images behind result URLs; the oldest expire."""

MEDIA_TYPES = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "svg": "image/svg+xml",
}


class LinkedImage(NamedTuple):
    """An image behind a result URL.

    Attributes:
        image: the image.
        source: its bytes.
        media_type: such as "image/png".
        path: its file, which belongs to the link; None for an image in memory.
        was_paid: a request was sent for it that may cost something.
    """

    image: Image
    source: Source
    media_type: str
    path: Path | None
    was_paid: bool


class ResultFiles:
    """The images behind result URLs.

    Args:
        link_s: seconds for which an image is kept.
        drop: keeps a paid image that nobody has fetched.
    """

    def __init__(self, link_s: float, drop: Callable[[Image], Coroutine[object, object, None]]) -> None:
        self._link_s = link_s
        self._drop = drop
        self._linked: dict[str, LinkedImage] = {}
        self._unfetched: set[str] = set()
        self._drops: set[asyncio.Task[None]] = set()

    def add(self, image: Image, *, was_paid: bool) -> str:
        """Keep an image for a while; return its name.

        Args:
            image: the image.
            was_paid: keep it for good if nobody fetches it.
        """
        kind = image.format
        name = f"{secrets.token_hex(16)}.{kind or 'bin'}"
        path = image.path if image.path is not None and image.path.exists() else None
        media_type = MEDIA_TYPES.get(kind or "", "application/octet-stream")
        self._linked[name] = LinkedImage(image, find_source(image), media_type, path, was_paid)
        if was_paid:
            self._unfetched.add(name)
        asyncio.get_running_loop().call_later(self._link_s, self._expire, name)
        while len(self._linked) > MOST_LINKS:
            self._expire(next(iter(self._linked)))
        return name

    def find(self, name: str) -> LinkedImage | None:
        """Return the image of a name, None if there is none any more."""
        return self._linked.get(name)

    def note_fetched(self, name: str) -> None:
        """Note that a client has the image."""
        self._unfetched.discard(name)

    async def close(self) -> None:
        """Forget all images; keep paid images that nobody has fetched."""
        linked, self._linked = self._linked, {}
        for name in sorted(self._unfetched & linked.keys()):
            await self._drop(linked[name].image)
        if self._drops:
            await asyncio.wait(self._drops)

    def _expire(self, name: str) -> None:
        linked = self._linked.pop(name, None)
        if linked is None:
            return
        task = asyncio.get_running_loop().create_task(self._remove(name, linked))
        self._drops.add(task)
        task.add_done_callback(self._drops.discard)

    async def _remove(self, name: str, linked: LinkedImage) -> None:
        if name in self._unfetched:
            self._unfetched.discard(name)
            await self._drop(linked.image)
        if linked.path is not None:
            await asyncio.to_thread(linked.path.unlink, missing_ok=True)
