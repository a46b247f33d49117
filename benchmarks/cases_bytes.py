"""What pictures cost: large replies, uploads and streams, in time and in memory."""

from __future__ import annotations

import statistics
import time
from typing import Any

import imgkit
from benchmarks.harness import Results, freshly, interleaved
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
        _replies(results, reply)
    at_once = freshly(
        "at once", ("imgkit", "imgkit, reusing", "openai", "aiohttp"), results, results.rounds(3)
    )
    results.put("500 replies of 1.4 MB at once, to files", "peak MiB", at_once)
    for megabytes in (4, 50):
        _uploads(results, megabytes)
    if hasattr(imgkit.ImageService, "stream_image"):
        _streams(results)
        _streams_to_files(results)


def _replies(results: Results, reply: str) -> None:
    sides = {name: SYNC[name](results.url(reply), results.folder) for name in SAVING}
    times = 8 if reply == "1.4MB" else 1

    def save(side: Any) -> Any:
        return lambda: [side.save(results.folder) for _ in range(times)]

    wall, cpu = interleaved({name: save(side) for name, side in sides.items()}, results.rounds(9))
    case = f"a reply of {reply} to a file"
    results.put(case, "CPU ms", {name: value / times * 1e3 for name, value in cpu.items()})
    results.put(case, "ms", {name: value / times * 1e3 for name, value in wall.items()})
    for side in sides.values():
        side.close()
    for old in results.folder.glob("picture-*"):
        old.unlink()
    results.put(case, "peak MiB", freshly("rise", SAVING, results, results.rounds(3), reply, "save"))
    kept = freshly("rise", IN_MEMORY, results, results.rounds(3), reply, "create")
    results.put(case, "peak MiB, in memory", kept)


def _uploads(results: Results, megabytes: int) -> None:
    path = results.folder / f"upload-{megabytes}.png"
    path.write_bytes(png(megabytes * 1_000_000))
    path.with_name("small.png").write_bytes(png(1000))
    sides = {name: SYNC[name](results.url("small"), results.folder) for name in UPLOADING}

    def edit(side: Any) -> Any:
        return lambda: side.edit(path)

    wall, cpu = interleaved({name: edit(side) for name, side in sides.items()}, results.rounds(9))
    case = f"an upload of {megabytes} MB"
    results.put(case, "CPU ms", {name: value * 1e3 for name, value in cpu.items()})
    results.put(case, "ms", {name: value * 1e3 for name, value in wall.items()})
    for side in sides.values():
        side.close()
    results.put(
        case, "peak MiB",
        freshly("rise", UPLOADING, results, results.rounds(3), "small", "edit", str(path)),
    )  # fmt: skip


def _streams(results: Results) -> None:
    sides = {name: SYNC[name](results.url("stream"), results.folder) for name in STREAMING}
    first: dict[str, list[float]] = {name: [] for name in sides}

    def stream(name: str, side: Any) -> Any:
        def work() -> None:
            began = time.perf_counter()
            side.stream(lambda: first[name].append((time.perf_counter() - began) * 1e3))

        return work

    works = {name: stream(name, side) for name, side in sides.items()}
    wall, cpu = interleaved(works, results.rounds(15))
    case = "a stream with 3 partial pictures of 1.4 MB"
    results.put(case, "first event ms", {name: statistics.median(times[1:]) for name, times in first.items()})
    results.put(case, "ms", {name: value * 1e3 for name, value in wall.items()})
    results.put(case, "CPU ms", {name: value * 1e3 for name, value in cpu.items()})
    for side in sides.values():
        side.close()
    results.put(case, "peak MiB", freshly("rise", STREAMING, results, results.rounds(3), "stream", "stream"))


def _streams_to_files(results: Results) -> None:
    sides = {name: SYNC[name](results.url("stream-32MB"), results.folder) for name in TO_FILES}

    def save(side: Any) -> Any:
        return lambda: side.save_stream(results.folder)

    wall, cpu = interleaved({name: save(side) for name, side in sides.items()}, results.rounds(3))
    case = "a stream to files, a partial picture of 32 MB and a complete one"
    results.put(case, "CPU ms", {name: value * 1e3 for name, value in cpu.items()})
    results.put(case, "ms", {name: value * 1e3 for name, value in wall.items()})
    for side in sides.values():
        side.close()
    for old in results.folder.glob("picture-*"):
        old.unlink()
    peaks = freshly("rise", TO_FILES, results, results.rounds(3), "stream-32MB", "save_stream")
    results.put(case, "peak MiB", peaks)
