"""Cassettes written: whole or not at all, without secrets, and never at the price of what was paid for."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, NoReturn

from imgkit.cassettes import scrubbing
from imgkit.cassettes.keys import key_like
from imgkit.cassettes.side_files import SideFiles
from imgkit.errors import ConfigurationError, SaveError
from imgkit.files import write_atomically

_ALREADY_READ = frozenset({"content-encoding", "transfer-encoding"})
_PHRASES = {one.value: one.phrase for one in HTTPStatus}


def entry(
    files: SideFiles,
    *,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    status: int,
    reply_headers: Mapping[str, str],
    reply: bytes,
) -> dict[str, Any]:
    """Return a request and its answer as they stand on a cassette: scrubbed, their pictures put away.

    Args:
        files: of the cassette.
        method, url, headers, body: of the request; headers by lower-case name.
        status, reply_headers, reply: of the answer; its body without the encoding it may have had.
    """
    kind = headers.get("content-type", "")
    kept = {name: value for name, value in reply_headers.items() if name not in _ALREADY_READ}
    kept, reply = scrubbing.scrub_reply(kept, reply)
    if "content-length" in kept:
        kept["content-length"] = str(len(reply))
    sent = scrubbing.scrub_body(body, kind)
    reply_kind = kept.get("content-type", "")
    return {
        "request": {
            "body": text_of(files.put_away(sent, kind)) if body else None,
            "headers": {name: [value] for name, value in scrubbing.scrub_request_headers(headers).items()},
            "method": method,
            "uri": scrubbing.scrub_url(url, all_parameters=method == "GET"),
        },
        "response": {
            "body": {"string": text_of(files.put_away(reply, reply_kind))},
            "headers": {name: [value] for name, value in kept.items()},
            "status": {"code": status, "message": _PHRASES.get(status, "")},
        },
    }


def text_of(body: bytes) -> str | bytes:
    """Return a body as text where it is some, which is easier to read in a cassette."""
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return body


def dump(entries: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the text of a cassette, as vcrpy writes it."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump({"interactions": list(entries), "version": 1}, Dumper=dumper)
    return text.encode("utf-8")


def commit(path: Path, text: bytes, files: SideFiles) -> None:
    """Write a cassette, its pictures first; a comment at the head of the old one stays.

    Whoever is killed in the midst of it leaves the old cassette or the new one, and perhaps some pictures
    too many.

    Args:
        path: of the cassette.
        text: what `dump` has made, or vcrpy.
        files: of the cassette.

    Raises:
        ConfigurationError: something looks like a key; the text is put aside.
        SaveError: it cannot be written; all is put aside in another folder, if there is one.
    """
    found = files.suspect or key_like(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.save()
        if found is None:
            write_atomically(path, _comment(path) + text, mode=0o644)
            files.drop_unused(text)
            return
        aside = _free(path)
        write_atomically(aside, text)
    except OSError as error:
        _elsewhere(path, text, files, error)
    raise ConfigurationError(
        f"{str(path)!r} is not written: something in it looks like a key ({found}). It is kept in "
        f"{str(aside)!r}, for you alone: take the key out, and give it its name"
    )


def _comment(path: Path) -> bytes:
    """Return the lines that tell where a cassette is from."""
    kept = []
    if path.is_file():
        with path.open("rb") as stream:
            for line in stream:
                if not line.startswith(b"#"):
                    break
                kept.append(line)
    return b"".join(kept)


def _free(path: Path) -> Path:
    """Return a name that is not taken: what was refused before was paid for too."""
    number, aside = 1, path.with_name(f"{path.name}.refused")
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.refused-{number}")
    return aside


def _elsewhere(path: Path, text: bytes, files: SideFiles, error: OSError) -> NoReturn:
    why = f"the cassette {str(path)!r} cannot be written ({error.strerror or error})"
    try:
        folder = Path(tempfile.mkdtemp(prefix="imgkit-cassette-"))
        files.save(folder / files.folder.name)
        write_atomically(folder / path.name, text)
    except OSError:
        raise SaveError(f"{why}, nor a temporary folder: make room, and record again") from error
    raise SaveError(f"{why}: what was to be written is in {str(folder)!r}; move it to its place") from error
