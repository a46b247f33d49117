"""Reading what stands on the command line and behind it: JSON, headers, prompts, keys."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

MOST_PROMPT_BYTES = 1_000_000
MOST_KEY_BYTES = 10_000

_EXAMPLE = "give an object such as '{\"seed\": 1}'"
_NO_API_KEY = (
    "there is no --api-key: what stands on a command line is shown to everybody in the list of "
    "processes, and kept in the shell's history. Set OPENAI_API_KEY, or give --api-key-file FILE (- for "
    "standard input). A key that you have typed here is best replaced by a new one."
)


def refuse_key(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Say why there is no ``--api-key``, without repeating what was given."""
    if value is not None and not ctx.resilient_parsing:
        raise click.UsageError(_NO_API_KEY, ctx)


def json_object(ctx: click.Context, param: click.Parameter, value: str | None) -> dict[str, Any] | None:
    """Return the JSON object that an option holds."""
    if value is None:
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError) as error:
        why = error.msg if isinstance(error, json.JSONDecodeError) else "it cannot be read"
        raise click.BadParameter(f"this is no JSON ({why}): {_EXAMPLE}") from None
    if not isinstance(found, dict):
        raise click.BadParameter(_EXAMPLE)
    return found


def headers(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> dict[str, str | None] | None:
    """Return headers by name; one without a value is left out of the request."""
    found: dict[str, str | None] = {}
    for line in value:
        name, colon, content = line.partition(":")
        name = name.strip().lower()
        # Not repeated in messages: it may be a credential.
        if not colon:
            raise click.BadParameter("write NAME:VALUE")
        if name in found:
            raise click.BadParameter(f"{name!r} is given twice")
        found[name] = content.strip() or None
    return found or None


def as_utf8(text: str) -> str:
    """Return an argument as the UTF-8 that was typed, also where the locale calls it something else."""
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeError:
        return text  # the library says what is wrong with it


def split_words(
    words: Sequence[str], prompt_file: str | None, *, images: str, prompt: bool
) -> tuple[list[str], str | None]:
    """Return the pictures and the prompt among the words of a command.

    Args:
        words: what stands there besides options.
        prompt_file: where the prompt is instead.
        images: "none", "one" or "many": how many pictures the operation takes.
        prompt: whether it takes a prompt.
    """
    rest = list(words)
    text: str | None = None
    if images == "none" and len(rest) > 1:
        _refuse("PROMPT is one argument: put it in quotes")
    if images == "none" and rest and prompt_file is not None:
        _refuse("give either PROMPT or --prompt-file")
    if prompt and prompt_file is None:
        if not rest:
            _refuse("PROMPT is missing: say what the picture should show, or give --prompt-file FILE")
        text = as_utf8(rest.pop())
        if text == "-":
            _refuse("to read the prompt from standard input, say --prompt-file -")
    if images != "none" and not rest:
        _refuse("IMAGE is missing: give a picture file" + (", and then PROMPT" if text is not None else ""))
    if images == "one" and len(rest) > 1:
        _refuse("give one IMAGE")
    if prompt_file is not None:
        text = read_prompt(prompt_file)
    return rest, text


def read_prompt(source: str) -> str:
    """Return the text of a prompt file without the line break at its end."""
    data = _read(source, MOST_PROMPT_BYTES, "--prompt-file")
    try:
        return data.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        _refuse(f"--prompt-file is not UTF-8 text (byte {error.start}): convert it first")


def read_key(source: str) -> str:
    """Return the key in a file, without blanks and line breaks around it."""
    data = _read(source, MOST_KEY_BYTES, "--api-key-file")
    key = data.decode("latin-1").strip()
    return key or _refuse("--api-key-file is empty: put the key into it")


def _read(source: str, limit: int, option: str) -> bytes:
    try:
        if source == "-":
            if sys.stdin is None:
                _refuse(f"{option}: standard input is closed")
            data = sys.stdin.buffer.read(limit + 1)
        else:
            with open(source, "rb") as stream:
                data = stream.read(limit + 1)
    except (OSError, ValueError) as error:
        _refuse(f"{option}: cannot read {source!r} ({getattr(error, 'strerror', None) or error})")
    if len(data) > limit:
        _refuse(f"{option}: over {limit} bytes")
    return data


def _refuse(message: str) -> NoReturn:
    raise click.UsageError(message, click.get_current_context(silent=True))
