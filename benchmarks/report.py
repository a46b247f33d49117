"""Format the figures as Markdown tables: first the budgets, then every measurement."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks.harness import Results

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
_PEERS = ("openai", "requests", "urllib3", "aiohttp", "marshmallow", "pluggy", "pybase64")
Figures = dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True)
class Budget:
    """A promised figure and its limit."""

    name: str
    limit: float
    measure: Callable[[Figures], float]
    unit: str = ""


def _ratio(case: str, figure: str, ours: str, theirs: str, baseline: str = "") -> Callable[[Figures], float]:
    def measure(figures: Figures) -> float:
        values = figures[case][figure]
        offset = values[baseline] if baseline else 0.0
        return (values[ours] - offset) / max(values[theirs] - offset, 1e-9)

    return measure


def _value(case: str, figure: str, side: str, baseline: str = "") -> Callable[[Figures], float]:
    return lambda figures: (
        figures[case][figure][side] - (figures[case][figure][baseline] if baseline else 0.0)
    )


def _budgets() -> Iterator[Budget]:
    ours = "imgkit, reusing"
    yield Budget(
        "`import imgkit` / openai, net", 0.05, _ratio("import", "CPU ms", "imgkit", "openai", "nothing")
    )
    yield Budget(
        "`import imgkit` / pluggy, net", 1.5, _ratio("import", "CPU ms", "imgkit", "pluggy", "nothing")
    )
    for peer, limit in (("openai", 0.25), ("requests", 1.5)):
        yield Budget(
            f"first call / {peer}, net", limit, _ratio("first call", "CPU ms", "imgkit", peer, "nothing")
        )
    for peer, limit in (("openai", 0.55), ("requests", 0.75)):
        yield Budget(f"CPU of a small call / {peer}", limit, _ratio("a small call", "CPU µs", ours, peer))
    for in_flight, sdk, bare in ((32, 0.18, 1.5), (256, 0.13, 1.3)):
        case = f"a small call, async, {in_flight} in flight"
        for peer, limit in (("openai", sdk), ("aiohttp", bare)):
            yield Budget(f"CPU of {case} / {peer}", limit, _ratio(case, "CPU µs", ours, peer))
    for size, limit in (("1.4MB", 0.40), ("8MB", 0.25), ("32MB", 0.25)):
        case = f"a reply of {size} to a file"
        yield Budget(f"CPU of {case} / openai", limit, _ratio(case, "CPU ms", ours, "openai"))
        yield Budget(f"peak of {case}", 2, _value(case, "peak MiB", ours), "MiB")
    yield Budget("peak of a reply of 32MB to a file / openai", 0.03,
                 _ratio("a reply of 32MB to a file", "peak MiB", ours, "openai"))  # fmt: skip
    case = "500 replies of 1.4 MB at once, to files"
    yield Budget(f"peak of {case} / openai", 0.10, _ratio(case, "peak MiB", ours, "openai"))
    case = "an upload of 50 MB"
    for peer, limit in (("openai", 1.0), ("requests", 0.70)):
        yield Budget(f"CPU of {case} / {peer}", limit, _ratio(case, "CPU ms", ours, peer))
    yield Budget(f"peak of {case}", 1, _value(case, "peak MiB", ours), "MiB")
    case = "a stream with 3 partial images of 1.4 MB"
    yield Budget(f"first event of {case} / openai", 0.45, _ratio(case, "first event ms", ours, "openai"))
    yield Budget(f"CPU of {case} / openai", 0.35, _ratio(case, "CPU ms", ours, "openai"))
    case = "a stream to files, a partial and a complete image of 32 MB"
    yield Budget(f"CPU of {case} / openai", 0.25, _ratio(case, "CPU ms", ours, "openai"))
    yield Budget(f"peak of {case}", 2, _value(case, "peak MiB", ours), "MiB")
    yield Budget(
        "resident after 20 calls / openai", 0.60, _ratio("resident after 20 calls", "MiB", ours, "openai")
    )
    for command, limit in (("--version", 2.5), ("--help", 8)):
        yield Budget(f"`imgkit {command}` / `python -c pass`", limit,
                     _ratio("command", "CPU ms", f"imgkit {command}", "python -c pass"))  # fmt: skip
    case, none = "the price of safety, a small call", "no state folder"
    yield Budget("CPU of a call with / without a state folder", 1.8,
                 _ratio(case, "CPU µs", "state folder", none))  # fmt: skip
    yield Budget("CPU of a call with 4000 / without kept replies", 1.1,
                 _ratio(case, "CPU µs", "4000 kept replies", "state folder"))  # fmt: skip
    yield Budget("CPU of a cache miss / a call", 6.0, _ratio(case, "CPU µs", "cache miss", none))
    yield Budget("CPU of a cache miss", 2000, _value(case, "CPU µs", "cache miss"), "µs")
    case = "2,000 images of 1.4 MB to disk, 32 in flight"
    yield Budget(f"CPU of a run of {case} / a script with aiohttp", 1.0,
                 _ratio(case, "CPU ms", "imgkit, a run", "aiohttp script"))  # fmt: skip
    yield Budget("CPU of that run / the same calls without a run", 1.15,
                 _ratio(case, "CPU ms", "imgkit, a run", "imgkit, calls, no sidecar"))  # fmt: skip
    case = "a run of many requests without network"
    yield Budget("resident memory of " + case, 200, _value(case, "resident MiB", "imgkit"), "MiB")
    yield Budget("CPU of its last requests / its first", 1.1, _value(case, "last / first", "imgkit"))
    yield Budget("opening a manifest of a million requests", 2, _value(case, "opening s", "imgkit"), "s")
    added = _value("plugins, a call without network", "CPU µs", "3 with every hook", "none")
    yield Budget("time that 3 plugins add to a call", 10, added, "µs")


def _describe_machine() -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _PEERS)
    return (
        f"Measured on {time.strftime('%Y-%m-%d')} with {platform.python_implementation()} "
        f"{platform.python_version()} on {platform.system()}, {os.cpu_count()} cores, {versions}."
    )


def _format_number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def format_tables(results: Results) -> str:
    """Return the tables as Markdown."""
    lines = [_describe_machine(), "", "| budget | limit | measured | result |", "|---|---|---|---|"]
    for budget in _budgets():
        try:
            value = budget.measure(results.figures)
        except KeyError:
            continue  # This case was not run.
        held = "held" if value <= budget.limit else "**missed**"
        lines.append(f"| {budget.name} | {budget.limit:g} {budget.unit} | {_format_number(value)} | {held} |")
    for case, figures in results.figures.items():
        sides = list(dict.fromkeys(side for values in figures.values() for side in values))
        lines += ["", f"| {case} | {' | '.join(figures)} |", f"|---|{'---|' * len(figures)}"]
        for side in sides:
            shown = (_format_number(values[side]) if side in values else "" for values in figures.values())
            lines.append(f"| {side} | {' | '.join(shown)} |")
    return "\n".join(lines)


def write_tables(results: Results, page: Path) -> None:
    """Replace the tables between the marks of the page, and leave its prose as it is."""
    text = page.read_text("utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    page.write_text(pattern.sub(lambda _: f"{BEGIN}\n{format_tables(results)}\n{END}", text), "utf-8")
