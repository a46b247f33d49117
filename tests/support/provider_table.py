"""The table of providers in docs/providers.md, from the providers themselves.

``python -m tests.support.provider_table`` (``make providers``) writes it anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from imgkit import ProviderInfo, list_providers

PAGE = Path(__file__).parents[2] / "docs" / "providers.md"
BEGIN = "<!-- This table comes from the providers: make providers -->\n"
END = "<!-- End of the table -->\n"
HEADING = (
    "provider",
    "create",
    "edit",
    "variation",
    "mask",
    "n",
    "seed",
    "stream",
    "job",
    "price",
    "confirmed",
)


def list_own_providers() -> list[ProviderInfo]:
    """Return the providers of imgkit itself."""
    return [info for info in list_providers() if not info.distribution]


def build_table() -> str:
    """Return the table as Markdown."""
    rows = [HEADING, ("---",) * len(HEADING), *map(_build_row, list_own_providers())]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _build_row(info: ProviderInfo) -> tuple[str, ...]:
    assert info.problem is None, info.problem
    variation = "create_image_variation" in info.operations
    sure, count = info.facts
    rules = f"{sure} of {count} rules" if count else "no rules"
    doubts = f"; {len(info.unconfirmed)} open" if info.unconfirmed else ""
    return (
        f"`{info.name}`",
        _mark("create_image" in info.operations),
        _mark("create_image_edit" in info.operations),
        "native" if variation else "by an edit" if info.emulates_variations else "–",
        {"transparent": "alpha", None: "–"}.get(info.mask, info.mask or ""),
        str(info.max_images_per_request or "unknown"),
        _mark(info.takes_seed),
        _mark(info.streams),
        _mark(info.runs_jobs),
        {"no": "unknown"}.get(info.prices, info.prices),
        f"{rules}{doubts}",
    )


def _mark(value: bool) -> str:
    return "yes" if value else "–"


def split_page() -> Iterator[str]:
    """Yield the page up to the table, the table, and the rest."""
    before, begin, rest = PAGE.read_text("utf-8").partition(BEGIN)
    table, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE} lacks the marks of the table")
    yield from (f"{before}{begin}", table, f"{end}{after}")


def write_page() -> None:
    """Write the table into the page anew."""
    before, _, after = split_page()
    PAGE.write_text(f"{before}{build_table()}{after}", "utf-8")


if __name__ == "__main__":
    write_page()
