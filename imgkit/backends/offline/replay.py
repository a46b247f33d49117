"""Answers from cassettes: what was recorded once, without a network and without vcrpy."""

from __future__ import annotations

import threading
from pathlib import Path

from imgkit.backends.offline.server import ServerReply
from imgkit.cassettes.meaning import meaning_of, missing, nearest
from imgkit.cassettes.reader import read
from imgkit.errors import FixtureMissingError

_FRAMING = frozenset({"content-encoding", "content-length", "transfer-encoding", "connection"})


class Replay:
    """Recorded answers. Each is given once; equal requests get theirs in the order of their recording.

    Args:
        fixtures: a cassette, or a folder of them.

    Raises:
        ConfigurationError: they cannot be read.
    """

    def __init__(self, fixtures: Path) -> None:
        self._recorded = [
            (meaning_of(one.method, one.url, one.content_type, one.body), one) for one in read(fixtures)
        ]
        self._given: set[int] = set()
        self._lock = threading.Lock()

    def answer(self, method: str, url: str, content_type: str, body: bytes) -> ServerReply | None:
        """Return the recorded answer to a request, None if there is none left."""
        wanted = meaning_of(method, url, content_type, body)
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
        wanted = meaning_of(method, url, content_type, body)
        told = missing(wanted, [(meaning, str(one.path)) for meaning, one in self._recorded])
        place = nearest(wanted, (meaning for meaning, _ in self._recorded))
        one = None if place is None else self._recorded[place][1]
        return FixtureMissingError(
            f"{told}. Record it, or give strict=False",
            nearest=None if one is None else f"{one.method} {one.url} in {one.path}",
        )
