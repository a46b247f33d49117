"""The dry run: the request as text."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.default_plugins.auth import HeaderAuth
from tests.support.pictures import picture
from tests.support.wire_server import WireServer, reply

KEY = "sk-test-CANARY-1234567890abcdef"


def test_the_text_equals_the_request() -> None:
    """Shows the method, URL, headers and body of the request that the service sends."""
    with WireServer(reply(500, {"error": {"message": "x", "code": "server_error"}})) as server:
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
    headers = dict(row.split(": ", 1) for row in head.splitlines()[1:])
    own = {"host", "user-agent", "connection"}  # added by HTTP libraries
    assert set(headers) == set(line.headers) - own
    assert headers["authorization"] == "…"
    assert "CANARY" not in text
    assert headers["content-length"] == line.headers["content-length"]


def test_forms_show_files_by_digest() -> None:
    """Shows the files of a form by name, type, size and digest, never as bytes."""
    service = imgkit.AsyncImageService("aiohttp", model="m")
    text = service.dry_run("create_image_edit", picture(), "blue", mask=picture(mode="RGBA", color="#0000"))
    asyncio.run(service.close())
    assert "image = <image.png, image/png, " in text
    assert "mask = <mask.png, image/png, " in text
    assert 'prompt = "blue"' in text


def test_without_a_key() -> None:
    """Needs no key, and shows that none was found."""
    with imgkit.ImageService("requests", model="m") as service:
        assert "authorization: (no key was found)" in service.dry_run("create_image", "a fox")


def test_a_dry_run_raises_the_errors_of_a_call() -> None:
    """Raises the errors of a call before sending, also for unknown operations and inputs at URLs."""
    with imgkit.ImageService("requests") as service:
        with pytest.raises(imgkit.MissingModelError):
            service.dry_run("create_image", "a fox")
        with pytest.raises(imgkit.ConfigurationError, match="Unknown operation"):
            service.dry_run("paint", "a fox")
    with imgkit.ImageService() as service:
        made = service.create_image("a fox", response_format="url", size="256x256")
        with pytest.raises(imgkit.ConfigurationError, match="download"):
            service.dry_run("create_image_variation", made[0])


def test_credentials_in_any_header_are_hidden() -> None:
    """Hides a credential of an auth plugin in any header, in the text and in the request's repr."""
    vault = HeaderAuth("x-vault", "CANARY-0123456789")
    seen: list[str] = []

    class Keep:
        wire_errors: tuple[type[Exception], ...] = (OSError,)
        unsent_errors: tuple[type[Exception], ...] = ()

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


@pytest.mark.parametrize(("provider", "path"), [("comfyui", "/prompt"), ("a1111", "/sdapi/v1/txt2img")])
def test_a_dry_run_leaves_no_job(provider: str, path: str, tmp_path: Path) -> None:
    """A dry run shows one request, and neither records nor names a job that will never be sent."""
    with (
        imgkit.ImageService(
            "requests", provider=provider, model="a.safetensors", state_folder=tmp_path
        ) as service,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")
        text = service.dry_run("create_image", "a red fox")
    assert text.startswith("POST http://127.0.0.1:")
    assert path in text.splitlines()[0]
    assert "such requests" not in text
    assert list(tmp_path.rglob("*.json")) == []
