"""Benchmarks of `imgkit serve`: its CPU beside a bare proxy, and its memory with many clients at once."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from benchmarks.harness import Results, compute_medians
from benchmarks.server import png
from benchmarks.sides import KEY, MODEL

SERVE, PROXY = "imgkit serve", "aiohttp proxy"
IN_FLIGHT = (1, 32)
REQUESTS = {"1.5KB": 320, "1.4MB": 64}
NAMES = {"1.5KB": "a small reply", "1.4MB": "a reply of 2 MB"}

AT_ONCE = 200
UPLOAD_BYTES = 8_000_000
SLOW_BYTES_PER_S = 500_000
PAUSE_S = 3.0
BLOCK_BYTES = 256 * 1024

_numbers = itertools.count()


class Process(NamedTuple):
    """A server process under test."""

    pid: int
    origin: str

    def read_cpu_s(self) -> float:
        """Return the CPU time that all its threads have used."""
        return time.clock_gettime((~self.pid << 3) | 2)  # the clock of a process (clock_getcpuclockid(3))

    def read_mib(self, name: str) -> float:
        """Return a figure of its memory."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))

    def reset_peak(self) -> None:
        """Let its peak begin at its present memory."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


class Peak(NamedTuple):
    """Memory beside that of an idle server, in MiB, and seconds."""

    mib: float
    seconds: float


@contextmanager
def start_process(command: Sequence[str], variables: Mapping[str, str] | None = None) -> Iterator[Process]:
    """Run a server that prints its origin first."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **(variables or {})},
    )
    assert process.stdout is not None
    try:
        yield Process(process.pid, process.stdout.readline().strip())
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


@contextmanager
def start_serve(url: str, folder: Path, *options: str) -> Iterator[Process]:
    """Run `imgkit serve` in front of an API."""
    command = ["imgkit", "serve", "--backend", "aiohttp", "--base-url", url, "--model", MODEL, "--port", "0",
               "--state-folder", str(folder), *options]  # fmt: skip
    with start_process(command, {"OPENAI_API_KEY": KEY}) as process:
        yield process


def run(results: Results) -> None:
    for reply, requests in REQUESTS.items():
        _measure_cpu(results, reply, requests)
    for name in MEMORY_CASES:
        measure_memory(results, name)


def _measure_cpu(results: Results, reply: str, requests: int) -> None:
    state = results.folder / "serve"
    with (
        start_serve(results.url(reply), state) as serve,
        start_process(["benchmarks.proxy", f"{results.origin}/{reply}"]) as proxy,
    ):
        sides = {SERVE: serve, PROXY: proxy}
        for in_flight in IN_FLIGHT:
            cpu: dict[str, list[float]] = {side: [] for side in sides}
            wall: dict[str, list[float]] = {side: [] for side in sides}
            for number in range(results.rounds(9) + 1):
                for side, process in sides.items():
                    before, began = process.read_cpu_s(), time.perf_counter()
                    asyncio.run(_send_many(process.origin, requests, in_flight))
                    if number:  # the first round is a warm-up
                        cpu[side].append((process.read_cpu_s() - before) / requests * 1e3)
                        wall[side].append((time.perf_counter() - began) / requests * 1e3)
            case = f"{NAMES[reply]} through a server, {in_flight} in flight"
            results.add(case, "CPU ms", compute_medians(cpu))
            results.add(case, "ms", compute_medians(wall))


async def _send_many(origin: str, requests: int, in_flight: int) -> None:
    async def work(count: int) -> None:
        client = await Client.open(origin)
        for _ in range(count):
            body = b'{"model":"%s","prompt":"%d red foxes"}' % (MODEL.encode(), next(_numbers))
            await client.send("/v1/images/generations", "application/json", [body])
            await client.read_reply()
        client.close()

    share, rest = divmod(requests, in_flight)
    await asyncio.gather(*(work(share + (number < rest)) for number in range(in_flight)))


