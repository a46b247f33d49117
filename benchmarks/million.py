"""A run of a million requests through a backend in the process: time, memory, and the manifest.

``python -m benchmarks.million [COUNT]`` prints the figures as JSON. A smaller run fills its manifest up to a
million rows before it measures how long that takes to open.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import imgkit
from benchmarks.fresh import status_mib
from imgkit.bulk.manifest import Manifest
from imgkit.testing.samples import answer, png
from imgkit.wire.messages import Head, HttpRequest
from imgkit.wire.transfer import Transfer

COUNT, WINDOW, IN_FLIGHT = 1_000_000, 10_000, 16
HEAD = Head(200, {"content-type": "application/json", "x-request-id": "req_0123456789"})
BODY = json.dumps(answer(png(1, 1))).encode()


class Reply:
    """An open reply with one image of a pixel."""

    head = HEAD

    def __init__(self) -> None:
        self._chunks = [BODY]

    async def read(self) -> bytes:
        """Return the body, then the end."""
        return self._chunks.pop() if self._chunks else b""

    def close(self) -> None:
        """Do nothing: nothing is open."""


class InProcess:
    """A backend that answers each request at once, without network."""

    wire_errors = (OSError,)
    unsent_errors = (ConnectionRefusedError,)

    async def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        """Return a reply."""
        return Reply()

    async def aclose(self) -> None:
        """Do nothing: nothing is open."""


def fill_up(path: Path, count: int) -> None:
    """Add done rows to a manifest, up to a million."""
    if count >= COUNT:
        return
    with sqlite3.connect(path) as rows:
        rows.execute(
            "WITH RECURSIVE numbers(n) AS (SELECT ? UNION ALL SELECT n + 1 FROM numbers WHERE n < ?) "
            "INSERT INTO rows (n, id, digest, state, request, info, listed) "
            "SELECT numbers.n, numbers.n, digest, state, request, info, listed "
            "FROM numbers JOIN rows ON rows.n = 1 + numbers.n % ?",
            (count + 1, COUNT, count),
        )
    rows.close()


def list_prompts(count: int) -> Iterator[str]:
    """Yield distinct prompts, as an iterable of unknown length does."""
    for number in range(count):
        yield f"{number} red foxes on a hill, in the style of a woodcut"


async def measure(count: int, folder: Path) -> dict[str, float]:
    """Carry out the run; return its figures."""
    window = min(WINDOW, count // 4)
    ticks: list[tuple[float, float]] = []  # wall time and CPU time
    memory: list[float] = []
    service = imgkit.AsyncImageService(
        InProcess(),
        api_key="sk-benchmark-0123456789",
        model="gpt-image-2",
        state_folder=folder / "state",
        plugins=[imgkit.Budget(1_000_000)],
    )
    started, cpu, done = time.perf_counter(), time.process_time(), 0
    async with service, service.bulk(
        list_prompts(count), folder=folder / "out", most_in_flight=IN_FLIGHT
    ) as outcomes:  # fmt: skip
        async for outcome in outcomes:
            assert outcome.state == "done", outcome
            done += 1
            if done in (1, window, count - window, count):
                ticks.append((time.perf_counter(), time.process_time()))
            if done % max(1, count // 100) == 0:
                memory.append(status_mib("VmRSS"))
                print(f"{done} {time.perf_counter() - started:.1f} s {memory[-1]:.1f} MiB", file=sys.stderr)
    assert sum(1 for _ in (folder / "out" / "metadata.jsonl").open()) == count
    wall_s, cpu_s = (
        [later - sooner for sooner, later in itertools.pairwise(times)] for times in zip(*ticks, strict=True)
    )
    fill_up(folder / "out" / "manifest.sqlite", count)
    begun = time.perf_counter()
    manifest = Manifest(folder / "out")
    left = [manifest.list_waiting(), manifest.list_unlisted()]
    left += [list(manifest.list_rows(state)) for state in ("sending", "unknown", "accepted", "failed")]
    counts = manifest.count()
    opening_s = time.perf_counter() - begun
    manifest.close()
    assert not any(left)
    assert counts["done"] == max(count, COUNT)
    return {
        "requests": count,
        "CPU ms of a request": (ticks[-1][1] - cpu) * 1e3 / count,
        "ms of a request": (ticks[-1][0] - started) * 1e3 / count,
        "last / first": cpu_s[-1] / cpu_s[0],
        "last / first, wall": wall_s[-1] / wall_s[0],
        "resident MiB": max(memory),
        "growth MiB": memory[-1] - memory[len(memory) // 10],
        "opening s": opening_s,
        "manifest MB": (folder / "out" / "manifest.sqlite").stat().st_size / 1e6,
    }


def main() -> None:
    import asyncio

    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    with tempfile.TemporaryDirectory(dir=".", prefix=".bench-") as folder:
        print(json.dumps(asyncio.run(measure(count, Path(folder).absolute()))))


if __name__ == "__main__":
    main()
