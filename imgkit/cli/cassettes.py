"""`imgkit cassette`: recorded traffic, looked at before it is shared."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from imgkit.cassettes import scrubbing
from imgkit.cassettes.side_files import SideFiles
from imgkit.cli import exits, streams
from imgkit.errors import ConfigurationError

_PROMPT_CHARACTERS = 60
_PYTHON = re.compile(rb"!!python/[a-z/]+")


def check(paths: Sequence[str]) -> int:
    """Tell what should not be shared; return 1 if there is anything."""
    wrong = 0
    count = 0
    for path in _cassettes(paths):
        count += 1
        for problem in _problems(path):
            wrong += 1
            streams.tell(f"imgkit: {path}: {problem}")
    streams.tell(f"imgkit: {count} cassettes checked, {wrong or 'no'} problems")
    return exits.BUG if wrong else exits.OK


def ls(paths: Sequence[str]) -> int:
    """List the requests of cassettes and how they were answered."""
    lines = []
    for path in _cassettes(paths):
        for one in _interactions(path):
            request, status = one["request"], one["response"]["status"]["code"]
            lines.append(f"{path}  {request['method']} {request['uri']}  {status}  {_asked(request)}")
    return streams.send_text("".join(f"{line.rstrip()}\n" for line in lines))


def _cassettes(paths: Sequence[str]) -> Iterator[Path]:
    for name in paths:
        path = Path(name)
        if path.is_dir():
            yield from sorted(one for one in path.rglob("*.y*ml") if one.is_file())
        else:
            yield path


def _problems(path: Path) -> Iterator[str]:
    """Yield what is wrong with a cassette; no secret is quoted."""
    text = path.read_bytes()
    python = _PYTHON.search(text)
    if python is not None:
        yield f"holds a Python object ({python.group().decode()}): record it again with bytes"
        return
    try:
        interactions = _interactions(path)
    except ConfigurationError as error:
        yield str(error)
        return
    key = scrubbing.key_like(text)
    if key is not None:
        yield f"something looks like a key ({key})"
    files = SideFiles(path)
    for one in interactions:
        yield from _private("request", one["request"], scrubbing.PRIVATE_REQUEST_HEADERS)
        yield from _private("reply", one["response"], scrubbing.PRIVATE_REPLY_HEADERS)
        for body, headers in _bodies(one):
            try:
                whole = files.put_back(body, headers)
            except ConfigurationError as error:
                yield str(error)
                continue
            hidden = scrubbing.key_like(whole)
            if hidden is not None and hidden != key:
                yield f"something in a body looks like a key ({hidden})"


def _private(what: str, side: dict[str, Any], names: frozenset[str]) -> Iterator[str]:
    for name in side.get("headers") or {}:
        if name.lower() in names and name.lower() not in ("x-request-id",):
            yield f"a {what} has the header {name!r}"


def _bodies(one: dict[str, Any]) -> Iterator[tuple[bytes, str]]:
    for body, side in ((one["request"].get("body"), one["request"]),
                       ((one["response"].get("body") or {}).get("string"), one["response"])):  # fmt: skip
        headers = {name.lower(): value for name, value in (side.get("headers") or {}).items()}
        kind = headers.get("content-type", "")
        yield _bytes(body), str(kind[0] if isinstance(kind, list) and kind else kind)


def _interactions(path: Path) -> list[dict[str, Any]]:
    """Return what is on a cassette, read by a safe loader. Raises `ConfigurationError`."""
    try:
        import yaml
    except ImportError:
        raise ConfigurationError(
            "reading cassettes needs PyYAML: pip install 'imgkit-service[testing]'"
        ) from None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        found = yaml.load(path.read_bytes(), loader)  # noqa: S506 - a safe loader
        interactions = found["interactions"]
        for one in interactions:
            _ = one["request"]["method"], one["request"]["uri"], one["response"]["status"]["code"]
    except (yaml.YAMLError, KeyError, TypeError, UnicodeError) as error:
        raise ConfigurationError(f"is no cassette ({type(error).__name__})") from None
    return list(interactions)


def _asked(request: dict[str, Any]) -> str:
    """Return the beginning of what a request asks for."""
    body = _bytes(request.get("body"))
    try:
        prompt = json.loads(body).get("prompt")
    except (ValueError, AttributeError):
        found = re.search(rb'name="prompt"\r\n\r\n(.*?)\r\n--', body, re.DOTALL)
        prompt = found.group(1).decode("utf-8", "replace") if found else None
    return repr(str(prompt)[:_PROMPT_CHARACTERS]) if prompt else ""


def _bytes(body: object) -> bytes:
    if isinstance(body, str):
        return body.encode("utf-8", "surrogatepass")
    return body if isinstance(body, bytes) else b""
