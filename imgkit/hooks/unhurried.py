"""What is different when nothing is sent."""

from __future__ import annotations

from imgkit.call import Call, Outcome
from imgkit.hooks.retry import RetryPlugin
from imgkit.hookspecs import hookimpl


class Unhurried(RetryPlugin):
    """Retries as ever, without the pauses: a recorded 429 is over when it is replayed."""

    @hookimpl(trylast=True)
    def imgkit_retry_wait(self, outcome: Outcome, call: Call) -> float | None:
        """Return 0 where another try would be made, None where not."""
        return None if super().imgkit_retry_wait(outcome, call) is None else 0.0
