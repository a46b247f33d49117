"""One measurement in a process of its own: what memory a case takes. Prints one number, in MiB."""

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


def _status_mib(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"/proc/self/status has no {name}")


def rise(small: Callable[[], object], large: Callable[[], object]) -> float:
    """Return by how much `large` needs more memory at its peak than was in use after `small`."""
    for _ in range(3):
        small()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew, at what is in use
    before = _status_mib("VmHWM")
    large()
    return _status_mib("VmHWM") - before


def sync_rise(side: str, origin: str, folder: Path, reply: str, what: str, path: str = "") -> float:
    small = "stream-small" if what == "save_stream" else "small"
    one, big = (SYNC[side](f"{origin}/{name}/v1", folder) for name in (small, reply))
    works: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "save": (lambda: one.save(folder), lambda: big.save(folder)),
        "create": (one.create, big.create),
        "edit": (lambda: one.edit(Path(path).with_name("small.png")), lambda: one.edit(Path(path))),
        "stream": (one.create, lambda: big.stream(lambda: None)),
        "save_stream": (lambda: one.save_stream(folder), lambda: big.save_stream(folder)),
    }
    try:
        return rise(*works[what])
    finally:
        one.close()
        big.close()


def at_once(side: str, origin: str, folder: Path) -> float:
    """Return the rise of many replies of 1.4 MB that are in flight together, each to a file."""

    async def main() -> float:
        one, big = (ASYNC[side](f"{origin}/{name}/v1", folder) for name in ("small", "1.4MB"))
        await asyncio.gather(*(one.save(folder) for _ in range(20)))
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
        before = _status_mib("VmHWM")
        await asyncio.gather(*(big.save(folder) for _ in range(AT_ONCE)))
        peak = _status_mib("VmHWM") - before
        await one.close()
        await big.close()
        return peak

    return asyncio.run(main())


def resident(side: str, origin: str, folder: Path) -> float:
    """Return the resident memory of a process that has made calls."""
    one = SYNC[side](f"{origin}/small/v1", folder)
    for _ in range(20):
        one.create()
    gc.collect()
    return _status_mib("VmRSS")


def main(case: str, side: str, origin: str, folder: str, *more: str) -> None:
    pin(0)
    own = Path(tempfile.mkdtemp(dir=folder))
    measures: dict[str, Callable[..., float]] = {"rise": sync_rise, "at once": at_once, "resident": resident}
    try:
        print(measures[case](side, origin, own, *more))
    finally:
        shutil.rmtree(own)


if __name__ == "__main__":
    arguments: Any = sys.argv[1:]
    main(*arguments)
