"""The help of a command: common options first, the others by section, as wide as the terminal."""

from __future__ import annotations

import shutil
from typing import Any

import click

from imgkit.cli import console

MIN_COLUMNS, MAX_COLUMNS = 36, 100

COMMON = (
    "output",
    "model",
    "n",
    "size",
    "quality",
    "mask",
    "strategy",
    "backend",
    "base_url",
    "stream",
    "max_cost_usd",
    "as_json",
    "dry_run",
    "help",
)
"""Names of the options that most users of an image command need, in the order of its help."""


class Option(click.Option):
    """An option with the heading of its section in the help.

    Args:
        *args: as for `click.Option`.
        section: the heading.
        **more: as for `click.Option`.
    """

    def __init__(self, *args: Any, section: str = "General", **more: Any) -> None:
        super().__init__(*args, **more)
        self.section = section


class Command(click.Command):
    """A command whose help lists its options by section.

    Args:
        *args: as for `click.Command`.
        common: names of options that the help lists first.
        **more: as for `click.Command`.
    """

    def __init__(self, *args: Any, common: tuple[str, ...] = (), **more: Any) -> None:
        super().__init__(*args, **more)
        self._common = common

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the common options, then the others by section in the order of their declaration."""
        params = {str(param.name): param for param in self.get_params(ctx)}
        names = [name for name in self._common if name in params]
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in [*names, *(name for name in params if name not in names)]:
            param = params[name]
            record = param.get_help_record(ctx)
            if isinstance(param, Option) and record is not None:
                heading = "Common options" if name in names else param.section
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                # In a narrow terminal, long names stand on a line of their own.
                formatter.write_dl(records, col_max=min(30, formatter.width // 3))


def print_help(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Print the help of a command, as wide as the terminal, and end the command."""
    if value and not ctx.resilient_parsing:
        columns = shutil.get_terminal_size().columns
        ctx.terminal_width = max(MIN_COLUMNS, min(columns, MAX_COLUMNS) - 2)
        ctx.exit(console.write_text(ctx.get_help() + "\n"))
