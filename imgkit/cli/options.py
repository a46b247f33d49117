"""The options. Those of an operation come from its request class: what the library adds is here at once."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import click
from click.shell_completion import CompletionItem

from imgkit.cli import console as streams
from imgkit.cli import values
from imgkit.models import (
    CreateImageEditRequest,
    CreateImageRequest,
    CreateImageVariationRequest,
    ImageRequest,
)

REQUESTS: tuple[type[ImageRequest], ...] = (
    CreateImageRequest,
    CreateImageEditRequest,
    CreateImageVariationRequest,
)
POSITIONAL = ("image", "prompt")

_HERE = {  # where the command line differs from what the library's own description says
    "model": "which model draws; else IMGKIT_MODEL. OpenAI's own host needs one.",
    "svg": "options of the svg format, as a JSON object.",
    "extra_body": "further members of the body, as a JSON object; they win over the others.",
    "extra_headers": "a further header, can be repeated; 'NAME:' alone leaves a header out.",
}
_OF_TYPE: dict[str, dict[str, Any]] = {
    "str": {"type": str},
    "int": {"type": int},
    "float": {"type": float},
    "bool": {"type": bool, "metavar": "true|false"},
    "ImageInput": {"type": click.Path(), "metavar": "FILE"},
    "Mapping[str, Any]": {"callback": values.json_object, "metavar": "JSON"},
    "Mapping[str, str | None]": {"callback": values.headers, "metavar": "NAME:VALUE", "multiple": True},
}


class Option(click.Option):
    """An option that knows under which heading of the help it stands."""

    def __init__(self, *args: Any, section: str = "General", **more: Any) -> None:
        super().__init__(*args, **more)
        self.section = section


class Command(click.Command):
    """A command whose help has its options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, by section and in their own order."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if isinstance(param, Option) and record is not None:
                sections.setdefault(param.section, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def request_options(kind: type[ImageRequest]) -> Iterator[Option]:
    """Yield an option for each field of a request class that is not given by position."""
    texts = {**_descriptions(CreateImageRequest), **_descriptions(kind), **_HERE}
    for field in fields(kind):
        if field.name not in POSITIONAL:
            annotation = str(field.type).removesuffix(" | None")
            # A type that is new here is taken as text: the library says what it thinks of that.
            how = _OF_TYPE.get(annotation, _OF_TYPE["str"])
            flag = _flag(field.name.removesuffix("s") if how.get("multiple") else field.name)
            text = texts.get(field.name, "")
            yield Option(
                [flag, field.name], section="Picture", help=text, shell_complete=_suggester(text), **how
            )


def stream_options() -> Iterator[Option]:
    """Yield the options of streams, for the operations that have them."""
    yield Option(
        ["--stream"],
        section="Output",
        is_flag=True,
        default=None,
        help="save partial pictures (NAME.partial-0.png …) while it is made, and show them in the terminal.",
    )
    yield Option(
        ["--partial-images"],
        section="Output",
        type=click.IntRange(0, 3),
        metavar="N",
        help="how many of them, 2 by default; they cost tokens. Implies --stream.",
    )


def cache_options() -> Iterator[Option]:
    """Yield the options of the cache, which the command uses only when it is asked to."""
    yield Option(
        ["--cache"],
        section="Cache",
        type=click.Choice(["use", "refresh", "only"]),
        help="answer an equal request from the cache; refresh: make it anew; only: send nothing.",
    )
    yield Option(
        ["--replica"],
        section="Cache",
        type=click.IntRange(min=0),
        metavar="N",
        help="a further picture for an equal request; 0 is the first.",
    )


def prepare_option() -> Option:
    """Return the option for what becomes of input pictures."""
    return Option(
        ["--prepare"],
        section="Picture",
        type=click.Choice(["check", "fit"]),
        help="fit: make input pictures fit what the model takes; check: refuse what would need it.",
    )


def budget_options() -> Iterator[Option]:
    """Yield the options that bound what a command may cost."""
    yield Option(
        ["--max-cost", "max_cost_usd"],
        section="Money",
        metavar="USD",
        help="send nothing that might make the command cost more.",
    )
    yield Option(
        ["--allow-unknown-price"],
        section="Money",
        is_flag=True,
        help="with --max-cost: make calls whose price is not known, too.",
    )


def variation_options() -> Iterator[Option]:
    """Yield the options that say how variations are made."""
    yield Option(
        ["--strategy"],
        section="Picture",
        type=click.Choice(["auto", "native", "emulate"]),
        help="native: by the server's own operation; emulate: by an edit; auto (default): what there is.",
    )
    yield Option(
        ["--variation-prompt"], section="Picture", help="of the edit that stands in for the operation."
    )


def service_options() -> Iterator[Option]:
    """Yield the options that say where a request goes and how: arguments of `ImageService`."""

    def option(name: str, help: str, **more: Any) -> Option:
        flag = _flag(name.removesuffix("_s"))
        return Option([flag, name], section="Where it is sent", help=help, **more)

    seconds = {"type": click.FloatRange(min=0, min_open=True), "metavar": "SECONDS"}
    count = {"type": click.IntRange(min=1), "metavar": "BYTES"}
    yield option(
        "backend",
        "offline (the default: no key, no network, no cost), requests, aiohttp or "
        "another that is installed; else IMGKIT_BACKEND.",
        shell_complete=_suggester('"offline" "requests" "aiohttp"'),
    )
    yield option("provider", "the API's dialect, openai by default; else IMGKIT_PROVIDER.")
    yield option("base_url", "root of the API, such as http://localhost:8000/v1; else OPENAI_BASE_URL.")
    yield option("organization", "else OPENAI_ORG_ID.")
    yield option("project", "else OPENAI_PROJECT_ID.")
    yield option("timeout_s", "for the whole call, 600 by default.", **seconds)
    yield option("connect_timeout_s", "for one connection, 5 by default.", **seconds)
    yield option("read_timeout_s", "longest silence, 300 by default.", **seconds)
    yield state_option()
    yield models_option()
    yield option(
        "on_unsupported",
        "what a model is known not to take: raise (default), warn and send it, or drop it.",
        type=click.Choice(["raise", "warn", "drop"]),
    )
    yield option("proxy", "send through this proxy.", metavar="URL")
    yield option("ca", "certificates to trust (PEM); certifi's by default.", type=click.Path())
    yield option("use_env_proxy", "use HTTPS_PROXY and its siblings.", is_flag=True, default=None)
    yield option(
        "reuse_connections", "keep connections open between paid requests.", is_flag=True, default=None
    )
    yield option(
        "allow_insecure", "send a key over plain http to another machine.", is_flag=True, default=None
    )
    yield Option(
        ["--retry/--no-retry"],
        section="Where it is sent",
        default=None,
        help="repeat what cannot have been billed; on by default.",
    )
    yield option("max_reply_bytes", "largest reply that is read, 128 MiB by default.", **count)
    yield option("max_download_bytes", "largest picture fetched from a URL, 64 MiB by default.", **count)


def state_option() -> Option:
    """Return the option that says where the command keeps what must outlive it."""
    return Option(
        ["--state-folder", "state_folder"],
        type=click.Path(),
        metavar="DIR",
        help="where replies are kept until they are delivered; else IMGKIT_HOME, else the user's own.",
    )


def models_option() -> Option:
    """Return the option that names a file with the user's own facts about models."""
    return Option(
        ["--models", "models"],
        type=click.Path(),
        metavar="FILE",
        help="facts about models of your own, a TOML file; beside those of IMGKIT_MODELS.",
    )


def offline_options() -> Iterator[Option]:
    """Yield the knobs of the offline backend."""
    section = "Offline backend only"
    yield Option(
        ["--simulate"],
        section=section,
        metavar="NAME",
        help="meet this fault: an HTTP status, or a name such as timeout.",
    )
    yield Option(["--seed"], section=section, help="other pictures for the same prompt.")
    yield Option(
        ["--latency", "latency_s"],
        section=section,
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="wait as long before answering.",
    )


def input_options(*, prompt: bool) -> Iterator[Option]:
    """Yield the options for what must not stand on the command line, or is too long for it."""
    if prompt:
        yield Option(
            ["--prompt-file"],
            section="Input",
            type=click.Path(),
            metavar="FILE|-",
            help="read the prompt from a file instead, or from standard input.",
        )
    yield key_option()


def key_option() -> Option:
    """Return the option that names a file with the key."""
    return Option(
        ["--api-key-file"],
        section="Input",
        type=click.Path(),
        metavar="FILE|-",
        help="read the API key from a file, or from standard input; else the provider's variable, such as "
        "OPENAI_API_KEY.",
    )


def output_options() -> Iterator[Option]:
    """Yield the options for what becomes of the pictures."""
    yield Option(
        ["-o", "--output"],
        section="Output",
        type=click.Path(),
        metavar="PATH",
        help="file, folder, or pattern such as 'out/{index}-{slug}.{ext}'; without it a name made "
        "from the prompt, here.",
    )
    yield Option(["--force"], section="Output", is_flag=True, help="replace files that exist.")
    yield Option(
        ["--no-sidecar"],
        section="Output",
        is_flag=True,
        help="write no NAME.json with prompt, model and digest beside a picture.",
    )
    yield Option(
        ["--json", "as_json"],
        section="Output",
        is_flag=True,
        help="one JSON object on standard output instead of paths.",
    )
    yield Option(
        ["--dry-run"],
        section="Output",
        is_flag=True,
        help="print the request that would be sent; send and write nothing.",
    )


def common_options() -> Iterator[Option]:
    """Yield the options that every command has.

    The help option is our own, so that all of standard output goes through `imgkit.cli.console`.
    """
    yield Option(
        ["-h", "--help"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_help,
        help="show this, and end.",
    )
    yield Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        callback=_debug,
        help="show the traceback of an error; the same as IMGKIT_DEBUG=1.",
    )
    yield Option(
        ["--api-key"],
        hidden=True,
        is_flag=False,
        flag_value="",
        expose_value=False,
        is_eager=True,
        callback=values.refuse_key,
    )


def service_names() -> list[str]:
    """Return the names of `ImageService`'s arguments that have an option."""
    return [str(option.name) for option in service_options()]


def names() -> dict[str, str]:
    """Return how the library's parameters are written on the command line."""
    options = [*service_options(), *offline_options(), *variation_options(), *stream_options()]
    options.append(prepare_option())
    for kind in REQUESTS:
        options += request_options(kind)
    found = {str(option.name): option.opts[0] for option in options}
    return {**found, "image": "IMAGE", "prompt": "PROMPT", "save_to": "--output", "api_key": "--api-key-file"}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _help(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        ctx.exit(streams.send_text(ctx.get_help() + "\n"))


def _debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_root().obj.debug = True


def _descriptions(kind: type[ImageRequest]) -> dict[str, str]:
    """Return what the docstring of a request class says of each field ("" under ``python -OO``)."""
    # Cleaned, since Python 3.13 takes the indentation out of docstrings and older ones leave it in.
    text = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^ {4}(\w+): (.+(?:\n {5,}.+)*)", text, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", entry.replace("`", "")) for name, entry in entries}


def _suggester(text: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]] | None:
    """Return a completion that offers the words which a description puts in quotes."""
    words = re.findall(r'"([\w-]+)"', text)

    def suggest(ctx: click.Context, param: click.Parameter, start: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in words if word.startswith(start)]

    return suggest if words else None
