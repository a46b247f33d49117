"""Many calls at once, cancelling, closing, forking, and foreign event loops."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import imgkit
from imgkit.runtime.async_driver import in_thread
from tests.support.pictures import answer, picture
from tests.support.processes import run_process, start_process
from tests.support.wire_server import WireServer, drip, hang, head, reply

IN_FLIGHT = 256


class ReplyTogether:
    """A script that replies only when all expected requests have arrived."""

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count)

    def __call__(self, line: Any) -> None:
        self._barrier.wait(20)
        reply(200, answer())(line)


@pytest.mark.parametrize("backend", ["requests", "aiohttp"])
def test_many_tasks(backend: str) -> None:
    """Keeps 256 calls of one asynchronous service in flight, on both backends."""

    async def main(base_url: str) -> list[Any]:
        async with imgkit.AsyncImageService(backend, base_url=base_url) as service:
            calls = (service.create_image(f"fox {number}") for number in range(IN_FLIGHT))
            return list(await asyncio.gather(*calls))

    with WireServer(ReplyTogether(IN_FLIGHT)) as server:
        responses = asyncio.run(main(server.base_url))
    assert len(responses) == server.posts == IN_FLIGHT
    assert len({line.body for line in server.lines}) == IN_FLIGHT


@pytest.mark.parametrize("backend", ["requests", "aiohttp"])
def test_many_threads(backend: str) -> None:
    """Serves 256 threads with one blocking service, on both backends."""
    problems: list[BaseException] = []

    def work(service: imgkit.ImageService, number: int) -> None:
        try:
            assert service.create_image(f"fox {number}")[0].data == picture()
        except BaseException as error:
            problems.append(error)

    with (
        WireServer(ReplyTogether(IN_FLIGHT)) as server,
        imgkit.ImageService(backend, base_url=server.base_url) as service,
    ):
        threads = [threading.Thread(target=work, args=(service, number)) for number in range(IN_FLIGHT)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert problems == []
    assert server.posts == IN_FLIGHT


@pytest.mark.parametrize("backend", ["requests", "aiohttp"])
def test_cancelling_one_task(backend: str) -> None:
    """Cancelling a call ends it at once, closes its connection and leaves other calls alone."""
    seen: list[Any] = []

    class Watch:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            seen.append(event)

    async def main(base_url: str) -> None:
        async with imgkit.AsyncImageService(backend, base_url=base_url, plugins=[Watch()]) as service:
            slow = asyncio.create_task(service.create_image("slow"))
            while not server.lines:
                await asyncio.sleep(0.01)
            began = time.monotonic()
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow
            assert time.monotonic() - began < 1.5
            assert (await service.create_image("fine"))[0].data == picture()

    with WireServer(hang, reply(200, answer())) as server:
        asyncio.run(main(server.base_url))
        left = [event for event in seen if type(event).__name__ == "Cancelled"]
        assert [event.maybe_billed for event in left] == [True]
        assert server.posts == 2


@pytest.mark.parametrize("backend", ["requests", "aiohttp"])
def test_ctrl_c_ends_a_blocking_call(backend: str) -> None:
    """Ctrl-C ends a blocking call at once, on both backends."""
    program = (
        "import sys, imgkit\n"
        f"with imgkit.ImageService({backend!r}, base_url=sys.argv[1]) as service:\n"
        "    try:\n"
        "        service.create_image('a fox')\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted')\n"
    )
    with WireServer(hang) as server:
        process = start_process(
            [sys.executable, "-W", "error", "-c", program, server.base_url],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        until = time.monotonic() + 20
        while not server.lines and time.monotonic() < until:
            time.sleep(0.02)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, problems = process.communicate(timeout=20)
    assert (out, problems) == ("interrupted\n", "")
    assert time.monotonic() - began < 5


def test_the_blocking_service_works_inside_a_loop(http_backend: str) -> None:
    """The blocking service works inside a running event loop, as in a notebook."""

    async def main(base_url: str) -> bytes:
        with imgkit.ImageService(http_backend, base_url=base_url) as service:
            return service.create_image("a fox")[0].data

    with WireServer(reply(200, answer())) as server:
        assert asyncio.run(main(server.base_url)) == picture()


def test_a_second_event_loop_is_refused() -> None:
    """An asynchronous service refuses calls from a second event loop."""
    service = imgkit.AsyncImageService()
    asyncio.run(service.create_image("a fox", size="256x256"))
    with pytest.raises(imgkit.ServiceClosedError, match="another event loop"):
        asyncio.run(service.create_image("a fox"))
    asyncio.run(service.close())


def test_closing_twice(flavor: Any, http_backend: str) -> None:
    """Closes twice without error, refuses later calls, and leaves no socket or session open."""

    async def later(service: Any) -> None:
        await service.create_image("a fox")
        await service.close()
        await service.close()
        with pytest.raises(imgkit.ServiceClosedError, match="closed"):
            await service.create_image("a fox")

    def work(service: Any) -> Any:
        if not isinstance(service, imgkit.ImageService):
            return later(service)
        service.create_image("a fox")
        service.close()
        service.close()
        with pytest.raises(imgkit.ServiceClosedError, match="closed"):
            service.create_image("a fox")
        return None

    with WireServer(reply(200, answer())) as server:
        flavor.run(work, backend=http_backend, base_url=server.base_url)
    # An unclosed socket or session warns when it is collected, and warnings are errors.
    gc.collect()


def test_close_leaves_no_threads_or_descriptors(http_backend: str) -> None:
    """A closed service leaves neither threads nor file descriptors behind."""

    def open_descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    others = set(threading.enumerate())
    with WireServer(reply(200, answer())) as server:
        for _ in range(3):
            with imgkit.ImageService(http_backend, base_url=server.base_url) as service:
                service.create_image("a fox")
        before = open_descriptors()
        for _ in range(5):
            with imgkit.ImageService(http_backend, base_url=server.base_url) as service:
                service.create_image("a fox")
    gc.collect()
    assert open_descriptors() <= before
    until = time.monotonic() + 5
    while any(thread.name.startswith("imgkit") for thread in set(threading.enumerate()) - others):
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("reuse", [False, True])
def test_a_forked_child_makes_its_own_calls(http_backend: str, reuse: bool) -> None:
    """A forked child makes its own calls while the parent's service goes on."""
    program = f"""
import os, sys, threading, time, warnings
warnings.simplefilter("error")
import imgkit
service = imgkit.ImageService({http_backend!r}, base_url=sys.argv[1], reuse_connections={reuse})
service.create_image("before")
busy = threading.Thread(target=service.create_image, args=("in flight",))
busy.start()
while not os.path.exists(sys.argv[2]):
    time.sleep(0.01)
child = os.fork()
if child == 0:
    service.create_image("child")
    service.close()
    os._exit(0)
_, status = os.waitpid(child, 0)
busy.join()
service.create_image("after")
service.close()
print(status)
"""
    flight = threading.Event()

    def serve(line: Any) -> None:
        while True:
            if b"in flight" in line.body:
                open(mark, "w").close()
                flight.wait(20)
            if b"child" in line.body:
                flight.set()
            line.send(
                head(200, {"content-type": "application/json", "content-length": str(len(body))}) + body
            )
            if not reuse or not line.read_request():
                return

    body = json.dumps(answer()).encode()
    with tempfile.TemporaryDirectory() as folder, WireServer(serve) as server:
        mark = os.path.join(folder, "in-flight")
        done = run_process(
            [sys.executable, "-c", program, server.base_url, mark],
            capture_output=True, text=True, timeout=40, check=False,
        )  # fmt: skip
    assert (done.stdout, done.stderr) == ("0\n", "")


