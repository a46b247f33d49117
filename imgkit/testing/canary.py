"""A recognizable fake API key, and a search for it in everything that a call leaves behind."""

from __future__ import annotations

import base64
import logging
import pickle
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

KEY = "sk-test-CANARY-9f8e7d6c5b4a39281706"
"""A fake API key that belongs to no account."""

PLAIN_KEY = "canary.9f8e7d6c5b4a39281706"
"""A fake API key without the shape of a key: only code that knows the key itself can hide it."""


def encode_variants(secret: str = KEY) -> tuple[str, ...]:
    """Return the secret in the encodings in which it could leak.

    >>> encode_variants("a key")[:2]
    ('a key', 'a%20key')
    """
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


def find_secret(
    *values: object,
    records: Iterable[logging.LogRecord] = (),
    folders: Iterable[Path] = (),
    secret: str = KEY,
) -> list[str]:
    """Return the places in which a secret occurs; an empty list means that nothing leaks.

    >>> find_secret("nothing secret"), find_secret(f"Bearer {KEY}")
    ([], ['repr of str', 'str of str', 'pickle of str'])

    Args:
        values: Objects to search: errors with notes, causes and tracebacks, replies, services, text, bytes.
        records: Log records to search, arguments and exceptions included.
        folders: Folders to search, all files below them included.
        secret: The secret, searched for in several encodings.
    """
    spellings = encode_variants(secret)
    places: list[str] = []
    for place, text in iterate_texts(*values, records=records, folders=folders):
        if any(spelling in text for spelling in spellings):
            places.append(place)
    return places


def iterate_texts(
    *values: object, records: Iterable[logging.LogRecord] = (), folders: Iterable[Path] = ()
) -> Iterator[tuple[str, str]]:
    """Yield each place that `find_secret` searches, and its text.

    >>> list(iterate_texts(b"bytes"))
    [('bytes', 'bytes')]

    Args:
        values, records, folders: As for `find_secret`.
    """
    for value in values:
        name = type(value).__name__
        if isinstance(value, bytes):
            yield name, value.decode("utf-8", "surrogateescape")
            continue
        yield f"repr of {name}", repr(value)
        yield f"str of {name}", str(value)
        if isinstance(value, BaseException):
            yield from _list_error_texts(value)
        yield f"pickle of {name}", _dump_pickle(value)
    for record in records:
        yield "a log record", f"{record.getMessage()} {record.args!r} {vars(record)!r}"
        if record.exc_info and record.exc_info[1] is not None:
            yield from _list_error_texts(record.exc_info[1])
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield str(path.relative_to(folder)), path.read_bytes().decode("utf-8", "surrogateescape")


def _list_error_texts(error: BaseException) -> Iterator[tuple[str, str]]:
    name = type(error).__name__
    yield f"traceback of {name}", "".join(traceback.format_exception(error))
    for cause in _walk_causes(error):
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            # Crash reporters display local variables. Frames of tests may hold the key.
            module = str(frame.f_globals.get("__name__", ""))
            if not module.startswith("imgkit.testing") and "test" not in module.split(".")[-1]:
                yield f"variables of {frame.f_code.co_qualname} in {module}", repr(frame.f_locals)
    yield f"attributes of {name}", repr(vars(error))
    yield f"notes of {name}", repr(getattr(error, "__notes__", ()))
    yield f"arguments of {name}", repr(error.args)


def _walk_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its chain of causes."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _dump_pickle(value: object) -> str:
    try:
        return pickle.dumps(value).decode("utf-8", "surrogateescape")
    except Exception:
        # An object that cannot be pickled leaks nothing through pickle.
        return ""
