"""Compare imgkit's cassettes with plain vcrpy and pytest-recording: 100 recorded tests, time and size.

Run by `make bench`. Each way records the same traffic from a server on loopback, and pytest replays it. The
benchmark counts CPU time, which other work on the machine hardly changes; a replay never waits. The budget is
20 ms per test over plain vcrpy.
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
from imgkit.testing import WireServer, answer, png, reply

TESTS = 100
ROUNDS = 5
BUDGET_MS = 20
IMAGES = {"0.8 KB": png(1, 16), "1.05 MB": png(1, 590)}

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


def run_suite(folder: Path, *options: str) -> float:
    """Run the suite of a folder, and return the CPU time per test in ms, including pytest's start."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *options]
    environment = {**os.environ, "OPENAI_API_KEY": "sk-none"}
    before = _children_cpu_s()
    process = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    taken_s = _children_cpu_s() - before
    assert f"{TESTS} passed" in process.stdout, process.stdout[-2000:]
    return taken_s * 1000 / TESTS


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def write_suite(folder: Path, way: str, base_url: str, width: int | None, mode: str) -> None:
    folder.mkdir(exist_ok=True)
    source = (HEAD + WAYS[way]).format(base_url=base_url, width=width, tests=TESTS, mode=mode)
    (folder / "test_it.py").write_text(source)


def measure_sizes(folder: Path) -> tuple[int, int]:
    """Return the bytes of YAML, and of files beside it, per test."""
    files = [path for path in (folder / "cassettes").rglob("*") if path.is_file()]
    text = sum(path.stat().st_size for path in files if path.suffix == ".yaml")
    return text // TESTS, sum(path.stat().st_size for path in files) // TESTS - text // TESTS


def compare_ways(folder: Path, name: str, image: bytes) -> float:
    """Print the table for replies with one image, and return the ms per test over plain vcrpy."""
    kind = sniff(image)
    assert kind is not None, "not an image"
    folders = {way: folder / way.replace(", ", "-").replace(" ", "-") for way in WAYS}
    folders["imgkit, offline"] = folders["imgkit, marker"]
    with WireServer(reply(200, answer(image))) as server:
        for way in list(WAYS)[:3]:
            write_suite(folders[way], way, server.base_url, kind.width, "once")
            run_suite(folders[way], *([OPTIONS[way]] if way in OPTIONS else []))
        base_url = server.base_url
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way in WAYS:
            write_suite(folders[way], way, base_url, kind.width, "none")
            times[way].append(run_suite(folders[way]))
    base = statistics.median(times["plain vcrpy"])
    print(
        f"\n{f'image of {name}':20} {'ms per test':>11} {'ratio':>6} {'bytes of YAML':>14} {'beside it':>10}"
    )
    for way, samples in times.items():
        median = statistics.median(samples)
        text, beside = measure_sizes(folders[way])
        print(f"{way:20} {median:11.1f} {median / base:6.2f} {text:14} {beside:10}")
    return statistics.median(times["imgkit, marker"]) - base


def main() -> None:
    print(f"{TESTS} tests in a suite, median of {ROUNDS} runs, including pytest's start")
    for name, image in IMAGES.items():
        with tempfile.TemporaryDirectory() as folder:
            over = compare_ways(Path(folder), name, image)
        print(f"imgkit's marker over plain vcrpy: {over:+.1f} ms per test; the budget is {BUDGET_MS}")
        assert over < BUDGET_MS


if __name__ == "__main__":
    main()
