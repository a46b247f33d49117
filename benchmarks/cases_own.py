"""What is imgkit's own: hooks, a hit of its cache, and ten thousand calls of one service."""

from __future__ import annotations

import gc
import json
import statistics
import time
from pathlib import Path
from typing import Any

import imgkit
from benchmarks.harness import Results, interleaved
from benchmarks.sides import SYNC
from imgkit.core.operations import OperationFlows
from imgkit.runtime.flow import Finished, ReadChunk, RunBlocking, SendRequest, advance
from imgkit.testing.samples import answer
from imgkit.wire.messages import Head

BODY = json.dumps(answer()).encode()
HEAD = Head(200, {"x-request-id": "r"})
CALLS = 200
GROWTH_CALLS = 10_000


class Idle:
    """Every hook of a call, and nothing done in any."""

    @imgkit.hookimpl
    def imgkit_prepare(self, request: Any, call: Any) -> None: ...

    @imgkit.hookimpl
    def imgkit_before_send(self, request: Any, call: Any) -> None: ...

    @imgkit.hookimpl
    def imgkit_on_event(self, event: Any, call: Any) -> None: ...


class Elsewhere:
    """A plugin that has no hook of a call: installed, and not used."""

    @imgkit.hookimpl
    def imgkit_providers(self) -> tuple[()]:
        return ()


def step(core: Any) -> None:
    """Run one call by hand: no wire, no threads, so that only our own code is measured."""
    flow, news, chunks = OperationFlows(core).create_image("a fox"), None, iter((BODY, b""))
    while True:
        match advance(flow, news):
            case SendRequest():
                news = HEAD
            case ReadChunk():
                news = next(chunks)
            case RunBlocking(fn, _):
                news = fn()
            case Finished():
                return


def core_with(plugins: list[Any]) -> Any:
    service = imgkit.ImageService("requests", base_url="http://127.0.0.1:1/v1", plugins=plugins)
    service.close()
    return service._core


def run(results: Results) -> None:
    _hooks(results)
    _hits(results)
    _growth(results)


def _hooks(results: Results) -> None:
    plugins: dict[str, list[Any]] = {
        "none": [],
        "3 with every hook": [Idle() for _ in range(3)],
        "30 without a hook of calls": [type("Elsewhere", (Elsewhere,), {})() for _ in range(30)],
    }
    cores = {name: core_with(given) for name, given in plugins.items()}

    def calls(core: Any) -> Any:
        return lambda: [step(core) for _ in range(CALLS)]

    _, cpu = interleaved({name: calls(core) for name, core in cores.items()}, results.rounds(21))
    results.put(
        "plugins, a call without wire", "CPU µs", {name: value / CALLS * 1e6 for name, value in cpu.items()}
    )


def _hits(results: Results) -> None:
    service = imgkit.ImageService(
        "requests", base_url=results.url("1.4MB"), api_key="k" * 20,
        plugins=[imgkit.CachePlugin(folder=results.folder / "hits")],
    )  # fmt: skip
    peer = SYNC["openai"](results.url("1.4MB"), results.folder)
    service.create_image("a fox")

    def hit() -> None:
        for _ in range(10):
            assert service.create_image("a fox").meta.cached

    wall, cpu = interleaved(
        {"imgkit, a hit": hit, "openai, a call": lambda: [peer.create() for _ in range(10)]},
        results.rounds(9),
    )
    results.put("1.4 MB from the cache", "ms", {name: value / 10 * 1e3 for name, value in wall.items()})
    results.put("1.4 MB from the cache", "CPU ms", {name: value / 10 * 1e3 for name, value in cpu.items()})
    service.close()
    peer.close()


def _growth(results: Results) -> None:
    """Compare the first and the last of many calls of one service, over a real wire."""
    side = SYNC["imgkit, reusing"](results.url("small"), results.folder)
    calls, part = (GROWTH_CALLS // 5, 200) if results.quick else (GROWTH_CALLS, 500)
    for _ in range(part):
        side.create()
    gc.collect()
    objects, memory = len(gc.get_objects()), _resident_kib()
    times: list[float] = []
    for _ in range(calls // part):
        began = time.process_time()
        for _ in range(part):
            side.create()
        times.append((time.process_time() - began) / part * 1e6)
    gc.collect()
    grown = {
        "objects": float(len(gc.get_objects()) - objects),
        "KiB resident": float(_resident_kib() - memory),
    }
    third = max(1, len(times) // 3)
    ends = {"first third": statistics.median(times[:third]), "last third": statistics.median(times[-third:])}
    results.put(f"{calls} calls of one service", "more than before", grown)
    results.put(f"{calls} calls of one service", "CPU µs a call", ends)
    side.close()


def _resident_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0
