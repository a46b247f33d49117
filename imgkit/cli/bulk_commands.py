"""The options of `imgkit bulk` and its subcommands."""

from __future__ import annotations

from typing import Any

import click

from imgkit.cli import options
from imgkit.cli.commands import SETTINGS, build_command, format_examples
from imgkit.cli.help_text import Option
from imgkit.models import CreateImageRequest


class BulkGroup(click.Group):
    """The group `bulk`, whose command `run` may be left out: ``imgkit bulk FILE``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert `run` before the name of a file."""
        first = next((word for word in args if not word.startswith("-") or word == "-"), None)
        if first is not None and first not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


def build_bulk_group() -> click.Group:
    """Return the command `bulk` with its subcommands."""
    file = click.Argument(["file"], metavar="FILE")
    folder = click.Argument(["folder"], metavar="FOLDER")
    own = [
        Option(["--output", "-o"], required=True, metavar="FOLDER", help="Folder of the images."),
        Option(["--run", "run_folder"], metavar="FOLDER", help="Folder of the manifest, else the output."),
        Option(["--in-flight"], type=click.IntRange(1, 1000), default=16, help="Most requests at once."),
        Option(["--rpm", "per_minute"], type=click.FloatRange(min=0, min_open=True), help="Starts a minute."),
        Option(["--amend"], is_flag=True, help="Send rows again that changed under their id."),
        Option(["--retry-unknown"], is_flag=True, help="Send unknown rows again. They may be paid twice."),
        Option(["--skip-invalid"], is_flag=True, help="Leave invalid rows out."),
        Option(
            ["--stop-after-blocked"],
            type=click.IntRange(1, 100),
            default=20,
            help="Stop once this many of the last 100 requests were refused by the content policy.",
        ),
        Option(["--no-prompts"], is_flag=True, help="List no prompts beside the images."),
        *options.budget_options(),
        Option(["--confirm-above"], type=float, default=5.0, metavar="USD", help="Ask above this cost."),
        Option(["--yes"], is_flag=True, help="Do not ask."),
    ]
    shared = [
        option
        for option in options.request_options(CreateImageRequest)
        if option.name not in ("extra_headers", "response_format")
    ]
    return BulkGroup(
        "bulk",
        context_settings=SETTINGS,
        params=[*options.common_options()],
        commands=[
            build_command(
                "run",
                [
                    file,
                    *own,
                    *shared,
                    *options.service_options(),
                    options.key_option(),
                    options.json_option("Print a JSON object for each outcome."),
                ],
                _run_bulk,
                "Carry out the requests of a file; the same command again goes on.\n\nFILE is CSV, TSV or "
                "JSONL, or - for standard input. Its columns are the parameters of the operations, "
                "model_options.NAME, operation and id. The options are defaults for all rows.",
                "imgkit bulk prompts.csv -o out/",
                "imgkit bulk prompts.csv -o out/ --backend requests --model gpt-image-2 --max-cost 20",
            ),
            build_command(
                "status",
                [folder, options.json_option("Print one JSON object.")],
                _run_bulk_status,
                "Count the requests of a run by what became of them.",
                "imgkit bulk status out/",
            ),
            build_command(
                "failures",
                [folder],
                _run_bulk_failures,
                "Print the requests that are not done, as lines that `imgkit bulk` reads.",
                "imgkit bulk failures out/ > again.jsonl",
            ),
        ],
        help="Create many images: resumed after any end, within a budget, never paid twice.\n\n"
        "`imgkit bulk FILE -o FOLDER` is short for `imgkit bulk run`.",
        short_help="Create many images: resumed after any end, within a budget.",
        epilog=format_examples("imgkit bulk prompts.csv -o out/", "imgkit bulk status out/"),
    )


def _run_bulk(**given: Any) -> int:
    from imgkit.cli.bulk import run_file

    return run_file(state=click.get_current_context().find_root().obj, **given)


def _run_bulk_status(folder: str, as_json: bool) -> int:
    from imgkit.cli.bulk import print_status

    return print_status(folder, as_json=as_json)


def _run_bulk_failures(folder: str) -> int:
    from imgkit.cli.bulk import print_failures

    return print_failures(folder)
