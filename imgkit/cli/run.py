"""A run of the command: every failure becomes a message and an exit code, never a traceback."""

from __future__ import annotations

import os
import signal
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Never

import click

from imgkit.cli import app, console, exit_codes, values
from imgkit.errors import FixtureMissingError, ImgkitError, PluginWarning
from imgkit.redact import scrub

_MAX_USAGE_CHARACTERS = 4_000
_MAX_TRACEBACK_CHARACTERS = 50_000
_WITH_PROMPT = ("create", "edit")
"""The commands that take a prompt."""

_MIN_SECRET_CHARACTERS = 8
"""Shorter values are not keys, and masking them would blank out half of the text."""


def run(args: Sequence[str]) -> int:
    """Run the command with these arguments.

    Example:
        >>> from imgkit.cli.run import run
        >>> run(["create", "a fox", "--size", "huge"])
        2

    Returns:
        An exit code of `imgkit.cli.exit_codes`.
    """
    with interrupt_on_signals():
        return _run(args)


@contextmanager
def interrupt_on_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM and SIGHUP; at the end the process dies of the signal after all.

    The call is then cancelled as by Ctrl-C, and paid data is kept. A second signal kills the process at
    once. A handler that somebody else has set (``nohup``, for example) stays.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    known = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]  # no SIGHUP on Windows
    handled = [
        number for number in known if number is not None and signal.getsignal(number) is signal.SIG_DFL
    ]
    received: list[int] = []

    def restore_handlers() -> None:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)

    def interrupt(number: int, frame: FrameType | None) -> Never:
        received.append(number)
        restore_handlers()
        raise KeyboardInterrupt

    for number in handled:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        restore_handlers()
        if received:
            signal.raise_signal(received[0])


@contextmanager
def show_plugin_warnings() -> Iterator[None]:
    """Show a `PluginWarning` as a line of the command, not as Python shows it."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", PluginWarning)
        show = warnings.showwarning

        def show_line(message: Warning | str, category: type[Warning], *place: Any, **rest: Any) -> None:
            if issubclass(category, PluginWarning):
                console.print_message(f"imgkit: {' '.join(str(message).split())}")
            elif console.has_status_line():
                console.write_to_stderr(warnings.formatwarning(message, category, *place))
            else:
                show(message, category, *place, **rest)

        warnings.showwarning = show_line
        yield


def _run(args: Sequence[str]) -> int:
    # The parser may fail before it meets the option.
    as_json = "--json" in args[: args.index("--") if "--" in args else None]
    is_debug = os.environ.get("IMGKIT_DEBUG", "") not in ("", "0")
    state = values.RunState(debug=is_debug, as_json=as_json, args=tuple(args))
    try:
        with show_plugin_warnings():
            code = app.build_cli().main(list(args), prog_name="imgkit", standalone_mode=False, obj=state)
        return code if isinstance(code, int) else exit_codes.OK
    except SystemExit as leaving:  # click has answered a completion request of the shell
        return leaving.code if isinstance(leaving.code, int) else exit_codes.OK
    except (Exception, KeyboardInterrupt) as error:
        try:
            return _report_failure(error, state)
        except KeyboardInterrupt:  # a second Ctrl-C
            return exit_codes.STOPPED


def _report_failure(error: BaseException, state: values.RunState) -> int:
    """Write an error to standard error; return its exit code."""
    if state.debug:
        text = "".join(traceback.format_exception(error)).rstrip()
        console.print_message(scrub(text, _list_secrets(state), _MAX_TRACEBACK_CHARACTERS))
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        console.print_message(error.format_message())
        return exit_codes.USAGE
    lines, code = _describe_failure(error, state)
    for line in lines:
        console.print_message(f"imgkit: {line}")
    if state.as_json and not isinstance(error, console.OutputError):
        from imgkit.cli import report

        facts = report.build_error(error, "\n".join(lines), code)
        # The first error matters more than a second one of standard output.
        with suppress(console.OutputError):
            console.write_bytes(report.encode_json({**state.report, "error": facts}))
    return code


def _describe_failure(error: BaseException, state: values.RunState) -> tuple[list[str], int]:
    """Return the lines that describe an error, and its exit code."""
    if isinstance(error, click.ClickException):
        return [_format_usage_error(error)], exit_codes.USAGE
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return ["Stopped."], exit_codes.STOPPED
    if isinstance(error, console.OutputError):
        return [str(error)], exit_codes.PARTIAL
    if isinstance(error, exit_codes.Stopped):
        return [str(error)], exit_codes.STOPPED
    if isinstance(error, ImgkitError):
        from imgkit.cli import messages

        lines = [*messages.format_error(error).splitlines(), *_list_notes(error)]
        return lines, exit_codes.exit_code(error)
    if _is_cassette_miss(error):
        text = scrub(" ".join(str(error).split()), _list_secrets(state), _MAX_USAGE_CHARACTERS)
        return [f"The cassette has no recording of this request. Nothing was sent. {text}"], (
            exit_codes.CODES_BY_ERROR[FixtureMissingError]
        )
    summary = f"{type(error).__name__}: {scrub(str(error), _list_secrets(state), 400)}"
    return [f"This is a bug in imgkit ({summary}). Please report it with the output of IMGKIT_DEBUG=1."], (
        exit_codes.BUG
    )


def _is_cassette_miss(error: BaseException) -> bool:
    """Return whether a cassette around the command lacks a recording: the error is vcrpy's own."""
    return any(kind.__module__ == "vcr.errors" for kind in type(error).__mro__)


def _list_notes(error: ImgkitError) -> list[str]:
    """Return the notes of an error, except those that name a part of imgkit itself."""
    notes = getattr(error, "__notes__", ())
    return [note for note in notes if not note.startswith("raised by plugin 'imgkit.")]


def _format_usage_error(error: click.ClickException) -> str:
    """Return click's message, scrubbed: a key may have been typed in the wrong place."""
    text = scrub(error.format_message(), limit=_MAX_USAGE_CHARACTERS)
    context = getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption) and context is not None and context.command.name in _WITH_PROMPT:
        text += " If this is a prompt, put the options first, then '--' and the prompt."
    return f"{text}\nTry '{context.command_path} --help'." if context else text


def _list_secrets(state: values.RunState) -> list[str]:
    variables = (text.strip() for name, text in os.environ.items() if name.endswith(("_API_KEY", "_TOKEN")))
    return [text for text in (*state.secrets, *variables) if len(text) >= _MIN_SECRET_CHARACTERS]
