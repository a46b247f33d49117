"""`python -m benchmarks`: measure everything, and write docs/performance.md."""

from __future__ import annotations

import argparse
import compileall
import tempfile
from pathlib import Path

import imgkit
from benchmarks import cases_bytes, cases_calls, cases_own, cases_starts, report
from benchmarks.harness import Results
from benchmarks.server import Server, pin

CASES = {"starts": cases_starts, "calls": cases_calls, "bytes": cases_bytes, "own": cases_own}
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    given = parser.parse_args()
    unknown = set(given.cases) - set(CASES)
    if unknown:
        parser.error(f"no case is named {', '.join(sorted(unknown))}")
    compileall.compile_dir(Path(imgkit.__file__).parent, quiet=1)  # as an installed package is
    with Server() as server, tempfile.TemporaryDirectory(dir=".", prefix=".bench-") as folder:
        pin(0)
        results = Results(given.quick, server.origin, Path(folder).absolute())
        for name in given.cases or CASES:
            CASES[name].run(results)
    if given.write:
        report.write(results, PAGE)
    else:
        print(report.tables(results))


if __name__ == "__main__":
    main()
