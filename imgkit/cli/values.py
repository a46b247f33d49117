"""Values of options and arguments: numbers, JSON, headers, prompts, keys, folders; the state of a run."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from imgkit.errors import ConfigurationError
from imgkit.files import open_regular_file

if TYPE_CHECKING:
    from imgkit.default_plugins.budget import Budget

OFFLINE_OPTIONS = {"simulate": "--simulate", "latency_s": "--latency"}
"""The options of the offline backend alone, by name."""

MAX_PROMPT_BYTES = 1_000_000
MAX_KEY_BYTES = 10_000
_MAX_QUOTED_CHARACTERS = 200
_IMAGE_SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".gif",
    ".svg",
    ".bmp",
    ".tif",
    ".tiff",
    ".heic",
    ".avif",
)

_JSON_EXAMPLE = "Give an object such as '{\"seed\": 1}'."
_NO_API_KEY = (
    "The option --api-key does not exist: a command line is visible to every process, and your shell keeps "
    "it in its history. Set OPENAI_API_KEY, or pass --api-key-file FILE (- for standard input). Replace a "
    "key that you have typed here with a new one."
)


@dataclass
class RunState:
    """The state of a run, shared by its commands.

    Attributes:
        debug: whether an error shows its traceback.
        as_json: whether standard output gets an object for an error, too.
        secrets: texts that must not appear in a traceback.
        report: members of that object about the images of a call that failed.
        args: the arguments of the command.
    """

    debug: bool = False
    as_json: bool = False
    secrets: list[str] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    args: tuple[str, ...] = ()


class Integer(click.IntRange):
    """An integer in a range, which messages call an integer: click calls it an "integer range"."""

    name = "integer"


class Number(click.FloatRange):
    """A number in a range, which messages call a number; "nan" is not a number."""

    name = "number"

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number.

        Raises:
            click.BadParameter: the text is not a number, or the number is outside the range.
        """
        number = float(super().convert(value, param, ctx))
        if number != number:
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


class Rate(Number):
    """A finite number in a range."""

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number.

        Raises:
            click.BadParameter: the text is not a number, or the number is infinite or outside the range.
        """
        number = super().convert(value, param, ctx)
        if number == float("inf"):
            self.fail(f"{value!r} is not a limit. Leave the option out for the provider's limit.", param, ctx)
        return number


def reject_api_key(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Explain why ``--api-key`` does not exist, without repeating the key."""
    if value is not None and not ctx.resilient_parsing:
        raise click.UsageError(_NO_API_KEY, ctx)


def parse_json_object(ctx: click.Context, param: click.Parameter, value: str | None) -> dict[str, Any] | None:
    """Return the JSON object of an option."""
    if value is None:
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError) as error:
        cause = error.msg if isinstance(error, json.JSONDecodeError) else "too deeply nested"
        raise click.BadParameter(f"This is not JSON ({cause}). {_JSON_EXAMPLE}") from None
    if not isinstance(found, dict):
        raise click.BadParameter(_JSON_EXAMPLE)
    return found


def parse_settings(
    ctx: click.Context, param: click.Parameter, value: Sequence[str]
) -> dict[str, object] | None:
    """Return the options of a model by name; a value is JSON, and text if it is no JSON."""
    settings: dict[str, object] = {}
    for word in value:
        name, equals, text = word.partition("=")
        name = name.strip()
        if not equals or not name:
            raise click.BadParameter("Write NAME=VALUE, such as steps=30.")
        if name in settings:
            raise click.BadParameter(f"{name!r} is given twice.")
        try:
            settings[name] = json.loads(text)
        except (ValueError, RecursionError):
            settings[name] = text
    return settings or None


def parse_headers(
    ctx: click.Context, param: click.Parameter, value: Sequence[str]
) -> dict[str, str | None] | None:
    """Return headers by name; a header without a value is left out of the request."""
    headers: dict[str, str | None] = {}
    for line in value:
        name, colon, content = line.partition(":")
        name = name.strip().lower()
        # The message does not repeat the line: it may be a credential.
        if not colon:
            raise click.BadParameter("Write NAME:VALUE.")
        if name in headers:
            raise click.BadParameter(f"{name!r} is given twice.")
        headers[name] = content.strip() or None
    return headers or None


def split_arguments(
    words: Sequence[str], prompt_file: str | None, *, images: str, prompt: bool
) -> tuple[list[str], str | None]:
    """Return the images and the prompt among the positional arguments of a command.

    Args:
        words: the positional arguments.
        prompt_file: the file of ``--prompt-file``, None without the option.
        images: "none", "one" or "many", the number of images that the operation takes.
        prompt: whether the operation takes a prompt.

    Raises:
        click.UsageError: an argument is missing, or there are too many.
    """
    rest = list(words)
    text: str | None = None
    if images == "none" and len(rest) > 1:
        _reject(f"PROMPT is one argument. Put it in quotes: {_quote(rest)}.")
    if images == "many" and prompt and prompt_file is None:
        _check_prompt_place(rest)
    if images == "none" and rest and prompt_file is not None:
        _reject("Give either PROMPT or --prompt-file, not both.")
    if prompt and prompt_file is None:
        if not rest:
            _reject("PROMPT is missing. Describe the image, or pass --prompt-file FILE.")
        text = _decode_argument(rest.pop())
        if text == "-":
            _reject("Pass --prompt-file - to read the prompt from standard input.")
    if images != "none" and not rest:
        _reject("IMAGE is missing. Give an image file" + (" and then PROMPT." if text is not None else "."))
    if images == "one" and len(rest) > 1:
        _reject("Give one IMAGE only. A variation takes no prompt: use `imgkit edit IMAGE PROMPT` for that.")
    if prompt_file is not None:
        text = read_prompt(prompt_file)
    return rest, text


