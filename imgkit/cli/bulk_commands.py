"""The options of `imgkit bulk` and its subcommands."""

from __future__ import annotations

from typing import Any

import click

from imgkit.cli import options, values
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
        Option(["--output", "-o"], required=True, metavar="FOLDER|URL", help="Folder or URL of the images."),
        Option(
            ["--run", "run_folder"], metavar="FOLDER", help="Local folder of the manifest, else the output."
        ),
        Option(
            ["--in-flight", "most_in_flight"],
            type=values.Integer(1, 1000),
            help="Most requests at once, else the limits of the providers, or 16.",
        ),
        Option(
            ["--rpm", "per_minute"],
            type=values.Rate(min=0, min_open=True),
            help="Starts a minute at each provider.",
        ),
        Option(
            ["--ipm", "images_per_minute"],
            type=values.Rate(min=0, min_open=True),
            help="Images a minute at each provider.",
        ),
        Option(["--amend"], is_flag=True, help="Send rows again that changed under their id."),
        Option(["--dedupe"], is_flag=True, help="Send equal rows once. Else they are different images."),
        Option(["--extend"], is_flag=True, help="Add the rows to a run that has none of them."),
        Option(["--retry-unknown"], is_flag=True, help="Send unknown rows again. They may be paid twice."),
        Option(["--skip-invalid"], is_flag=True, help="Leave invalid rows out."),
        Option(
            ["--stop-after-blocked"],
            type=values.Integer(1, 100),
            default=20,
            help="Stop once this many of the last 100 requests were refused by the content policy (20 by "
            "default).",
        ),
        Option(["--no-prompts"], is_flag=True, help="List no prompts beside the images."),
        Option(
            ["--engine"],
            default="local",
            metavar="NAME",
            help="Where requests are carried out: local (the default), dask, or a plugin's engine.",
        ),
        Option(
            ["--scheduler"],
            metavar="ADDRESS",
            help="The scheduler of --engine dask. By default, a cluster of this machine is started.",
        ),
        *options.budget_options(allow_unknown=False),
        Option(
            ["--confirm-above"],
            type=values.Number(min=0),
            default=5.0,
            section="Money",
            metavar="USD",
            help="On a terminal, ask before a run that may cost more (5 by default).",
        ),
        Option(["--yes"], is_flag=True, section="Money", help="Do not ask."),
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
                    options.json_option("Print an event per line, as JSON."),
                ],
                _run_bulk,
                "Carry out the requests of a file; repeat the command to continue.\n\nFILE is CSV, TSV, "
                "JSONL or Parquet, or - for standard input. Its columns are the parameters of the operations "
                "(image and mask are paths), model_options.NAME, operation, provider and id. The options are "
                "defaults for all rows.",
                "imgkit bulk prompts.csv -o out/",
                "imgkit bulk prompts.csv -o out/ --backend requests --model gpt-image-2 --max-cost 20",
                "imgkit bulk prompts.csv -o s3://bucket/foxes --run runs/foxes",
            ),
            build_command(
                "status",
                [folder, options.json_option("Print one JSON object.")],
                _run_bulk_status,
                "Count the requests of a run by state, even while it is running.\n\nAlso prints the cost, "
                "the last error and the next steps.",
                "imgkit bulk status out/",
            ),
            build_command(
                "failures",
                [
                    folder,
                    Option(
                        ["--output", "-o"], metavar="FILE", help="Write a JSONL file, not standard output."
                    ),
                    Option(["--force"], is_flag=True, help="Replace the file."),
                ],
                _run_bulk_failures,
                "List the blocked, failed and unknown requests as lines that `imgkit bulk` reads.\n\nWorks "
                "during the run, too. Edit the lines, then carry them out with --amend, or in another "
                "folder.",
                "imgkit bulk failures out/ -o again.jsonl",
            ),
            build_command(
                "export",
                [folder, *_export_options()],
                _export_run,
                "Write the images of a run to files that data loaders stream.\n\nwebdataset: tar files with "
                "KEY.png and KEY.json for each image, in row order. The same run gives equal files.",
                "imgkit bulk export out/ -o shards/ --format webdataset",
            ),
        ],
        help="Create many images: resumable, within a budget, never paid twice.\n\n"
        "`imgkit bulk FILE -o FOLDER` is short for `imgkit bulk run FILE -o FOLDER`. Its options: "
        "`imgkit bulk run --help`.",
        short_help="Create many images: resumable, within a budget.",
        epilog=format_examples("imgkit bulk prompts.csv -o out/", "imgkit bulk status out/"),
    )


def _export_options() -> list[Option]:
    """Return the options of `imgkit bulk export`."""
    return [
        Option(["--output", "-o"], required=True, metavar="FOLDER", help="A folder, or a file NAME.tar."),
        Option(
            ["--format"],
            type=click.Choice(["webdataset"]),
            default="webdataset",
            help="webdataset (default): tar files.",
        ),
        Option(["--images"], metavar="FOLDER", help="Output folder of the run, if it was moved."),
        Option(
            ["--max-images", "max_samples"],
            type=values.Integer(min=1),
            default=10_000,
            help="Most images in a file (10,000 by default).",
        ),
        Option(
            ["--max-mb", "max_megabytes"],
            type=values.Number(min=0, max=1e9, min_open=True),
            default=1000.0,
            help="Most megabytes in a file (1,000 by default).",
        ),
        Option(["--no-prompts"], is_flag=True, help="Export no prompts."),
        Option(["--skip-damaged"], is_flag=True, help="Leave out images that are missing or changed."),
        Option(["--force"], is_flag=True, help="Replace the files of an earlier export."),
        options.json_option("Print one JSON object."),
    ]


def _run_bulk(**given: Any) -> int:
    from imgkit.cli.bulk import run_file

    return run_file(state=click.get_current_context().find_root().obj, **given)


def _run_bulk_status(folder: str, as_json: bool) -> int:
    from imgkit.cli.bulk_report import print_status

    return print_status(folder, as_json=as_json)


def _run_bulk_failures(folder: str, output: str | None, force: bool) -> int:
    from imgkit.cli.bulk_report import list_failures

    return list_failures(folder, output=output, force=force)


def _export_run(**given: Any) -> int:
    from imgkit.cli.bulk_report import export_run

    return export_run(**given)
