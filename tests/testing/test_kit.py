"""imgkit's own provider and plugins under the contracts that strangers get, and proof that these can fail."""

from __future__ import annotations

import itertools
import json
import logging
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.default_plugins.auth import BearerAuth, HeaderAuth
from imgkit.default_plugins.logging import LoggingPlugin
from imgkit.default_plugins.spool import SpoolPlugin
from imgkit.default_plugins.telemetry import TelemetryPlugin
from imgkit.models import (
    CreateImageEditRequest,
    CreateImageRequest,
    CreateImageVariationRequest,
    ImageRequest,
)
from imgkit.providers.base import Provider
from imgkit.providers.openai import OpenAIProvider
from imgkit.testing import PluginContract, StreamingProviderContract, WireServer, canary
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import drop, reply


class TestOpenAI(StreamingProviderContract):
    def provider(self) -> Provider:
        return OpenAIProvider()

    def reply(self, pictures: list[bytes]) -> bytes:
        return json.dumps(
            {**answer(*pictures), "data": answer(*pictures)["data"] if pictures else []}
        ).encode()

    def partial_event(self, picture: bytes, index: int) -> bytes:
        more = {"partial_image_index": index, "type": "image_edit.partial_image"}
        return json.dumps({**answer(picture)["data"][0], **more}).encode()

    def complete_event(self, picture: bytes) -> bytes:
        return json.dumps({"type": "image_edit.completed", **answer(picture)["data"][0]}).encode()

    def requests(self) -> list[ImageRequest]:
        return [
            CreateImageRequest(prompt="a fox", n=2, extra_body={"new": [1, {"x": None}]}),
            CreateImageEditRequest(image=(png(1), png(2)), prompt="a hat"),
            CreateImageVariationRequest(image=png(1)),
        ]


class TestLogging(PluginContract):
    def plugin(self, folder: Path) -> object:
        return LoggingPlugin()


class TestTelemetry(PluginContract):
    def plugin(self, folder: Path) -> object:
        return TelemetryPlugin()


class TestCache(PluginContract):
    repeats = True  # of twelve equal calls at once it sends one

    def plugin(self, folder: Path) -> object:
        return imgkit.CachePlugin(folder=folder / "cache")


class TestRetry(PluginContract):
    repeats = True

    def plugin(self, folder: Path) -> object:
        return imgkit.RetryPlugin(retry_server_errors=0)


class TestHeaderAuth(PluginContract):
    secret = "another-key-0123456789"

    def plugin(self, folder: Path) -> object:
        return HeaderAuth("x-own-key", self.secret)


class TestBearerAuth(PluginContract):
    def plugin(self, folder: Path) -> object:
        return BearerAuth(canary.KEY)


class TestSpool(PluginContract):
    def plugin(self, folder: Path) -> object:
        return SpoolPlugin()


class _Leaks:
    def __init__(self, how: str, folder: Path) -> None:
        self.how, self.folder = how, folder

    @imgkit.hookimpl(trylast=True)
    def imgkit_authenticate(self, request: Any) -> None:
        return None

    @imgkit.hookimpl(tryfirst=True)
    def imgkit_prepare(self, request: Any) -> None:
        if self.how == "log":
            logging.getLogger("mine").warning("with %s", {"key": canary.KEY})
        elif self.how == "file":
            (self.folder / "x").write_bytes(canary.spellings()[2].encode())
        elif self.how == "repr":
            self.key = canary.KEY

    def __repr__(self) -> str:
        return f"Leaks({vars(self)})" if self.how == "repr" else "Leaks()"


@pytest.mark.parametrize("how", ["log", "file", "repr"])
def test_the_scan_finds_leaks(how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Contract(PluginContract):
        def plugin(self, folder: Path) -> object:
            return _Leaks(how, folder)

    with pytest.raises(AssertionError):
        Contract().test_no_secret_leaves("sync", "success", tmp_path, caplog)


def test_the_scan_looks_everywhere(tmp_path: Path) -> None:
    """Each hiding place is found, in each spelling, and what is clean is not accused."""
    assert canary.found_in("nothing", ValueError("nothing"), folders=[tmp_path]) == []
    for text in canary.spellings():
        error = ValueError("x")
        error.add_note(f"note {text}")
        assert canary.found_in(error)
        assert canary.found_in({"a": text})
        assert canary.found_in(text.encode())
        with pytest.raises(ValueError, match="no word") as caught:
            _frame_with(text)
        assert canary.found_in(caught.value)
    record = logging.LogRecord("n", 10, "p", 1, "%s", (canary.KEY,), None)
    assert canary.found_in(records=[record])


def _frame_with(text: str) -> None:
    code = compile("def f(hidden):\n    raise ValueError('no word of it')\nf(text)", "module", "exec")
    exec(code, {"text": text, "__name__": "elsewhere"})


NUMBERS = itertools.count()


class Wrong(OpenAIProvider):
    """Lets builtin exceptions out, and never says the same twice."""

    def decode(self, head: Any, body: Any, target: Any, secrets: Any = ()) -> Any:
        json.loads(body.raw())
        return super().decode(head, body, target, secrets)

    def encode(self, request: Any, inputs: Any, target: Any) -> Any:
        from dataclasses import replace

        made = super().encode(request, inputs, target)
        return replace(made, headers={**made.headers, "x-number": str(next(NUMBERS))})

    def error(self, head: Any, body: bytes, secrets: Any) -> Any:
        return imgkit.ServerError(body.decode("latin-1") or "nothing at all", status=head.status)


@pytest.mark.parametrize(
    "test",
    ["test_requests", "test_replies_without_pictures", "test_errors", "test_errors_that_the_core_acts_on"],
)
def test_the_provider_contract_can_fail(test: str) -> None:
    class Contract(TestOpenAI):
        def provider(self) -> Provider:
            return Wrong()

    with pytest.raises((AssertionError, ValueError)):
        getattr(Contract(), test)(*([500] if test == "test_errors" else []))


class _Alters:
    @imgkit.hookimpl
    def imgkit_retry_wait(self, outcome: Any) -> float:
        return 0.0 if outcome.attempts < 2 else -1.0


def test_the_plugin_contract_can_fail(tmp_path: Path) -> None:
    class Contract(PluginContract):
        def plugin(self, folder: Path) -> object:
            return _Alters()

    with pytest.raises(AssertionError):
        Contract().test_calls_end_as_without_it("sync", "closed", tmp_path)


def test_scripts_must_be_consumed() -> None:
    with WireServer(reply(200, answer()), drop) as server, imgkit.ImageService(
        "requests", base_url=server.base_url
    ) as service:  # fmt: skip
        service.create_image("a fox")
        with pytest.raises(AssertionError, match="1 of 2 scripts"):
            server.assert_consumed()


def test_unknown_names() -> None:
    import imgkit.testing

    with pytest.raises(AttributeError, match="NoSuchContract"):
        imgkit.testing.NoSuchContract  # noqa: B018 - looked up for its error
