"""Settings for vcrpy: cassettes of image calls without secrets, with images beside them.

`vcr_config` is for ``vcr.use_cassette`` and for the fixture ``vcr_config`` of pytest-recording, with the
backends that vcrpy patches. `imgkit.testing.cassette` serves every backend.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import vcr
from vcr.errors import CannotOverwriteExistingCassetteException
from vcr.persisters.filesystem import CassetteNotFoundError
from vcr.request import Request
from vcr.serialize import serialize

from imgkit.cassettes import scrubbing
from imgkit.cassettes.api_keys import collect_sent_keys, remove_keys_from_headers
from imgkit.cassettes.matching import (
    RequestSummary,
    describe_differences,
    explain_miss,
    parse_fields,
    summarize_request,
)
from imgkit.cassettes.reader import parse_cassette, to_bytes
from imgkit.cassettes.side_files import SideFiles
from imgkit.cassettes.writer import write_cassette
from imgkit.errors import ConfigurationError
from imgkit.runtime.driver import SENT_OR_NOT

MATCH_ON = ("method", "scheme", "host", "port", "path", "query", "imgkit_body")
"""Includes the body: otherwise concurrent calls would get each other's replies."""


def vcr_config(**more: Any) -> dict[str, Any]:
    """Return the vcrpy settings for cassettes of image calls.

    Pass them to ``vcr.use_cassette``, or return them from pytest-recording's fixture::

        @pytest.fixture
        def vcr_config():
            return imgkit.testing.vcr_config()

    Call `register` first if you use a `vcr.VCR` of your own. vcrpy patches the backends ``requests`` and
    ``aiohttp``. A service refuses to send with any other backend while a cassette of vcrpy is open, unless
    the backend declares ``is_patched_by_vcrpy = True``.

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


def add_miss_note(error: BaseException, remedy: str) -> None:
    """Begin the message of vcrpy's error with the nearest recorded request and the fields that differ.

    The advice of vcrpy, about settings that imgkit has under other names, follows. Other errors stay as
    they are.

    Args:
        error: The error that ended the use of a cassette.
        remedy: Sentence behind the reason.
    """
    if isinstance(error, CannotOverwriteExistingCassetteException) and error.failed_request is not None:
        reason = describe_miss(error)
        notes = getattr(error, "__notes__", [])
        # The cassette sent nothing, so the note about an unknown outcome would mislead.
        notes[:] = [note for note in notes if SENT_OR_NOT not in note]
        error.args = (f"imgkit: Nothing was sent. {reason}. {remedy}\n\n{error}",)


def describe_miss(error: CannotOverwriteExistingCassetteException) -> str:
    """Return a sentence without its period: the nearest recorded request and the fields that differ.

    Args:
        error: vcrpy's error, with its request.
    """
    path = str(error.cassette._path)
    recorded = [(summarize(item), path) for item in error.cassette.requests]
    return explain_miss(summarize(error.failed_request), recorded)


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
    content_type = _get_content_type(headers)
    body = scrubbing.hide_secret_members(_read_body(request), content_type)
    body = scrubbing.scrub_body(body, content_type)
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
    scrubbed, body = scrubbing.scrub_reply(remove_keys_from_headers(flat, keys), body, keys)
    headers = {name: recorded[name] if value == flat[name] else [value] for name, value in scrubbed.items()}
    return {**response, "headers": headers, "body": {**response["body"], "string": body}}


class _Scrubber:
    """A pair of vcrpy callbacks that also removes the request's keys from replies."""

    def __init__(self) -> None:
        self._keys: frozenset[bytes] = frozenset()

    def request(self, request: Request) -> Request:
        body = _read_body(request)
        self._keys |= collect_sent_keys(request.headers)
        self._keys |= scrubbing.collect_body_keys(body, _get_content_type(request.headers))
        return scrub_request(Request(request.method, request.uri, body, request.headers))

    def response(self, response: dict[str, Any]) -> dict[str, Any]:
        return scrub_response(response, self._keys)


class Persister:
    """A vcrpy persister that writes cassettes atomically, with images in files beside them."""

    @classmethod
    def load_cassette(cls, cassette_path: str | Path, serializer: Any) -> Any:
        """Return the requests and replies of a cassette with their images.

        Raises:
            CassetteNotFoundError: There is no file.
            ConfigurationError: The file is damaged, or an image is missing or has changed.
        """
        path = Path(cassette_path)
        if not os.path.lexists(path):
            raise CassetteNotFoundError
        content = parse_cassette(path, serializer.deserialize)
        files = SideFiles(path)
        interactions = content["interactions"]
        requests = [_load_request(item["request"], files) for item in interactions]
        responses = [_load_response(item["response"], files) for item in interactions]
        metadata = content.get("metadata")
        return (requests, responses, metadata) if metadata else (requests, responses)

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
            "requests": [extract_request(item, files) for item in cassette_dict["requests"]],
            "responses": [extract_response(item, files) for item in cassette_dict["responses"]],
        }
        write_cassette(path, dump_interactions(stored, serializer), files)


def extract_request(item: Request, files: SideFiles) -> Request:
    """Return a request with the names of files in place of its images.

    Args:
        item: The request.
        files: Gets the images.
    """
    body = files.extract_images(_read_body(item), _get_content_type(item.headers))
    return Request(item.method, item.uri, body, item.headers)


def extract_response(item: Mapping[str, Any], files: SideFiles) -> dict[str, Any]:
    """Return a reply in vcrpy's form with the names of files in place of its images.

    Args:
        item: The reply.
        files: Gets the images.
    """
    body = files.extract_images(item["body"].get("string") or b"", _get_content_type(item["headers"]))
    return {**item, "body": {"string": body}}


def dump_interactions(stored: dict[str, Any], serializer: Any) -> bytes:
    """Return the text of a cassette.

    Args:
        stored: Requests, replies and metadata in vcrpy's form, without images.
        serializer: vcrpy's serializer.
    """
    return bytes(serialize(stored, serializer).encode("utf-8"))


def _load_request(item: Mapping[str, Any], files: SideFiles) -> Request:
    headers = _load_headers(item)
    request = Request(item["method"], item["uri"], item.get("body"), headers)
    try:
        body = _read_body(request)
    except TypeError:
        raise ConfigurationError(f"The cassette {files.folder.stem!r} has a body that is no text.") from None
    return Request(
        item["method"], item["uri"], files.restore_images(body, _get_content_type(headers)), headers
    )


def _load_response(item: Mapping[str, Any], files: SideFiles) -> dict[str, Any]:
    headers = _load_headers(item)
    body = to_bytes((item.get("body") or {}).get("string"))
    restored = files.restore_images(body, _get_content_type(headers))
    return {**item, "headers": headers, "body": {"string": restored}}


def _load_headers(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return recorded headers; their values become text, also where YAML reads a number."""
    return {
        name: [_to_header(each) for each in value] if isinstance(value, list | tuple) else _to_header(value)
        for name, value in (item.get("headers") or {}).items()
    }


def _to_header(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def summarize(request: Request) -> RequestSummary:
    """Return the summary of vcrpy's request."""
    return summarize_request(
        request.method, request.uri, _get_content_type(request.headers), _read_body(request)
    )


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
