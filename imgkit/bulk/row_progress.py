"""The progress of a row: the images that are there, the requests that are open, the images that are missing.

The manifest keeps it among the facts of the row. Most rows have one image; a row with more images than its
model makes at once has several requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal

from imgkit.bulk.bulk_values import choose_state
from imgkit.bulk.manifest import BulkRow, State
from imgkit.core.context import SentPart
from imgkit.errors import ImgkitError
from imgkit.wire.json_values import JsonMapping, JsonObject

_LASTING = ("images", "covered", "cost", "again", "lost_usd", "unpriced")
"""Facts that outlive an attempt."""

_URGENCY: tuple[State, ...] = ("accepted", "unknown", "waiting", "blocked", "failed")
"""States of a row whose requests ended in different ways, the most important first."""


class RowProgress:
    """The progress of a row in the facts that the manifest keeps of it.

    Args:
        row: the row.
        info: its facts; those of the row by default.

    Attributes:
        info: the facts, which change with the progress.
    """

    def __init__(self, row: BulkRow, info: JsonMapping | None = None) -> None:
        self.info: JsonObject = {**(row.info if info is None else info)}
        self.mark_listed()  # a run completes the list before it looks at rows
        self._count = int(row.request.get("n") or 1)
        if row.state in ("sending", "accepted", "unknown") and "sent" not in self.info:
            # Without a list of its attempts, such a row has an open one.
            call_id, attempt = self.info.get("call_id", ""), self.info.get("attempt", 1)
            self.info["sent"] = [[call_id, attempt, 0, self._count]]

    @property
    def sent(self) -> list[SentPart]:
        """The attempts that left, and whose images may still come."""
        return [SentPart(*each) for each in self.info.get("sent", ())]

    @property
    def missing(self) -> tuple[tuple[int, int], ...]:
        """The images that no request covers: pairs of the number of images before them and their count."""
        taken = [*self.info.get("covered", ()), *((part.first, part.images) for part in self.sent)]
        return tuple(_list_gaps(taken, self._count))

    @property
    def is_untouched(self) -> bool:
        """Whether all images are missing."""
        return self.missing == ((0, self._count),)

    def add_sent(self, part: SentPart) -> None:
        """Note that an attempt is about to leave."""
        self.info["sent"] = [*self.info.get("sent", ()), list(part)]

    def drop_sent(self, part: SentPart) -> bool:
        """Note that nothing will come of an attempt, or of all of a part; return False if none was open."""
        left = [each for each in self.sent if not (each.first == part.first and _matches(each, part))]
        is_changed = len(left) < len(self.sent)
        self.info["sent"] = [list(each) for each in left]
        return is_changed

    def end_part(self, part: SentPart) -> None:
        """Note that the reply to a part was delivered. Earlier attempts may be billed, too."""
        if sum(each.first == part.first for each in self.sent) > 1:
            self.info["unpriced"] = True
        self.drop_sent(part._replace(attempt=0))

    def add_images(self, entries: list[JsonObject], parts: Iterable[SentPart]) -> None:
        """Note the saved images of some requests, which the output does not list yet."""
        self.info["unlisted"] = self.info.get("unlisted", 0) + len(entries)
        self.info["images"] = [*self.info.get("images", ()), *entries]
        for part in parts:
            self.end_part(part)
            self.info["covered"] = [*self.info.get("covered", ()), [part.first, part.images]]

    def lose_images(self, entries: list[JsonObject]) -> None:
        """Note that the files of some images are missing in the output."""
        self.info.setdefault("sent", [])  # nothing is open
        self.info["images"] = [entry for entry in self.info["images"] if entry not in entries]
        self.info["lost"] = [*self.info.get("lost", ()), *entries]
        lost = {entry["index"] for entry in entries}
        ranges = self.info.get("covered") or [[0, self._count]]
        covered = {place for first, count in ranges for place in range(first, first + count)}
        self.info["covered"] = [[place, 1] for place in sorted(covered - lost)]

    def find_images(self, entries: list[JsonObject]) -> None:
        """Note that the files of missing images are back; the output does not list them yet."""
        self.info.pop("error", None)
        self.info["lost"] = [entry for entry in self.info["lost"] if entry not in entries]
        parts = [SentPart("", 0, entry["index"], 1) for entry in entries]
        self.add_images(entries, parts)

    def mark_listed(self) -> None:
        """Note that the output lists all images."""
        self.info.pop("unlisted", None)

    def choose_state(self, errors: Iterable[ImgkitError] = ()) -> State:
        """Return what became of the row, after errors of some of its requests."""
        states = {choose_state(error) for error in errors}
        if self.sent and "accepted" not in states:
            states.add("unknown")
        found = next((state for state in _URGENCY if state in states), None)
        return found or ("waiting" if self.missing else "done")

    def count_lost(self, estimate: Callable[[int], Decimal | None]) -> Decimal:
        """Note that the row is sent again: what is open counts as spent. Return its highest cost.

        Args:
            estimate: returns the highest cost of some images in dollars, None if it is not known.
        """
        self.info["again"] = True
        images = sum(part.images for part in self.sent)
        if not images and "cost" in self.info:
            return Decimal(0)  # the images were delivered, and are damaged or deleted
        most = estimate(images or sum(count for _, count in self.missing))
        if most is None:
            self.info["unpriced"] = True
            return Decimal(0)
        self.info["lost_usd"] = str(Decimal(self.info.get("lost_usd", "0")) + most)
        return most

    def keep_lasting(self) -> JsonObject:
        """Return the facts that stay when the row waits for another attempt."""
        return {name: self.info[name] for name in _LASTING if name in self.info}


def _matches(sent: SentPart, part: SentPart) -> bool:
    return not part.attempt or (sent.call_id, sent.attempt) == (part.call_id, part.attempt)


def _list_gaps(ranges: Iterable[tuple[int, int]], count: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of `count` images that no range has."""
    start = 0
    for first, length in sorted(map(tuple, ranges)):
        if first > start:
            yield start, first - start
        start = max(start, first + length)
    if start < count:
        yield start, count - start