def read_prompt(source: str) -> str:
    """Return the text of a prompt file ("-" is standard input) without its final line break."""
    data = _read_file(source, MAX_PROMPT_BYTES, "--prompt-file")
    try:
        return data.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        _reject(f"--prompt-file is not UTF-8 text (byte {error.start}). Convert it first.")


def read_key(source: str) -> str:
    """Return the key in a file ("-" is standard input), without surrounding blanks and line breaks."""
    data = _read_file(source, MAX_KEY_BYTES, "--api-key-file")
    key = data.decode("latin-1").strip()
    return key or _reject("--api-key-file is empty. Put the key into it.")


def take_offline_options(chosen: dict[str, Any], backend: str | None) -> dict[str, Any]:
    """Remove the options of the offline backend from `chosen`, and return them.

    Raises:
        click.UsageError: the command uses another backend.
    """
    taken = {name: chosen.pop(name) for name in OFFLINE_OPTIONS if name in chosen}
    if taken and (backend or os.environ.get("IMGKIT_BACKEND") or "offline") != "offline":
        _reject(f"{' and '.join(OFFLINE_OPTIONS[name] for name in taken)}: for the offline backend only.")
    return taken


def build_budget(
    max_cost_usd: str | None, price_per_image: str | None, allow_unknown_price: bool
) -> Budget | None:
    """Return the budget of ``--max-cost``, None without the option.

    Raises:
        click.UsageError: an option stands without it.
        ConfigurationError: an amount is wrong.
    """
    if max_cost_usd is None:
        if allow_unknown_price:
            _reject("--allow-unknown-price requires --max-cost.")
        if price_per_image is not None:
            _reject("--price-per-image requires --max-cost.")
        return None
    from imgkit.default_plugins.budget import Budget

    return Budget(max_cost_usd, allow_unknown=allow_unknown_price, price_per_image=price_per_image)


def find_state_folder(option: str | None = None) -> Path:
    """Return the state folder: ``--state-folder``, else ``IMGKIT_HOME``, else the user's own.

    Args:
        option: the value of ``--state-folder``.

    Raises:
        ConfigurationError: the value is not a path.
    """
    from imgkit.core.config import resolve_state_folder

    folder = resolve_state_folder(option)
    if folder is not None:
        return folder
    from platformdirs import user_state_path

    return user_state_path("imgkit", appauthor=False)


def unusable_folder_error(folder: Path, error: OSError) -> ConfigurationError:
    """Return the error for a state folder that cannot be read or written."""
    return ConfigurationError(
        f"The folder {str(folder)!r} cannot be used ({error.strerror or error}). Pass another "
        "--state-folder, or set IMGKIT_HOME."
    )


def _check_prompt_place(words: list[str]) -> None:
    """Refuse a prompt without quotes among the images, before the images, or left out.

    Raises:
        click.UsageError: the message has the arguments as they should be.
    """
    files = [os.path.isfile(word) for word in words]
    if len(words) == 1 and files[0]:
        _reject("PROMPT is missing. Describe the change after IMAGE.")
    if len(words) == 2 and files == [False, True] and " " in words[0]:
        _reject(f"PROMPT comes after IMAGE: {_quote([words[1]])} {_quote([words[0]])}.")
    count = next((index for index, is_file in enumerate(files) if not is_file), len(words))
    rest = words[count:]
    if count and len(rest) > 1 and not any(files[count:]) and not _is_named_like_image(rest[0]):
        images = " ".join(_quote([word]) for word in words[:count])
        _reject(f"PROMPT is one argument. Put it in quotes: {images} {_quote(rest)}.")


def _is_named_like_image(word: str) -> bool:
    """Return whether a word that names no file was probably meant to."""
    suffix = os.path.splitext(word)[1].lower()
    return ":" in word or os.sep in word or suffix in _IMAGE_SUFFIXES


def _quote(words: Sequence[str]) -> str:
    """Return words as one argument for a shell, shortened for a message."""
    text = " ".join(words)
    return shlex.quote(text if len(text) <= _MAX_QUOTED_CHARACTERS else f"{text[:_MAX_QUOTED_CHARACTERS]}…")


def _decode_argument(text: str) -> str:
    """Return an argument as the UTF-8 that the user typed, whatever encoding the locale names."""
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeError:
        return text  # the library reports the bad character


def _read_file(source: str, limit: int, option: str) -> bytes:
    try:
        if source == "-":
            if sys.stdin is None:
                _reject(f"{option}: Standard input is closed.")
            data = sys.stdin.buffer.read(limit + 1)
        else:
            # The shell opens the pipes behind these names, so they have a writer.
            is_open = source == "/dev/stdin" or source.startswith(("/dev/fd/", "/proc/self/fd/"))
            with open(source, "rb") if is_open else open_regular_file(source) as stream:
                data = stream.read(limit + 1)
    except (OSError, ValueError) as error:
        _reject(f"{option}: Cannot read {source!r} ({getattr(error, 'strerror', None) or error}).")
    if len(data) > limit:
        _reject(f"{option}: The file is over {limit} bytes.")
    return data


def _reject(message: str) -> NoReturn:
    raise click.UsageError(message, click.get_current_context(silent=True))
