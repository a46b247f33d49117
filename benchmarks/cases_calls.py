"""Benchmarks of a call with a small reply."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.harness import Results, measure_interleaved, run_calls
from benchmarks.sides import ASYNC, SYNC

CALLS = 200
IN_FLIGHT = (1, 32, 256)


def run(results: Results) -> None:
    _measure_sync(results)
    for in_flight in IN_FLIGHT:
        _measure_async(results, in_flight)


def _measure_sync(results: Results) -> None:
    sides = {
        name: SYNC[name](results.url("small"), results.folder)
        for name in ("imgkit", "imgkit, reusing", "imgkit, reusing, spool", "imgkit, reusing, cache",
                     "openai", "requests", "raw socket")
    }  # fmt: skip

    def calls(side: Any) -> Any:
        return lambda: [side.create() for _ in range(CALLS)]

    wall, cpu = measure_interleaved({name: calls(side) for name, side in sides.items()}, results.rounds(15))
    results.add("a small call", "CPU µs", {name: value / CALLS * 1e6 for name, value in cpu.items()})
    results.add("a small call", "ms", {name: value / CALLS * 1e3 for name, value in wall.items()})
    for side in sides.values():
        side.close()


def _measure_async(results: Results, in_flight: int) -> None:
    with asyncio.Runner() as runner:
        sides = {name: kind(results.url("small"), results.folder) for name, kind in ASYNC.items()}
        calls = max(CALLS, 2 * in_flight)

        def batch(side: Any) -> Any:
            return lambda: runner.run(run_calls(side.create, calls, in_flight))

        wall, cpu = measure_interleaved(
            {name: batch(side) for name, side in sides.items()}, results.rounds(9)
        )
        case = f"a small call, async, {in_flight} in flight"
        results.add(case, "CPU µs", {name: value / calls * 1e6 for name, value in cpu.items()})
        results.add(case, "calls per second", {name: calls / value for name, value in wall.items()})
        for side in sides.values():
            runner.run(side.close())
