"""What a request asks for, however it is written; and which recorded one is nearest to it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from imgkit.cassettes.parts import boundary_of
from imgkit.cassettes.scrubbing import scrub_body, scrub_url
from imgkit.redact import scrub

_NAME = re.compile(rb'name="([^"]*)"')
_MOST_SHOWN = 6


@dataclass(frozen=True, slots=True)
class RequestSummary:
    """What a request asks for.

    Attributes:
        method: "GET" or "POST".
        where: the end of the path of a POST, all of the URL of a GET.
        fields: members of an object, or fields of a form, as text; files as their digests.
    """

    method: str
    where: str
    fields: Mapping[str, str]


def meaning_of(method: str, url: str, content_type: str, body: bytes) -> RequestSummary:
    """Return what a request asks for, whatever host it goes to and however its body is written.

    Args:
        method, url, content_type, body: of the request; scrubbed or not.
    """
    if method == "GET":
        return RequestSummary(method, scrub_url(url, all_parameters=True), {})
    where = "/".join(urlsplit(url).path.rstrip("/").split("/")[-2:])
    return RequestSummary(method, where, fields_of(content_type, body))


def fields_of(content_type: str, body: bytes) -> dict[str, str]:
    """Return what a body says: members or fields as text, or its digest."""
    body = scrub_body(body, content_type)
    boundary = boundary_of(content_type)
    if boundary is not None:
        return _form(body, b"--" + boundary)
    if not body:
        return {}
    try:
        members: Any = json.loads(body)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        return {"body": hashlib.sha256(body).hexdigest()}
    return {name: json.dumps(value, sort_keys=True, ensure_ascii=False) for name, value in members.items()}


def differences(recorded: Mapping[str, str], asked: Mapping[str, str]) -> list[str]:
    """Return in words what is different, field by field."""
    told = [
        f"{name}: {_shown(recorded.get(name))} was recorded, {_shown(asked.get(name))} is asked for"
        for name in sorted({*recorded, *asked})
        if recorded.get(name) != asked.get(name)
    ]
    more = len(told) - _MOST_SHOWN
    return told if more <= 0 else [*told[:_MOST_SHOWN], f"and {more} more"]


def nearest(wanted: RequestSummary, recorded: Iterable[RequestSummary]) -> int | None:
    """Return the place of what is most like a request, None if nothing is for the same place."""
    best: tuple[int, int] | None = None
    for number, one in enumerate(recorded):
        if (one.method, one.where) == (wanted.method, wanted.where):
            names = {*one.fields, *wanted.fields}
            far = sum(one.fields.get(name) != wanted.fields.get(name) for name in names)
            best = min(best or (far, number), (far, number))
    return None if best is None else best[1]


def missing(wanted: RequestSummary, recorded: list[tuple[RequestSummary, str]]) -> str:
    """Return a sentence that says why nothing answers a request, without its end.

    Args:
        wanted: the request.
        recorded: what is there, each with the name of its cassette.
    """
    shown = f"{wanted.method} {wanted.where}"
    same = sum(meaning == wanted for meaning, _ in recorded)
    if same:
        times = "once" if same == 1 else f"{same} times"
        return f"{shown} was recorded {times}, and has been answered as often"
    number = nearest(wanted, (meaning for meaning, _ in recorded))
    if number is None:
        places = sorted({f"{meaning.method} {meaning.where}" for meaning, _ in recorded})
        there = f"there are {', '.join(places)[:300]}" if places else "there are none"
        return f"no fixture is for {shown}; {there}"
    meaning, path = recorded[number]
    return (
        f"no fixture answers this {shown}; the nearest, in {path!r}, differs in "
        f"{'; '.join(differences(meaning.fields, wanted.fields))}"
    )


def _shown(value: str | None) -> str:
    return "nothing" if value is None else scrub(value, limit=80)


def _form(body: bytes, delimiter: bytes) -> dict[str, str]:
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
