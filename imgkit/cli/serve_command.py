"""The options of `imgkit serve`."""

from __future__ import annotations

from typing import Any

import click

from imgkit.cli import options, values
from imgkit.cli.commands import build_command
from imgkit.cli.help_text import Option
from imgkit.server.settings import DEFAULT_PORT, TOKEN_VARIABLE


def build_serve_command() -> click.Command:
    """Return the command `serve`."""
    own = [
        Option(
            ["--host"],
            default="127.0.0.1",
            metavar="ADDRESS",
            help="Address to listen on, 127.0.0.1 by default: only this machine reaches it. "
            "An address that other machines reach needs --token.",
        ),
        Option(
            ["--port"],
            type=values.Integer(0, 65535),
            default=DEFAULT_PORT,
            help=f"Port to listen on, {DEFAULT_PORT} by default; 0 for a free one.",
        ),
        Option(
            ["--ready-file"], metavar="FILE", help="Write the address to this file once the server listens."
        ),
        Option(
            ["--map", "routes"],
            multiple=True,
            metavar="NAME=PROVIDER:MODEL",
            help="Answer requests for the model NAME with this model; can be repeated. NAME '*' is any other "
            "name. Without PROVIDER: a model of the server's own.",
        ),
        Option(["--model"], help="The model of requests that name none; default: IMGKIT_MODEL."),
        Option(
            ["--cache"],
            section="Cache",
            is_flag=False,
            flag_value="use",
            type=click.Choice(["use", "refresh", "only"]),
            help="Answer equal requests from the cache; streams are sent. refresh: send all, and store the "
            "replies. only: send nothing.",
        ),
        Option(
            ["--record"],
            section="Cassettes",
            metavar="FILE",
            help="Record requests and replies to a cassette.",
        ),
        Option(
            ["--replay"],
            section="Cassettes",
            metavar="FILE",
            help="Answer from a cassette, or a folder of cassettes; each recording once. Nothing is sent.",
        ),
        Option(
            ["--token"],
            section="Callers",
            metavar="TEXT",
            help=f"Token that callers pass as their API key; default: {TOKEN_VARIABLE}. It is not the key of "
            "the provider.",
        ),
        Option(
            ["--allow-host", "hosts"],
            section="Callers",
            multiple=True,
            metavar="NAME",
            help="Also answer under this host name, such as images.example.org; can be repeated.",
        ),
        Option(
            ["--allow-origin", "origins"],
            section="Callers",
            multiple=True,
            metavar="ORIGIN",
            help="Let pages of this origin use the server, such as http://localhost:3000; can be repeated.",
        ),
        Option(
            ["--max-body-bytes"],
            section="Callers",
            type=values.Integer(1024),
            default=256 * 1024 * 1024,
            metavar="BYTES",
            help="Largest request, 256 MiB by default.",
        ),
        Option(
            ["--no-prompts"],
            section="Callers",
            is_flag=True,
            help="Show no prompts on the page and in /status.",
        ),
        Option(
            ["--rpm", "per_minute"],
            section="Limits and retries",
            type=values.Number(0, 1_000_000, min_open=True),
            metavar="N",
            help="Most requests to a provider in a minute; others wait. No limit by default.",
        ),
        Option(
            ["--in-flight"],
            section="Limits and retries",
            type=values.Integer(1, 1000),
            default=64,
            metavar="N",
            help="Most requests at a provider at once; others wait. 64 by default.",
        ),
        Option(
            ["--stop-after", "stop_s"],
            section="Limits and retries",
            type=values.Number(0, 86_400),
            default=30.0,
            metavar="SECONDS",
            help="When it stops, seconds that running requests have to end; 30 by default.",
        ),
        *options.budget_options(),
    ]
    return build_command(
        "serve",
        [*own, *options.service_options(), *options.offline_options(), options.key_option()],
        _run_serve,
        "Serve OpenAI's Images API, in front of any provider.\n\nPoint any OpenAI client at the printed "
        "address with /v1. Without options it paints offline: no key, no network, no cost. Ctrl-C stops it.",
        "imgkit serve",
        "imgkit serve --backend aiohttp --provider openai --cache --max-cost 5",
        "imgkit serve --backend aiohttp --map gpt-image-2=bfl:flux-2-pro",
        "imgkit serve --replay tests/cassettes/fox.yaml --port 0 --ready-file address.txt",
    )


def _run_serve(**given: Any) -> int:
    from imgkit.cli.serve import run_server

    state: values.RunState = click.get_current_context().find_root().obj
    return run_server(state=state, **given)
