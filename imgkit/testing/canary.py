"""A key that must be nowhere: looked for in whatever a call leaves behind."""

from __future__ import annotations

import base64
import logging
import pickle
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

KEY = "sk-test-CANARY-9f8e7d6c5b4a39281706"
"""A key of no account."""


def spellings(secret: str = KEY) -> tuple[str, ...]:
    """Return the forms in which a secret shows itself."""
    raw = secret.encode()
    return tuple(
        dict.fromkeys(
            (
                secret,
                quote(secret, safe=""),
                base64.b64encode(raw).decode().rstrip("="),
                base64.b64encode(b"Bearer " + raw).decode().rstrip("="),
                raw.hex(),
            )
        )
    )


def found_in(
    *things: object,
    records: Iterable[logging.LogRecord] = (),
    folders: Iterable[Path] = (),
    secret: str = KEY,
) -> list[str]:
    """Return the places where a secret shows.

    Args:
        things: objects: errors (with their notes, causes and tracebacks), replies, services, text, bytes.
        records: log records; their arguments and exceptions count too.
        folders: all files below them.
        secret: what is looked for, in several spellings.
    """
    wanted = spellings(secret)
    places: list[str] = []
    for where, text in _texts(things, records, folders):
        if any(one in text for one in wanted):
            places.append(where)
    return places


def _texts(
    things: Iterable[object], records: Iterable[logging.LogRecord], folders: Iterable[Path]
) -> Iterator[tuple[str, str]]:
    for thing in things:
        name = type(thing).__name__
        if isinstance(thing, bytes):
            yield name, thing.decode("latin-1")
            continue
        yield f"repr of {name}", repr(thing)
        yield f"str of {name}", str(thing)
        if isinstance(thing, BaseException):
            yield from _of_error(thing)
        yield f"pickle of {name}", _pickled(thing)
    for record in records:
        yield "a log record", f"{record.getMessage()} {record.args!r} {vars(record)!r}"
        if record.exc_info and record.exc_info[1] is not None:
            yield from _of_error(record.exc_info[1])
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield str(path.relative_to(folder)), path.read_bytes().decode("latin-1")


def _of_error(error: BaseException) -> Iterator[tuple[str, str]]:
    name = type(error).__name__
    yield f"traceback of {name}", "".join(traceback.format_exception(error))
    for one in _chain(error):
        for frame, _ in traceback.walk_tb(one.__traceback__):
            # Crash reporters show the variables of frames. Those of tests may well hold the key.
            module = str(frame.f_globals.get("__name__", ""))
            if not module.startswith("imgkit.testing") and "test" not in module.split(".")[-1]:
                yield f"variables of {frame.f_code.co_qualname} in {module}", repr(frame.f_locals)
    yield f"attributes of {name}", repr(vars(error))
    yield f"notes of {name}", repr(getattr(error, "__notes__", ()))
    yield f"arguments of {name}", repr(error.args)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came of."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _pickled(thing: object) -> str:
    try:
        return pickle.dumps(thing).decode("latin-1")
    except Exception:
        return ""  # what cannot be pickled leaks nothing that way
