"""The `imgkit` command with its subcommands, and the commands that make images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from imgkit.cli import bulk_commands, commands, console, exit_codes, mask, options, serve_command, values
from imgkit.cli.help_text import COMMON, Command, Option
from imgkit.errors import ConfigurationError, ImgkitError
from imgkit.models import (
    CreateImageEditRequest,
    CreateImageRequest,
    CreateImageVariationRequest,
    ImageRequest,
)

if TYPE_CHECKING:
    from imgkit.plugins.table import HookImpl

SHELLS = ("bash", "zsh", "fish")


class RootGroup(click.Group):
    """The `imgkit` command. It asks plugins only for a command that it does not have itself.

    Its help lists its own commands: help imports no plugin.
    """

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._plugin_commands: PluginCommands | None = None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the exit codes, then the examples."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(f"{code:>3}", meaning) for code, meaning in exit_codes.MEANINGS.items()])
        super().format_epilog(ctx, formatter)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command of imgkit, else a command of a plugin.

        Raises:
            ConfigurationError: several plugins have a command of this name.
        """
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        if self._plugin_commands is None:
            self._plugin_commands = load_plugin_commands(self)
        if cmd_name in self._plugin_commands.clashes:
            raise ConfigurationError(self._plugin_commands.clashes[cmd_name])
        return self._plugin_commands.commands.get(cmd_name)


class PluginCommands(NamedTuple):
    """The commands of installed plugins.

    Attributes:
        commands: the commands by name.
        clashes: the problem of each name that several plugins have.
    """

    commands: dict[str, click.Command]
    clashes: dict[str, str]


def load_plugin_commands(group: click.Group) -> PluginCommands:
    """Return the commands of installed plugins. A plugin that fails costs a line on standard error.

    Args:
        group: the `imgkit` command.
    """
    from imgkit.files import print_to_stderr
    from imgkit.plugins.registry import load_hook_table

    owners: dict[str, str] = dict.fromkeys(group.commands, "imgkit itself")
    loaded = PluginCommands({}, {})
    for impl in load_hook_table().commands:
        try:
            with print_to_stderr():
                added = _list_commands(impl, group)
        except ImgkitError as error:
            console.print_message(f"imgkit: {' '.join(str(error).split())}")
            continue
        for name, command in added.items():
            problem = (
                f"{owners.get(name)} and {impl.origin} both have the command {name!r}: "
                f"{impl.origin.removal_hint}"
            )
            if name in group.commands:
                console.print_message(f"imgkit: {problem}")
            elif name in owners:
                loaded.clashes[name] = problem
            else:
                # Contexts inherit that click's own --help is off; a plugin has no other.
                command.context_settings.setdefault("help_option_names", ["--help"])
                owners[name] = str(impl.origin)
                loaded.commands[name] = command
    return loaded


def _list_commands(impl: HookImpl, group: click.Group) -> dict[str, click.Command]:
    """Return the commands of one plugin by name.

    Raises:
        PluginError: the plugin fails, or returns something else than commands.
    """
    result = impl(group=group)
    try:
        added = tuple(result if result is not None else ())
    except TypeError:
        raise impl.result_error(f"returned a {type(result).__name__}") from None
    for command in added:
        if not isinstance(command, click.Command) or not command.name:
            raise impl.result_error(
                f"returned a {type(command).__name__} instead of a click.Command with a name"
            )
    return {command.name: command for command in added}


class ImageCommand(NamedTuple):
    """A command that makes images.

    Attributes:
        name: the name of the command.
        request: the request class whose fields become options.
        words: the positional arguments as the help shows them.
        images: "none", "one" or "many", the number of images that it takes.
        text: the text of its help.
        examples: command lines for the end of its help.
    """

    name: str
    request: type[ImageRequest]
    words: str
    images: Literal["none", "one", "many"]
    text: str
    examples: tuple[str, ...]

    @property
    def has_prompt(self) -> bool:
        """Whether it takes a prompt."""
        return "prompt" in self.request.__dataclass_fields__

    def build(self) -> click.Command:
        """Return the click command."""
        return Command(
            self.name,
            common=COMMON,
            context_settings=commands.SETTINGS,
            params=[
                click.Argument(["words"], nargs=-1, metavar=self.words, type=click.Path()),
                *options.request_options(self.request),
                *(options.variation_options() if self.name == "variation" else ()),
                *([options.prepare_option()] if self.images != "none" else ()),
                *options.input_options(prompt=self.has_prompt),
                *options.output_options(),
                *(options.stream_options() if self.has_prompt else ()),  # variations do not stream
                *options.budget_options(),
                *options.cache_options(),
                *options.service_options(),
                *options.offline_options(),
                *options.common_options(),
            ],
            callback=self._run,
            help=f"{self.text}\n\nPrints the path of each image on a line of its own.",
            short_help=self.text.partition("\n")[0],
            epilog=commands.format_examples(*self.examples),
        )

    def _run(self, words: tuple[str, ...], prompt_file: str | None = None, **given: Any) -> int:
        if prompt_file == given["api_key_file"] == "-":
            raise click.UsageError("Only one of --prompt-file and --api-key-file can read standard input.")
        images, prompt = values.split_arguments(
            words, prompt_file, images=self.images, prompt=self.has_prompt
        )
        from imgkit.cli.generate import run_operation

        state: values.RunState = click.get_current_context().find_root().obj
        return run_operation(self.request.operation, images=images, prompt=prompt, state=state, **given)


