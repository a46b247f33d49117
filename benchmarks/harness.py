"""Measure in interleaved rounds, report medians, and use fresh processes for memory and starts."""

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
    """Measured numbers by case, figure and side.

    A side is a library under test; see `benchmarks.sides`.

    Attributes:
        quick: run fewer rounds, for a first look.
        origin: origin of the benchmark server.
        folder: folder for files, on the disk to measure.
        full: carry out a run of a million requests, which takes an hour.
        figures: case → figure → side → median.
    """

    quick: bool
    origin: str
    folder: Path
    full: bool = False
    figures: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    def url(self, reply: str) -> str:
        """Return the base URL at which the server sends this reply."""
        return f"{self.origin}/{reply}/v1"

    def rounds(self, full: int) -> int:
        """Return the number of rounds: `full`, or fewer if `quick`."""
        return max(3, full // 3) if self.quick else full

    def add(self, case: str, figure: str, values: Mapping[str, float]) -> None:
        """Add the medians of a figure, and print them to stderr."""
        self.figures.setdefault(case, {}).setdefault(figure, {}).update(values)
        shown = "  ".join(f"{side} {value:.4g}" for side, value in values.items())
        print(f"{case} | {figure} | {shown}", file=sys.stderr, flush=True)


def compute_medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    return {side: statistics.median(samples) for side, samples in times.items()}


def measure_spans(work: Callable[[], object]) -> Spans:
    """Return the wall and CPU time of `work`, in seconds, for all threads of the process."""
    wall_start, cpu_start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall_start, time.process_time() - cpu_start


def measure_interleaved(
    works: Mapping[str, Callable[[], object]], rounds: int, tidy: Callable[[], object] = gc.collect
) -> tuple[dict[str, float], dict[str, float]]:
    """Run each work once per round, and return medians of wall and CPU time in seconds.

    The first round is a warm-up and does not count, and neither does `tidy`, which follows each work.
    """
    wall: dict[str, list[float]] = {side: [] for side in works}
    cpu: dict[str, list[float]] = {side: [] for side in works}
    for number in range(rounds + 1):
        for side, work in works.items():
            gc.collect()
            wall_s, cpu_s = measure_spans(work)
            tidy()
            if number:
                wall[side].append(wall_s)
                cpu[side].append(cpu_s)
    return compute_medians(wall), compute_medians(cpu)


async def run_calls(work: Callable[[], Coroutine[Any, Any, object]], calls: int, in_flight: int) -> None:
    """Make `calls` calls, `in_flight` at a time."""

    async def worker(count: int) -> None:
        for _ in range(count):
            await work()

    share, rest = divmod(calls, in_flight)
    await asyncio.gather(*(worker(share + (number < rest)) for number in range(in_flight)))


def measure_child_cpu_ms(command: list[str]) -> float:
    """Return the CPU time of a whole process in milliseconds."""
    # Installed packages come with bytecode, so let the checkout write its own.
    env = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": ""}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)[:300]} failed")
    return (usage.ru_utime + usage.ru_stime) * 1000


def measure_starts(commands: Mapping[str, list[str]], rounds: int) -> dict[str, float]:
    """Return the median CPU time of each command, in milliseconds."""
    times: dict[str, list[float]] = {side: [] for side in commands}
    for number in range(rounds + 1):
        for side, command in commands.items():
            cpu_ms = measure_child_cpu_ms(command)
            if number:
                times[side].append(cpu_ms)
    return compute_medians(times)


def run_fresh_process(case: str, side: str, results: Results, *more: str) -> float:
    """Return the number that `benchmarks.fresh` measures in a fresh process."""
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.fresh", case, side, results.origin, str(results.folder), *more],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return float(process.stdout)


def measure_in_fresh_processes(
    case: str, sides: Iterable[str], results: Results, rounds: int, *more: str
) -> dict[str, float]:
    """Return the medians that fresh processes measure, by side."""
    samples: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, values in samples.items():
            values.append(run_fresh_process(case, side, results, *more))
    return compute_medians(samples)
