"""`imgkit cassette`: recorded traffic, looked at before it is shared."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from imgkit.cassettes.api_keys import find_key
from imgkit.cassettes.bodies import replace_images
from imgkit.cassettes.reader import get_content_type, list_cassettes, load_interactions, to_bytes
from imgkit.cassettes.scrubbing import REQUEST_ID, is_private
from imgkit.cassettes.side_files import REFUSED_PATTERN, SideFiles
from imgkit.cli import console as streams
from imgkit.cli import exit_codes as exits
from imgkit.errors import ConfigurationError, SaveError
from imgkit.files import write_atomically
from imgkit.images.sniff import sniff

_PROMPT_CHARACTERS = 60
_PYTHON = re.compile(rb"!!python/[a-z/]+")


def check(places: Sequence[str]) -> int:
    """Tell what should not be shared; return 1 if there is anything."""
    wrong = 0
    count = 0
    for path in _cassettes(places):
        count += 1
        for problem in _problems(path):
            wrong += 1
            streams.tell(f"imgkit: {path}: {problem}")
    for path in _refused(places):
        wrong += 1
        streams.tell(f"imgkit: {path}: was refused, since it holds a key: take that out, or remove the file")
    streams.tell(f"imgkit: {count} cassettes checked, {wrong or 'no'} problems")
    return exits.BUG if wrong else exits.OK


def ls(places: Sequence[str]) -> int:
    """List the requests of cassettes and how they were answered."""
    lines = []
    for path in _cassettes(places):
        for one in load_interactions(path):
            request, status = one["request"], one["response"]["status"]["code"]
            lines.append(f"{path}  {request['method']} {request['uri']}  {status}  {_asked(request)}")
    return streams.send_text("".join(f"{line.rstrip()}\n" for line in lines))


def show(places: Sequence[str], output: str) -> int:
    """Write a page that shows the cassettes."""
    from imgkit.cassettes.page import render_page

    data = render_page(_cassettes(places)).encode("utf-8", "backslashreplace")
    if output == "-":
        return streams.send(data)
    try:
        write_atomically(Path(output), data, mode=0o644)
    except OSError as error:
        raise SaveError(f"{output!r} cannot be written ({error.strerror}): give another --output") from None
    return streams.send_paths([output])


def shrink(places: Sequence[str]) -> int:
    """Make the pictures of replies small, and tell what that has saved."""
    from imgkit.cassettes.shrinking import shrink_cassette as shrunk

    for path in _cassettes(places):
        before, after = shrunk(path)
        streams.tell(f"imgkit: {path}: {before} bytes of pictures in replies, now {after}")
    return exits.OK


def _cassettes(names: Sequence[str]) -> Iterator[Path]:
    for name in names:
        yield from list_cassettes(Path(name))


def _refused(names: Sequence[str]) -> Iterator[Path]:
    """Yield what was put aside in place of a cassette: it must not be shared either."""
    for name in names:
        yield from sorted(Path(name).rglob(f"*.y*ml{REFUSED_PATTERN}"))


def _problems(path: Path) -> Iterator[str]:
    """Yield what is wrong with a cassette; no secret is quoted."""
    text = path.read_bytes()
    python = _PYTHON.search(text)
    if python is not None:
        yield f"holds a Python object ({python.group().decode()}): record it again with bytes"
        return
    try:
        entries = load_interactions(path)
    except ConfigurationError as error:
        yield str(error)
        return
    key = find_key(text)
    if key is not None:
        yield f"something looks like a key ({key})"
    files = SideFiles(path)
    for one in entries:
        yield from _private("request", one["request"])
        yield from _private("reply", one["response"])
        for body, headers in _bodies(one):
            try:
                whole = files.restore_images(body, headers)
            except ConfigurationError as error:
                yield str(error)
                continue
            for inside in _texts(whole, headers):
                hidden = find_key(inside)
                if hidden is not None and hidden != key:
                    yield f"something in a body looks like a key ({hidden})"
    for left in files.list_unreferenced_files(text):
        yield f"{str(left)!r} belongs to nothing that was recorded: remove it"


def _private(what: str, side: dict[str, Any]) -> Iterator[str]:
    for name, value in (side.get("headers") or {}).items():
        if is_private(str(name)) and value not in (REQUEST_ID, [REQUEST_ID]):
            yield f"a {what} has the header {name!r}"


def _texts(body: bytes, content_type: str) -> Iterator[bytes]:
    """Yield what can be read of a body: not the bytes of pictures, but drawings, which are text."""
    inner: list[bytes] = []

    def note(data: bytes) -> bytes | None:
        kind = sniff(data[:1024])
        if kind is None or kind.format == "svg":
            inner.append(data)
        return None if kind is None else b""

    yield replace_images(body, content_type, note, note)
    yield from inner


def _bodies(one: dict[str, Any]) -> Iterator[tuple[bytes, str]]:
    request, response = one["request"], one["response"]
    yield to_bytes(request.get("body")), get_content_type(request)
    yield to_bytes((response.get("body") or {}).get("string")), get_content_type(response)


def _asked(request: dict[str, Any]) -> str:
    """Return the beginning of what a request asks for."""
    body = to_bytes(request.get("body"))
    try:
        prompt = json.loads(body).get("prompt")
    except (ValueError, AttributeError):
        found = re.search(rb'name="prompt"\r\n\r\n(.*?)\r\n--', body, re.DOTALL)
        prompt = found.group(1).decode("utf-8", "replace") if found else None
    return repr(str(prompt)[:_PROMPT_CHARACTERS]) if prompt else ""
