"""Cassettes of image calls with vcrpy: without secrets, with images beside them, for every backend.

`cassette` records or replays a single file. `vcr_config` is for ``vcr.use_cassette`` and for the fixture
``vcr_config`` of pytest-recording.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import vcr
from vcr.cassette import Cassette
from vcr.errors import CannotOverwriteExistingCassetteException
from vcr.persisters.filesystem import CassetteNotFoundError
from vcr.request import Request
from vcr.serialize import deserialize, serialize

from imgkit.cassettes import scrubbing
from imgkit.cassettes.api_keys import collect_sent_keys
from imgkit.cassettes.matching import (
    RequestSummary,
    describe_differences,
    explain_miss,
    parse_fields,
    summarize_request,
)
from imgkit.cassettes.side_files import SideFiles
from imgkit.cassettes.writer import write_cassette
from imgkit.runtime.driver import SENT_OR_NOT

MATCH_ON = ("method", "scheme", "host", "port", "path", "query", "imgkit_body")
"""Includes the body: otherwise concurrent calls would get each other's replies."""


def vcr_config(**more: Any) -> dict[str, Any]:
    """Return the vcrpy settings for cassettes of image calls.

    Pass them to ``vcr.use_cassette``, or return them from pytest-recording's fixture::

        @pytest.fixture
        def vcr_config():
            return imgkit.testing.vcr_config()

    Call `register` first if you use a `vcr.VCR` of your own.

    Args:
        more: Further vcrpy settings; they override the defaults.
    """
    scrubber = _Scrubber()
    return {
        "match_on": MATCH_ON,
        "before_record_request": scrubber.request,
        "before_record_response": scrubber.response,
        "decode_compressed_response": True,
        "persister": Persister,
        **more,
    }


def register(recorder: vcr.VCR) -> None:
    """Register the body matcher with a `vcr.VCR` of your own.

    >>> recorder = vcr.VCR()
    >>> register(recorder)

    Args:
        recorder: The `vcr.VCR` that uses `vcr_config`.
    """
    recorder.register_matcher(imgkit_body.__name__, imgkit_body)


@contextmanager
def cassette(path: str | Path, **more: Any) -> Iterator[Cassette]:
    """Record or replay a cassette: ``vcr.use_cassette`` with `vcr_config` and better error handling.

    ::

        with cassette("tests/cassettes/fox.yaml"):
            images.create_image("a fox")

    vcrpy leaves the HTTP libraries patched if saving fails; this function restores them before it raises.
    For an unrecorded request, vcrpy's error gets a note with the nearest recorded request.

    Args:
        path: Path of the cassette.
        more: Further vcrpy settings, such as ``record_mode="none"``.

    Raises:
        ConfigurationError: The recording may hold a key; the error names the refused copy.
        SaveError: The cassette cannot be written; the error names the copy.
    """
    persister = _DeferredPersister()
    try:
        with vcr.use_cassette(str(path), **vcr_config(**{"persister": persister, **more})) as tape:
            yield tape
    except BaseException as error:
        add_miss_note(error, "Record it with record_mode='new_episodes' or correct the request.")
        if persister.problem is not None:
            error.add_note(str(persister.problem))
        raise
    if persister.problem is not None:
        raise persister.problem


def add_miss_note(error: BaseException, remedy: str) -> None:
    """Add a note to vcrpy's error: the nearest recorded request and the fields that differ.

    Other errors stay as they are.

    Args:
        error: The error that ended the use of a cassette.
        remedy: Sentence for the end of the note.
    """
    if isinstance(error, CannotOverwriteExistingCassetteException) and error.failed_request is not None:
        path = str(error.cassette._path)
        recorded = [(_summarize(item), path) for item in error.cassette.requests]
        reason = explain_miss(_summarize(error.failed_request), recorded)
        notes = getattr(error, "__notes__", [])
        # The cassette sent nothing, so the note about an unknown outcome would mislead.
        notes[:] = [note for note in notes if SENT_OR_NOT not in note]
        error.add_note(f"imgkit: Nothing was sent. {reason}. {remedy}")


def imgkit_body(request: Request, recorded: Request) -> None:
    """Compare two bodies by their fields, regardless of encoding and order; a vcrpy matcher.

    Args:
        request, recorded: The new and the recorded request.

    Raises:
        AssertionError: The bodies differ; the message lists the fields.
    """
    bodies = _read_body(request), _read_body(recorded)
    types = _get_content_type(request.headers), _get_content_type(recorded.headers)
    if bodies[0] == bodies[1] and types[0] == types[1]:
        return
    lines = describe_differences(parse_fields(types[1], bodies[1]), parse_fields(types[0], bodies[0]))
    if lines:
        raise AssertionError("\n".join(lines))


