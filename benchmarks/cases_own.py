"""Benchmarks of imgkit alone: hooks, a cache hit, ten thousand calls of one service."""

from __future__ import annotations

import gc
import json
import statistics
import time
from pathlib import Path
from typing import Any

import imgkit
from benchmarks.harness import Results, measure_interleaved
from benchmarks.sides import SYNC
from imgkit.core.operations import OperationFlows
from imgkit.default_plugins.spool import open_spool
from imgkit.runtime.flow import Finished, ReadChunk, RunBlocking, SendRequest, advance
from imgkit.testing.samples import answer
from imgkit.wire.messages import Head

BODY = json.dumps(answer()).encode()
HEAD = Head(200, {"x-request-id": "r"})
CALLS = 200
GROWTH_CALLS = 10_000
KEPT_REPLIES = 4000
SAFETY = "the price of safety, a small call"


class Idle:
    """A plugin with every hook of a call; each does nothing."""

    @imgkit.hookimpl
    def imgkit_prepare(self, request: Any, call: Any) -> None: ...

    @imgkit.hookimpl
    def imgkit_before_send(self, request: Any, call: Any) -> None: ...

    @imgkit.hookimpl
    def imgkit_on_event(self, event: Any, call: Any) -> None: ...


class NoCallHooks:
    """A plugin without a hook of a call."""

    @imgkit.hookimpl
    def imgkit_providers(self) -> tuple[()]:
        return ()


def step_call(core: Any) -> None:
    """Run one call by hand, without network and threads, to measure only the code of imgkit."""
    flow, result, chunks = OperationFlows(core).create_image("a fox"), None, iter((BODY, b""))
    while True:
        match advance(flow, result):
            case SendRequest():
                result = HEAD
            case ReadChunk():
                result = next(chunks)
            case RunBlocking(fn, _):
                result = fn()
            case Finished():
                return


def build_core(plugins: list[Any]) -> Any:
    service = imgkit.ImageService("requests", base_url="http://127.0.0.1:1/v1", plugins=plugins)
    service.close()
    return service._core


def run(results: Results) -> None:
    _measure_hooks(results)
    _measure_hits(results)
    _measure_safety(results)
    _measure_growth(results)


def _measure_hooks(results: Results) -> None:
    plugins: dict[str, list[Any]] = {
        "none": [],
        "3 with every hook": [Idle() for _ in range(3)],
        "30 without a call hook": [type("NoCallHooks", (NoCallHooks,), {})() for _ in range(30)],
    }
    cores = {name: build_core(group) for name, group in plugins.items()}

    def calls(core: Any) -> Any:
        return lambda: [step_call(core) for _ in range(CALLS)]

    _, cpu = measure_interleaved({name: calls(core) for name, core in cores.items()}, results.rounds(21))
    results.add(
        "plugins, a call without network",
        "CPU µs",
        {name: value / CALLS * 1e6 for name, value in cpu.items()},
    )


def _measure_hits(results: Results) -> None:
    service = imgkit.ImageService(
        "requests", base_url=results.url("1.4MB"), api_key="k" * 20,
        plugins=[imgkit.CachePlugin(folder=results.folder / "hits")],
    )  # fmt: skip
    peer = SYNC["openai"](results.url("1.4MB"), results.folder)
    service.create_image("a fox")

    def hit() -> None:
        for _ in range(10):
            assert service.create_image("a fox").meta.cached

    wall, cpu = measure_interleaved(
        {"imgkit, a hit": hit, "openai, a call": lambda: [peer.create() for _ in range(10)]},
        results.rounds(9),
    )
    results.add("1.4 MB from the cache", "ms", {name: value / 10 * 1e3 for name, value in wall.items()})
    results.add("1.4 MB from the cache", "CPU ms", {name: value / 10 * 1e3 for name, value in cpu.items()})
    service.close()
    peer.close()


def _measure_safety(results: Results) -> None:
    """Compare a call with a call that has a state folder, with kept replies in it, or a cache miss."""
    kept = results.folder / "kept"
    fill_spool(kept / "state", KEPT_REPLIES)
    url = results.url("small")
    sides = {
        "no state folder": SYNC["imgkit, reusing"](url, results.folder),
        "state folder": SYNC["imgkit, reusing, spool"](url, results.folder),
        f"{KEPT_REPLIES} kept replies": SYNC["imgkit, reusing, spool"](url, kept),
        "cache miss": SYNC["imgkit, reusing, cache"](url, results.folder),
    }

    def calls(side: Any) -> Any:
        return lambda: [side.create() for _ in range(CALLS)]

    wall, cpu = measure_interleaved({name: calls(side) for name, side in sides.items()}, results.rounds(15))
    results.add(SAFETY, "CPU µs", {name: value / CALLS * 1e6 for name, value in cpu.items()})
    results.add(SAFETY, "ms", {name: value / CALLS * 1e3 for name, value in wall.items()})
    for side in sides.values():
        side.close()


def fill_spool(state_folder: Path, count: int) -> None:
    """Keep replies in the spool of a state folder."""
    spool = open_spool(state_folder)
    for number in range(count):
        folder = spool.folder / f"20261101T120000Z-{number:012x}-1"
        folder.mkdir(mode=0o700, parents=True)
        facts = {"imgkit_spool": 1, "started_at": 1.79e9, "why": "the reply had no images"}
        (folder / "call.json").write_text(json.dumps(facts))
        (folder / "reply.json.part").write_bytes(BODY)
    spool.prune()


def _measure_growth(results: Results) -> None:
    """Compare the first and the last of many calls of one service, over loopback."""
    side = SYNC["imgkit, reusing"](results.url("small"), results.folder)
    calls, part = (GROWTH_CALLS // 5, 200) if results.quick else (GROWTH_CALLS, 500)
    for _ in range(part):
        side.create()
    gc.collect()
    objects, memory = len(gc.get_objects()), _resident_kib()
    times: list[float] = []
    for _ in range(calls // part):
        start = time.process_time()
        for _ in range(part):
            side.create()
        times.append((time.process_time() - start) / part * 1e6)
    gc.collect()
    growth = {
        "objects": float(len(gc.get_objects()) - objects),
        "KiB resident": float(_resident_kib() - memory),
    }
    third = max(1, len(times) // 3)
    thirds = {
        "first third": statistics.median(times[:third]),
        "last third": statistics.median(times[-third:]),
    }
    results.add(f"{calls} calls of one service", "growth", growth)
    results.add(f"{calls} calls of one service", "CPU µs per call", thirds)
    side.close()


def _resident_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0
