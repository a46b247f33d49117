"""Tables and lists of pairs on a terminal: lines that fit its width."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Sequence

_LONGEST_NAME = 22
"""On a terminal, a longer name stands on a line of its own."""


def format_columns(heading: Sequence[str], rows: Sequence[Sequence[str]], columns: int) -> list[str]:
    """Return a table as lines that fit a terminal.

    Where a line has no room for the last cell, the cell stands on a line of its own; where it has no room for
    the others either, each row becomes a list of pairs.

    >>> format_columns(("name", "n", "key"), [("acme", "10", "ACME_API_KEY")], 14)
    ['name  n', 'acme  10', '  ACME_API_KEY']

    Args:
        heading: the names of the columns.
        rows: the cells, as text.
        columns: the width of the terminal; 0 for no limit.
    """
    widths = [max(map(len, cells)) for cells in zip(heading, *rows, strict=True)]
    lines = [
        [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)] for row in (heading, *rows)
    ]
    if columns < 1 or all(len("  ".join(line).rstrip()) <= columns for line in lines):
        return ["  ".join(line).rstrip() for line in lines]
    if sum(widths[:-1]) + 2 * (len(widths) - 2) <= columns:
        table = ["  ".join(line[:-1]).rstrip() for line in lines]
        return [table[0], *(text for line, row in zip(table[1:], rows, strict=True)
                            for text in (line, *format_pairs([("", row[-1])], columns)))]  # fmt: skip
    return [
        line
        for row in rows
        for line in (
            row[0],
            *format_pairs([pair for pair in zip(heading[1:], row[1:], strict=True) if pair[1]], columns),
        )
    ]


def format_pairs(pairs: Iterable[tuple[str, str]], columns: int, *, indent: int = 2) -> list[str]:
    """Return names and texts as lines that fit a terminal. Texts are aligned where there is room.

    >>> format_pairs([("key", "ACME_API_KEY"), ("mask", "white")], 0)
    ['  key   ACME_API_KEY', '  mask  white']

    Args:
        pairs: the names and texts; "" for no name.
        columns: the width of the terminal; 0 for no limit.
        indent: blanks before each name.
    """
    listed = list(pairs)
    longest = min(_LONGEST_NAME, columns // 3) if columns else sys.maxsize
    width = max((len(name) for name, _ in listed if len(name) <= longest), default=0)
    lines: list[str] = []
    for name, text in listed:
        start = f"{'':<{indent}}{f'{name:<{width}}  ' if width else ''}"
        if len(name) > longest:
            lines.append(f"{'':<{indent}}{name}")
            start = " " * (indent + 4)
        lines += _wrap(start, text, columns)
    return lines


def _wrap(start: str, text: str, columns: int) -> list[str]:
    if columns < 1:
        return [f"{start}{text}"]
    return textwrap.wrap(
        text,
        columns,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )
