"""Variations: native where the server has them, otherwise emulated by an edit."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.core.variations import PROMPT
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import Line, Script, WireServer, reply
from tests.support.official import official

KEY = "sk-test-0123456789"
MISSING = reply(404, {"detail": "Not Found"})


def build_server(variations: Script | None) -> tuple[WireServer, list[str]]:
    """Return a server with this variations endpoint, and the endpoints that it is asked for."""
    asked: list[str] = []

    def script(line: Line) -> None:
        asked.append(line.request_line.split()[1].rpartition("/")[2])
        if asked[-1] == "variations":
            (variations or MISSING)(line)
        else:
            reply(200, answer())(line)

    return WireServer(script), asked


def create_variation(flavor: Any, backend: str, server: WireServer, **options: Any) -> Any:
    """Create a variation with either service."""
    own = options.pop("own_host", False)
    where = {"provider": official(server.base_url)} if own else {"base_url": server.base_url}
    call = lambda service: service.create_image_variation(png(), **options)  # noqa: E731
    return flavor.run(call, backend, api_key=KEY, model="gpt-image-2", **where)


def test_the_official_host_gets_an_edit(flavor: Any, http_backend: str) -> None:
    """Sends nothing to the retired endpoint; the response names the emulation."""
    server, asked = build_server(None)
    with server:
        response = create_variation(flavor, http_backend, server, own_host=True)
        other = create_variation(
            flavor, http_backend, server, own_host=True, variation_prompt="again, at night"
        )
    assert asked == ["edits", "edits"]
    assert response.meta.emulated
    assert response.meta.operation == "create_image_variation"
    assert response.meta.emulation_prompt == PROMPT == response[0].about["prompt"]
    assert other.meta.emulation_prompt == "again, at night"
    (warning,) = response.warnings
    assert warning.startswith("This server has no variations since 2026-")
    assert warning.endswith("; imgkit asked for an edit instead.")


def test_an_emulated_call_starts_once() -> None:
    """Tells observers of one start and of both requests, if an edit stands in for a variation."""
    kinds: list[str] = []

    class Spy:
        @imgkit.hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            kinds.append(type(event).__name__)

    server, _ = build_server(MISSING)
    with server, imgkit.ImageService("requests", base_url=server.base_url, plugins=[Spy()]) as service:
        service.create_image_variation(png())
    assert [kind for kind in kinds if kind in ("Started", "Sent")] == ["Started", "Sent", "Sent"]


@pytest.mark.parametrize("status", [404, 405])
def test_compatible_servers_are_tried_first(flavor: Any, http_backend: str, status: int) -> None:
    """Emulates a variation with a warning after a 404 or 405, which cost nothing."""
    server, asked = build_server(reply(status, {}))
    with server:
        response = create_variation(flavor, http_backend, server)
    assert asked == ["variations", "edits"]
    assert response.meta.emulated
    assert f"no variations (HTTP {status})" in response.warnings[0]
    assert [attempt.status for attempt in response.meta.attempts] == [status, 200]


def test_compatible_servers_with_variations(flavor: Any, http_backend: str) -> None:
    """Uses the server's own variations unless strategy="emulate"."""
    server, asked = build_server(reply(200, answer()))
    with server:
        response = create_variation(flavor, http_backend, server)
        forced = create_variation(flavor, http_backend, server, strategy="emulate")
    assert asked == ["variations", "edits"]
    assert not response.meta.emulated
    assert response.meta.emulation_prompt is None
    assert forced.meta.emulated


def test_offline_is_native(flavor: Any) -> None:
    """The offline backend makes native variations."""
    response = flavor.run(lambda service: service.create_image_variation(png(), size="64x64"))
    assert not response.meta.emulated


@pytest.mark.parametrize(
    "problem",
    [
        reply(404, {"error": {"message": "The model does not exist", "code": "model_not_found"}}),
        reply(400, {"error": {"message": "square pictures only"}}),
        reply(500, {"error": {"message": "sorry", "code": "server_error"}}),
    ],
)
def test_other_failures_are_not_emulated(flavor: Any, problem: Script) -> None:
    """Raises other failures of the variations endpoint without sending an edit."""
    server, asked = build_server(problem)
    with server, pytest.raises(imgkit.ApiError):
        create_variation(flavor, "requests", server)
    assert asked == ["variations"]


def test_native_on_a_retired_endpoint(flavor: Any, http_backend: str) -> None:
    """strategy="native" raises a dated error at the official host, and the server's error elsewhere."""
    server, asked = build_server(None)
    with server:
        with pytest.raises(imgkit.EndpointRetiredError) as caught:
            create_variation(flavor, http_backend, server, own_host=True, strategy="native")
        assert asked == []
        assert caught.value.date == date(2026, 5, 12)
        assert caught.value.status == 0
        assert "2026-05-12" in str(caught.value)
        assert 'strategy="auto"' in str(caught.value)
        with pytest.raises(imgkit.NotFoundError):
            create_variation(flavor, http_backend, server, strategy="native")
        assert asked == ["variations"]


def test_a_wrong_strategy(flavor: Any) -> None:
    """Refuses unknown strategies and an empty variation prompt."""
    with pytest.raises(imgkit.InvalidRequestError, match="strategy"):
        flavor.run(lambda service: service.create_image_variation(png(), strategy="magic"))
    with pytest.raises(imgkit.InvalidRequestError, match="prompt"):
        call = lambda service: service.create_image_variation(png(), strategy="emulate", variation_prompt=" ")  # noqa: E731
        flavor.run(call)


@pytest.mark.parametrize("strategy", ["native", "emulate"])
def test_files_are_named_after_the_input(tmp_path: Path, strategy: Any) -> None:
    """Names a variation after a path, an open file or a saved image, and after nothing else."""
    path = tmp_path / "My Fox.png"
    path.write_bytes(data := png(size_px=64))
    with imgkit.ImageService() as service, path.open("rb") as stream:
        saved = service.create_image("a hat", size="64x64", save_to=tmp_path / "hat.png")[0]
        named: dict[Any, str]
        named = {path: "my-fox", str(path): "my-fox", stream: "my-fox", saved: "hat", data: "image"}
        for number, (image, name) in enumerate(named.items()):
            folder = tmp_path / str(number)
            response = service.create_image_variation(image, n=2, strategy=strategy, save_to=f"{folder}/")
            names = [image.path.name for image in response if image.path]
            assert names == [f"{name}-variation-1.png", f"{name}-variation-2.png"]
            kept = service.create_image_variation(image, strategy=strategy, save_to=folder / "own.png")[0]
            assert kept.path == folder / "own.png"
