"""Replies that are no JSON: an image, a zip file, or text, to a request or to a poll."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

import imgkit
from imgkit.core.recovery import recover
from imgkit.plugins.hookspecs import ProviderSpec, hookimpl
from imgkit.providers import (
    BaseProvider,
    Credential,
    DecodedImage,
    DecodedImages,
    JobUpdate,
    Target,
    decode_base64,
    decode_image_body,
    error_from_reply,
)
from imgkit.providers.fakes import FakeApi, FakeReply, FakeRequest, json_reply
from imgkit.testing.wire_server import serve_fake
from imgkit.wire.messages import BytesBody, HttpRequest
from tests.conftest import ServiceRunner
from tests.support.pictures import encoded, noise
from tests.support.wire_server import WireServer, head, raw

PICTURE = noise(7, 200)


def _pack(data: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("a.png", data)
    return archive.getvalue()


def read_body(kind: str, body: Any, target: Target, where: Any, secrets: Any) -> DecodedImages:
    """Return the images of a body of this kind."""
    if kind == "zip":
        with zipfile.ZipFile(io.BytesIO(body.raw())) as archive:
            pictures = tuple(DecodedImage(data=archive.read(name)) for name in archive.namelist())
        return DecodedImages(pictures=pictures)
    if kind == "text":
        return DecodedImages(pictures=(DecodedImage(data=decode_base64(body.raw().decode())),))
    return decode_image_body(where, body, target, secrets)


class PlainProvider(BaseProvider):
    """An API that answers with an image, a zip file or text, at once or after polls."""

    env: ClassVar[Mapping[str, str]] = {"api_key": "PLAIN_API_KEY"}
    credentials = (Credential(variable="PLAIN_API_KEY"),)
    base64_keys: ClassVar[frozenset[str]] = frozenset()

    def encode(self, request: Any, inputs: Any, target: Target) -> HttpRequest:
        return HttpRequest("POST", f"{target.base_url}/make", {}, BytesBody(b"{}", "application/json"))

    def decode(self, head: Any, body: Any, target: Target, secrets: Any = ()) -> DecodedImages | JobUpdate:
        if head.status == 202:
            return JobUpdate(state={"id": "j-1"}, poll_after_s=0)
        return read_body(_kind(head.headers), body, target, head, secrets)

    def poll(self, job: Any, target: Target) -> HttpRequest:
        return HttpRequest("GET", f"{target.base_url}/jobs/{job.state['id']}", {})

    def decode_poll(self, job: Any, head: Any, body: Any, target: Target, secrets: Any = ()) -> DecodedImages:
        return read_body(_kind(head.headers), body, target, head, secrets)

    def error(self, head: Any, body: bytes, secrets: Any) -> imgkit.ImgkitError:
        return error_from_reply(head, body, secrets)


def _kind(headers: Mapping[str, str]) -> str:
    return {"application/zip": "zip", "text/plain": "text"}.get(headers["content-type"], "image")


class Plain:
    @hookimpl
    def imgkit_providers(self) -> list[ProviderSpec]:
        return [ProviderSpec(name="plain", target=f"{__name__}:PlainProvider")]


BODIES = {
    "image": (PICTURE, "image/png"),
    "zip": (_pack(PICTURE), "application/zip"),
    "text": (encoded(PICTURE).encode(), "text/plain"),
}


class FakePlain(FakeApi):
    """The API itself.

    Args:
        kind: name of its body.
        is_job: accept a job first.
    """

    def __init__(self, kind: str, *, is_job: bool) -> None:
        super().__init__()
        body, media_type = BODIES[kind]
        self._result = FakeReply(200, {"content-type": media_type}, body)
        self._is_job = is_job

    def handle(self, request: FakeRequest) -> FakeReply:
        """Return the reply to a request or a poll."""
        return json_reply(202, {}) if self._is_job and request.method == "POST" else self._result


@pytest.mark.parametrize("kind", ["image", "zip", "text"])
@pytest.mark.parametrize("is_job", [False, True])
def test_any_body(flavor: ServiceRunner, http_backend: str, kind: str, is_job: bool, tmp_path: Path) -> None:
    """An image, a zip file and a text become images, also as the result of a job; nothing stays behind."""
    fake = FakePlain(kind, is_job=is_job)
    with serve_fake(fake) as server:
        response = flavor.run(
            lambda service: service.create_image("a fox", save_to=tmp_path / "out" / "fox.{ext}"),
            http_backend, provider=PlainProvider(), base_url=server.origin, state_folder=tmp_path / "home",
        )  # fmt: skip
    assert fake.count["POST /make"] == 1
    assert response[0].path is not None
    assert response[0].path.read_bytes() == PICTURE
    assert [path.name for path in (tmp_path / "out").iterdir() if path.suffix == ".png"] == ["fox.png"]
    assert not list((tmp_path / "home" / "spool").glob("2*"))


def test_an_image_that_is_cut_off(flavor: ServiceRunner, http_backend: str, tmp_path: Path) -> None:
    """The spool keeps the part of an image body that arrived, and `recover` finds it as an image."""
    begun = head(200, {"content-length": str(len(PICTURE)), "content-type": "image/png"}) + PICTURE[:-50]
    with WireServer(raw(begun)) as server, pytest.raises(imgkit.OutcomeUnknownError) as caught:
        flavor.run(
            lambda service: service.create_image("a fox"),
            http_backend, provider="plain", plugins=[Plain()], base_url=server.origin,
            state_folder=tmp_path / "home",
        )  # fmt: skip
    (record,) = imgkit.open_spool(tmp_path / "home").list_replies()
    found = recover(record)
    assert caught.value.body == PICTURE[:-50]
    assert [image.data for image in found.images] == [PICTURE[:-50]]
    assert found.damaged == (0,)


@pytest.mark.parametrize("cut", [1, 3, 11, 12, 40])
def test_an_image_in_pieces(cut: int) -> None:
    """A body is an image wherever its chunks end; a short text with such a beginning is none."""
    from imgkit.wire.json_body import JsonReply

    body = JsonReply(frozenset())
    spooled = [*body.feed(PICTURE[:cut]), *body.feed(PICTURE[cut:]), *body.close()]
    image = body.image()
    assert image is not None
    assert image.to_bytes() == body.raw() == PICTURE
    assert b"".join(data for part, data in spooled if part == "0") == PICTURE
    with pytest.raises(ValueError, match="is an image"):
        body.json()
    short = JsonReply(frozenset())
    short.feed(b"GIF87"), short.close()
    assert short.image() is None
    assert short.raw() == b"GIF87"
