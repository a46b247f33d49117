"""The name that the caller asks for: its extension, and files that exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit import ImageService
from tests.support.pictures import encoded, picture
from tests.support.wire_server import WireServer, reply

JPEG = {"created": 1, "output_format": "png", "data": [{"b64_json": encoded(picture("JPEG"))}]}


@pytest.mark.parametrize("taken", ["fox.png", "fox.png.json"])
def test_an_existing_file_is_refused_before_sending(taken: str, tmp_path: Path) -> None:
    """Refuses a plain name that is taken, as the command does, and sends nothing."""
    (tmp_path / taken).write_bytes(b"mine")
    with WireServer() as server, ImageService("requests", base_url=server.base_url) as service:
        with pytest.raises(imgkit.InvalidRequestError, match="exists. Choose another name"):
            service.create_image("a fox", save_to=tmp_path / "fox.png")
        assert server.posts == 0
    assert (tmp_path / taken).read_bytes() == b"mine"


def test_several_names_are_checked(tmp_path: Path) -> None:
    """Checks the numbered names of several images."""
    (tmp_path / "fox-2.png").write_bytes(b"mine")
    with ImageService() as service, pytest.raises(imgkit.InvalidRequestError, match=r"fox-2\.png"):
        service.create_image("a fox", n=2, save_to=tmp_path / "fox.png")


@pytest.mark.parametrize("name", ["fox.png", "{ext}/fox.png", "{ext}-fox.png"])
def test_another_format_is_told(name: str, tmp_path: Path) -> None:
    """Warns that the server sent another format, and names the remedy."""
    with WireServer(reply(200, JPEG)) as server:
        with ImageService("requests", base_url=server.base_url) as service:
            saved = service.create_image("a fox", model="m", save_to=tmp_path / name)
            kept = service.create_image("a fox", model="m", output_format="png")
    assert saved[0].path is not None
    assert saved[0].path == tmp_path / name.format(ext="jpg").replace(".png", ".jpg")
    assert 'Pass output_format="png", or give a name that ends in .jpg' in saved.warnings[0]
    (warning,) = kept.warnings
    assert warning.startswith("png was requested, but jpeg arrived.")


@pytest.mark.parametrize("name", ["fox.jpg", "{index}.jpeg", "fox.WEBP"])
def test_the_extension_asks_for_its_format(name: str, tmp_path: Path) -> None:
    """Asks for the format of the file's extension where that is known to work."""
    with ImageService() as service:
        response = service.create_image("a fox", size="64x64", save_to=tmp_path / name)
    assert response[0].format == ("webp" if "WEBP" in name else "jpeg")
    assert response.warnings == ()
    assert response[0].path is not None
    assert response[0].path.suffix == Path(name).suffix


@pytest.mark.parametrize(
    ("settings", "more", "is_asked"),
    [
        ({"model": "gpt-image-2"}, {}, True),
        ({"model": "gpt-image-2"}, {"output_format": "webp"}, False),
        ({"model": "gpt-image-2"}, {"extra_body": {"output_format": "webp"}}, False),
        ({"model": "gpt-image-2"}, {"background": "transparent"}, False),
        ({"model": "unknown", "base_url": "http://127.0.0.1:9/v1"}, {}, False),
    ],
)
def test_only_known_models_are_asked(settings: Any, more: Any, is_asked: bool, tmp_path: Path) -> None:
    """Leaves a request as it is if it names a format, or if nobody knows whether the model takes one."""
    with ImageService("requests", api_key="sk-12345678", **settings) as service:
        try:
            text = service.dry_run("create_image", "a fox", save_to=tmp_path / "fox.jpg", **more)
        except imgkit.InvalidRequestError as error:
            text = str(error)
    assert ('"jpeg"' in text) is is_asked
