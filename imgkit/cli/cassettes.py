"""The command `imgkit cassette`: check, list, show and shrink recorded traffic."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from imgkit.cassettes.api_keys import find_key
from imgkit.cassettes.bodies import replace_images
from imgkit.cassettes.reader import (
    MAX_CASSETTE_BYTES,
    get_content_type,
    list_cassettes,
    load_interactions,
    to_bytes,
)
from imgkit.cassettes.scrubbing import REQUEST_ID, is_private
from imgkit.cassettes.side_files import REFUSED_PATTERN, SideFiles
from imgkit.cli import console, exit_codes
from imgkit.errors import ConfigurationError, SaveError
from imgkit.files import read_regular_file, write_atomically
from imgkit.images.sniff import sniff

_MAX_PROMPT_CHARACTERS = 60
_PYTHON_TAG = re.compile(rb"!!python/[a-z/]+")


def check_cassettes(places: Sequence[str]) -> int:
    """Print every problem that forbids sharing the cassettes.

    Args:
        places: cassettes, or folders of them.

    Returns:
        0, or 1 if there is a problem.
    """
    problems = 0
    count = 0
    for path in _find_cassettes(places):
        count += 1
        for problem in _find_problems(path):
            problems += 1
            console.print_message(f"imgkit: {path}: {problem}")
    for path in _find_refused_files(places):
        problems += 1
        console.print_message(
            f"imgkit: {path}: The recorder refused this file: it holds a key. Remove the key or the file."
        )
    console.print_message(f"imgkit: {count} cassettes checked, {problems or 'no'} problems.")
    return exit_codes.BUG if problems else exit_codes.OK


def list_requests(places: Sequence[str]) -> int:
    """Print each recorded request with the status of its response and its prompt."""
    lines = []
    for path in _find_cassettes(places):
        for interaction in load_interactions(path):
            request, status = interaction["request"], interaction["response"]["status"]["code"]
            line = f"{path}  {request['method']} {request['uri']}  {status}  {_format_prompt(request)}"
            lines.append(f"{line.rstrip()}\n")
    return console.write_text("".join(lines))


def write_page(places: Sequence[str], output: str) -> int:
    """Write an HTML page of the cassettes.

    Args:
        places: cassettes, or folders of them.
        output: the file of the page, or "-" for standard output.

    Raises:
        SaveError: the file cannot be written.
    """
    from imgkit.cassettes.page import render_page

    data = render_page(_find_cassettes(places)).encode("utf-8", "backslashreplace")
    if output == "-":
        return console.write_bytes(data)
    try:
        write_atomically(Path(output), data, mode=0o644)
    except OSError as error:
        raise SaveError(f"Cannot write {output!r} ({error.strerror}). Pass another --output.") from None
    return console.write_paths([output])


def shrink_cassettes(places: Sequence[str]) -> int:
    """Shrink the images in replies, and print the bytes before and after."""
    from imgkit.cassettes.shrinking import shrink_cassette

    for path in _find_cassettes(places):
        before, after = shrink_cassette(path)
        console.print_message(f"imgkit: {path}: {before} bytes of images in replies, now {after}.")
    return exit_codes.OK


def _find_cassettes(places: Sequence[str]) -> Iterator[Path]:
    for place in places:
        yield from list_cassettes(Path(place))


def _find_refused_files(places: Sequence[str]) -> Iterator[Path]:
    """Yield the files that a recorder refused as cassettes: they hold a key, and must not be shared."""
    for place in places:
        yield from sorted(Path(place).rglob(f"*.y*ml{REFUSED_PATTERN}"))


def _find_problems(path: Path) -> Iterator[str]:
    """Yield the problems of a cassette; no secret is quoted."""
    try:
        text = read_regular_file(path, MAX_CASSETTE_BYTES)
    except OSError as error:
        yield f"It cannot be read: {error.strerror}."
        return
    python_tag = _PYTHON_TAG.search(text)
    if python_tag is not None:
        yield f"It holds a Python object ({python_tag.group().decode()}). Record it again with bytes."
        return
    try:
        entries = load_interactions(path)
    except ConfigurationError as error:
        yield str(error)
        return
    key = find_key(text)
    if key is not None:
        yield f"Some text looks like a key ({key})."
    files = SideFiles(path)
    for interaction in entries:
        yield from _find_private_headers("request", interaction["request"])
        yield from _find_private_headers("reply", interaction["response"])
        for body, media_type in _list_bodies(interaction):
            try:
                full_body = files.restore_images(body, media_type)
            except ConfigurationError as error:
                yield str(error)
                continue
            for part in _list_texts(full_body, media_type):
                key_in_part = find_key(part)
                if key_in_part is not None and key_in_part != key:
                    yield f"Some text in a body looks like a key ({key_in_part})."
    for unnamed in files.list_unreferenced_files(text):
        yield f"{str(unnamed)!r} belongs to no recorded request. Remove it."


def _find_private_headers(side: str, message: dict[str, Any]) -> Iterator[str]:
    for name, value in (message.get("headers") or {}).items():
        if is_private(str(name)) and value not in (REQUEST_ID, [REQUEST_ID]):
            yield f"A {side} has the header {name!r}."


def _list_texts(body: bytes, media_type: str) -> Iterator[bytes]:
    """Yield the readable parts of a body: its text and SVG images, but no pixels."""
    texts: list[bytes] = []

    def collect_text(data: bytes) -> bytes | None:
        kind = sniff(data[:1024])
        if kind is None or kind.format == "svg":
            texts.append(data)
        return None if kind is None else b""

    yield replace_images(body, media_type, collect_text, collect_text)
    yield from texts


def _list_bodies(interaction: dict[str, Any]) -> Iterator[tuple[bytes, str]]:
    request, response = interaction["request"], interaction["response"]
    yield to_bytes(request.get("body")), get_content_type(request)
    yield to_bytes((response.get("body") or {}).get("string")), get_content_type(response)


def _format_prompt(request: dict[str, Any]) -> str:
    """Return the first characters of a request's prompt in quotes, "" if it has none."""
    body = to_bytes(request.get("body"))
    try:
        prompt = json.loads(body).get("prompt")
    except (ValueError, AttributeError, RecursionError):
        field = re.search(rb'name="prompt"\r\n\r\n(.*?)\r\n--', body, re.DOTALL)
        prompt = field.group(1).decode("utf-8", "replace") if field else None
    return repr(str(prompt)[:_MAX_PROMPT_CHARACTERS]) if prompt else ""
