"""Cassettes of image calls with vcrpy: nothing secret on them, pictures beside them, any backend on replay.

`cassette` uses one; `vcr_config` is for ``vcr.use_cassette`` and for the fixture ``vcr_config`` of
pytest-recording::

    with cassette("tests/cassettes/fox.yaml"):
        images.create_image("a fox")
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import vcr
from vcr.cassette import Cassette
from vcr.persisters.filesystem import CassetteNotFoundError
from vcr.request import Request
from vcr.serialize import deserialize, serialize

from imgkit.cassettes import scrubbing
from imgkit.cassettes.side_files import SideFiles, write_whole
from imgkit.errors import ConfigurationError

MATCH_ON = ("method", "scheme", "host", "port", "path", "query", "body")
"""With the body: calls at once would else get each other's answers."""


def vcr_config(**more: Any) -> dict[str, Any]:
    """Return what vcrpy needs for cassettes of image calls.

    Args:
        more: further settings of vcrpy; they win.
    """
    return {
        "match_on": MATCH_ON,
        "before_record_request": scrub_request,
        "before_record_response": scrub_response,
        "decode_compressed_response": True,
        "persister": Persister,
        **more,
    }


@contextmanager
def cassette(path: str | Path, **more: Any) -> Iterator[Cassette]:
    """Use a cassette: ``vcr.use_cassette`` with `vcr_config`, and with care for a cassette that is refused.

    vcrpy leaves the HTTP libraries patched if saving fails. Here they are as before, and then it is told.

    Args:
        path: of the cassette.
        more: further settings of vcrpy, such as ``record_mode="none"``.

    Raises:
        ConfigurationError: something that looks like a key is left; where the cassette was put.
    """
    keeper = _Keeper()
    with vcr.use_cassette(str(path), **vcr_config(**{"persister": keeper, **more})) as tape:
        yield tape
    if keeper.problem is not None:
        raise keeper.problem


def scrub_request(request: Request) -> Request:
    """Return a request as it is recorded and compared: as bytes, without credentials and permissions."""
    headers = {
        name: value
        for name, value in request.headers.items()
        if name.lower() not in scrubbing.PRIVATE_REQUEST_HEADERS
    }
    url = scrubbing.scrub_url(request.uri, all_parameters=request.method == "GET")
    return Request(request.method, url, _bytes_of(request), headers)


def scrub_response(response: dict[str, Any]) -> dict[str, Any]:
    """Return a reply as it is recorded: no keys, cookies and permissions, and one request id for all."""
    headers = {
        name: values
        for name, values in response["headers"].items()
        if name.lower() not in scrubbing.PRIVATE_REPLY_HEADERS
    }
    for name in headers:
        if name.lower().endswith("request-id"):
            headers[name] = [scrubbing.REQUEST_ID]
    body = response["body"].get("string") or b""
    body = body.encode("utf-8") if isinstance(body, str) else body
    if _is_text(headers):
        scrubbed = scrubbing.scrub_text(body)
        if len(scrubbed) != len(body):
            for name in headers:
                if name.lower() == "content-length":
                    headers[name] = [str(len(scrubbed))]
        body = scrubbed
    return {**response, "headers": headers, "body": {**response["body"], "string": body}}


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
        """
        path = Path(cassette_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        files = SideFiles(path)
        whole = {
            **cassette_dict,
            "requests": [
                Request(one.method, one.uri, files.put_away(_bytes_of(one), _type(one.headers)), one.headers)
                for one in cassette_dict["requests"]
            ],
            "responses": [_put_away(one, files) for one in cassette_dict["responses"]],
        }
        text = serialize(whole, serializer).encode("utf-8")
        found = scrubbing.key_like(text)
        if found is not None:
            aside = path.with_name(f"{path.name}.refused")
            write_whole(aside, text, 0o600)
            raise ConfigurationError(
                f"{str(path)!r} is not written: something in it looks like a key ({found}). It is kept "
                f"in {str(aside)!r}, for you alone: take the key out, and give it its name"
            )
        write_whole(path, text)
        files.drop_unused()


class _Keeper:
    """A persister that tells later what was wrong."""

    def __init__(self) -> None:
        self.problem: ConfigurationError | None = None

    def load_cassette(self, cassette_path: str | Path, serializer: Any) -> Any:
        return Persister.load_cassette(cassette_path, serializer)

    def save_cassette(
        self, cassette_path: str | Path, cassette_dict: dict[str, Any], serializer: Any
    ) -> None:
        try:
            Persister.save_cassette(cassette_path, cassette_dict, serializer)
        except ConfigurationError as error:
            self.problem = error


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


def _type(headers: Any) -> str:
    for name, value in headers.items():
        if name.lower() == "content-type":
            return str(value[0] if isinstance(value, list) else value)
    return ""


def _is_text(headers: Any) -> bool:
    kind = _type(headers).lower()
    return not kind or "json" in kind or kind.startswith("text/")
