"""The requests of a run that may start, in a queue for each provider: none waits for the pace of another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from imgkit.bulk.bulk_values import Work


class ReadyRows:
    """The requests that may start. One thread uses them.

    >>> from imgkit.bulk.manifest import BulkRow
    >>> rows = ReadyRows()
    >>> for number, provider in enumerate(["openai", "openai", "bfl"]):
    ...     rows.append(Work(BulkRow(number, str(number), "waiting", {"provider": provider}, {})))
    >>> rows.take(lambda work: 60.0 if work.provider == "openai" else 0.0).row.number
    2
    >>> rows.take(lambda work: 60.0)
    60.0
    """

    def __init__(self) -> None:
        self._queues: dict[str | None, deque[Work]] = {}
        self._copies: deque[Work] = deque()

    def __bool__(self) -> bool:
        return bool(self._queues or self._copies)

    def append(self, work: Work) -> None:
        """Add a request behind the others of its provider."""
        if work.row.leader is not None:
            self._copies.append(work)
        else:
            self._queues.setdefault(work.provider, deque()).append(work)

    def extend(self, works: Iterable[Work]) -> None:
        """Add requests, in their order."""
        for work in works:
            self.append(work)

    def take_copy(self) -> Work | None:
        """Return the next request that copies the outcome of another, None for none. It sends nothing."""
        return self._copies.popleft() if self._copies else None

    def take(self, try_start: Callable[[Work], float]) -> Work | float:
        """Return the first request whose provider has room; else the seconds until another look.

        Args:
            try_start: starts a request and returns 0, or returns the seconds after which it should ask again.
        """
        shortest_s = 0.0
        for provider, queue in sorted(self._queues.items(), key=lambda item: item[1][0].row.number):
            wait_s = try_start(queue[0])
            if not wait_s:
                if len(queue) == 1:
                    del self._queues[provider]
                return queue.popleft()
            shortest_s = min(shortest_s or wait_s, wait_s)
        return shortest_s