def find_watchdogs() -> set[threading.Thread]:
    """Return the watchdog threads of all services."""
    return {thread for thread in threading.enumerate() if thread.name == "imgkit-watchdog"}


def test_calls_share_one_watchdog_thread() -> None:
    """Fifty calls share one watchdog thread, and each ends at its own deadline."""
    before = find_watchdogs()
    with (
        WireServer(drip(b"", head(200, {"content-length": "9"}))) as server,
        imgkit.ImageService("requests", base_url=server.base_url) as service,
    ):
        ends: list[float] = []

        def work(timeout_s: float) -> None:
            began = time.monotonic()
            # The error is a NotSentError if the machine is too busy to connect in time.
            with pytest.raises(imgkit.TransportError):
                service.create_image("a fox", timeout_s=timeout_s)
            ends.append(time.monotonic() - began - timeout_s)

        threads = [threading.Thread(target=work, args=(0.3 - number / 200,)) for number in range(50)]
        for thread in threads:
            thread.start()
        assert len(find_watchdogs() - before) <= 1
        for thread in threads:
            thread.join(10)
    assert len(ends) == 50
    assert all(-0.05 < late < 5 for late in ends)


def test_work_that_waits_for_a_thread_ends_with_its_service() -> None:
    """Tells a call whose work never got a thread that the service is closed."""
    release = threading.Event()

    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            busy = executor.submit(release.wait, 10)
            waiting = asyncio.ensure_future(in_thread(executor, lambda: 1))
            await asyncio.sleep(0)
            executor.shutdown(wait=False, cancel_futures=True)
            with pytest.raises(imgkit.ServiceClosedError):
                await waiting
            release.set()
            assert busy.result()

    asyncio.run(main())
