"""The kill test: runs of many images that `kill -9` ends, and a table of every paid request (`make kills`).

Both services, both HTTP backends, the command; a provider that answers with images, and a provider with jobs.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.support.bulk_kills import COUNTS, Scene, kill_runs
from tests.support.processes import child_processes

SCENES = [
    Scene(*names)
    for names in itertools.product(("sync", "async", "command"), ("requests", "aiohttp"), ("openai", "bfl"))
]
KILLS, LONGEST_HOLD_S = 200, 0.3
LEAST_BUSY = 0.4
"""Share of the kills that must meet eight or more rows in flight."""


def main() -> int:
    """Kill runs of all scenes in turn; print the table; return 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--seconds", type=float, help="start no other run after this time")
    parser.add_argument("--only", default="", help="scenes whose names have this text")
    given = parser.parse_args()
    scenes = [scene for scene in SCENES if given.only in " ".join(scene)]
    stop_at = None if given.seconds is None else time.monotonic() + given.seconds
    _show(f"{given.kills} kills, seed {given.seed}")
    _show(f"{'':25}" + "".join(f"{name:>10}" for name in COUNTS))
    total: Counter[str] = Counter()
    problems: list[str] = []
    for number, scene in enumerate(scenes):
        kills = given.kills // len(scenes) + (number < given.kills % len(scenes))
        with tempfile.TemporaryDirectory() as folder, child_processes():
            report = kill_runs(
                Path(folder),
                kills,
                seed=given.seed + number,
                scene=scene,
                longest_s=LONGEST_HOLD_S,
                stop_at=stop_at,
            )
        _print_counts(" ".join(scene), report.counts)
        total += report.counts
        problems += report.problems
        _print_problems(report.problems)
    _print_counts("all", total)
    shortfalls = []
    if total["busy"] < LEAST_BUSY * total["kills"]:
        shortfalls.append("too few kills met eight or more rows in flight")
    if stop_at is None and total["kills"] < given.kills:
        shortfalls.append(f"only {total['kills']} kills")
    _print_problems(shortfalls)
    return 1 if problems or shortfalls else 0


def _print_counts(name: str, counts: Counter[str]) -> None:
    _show(f"{name:25}" + "".join(f"{counts[each]:>10}" for each in COUNTS))


def _print_problems(problems: list[str]) -> None:
    for problem in problems:
        sys.stderr.write(f"{problem}\n")


def _show(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
