"""Benchmarks of runs: their cost beside a script, and beside the same calls without a run."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import imgkit
from benchmarks.harness import Results, measure_interleaved
from benchmarks.sides import KEY, MODEL
from imgkit.images.saving import SavePlan

IMAGES, IN_FLIGHT = 2000, 32
CASE = "2,000 images of 1.4 MB to disk, 32 in flight"
RUN, REUSING = "imgkit, a run", "imgkit, a run, reusing"
CALLS, BARE_CALLS = "imgkit, calls", "imgkit, calls, no sidecar"
SCRIPT = "aiohttp script"

MANY = "a run of many requests without network"
MANY_ROWS = 20_000

Work = Callable[[Path], Coroutine[Any, Any, None]]


def run(results: Results) -> None:
    _measure_images(results)
    _measure_rows(results)


def _measure_rows(results: Results) -> None:
    count = 1_000_000 if results.full else MANY_ROWS // 10 if results.quick else MANY_ROWS
    command = [sys.executable, "-m", "benchmarks.million", str(count)]
    figures = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    for figure, value in figures.items():
        results.add(MANY, figure, {"imgkit": value})


def _measure_images(results: Results) -> None:
    count = IMAGES // 10 if results.quick else IMAGES
    url, folder = results.url("distinct"), results.folder / "bulk"
    numbers = itertools.count()
    with asyncio.Runner() as runner:
        settings = {"base_url": url, "api_key": KEY, "model": MODEL, "state_folder": folder / "state"}
        service = imgkit.AsyncImageService("aiohttp", **settings)
        reusing = imgkit.AsyncImageService("aiohttp", reuse_connections=True, **settings)
        sides: dict[str, Work] = {
            RUN: lambda out: save_in_run(service, out, count),
            REUSING: lambda out: save_in_run(reusing, out, count),
            CALLS: lambda out: save_in_calls(service, out, count),
            BARE_CALLS: lambda out: save_in_calls(service, out, count, sidecar=False),
            SCRIPT: lambda out: save_in_script(url, out, count),
        }

        def save(side: Work) -> Callable[[], None]:
            def work() -> None:
                out = folder / str(next(numbers))
                out.mkdir(parents=True)
                runner.run(side(out))

            return work

        def tidy() -> None:
            for out in folder.glob("[0-9]*"):
                assert sum(1 for _ in out.rglob("*.png")) == count
                shutil.rmtree(out)

        works = {name: save(side) for name, side in sides.items()}
        wall, cpu = measure_interleaved(works, results.rounds(3), tidy)
        results.add(CASE, "CPU ms", {name: value / count * 1e3 for name, value in cpu.items()})
        results.add(CASE, "ms", {name: value / count * 1e3 for name, value in wall.items()})
        runner.run(service.close())
        runner.run(reusing.close())


async def save_in_run(service: imgkit.AsyncImageService, folder: Path, count: int) -> None:
    """Carry out a run."""
    prompts = [f"{number} red foxes" for number in range(count)]
    async with service.bulk(prompts, folder=folder, most_in_flight=IN_FLIGHT) as outcomes:
        async for outcome in outcomes:
            assert outcome.state == "done", outcome


async def save_in_calls(
    service: imgkit.AsyncImageService, folder: Path, count: int, *, sidecar: bool = True
) -> None:
    """Make the same calls without a run."""
    plan = SavePlan.from_target(f"{folder}/{{digest}}.{{ext}}", sidecar=sidecar)
    room = asyncio.Semaphore(IN_FLIGHT)

    async def save(number: int) -> None:
        async with room:
            await service.create_image(f"{number} red foxes", save_to=plan)

    await asyncio.gather(*(save(number) for number in range(count)))


async def save_in_script(url: str, folder: Path, count: int) -> None:
    """Do the same with aiohttp, as most people would write it: `fsync` blocks, so a thread writes."""
    import aiohttp

    room = asyncio.Semaphore(IN_FLIGHT)

    def write(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    async def save(session: aiohttp.ClientSession, number: int) -> None:
        async with room:
            body = {"model": MODEL, "prompt": f"{number} red foxes"}
            async with session.post(f"{url}/images/generations", json=body) as response:
                response.raise_for_status()
                reply = await response.json()
            data = base64.b64decode(reply["data"][0]["b64_json"])
            await asyncio.to_thread(write, folder / f"{number}.png", data)

    headers = {"authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        await asyncio.gather(*(save(session, number) for number in range(count)))
