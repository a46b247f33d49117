"""Count the requests of each client of `imgkit serve` on each failure.

Run `python -m tests.integrations.client_matrix` for the tables in Markdown.

The environments of the clients come from `make integrations`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from tests.integrations.serving.clients import NAMES, Client, CurlClient, open_clients
from tests.integrations.serving.failures import FAILURES, Failure
from tests.integrations.serving.stack import TIMEOUT, Row, Stack, open_stacks, share_server
from tests.integrations.serving.upstream import paint

OPERATIONS = ("create", "edit", "variation", "stream", "edit stream")
REPEATED = tuple(failure for failure in FAILURES if failure.status in (429, 500, 503))
ONCE = tuple(failure for failure in FAILURES if failure not in REPEATED)
"""Failures that imgkit itself repeats, because nothing was paid; and those that it does not repeat."""

T = TypeVar("T")
NO_ROOM = ("--price-per-image", "0.05", "--max-cost", "0.01")
"""Options of a server whose budget has no room for an image."""

NOTHING_LISTENS = "http://127.0.0.1:9/v1"


def main() -> int:
    """Measure, and print a table for each operation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", nargs="+", default=OPERATIONS, choices=OPERATIONS)
    parser.add_argument("--clients", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--rows", action="store_true", help="print a row for each call")
    parser.add_argument("--direct", action="store_true", help="count calls of the API itself, too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, open_clients(Path(name)) as every:
        clients = {name: every[name] for name in given.clients}
        rows, direct = measure_all(Path(name), clients, given.operations, given.direct)
    for operation in given.operations:
        show_table(operation, [row for row in rows if row.operation == operation], given.clients)
    if given.direct:
        show_direct(direct, given.clients)
    if given.rows:
        show_rows(rows)
    return 0


def measure_all(
    folder: Path, clients: dict[str, Client], operations: Sequence[str], is_direct: bool
) -> tuple[list[Row], dict[tuple[str, str], int]]:
    """Return a row for each client, operation and failure; and the counts of direct calls."""
    with open_stacks(folder / "api", clients) as stacks:
        rows = run_parallel(stacks, lambda stack: measure_failures(stack, operations))
        direct = dict(run_parallel(stacks, measure_direct)) if is_direct else {}
    for number, (operation, failure) in enumerate(itertools.product(operations, REPEATED)):
        # Each meets new servers, because repetitions use up the server's budget of retries.
        able = {name: each for name, each in clients.items() if operation in each.operations}
        with open_stacks(folder / f"repeated-{number}", able) as stacks:
            rows += run_parallel(stacks, partial(measure_repeated, operation, failure))
    with open_stacks(folder / "nobody", clients, base_url=NOTHING_LISTENS) as stacks:
        rows += run_parallel(stacks, lambda stack: measure_one(stack, operations, "nothing listens"))
    cassette = record(folder)
    cases = {"budget used up": NO_ROOM, "not on the cassette": ("--replay", str(cassette))}
    for name, options in cases.items():
        with share_server(folder / name, clients, *options) as stacks:
            # One after the other: they share the count of requests at the API.
            rows += [row for stack in stacks for row in measure_one(stack, operations, name)]
    return rows, direct


def record(folder: Path) -> Path:
    """Record a request to a cassette; return its path."""
    cassette = folder / "cassette.yaml"
    with share_server(folder / "record", {"curl": CurlClient()}, "--record", str(cassette)) as (stack,):
        stack.send("create")
    return cassette


def run_parallel(stacks: Iterable[Stack], work: Callable[[Stack], list[T]]) -> list[T]:
    """Return the results of work on all stacks at once."""
    with ThreadPoolExecutor(len(NAMES)) as pool:
        return [each for part in pool.map(work, stacks) for each in part]


def list_operations(stack: Stack, operations: Sequence[str]) -> list[str]:
    """Return the operations that a client has."""
    return [each for each in operations if each in stack.client.operations]


def measure_failures(stack: Stack, operations: Sequence[str]) -> list[Row]:
    """Let a client meet each failure, and a good call behind it, which resets the circuit breaker."""
    rows = []
    for operation in list_operations(stack, operations):
        rows.append(stack.measure(operation, "no failure"))
        for failure in ONCE:
            rows.append(stack.measure(operation, failure.name, failure.answer))
            stack.measure(operation, "", paint)
        if stack.client.has_timeout:
            rows.append(stack.measure_timeout(operation))
    return rows


def measure_repeated(operation: str, failure: Failure, stack: Stack) -> list[Row]:
    """Let a client meet a failure that imgkit repeats itself."""
    return [stack.measure(operation, failure.name, failure.answer)]


def measure_one(stack: Stack, operations: Sequence[str], name: str) -> list[Row]:
    """Let a client meet the failure of its server."""
    return [stack.measure(operation, name) for operation in list_operations(stack, operations)]


def measure_direct(stack: Stack) -> list[tuple[tuple[str, str], int]]:
    """Count the requests that a client sends to the API itself."""
    counts = {failure.name: stack.measure_direct("create", failure.answer) for failure in FAILURES}
    if stack.client.has_timeout:
        counts[TIMEOUT] = stack.measure_direct_timeout("create")
    return [((stack.client.name, name), count) for name, count in counts.items()]


def show_table(operation: str, rows: Sequence[Row], clients: Sequence[str]) -> None:
    """Print status, requests at the server and POSTs at the API of each client."""
    columns = [name for name in clients if any(row.client == name for row in rows)]
    show(f"\n### {operation}: status, requests at the server → POSTs at the API\n")
    show_line(["failure", *columns])
    show_line(["---"] * (1 + len(columns)))
    for failure in dict.fromkeys(row.failure for row in rows):
        cells = {row.client: row for row in rows if row.failure == failure}
        show_line([failure, *(format_cell(cells.get(name)) for name in columns)])


def format_cell(row: Row | None) -> str:
    """Return a cell of the table."""
    if row is None:
        return "–"
    outcome = row.outcome
    problem = f"{outcome.status or '–'} {outcome.error}" if outcome.error else "image"
    return f"{problem}, {row.requests} → {row.posts}"


def show_direct(direct: dict[tuple[str, str], int], clients: Sequence[str]) -> None:
    """Print the number of POSTs of each client that calls the API itself."""
    show("\n### create without imgkit serve: POSTs at the API\n")
    show_line(["failure", *clients])
    show_line(["---"] * (1 + len(clients)))
    for failure in (*(failure.name for failure in FAILURES), TIMEOUT):
        show_line([failure, *(str(direct.get((name, failure), "–")) for name in clients)])


def show_rows(rows: Sequence[Row]) -> None:
    """Print each call."""
    show("")
    heads = ("client", "operation", "failure", "status", "error", "code", "requests", "posts", "retry counts")
    show_line(heads)
    show_line(["---"] * len(heads))
    for row in rows:
        outcome = row.outcome
        about = (outcome.status or "", outcome.error or "image", outcome.code or "")
        counts = ", ".join(each or "–" for each in row.retry_counts)
        show_line(map(str, (*row[:3], *about, row.requests, row.posts, counts)))


def show_line(cells: Iterable[str]) -> None:
    """Print a line of a Markdown table."""
    show(f"| {' | '.join(cells)} |")


def show(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
