"""The deadline of an asynchronous call: one timer for many effects."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import imgkit
from imgkit.runtime.async_driver import AsyncDriver, Deadline, DeadlinePassed
from imgkit.runtime.flow import Finished, Flow, SendRequest
from imgkit.wire.messages import BytesBody, HttpRequest
from imgkit.wire.transfer import DriverTransfer, Transfer


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


class SilentBackend:
    """A backend that never gets a reply, and declares no timeout as a failure of the wire."""

    wire_errors: tuple[type[Exception], ...] = (ValueError,)
    unsent_errors: tuple[type[Exception], ...] = ()

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s
        self.aborts = 0

    def count_abort(self) -> None:
        self.aborts += 1

    async def open(self, request: HttpRequest, transfer: Transfer) -> Any:
        transfer.on_abort(self.count_abort)
        await asyncio.sleep(self.wait_s)
        raise ValueError("no reply")

    async def aclose(self) -> None: ...


def test_the_deadline_aborts_the_request() -> None:
    """Aborts a request at the deadline, whatever the backend calls a timeout."""
    backend = SilentBackend(10)

    async def main() -> None:
        async with imgkit.AsyncImageService(backend, base_url="http://127.0.0.1:1/v1") as service:
            with pytest.raises(imgkit.OutcomeUnknownError, match=r"within 0\.04 s"):
                await service.create_image("a fox", timeout_s=0.04)

    asyncio.run(main())
    assert backend.aborts == 1


def test_an_ended_call_leaves_no_timer() -> None:
    """The event loop holds nothing of a call that ended before its deadline."""

    def flow() -> Flow[None]:
        with contextlib.suppress(imgkit.ImgkitError):
            yield SendRequest(HttpRequest("POST", "http://127.0.0.1:1/v1", {}, BytesBody(b"{}")))

    async def main() -> None:
        driver = AsyncDriver(flow(), SilentBackend(0), DriverTransfer(100, 5, 5), lambda _: executor)
        assert isinstance(await driver.run_to_end(), Finished)
        deadline = weakref.ref(driver._deadline)
        del driver
        assert deadline() is None

    with ThreadPoolExecutor(1) as executor:
        asyncio.run(main())


def test_a_call_outside_a_task() -> None:
    """A call that no task runs says so."""

    async def main() -> str:
        loop = asyncio.get_running_loop()
        end: asyncio.Future[str] = loop.create_future()

        def call() -> None:
            coroutine = service.create_image("a fox")
            try:
                coroutine.send(None)
            except Exception as error:
                end.set_result(f"{type(error).__name__}: {error}")

        async with imgkit.AsyncImageService(SilentBackend(0), base_url="http://127.0.0.1:1/v1") as service:
            loop.call_soon(call)
            return await end

    assert (
        asyncio.run(main())
        == "RuntimeError: A call of an AsyncImageService runs in a task of its event loop."
    )
