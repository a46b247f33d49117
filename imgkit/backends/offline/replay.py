"""Fixtures: recorded responses from cassettes, without a network and without vcrpy."""

from __future__ import annotations

import threading
from pathlib import Path

from imgkit.backends.offline.server import ServerResponse
from imgkit.cassettes.matching import explain_miss, find_nearest, summarize_request
from imgkit.cassettes.reader import read_exchanges
from imgkit.errors import FixtureMissingError

_FRAMING_HEADERS = frozenset({"content-encoding", "content-length", "transfer-encoding", "connection"})


class Replay:
    """The recordings of cassettes. Each is replayed once; equal requests get theirs in order.

    Args:
        fixtures: a cassette, or a folder of cassettes.

    Raises:
        ConfigurationError: a cassette cannot be read.

    Example:
        ::

            from imgkit import ImageService

            with ImageService(backend="offline", fixtures="otter.yaml") as images:
                otter = images.create_image("A cute baby sea otter")
    """

    def __init__(self, fixtures: Path) -> None:
        self._recordings = [
            (summarize_request(entry.method, entry.url, entry.content_type, entry.body), entry)
            for entry in read_exchanges(fixtures)
        ]
        self._replayed: set[int] = set()
        self._lock = threading.Lock()

    def find_response(self, method: str, url: str, content_type: str, body: bytes) -> ServerResponse | None:
        """Return the recorded response to a request and mark it as replayed; None if none is left.

        Args:
            method: "GET" or "POST".
            url: absolute URL.
            content_type: value of the header, or "".
            body: the complete body.
        """
        wanted = summarize_request(method, url, content_type, body)
        with self._lock:
            for index, (summary, entry) in enumerate(self._recordings):
                if summary == wanted and index not in self._replayed:
                    self._replayed.add(index)
                    # The cassette stores the decoded body, so headers about its framing are wrong.
                    headers = {
                        name: value for name, value in entry.headers.items() if name not in _FRAMING_HEADERS
                    }
                    return ServerResponse(entry.status, headers, entry.reply)
        return None

    def build_missing_error(
        self, method: str, url: str, content_type: str, body: bytes
    ) -> FixtureMissingError:
        """Return the error for a request without a recording; it names the nearest recorded request.

        Args:
            method, url, content_type, body: as for `find_response`.
        """
        wanted = summarize_request(method, url, content_type, body)
        problem = explain_miss(wanted, [(summary, str(entry.path)) for summary, entry in self._recordings])
        index = find_nearest(wanted, (summary for summary, _ in self._recordings))
        entry = None if index is None else self._recordings[index][1]
        return FixtureMissingError(
            f"{problem}.",
            hint="Record it or pass strict=False.",
            nearest=None if entry is None else f"{entry.method} {entry.url} in {entry.path}",
        )
