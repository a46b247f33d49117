"""`imgkit cassette`, and what its commands take."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from imgkit.cli import options
from imgkit.cli.options import Command, Option


def group(settings: dict[str, Any], verbatim: Callable[..., str]) -> click.Group:
    """Return the group.

    Args:
        settings: of every command.
        verbatim: lays out examples.
    """

    def run(name: str, paths: tuple[str, ...], **given: str) -> int:
        from imgkit.cli import cassettes

        code: int = getattr(cassettes, name)(paths, **given)
        return code

    page = Option(["--output", "-o"], required=True, metavar="FILE", type=click.Path(dir_okay=False),
                  help="where the page goes; - for standard output.")  # fmt: skip
    kinds = {
        "check": "Refuse cassettes with something like a key, or with Python objects.\n\nFor continuous "
        "integration: ends with 1 if something is wrong. Checked are the files, all of folders, and the "
        "pictures beside them: none may be missing, changed or left over.",
        "ls": "List what was recorded.",
        "show": "Make one page of HTML: requests, replies, and their pictures small.\n\nThe page loads "
        "nothing and runs nothing.",
        "shrink": "Replace pictures in replies by small ones of the same kind and size in pixels.\n\n"
        "Pictures in requests stay as they are: a replay is matched by them. Doing it twice changes nothing.",
    }
    return click.Group(
        "cassette",
        context_settings=settings,
        params=[*options.common_options()],
        commands=[
            Command(
                name,
                context_settings=settings,
                params=[
                    click.Argument(["paths"], nargs=-1, required=True, type=click.Path(exists=True)),
                    *([page] if name == "show" else []),
                    *options.common_options(),
                ],
                callback=partial(run, name),
                help=text,
                short_help=text.partition("\n")[0],
                epilog=verbatim(
                    "Example:",
                    f"  imgkit cassette {name} tests/cassettes{' -o page.html' if name == 'show' else ''}",
                ),
            )
            for name, text in kinds.items()
        ],
        help="Look at recorded traffic, check that no secret is in it, and make it small.",
        epilog=verbatim("Example:", "  imgkit cassette check tests/cassettes"),
    )
