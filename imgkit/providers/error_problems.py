"""The single problems that an error reply lists, with the names of the fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from imgkit.providers.nested_errors import MAX_ITEMS

TEXT_LIMIT = 2000
"""Longest part of a message in characters, before it is quoted."""

TEXT_MEMBERS = (
    *("title", "message", "msg", "detail", "error_description", "error_message", "description", "reason"),
    "raw",
)
ENTRY_MEMBERS = (
    *("detail", "details", "errors", "invalid-params", "invalid_params", "invalid_fields", "validation"),
    *("validation_errors", "fieldViolations", "violations", "issues"),
)
"""Members that list the single problems of a request."""

DICT_MEMBERS = frozenset(["errors", "invalid_fields", "validation", "validation_errors"])
"""Those that may hold an object, whose keys are the fields."""

NO_FIELDS = frozenset(["code", "error", *TEXT_MEMBERS])
"""Members of an error object; an object with any of them lists no fields."""

PATH_MEMBERS = ("loc", "location", "path", "field", "param", "parameter", "name", "property", "pointer")
PLACES = frozenset(["attributes", "body", "data", "form", "header", "json", "path", "query", "request"])
"""Steps of a path in front of the name of a field."""

_NAMED = re.compile(r"([a-z][a-z0-9_]{0,40}(?:\.[a-z0-9_]{1,40})*): (.+)", re.DOTALL)
"""A text that names the field of its problem, such as "prompt: cannot be blank"."""


class Problem(NamedTuple):
    """A single problem of a request, as some servers list them.

    Attributes:
        path: the field, "" if the reply names none.
        text: the problem.
        code, type: None if the reply names none.
    """

    path: str
    text: str
    code: str | None = None
    type: str | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path and self.text else self.path or self.text


def list_problems(item: Mapping[str, Any]) -> list[Problem]:
    """Return the first problems that an error object lists, with the fields that they are about.

    Example:
        >>> reply = {"title": "Invalid", "invalid-params": [{"name": "n", "reason": "must be 1"}]}
        >>> [str(problem) for problem in list_problems(reply)]
        ['n: must be 1']
    """
    problems: list[Problem] = []
    for name in ENTRY_MEMBERS:
        entries = item.get(name)
        if isinstance(entries, dict) and name in DICT_MEMBERS and NO_FIELDS.isdisjoint(entries):
            problems += [
                Problem(to_text(key), to_text(text))
                for key, texts in entries.items()
                for text in (texts[:1] if isinstance(texts, list) else [texts])
                if isinstance(text, str)
            ]
        elif isinstance(entries, str) and name not in TEXT_MEMBERS:
            problems.append(Problem("", entries[:TEXT_LIMIT]))
        elif isinstance(entries, list):
            for entry in entries[:MAX_ITEMS]:
                inner = entry.get("fieldViolations") if isinstance(entry, dict) else None
                problems += map(read_problem, inner[:MAX_ITEMS] if isinstance(inner, list) else [entry])
    return [problem for problem in problems[:MAX_ITEMS] if problem.path or problem.text]


def read_problem(entry: Any) -> Problem:
    """Return an entry of a list of problems; a text is a problem without a field."""
    if not isinstance(entry, dict):
        text = to_text(entry)
        named = _NAMED.fullmatch(text) if isinstance(entry, str) else None
        return Problem(named[1], named[2]) if named else Problem("", text)
    source = entry.get("source")
    places = [entry, source] if isinstance(source, dict) else [entry]
    path = next((p for place in places for name in PATH_MEMBERS if (p := _format_path(place.get(name)))), "")
    text = next((entry[name] for name in (*TEXT_MEMBERS, "error") if isinstance(entry.get(name), str)), "")
    if not path and not text and len(entry) == 1:
        # Such as {"n": "must be 1"}.
        [(key, value)] = entry.items()
        return Problem(to_text(key), to_text(value)) if isinstance(value, str) else Problem("", "")
    return Problem(path, text[:TEXT_LIMIT], parse_code(entry.get("code")), parse_code(entry.get("type")))


def _format_path(value: Any) -> str:
    if isinstance(value, str):
        return value[:200].removeprefix("#").strip("/").replace("/", ".")
    if not isinstance(value, list):
        return ""
    return ".".join(to_text(step) for step in value[:20] if isinstance(step, str | int))[:200]


def name_field(path: str) -> str:
    """Return the field that a path leads to, without the place of the body and the number of an entry.

    Example:
        >>> name_field("body.prompt"), name_field("data.attributes.image.0")
        ('prompt', 'image')
    """
    steps = [step for step in re.split(r"[.\[\]]+", path.removeprefix("$")) if step]
    if steps == ["body"]:
        return ""
    while len(steps) > 1 and steps[0] in PLACES:
        del steps[0]
    while len(steps) > 1 and steps[-1].isdigit():
        del steps[-1]
    return ".".join(steps)


def to_text(value: Any) -> str:
    """Return a value as text of at most `TEXT_LIMIT` characters."""
    try:
        return str(value)[:TEXT_LIMIT]
    except RecursionError:  # the JSON parser goes deeper than str()
        return ""


def parse_code(value: Any) -> str | None:
    """Return a code as text; None for a missing value, an object, or a mere HTTP status."""
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return None
    text = str(value)[:120]
    return None if re.fullmatch(r"[1-5]\d\d", text) else text