IMAGE_COMMANDS = (
    ImageCommand(
        "create",
        CreateImageRequest,
        "PROMPT",
        "none",
        "Create images from a prompt.\n\nWithout --backend, imgkit paints them offline: no key, no network, "
        "no cost. Put '--' before a prompt that begins with '-'.",
        (
            "imgkit create 'a red fox in the snow' -o fox.png",
            "imgkit create 'a fox' --backend requests --model gpt-image-2 --n 3 -o out/",
        ),
    ),
    ImageCommand(
        "edit",
        CreateImageEditRequest,
        "IMAGE... PROMPT",
        "many",
        "Edit an image as a prompt describes.\n\nThe first image is edited; the others are references. Put "
        "'--' before a prompt that begins with '-'.",
        (
            "imgkit edit fox.png 'give it a hat' -o hat.png",
            "imgkit edit fox.png 'a hat' --mask head.png --backend requests --model gpt-image-2",
        ),
    ),
    ImageCommand(
        "variation",
        CreateImageVariationRequest,
        "IMAGE",
        "one",
        "Make variations of an image.\n\nOpenAI has retired this operation. Where a server does not have "
        "it, imgkit sends an edit instead.",
        (
            "imgkit variation fox.png --n 3 -o out/",
            "imgkit variation fox.png --backend requests --base-url http://localhost:8000/v1",
        ),
    ),
)


def build_cli() -> click.Group:
    """Return the `imgkit` command with all its subcommands."""
    return RootGroup(
        "imgkit",
        context_settings=commands.SETTINGS,
        params=[
            Option(
                ["--version"],
                is_flag=True,
                expose_value=False,
                is_eager=True,
                callback=_print_version,
                help="Print the version.",
            ),
            *options.common_options(),
        ],
        commands=[
            *(command.build() for command in IMAGE_COMMANDS),
            mask.build_command(
                commands.SETTINGS,
                commands.format_examples(
                    "imgkit mask --from-white drawing.png --like photo.png -o mask.png",
                    "imgkit mask --box 40,60,200,120 --feather 4 --like photo.png -o mask.png",
                    "imgkit mask --check mask.png --like photo.png",
                ),
            ),
            commands.build_cache_group(),
            commands.build_cassette_group(),
            *commands.build_information_commands(),
            commands.build_recover_command(),
            commands.build_jobs_group(),
            bulk_commands.build_bulk_group(),
            serve_command.build_serve_command(),
            commands.build_doctor_command(),
            _build_completion_command(),
        ],
        help="Create, edit and vary images. Nothing leaves this machine unless you name a backend.\n\n"
        "Paths of images go to standard output, all messages to standard error. Installed plugins may add "
        "commands: `imgkit plugins --load` lists them.",
        epilog=commands.format_examples("imgkit create 'a red fox in the snow' -o fox.png"),
    )


def _build_completion_command() -> click.Command:
    return commands.build_command(
        "completion",
        [click.Argument(["shell"], type=click.Choice(SHELLS))],
        _print_completion,
        "Print the completion script of a shell.",
        "imgkit completion bash > ~/.local/share/bash-completion/completions/imgkit",
        "imgkit completion zsh  > ~/.zfunc/_imgkit",
        "imgkit completion fish > ~/.config/fish/completions/imgkit.fish",
    )


def _print_completion(shell: str) -> int:
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, "click supports the three shells"
    return console.write_text(kind(build_cli(), {}, "imgkit", "_IMGKIT_COMPLETE").source() + "\n")


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from imgkit._version import __version__

        ctx.exit(console.write_text(f"imgkit {__version__}\n"))
