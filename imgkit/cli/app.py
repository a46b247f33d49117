"""The commands and what they take. Nothing heavy is imported before a command runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import click

from imgkit.cli import cassette_group, doctor_command, mask, options, values
from imgkit.cli import console as streams
from imgkit.cli import exit_codes as exits
from imgkit.cli.commands import Root
from imgkit.cli.options import Command, Option
from imgkit.models import (
    CreateImageEditRequest,
    CreateImageRequest,
    CreateImageVariationRequest,
    ImageRequest,
)

SHELLS = ("bash", "zsh", "fish")
_SETTINGS: dict[str, Any] = {"help_option_names": [], "max_content_width": 100}


@dataclass
class State:
    """What commands tell the one who ran them.

    Attributes:
        debug: show tracebacks.
        secrets: what must not appear in them.
    """

    debug: bool = False
    secrets: list[str] = field(default_factory=list)


class Drawing(NamedTuple):
    """A command that makes pictures.

    Attributes:
        name: of the command.
        request: class of the request whose fields become options.
        words: how the positional arguments are shown.
        images: how many pictures it takes: "none", "one" or "many".
        text: what its help says.
        examples: lines for the end of its help.
    """

    name: str
    request: type[ImageRequest]
    words: str
    images: Literal["none", "one", "many"]
    text: str
    examples: tuple[str, ...]

    @property
    def prompt(self) -> bool:
        """Whether it takes a prompt."""
        return "prompt" in self.request.__dataclass_fields__

    def command(self) -> click.Command:
        """Return it as click has it."""
        return Command(
            self.name,
            context_settings=_SETTINGS,
            params=[
                click.Argument(["words"], nargs=-1, metavar=self.words, type=click.Path()),
                *options.request_options(self.request),
                *(options.variation_options() if self.name == "variation" else ()),
                *([options.prepare_option()] if self.images != "none" else ()),
                *options.input_options(prompt=self.prompt),
                *options.output_options(),
                *(options.stream_options() if self.prompt else ()),  # variations cannot be streamed
                *options.budget_options(),
                *options.cache_options(),
                *options.service_options(),
                *options.offline_options(),
                *options.common_options(),
            ],
            callback=self._run,
            help=f"{self.text}\n\nPrints the path of each picture on a line of its own.",
            short_help=self.text.partition("\n")[0],
            epilog=_verbatim("Examples:", *(f"  {line}" for line in self.examples)),
        )

    def _run(self, words: tuple[str, ...], prompt_file: str | None = None, **given: Any) -> int:
        if prompt_file == given["api_key_file"] == "-":
            raise click.UsageError("only one of --prompt-file and --api-key-file can read standard input")
        images, prompt = values.split_words(words, prompt_file, images=self.images, prompt=self.prompt)
        from imgkit.cli.generate import draw

        secrets = click.get_current_context().find_root().obj.secrets
        return draw(self.request.operation, images=images, prompt=prompt, secrets=secrets, **given)


DRAWINGS = (
    Drawing(
        "create",
        CreateImageRequest,
        "PROMPT",
        "none",
        "Create pictures from a prompt.\n\nWithout --backend they are painted offline: no key, no network, "
        "no cost. A prompt that begins with '-' goes after '--'.",
        (
            "imgkit create 'a red fox in the snow' -o fox.png",
            "imgkit create 'a red fox' --backend requests --model gpt-image-2 --n 3 -o out/",
        ),
    ),
    Drawing(
        "edit",
        CreateImageEditRequest,
        "IMAGE... PROMPT",
        "many",
        "Change pictures as a prompt says.\n\nThe first picture is changed; the others are examples of what "
        "is meant. A prompt that begins with '-' goes after '--'.",
        (
            "imgkit edit fox.png 'give it a hat' -o hat.png",
            "imgkit edit fox.png 'give it a hat' --mask head.png --backend requests --model gpt-image-2",
        ),
    ),
    Drawing(
        "variation",
        CreateImageVariationRequest,
        "IMAGE",
        "one",
        "Make variations of a picture.\n\nOpenAI has retired this operation: there, and where else it is "
        "missing, an edit is asked for one.",
        (
            "imgkit variation fox.png --n 3 -o out/",
            "imgkit variation fox.png --backend requests --base-url http://localhost:8000/v1",
        ),
    ),
)


def _verbatim(*lines: str) -> str:
    """Return lines that click does not wrap anew."""
    return "\b\n" + "\n".join(lines)


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from imgkit._version import __version__

        ctx.exit(streams.send_text(f"imgkit {__version__}\n"))


def _backends(as_json: bool) -> int:
    from imgkit.cli.backends import show

    return show(as_json=as_json)


def _models(model: str | None, models: str | None, as_json: bool) -> int:
    from imgkit.cli.models import show

    return show(model=model, models=models, as_json=as_json)


def _plugins(load: bool, as_json: bool) -> int:
    from imgkit.cli.plugins import show

    return show(load=load, as_json=as_json)


def _recover(**given: Any) -> int:
    from imgkit.cli.recover import recover

    return recover(**given)


def _completion(shell: str) -> int:
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, "click has the three shells built in"
    return streams.send_text(kind(build(), {}, "imgkit", "_IMGKIT_COMPLETE").source() + "\n")


def _others() -> Iterator[click.Command]:
    yield Command(
        "backends",
        context_settings=_SETTINGS,
        params=[
            Option(["--json", "as_json"], is_flag=True, help="one JSON object instead of a table."),
            *options.common_options(),
        ],
        callback=_backends,
        help="List the backends, and whether each can be loaded.",
        epilog=_verbatim("Example:", "  imgkit backends --json"),
    )
    yield Command(
        "plugins",
        context_settings=_SETTINGS,
        params=[
            Option(["--load"], is_flag=True, help="import them, and tell their hooks."),
            Option(["--json", "as_json"], is_flag=True, help="one JSON object instead of a table."),
            *options.common_options(),
        ],
        callback=_plugins,
        help="List the plugins: name, distribution, version, and what became of each.\n\n"
        "Without --load nothing of others is imported. IMGKIT_PLUGINS names those that may be loaded (empty: "
        "none), IMGKIT_BLOCK_PLUGINS those that must not.",
        short_help="List the plugins.",
        epilog=_verbatim("Example:", "  imgkit plugins --load"),
    )
    yield Command(
        "models",
        context_settings=_SETTINGS,
        params=[
            click.Argument(["model"], required=False, metavar="[MODEL]"),
            options.models_option(),
            Option(["--json", "as_json"], is_flag=True, help="one JSON object instead of a table."),
            *options.common_options(),
        ],
        callback=_models,
        help="List the models that are known, or all that is known of one: operations, rules, prices, each "
        "with its date and source.\n\nThe facts are those of the provider in IMGKIT_PROVIDER (openai by "
        "default), and of your own files.",
        short_help="List what is known of models.",
        epilog=_verbatim("Examples:", "  imgkit models", "  imgkit models gpt-image-2"),
    )
    yield mask.command(
        _SETTINGS,
        _verbatim(
            "Examples:",
            "  imgkit mask --from-white drawing.png --like photo.png -o mask.png",
            "  imgkit mask --box 40,60,200,120 --feather 4 --like photo.png -o mask.png",
            "  imgkit mask --check mask.png --like photo.png",
        ),
    )
    yield _cache_group()
    yield cassette_group.group(_SETTINGS, _verbatim)
    yield Command(
        "recover",
        context_settings=_SETTINGS,
        params=[
            Option(["--list", "listing"], is_flag=True, help="only list them."),
            Option(["--output", "-o"], metavar="PATH", help="where the pictures go; here by default."),
            Option(["--drop"], multiple=True, metavar="ID", help="remove one for good; can be repeated."),
            Option(["--json", "as_json"], is_flag=True, help="one JSON object instead of lines."),
            options.state_option(),
            *options.common_options(),
        ],
        callback=_recover,
        help="Make pictures of replies that were paid for and did not arrive where they belong.\n\n"
        "Replies are written to the state folder while they arrive, and removed once their pictures are "
        "saved. What is left there after a crash, a cut connection or a full disk is found by this command.",
        short_help="Make pictures of replies that did not arrive.",
        epilog=_verbatim("Examples:", "  imgkit recover --list", "  imgkit recover -o out/"),
    )
    yield doctor_command.command()
    yield Command(
        "completion",
        context_settings=_SETTINGS,
        params=[click.Argument(["shell"], type=click.Choice(SHELLS)), *options.common_options()],
        callback=_completion,
        help="Print the script that completes imgkit's commands and options in a shell.",
        short_help="Print a script for the shell's completion.",
        epilog=_verbatim(
            "Examples:",
            "  imgkit completion bash > ~/.local/share/bash-completion/completions/imgkit",
            "  imgkit completion zsh  > ~/.zfunc/_imgkit",
            "  imgkit completion fish > ~/.config/fish/completions/imgkit.fish",
        ),
    )


def _cache_group() -> click.Group:
    """Return `imgkit cache` with what can be done there."""
    as_json = Option(["--json", "as_json"], is_flag=True, help="one JSON object.")
    older = Option(["--older-than", "older_than_days"], type=click.FloatRange(min=0), metavar="DAYS",
                   help="only what is older.")  # fmt: skip
    remove = Option(["--remove"], is_flag=True, help="remove what is not whole.")
    kinds = {
        "ls": ([as_json], "List what is kept."),
        "stats": ([as_json], "Tell how much is kept, and where."),
        "clear": ([older], "Remove what is kept."),
        "verify": ([remove], "Check every picture against its digest, and make the index anew."),
    }
    return click.Group(
        "cache",
        context_settings=_SETTINGS,
        params=[*options.common_options()],
        commands=[_cache_command(name, *about) for name, about in kinds.items()],
        help="Look at the cache that --cache uses, and clear it.",
        epilog=_verbatim("Examples:", "  imgkit cache ls", "  imgkit cache clear --older-than 30"),
    )


def _cache_command(name: str, own: list[Option], text: str) -> click.Command:
    def run(folder: str | None, state_folder: str | None, **given: Any) -> int:
        from imgkit.cli import cache

        code: int = getattr(cache, name)(cache.store_of(folder, state_folder), **given)
        return code

    folder = Option(["--folder"], type=click.Path(), metavar="DIR", help="another folder of entries.")
    return Command(
        name,
        context_settings=_SETTINGS,
        params=[*own, folder, options.state_option(), *options.common_options()],
        callback=run,
        help=text,
        epilog=_verbatim("Example:", f"  imgkit cache {name}"),
    )


def build() -> click.Group:
    """Return the whole command."""
    return Root(
        "imgkit",
        context_settings=_SETTINGS,
        params=[
            Option(
                ["--version"],
                is_flag=True,
                expose_value=False,
                is_eager=True,
                callback=_version,
                help="print the version.",
            ),
            *options.common_options(),
        ],
        commands=[*(drawing.command() for drawing in DRAWINGS), *_others()],
        help="Create, edit and vary images, offline until told otherwise.\n\n"
        "Paths of pictures go to standard output, everything else to standard error. Installed plugins may "
        "add commands: `imgkit plugins --load` tells which.",
        epilog=_verbatim(
            "Example:",
            "  imgkit create 'a red fox in the snow' -o fox.png",
        )
        + "\n\n"
        + _verbatim("Exit codes:", exits.described()),
    )
