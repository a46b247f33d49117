"""How it is measured: interleaved rounds, medians, and fresh processes where memory or a start counts."""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Spans = tuple[float, float]
"""Wall time and CPU time, in seconds."""


@dataclass
class Results:
    """What was measured: by case and figure, one number for each side.

    Attributes:
        quick: fewer rounds, for a look.
        origin: of the server.
        folder: for files; on the disk that is measured.
        figures: case → figure → side → median.
    """

    quick: bool
    origin: str
    folder: Path
    figures: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    def url(self, reply: str) -> str:
        return f"{self.origin}/{reply}/v1"

    def rounds(self, wanted: int) -> int:
        return max(3, wanted // 3) if self.quick else wanted

    def put(self, case: str, figure: str, values: Mapping[str, float]) -> None:
        self.figures.setdefault(case, {}).setdefault(figure, {}).update(values)
        shown = "  ".join(f"{side} {value:.4g}" for side, value in values.items())
        print(f"{case} | {figure} | {shown}", file=sys.stderr, flush=True)


def medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    return {side: statistics.median(taken) for side, taken in times.items()}


def spans(work: Callable[[], object]) -> Spans:
    """Return wall and CPU time of `work`, all threads of the process together."""
    began, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - used


def interleaved(
    works: Mapping[str, Callable[[], object]], rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Run each work once a round, after one that does not count; return medians of wall and CPU time."""
    wall: dict[str, list[float]] = {side: [] for side in works}
    cpu: dict[str, list[float]] = {side: [] for side in works}
    for number in range(rounds + 1):
        for side, work in works.items():
            gc.collect()
            taken = spans(work)
            if number:
                wall[side].append(taken[0])
                cpu[side].append(taken[1])
    return medians(wall), medians(cpu)


async def many(work: Callable[[], Coroutine[Any, Any, object]], calls: int, in_flight: int) -> None:
    """Make `calls` calls, `in_flight` of them at a time."""

    async def worker(own: int) -> None:
        for _ in range(own):
            await work()

    share, more = divmod(calls, in_flight)
    await asyncio.gather(*(worker(share + (number < more)) for number in range(in_flight)))


def child_cpu_ms(command: list[str]) -> float:
    """Return the CPU time of a process, in milliseconds, from its start to its end."""
    # Installed packages come with their bytecode: a checkout must be allowed to keep its own, too.
    env = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": ""}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)[:300]} failed")
    return (usage.ru_utime + usage.ru_stime) * 1000


def starts(commands: Mapping[str, list[str]], rounds: int) -> dict[str, float]:
    """Return the median CPU time of each command, in milliseconds."""
    times: dict[str, list[float]] = {side: [] for side in commands}
    for number in range(rounds + 1):
        for side, command in commands.items():
            taken = child_cpu_ms(command)
            if number:
                times[side].append(taken)
    return medians(times)


def fresh(case: str, side: str, results: Results, *more: str) -> float:
    """Return the number that a fresh process measures; see `benchmarks.fresh`."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fresh", case, side, results.origin, str(results.folder), *more],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout)


def freshly(case: str, sides: Iterable[str], results: Results, rounds: int, *more: str) -> dict[str, float]:
    """Return medians of what fresh processes measure."""
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, values in taken.items():
            values.append(fresh(case, side, results, *more))
    return medians(taken)
