"""Equal calls at once, as threads, tasks and processes: one pays, all get what came of it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit import CachePlugin
from imgkit.cache.folder import FolderStore
from imgkit.cache.memory import MemoryStore
from imgkit.core.operations import OperationFlows
from imgkit.plugins.events import Failed
from imgkit.runtime.flow import Finished, RunBlocking, Sleep, advance
from tests.support.pictures import answer, picture
from tests.support.wire_server import Line, Script, WireServer, drop, reply

MANY = 10
SETTINGS = {"api_key": "sk-test", "timeout_s": 30, "retry": False}


class Gate:
    """A server's script that answers when the test says so."""

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
    """Counts the calls that have been told to wait."""

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


def outcome(call: Any) -> Any:
    try:
        return call()
    except imgkit.ImgkitError as error:
        return error


def as_threads(server: WireServer, backend: str, gate: Gate, **settings: Any) -> list[Any]:
    ended: list[Any] = []
    with imgkit.ImageService(backend, base_url=server.base_url, **{**SETTINGS, **settings}) as service:
        threads = [
            threading.Thread(target=lambda: ended.append(outcome(lambda: service.create_image("a fox"))))
            for _ in range(MANY)
        ]
        for thread in threads:
            thread.start()
        assert gate.asked.wait(20)
        gate.open.set()
        for thread in threads:
            thread.join(30)
    return ended


def as_tasks(server: WireServer, backend: str, gate: Gate, **settings: Any) -> list[Any]:
    async def main() -> list[Any]:
        settled = {"base_url": server.base_url, **SETTINGS, **settings}
        async with imgkit.AsyncImageService(backend, **settled) as service:
            tasks = [asyncio.create_task(service.create_image("a fox")) for _ in range(MANY)]
            while not gate.asked.is_set():
                await asyncio.sleep(0.005)
            gate.open.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(main())


@pytest.mark.parametrize("at_once", [as_threads, as_tasks])
def test_one_pays_for_all(at_once: Any, http_backend: str, store: Any) -> None:
    gate = Gate(reply(200, answer()))
    with WireServer(gate) as server:
        ended = at_once(server, http_backend, gate, plugins=[CachePlugin(store)])
        assert server.posts == 1
    assert [one[0].data for one in ended] == [picture()] * MANY
    assert sum(one.meta.cached for one in ended) == MANY - 1


@pytest.mark.parametrize("at_once", [as_threads, as_tasks])
@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (drop, imgkit.OutcomeUnknownError),
        (reply(504, b"<html>"), imgkit.OutcomeUnknownError),
        (reply(500, {"error": {"message": "no"}}), imgkit.ServerError),
        (reply(200, b"{}"), imgkit.EmptyResultError),
    ],
    ids=["drop", "504", "500", "empty"],
)
def test_all_get_the_error_of_the_one(
    at_once: Any, http_backend: str, store: Any, script: Script, kind: type[Exception]
) -> None:
    """Whoever has waited does not pay again; the breaker counts one failure, not ten."""
    failed: list[Failed] = []

    class Spy:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            if isinstance(event, Failed):
                failed.append(event)

    class Slow(MemoryStore if isinstance(store, MemoryStore) else FolderStore):  # type: ignore[misc]
        def abandon(self, lease: Any, failure: Any = None) -> None:
            # All have asked by now, and so have waited; else a late one would rightly begin anew.
            assert waiting.wait(20)
            super().abandon(lease, failure)

        def try_lease(self, key: str, **more: Any) -> Any:
            found = super().try_lease(key, **more)
            askers.append(more["waited_for"])
            if askers.count("") == MANY:
                waiting.set()
            return found

    askers: list[str] = []
    waiting = threading.Event()
    slow = Slow() if isinstance(store, MemoryStore) else Slow(store.folder)
    gate = Gate(script)
    with WireServer(gate) as server:
        ended = at_once(server, http_backend, gate, plugins=[CachePlugin(slow), Spy()])
        assert server.posts == 1
    assert [type(one) for one in ended] == [kind] * MANY
    assert sum("another call" in " ".join(getattr(one, "__notes__", ())) for one in ended) == MANY - 1
    assert sorted(event.shared for event in failed) == [False] + [True] * (MANY - 1)


PROCESS = """
import sys, imgkit
from imgkit import CachePlugin
service = imgkit.ImageService("requests", base_url=sys.argv[1], api_key="sk-test", timeout_s=40, retry=False,
                              plugins=[CachePlugin(folder=sys.argv[2])])
print("ready", flush=True)
sys.stdin.readline()
try:
    made = service.create_image("a fox")
    print(made.meta.cached, made[0].sha256, flush=True)
except imgkit.ImgkitError as error:
    print(type(error).__name__, flush=True)
"""


