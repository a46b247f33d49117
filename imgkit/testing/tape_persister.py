"""Save a cassette while other processes may write to the same file: no recording is lost."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from imgkit.cassettes.side_files import SideFiles
from imgkit.cassettes.writer import lock_cassette, save_copy, write_cassette
from imgkit.errors import ConfigurationError, SaveError
from imgkit.testing.vcr_cassettes import Persister, dump_interactions, extract_request, extract_response

LOCK_WAIT_S = 30.0
"""Longest wait for another process that writes the same cassette, in seconds."""

_Stamp = tuple[int, int, int]


class TapePersister:
    """A vcrpy persister for one cassette. It keeps an error until the end of the context.

    Recordings that another process has added to the file since this persister read it stay in the file.

    Attributes:
        problem: The error of the latest save, None if it went well; it names the copy of the recordings.
    """

    def __init__(self) -> None:
        self.problem: Exception | None = None
        self._stamp: _Stamp | None = None
        self._known: Counter[bytes] = Counter()
        self._added: list[tuple[Any, Mapping[str, Any]]] = []
        self._files: SideFiles | None = None
        self._entries: dict[int, _Entry] = {}

    def load_cassette(self, cassette_path: str | Path, serializer: Any) -> Any:
        """Return the requests and replies of a cassette; see `Persister.load_cassette`."""
        self._stamp = _read_stamp(Path(cassette_path))
        loaded = Persister.load_cassette(cassette_path, serializer)
        self._known = Counter(map(_digest, loaded[0], loaded[1]))
        return loaded

    def save_cassette(
        self, cassette_path: str | Path, cassette_dict: dict[str, Any], serializer: Any
    ) -> None:
        """Write a cassette together with the recordings that other processes have added."""
        path = Path(cassette_path)
        self.problem = None
        try:
            with ExitStack() as stack:
                problem = self._lock_and_read(path, serializer, stack)
                entries = self._list_entries(path, cassette_dict)
                text = dump_interactions(
                    {
                        **cassette_dict,
                        "requests": [entry.stored_request for entry in entries],
                        "responses": [entry.stored_response for entry in entries],
                    },
                    serializer,
                )
                if problem is not None:
                    # Writing to the file might delete the recordings of another process.
                    raise save_copy(path, text, self._open_files(path), str(problem)) from problem
                write_cassette(path, text, self._open_files(path))
                self._stamp = _read_stamp(path)
                self._known = Counter(entry.digest for entry in entries)
        except Exception as error:
            self.problem = error

    def _lock_and_read(self, path: Path, serializer: Any, stack: ExitStack) -> Exception | None:
        """Lock the cassette and read the recordings of other processes; return the problem, if any."""
        try:
            stack.enter_context(lock_cassette(path, LOCK_WAIT_S))
            stamp = _read_stamp(path)
            if stamp in (self._stamp, None):
                return None
            requests, responses, *_ = Persister.load_cassette(path, serializer)
        except (ConfigurationError, SaveError, OSError) as error:
            return error
        known, digests = self._known, list(map(_digest, requests, responses))
        self._known, self._stamp = Counter(digests), stamp
        for request, response, digest in zip(requests, responses, digests, strict=True):
            if known[digest]:
                known[digest] -= 1
            else:
                self._added.append((request, response))
        return None

    def _list_entries(self, path: Path, cassette_dict: Mapping[str, Any]) -> list[_Entry]:
        """Return all recordings in the form in which they are written. Each is converted once."""
        files, earlier = self._open_files(path), self._entries
        own = zip(cassette_dict["requests"], cassette_dict["responses"], strict=True)
        entries = []
        for request, response in (*own, *self._added):
            entry = earlier.get(id(response))
            if entry is None or entry.response is not response:
                entry = _Entry(
                    response,
                    extract_request(request, files),
                    extract_response(response, files),
                    _digest(request, response),
                )
            entries.append(entry)
        self._entries = {id(entry.response): entry for entry in entries}
        return entries

    def _open_files(self, path: Path) -> SideFiles:
        if self._files is None:
            self._files = SideFiles(path)
        return self._files


class _Entry(NamedTuple):
    """A recording in the form in which it is written.

    Attributes:
        response: The reply that it was made from; keeps its id from being used again.
        stored_request, stored_response: The recording without images.
        digest: See `_digest`.
    """

    response: Mapping[str, Any]
    stored_request: Any
    stored_response: dict[str, Any]
    digest: bytes


def _read_stamp(path: Path) -> _Stamp | None:
    """Return values that change whenever the file is written; return None if there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _digest(request: Any, response: Mapping[str, Any]) -> bytes:
    """Return a digest of a recording, equal before it is written and after it is read."""
    digest = hashlib.sha256()
    reply = (response.get("body") or {}).get("string")
    status = str((response.get("status") or {}).get("code"))
    for part in (request.method, request.uri, request.body, status, reply):
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part or b""
        digest.update(b"%d:" % len(data) + data)
    return digest.digest()
