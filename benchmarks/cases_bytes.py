"""Benchmarks of large replies, uploads and streams: time and memory."""

from __future__ import annotations

import statistics
import time
from typing import Any

import imgkit
from benchmarks.harness import Results, measure_in_fresh_processes, measure_interleaved
from benchmarks.server import png
from benchmarks.sides import SYNC

SAVING = (
    "imgkit",
    "imgkit, reusing",
    "imgkit, reusing, no sidecar",
    "imgkit, reusing, spool",
    "openai",
    "requests",
)
IN_MEMORY = ("imgkit", "imgkit, reusing", "openai", "requests")
UPLOADING = ("imgkit", "imgkit, reusing", "openai", "openai, open file", "requests")
STREAMING = ("imgkit", "imgkit, reusing", "openai")
TO_FILES = ("imgkit, reusing", "openai")


def run(results: Results) -> None:
    for reply in ("1.4MB", "8MB", "32MB"):
        _measure_replies(results, reply)
    peaks = measure_in_fresh_processes(
        "concurrent", ("imgkit", "imgkit, reusing", "openai", "aiohttp"), results, results.rounds(3)
    )
    results.add("500 replies of 1.4 MB at once, to files", "peak MiB", peaks)
    for megabytes in (4, 50):
        _measure_uploads(results, megabytes)
    if hasattr(imgkit.ImageService, "stream_image"):
        _measure_streams(results)
        _measure_streams_to_files(results)


def _measure_replies(results: Results, reply: str) -> None:
    sides = {name: SYNC[name](results.url(reply), results.folder) for name in SAVING}
    times = 8 if reply == "1.4MB" else 1

    def save(side: Any) -> Any:
        return lambda: [side.save(results.folder) for _ in range(times)]

    wall, cpu = measure_interleaved({name: save(side) for name, side in sides.items()}, results.rounds(9))
    case = f"a reply of {reply} to a file"
    results.add(case, "CPU ms", {name: value / times * 1e3 for name, value in cpu.items()})
    results.add(case, "ms", {name: value / times * 1e3 for name, value in wall.items()})
    for side in sides.values():
        side.close()
    for path in results.folder.glob("image-*"):
        path.unlink()
    results.add(
        case,
        "peak MiB",
        measure_in_fresh_processes("rise", SAVING, results, results.rounds(3), reply, "save"),
    )
    peaks = measure_in_fresh_processes("rise", IN_MEMORY, results, results.rounds(3), reply, "create")
    results.add(case, "peak MiB, in memory", peaks)


def _measure_uploads(results: Results, megabytes: int) -> None:
    path = results.folder / f"upload-{megabytes}.png"
    path.write_bytes(png(megabytes * 1_000_000))
    path.with_name("small.png").write_bytes(png(1000))
    sides = {name: SYNC[name](results.url("small"), results.folder) for name in UPLOADING}

    def edit(side: Any) -> Any:
        return lambda: side.edit(path)

    wall, cpu = measure_interleaved({name: edit(side) for name, side in sides.items()}, results.rounds(9))
    case = f"an upload of {megabytes} MB"
    results.add(case, "CPU ms", {name: value * 1e3 for name, value in cpu.items()})
    results.add(case, "ms", {name: value * 1e3 for name, value in wall.items()})
    for side in sides.values():
        side.close()
    results.add(
        case, "peak MiB",
        measure_in_fresh_processes("rise", UPLOADING, results, results.rounds(3), "small", "edit", str(path)),
    )  # fmt: skip


def _measure_streams(results: Results) -> None:
    sides = {name: SYNC[name](results.url("stream"), results.folder) for name in STREAMING}
    first: dict[str, list[float]] = {name: [] for name in sides}

    def stream(name: str, side: Any) -> Any:
        def run_stream() -> None:
            start = time.perf_counter()
            side.stream(lambda: first[name].append((time.perf_counter() - start) * 1e3))

        return run_stream

    works = {name: stream(name, side) for name, side in sides.items()}
    wall, cpu = measure_interleaved(works, results.rounds(15))
    case = "a stream with 3 partial images of 1.4 MB"
    results.add(case, "first event ms", {name: statistics.median(times[1:]) for name, times in first.items()})
    results.add(case, "ms", {name: value * 1e3 for name, value in wall.items()})
    results.add(case, "CPU ms", {name: value * 1e3 for name, value in cpu.items()})
    for side in sides.values():
        side.close()
    results.add(
        case,
        "peak MiB",
        measure_in_fresh_processes("rise", STREAMING, results, results.rounds(3), "stream", "stream"),
    )


def _measure_streams_to_files(results: Results) -> None:
    sides = {name: SYNC[name](results.url("stream-32MB"), results.folder) for name in TO_FILES}

    def save(side: Any) -> Any:
        return lambda: side.save_stream(results.folder)

    wall, cpu = measure_interleaved({name: save(side) for name, side in sides.items()}, results.rounds(3))
    case = "a stream to files, a partial and a complete image of 32 MB"
    results.add(case, "CPU ms", {name: value * 1e3 for name, value in cpu.items()})
    results.add(case, "ms", {name: value * 1e3 for name, value in wall.items()})
    for side in sides.values():
        side.close()
    for path in results.folder.glob("image-*"):
        path.unlink()
    peaks = measure_in_fresh_processes(
        "rise", TO_FILES, results, results.rounds(3), "stream-32MB", "save_stream"
    )
    results.add(case, "peak MiB", peaks)
