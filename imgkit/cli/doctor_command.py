"""How `imgkit doctor` is called; what it does is imported when it runs."""

from __future__ import annotations

from typing import Any

import click

from imgkit.cli import options
from imgkit.cli.options import Command, Option


def command() -> click.Command:
    """Return the command as click has it."""
    return Command(
        "doctor",
        context_settings={"help_option_names": [], "max_content_width": 100},
        params=[
            Option(
                ["--live"],
                is_flag=True,
                help="make one free request (GET /models), and tell what it means; with the backend requests "
                "unless another is named.",
            ),
            *options.service_options(),
            options.key_option(),
            *options.common_options(),
        ],
        callback=_run,
        help="Check the installation: versions, plugins, backends, where the key comes from, proxies, "
        "certificates, the clock, name clashes.\n\n"
        "Sends nothing without --live; ends with 1 if something is wrong.",
        short_help="Check the installation.",
        epilog="\b\nExamples:\n  imgkit doctor\n  imgkit doctor --live",
    )


def _run(**given: Any) -> int:
    from imgkit.cli.doctor import examine

    return examine(**given)
