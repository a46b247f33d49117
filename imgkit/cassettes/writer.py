"""Write cassettes atomically and without secrets, and never lose a recording that cost money."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from imgkit.cassettes import scrubbing
from imgkit.cassettes.api_keys import find_key
from imgkit.cassettes.side_files import SideFiles
from imgkit.errors import ConfigurationError, SaveError
from imgkit.files import write_atomically
from imgkit.locks import FileLock

_DECODED_HEADERS = frozenset({"content-encoding", "transfer-encoding"})
_LOCK_POLL_S = 0.01
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


@contextmanager
def lock_cassette(path: Path, max_wait_s: float) -> Iterator[None]:
    """Lock a cassette against other processes; a file system without locks is no error.

    Read the cassette only after locking it: another process may have added recordings.

    Args:
        path: Path of the cassette.
        max_wait_s: Maximum wait for the other process, in seconds.

    Raises:
        SaveError: Another process holds the lock for longer.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquire_lock(path.with_name(f".{path.name}.lock"), max_wait_s)
    except OSError:
        # The write that follows reports the same problem with a remedy.
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _acquire_lock(path: Path, max_wait_s: float) -> FileLock:
    deadline = time.monotonic() + max_wait_s
    while (lock := FileLock.try_acquire(path)) is None:
        if time.monotonic() > deadline:
            raise SaveError(
                f"Another process holds the lock {str(path)!r}. Wait until it ends, then record again."
            )
        time.sleep(_LOCK_POLL_S)
    return lock


def build_interaction(
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
    """Return a request and its reply as a cassette entry: scrubbed, with images as side files.

    Args:
        files: Image files of the cassette.
        method, url, headers, body: The request; headers by lower-case name.
        status, reply_headers, reply: The reply; its body without content encoding.
    """
    request_type = headers.get("content-type", "")
    recorded_headers = {name: value for name, value in reply_headers.items() if name not in _DECODED_HEADERS}
    recorded_headers, reply = scrubbing.scrub_reply(recorded_headers, reply)
    if "content-length" in recorded_headers:
        recorded_headers["content-length"] = str(len(reply))
    request_body = scrubbing.scrub_body(scrubbing.hide_secret_members(body, request_type), request_type)
    reply_type = recorded_headers.get("content-type", "")
    return {
        "request": {
            "body": to_text(files.extract_images(request_body, request_type)) if body else None,
            "headers": {name: [value] for name, value in scrubbing.scrub_request_headers(headers).items()},
            "method": method,
            "uri": scrubbing.scrub_url(url, all_parameters=method == "GET"),
        },
        "response": {
            "body": {"string": to_text(files.extract_images(reply, reply_type))},
            "headers": {name: [value] for name, value in recorded_headers.items()},
            "status": {"code": status, "message": _PHRASES.get(status, "")},
        },
    }


def to_text(body: bytes) -> str | bytes:
    r"""Return a body as text if it is UTF-8; text is easier to read in a cassette.

    >>> to_text(b"a fox"), to_text(b"\xff")
    ('a fox', b'\xff')
    """
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return body


def dump_cassette(entries: Sequence[Mapping[str, Any]]) -> bytes:
    r"""Return the YAML text of a cassette in vcrpy's format.

    >>> dump_cassette([])
    b'interactions: []\nversion: 1\n'
    """
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump({"interactions": list(entries), "version": 1}, Dumper=dumper)
    return text.encode("utf-8")


def write_cassette(path: Path, text: bytes, files: SideFiles) -> None:
    """Write the images and then the cassette; keep the comment at the head of the old cassette.

    A process that dies midway leaves the old cassette or the new cassette, and perhaps unused images.

    Args:
        path: Path of the cassette.
        text: YAML text from `dump_cassette` or vcrpy.
        files: Image files of the cassette.

    Raises:
        ConfigurationError: The text may hold a key; the error names the refused copy.
        SaveError: The cassette cannot be written; the error names the copy in a temporary folder, if any.
    """
    suspected_key = files.suspected_key or find_key(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.save()
        if suspected_key is None:
            write_atomically(path, _read_comment(path) + text, mode=0o644)
            files.delete_unreferenced_files(text)
            return
        refused_path = _find_free_name(path)
        write_atomically(refused_path, text)
    except OSError as error:
        problem = f"The cassette {str(path)!r} cannot be written ({error.strerror or error})."
        raise save_copy(path, text, files, problem) from error
    raise ConfigurationError(
        f"The cassette {str(path)!r} was not written. Something in it looks like a key ({suspected_key}). "
        f"A private copy is in {str(refused_path)!r}. Remove the key and rename the copy."
    )


def _read_comment(path: Path) -> bytes:
    """Return the comment lines at the head of a cassette, which state its origin."""
    comment = []
    if path.is_file():
        with path.open("rb") as stream:
            for line in stream:
                if not line.startswith(b"#"):
                    break
                comment.append(line)
    return b"".join(comment)


def _find_free_name(path: Path) -> Path:
    """Return an unused name for a refused cassette; earlier refused recordings cost money too."""
    number, refused_path = 1, path.with_name(f"{path.name}.refused")
    while refused_path.exists():
        number += 1
        refused_path = path.with_name(f"{path.name}.refused-{number}")
    return refused_path


def save_copy(path: Path, text: bytes, files: SideFiles, problem: str) -> SaveError:
    """Write a cassette to a temporary folder; return the error that names the problem and the copy.

    Args:
        path, text, files: As for `write_cassette`.
        problem: The reason why the cassette cannot be written to its place, a sentence.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="imgkit-cassette-"))
        files.save(folder / files.folder.name)
        write_atomically(folder / path.name, text)
    except OSError:
        return SaveError(
            f"{problem} A temporary folder cannot be written either. Free disk space and record again."
        )
    return SaveError(f"{problem} A copy is in {str(folder)!r}. Move it into place.")
