"""Images that arrive for a file: their bytes are written once, and the spools link to the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from imgkit.images.part_files import PartFile, PartFiles

SMALL_BYTES = 64 * 1024
"""A smaller image that arrives at once stays in memory, and a spool writes it."""


class SharedParts:
    """The images of one reply that part files and spools share.

    Args:
        files: the part files of the reply.
    """

    def __init__(self, files: PartFiles) -> None:
        self._files = files
        self._sharers: dict[str, list[object]] = {}

    def write(
        self, chunks: Sequence[tuple[str, bytes]], share: Callable[[str, PartFile], Iterable[object]]
    ) -> None:
        """Write chunks to part files that spools share, and let the spools share new files.

        Args:
            chunks: chunks of the reply: each is the name of its part, and its bytes.
            share: lets all spools share a part file; returns those that do.
        """
        sizes: Counter[str] = Counter()
        for part, data in chunks:
            sizes[part] += len(data)
        for part, size in sizes.items():
            file = self._files.find(part)
            if file is None:
                continue
            if part not in self._sharers:
                self._sharers[part] = []
                # The text behind an image follows its last bytes.
                if size >= SMALL_BYTES or chunks[-1][0] == part:
                    file.write()
                    if file.path is not None:
                        self._sharers[part] += share(part, file)
            elif self._sharers[part]:
                file.write()
                if file.path is None:  # the disk is full: each spool goes on with what it has
                    self._sharers[part] = []

    def is_shared(self, part: str, spool: object) -> bool:
        """Return whether a spool needs no bytes of a part, since it shares the file."""
        return any(spool is sharer for sharer in self._sharers.get(part, ()))
