"""Records of calls: dry runs, recorders and cassettes have no key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.testing import canary, cassette
from tests.conftest import ServiceRunner
from tests.support.leaks import SHAPES, spell
from tests.support.pictures import answer, picture
from tests.support.wire_server import WireServer, reply

KEY = SHAPES["no shape"](77)


def test_dry_runs_show_no_secret_members() -> None:
    """A dry run shows secret members of JSON and of forms, and secret headers, as an ellipsis."""
    options: dict[str, Any] = {
        "extra_body": {"api_key": "CANARY", "auth": {"a": ["CANARY"]}, "seed": 5, "keywords": "castle"},
        "extra_headers": {"x-token": "CANARY"},
    }
    with imgkit.ImageService() as service:
        text = service.dry_run("create_image", "a fox", **options)
        form = service.dry_run("create_image_edit", picture(), "a fox", **options)
    assert "CANARY" not in text + form
    assert json.loads(text.split("\n\n")[1]) == {
        "prompt": "a fox", "seed": 5, "api_key": "…", "auth": {"a": ["…"]}, "keywords": "castle",
    }  # fmt: skip
    assert 'api_key = "…"' in form
    assert 'keywords = "castle"' in form


class RecordingPlugin:
    """A plugin whose recorder keeps what it gets."""

    def __init__(self) -> None:
        self.exchanged: list[Any] = []

    @imgkit.hookimpl
    def imgkit_recorder(self) -> Any:
        return self

    def record(self, exchanged: Any) -> None:
        self.exchanged.append(exchanged)


def test_recorders_get_no_credentials(flavor: ServiceRunner, http_backend: str) -> None:
    """A recorder gets neither the key nor secret headers of the caller, as the server repeats them or not."""
    recorder = RecordingPlugin()
    with WireServer(reply(200, {**answer(), "note": KEY}, x_echo=KEY)) as server:
        flavor.run(
            lambda service: service.create_image("a fox", extra_headers={"x-token": KEY, "x-plain": "1"}),
            http_backend,
            base_url=server.base_url,
            api_key=KEY,
            plugins=[recorder],
        )
    (exchanged,) = recorder.exchanged
    assert exchanged.request.headers["x-plain"] == "1"
    shown = (
        f"{list(exchanged.request.headers.items())}{list(exchanged.head.headers.items())}{exchanged.reply!r}"
    )
    assert KEY not in shown


@pytest.mark.parametrize("operation", ["create_image", "create_image_edit"])
def test_cassettes_of_vcrpy_have_no_key(
    flavor: ServiceRunner, http_backend: str, tmp_path: Path, operation: str
) -> None:
    """A key that a server repeats is on no cassette, in headers and bodies of requests and replies."""
    keys = [SHAPES["no shape"](number) for number in range(3)]
    text = " ".join(form for key in keys for form in spell(key))
    body = {**answer(), "note": text, "deep": [{"a": text}]}
    options: dict[str, Any] = {
        "extra_headers": {"x-auth-list": f"{keys[1]}, other"},
        "extra_body": {"auth": {"user": keys[2]}},
    }
    arguments = ["a fox"] if operation == "create_image" else [picture(), "a fox"]

    def work(service: Any) -> Any:
        return getattr(service, operation)(*arguments, **options)

    echoes = " ".join(keys)
    with WireServer(reply(200, body, x_echo=echoes, set_cookie=echoes, x_request_id=echoes)) as server:
        for _ in range(2):
            with cassette(tmp_path / "fox.yaml"):
                flavor.run(work, http_backend, base_url=server.base_url, api_key=keys[0])
    assert server.posts == 1
    for key in keys:
        assert canary.find_secret(folders=[tmp_path], secret=key) == []