def processes(count: int, server: WireServer, folder: Path) -> list[subprocess.Popen[str]]:
    """Start processes that wait to be told to call."""
    made = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, server.base_url, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ},
        )
        for _ in range(count)
    ]  # fmt: skip
    for one in made:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    return made


def said(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate("\n", timeout=50)
    return out.strip()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_ten_processes_pay_once(tmp_path: Path) -> None:
    gate = Gate(reply(200, answer()))
    with WireServer(gate) as server:
        ten = processes(MANY, server, tmp_path / "cache")
        for one in ten:
            go(one)
        assert gate.asked.wait(20)
        gate.open.set()
        told = [said(one).split() for one in ten]
        assert server.posts == 1
    assert {digest for _, digest in told} == {imgkit.Image.from_bytes(picture()).sha256}
    assert sorted(cached for cached, _ in told) == ["False"] + ["True"] * (MANY - 1)


def test_a_dead_holder_frees_its_lease(tmp_path: Path) -> None:
    """Killed while the API works for it: somebody else goes on."""
    gate, second = Gate(drop), Gate(reply(200, answer()))
    second.open.set()
    with WireServer(gate, second) as server:
        holder, waiter = processes(2, server, tmp_path / "cache")
        go(holder)
        assert gate.asked.wait(20)
        go(waiter)
        assert not second.asked.wait(0.2)
        holder.send_signal(signal.SIGKILL)
        assert said(waiter).startswith("False ")
        gate.open.set()
        said_nothing, _ = holder.communicate(timeout=20)
        assert said_nothing == ""
        assert server.posts == 2


def test_a_waiter_has_a_deadline(flavor: Any, http_backend: str, store: Any) -> None:
    """It gives up in time, has sent nothing, and leaves the holder alone."""
    gate = Gate(reply(200, answer()))
    with WireServer(gate) as server:
        settings = {**SETTINGS, "base_url": server.base_url, "plugins": [CachePlugin(store)]}
        with imgkit.ImageService("requests", **settings) as service:
            made: list[Any] = []
            thread = threading.Thread(target=lambda: made.append(service.create_image("a fox")))
            thread.start()
            assert gate.asked.wait(20)
            began = time.monotonic()
            with pytest.raises(imgkit.NotSentError, match="another call"):
                flavor.run(lambda one: one.create_image("a fox", timeout_s=0.2), http_backend, **settings)
            assert time.monotonic() - began < 5
            gate.open.set()
            thread.join(20)
        assert made[0][0].data == picture()
        assert server.posts == 1


def test_a_holder_that_is_broken_off(http_backend: str, store: Any) -> None:
    """Cancelled once it has sent: who waits is told that the outcome is unknown. Before that: goes on."""
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
            with pytest.raises(imgkit.OutcomeUnknownError, match="equal request was broken off"):
                await waiter
            with pytest.raises(asyncio.CancelledError):
                await holder
            assert (await service.create_image("a fox"))[0].data == picture()

    with WireServer(gate) as server:
        asyncio.run(main(server))
        assert server.posts == 2


def test_step_by_step(store: Any) -> None:
    """Who waits polls: ever more slowly, without a lock, until the entry is there."""
    service = imgkit.ImageService(
        "requests", base_url="http://127.0.0.1:1/v1", api_key="sk-test", plugins=[CachePlugin(store)]
    )
    core = service._core
    service.close()
    holder, waiter = (OperationFlows(core).create_image("a fox") for _ in range(2))
    need = run_files(holder)
    assert type(need).__name__ == "SendRequest"
    naps = []
    news: Any = None
    for _ in range(20):
        need = run_files(waiter, news)
        assert isinstance(need, Sleep)
        naps.append(need.wait_s)
        news = None
    assert naps[0] == 0.01
    assert naps == sorted(naps)
    assert naps[-1] == 0.25
    holder.close()  # it had handed its request over: nobody knows what came of it
    with pytest.raises(imgkit.OutcomeUnknownError, match="broken off"):
        run_files(waiter)
    third = OperationFlows(core).create_image("a fox")
    assert type(run_files(third)).__name__ == "SendRequest"
    third.close()


def run_files(flow: Any, news: Any = None) -> Any:
    """Advance a flow to its next need that is not a function to run."""
    need = advance(flow, news)
    while isinstance(need, RunBlocking):
        need = advance(flow, need.fn())
    assert not isinstance(need, Finished)
    return need
