"""Answers from cassettes: what was recorded once, without a network and without vcrpy."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from imgkit.backends.offline.server import ServerReply
from imgkit.cassettes.reader import Recorded, read
from imgkit.cassettes.scrubbing import scrub_url
from imgkit.errors import FixtureMissingError
from imgkit.redact import scrub

_FRAMING = frozenset({"content-encoding", "content-length", "transfer-encoding", "connection"})
_NAME = re.compile(rb'name="([^"]*)"')

Meaning = tuple[str, str, Mapping[str, str]]
"""Method, where to, and members or fields as text."""


class Replay:
    """Recorded answers. Each is given once; equal requests get theirs in the order of their recording.

    Args:
        fixtures: a cassette, or a folder of them.

    Raises:
        ConfigurationError: they cannot be read.
    """

    def __init__(self, fixtures: Path) -> None:
        self._recorded = [
            (_meaning(one.method, one.url, one.content_type, one.body), one) for one in read(fixtures)
        ]
        self._given: set[int] = set()
        self._lock = threading.Lock()

    def answer(self, method: str, url: str, content_type: str, body: bytes) -> ServerReply | None:
        """Return the recorded answer to a request, None if there is none left."""
        wanted = _meaning(method, url, content_type, body)
        with self._lock:
            for number, (meaning, one) in enumerate(self._recorded):
                if meaning == wanted and number not in self._given:
                    self._given.add(number)
                    # The body is on the cassette as text: how it was packed on the wire is over.
                    headers = {name: value for name, value in one.headers.items() if name not in _FRAMING}
                    return ServerReply(one.status, headers, one.reply)
        return None

    def missing(self, method: str, url: str, content_type: str, body: bytes) -> FixtureMissingError:
        """Return the error that names the nearest recorded request, and what is different."""
        wanted = _meaning(method, url, content_type, body)
        shown = f"{method} {wanted[1]}"
        same = [(meaning, one) for meaning, one in self._recorded if meaning == wanted]
        if same:
            return FixtureMissingError(
                f"{shown} was recorded {len(same)} times, and has been answered as often: record it again",
                nearest=_told(same[-1][1]),
            )
        near = [(meaning, one) for meaning, one in self._recorded if meaning[:2] == wanted[:2]]
        if not near:
            paths = sorted({f"{meaning[0]} {meaning[1]}" for meaning, _ in self._recorded})
            there = f"there are {', '.join(paths)[:300]}" if paths else "there are none"
            return FixtureMissingError(f"no fixture is for {shown}; {there}: record one", nearest=None)
        meaning, one = min(near, key=lambda pair: len(_differences(pair[0][2], wanted[2])))
        return FixtureMissingError(
            f"no fixture answers this {shown}; the nearest, in {str(one.path)!r}, differs in "
            f"{'; '.join(_differences(meaning[2], wanted[2]))}. Record it, or give strict=False",
            nearest=_told(one),
        )


def _told(one: Recorded) -> str:
    return f"{one.method} {one.url} in {one.path}"


def _differences(recorded: Mapping[str, str], asked: Mapping[str, str]) -> list[str]:
    return [
        f"{name}: {_shown(recorded.get(name))} was recorded, {_shown(asked.get(name))} is asked for"
        for name in sorted({*recorded, *asked})
        if recorded.get(name) != asked.get(name)
    ]


def _shown(value: str | None) -> str:
    return "nothing" if value is None else scrub(value, limit=80)


def _meaning(method: str, url: str, content_type: str, body: bytes) -> Meaning:
    """Return what a request asks for, whatever host it goes to and however its body is written."""
    if method == "GET":
        return method, scrub_url(url, all_parameters=True), {}
    where = "/".join(urlsplit(url).path.rstrip("/").split("/")[-2:])
    boundary = re.search(r'boundary="?([^";,]+)', content_type)
    if boundary:
        return method, where, _fields(body, b"--" + boundary.group(1).encode())
    try:
        members: Any = json.loads(body)
    except ValueError:
        members = None
    if not isinstance(members, dict):
        return method, where, {"body": hashlib.sha256(body).hexdigest()}
    return method, where, {name: json.dumps(value, sort_keys=True) for name, value in members.items()}


def _fields(body: bytes, delimiter: bytes) -> dict[str, str]:
    """Return the fields of a form as text, files as their digests; names of files are nobody's business."""
    fields: dict[str, str] = {}
    for part in body.split(delimiter)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        found = _NAME.search(head)
        name = found.group(1).decode("utf-8", "replace") if found else ""
        content = content.removesuffix(b"\r\n")
        file = b"filename=" in head
        text = f"file {hashlib.sha256(content).hexdigest()}" if file else content.decode("utf-8", "replace")
        number = 1
        while (key := name if number == 1 else f"{name} ({number})") in fields:
            number += 1
        fields[key] = text
    return fields
