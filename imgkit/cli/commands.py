"""The `imgkit` command with what installed plugins add to it."""

from __future__ import annotations

import click

from imgkit.errors import ConfigurationError


class Root(click.Group):
    """A group that asks plugins for commands only when it is given one that it does not have.

    Its help lists its own: nothing of strangers is imported to show it.
    """

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by name; plugins are asked for those that imgkit does not have."""
        return super().get_command(ctx, cmd_name) or offered(self).get(cmd_name)


def offered(group: click.Group) -> dict[str, click.Command]:
    """Return the commands that installed plugins offer, by name.

    Args:
        group: the command `imgkit`.

    Raises:
        PluginError: a plugin fails, or offers something else.
        ConfigurationError: two offer one name, or one that imgkit has.
    """
    from imgkit.plugins.registry import load_hook_table

    found: dict[str, tuple[str, click.Command]] = {}
    for impl in load_hook_table().commands:
        answer = impl(group=group)
        try:
            commands = tuple(answer if answer is not None else ())
        except TypeError:
            raise impl.result_error(f"returned a {type(answer).__name__}") from None
        for command in commands:
            if not isinstance(command, click.Command) or not command.name:
                raise impl.result_error(
                    f"returned a {type(command).__name__} instead of a click.Command with a name"
                )
            other = "imgkit itself" if command.name in group.commands else found.get(command.name, ("",))[0]
            if other:
                raise ConfigurationError(
                    f"{other} and {impl.origin} both offer the command {command.name!r}: "
                    f"{impl.origin.removal_hint}"
                )
            # imgkit has an option --help of its own, and contexts inherit that click's is off.
            command.context_settings.setdefault("help_option_names", ["--help"])
            found[command.name] = (str(impl.origin), command)
    return {name: command for name, (_, command) in found.items()}
