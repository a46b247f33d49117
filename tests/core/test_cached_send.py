"""Concurrent identical calls, as threads, tasks and processes: one pays, and all get its result."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit import CachePlugin
from imgkit.cache.flights import join_flight
from imgkit.cache.folder import FolderStore
from imgkit.cache.memory import MemoryStore
from imgkit.core.core import Core
from imgkit.core.operations import OperationFlows
from imgkit.plugins.events import Failed
from imgkit.runtime.flow import Finished, ReadChunk, RunBlocking, SendRequest, Sleep, advance
from imgkit.wire.messages import Head
from tests.support.pictures import answer, picture
from tests.support.processes import start_process
from tests.support.wire_server import Line, Script, WireServer, drop, head, raw, reply

MANY = 10
SETTINGS: dict[str, Any] = {"api_key": "sk-test", "timeout_s": 30, "retry": False}


class Gate:
    """A server script that waits for the test before it replies."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.asked = threading.Event()
        self.open = threading.Event()

    def __call__(self, line: Line) -> None:
        self.asked.set()
        self.open.wait(20)
        self._script(line)


@pytest.fixture(params=["memory", "folder"])
def store(request: Any, tmp_path: Path) -> Any:
    return MemoryStore() if request.param == "memory" else FolderStore(tmp_path / "cache")


class Waiters:
    """A store that counts the waiting calls."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.names: set[Any] = set()

    def try_lease(self, key: str, **more: Any) -> Any:
        answer = self._store.try_lease(key, **more)
        if more["waited_for"]:
            self.names.add((threading.get_ident(), id(answer)))
        return answer

    def commit(self, lease: Any, entry: Any) -> None:
        self._store.commit(lease, entry)

    def abandon(self, lease: Any, failure: Any = None) -> None:
        self._store.abandon(lease, failure)


def result_or_error(call: Any) -> Any:
    """Return the result of a call, or the imgkit error that it raises."""
    try:
        return call()
    except imgkit.ImgkitError as error:
        return error


def run_as_threads(server: WireServer, backend: str, gate: Gate, **settings: Any) -> list[Any]:
    """Run MANY identical calls in threads; return their results and errors."""
    results: list[Any] = []
    with imgkit.ImageService(backend, base_url=server.base_url, **{**SETTINGS, **settings}) as service:
        threads = [
            threading.Thread(
                target=lambda: results.append(result_or_error(lambda: service.create_image("a fox")))
            )
            for _ in range(MANY)
        ]
        for thread in threads:
            thread.start()
        assert gate.asked.wait(20)
        gate.open.set()
        for thread in threads:
            thread.join(30)
    return results


def run_as_tasks(server: WireServer, backend: str, gate: Gate, **settings: Any) -> list[Any]:
    """Run MANY identical calls as tasks; return their results and errors."""

    async def main() -> list[Any]:
        settled = {"base_url": server.base_url, **SETTINGS, **settings}
        async with imgkit.AsyncImageService(backend, **settled) as service:
            tasks = [asyncio.create_task(service.create_image("a fox")) for _ in range(MANY)]
            while not gate.asked.is_set():
                await asyncio.sleep(0.005)
            gate.open.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(main())


@pytest.mark.parametrize("at_once", [run_as_threads, run_as_tasks])
def test_one_call_pays_for_all(at_once: Any, http_backend: str, store: Any) -> None:
    """Sends one request for many identical calls; all of them get its image."""
    gate = Gate(reply(200, answer()))
    with WireServer(gate) as server:
        results = at_once(server, http_backend, gate, plugins=[CachePlugin(store)])
        assert server.posts == 1
    assert [result[0].data for result in results] == [picture()] * MANY
    assert sum(result.meta.cached for result in results) == MANY - 1


@pytest.mark.parametrize("at_once", [run_as_threads, run_as_tasks])
@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (drop, imgkit.OutcomeUnknownError),
        (reply(504, b"<html>"), imgkit.OutcomeUnknownError),
        (reply(500, {"error": {"message": "no", "code": "server_error"}}), imgkit.ServerError),
        (reply(200, b"{}"), imgkit.EmptyResultError),
        (raw(head(200, {"content-length": "99"}) + b'{"data"'), imgkit.OutcomeUnknownError),
    ],
    ids=["drop", "504", "500", "empty", "cut"],
)
def test_all_calls_share_the_error_of_the_sender(
    at_once: Any, http_backend: str, store: Any, script: Script, kind: type[Exception], tmp_path: Path
) -> None:
    """Waiting calls raise the sender's error with its notes, and do not pay again."""
    failed: list[Failed] = []

    class Spy:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            if isinstance(event, Failed):
                failed.append(event)

    class BrokenRetry:
        @imgkit.hookimpl
        def imgkit_retry_wait(self) -> Any:
            raise ZeroDivisionError

    class Slow(MemoryStore if isinstance(store, MemoryStore) else FolderStore):  # type: ignore[misc]
        def abandon(self, lease: Any, failure: Any = None) -> None:
            # Wait until all calls have asked; a later call would rightly send again.
            assert waiting.wait(20)
            super().abandon(lease, failure)

        def try_lease(self, key: str, **more: Any) -> Any:
            lease_result = super().try_lease(key, **more)
            askers.append(more["waited_for"])
            if askers.count("") == MANY:
                waiting.set()
            return lease_result

    askers: list[str] = []
    waiting = threading.Event()
    slow = Slow() if isinstance(store, MemoryStore) else Slow(store.folder)
    gate = Gate(script)
    with WireServer(gate) as server:
        plugins = [CachePlugin(slow), Spy(), BrokenRetry()]
        results = at_once(server, http_backend, gate, plugins=plugins, state_folder=tmp_path / "home")
        assert server.posts == 1
    assert [type(result) for result in results] == [kind] * MANY
    notes = ["\n".join(result.__notes__) for result in results]
    asks_plugins = kind is not imgkit.EmptyResultError
    assert ["BrokenRetry" in note for note in notes] == [asks_plugins] * MANY
    paths = {result.spool_path for result in results}
    assert len(paths) == 1
    assert all(str(paths) == "{None}" or str(*paths) in note for note in notes)
    assert (
        sum("concurrent identical call" in " ".join(getattr(result, "__notes__", ())) for result in results)
        == MANY - 1
    )
    assert sorted(event.shared for event in failed) == [False] + [True] * (MANY - 1)


