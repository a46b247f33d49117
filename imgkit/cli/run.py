"""Running the command: whatever happens becomes a message and an exit code, never a traceback."""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence

import click

from imgkit.cli import app, signals
from imgkit.cli import console as streams
from imgkit.cli import exit_codes as exits
from imgkit.errors import ImgkitError
from imgkit.redact import scrub

_LONGEST_USAGE = 4_000
_LONGEST_TRACEBACK = 50_000


def run(args: Sequence[str]) -> int:
    """Run the command with these arguments.

    Returns:
        The exit code, as `imgkit.cli.exit_codes` has it.
    """
    with signals.as_interrupts():
        return _run(args)


def _run(args: Sequence[str]) -> int:
    state = app.State(debug=os.environ.get("IMGKIT_DEBUG", "") not in ("", "0"))
    try:
        code = app.build().main(list(args), prog_name="imgkit", standalone_mode=False, obj=state)
        return code if isinstance(code, int) else exits.OK
    except SystemExit as leaving:  # click has answered a shell's request for completions
        return leaving.code if isinstance(leaving.code, int) else exits.OK
    except (Exception, KeyboardInterrupt) as error:
        try:
            return _explain(error, state)
        except KeyboardInterrupt:  # a second Ctrl-C while the first is being explained
            return exits.STOPPED


def _explain(error: BaseException, state: app.State) -> int:
    """Write what went wrong to standard error; return the exit code."""
    if state.debug:
        text = "".join(traceback.format_exception(error)).rstrip()
        streams.tell(scrub(text, _secrets(state), _LONGEST_TRACEBACK))
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        streams.tell(error.format_message())
        return exits.USAGE
    if isinstance(error, click.ClickException):
        streams.tell(f"imgkit: {_usage(error)}")
        return exits.USAGE
    if isinstance(error, click.Abort | KeyboardInterrupt):
        streams.tell("imgkit: stopped")
        return exits.STOPPED
    if isinstance(error, streams.OutputError):
        streams.tell(f"imgkit: {error}")
        return exits.PARTLY
    if isinstance(error, exits.Stopped):
        streams.tell(f"imgkit: {error}")
        return exits.STOPPED
    if isinstance(error, ImgkitError):
        from imgkit.cli import messages as wording

        for line in [*wording.message(error).splitlines(), *_notes(error)]:
            streams.tell(f"imgkit: {line}")
        return exits.exit_code(error)
    what = f"{type(error).__name__}: {scrub(str(error), _secrets(state), 400)}"
    streams.tell(f"imgkit: a bug in imgkit ({what}). Please report it, with what IMGKIT_DEBUG=1 shows")
    return exits.BUG


def _notes(error: ImgkitError) -> list[str]:
    """Return what was noted on the way, but not which part of imgkit itself was on duty."""
    notes = getattr(error, "__notes__", ())
    return [note for note in notes if not note.startswith("raised by plugin 'imgkit.")]


def _usage(error: click.ClickException) -> str:
    """Return click's message, scrubbed: a key may have been typed in a wrong place."""
    text = scrub(error.format_message(), limit=_LONGEST_USAGE)
    ctx = getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption):
        text += " If this is a prompt, put '--' before it."
    return f"{text}\nTry '{ctx.command_path} --help'." if ctx else text


def _secrets(state: app.State) -> list[str]:
    # Those of any provider. Shorter ones are no keys, and would blank out half of the text.
    kept = (value.strip() for name, value in os.environ.items() if name.endswith(("_API_KEY", "_TOKEN")))
    return [text for text in (*state.secrets, *kept) if len(text) >= 8]
