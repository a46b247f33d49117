"""The deadline of an asynchronous call: one timer, many needs."""

from __future__ import annotations

import asyncio

import pytest

from imgkit.async_driver import Deadline, DeadlinePassed


def test_a_deadline_cancels_once_however_many_needs_began_after_it() -> None:
    """Reads that need not wait leave their timers behind; only one of these may cancel."""

    async def main() -> int:
        deadline = Deadline(0)
        with deadline:
            pass
        await asyncio.sleep(0.01)  # it passes while nothing is bounded
        for _ in range(3):
            with deadline:
                pass
        with pytest.raises(DeadlinePassed), deadline:
            await asyncio.sleep(5)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert asyncio.run(main()) == 0