class Client:
    """A connection of a client that discards the replies."""

    def __init__(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host = host
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, origin: str, limit: int = 2**20) -> Client:
        """Connect to a server."""
        parts = urlsplit(origin)
        assert parts.hostname is not None
        return cls(parts.netloc, *await asyncio.open_connection(parts.hostname, parts.port, limit=limit))

    async def send(self, path: str, content_type: str, blocks: Sequence[bytes | memoryview]) -> None:
        """Send a request."""
        length = sum(len(block) for block in blocks)
        self._writer.write(
            f"POST {path} HTTP/1.1\r\nhost: {self._host}\r\nauthorization: Bearer x\r\n"
            f"content-type: {content_type}\r\ncontent-length: {length}\r\n\r\n".encode()
        )
        for block in blocks:
            self._writer.write(block)
            await self._writer.drain()

    async def read_reply(self, bytes_per_s: float = 0.0, pause_s: float = 0.0) -> int:
        """Read a reply, as slowly as asked; return the number of its bytes."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        at = head.lower().index(b"content-length:")
        length = left = int(head[at + 15 :].split(b"\r\n", 1)[0])
        await asyncio.sleep(pause_s)
        while left:
            data = await self._reader.read(min(left, BLOCK_BYTES))
            assert data, "the reply breaks off"
            left -= len(data)
            if bytes_per_s:
                await asyncio.sleep(len(data) / bytes_per_s)
        return length

    def close(self) -> None:
        """Close the connection."""
        self._writer.transport.abort()


# --- Memory ----------------------------------------------------------------------------------


class MemoryCase(NamedTuple):
    """Edits of several clients at once."""

    clients: int
    upload_bytes: int
    reply: str
    kind: str = "form"
    is_slow: bool = True


MEMORY_CASES = {
    "200 edits of 8 MB at once, replies of 2 MB": MemoryCase(AT_ONCE, UPLOAD_BYTES, "1.4MB"),
    "200 edits of 8 MB at once, replies of 8 MB": MemoryCase(AT_ONCE, UPLOAD_BYTES, "8MB"),
    "200 edits of 8 MB in JSON at once, replies of 2 MB": MemoryCase(AT_ONCE, UPLOAD_BYTES, "1.4MB", "json"),
    "an edit of 32 MB, a reply of 32 MB": MemoryCase(1, 32_000_000, "32MB", is_slow=False),
}


def measure_memory(results: Results, name: str) -> Peak:
    """Measure the peak of a server with several clients at once, beside its memory when it is idle."""
    case = MEMORY_CASES[name]
    state = results.folder / "serve"
    parts = _build_edit(case)
    with start_serve(results.url(case.reply), state) as serve:
        asyncio.run(_send_many(serve.origin, 2, 1))
        serve.reset_peak()
        idle = serve.read_mib("VmRSS")
        began = time.perf_counter()
        asyncio.run(_send_edits(serve.origin, case, *parts))
        peak = Peak(serve.read_mib("VmHWM") - idle, time.perf_counter() - began)
    shutil.rmtree(state, ignore_errors=True)
    results.add("memory of a server: " + name, "peak MiB", {SERVE: peak.mib})
    results.add("memory of a server: " + name, "s", {SERVE: peak.seconds})
    return peak


def _build_edit(case: MemoryCase) -> tuple[str, list[bytes | memoryview]]:
    """Return the content type and the body of an edit, in blocks."""
    image = png(case.upload_bytes)
    if case.kind == "json":
        url = b"data:image/png;base64," + base64.b64encode(image)
        body = b'{"model":"%s","prompt":"a hat","images":[{"image_url":"%s"}]}' % (MODEL.encode(), url)
        kind = "application/json"
    else:
        head = "".join(
            f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
            for name, text in {"model": MODEL, "prompt": "a hat"}.items()
        )
        head += '--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
        body = f"{head}Content-Type: image/png\r\n\r\n".encode() + image + b"\r\n--b--\r\n"
        kind = "multipart/form-data; boundary=b"
    view = memoryview(body)
    return kind, [view[at : at + BLOCK_BYTES] for at in range(0, len(view), BLOCK_BYTES)]


async def _send_edits(
    origin: str, case: MemoryCase, content_type: str, blocks: Sequence[bytes | memoryview]
) -> None:
    """Send edits; a third of the clients reads slowly, and another third at first not at all."""

    async def edit(number: int) -> None:
        # A small buffer: the bytes that a client does not read stay at the server.
        client = await Client.open(origin, BLOCK_BYTES // 4)
        await client.send("/v1/images/edits", content_type, blocks)
        slow, pause_s = 0.0, 0.0
        if case.is_slow:
            slow, pause_s = ((0.0, 0.0), (SLOW_BYTES_PER_S, 0.0), (0.0, PAUSE_S))[number % 3]
        await client.read_reply(slow, pause_s)
        client.close()

    await asyncio.gather(*(edit(number) for number in range(case.clients)))
