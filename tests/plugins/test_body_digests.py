"""Signers get the digest of a body without reading files in a hook."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit import hookimpl
from imgkit.core.operations import OperationFlows
from imgkit.plugins import TokenNeeded
from imgkit.providers import BytesBody, Field, MultipartBody
from imgkit.runtime.flow import RunBlocking, SendRequest, advance
from imgkit.testing.samples import answer, png
from tests.support.wire_server import WireServer, reply


class Signer:
    """Puts the digest of the body into a header."""

    @hookimpl
    def imgkit_authenticate(self, request: Any, call: Any) -> Any:
        return replace(request, headers={**request.headers, "x-digest": request.body.sha256()})


class LateSigner:
    """Fetches a token before it signs."""

    @hookimpl
    def imgkit_authenticate(self, request: Any, call: Any) -> Any:
        return TokenNeeded(lambda: None, lambda request: Signer().imgkit_authenticate(request, call))


class HeaderSigner:
    """Puts the digest into a header before the credentials."""

    @hookimpl
    def imgkit_before_send(self, request: Any, call: Any) -> Any:
        return replace(request, headers={**request.headers, "x-digest": request.body.sha256()})


OPERATIONS: dict[str, Callable[[Any, Path], Any]] = {
    "create": lambda service, path: service.create_image("a fox"),
    "edit": lambda service, path: service.create_image_edit(path, "a hat"),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("plugin", [Signer, LateSigner, HeaderSigner])
def test_the_digest_is_that_of_the_bytes_on_the_wire(
    flavor: Any, http_backend: str, operation: str, plugin: type, tmp_path: Path
) -> None:
    """The digest that a hook gets is the SHA-256 of the body that the server receives."""
    path = tmp_path / "fox.png"
    path.write_bytes(png(1))
    with WireServer(reply(200, answer(png(1)))) as server:
        settings: dict[str, Any] = {"base_url": server.base_url, "plugins": [plugin()]}
        flavor.run(lambda service: OPERATIONS[operation](service, path), http_backend, **settings)
    (line,) = server.lines
    assert line.headers["x-digest"] == hashlib.sha256(line.body).hexdigest()


@pytest.mark.parametrize("plugin", [Signer, LateSigner, HeaderSigner])
def test_files_are_read_where_reading_may_block(
    plugin: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flow reads the files of a form in an effect that may block, never in a hook, and once."""
    path = tmp_path / "fox.png"
    path.write_bytes(png(1))
    reads: list[bool] = []
    blocking = [False]
    blocks = MultipartBody.blocks

    def watch(body: MultipartBody) -> Iterator[bytes]:
        reads.append(blocking[0])
        return blocks(body)

    monkeypatch.setattr(MultipartBody, "blocks", watch)
    with imgkit.ImageService("requests", base_url="http://127.0.0.1:1/v1", plugins=[plugin()]) as service:
        flow = OperationFlows(service._core).create_image_edit(path, "a hat")
        effect = advance(flow, None)
        while isinstance(effect, RunBlocking):
            blocking[0] = True
            result = effect.fn()
            blocking[0] = False
            effect = advance(flow, result)
        assert isinstance(effect, SendRequest)
        flow.close()
    assert reads == [True]


def test_without_a_signer_no_file_is_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service without foreign signers computes no digest."""
    path = tmp_path / "fox.png"
    path.write_bytes(png(1))
    monkeypatch.setattr(MultipartBody, "sha256", lambda body: pytest.fail("a digest that nobody needs"))
    with WireServer(reply(200, answer(png(1)))) as server:
        settings: dict[str, Any] = {"base_url": server.base_url, "api_key": "sk-0123456789abcdef"}
        with imgkit.ImageService("requests", **settings) as service:
            service.create_image_edit(path, "a hat")


@pytest.mark.parametrize("body", [BytesBody(b""), BytesBody(b"fox", "text/plain"), MultipartBody(())])
def test_a_body_hashes_its_content_once(body: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest of a body is that of its blocks, and is computed once."""
    expected = hashlib.sha256(b"".join(body.blocks())).hexdigest()
    assert body.sha256() == expected
    monkeypatch.setattr(type(body), "blocks", lambda body: pytest.fail("it is hashed twice"))
    assert body.sha256() == expected


def test_a_copied_body_has_a_digest_of_its_own() -> None:
    """`dataclasses.replace` does not copy the digest of other content."""
    body = BytesBody(b"fox")
    body.sha256()
    assert replace(body, data=b"hen").sha256() == hashlib.sha256(b"hen").hexdigest()
    assert body == BytesBody(b"fox")
    form = MultipartBody((Field("a", "1"),))
    form.sha256()
    assert replace(form, parts=(Field("a", "2"),)).sha256() != form.sha256()
