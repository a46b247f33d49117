"""Replay: recorded responses from cassettes, without a network and without vcrpy."""

from __future__ import annotations

import threading
from pathlib import Path
from urllib.parse import urlsplit

from imgkit.backends.offline.server import ServerResponse
from imgkit.cassettes.matching import RequestSummary, explain_miss, find_nearest, summarize_request
from imgkit.cassettes.reader import read_exchanges
from imgkit.cassettes.scrubbing import scrub_url
from imgkit.errors import FixtureMissingError

_OFFLINE_HOST = "offline.imgkit.invalid"
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
        ending = _find_ending(method, url)
        with self._lock:
            for index, (summary, entry) in enumerate(self._recordings):
                if index not in self._replayed and _is_match(summary, wanted, ending):
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


def _find_ending(method: str, url: str) -> str:
    """Return the end that a URL of the offline API shares with the recorded URL, "" for another URL."""
    place = urlsplit(url)
    if place.hostname != _OFFLINE_HOST:
        return ""
    if method != "GET":
        return place.path.removeprefix("/v1")
    root = f"{place.scheme}://{place.netloc}/v1"
    return scrub_url(url, all_parameters=True).removeprefix(root)


def _is_match(recorded: RequestSummary, wanted: RequestSummary, ending: str) -> bool:
    """Return whether a recording answers a request, which may have the offline API's address."""
    if recorded == wanted:
        return True
    return (
        ending != ""
        and recorded.method == wanted.method
        and recorded.endpoint.endswith(ending)
        and recorded.fields == wanted.fields
    )
