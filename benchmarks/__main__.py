"""`python -m benchmarks`: run the benchmarks, and write the tables of docs/performance.md."""

from __future__ import annotations

import argparse
import compileall
import tempfile
from pathlib import Path

import imgkit
from benchmarks import (
    cases_bulk,
    cases_bytes,
    cases_calls,
    cases_own,
    cases_serve,
    cases_starts,
    report,
)
from benchmarks.harness import Results
from benchmarks.server import Server, pin

CASES = {
    "starts": cases_starts,
    "calls": cases_calls,
    "bytes": cases_bytes,
    "own": cases_own,
    "bulk": cases_bulk,
    "serve": cases_serve,
}
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"{', '.join(CASES)}; all if you name none")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument(
        "--full", action="store_true", help="a run of a million requests, which takes an hour"
    )
    parser.add_argument("--write", action="store_true", help="write the tables into docs/performance.md")
    options = parser.parse_args()
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"Unknown case: {', '.join(sorted(unknown))}. Available: {', '.join(CASES)}.")
    # Installed packages come with bytecode, so compile the checkout too.
    compileall.compile_dir(Path(imgkit.__file__).parent, quiet=1)
    with Server() as server, tempfile.TemporaryDirectory(dir=".", prefix=".bench-") as folder:
        pin(0)
        results = Results(options.quick, server.origin, Path(folder).absolute(), options.full)
        for name in options.cases or CASES:
            CASES[name].run(results)
    if options.write:
        report.write_tables(results, PAGE)
    else:
        print(report.format_tables(results))


if __name__ == "__main__":
    main()