CALLERS = """
import os, sys, imgkit
from imgkit import CachePlugin
imgkit.ImageService("requests", base_url=sys.argv[1], api_key="sk-test").close()
print("ready", flush=True)
sys.stdin.readline()
children = []
for _ in range(int(sys.argv[3]) - 1):
    child = os.fork()
    if not child:
        children = []
        break
    children.append(child)
service = imgkit.ImageService("requests", base_url=sys.argv[1], api_key="sk-test", timeout_s=40, retry=False,
                              plugins=[CachePlugin(folder=sys.argv[2])])
try:
    response = service.create_image("a fox")
    line = f"{response.meta.cached} {response[0].sha256}"
except imgkit.ImgkitError as error:
    line = type(error).__name__
os.write(1, f"{line}\\n".encode())
for child in children:
    os.waitpid(child, 0)
os._exit(0)
"""


def start_callers(server: WireServer, folder: Path, forks: int = 1) -> subprocess.Popen[str]:
    """Start a process that forks until `forks` processes call, after a line on its standard input."""
    return start_process(
        [sys.executable, "-c", CALLERS, server.base_url, str(folder), str(forks)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def await_ready(process: subprocess.Popen[str]) -> None:
    """Wait until a process has imported imgkit."""
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def finish_caller(process: subprocess.Popen[str]) -> str:
    """Let a process call, and return its output."""
    out, _ = process.communicate("\n", timeout=50)
    return out.strip()


def release_caller(process: subprocess.Popen[str]) -> None:
    """Let a process call."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_ten_processes_pay_once(tmp_path: Path) -> None:
    """Ten processes that share a cache folder send one request."""
    gate = Gate(reply(200, answer()))
    with WireServer(gate) as server:
        callers = start_callers(server, tmp_path / "cache", MANY)
        await_ready(callers)
        release_caller(callers)
        assert gate.asked.wait(20)
        gate.open.set()
        results = [line.split() for line in finish_caller(callers).splitlines()]
        assert server.posts == 1
    assert {digest for _, digest in results} == {imgkit.Image.from_bytes(picture()).sha256}
    assert sorted(cached for cached, _ in results) == ["False"] + ["True"] * (MANY - 1)


def test_a_killed_holder_frees_its_lease(tmp_path: Path) -> None:
    """A waiting process reports an unknown outcome once the holder is killed; the next call pays."""
    gate, second = Gate(drop), Gate(reply(200, answer()))
    second.open.set()
    with WireServer(gate, second) as server:
        holder, waiter = (start_callers(server, tmp_path / "cache") for _ in range(2))
        await_ready(holder)
        await_ready(waiter)
        release_caller(holder)
        assert gate.asked.wait(20)
        release_caller(waiter)
        assert not second.asked.wait(0.05)
        holder.send_signal(signal.SIGKILL)
        assert finish_caller(waiter) == "OutcomeUnknownError"
        assert server.posts == 1
        caller = start_callers(server, tmp_path / "cache")
        await_ready(caller)
        assert finish_caller(caller).startswith("False ")
        gate.open.set()
        output, _ = holder.communicate(timeout=20)
        assert output == ""
        assert server.posts == 2


def test_a_waiting_call_keeps_its_deadline(flavor: Any, http_backend: str, store: Any) -> None:
    """A waiting call ends at its own deadline without sending, and the holder's call goes on."""
    gate = Gate(reply(200, answer()))
    with WireServer(gate) as server:
        settings = {**SETTINGS, "base_url": server.base_url, "plugins": [CachePlugin(store)]}
        with imgkit.ImageService("requests", **settings) as service:
            made: list[Any] = []
            thread = threading.Thread(target=lambda: made.append(service.create_image("a fox")))
            thread.start()
            assert gate.asked.wait(20)
            began = time.monotonic()
            with pytest.raises(imgkit.NotSentError, match="concurrent identical call"):
                flavor.run(
                    lambda service: service.create_image("a fox", timeout_s=0.3), http_backend, **settings
                )
            assert time.monotonic() - began < 5
            gate.open.set()
            thread.join(20)
        assert made[0][0].data == picture()
        assert server.posts == 1


def test_a_cancelled_holder_ends_its_waiters(http_backend: str, store: Any) -> None:
    """A waiting call reports an unknown outcome if the holder is cancelled after sending."""
    gate = Gate(reply(200, answer()))

    async def main(server: WireServer) -> None:
        settings = {**SETTINGS, "base_url": server.base_url, "plugins": [CachePlugin(store)]}
        async with imgkit.AsyncImageService(http_backend, **settings) as service:
            holder = asyncio.create_task(service.create_image("a fox"))
            while not gate.asked.is_set():
                await asyncio.sleep(0.005)
            waiter = asyncio.create_task(service.create_image("a fox"))
            await asyncio.sleep(0.04)
            holder.cancel()
            gate.open.set()
            with pytest.raises(imgkit.OutcomeUnknownError, match="identical call was interrupted"):
                await waiter
            with pytest.raises(asyncio.CancelledError):
                await holder
            assert (await service.create_image("a fox"))[0].data == picture()

    with WireServer(gate) as server:
        asyncio.run(main(server))
        assert server.posts == 2


def make_core(store: Any, **options: Any) -> Core:
    """Return the parts of a service with a cache, for flows that the test steps."""
    settings = {"base_url": "http://127.0.0.1:1/v1", "api_key": "sk-test", **options}
    with imgkit.ImageService("requests", plugins=[CachePlugin(store)], **settings) as service:
        return service._core


def test_waiting_calls_poll_ever_more_slowly(store: Any) -> None:
    """A waiting call polls at growing intervals, without a lock, until the holder ends."""
    core = make_core(store)
    holder, waiter = (OperationFlows(core).create_image("a fox") for _ in range(2))
    effect = run_blocking_effects(holder)
    assert isinstance(effect, SendRequest)
    waits = []
    news: Any = None
    for _ in range(20):
        effect = run_blocking_effects(waiter, news)
        assert isinstance(effect, Sleep)
        waits.append(effect.wait_s)
        news = None
    assert waits[0] == 0.01
    assert waits == sorted(waits)
    assert waits[-1] == 0.25
    holder.close()  # after it sent its request: the outcome is unknown
    with pytest.raises(imgkit.OutcomeUnknownError, match="interrupted"):
        run_blocking_effects(waiter)
    third = OperationFlows(core).create_image("a fox")
    assert isinstance(run_blocking_effects(third), SendRequest)
    third.close()


def test_a_paid_call_that_is_left_before_it_stores_its_images(store: Any) -> None:
    """A waiting call does not pay again if the holder ends after its reply and before its download."""
    core = make_core(store)
    holder, waiter = (OperationFlows(core).create_image("a fox") for _ in range(2))
    assert isinstance(run_blocking_effects(holder), SendRequest)
    assert isinstance(run_blocking_effects(waiter), Sleep)
    body = b'{"data": [{"url": "http://127.0.0.1:1/fox.png"}]}'
    for news, expected in ((Head(200, {}), ReadChunk), (body, ReadChunk), (b"", SendRequest)):
        assert isinstance(run_blocking_effects(holder, news), expected)
    holder.close()
    with pytest.raises(imgkit.OutcomeUnknownError, match="interrupted"):
        run_blocking_effects(waiter)


def test_a_refused_call_that_is_left_lets_the_next_pay(store: Any) -> None:
    """A waiting call sends its request if the holder ends in the pause after a refusal."""
    core = make_core(store, retry=True)
    holder, waiter = (OperationFlows(core).create_image("a fox") for _ in range(2))
    assert isinstance(run_blocking_effects(holder), SendRequest)
    assert isinstance(run_blocking_effects(waiter), Sleep)
    for news, expected in ((Head(429, {}), ReadChunk), (b"", Sleep)):
        assert isinstance(run_blocking_effects(holder, news), expected)
    holder.close()
    assert isinstance(run_blocking_effects(waiter), SendRequest)
    waiter.close()


def test_a_flight_ends_with_its_last_call(store: Any) -> None:
    """A process holds nothing of a call through the cache once it has ended."""
    first, second = (join_flight(store, "a1" * 32) for _ in range(2))
    assert first is second
    flight = weakref.ref(first)
    first.leave()
    assert join_flight(store, "a1" * 32) is first
    for _ in range(2):
        first.leave()
    del first, second
    assert flight() is None


def run_blocking_effects(flow: Any, news: Any = None) -> Any:
    """Advance a flow to its next effect other than RunBlocking."""
    effect = advance(flow, news)
    while isinstance(effect, RunBlocking):
        effect = advance(flow, effect.fn())
    assert not isinstance(effect, Finished)
    return effect
