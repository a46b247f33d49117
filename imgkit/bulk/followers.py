"""Rows that ask for the same as another: they copy its outcome, and nothing is sent for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from decimal import Decimal

from imgkit.bulk.bulk_values import BulkOutcome
from imgkit.bulk.image_lines import name_entry
from imgkit.bulk.manifest import BulkRow, Manifest
from imgkit.bulk.row_calls import RunFiles
from imgkit.errors import ImgkitError
from imgkit.wire.json_values import JsonMapping, JsonObject


class Followers:
    """The followers whose leaders have ended. One thread uses it."""

    def __init__(self) -> None:
        self._leaders: deque[int] = deque()
        self._listed: dict[int, int] = {}
        self._started: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._leaders)

    def release(self, leaders: Iterable[int]) -> None:
        """Let the followers of these requests copy."""
        self._leaders.extend(leaders)

    def list_next(self, manifest: Manifest, limit: int) -> list[BulkRow]:
        """Return the next followers that may copy. None is returned twice. May block."""
        leader = self._leaders[0]
        rows = manifest.list_followers(leader, self._listed.get(leader, 0), limit)
        if rows:
            self._listed[leader] = rows[-1].number
        else:
            self._leaders.popleft()
        return rows

    def note_start(self, row: BulkRow) -> None:
        """Note that a follower copies."""
        self._started.add(row.id)

    def note_end(self, outcome: BulkOutcome) -> bool:
        """Return whether an outcome is that of a follower, and note its end."""
        is_copy = outcome.id in self._started
        self._started.discard(outcome.id)
        return is_copy


def copy_outcome(files: RunFiles, row: BulkRow) -> BulkOutcome:
    """Give a follower the outcome of its leader, and list the images under its own id. May block.

    Args:
        files: the files of the run.
        row: the follower; its leader has ended.
    """
    leader = files.manifest.find_number(row.leader or 0)
    if leader is None:
        raise LookupError(f"row {row.number} follows none")
    images: list[JsonMapping] = leader.info.get("images", [])
    # The leader has paid for them.
    entries: list[JsonObject] = [{**entry, "id": row.id, "cost": 0.0} for entry in images]
    known = {name_entry(entry) for entry in row.info.get("images", ())}  # an earlier copy has listed them
    new = [entry for entry in entries if name_entry(entry) not in known]
    entries = [*(entry for entry in entries if name_entry(entry) in known), *new]
    shared = {name: leader.info[name] for name in ("error", "retry", "covered") if name in leader.info}
    info: JsonObject = {
        **shared,
        "copied": leader.id,
        "images": entries,
        "unlisted": len(new),
        "cost": "0",
    }
    files.manifest.mark(row.number, leader.state, info, durable=False, is_listed=False)
    error: ImgkitError | None = None
    if "error" in shared:
        error = ImgkitError(f"The equal request {leader.id[:80]!r} ended so: {shared['error']}")
    if new:
        try:
            files.list_images(row.number, new)
        except ImgkitError as problem:  # the next run lists them
            files.stop(problem)
    paths, urls = files.output.find_places(entries)
    return BulkOutcome(row.id, leader.state, paths, Decimal(0), error, urls)
