"""A recorded call with a picture of 1 MB: imgkit's cassettes beside plain vcrpy, in time and size.

Run by `make bench`. The budget is 20 ms a test over plain vcrpy.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import vcr

import imgkit
from imgkit.testing import cassette
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import WireServer, reply

ROUNDS = 100
PICTURE = png(1, 590)
MATCH_ON = ("method", "scheme", "host", "port", "path", "query", "body")


def plain(path: Path, mode: str) -> AbstractContextManager[Any]:
    return vcr.use_cassette(str(path), record_mode=mode, match_on=MATCH_ON)


def ours(path: Path, mode: str) -> AbstractContextManager[Any]:
    return cassette(path, record_mode=mode)


def call(base_url: str) -> None:
    with imgkit.ImageService("requests", base_url=base_url, retry=False) as images:
        assert images.create_image("a fox")[0].data == PICTURE


def offline(path: Path) -> None:
    with imgkit.ImageService(fixtures=path) as images:
        assert images.create_image("a fox")[0].data == PICTURE


def timed(work: Any) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ways = {"plain vcrpy": (folder / "plain.yaml", plain), "imgkit": (folder / "ours.yaml", ours)}
        with WireServer(reply(200, answer(PICTURE))) as server:
            base_url = server.base_url
            for path, use in ways.values():
                with use(path, "once"):
                    call(base_url)

        def replayed(path: Path, use: Any) -> None:
            with use(path, "none"):
                call(base_url)

        times: dict[str, list[float]] = {text: [] for text in (*ways, "imgkit, offline backend")}
        for _ in range(ROUNDS):
            for text, (path, use) in ways.items():
                times[text].append(timed(lambda path=path, use=use: replayed(path, use)))
            times["imgkit, offline backend"].append(timed(lambda: offline(ways["imgkit"][0])))
        base = statistics.median(times["plain vcrpy"])
        print(f"{'a replay':26} {'ms':>7} {'ratio':>6} {'bytes of YAML':>14} {'beside it':>10}")
        for text, taken in times.items():
            path = ways.get(text, ways["imgkit"])[0]
            beside = sum(one.stat().st_size for one in path.with_name(f"{path.name}.files").glob("*"))
            middle = statistics.median(taken)
            print(f"{text:26} {middle:7.1f} {middle / base:6.2f} {path.stat().st_size:14} {beside:10}")


if __name__ == "__main__":
    main()
