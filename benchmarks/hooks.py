"""What the layer of hooks adds to a call: three plugins that do nothing, beside none.

Run by `make bench`. The budget is 10 µs a call.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

import imgkit
from imgkit import operations
from imgkit.flow import Done, Open, Read, Run, advance
from imgkit.testing.samples import answer
from imgkit.wire import Head

BODY = json.dumps(answer()).encode()
ROUNDS, CALLS = 21, 200


class Idle:
    """Every hook of a call, and nothing done in any."""

    @imgkit.hookimpl
    def imgkit_prepare(self, request: Any, call: Any) -> None: ...

    @imgkit.hookimpl
    def imgkit_before_send(self, request: Any, call: Any) -> None: ...

    @imgkit.hookimpl
    def imgkit_on_event(self, event: Any, call: Any) -> None: ...


def step(core: Any) -> None:
    """Run one call by hand: no wire, no threads, so that only our own code is measured."""
    flow, news, chunks = operations.create_image(core, "a fox"), None, iter((BODY, b""))
    while True:
        match advance(flow, news):
            case Open():
                news = Head(200, {"x-request-id": "r"})
            case Read():
                news = next(chunks)
            case Run(fn, _):
                news = fn()
            case Done():
                return


def main() -> None:
    cores = {}
    for count in (0, 3):
        plugins = [Idle() for _ in range(count)]
        service = imgkit.ImageService("requests", base_url="http://127.0.0.1:1/v1", plugins=plugins)
        cores[count] = service._core
        service.close()
    times: dict[int, list[float]] = {count: [] for count in cores}
    for _ in range(ROUNDS):
        for count, core in cores.items():
            began = time.process_time()
            for _ in range(CALLS):
                step(core)
            times[count].append((time.process_time() - began) / CALLS * 1e6)
    none, three = (statistics.median(times[count]) for count in (0, 3))
    print(f"a call without wire: {none:.1f} µs; three plugins add {three - none:.1f} µs")


if __name__ == "__main__":
    main()
