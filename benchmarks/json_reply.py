"""Compare reading a reply with one image while it arrives, and as a whole: CPU time and peak memory.

Run by `make bench`. Prints ratios to the standard library: `json.loads` of the whole reply, then
`base64.b64decode`.
"""

from __future__ import annotations

import base64
import json
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator

import pybase64

from imgkit.wire.json_body import JsonReply
from imgkit.wire.json_values import decode_base64

CHUNK_BYTES = 64 * 1024
ROUNDS = 9


def split_into_chunks(body: bytes) -> Iterator[bytes]:
    view = memoryview(body)
    for start in range(0, len(body), CHUNK_BYTES):
        yield bytes(view[start : start + CHUNK_BYTES])


def read_with_imgkit(body: bytes) -> bytes:
    reply = JsonReply(frozenset({"b64_json"}))
    for chunk in split_into_chunks(body):
        reply.feed(chunk)
    reply.close()
    return decode_base64(reply.json()["data"][0]["b64_json"])


def build_whole_reader(decode: Callable[[str], bytes]) -> Callable[[bytes], bytes]:
    def read(body: bytes) -> bytes:
        collected = b"".join(split_into_chunks(body))
        return decode(json.loads(collected)["data"][0]["b64_json"])

    return read


WAYS = {
    "json + base64, whole": build_whole_reader(base64.b64decode),
    "json + pybase64, whole": build_whole_reader(pybase64.b64decode),
    "imgkit, as it arrives": read_with_imgkit,
}


def main() -> None:
    print(f"{'':26} {'size':>7} {'CPU ms':>8} {'ratio':>6} {'peak MiB':>9}")
    for megabytes in (1.4, 8.0, 32.0):
        image = random.Random(1).randbytes(int(megabytes * 1e6))
        body = json.dumps({"data": [{"b64_json": base64.b64encode(image).decode()}]}).encode()
        times: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(ROUNDS):
            for name, way in WAYS.items():
                start = time.process_time()
                assert len(way(body)) == len(image)
                times[name].append((time.process_time() - start) * 1000)
        base = statistics.median(times["json + base64, whole"])
        for name, way in WAYS.items():
            tracemalloc.start()
            way(body)
            peak = tracemalloc.get_traced_memory()[1] / 2**20
            tracemalloc.stop()
            median = statistics.median(times[name])
            print(f"{name:26} {megabytes:4.1f} MB {median:8.2f} {median / base:6.2f} {peak:9.1f}")


if __name__ == "__main__":
    main()
