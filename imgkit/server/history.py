"""The last calls of a server, and their sums, for its page."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from decimal import Decimal

from imgkit.server.calls import ServedCall

MOST_SHOWN = 50
MAX_PROMPT_CHARACTERS = 300
MOST_WARNINGS = 1000
"""Most warnings that are told; a server runs for weeks."""


class History:
    """The last calls, and the sums of all calls.

    Args:
        has_prompts: show prompts.
        warn: is given each warning of a call, once.

    Attributes:
        started_at: Unix time in seconds.
        cost_usd: the sum of the known costs.
        unpriced: number of calls that were sent and whose cost is not known.
    """

    def __init__(self, *, has_prompts: bool, warn: Callable[[str], None] = lambda text: None) -> None:
        self._has_prompts = has_prompts
        self._warn = warn
        self._warned: set[str] = set()
        self._calls: deque[ServedCall] = deque(maxlen=MOST_SHOWN)
        self._counts: Counter[str] = Counter()
        self.started_at = round(time.time(), 3)
        self.cost_usd = Decimal(0)
        self.unpriced = 0

    def note_start(self, call: ServedCall) -> None:
        """Add a call that begins."""
        self._counts["running"] += 1
        self._calls.append(call)

    def note_join(self, call: ServedCall) -> None:
        """Count a repetition that was given the reply of a call."""
        call.joined += 1
        self._counts["joined"] += 1

    def note_end(self, call: ServedCall) -> None:
        """Count a call that has ended."""
        self._counts["running"] -= 1
        self._counts[call.state] += 1
        cost = find_cost(call)
        if cost is not None:
            self.cost_usd += cost
        elif call.was_sent() and call.state != "failed":
            self.unpriced += 1
        for text in () if call.response is None else call.response.warnings:
            if text not in self._warned and len(self._warned) < MOST_WARNINGS:
                self._warned.add(text)
                self._warn(text)

    @property
    def counts(self) -> dict[str, int]:
        """Number of calls by state, and of repetitions that were joined."""
        return {name: self._counts[name] for name in ("running", "done", "failed", "unknown", "joined")}

    @property
    def calls(self) -> list[ServedCall]:
        """The last calls, the oldest first."""
        return list(self._calls)

    def list_calls(self) -> list[dict[str, object]]:
        """Return facts about the last calls, the newest first, as JSON values."""
        return [self.describe(call) for call in reversed(self._calls)]

    def describe(self, call: ServedCall) -> dict[str, object]:
        """Return facts about a call, as JSON values."""
        response, cost = call.response, find_cost(call)
        prompt = call.prompt if self._has_prompts else None
        return {
            "id": call.id,
            "at": round(call.started_at, 3),
            "operation": call.operation,
            "model": call.model,
            "provider": call.provider,
            "state": call.state,
            "status": call.status,
            "elapsed_s": None if call.elapsed_s is None else round(call.elapsed_s, 3),
            "images": None if response is None else len(response.images),
            "cost_usd": None if cost is None else f"{cost:f}",
            "cached": response is not None and response.meta.cached,
            "warnings": [] if response is None else list(response.warnings),
            "joined": call.joined,
            "clients": call.readers,
            "prompt": prompt and prompt[:MAX_PROMPT_CHARACTERS],
            "error": call.error if self._has_prompts else call.error and call.error.partition(".")[0][:120],
        }


def find_cost(call: ServedCall) -> Decimal | None:
    """Return the cost of a call's images in dollars: 0 if nothing was sent, None if it is not known."""
    response = call.response
    if response is None:
        return None
    if response.meta.cached or not call.was_sent():
        return Decimal(0)
    cost = response.cost
    return cost.amount if cost.known and cost.currency == "USD" else None
