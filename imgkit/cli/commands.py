"""Commands that make no image. Each imports its implementation when it runs, so help stays fast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from imgkit.cli import options, values
from imgkit.cli.help_text import Command, Option

SETTINGS: dict[str, Any] = {"help_option_names": [], "max_content_width": 100}
"""The context settings of every command."""


def build_command(
    name: str, params: list[click.Parameter], callback: Callable[..., int], help: str, *examples: str
) -> click.Command:
    """Return a command with the options of every command, and with examples in its help."""
    return Command(
        name,
        context_settings=SETTINGS,
        params=[*params, *options.common_options()],
        callback=callback,
        help=help,
        short_help=help.partition("\n")[0],
        epilog=format_examples(*examples),
    )


def build_information_commands() -> list[click.Command]:
    """Return the commands that list backends, plugins, models and providers."""
    provider = next(option for option in options.service_options() if option.name == "provider")
    return [
        build_command(
            "backends",
            [options.json_option()],
            _run_backends,
            "List the backends, and whether each one loads.",
            "imgkit backends --json",
        ),
        build_command(
            "plugins",
            [
                Option(["--load"], is_flag=True, help="Import them, and list their hooks."),
                options.json_option(),
            ],
            _run_plugins,
            "List the plugins.\n\nPrints name, distribution, version and state of each. Without --load, no "
            "plugin is imported. IMGKIT_PLUGINS names the plugins that may be loaded (empty: none), "
            "IMGKIT_BLOCK_PLUGINS those that must not.",
            "imgkit plugins --load",
        ),
        build_command(
            "models",
            [
                click.Argument(["model"], required=False, metavar="[MODEL]"),
                provider,
                options.models_option(),
                options.json_option(),
            ],
            _run_models,
            "List the known models, or all facts about one.\n\nPrints operations, rules and prices, each "
            "with its date and source. The facts are those of --provider or IMGKIT_PROVIDER (openai by "
            "default), and of your own files.",
            "imgkit models",
            "imgkit models gpt-image-2",
        ),
        build_command(
            "providers",
            [click.Argument(["name"], required=False, metavar="[NAME]"), options.json_option()],
            _run_providers,
            "List the providers, or all about one.\n\nPrints operations, masks, the most images of a "
            "request, streams, jobs, prices and the variables of the key. For one, also its options for "
            "--set, its models, and assumptions that nobody has confirmed.",
            "imgkit providers",
            "imgkit providers bfl",
        ),
    ]


def build_cache_group() -> click.Group:
    """Return the command `cache` with its subcommands."""
    as_json = options.json_option("Print one JSON object.")
    older_than = Option(["--older-than", "older_than_days"], type=values.Number(min=0), metavar="DAYS",
                        help="Remove only entries that are older.")  # fmt: skip
    remove = Option(["--remove"], is_flag=True, help="Remove damaged entries.")
    commands = {
        "ls": ("print_entries", as_json, "List the entries of the cache."),
        "stats": ("print_stats", as_json, "Print the folder and size of the cache."),
        "clear": ("clear_entries", older_than, "Remove entries from the cache."),
        "verify": ("verify_entries", remove, "Check every image against its digest, and rebuild the index."),
    }
    folder = Option(["--folder"], type=click.Path(), metavar="DIR", help="Use another folder of entries.")
    return click.Group(
        "cache",
        context_settings=SETTINGS,
        params=[*options.common_options()],
        commands=[
            build_command(
                name,
                [option, folder, options.state_option()],
                _run_cache_function(function),
                text,
                f"imgkit cache {name}",
            )
            for name, (function, option, text) in commands.items()
        ],
        help="List, verify and clear the cache of --cache.",
        short_help="List, verify and clear the cache of --cache.",
        epilog=format_examples("imgkit cache ls", "imgkit cache clear --older-than 30"),
    )


def build_cassette_group() -> click.Group:
    """Return the command `cassette` with its subcommands."""
    page = Option(["--output", "-o"], required=True, metavar="FILE", type=click.Path(dir_okay=False),
                  help="File of the page; - for standard output.")  # fmt: skip
    commands = {
        "check": (
            "check_cassettes",
            "Reject cassettes that hold an API key or Python objects.\n\nFor continuous integration: exits "
            "with 1 if there is a problem. Checks files, all cassettes in folders, and the images beside "
            "them: none may be missing, changed or left over.",
        ),
        "ls": ("list_requests", "List the recorded requests."),
        "show": (
            "write_page",
            "Write one HTML page with requests, replies and small images.\n\nThe page loads nothing and "
            "runs no script.",
        ),
        "shrink": (
            "shrink_cassettes",
            "Replace images in replies by small files of the same format and size in pixels.\n\nImages in "
            "requests stay as they are, because a replay compares them. A second run changes nothing.",
        ),
    }
    return click.Group(
        "cassette",
        context_settings=SETTINGS,
        params=[*options.common_options()],
        commands=[
            build_command(
                name,
                [
                    click.Argument(["paths"], nargs=-1, required=True, type=click.Path(exists=True)),
                    *([page] if name == "show" else []),
                ],
                _run_cassette_function(function),
                text,
                f"imgkit cassette {name} tests/cassettes{' -o page.html' if name == 'show' else ''}",
            )
            for name, (function, text) in commands.items()
        ],
        help="Check, list, show and shrink recorded traffic.",
        short_help="Check, list, show and shrink recorded traffic.",
        epilog=format_examples("imgkit cassette check tests/cassettes"),
    )


def build_recover_command() -> click.Command:
    """Return the command `recover`."""
    return build_command(
        "recover",
        [
            Option(["--list", "listing"], is_flag=True, help="Only list the replies."),
            Option(["--output", "-o"], metavar="PATH", help="File or folder of the images. Default: here."),
            Option(["--drop"], multiple=True, metavar="ID", help="Delete this reply; can be repeated."),
            options.json_option("Print one JSON object instead of lines."),
            options.state_option(),
            *options.download_options(),
            options.key_option(),
        ],
        _run_recover,
        "Recover images from replies that were paid for but not saved.\n\nEach reply is written to the "
        "state folder as it arrives, and deleted once its images are saved. This command finds the replies "
        "that a crash, a lost connection or a full disk has left there, downloads images that are still at "
        "their URLs, and collects the jobs that are ready.",
        "imgkit recover --list",
        "imgkit recover -o out/",
    )


def build_jobs_group() -> click.Group:
    """Return the command `jobs` with its subcommands."""
    names = click.Argument(["ids"], nargs=-1, metavar="[ID]...")
    required = click.Argument(["ids"], nargs=-1, required=True, metavar="ID...")
    output = Option(["--output", "-o"], metavar="PATH", help="File or folder. Default: that of the call.")
    commands: dict[str, tuple[list[click.Parameter], str]] = {
        "ls": ([], "List the pending jobs, the soonest expiry first."),
        "wait": ([names, output], "Wait for jobs, and save their images."),
        "collect": ([names, output], "Save the images of the jobs that are ready now."),
        "cancel": ([required], "Cancel jobs; save the images of those that had ended before."),
        "drop": ([required], "Forget jobs. The provider may still finish and bill them."),
    }
    service = [option for option in options.service_options() if option.name not in ("provider", "base_url")]
    return click.Group(
        "jobs",
        context_settings=SETTINGS,
        params=[*options.common_options()],
        commands=[
            build_command(
                name,
                [*own, options.json_option("Print one JSON object."), *service, options.key_option()],
                _run_jobs_function(name),
                text,
                f"imgkit jobs {name}",
            )
            for name, (own, text) in commands.items()
        ],
        help="List, collect and cancel work that a provider has accepted.\n\nSome APIs answer with a job. "
        "imgkit writes it to the state folder and asks until it is done; these commands go on where a call "
        "ended. Asking is free.",
        short_help="List, collect and cancel work that a provider has accepted.",
        epilog=format_examples("imgkit jobs ls", "imgkit jobs wait", "imgkit jobs cancel 4f1c"),
    )


def build_doctor_command() -> click.Command:
    """Return the command `doctor`."""
    live = Option(
        ["--live"],
        is_flag=True,
        help="Make one free request and explain the result: the list of models, or another that tries the "
        "key. Uses the backend requests unless you name another. --provider implies it.",
    )
    return build_command(
        "doctor",
        [live, *options.service_options(), options.key_option()],
        _run_doctor,
        "Check the installation.\n\nChecks versions, plugins, backends, the source of the key, proxies, "
        "certificates, the clock and name clashes. Sends nothing without --live or --provider, and never "
        "spends. Exits with 1 if there is a problem.",
        "imgkit doctor",
        "imgkit doctor --live",
        "imgkit doctor --provider bfl",
    )


def _run_backends(as_json: bool) -> int:
    from imgkit.cli.plugins import print_backends

    return print_backends(as_json=as_json)


def _run_plugins(load: bool, as_json: bool) -> int:
    from imgkit.cli.plugins import print_plugins

    return print_plugins(load=load, as_json=as_json)


def _run_models(model: str | None, provider: str | None, models: str | None, as_json: bool) -> int:
    from imgkit.cli.models import print_models

    return print_models(model=model, models=models, as_json=as_json, provider=provider)


def _run_providers(name: str | None, as_json: bool) -> int:
    from imgkit.cli.providers import print_providers

    return print_providers(name=name, as_json=as_json)


def _run_cache_function(function: str) -> Callable[..., int]:
    def run(folder: str | None, state_folder: str | None, **given: Any) -> int:
        from imgkit.cli import cache

        code: int = getattr(cache, function)(cache.open_store(folder, state_folder), **given)
        return code

    return run


def _run_cassette_function(function: str) -> Callable[..., int]:
    def run(paths: tuple[str, ...], **given: str) -> int:
        from imgkit.cli import cassettes

        code: int = getattr(cassettes, function)(paths, **given)
        return code

    return run


def _run_jobs_function(name: str) -> Callable[..., int]:
    def run(ids: tuple[str, ...] = (), output: str | None = None, **given: Any) -> int:
        from imgkit.cli import jobs

        timeout_s = given.get("timeout_s")
        settings = jobs.open_run(**given)
        match name:
            case "ls":
                return jobs.print_jobs(settings)
            case "cancel":
                return jobs.cancel_jobs(settings, ids)
            case "drop":
                return jobs.drop_jobs(settings, ids)
            case "collect":
                timeout_s = timeout_s or jobs.COLLECT_TIMEOUT_S
        return jobs.collect_jobs(settings, ids, output, timeout_s)

    return run


def _run_recover(**given: Any) -> int:
    from imgkit.cli.recover import recover_replies

    return recover_replies(**given)


def _run_doctor(**given: Any) -> int:
    from imgkit.cli.doctor import run_doctor

    return run_doctor(**given)


def format_examples(*commands: str) -> str:
    """Return the end of a help text, with command lines as examples."""
    heading = "Example:" if len(commands) == 1 else "Examples:"
    return preformat(heading, *(f"  {command}" for command in commands))


def preformat(*lines: str) -> str:
    """Return lines that click does not wrap."""
    return "\b\n" + "\n".join(lines)