def scrub_request(request: Request) -> Request:
    """Return the request to record and compare: its body as bytes, without credentials."""
    headers = scrubbing.scrub_request_headers(request.headers)
    url = scrubbing.scrub_url(request.uri, all_parameters=request.method == "GET")
    body = scrubbing.scrub_body(_read_body(request), _get_content_type(headers))
    return Request(request.method, url, body, headers)


def scrub_response(response: dict[str, Any], keys: Iterable[bytes] = ()) -> dict[str, Any]:
    """Return the reply to record: without keys, cookies and signed URLs, with a fixed request id.

    Args:
        response: The reply in vcrpy's form.
        keys: Further keys that the server may have repeated.
    """
    body = response["body"].get("string") or b""
    body = body.encode("utf-8") if isinstance(body, str) else body
    recorded = response["headers"]
    flat = {
        name: values if isinstance(values, str) else ", ".join(values) for name, values in recorded.items()
    }
    scrubbed, body = scrubbing.scrub_reply(flat, body, keys)
    headers = {name: recorded[name] if value == flat[name] else [value] for name, value in scrubbed.items()}
    return {**response, "headers": headers, "body": {**response["body"], "string": body}}


class _Scrubber:
    """A pair of vcrpy callbacks that also removes the request's keys from replies."""

    def __init__(self) -> None:
        self._keys: frozenset[bytes] = frozenset()

    def request(self, request: Request) -> Request:
        self._keys |= collect_sent_keys(request.headers)
        return scrub_request(request)

    def response(self, response: dict[str, Any]) -> dict[str, Any]:
        return scrub_response(response, self._keys)


class Persister:
    """A vcrpy persister that writes cassettes atomically, with images in files beside them."""

    @classmethod
    def load_cassette(cls, cassette_path: str | Path, serializer: Any) -> Any:
        """Return the requests and replies of a cassette with their images.

        Raises:
            CassetteNotFoundError: The cassette is missing or empty.
            ConfigurationError: An image is missing or has changed.
        """
        path = Path(cassette_path)
        if not path.is_file() or not (text := path.read_text("utf-8")).strip():
            raise CassetteNotFoundError
        requests, responses, *more = deserialize(text, serializer)
        files = SideFiles(path)
        for request in requests:
            request.body = files.restore_images(_read_body(request), _get_content_type(request.headers))
        for response in responses:
            body = response["body"]
            body["string"] = files.restore_images(
                body.get("string") or b"", _get_content_type(response["headers"])
            )
        return (requests, responses, *more)

    @staticmethod
    def save_cassette(cassette_path: str | Path, cassette_dict: dict[str, Any], serializer: Any) -> None:
        """Write a cassette; if the text may hold a key, write a private copy instead.

        Raises:
            ConfigurationError: The text may hold a key; the error names the refused copy.
            SaveError: The cassette cannot be written; the error names the copy.
        """
        path = Path(cassette_path)
        files = SideFiles(path)
        stored = {
            **cassette_dict,
            "requests": [
                Request(
                    item.method,
                    item.uri,
                    files.extract_images(_read_body(item), _get_content_type(item.headers)),
                    item.headers,
                )
                for item in cassette_dict["requests"]
            ],
            "responses": [_extract_images(item, files) for item in cassette_dict["responses"]],
        }
        write_cassette(path, serialize(stored, serializer).encode("utf-8"), files)


class _DeferredPersister:
    """A persister that keeps an error until vcrpy has restored the HTTP libraries."""

    def __init__(self) -> None:
        self.problem: Exception | None = None

    def load_cassette(self, cassette_path: str | Path, serializer: Any) -> Any:
        return Persister.load_cassette(cassette_path, serializer)

    def save_cassette(
        self, cassette_path: str | Path, cassette_dict: dict[str, Any], serializer: Any
    ) -> None:
        try:
            Persister.save_cassette(cassette_path, cassette_dict, serializer)
        except Exception as error:
            self.problem = error


def _summarize(request: Request) -> RequestSummary:
    return summarize_request(
        request.method, request.uri, _get_content_type(request.headers), _read_body(request)
    )


def _extract_images(response: dict[str, Any], files: SideFiles) -> dict[str, Any]:
    body = response["body"].get("string") or b""
    return {
        **response,
        "body": {"string": files.extract_images(body, _get_content_type(response["headers"]))},
    }


def _read_body(request: Request) -> bytes:
    """Return the body of a request as bytes; read a stream or iterator to its end."""
    body = request.body
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode("utf-8")
    if isinstance(body, bytes | bytearray):
        return bytes(body)
    return body.read() if hasattr(body, "read") else b"".join(body)


def _get_content_type(headers: Mapping[str, Any]) -> str:
    for name, value in headers.items():
        if name.lower() == "content-type":
            value = value[0] if isinstance(value, list) else value
            return value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return ""


register(vcr.default_vcr)
