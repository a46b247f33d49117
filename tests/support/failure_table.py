"""The table of failures in docs/errors.md, made by calls that meet each failure.

``python -m tests.support.failure_table`` writes it anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import imgkit
from imgkit.core.operations import OperationFlows
from imgkit.runtime.flow import EffectFailed, ReadChunk, SendRequest, Sleep, advance
from imgkit.wire.messages import Head

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
BEGIN, END = "<!-- failures: begin -->", "<!-- failures: end -->"
COLUMNS = ("failure", "error", "sent again by itself", "counted as spent")
MORE_CLASSES = 3
"""Rows with more classes name their common base."""

OWN = json.dumps({"error": {"message": "m", "type": "server_error", "code": None}}).encode()
OTHER = json.dumps({"message": "m"}).encode()
BODIES = {"the API's own error object": (OWN,), "any other body": (OTHER, b"<html>m</html>", b"")}

Meet: TypeAlias = Callable[[Any], Any]
"""Lets the flow of a call meet a failure where it waits for the reply; returns the next effect."""


class Row(NamedTuple):
    """The consequences of a failure."""

    errors: tuple[str, ...]
    again: str
    spent: str


def fail(error: imgkit.ImgkitError) -> Meet:
    """Return a failure of the connection."""
    return lambda flow: advance(flow, EffectFailed(error))


def answer(status: int, body: bytes, **headers: str) -> Meet:
    """Return an error reply."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    def meet(flow: Any) -> Any:
        assert advance(flow, Head(status, named)) == ReadChunk()
        if body:
            advance(flow, body)
        return advance(flow, b"")

    return meet


class FreshRetries:
    """A plugin that asks a new `RetryPlugin` in each call: one service then serves all calls."""

    def __init__(self) -> None:
        self.current = imgkit.RetryPlugin()

    @imgkit.hookimpl
    def imgkit_retry_wait(self, outcome: Any, call: Any) -> float | None:
        return self.current.imgkit_retry_wait(outcome, call)


class Judge:
    """Meets failures in calls of one service."""

    def __init__(self) -> None:
        self._retries = FreshRetries()
        self._service = imgkit.ImageService(
            "requests", base_url="http://127.0.0.1:1/v1", retry=False, plugins=[self._retries]
        )
        self._service.close()

    def list_waits(self, meet: Meet, chance: float) -> tuple[list[float], imgkit.ImgkitError]:
        """Return the pauses of a call that meets the failure in each attempt, and its error."""
        waits: list[float] = []
        self._retries.current = imgkit.RetryPlugin(chance=lambda: chance)
        flow = OperationFlows(self._service._core).create_image("a fox")
        try:
            while True:
                assert isinstance(advance(flow, None), SendRequest)
                pause = meet(flow)
                assert isinstance(pause, Sleep)
                waits.append(pause.wait_s)
        except imgkit.ImgkitError as error:
            return waits, error

    def judge(self, *meetings: Meet) -> Row:
        """Return the row that failures share."""
        rows = [self._judge(meet) for meet in meetings]
        errors, again, spent = (tuple(dict.fromkeys(column)) for column in zip(*rows, strict=True))
        names = tuple(dict.fromkeys(name for row in errors for name in row))
        return Row(names, " or ".join(again), " or ".join(spent))

    def _judge(self, meet: Meet) -> Row:
        shortest, error = self.list_waits(meet, 0.0)
        longest = self.list_waits(meet, 1.0)[0] if shortest else []
        pauses = [f"{low:g}–{high:g} s" for low, high in zip(shortest, longest, strict=True)]
        again = f"{len(pauses)} times, after {', '.join(dict.fromkeys(pauses))}" if pauses else "no"
        return Row((type(error).__name__,), again, "yes" if error.maybe_billed else "no")


