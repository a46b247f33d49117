"""Cassettes of image calls with vcrpy: nothing secret on them, pictures beside them, any backend on replay.

`cassette` uses one; `vcr_config` is for ``vcr.use_cassette`` and for the fixture ``vcr_config`` of
pytest-recording::

    with cassette("tests/cassettes/fox.yaml"):
        images.create_image("a fox")
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
from imgkit.cassettes.keys import sent_keys
from imgkit.cassettes.meaning import RequestSummary, differences, fields_of, meaning_of, missing
from imgkit.cassettes.side_files import SideFiles
from imgkit.cassettes.writer import commit
from imgkit.runtime.driver import SENT_OR_NOT

MATCH_ON = ("method", "scheme", "host", "port", "path", "query", "imgkit_body")
"""With the body: calls at once would else get each other's answers."""


def vcr_config(**more: Any) -> dict[str, Any]:
    """Return what vcrpy needs for cassettes of image calls.

    It is for ``vcr.use_cassette`` and pytest-recording; a `vcr.VCR` of your own must be told of the matcher
    first, by `register`.

    Args:
        more: further settings of vcrpy; they win.
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
    """Make the matcher of bodies known to vcrpy.

    Args:
        recorder: where `vcr_config` will be used.
    """
    recorder.register_matcher(imgkit_body.__name__, imgkit_body)


@contextmanager
def cassette(path: str | Path, **more: Any) -> Iterator[Cassette]:
    """Use a cassette: ``vcr.use_cassette`` with `vcr_config`, and with care for what goes wrong.

    vcrpy leaves the HTTP libraries patched if saving fails. Here they are as before, and then it is told.
    A request that is not on the cassette is vcrpy's own error, with the nearest recorded one in a note.

    Args:
        path: of the cassette.
        more: further settings of vcrpy, such as ``record_mode="none"``.

    Raises:
        ConfigurationError: something that looks like a key is left; where the cassette was put.
        SaveError: the cassette cannot be written; where it was put.
    """
    keeper = _Keeper()
    try:
        with vcr.use_cassette(str(path), **vcr_config(**{"persister": keeper, **more})) as tape:
            yield tape
    except BaseException as error:
        explain(error, "Record it with record_mode='new_episodes', or mend the request")
        if keeper.problem is not None:
            error.add_note(str(keeper.problem))
        raise
    if keeper.problem is not None:
        raise keeper.problem


def explain(error: BaseException, way_out: str) -> None:
    """Add to vcrpy's own, long message which recorded request is nearest, and what is different.

    Args:
        error: whatever ended the use of a cassette.
        way_out: a sentence for the end.
    """
    if isinstance(error, CannotOverwriteExistingCassetteException) and error.failed_request is not None:
        path = str(error.cassette._path)
        recorded = [(_meaning(one), path) for one in error.cassette.requests]
        told = missing(_meaning(error.failed_request), recorded)
        notes = getattr(error, "__notes__", [])
        notes[:] = [note for note in notes if SENT_OR_NOT not in note]  # here it is known
        error.add_note(f"imgkit: nothing was sent: {told}. {way_out}")


def imgkit_body(asked: Request, recorded: Request) -> None:
    """Compare what two bodies say, however they are written: vcrpy's interface of a matcher.

    Args:
        asked, recorded: the requests.

    Raises:
        AssertionError: telling field by field what is different.
    """
    bodies = _bytes_of(asked), _bytes_of(recorded)
    kinds = _type(asked.headers), _type(recorded.headers)
    if bodies[0] == bodies[1] and kinds[0] == kinds[1]:
        return
    told = differences(fields_of(kinds[1], bodies[1]), fields_of(kinds[0], bodies[0]))
    if told:
        raise AssertionError("\n".join(told))


def scrub_request(request: Request) -> Request:
    """Return a request as it is recorded and compared: as bytes, without credentials and permissions."""
    headers = scrubbing.scrub_request_headers(request.headers)
    url = scrubbing.scrub_url(request.uri, all_parameters=request.method == "GET")
    body = scrubbing.scrub_body(_bytes_of(request), _type(headers))
    return Request(request.method, url, body, headers)


def scrub_response(response: dict[str, Any], keys: Iterable[bytes] = ()) -> dict[str, Any]:
    """Return a reply as it is recorded: no keys, cookies and permissions, and one request id for all.

    Args:
        response: as vcrpy has it.
        keys: further keys that the server may have repeated.
    """
    body = response["body"].get("string") or b""
    body = body.encode("utf-8") if isinstance(body, str) else body
    given = response["headers"]
    flat = {name: values if isinstance(values, str) else ", ".join(values) for name, values in given.items()}
    kept, body = scrubbing.scrub_reply(flat, body, keys)
    headers = {name: given[name] if value == flat[name] else [value] for name, value in kept.items()}
    return {**response, "headers": headers, "body": {**response["body"], "string": body}}


class _Scrubber:
    """Scrubs requests, and replies also of the keys that the requests were sent with."""

    def __init__(self) -> None:
        self._keys: frozenset[bytes] = frozenset()

    def request(self, request: Request) -> Request:
        self._keys |= sent_keys(request.headers)
        return scrub_request(request)

    def response(self, response: dict[str, Any]) -> dict[str, Any]:
        return scrub_response(response, self._keys)


class Persister:
    """Reads and writes cassettes whole, pictures in files beside them; vcrpy's persister interface."""

    @classmethod
    def load_cassette(cls, cassette_path: str | Path, serializer: Any) -> Any:
        """Return requests and responses, with their pictures in place."""
        path = Path(cassette_path)
        if not path.is_file() or not (text := path.read_text("utf-8")).strip():
            raise CassetteNotFoundError
        requests, responses, *more = deserialize(text, serializer)
        files = SideFiles(path)
        for request in requests:
            request.body = files.put_back(_bytes_of(request), _type(request.headers))
        for response in responses:
            body = response["body"]
            body["string"] = files.put_back(body.get("string") or b"", _type(response["headers"]))
        return (requests, responses, *more)

    @staticmethod
    def save_cassette(cassette_path: str | Path, cassette_dict: dict[str, Any], serializer: Any) -> None:
        """Write a cassette; one with something like a key in it is put aside, so that nothing paid is lost.

        Raises:
            ConfigurationError: something that looks like a key is left; where the cassette was put.
            SaveError: it cannot be written; where it was put.
        """
        path = Path(cassette_path)
        files = SideFiles(path)
        whole = {
            **cassette_dict,
            "requests": [
                Request(one.method, one.uri, files.put_away(_bytes_of(one), _type(one.headers)), one.headers)
                for one in cassette_dict["requests"]
            ],
            "responses": [_put_away(one, files) for one in cassette_dict["responses"]],
        }
        commit(path, serialize(whole, serializer).encode("utf-8"), files)


class _Keeper:
    """A persister that tells later what was wrong."""

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


def _meaning(request: Request) -> RequestSummary:
    return meaning_of(request.method, request.uri, _type(request.headers), _bytes_of(request))


def _put_away(response: dict[str, Any], files: SideFiles) -> dict[str, Any]:
    body = response["body"].get("string") or b""
    return {**response, "body": {"string": files.put_away(body, _type(response["headers"]))}}


def _bytes_of(request: Request) -> bytes:
    """Return the body of a request as bytes, however it was sent: an iterator is nothing for a cassette."""
    body = request.body
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode("utf-8")
    if isinstance(body, bytes | bytearray):
        return bytes(body)
    return body.read() if hasattr(body, "read") else b"".join(body)


def _type(headers: Mapping[str, Any]) -> str:
    for name, value in headers.items():
        if name.lower() == "content-type":
            value = value[0] if isinstance(value, list) else value
            return value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return ""


register(vcr.default_vcr)
