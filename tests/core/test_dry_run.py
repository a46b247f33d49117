"""What would be sent, as text."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import imgkit
from imgkit.default_plugins.auth import HeaderAuth
from tests.support.pictures import picture
from tests.support.wire_server import WireServer, reply

KEY = "sk-test-CANARY-1234567890abcdef"


def test_it_is_what_is_sent() -> None:
    """The text has the method, URL, headers and body of the request that really goes out."""
    with WireServer(reply(500, {"error": {"message": "x"}})) as server:
        options: dict[str, Any] = {
            "retry": False,
            "base_url": server.base_url,
            "api_key": KEY,
            "organization": "org-CANARY",
        }
        with imgkit.ImageService("requests", **options) as service:
            text = service.dry_run("create_image", "a føx", n=2)
            assert server.accepted == 0
            with pytest.raises(imgkit.ServerError):
                service.create_image("a føx", n=2)
    (line,) = server.lines
    head, _, body = text.partition("\n\n")
    assert head.splitlines()[0] == f"POST {server.base_url}/images/generations"
    assert body.encode() == line.body + b"\n"
    shown = dict(row.split(": ", 1) for row in head.splitlines()[1:])
    own = {"host", "user-agent", "connection"}  # what HTTP libraries add
    assert set(shown) == set(line.headers) - own
    assert shown["authorization"] == "…"
    assert "CANARY" not in text
    assert shown["content-length"] == line.headers["content-length"]


def test_forms_show_files_by_digest() -> None:
    """Files of a form appear as name, type, size and digest, never as bytes."""
    service = imgkit.AsyncImageService("aiohttp", model="m")
    text = service.dry_run("create_image_edit", picture(), "blue", mask=picture(mode="RGBA", color="#0000"))
    asyncio.run(service.close())
    assert "image = <image.png, image/png, " in text
    assert "mask = <mask.png, image/png, " in text
    assert 'prompt = "blue"' in text


def test_without_a_key() -> None:
    """No key is needed to look; the text says that none was found."""
    with imgkit.ImageService("requests", model="m") as service:
        assert "authorization: (no key was found)" in service.dry_run("create_image", "a fox")


def test_what_is_wrong_is_wrong_here_too() -> None:
    """Errors before sending come out; unknown operations and inputs at URLs are told."""
    with imgkit.ImageService("requests") as service:
        with pytest.raises(imgkit.MissingModelError):
            service.dry_run("create_image", "a fox")
        with pytest.raises(imgkit.ConfigurationError, match="no operation"):
            service.dry_run("paint", "a fox")
    with imgkit.ImageService() as service:
        made = service.create_image("a fox", response_format="url", size="256x256")
        with pytest.raises(imgkit.ConfigurationError, match="download"):
            service.dry_run("create_image_variation", made[0])


def test_a_credential_of_any_name_is_hidden() -> None:
    """What an auth plugin sets is shown neither here nor by the request, whatever its header is called."""
    vault = HeaderAuth("x-vault", "CANARY-0123456789")
    seen: list[str] = []

    class Keep:
        errors = (OSError,)
        unsent_errors = ()

        def open(self, request: Any, transfer: Any) -> Any:
            assert request.headers["x-vault"] == "CANARY-0123456789"
            seen.append(repr(request))
            raise ConnectionResetError("the server said CANARY-0123456789")

        def close(self) -> None: ...

    options: dict[str, Any] = {"base_url": "http://127.0.0.1:1/v1", "plugins": [vault], "retry": False}
    with imgkit.ImageService(Keep(), **options) as service:
        text = service.dry_run("create_image", "a fox")
        with pytest.raises(imgkit.OutcomeUnknownError):
            service.create_image("a fox")
    assert "x-vault: …" in text
    assert "CANARY" not in text
    assert seen
    assert "CANARY" not in seen[0]
