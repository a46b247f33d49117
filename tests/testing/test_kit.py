"""Our own plugins pass the public contract, and broken plugins fail it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.default_plugins.auth import BearerAuth, HeaderAuth
from imgkit.default_plugins.logging import LoggingPlugin
from imgkit.default_plugins.spool import SpoolPlugin
from imgkit.default_plugins.telemetry import TelemetryPlugin
from imgkit.testing import PluginContract, WireServer, canary
from imgkit.testing.samples import answer
from imgkit.testing.wire_server import drop, reply


class TestLogging(PluginContract):
    def plugin(self, folder: Path) -> object:
        return LoggingPlugin()


class TestTelemetry(PluginContract):
    def plugin(self, folder: Path) -> object:
        return TelemetryPlugin()


class TestCache(PluginContract):
    # It sends a single request for twelve equal calls.
    repeats = True

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


class LeakyPlugin:
    def __init__(self, place: str, folder: Path) -> None:
        self.place, self.folder = place, folder

    @imgkit.hookimpl(trylast=True)
    def imgkit_authenticate(self, request: Any) -> None:
        return None

    @imgkit.hookimpl(tryfirst=True)
    def imgkit_prepare(self, request: Any) -> None:
        if self.place == "log":
            logging.getLogger("mine").warning("with %s", {"key": canary.KEY})
        elif self.place == "file":
            (self.folder / "x").write_bytes(canary.encode_variants()[2].encode())
        elif self.place == "repr":
            self.key = canary.KEY

    def __repr__(self) -> str:
        return f"Leaks({vars(self)})" if self.place == "repr" else "Leaks()"


@pytest.mark.parametrize("place", ["log", "file", "repr"])
def test_plugin_contract_finds_leaks(place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Fails a plugin that leaks the key into a log, a file or its repr."""

    class Contract(PluginContract):
        def plugin(self, folder: Path) -> object:
            return LeakyPlugin(place, folder)

    with pytest.raises(AssertionError):
        Contract().test_leaks_no_secret("sync", "success", tmp_path, caplog)


def test_find_secret_searches_all_places(tmp_path: Path) -> None:
    """Finds each encoding of the key in each place, and nothing in clean values."""
    assert canary.find_secret("nothing", ValueError("nothing"), folders=[tmp_path]) == []
    for text in canary.encode_variants():
        error = ValueError("x")
        error.add_note(f"note {text}")
        assert canary.find_secret(error)
        assert canary.find_secret({"a": text})
        assert canary.find_secret(text.encode())
        with pytest.raises(ValueError, match="no word") as caught:
            raise_with_secret_in_frame(text)
        assert canary.find_secret(caught.value)
    record = logging.LogRecord("n", 10, "p", 1, "%s", (canary.KEY,), None)
    assert canary.find_secret(records=[record])


def raise_with_secret_in_frame(text: str) -> None:
    code = compile("def f(hidden):\n    raise ValueError('no word of it')\nf(text)", "module", "exec")
    exec(code, {"text": text, "__name__": "elsewhere"})


class RetriesUnknownOutcomes:
    @imgkit.hookimpl
    def imgkit_retry_wait(self, outcome: Any) -> float:
        return 0.0 if outcome.attempts < 2 else -1.0


class FailingSink:
    """A plugin whose sink fails."""

    @imgkit.hookimpl
    def imgkit_sinks(self) -> list[Any]:
        return [self]

    def receive(self, response: Any) -> None:
        raise ZeroDivisionError


class RefusingGuard:
    """A plugin whose guard refuses every stream."""

    @imgkit.hookimpl
    def imgkit_guards(self) -> list[Any]:
        return [self]

    def check(self, request: Any, call: Any) -> None:
        if call.partial_images is not None:
            raise imgkit.ModerationBlockedError("no", status=0)


@pytest.mark.parametrize(
    ("plugin", "test"), [(FailingSink, "test_warns_of_nothing"), (RefusingGuard, "test_serves_streams")]
)
def test_plugin_contract_finds_bad_sinks_and_guards(plugin: type, test: str, tmp_path: Path) -> None:
    """Fails a plugin whose sink fails, or whose guard refuses a harmless request."""

    class Contract(PluginContract):
        def plugin(self, folder: Path) -> object:
            return plugin()

    for flavor in ("sync", "async"):
        with pytest.raises(AssertionError):
            getattr(Contract(), test)(flavor, tmp_path)


class GoodSinkAndGuard(FailingSink, RefusingGuard):
    """A plugin with a sink and a guard that do no harm."""

    def receive(self, response: Any) -> None:
        """Do nothing."""

    def check(self, request: Any, call: Any) -> None:
        """Do nothing."""


class TestSinkAndGuard(PluginContract):
    def plugin(self, folder: Path) -> object:
        return GoodSinkAndGuard()


def test_plugin_contract_can_fail(tmp_path: Path) -> None:
    """Fails a plugin that repeats a request of unknown outcome."""

    class Contract(PluginContract):
        def plugin(self, folder: Path) -> object:
            return RetriesUnknownOutcomes()

    with pytest.raises(AssertionError):
        Contract().test_does_not_change_the_outcome("sync", "closed", tmp_path)


def test_assert_consumed_counts_unused_scripts() -> None:
    """Counts the scripts that had no connection."""
    with WireServer(reply(200, answer()), drop) as server, imgkit.ImageService(
        "requests", base_url=server.base_url
    ) as service:  # fmt: skip
        service.create_image("a fox")
        with pytest.raises(AssertionError, match="1 of 2 scripts"):
            server.assert_consumed()


def test_unknown_name_raises_attribute_error() -> None:
    """Raises an AttributeError for an unknown name of the room."""
    import imgkit.testing

    with pytest.raises(AttributeError, match="NoSuchContract"):
        imgkit.testing.NoSuchContract  # noqa: B018 - looked up for its error