def list_failures() -> Iterable[tuple[str, Row]]:
    """Return each failure with its consequences."""
    judge = Judge().judge
    yield "no connection, or the name server is down", judge(fail(imgkit.NotSentError("m")))
    permanent = imgkit.NotSentError("m", permanent=True)
    yield "unknown host name, untrusted certificate", judge(fail(permanent))
    yield "silence, reset, truncated reply, deadline", judge(fail(imgkit.OutcomeUnknownError("m")))
    everything = [body for bodies in BODIES.values() for body in bodies]
    yield from merge(judge, range(300, 500), everything, "")
    for name, bodies in BODIES.items():
        yield from merge(judge, range(500, 600), bodies, f" with {name}")
    quota = json.dumps({"error": {"message": "m", "code": "insufficient_quota"}}).encode()
    yield "HTTP 429 because the credit is used up", judge(answer(429, quota))
    for wait_s in ("20", "121"):
        yield f"HTTP 429, `Retry-After: {wait_s}`", judge(answer(429, OTHER, retry_after=wait_s))
        own = [answer(status, OWN, retry_after=wait_s) for status in (500, 503)]
        yield f"HTTP 500, 503 with the API's own error object, `Retry-After: {wait_s}`", judge(*own)
    gateways = [answer(status, OTHER, x_should_retry="true") for status in (408, *range(500, 600))]
    yield "HTTP 408, 500–599 with any other body, `x-should-retry: true`", judge(*gateways)
    yield "HTTP 409, `x-should-retry: true`", judge(answer(409, OTHER, x_should_retry="true"))
    refused = [answer(status, OWN, x_should_retry="false") for status in (429, 500, 503)]
    yield "HTTP 429, 500, 503, `x-should-retry: false`", judge(*refused)


def merge(
    judge: Callable[..., Row], statuses: Iterable[int], bodies: Iterable[bytes], suffix: str
) -> Iterable[tuple[str, Row]]:
    """Return a row for the statuses that have equal consequences with all bodies."""
    rows: dict[tuple[str, str], list[tuple[int, Row]]] = {}
    for status in statuses:
        row = judge(*(answer(status, body) for body in bodies))
        rows.setdefault((row.again, row.spent), []).append((status, row))
    for key, found in rows.items():
        errors = tuple(dict.fromkeys(name for _, row in found for name in row.errors))
        yield f"HTTP {format_ranges(status for status, _ in found)}{suffix}", Row(errors, *key)


def format_ranges(statuses: Iterable[int]) -> str:
    """Return statuses as ranges, such as "500, 503–599"."""
    ranges = []
    for _, group in groupby(enumerate(sorted(set(statuses))), lambda item: item[1] - item[0]):
        run = [status for _, status in group]
        ranges.append(f"{run[0]}" if len(run) == 1 else f"{run[0]}–{run[-1]}")
    return ", ".join(ranges)


def format_errors(names: tuple[str, ...]) -> str:
    """Return the classes of a row, or their base if they are many."""
    if len(names) > MORE_CLASSES:
        assert all(issubclass(getattr(imgkit, name), imgkit.ApiError) for name in names)
        return "`ApiError` and below"
    return ", ".join(f"`{name}`" for name in names)


def build_table() -> str:
    """Return the table as Markdown."""
    cells: list[Mapping[str, str]] = [
        dict(zip(COLUMNS, (label, format_errors(row.errors), row.again, row.spent), strict=True))
        for label, row in list_failures()
    ]
    head = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    return "\n".join([*head, *(f"| {' | '.join(row.values())} |" for row in cells)])


def split_page() -> tuple[str, str, str]:
    """Return the page before the table, the table, and the page behind it."""
    before, begin, rest = PAGE.read_text("utf-8").partition(BEGIN)
    table, end, behind = rest.partition(END)
    assert begin
    assert end
    return before, table.strip(), behind


def main() -> None:
    """Write the table anew."""
    before, _, behind = split_page()
    PAGE.write_text(f"{before}{BEGIN}\n{build_table()}\n{END}{behind}", "utf-8")


if __name__ == "__main__":
    main()
