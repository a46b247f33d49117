"""Measure the memory of one case in a fresh process, and print it in MiB."""

from __future__ import annotations

import asyncio
import gc
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.server import pin
from benchmarks.sides import ASYNC, SYNC

AT_ONCE = 500


def status_mib(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"/proc/self/status has no {name}. This benchmark needs Linux.")


def measure_rise(small: Callable[[], object], large: Callable[[], object]) -> float:
    """Return the peak memory of `large` beyond the memory in use after `small`, in MiB."""
    for _ in range(3):
        small()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = status_mib("VmHWM")
    large()
    return status_mib("VmHWM") - before


def measure_sync_rise(side: str, origin: str, folder: Path, reply: str, action: str, path: str = "") -> float:
    small_reply = "stream-small" if action == "save_stream" else "small"
    small_side, large_side = (SYNC[side](f"{origin}/{name}/v1", folder) for name in (small_reply, reply))
    works: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "save": (lambda: small_side.save(folder), lambda: large_side.save(folder)),
        "create": (small_side.create, large_side.create),
        "edit": (
            lambda: small_side.edit(Path(path).with_name("small.png")),
            lambda: small_side.edit(Path(path)),
        ),
        "stream": (small_side.create, lambda: large_side.stream(lambda: None)),
        "save_stream": (lambda: small_side.save_stream(folder), lambda: large_side.save_stream(folder)),
    }
    try:
        return measure_rise(*works[action])
    finally:
        small_side.close()
        large_side.close()


def measure_concurrent_rise(side: str, origin: str, folder: Path) -> float:
    """Return the memory rise of `AT_ONCE` concurrent replies of 1.4 MB, each saved to a file."""

    async def main() -> float:
        small_side, large_side = (ASYNC[side](f"{origin}/{name}/v1", folder) for name in ("small", "1.4MB"))
        await asyncio.gather(*(small_side.save(folder) for _ in range(20)))
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
        before = status_mib("VmHWM")
        await asyncio.gather(*(large_side.save(folder) for _ in range(AT_ONCE)))
        peak = status_mib("VmHWM") - before
        await small_side.close()
        await large_side.close()
        return peak

    return asyncio.run(main())


def measure_resident(side: str, origin: str, folder: Path) -> float:
    """Return the resident memory of a process after 20 calls."""
    calls = SYNC[side](f"{origin}/small/v1", folder)
    for _ in range(20):
        calls.create()
    gc.collect()
    return status_mib("VmRSS")


def main(case: str, side: str, origin: str, folder: str, *more: str) -> None:
    pin(0)
    temporary = Path(tempfile.mkdtemp(dir=folder))
    measures: dict[str, Callable[..., float]] = {
        "rise": measure_sync_rise,
        "concurrent": measure_concurrent_rise,
        "resident": measure_resident,
    }
    try:
        print(measures[case](side, origin, temporary, *more))
    finally:
        shutil.rmtree(temporary)


if __name__ == "__main__":
    arguments: Any = sys.argv[1:]
    main(*arguments)
