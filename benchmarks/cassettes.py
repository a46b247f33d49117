"""Suites of 100 recorded tests: imgkit's cassettes beside plain vcrpy and pytest-recording, in time and size.

Run by `make bench`. In each way the same traffic is recorded from a server on loopback, and replayed by
pytest. Counted is the time of the processor, which other work on the machine hardly changes; a replay waits
for nothing. The budget is 20 ms a test over plain vcrpy.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from imgkit.images.sniff import sniff
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import WireServer, reply

TESTS = 100
ROUNDS = 5
BUDGET_MS = 20
PICTURES = {"0.8 KB": png(1, 16), "1.05 MB": png(1, 590)}

HEAD = """
import functools, pytest, vcr, imgkit
BASE_URL = {base_url!r}
MATCH_ON = ("method", "scheme", "host", "port", "path", "query", "body")

def ask(images, number):
    assert images.create_image(f"a fox {{number}}")[0].width == {width}

def service():
    return imgkit.ImageService("requests", base_url=BASE_URL, retry=False)
"""
WAYS = {
    "plain vcrpy": """
@pytest.mark.parametrize("number", range({tests}))
def test_it(number):
    with vcr.use_cassette(f"cassettes/{{number}}.yaml", record_mode={mode!r}, match_on=MATCH_ON):
        with service() as images:
            ask(images, number)
""",
    "pytest-recording": """
@pytest.fixture
def vcr_config():
    return {{"match_on": MATCH_ON}}

@pytest.mark.vcr
@pytest.mark.parametrize("number", range({tests}))
def test_it(number):
    with service() as images:
        ask(images, number)
""",
    "imgkit, marker": """
@pytest.fixture
def imgkit_settings():
    return {{"base_url": BASE_URL, "retry": False}}

@pytest.mark.imgkit_cassette
@pytest.mark.parametrize("number", range({tests}))
def test_it(image_service, number):
    ask(image_service, number)
""",
    "imgkit, offline": """
@pytest.mark.parametrize("number", range({tests}))
def test_it(number):
    with imgkit.ImageService(fixtures=f"cassettes/test_it/test_it[{{number}}].yaml", retry=False) as images:
        ask(images, number)
""",
}
OPTIONS = {"pytest-recording": "--record-mode=once", "imgkit, marker": "--imgkit-record=once"}


def run(folder: Path, *options: str) -> float:
    """Run the suite of a folder, and return how many ms a test took, pytest's start included."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *options]
    environment = {**os.environ, "OPENAI_API_KEY": "sk-none"}
    before = _processor_s()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    taken_s = _processor_s() - before
    assert f"{TESTS} passed" in done.stdout, done.stdout[-2000:]
    return taken_s * 1000 / TESTS


def _processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write(folder: Path, way: str, base_url: str, width: int | None, mode: str) -> None:
    folder.mkdir(exist_ok=True)
    source = (HEAD + WAYS[way]).format(base_url=base_url, width=width, tests=TESTS, mode=mode)
    (folder / "test_it.py").write_text(source)


def sizes(folder: Path) -> tuple[int, int]:
    """Return the bytes of text and of files beside it, those of one test."""
    files = [one for one in (folder / "cassettes").rglob("*") if one.is_file()]
    text = sum(one.stat().st_size for one in files if one.suffix == ".yaml")
    return text // TESTS, sum(one.stat().st_size for one in files) // TESTS - text // TESTS


def compare(folder: Path, name: str, picture: bytes) -> float:
    """Print the table for replies with one picture, and return ms over plain vcrpy."""
    kind = sniff(picture)
    assert kind is not None, "it is a PNG"
    folders = {way: folder / way.replace(", ", "-").replace(" ", "-") for way in WAYS}
    folders["imgkit, offline"] = folders["imgkit, marker"]
    with WireServer(reply(200, answer(picture))) as server:
        for way in list(WAYS)[:3]:
            write(folders[way], way, server.base_url, kind.width, "once")
            run(folders[way], *([OPTIONS[way]] if way in OPTIONS else []))
        base_url = server.base_url
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way in WAYS:
            write(folders[way], way, base_url, kind.width, "none")
            taken[way].append(run(folders[way]))
    base = statistics.median(taken["plain vcrpy"])
    print(
        f"\n{f'picture of {name}':20} {'ms a test':>9} {'ratio':>6} {'bytes of YAML':>14} {'beside it':>10}"
    )
    for way, times in taken.items():
        middle = statistics.median(times)
        text, beside = sizes(folders[way])
        print(f"{way:20} {middle:9.1f} {middle / base:6.2f} {text:14} {beside:10}")
    return statistics.median(taken["imgkit, marker"]) - base


def main() -> None:
    print(f"{TESTS} tests in a suite, median of {ROUNDS} runs, pytest's start included")
    for name, picture in PICTURES.items():
        with tempfile.TemporaryDirectory() as folder:
            over = compare(Path(folder), name, picture)
        print(f"imgkit's marker over plain vcrpy: {over:+.1f} ms a test; the budget is {BUDGET_MS}")
        assert over < BUDGET_MS


if __name__ == "__main__":
    main()
