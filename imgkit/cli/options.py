"""Options of all commands. The fields of a request class become the options of its operation."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import click
from click.shell_completion import CompletionItem

from imgkit.cli import values
from imgkit.cli.help_text import Option, print_help
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

_OWN_HELP = {
    "model": "The model; default: IMGKIT_MODEL. OpenAI's own host requires one.",
    "svg": "Options of the svg format, as a JSON object.",
    "model_options": "An option of this API alone; can be repeated. `imgkit providers NAME` lists them.",
    "extra_body": "More members of the body, as a JSON object; they override the other options.",
    "extra_headers": "One more header; can be repeated. 'NAME:' without a value removes a header.",
}
"""Help texts by field, where the docstring of the request class does not fit a command line."""

PARAMETERS_BY_TYPE: dict[str, dict[str, Any]] = {
    "str": {"type": str},
    "int": {"type": int},
    "float": {"type": float},
    "bool": {"type": bool, "metavar": "true|false"},
    "ImageInput": {"type": click.Path(), "metavar": "FILE"},
    "Mapping[str, object]": {"callback": values.parse_json_object, "metavar": "JSON"},
    "Mapping[str, str | None]": {"callback": values.parse_headers, "metavar": "NAME:VALUE", "multiple": True},
}

_SET: dict[str, Any] = {"callback": values.parse_settings, "metavar": "NAME=VALUE", "multiple": True}


def request_options(kind: type[ImageRequest]) -> Iterator[Option]:
    """Yield an option for each field of a request class, except the positional ones."""
    texts = {**_parse_field_help(CreateImageRequest), **_parse_field_help(kind), **_OWN_HELP}
    for field in fields(kind):
        if field.name not in POSITIONAL:
            annotation = str(field.type).removesuffix(" | None")
            # An unknown type is passed on as text, and the library validates it.
            parameters = PARAMETERS_BY_TYPE.get(annotation, PARAMETERS_BY_TYPE["str"])
            flag = _format_flag(field.name.removesuffix("s") if parameters.get("multiple") else field.name)
            if field.name == "model_options":
                flag, parameters = "--set", _SET
            text = texts.get(field.name, "")
            completion = _build_completion(text)
            yield Option(
                [flag, field.name], section="Image", help=text, shell_complete=completion, **parameters
            )


def stream_options() -> Iterator[Option]:
    """Yield the options of streaming operations."""
    yield Option(
        ["--stream"],
        section="Output",
        is_flag=True,
        default=None,
        help="Save partial images (NAME.partial-0.png …) as they arrive, and show them in the terminal.",
    )
    yield Option(
        ["--partial-images"],
        section="Output",
        type=values.Integer(0, 3),
        metavar="N",
        help="Number of partial images, 2 by default; they cost tokens. Implies --stream.",
    )


def cache_options() -> Iterator[Option]:
    """Yield the options of the cache; without them the command does not use it."""
    yield Option(
        ["--cache"],
        section="Cache",
        type=click.Choice(["use", "refresh", "only"]),
        help="use: answer an equal request from the cache. refresh: send it, and replace the cache entry. "
        "only: send nothing.",
    )
    yield Option(
        ["--replica"],
        section="Cache",
        type=values.Integer(min=0),
        metavar="N",
        help="Number of a further result for an equal request; the first is 0.",
    )


def prepare_option() -> Option:
    """Return the option that converts input images."""
    return Option(
        ["--prepare"],
        section="Image",
        type=click.Choice(["check", "fit"]),
        help="fit: convert input images that the model does not take. check: reject them.",
    )


def budget_options(*, allow_unknown: bool = True) -> Iterator[Option]:
    """Yield the options that limit the cost of a command.

    Args:
        allow_unknown: also yield the option for calls of unknown price.
    """
    yield Option(
        ["--max-cost", "max_cost_usd"],
        section="Money",
        metavar="USD",
        help="Stop before spending more than this amount.",
    )
    yield Option(
        ["--price-per-image"],
        section="Money",
        metavar="USD",
        help="Highest price of an image whose price is not known.",
    )
    if allow_unknown:
        yield Option(
            ["--allow-unknown-price"],
            section="Money",
            is_flag=True,
            help="With --max-cost: also make calls whose price is not known.",
        )


def variation_options() -> Iterator[Option]:
    """Yield the options of variations."""
    yield Option(
        ["--strategy"],
        section="Image",
        type=click.Choice(["auto", "native", "emulate"]),
        help="native: use the server's own operation. emulate: use an edit. auto (default): use the native "
        "operation where it exists, else an edit.",
    )
    yield Option(
        ["--variation-prompt"], section="Image", help="Prompt of the edit that emulates the operation."
    )


def service_options() -> Iterator[Option]:
    """Yield the options that are arguments of `ImageService`."""

    def option(name: str, help: str, **more: Any) -> Option:
        flag = _format_flag(name.removesuffix("_s"))
        section = "Limits and retries" if name.endswith("_s") or name.startswith("max_") else "Connection"
        return Option([flag, name], section=section, help=help, **more)

    seconds = {"type": values.Number(min=0, min_open=True), "metavar": "SECONDS"}
    count = {"type": values.Integer(min=1), "metavar": "BYTES"}
    yield option(
        "backend",
        "offline (default; no key, no network, no cost), requests, aiohttp, or an installed one. Default: "
        "IMGKIT_BACKEND.",
        shell_complete=_build_completion('"offline" "requests" "aiohttp"'),
    )
    yield option("provider", "Dialect of the API. Default: IMGKIT_PROVIDER, else openai.")
    yield option("base_url", "Root of the API, such as http://localhost:8000/v1. Default: OPENAI_BASE_URL.")
    yield option("organization", "Organization to bill. Default: OPENAI_ORG_ID.")
    yield option("project", "Project to bill. Default: OPENAI_PROJECT_ID.")
    yield option("timeout_s", "Limit for the whole call, 600 by default.", **seconds)
    yield option("connect_timeout_s", "Limit for opening one connection, 5 by default.", **seconds)
    yield option("read_timeout_s", "Longest wait for the next bytes, 300 by default.", **seconds)
    yield state_option()
    yield models_option()
    yield option(
        "on_unsupported",
        "For fields that the model rejects. raise (default): stop. warn: send them. drop: leave them out. "
        "adapt: use the nearest that it takes.",
        type=click.Choice(["raise", "warn", "drop", "adapt"]),
    )
    yield option("proxy", "Send through this proxy.", metavar="URL")
    yield option("ca", "Certificates to trust (PEM), those of certifi by default.", type=click.Path())
    yield option(
        "use_env_proxy", "Use HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.", is_flag=True, default=None
    )
    yield Option(
        ["--reuse-connections/--new-connections"],
        section="Connection",
        default=None,
        help="Send a paid request over the connection of an earlier one, if that succeeded within the last "
        "1.5 seconds; off by default, on in `serve` with aiohttp.",
    )
    yield option(
        "allow_insecure", "Send a key over plain http to another machine.", is_flag=True, default=None
    )
    yield Option(
        ["--retry/--no-retry"],
        section="Limits and retries",
        default=None,
        help="Retry failures that cannot have been billed; on by default.",
    )
    yield option("max_reply_bytes", "Largest reply to read, 128 MiB by default.", **count)
    yield option("max_download_bytes", "Largest image to download from a URL, 64 MiB by default.", **count)
    yield Option(
        ["--download-origin", "download_origins"],
        section="Connection",
        multiple=True,
        metavar="ORIGIN",
        callback=lambda ctx, param, value: value or None,
        help="Also download results from this server, such as http://192.168.0.5:9000; can be repeated.",
    )


def download_options() -> Iterator[Option]:
    """Yield the options of a command that only downloads results."""
    names = ("backend", "timeout_s", "proxy", "ca", "use_env_proxy", "max_download_bytes", "download_origins")
    for option in service_options():
        if option.name in names:
            option.section = "Downloads"
            yield option


def state_option() -> Option:
    """Return the option that names the state folder."""
    return Option(
        ["--state-folder", "state_folder"],
        type=click.Path(),
        metavar="DIR",
        help="Folder for replies that are not saved yet. Default: IMGKIT_HOME, else a folder of the user.",
    )


def models_option() -> Option:
    """Return the option that names a file with facts about more models."""
    return Option(
        ["--models", "models"],
        type=click.Path(),
        metavar="FILE",
        help="TOML file with facts about your own models, in addition to IMGKIT_MODELS.",
    )


def offline_options() -> Iterator[Option]:
    """Yield the options of the offline backend."""
    section = "Offline backend only"
    yield Option(
        ["--simulate"],
        section=section,
        metavar="NAME",
        help="Simulate this fault: an HTTP status, or a name such as timeout.",
    )
    yield Option(
        ["--latency", "latency_s"],
        section=section,
        type=values.Number(min=0),
        metavar="SECONDS",
        help="Wait this long before answering.",
    )


def input_options(*, prompt: bool) -> Iterator[Option]:
    """Yield the options for text that is secret, or too long for a command line."""
    if prompt:
        yield Option(
            ["--prompt-file"],
            section="Input",
            type=click.Path(),
            metavar="FILE|-",
            help="Read the prompt from a file, or from standard input.",
        )
    yield key_option()


def key_option() -> Option:
    """Return the option that names a file with the API key."""
    return Option(
        ["--api-key-file"],
        section="Input",
        type=click.Path(),
        metavar="FILE|-",
        help="Read the API key from a file, or from standard input. Default: the provider's variable, "
        "such as OPENAI_API_KEY.",
    )


def output_options() -> Iterator[Option]:
    """Yield the options for the result."""
    yield Option(
        ["-o", "--output"],
        section="Output",
        type=click.Path(),
        metavar="PATH",
        help="File, folder, or pattern such as 'out/{index}-{slug}.{ext}'. Default: a name made from the "
        "prompt, in this folder.",
    )
    yield Option(["--force"], section="Output", is_flag=True, help="Replace files that exist.")
    yield Option(
        ["--no-sidecar"],
        section="Output",
        is_flag=True,
        help="Write no NAME.json with prompt, model and digest beside an image.",
    )
    yield Option(
        ["--json", "as_json"],
        section="Output",
        is_flag=True,
        help="Print one JSON object instead of paths.",
    )
    yield Option(
        ["--dry-run"],
        section="Output",
        is_flag=True,
        help="Print the request; send and write nothing.",
    )


def common_options() -> Iterator[Option]:
    """Yield the options that every command has.

    The help option replaces click's: all of standard output goes through `imgkit.cli.console`.
    """
    yield Option(
        ["-h", "--help"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=print_help,
        help="Show this help.",
    )
    yield Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        callback=_enable_debug,
        help="Show the traceback of an error, like IMGKIT_DEBUG=1.",
    )
    yield Option(
        ["--api-key"],
        hidden=True,
        is_flag=False,
        flag_value="",
        expose_value=False,
        is_eager=True,
        callback=values.reject_api_key,
    )


def json_option(text: str = "Print one JSON object instead of a table.") -> Option:
    """Return the option for output as JSON."""
    return Option(["--json", "as_json"], is_flag=True, help=text)


def service_arguments() -> list[str]:
    """Return the names of the arguments of `ImageService` that have an option."""
    return [str(option.name) for option in service_options()]


def _format_flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _enable_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_root().obj.debug = True


def _parse_field_help(kind: type[ImageRequest]) -> dict[str, str]:
    """Return the description of each field in the docstring of a request class; {} under ``python -OO``."""
    # Python 3.13 removes the indentation of docstrings, older versions do not.
    text = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^ {4}(\w+): (.+(?:\n {5,}.+)*)", text, re.MULTILINE)
    texts = {name: re.sub(r"\s+", " ", entry.replace("`", "")) for name, entry in entries}
    return {name: text[:1].upper() + text[1:] for name, text in texts.items()}


def _build_completion(
    text: str,
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]] | None:
    """Return a completion that suggests the quoted words of a help text, None if there are none."""
    words = re.findall(r'"([\w-]+)"', text)

    def suggest_words(ctx: click.Context, param: click.Parameter, start: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in words if word.startswith(start)]

    return suggest_words if words else None
