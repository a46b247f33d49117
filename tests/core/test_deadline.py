"""The deadline of an asynchronous call: one timer for many effects."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from imgkit.runtime.async_driver import Deadline, DeadlinePassed


def test_a_deadline_cancels_once_for_many_effects() -> None:
    """A deadline cancels its task once, even if several effects began after it passed."""

    async def main() -> int:
        deadline = Deadline(0)
        with deadline:
            pass
        await asyncio.sleep(0.01)  # the deadline passes outside every block
        for _ in range(3):
            with deadline:
                pass
        with pytest.raises(DeadlinePassed), deadline:
            await asyncio.sleep(5)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert asyncio.run(main()) == 0


def _finish(deadline: Any, task: Any, work: asyncio.Future[None]) -> None:
    if not work.done():
        work.set_result(None)


STEPS: dict[str, Callable[[Any, asyncio.Task[Any], asyncio.Future[None]], object]] = {
    "the deadline passes": lambda deadline, task, work: deadline._pass(),
    "somebody cancels": lambda deadline, task, work: task.cancel(),
    "the work is done": _finish,
}


@pytest.mark.parametrize("length", [1, 2, 3, 4])
@pytest.mark.parametrize("begun_before", [False, True])
def test_every_order_of_deadline_cancel_and_end(length: int, begun_before: bool) -> None:
    """Keeps every foreign cancellation, leaks none of its own, and lets the task go on."""

    async def run_steps(order: tuple[str, ...]) -> None:
        deadline, work = Deadline(1000), asyncio.get_running_loop().create_future()
        ends: list[str] = []

        async def bounded() -> None:
            if begun_before:
                with deadline:
                    pass
            try:
                async with asyncio.timeout(1000):
                    with deadline:
                        await work
                    ends.append("done")
            except DeadlinePassed:
                ends.append("deadline")
            left.append(task.cancelling())
            await asyncio.sleep(0)

        left: list[int] = []
        task = asyncio.create_task(bounded())
        await asyncio.sleep(0)
        for step in order:
            if step:
                STEPS[step](deadline, task, work)
            else:
                await asyncio.sleep(0)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(task), 5)
        deadline.close()
        first = next(step for step in order if step)
        if "somebody cancels" not in order:
            assert not task.cancelled(), order
            assert left == [0], order
            assert ends == ["deadline" if first == "the deadline passes" else "done"] or len(set(order)) > 1
        elif first == "somebody cancels":
            assert task.cancelled(), order

    async def main() -> None:
        for order in itertools.product(["", *STEPS], repeat=length):
            if any(order):
                await run_steps(order)

    asyncio.run(main())
