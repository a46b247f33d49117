"""An asynchronous service that nobody closes says so in imgkit's words."""

from __future__ import annotations

import sys

import pytest

from tests.support.processes import run_process

PROGRAM = """
import asyncio
import imgkit
from imgkit.testing import WireServer
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import reply

async def main(close):
    service = imgkit.AsyncImageService({backend!r}, base_url=server.base_url, reuse_connections={reuse})
    print((await service.create_image("a fox"))[0].width)
    if close:
        await service.close()
    return service if {keep} else None

with WireServer(reply(200, answer(png(1)))) as server:
    kept = [asyncio.run(main(close)) for close in (True, False)]
"""


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(("backend", "reuse"), [("aiohttp", False), ("aiohttp", True), ("requests", False)])
def test_a_service_that_nobody_closes_warns(backend: str, reuse: bool, keep: bool) -> None:
    """A service left open warns once, at its end or at that of the process; aiohttp says nothing."""
    program = PROGRAM.format(backend=backend, reuse=reuse, keep=keep)
    done = run_process(
        [sys.executable, "-W", "default", "-c", program], capture_output=True, text=True, timeout=50
    )
    assert (done.returncode, done.stdout) == (0, "8\n8\n"), done.stderr
    assert done.stderr.count(" was not closed, so its connections and threads stayed open.") == 2
    assert done.stderr.count("ResourceWarning: AsyncImageService(") == 1
    assert "Unclosed" not in done.stderr
